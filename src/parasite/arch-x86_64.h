/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the parasite knows of x86-64 and its Linux ABI: instructions of the
 * target that system calls can be run on, the frame that rt_sigreturn(2)
 * reads, and how an interrupted system call is started again. No state, no
 * logging.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sys/procfs.h"
#include "sys/ptrace.h"

/* Below the stack pointer, the compiler's to use without moving it. */
#define ARCH_RED_ZONE 128

/* The length of a `syscall` instruction. */
#define ARCH_SYSCALL_LEN 2

/* The largest XSAVE area that we handle; AMX makes it 11008 bytes. */
#define ARCH_XSTATE_MAX 16384

/* What a store gadget pops at most before it returns, in 8-byte slots. */
#define ARCH_STORE_SLOTS 7

/*
 * Addresses in the target's mapped files of instruction sequences that were
 * meant for something else:
 *   syscall_ret  syscall; ret
 *   sigreturn    mov $15,%eax; syscall, or what comes to the same (the C
 *		  library's, or Go's, signal restorer)
 *   store        mov %eax,(REG); drop `store_slots` stack slots; ret
 * `store` may be 0; REG is at `store_reg` in struct user_regs_struct.
 */
struct arch_gadgets {
	uint64_t syscall_ret;
	uint64_t sigreturn;
	uint64_t store;
	size_t store_reg;
	size_t store_slots;
};

/*
 * The start of the kernel's struct rt_sigframe (arch/x86/include/asm/
 * sigframe.h), as far as rt_sigreturn(2) reads it. When `ret` pops `pretcode`
 * and lands in the sigreturn gadget, the stack pointer is where the kernel
 * expects it: behind it.
 */
struct arch_sigframe {
	uint64_t pretcode;
	uint64_t uc_flags;
	uint64_t uc_link;
	uint64_t ss_sp;
	uint32_t ss_flags;
	uint32_t pad;
	uint64_t ss_size;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2;
	uint64_t fpstate;
	uint64_t reserved[8];
	uint64_t sigmask;
};

_Static_assert(offsetof(struct arch_sigframe, r8) == 48 &&
		       offsetof(struct arch_sigframe, fpstate) == 232 &&
		       sizeof(struct arch_sigframe) == 312,
	       "the layout is the kernel's");

/*
 * Looks for gadgets in private, read-only files that the target maps as code,
 * the vdso and the C library first. 0, or -ENOENT when `syscall_ret` or
 * `sigreturn` is nowhere.
 */
int arch_find_gadgets(pid_t pid, const struct proc_maps *maps,
		      struct arch_gadgets *gadgets);

/* Whether they are still there: a program that was executed meanwhile has
 * others. */
bool arch_has_gadgets(pid_t pid, const struct arch_gadgets *gadgets);

/* Makes `regs` those of a thread that is about to run system call `nr` with
 * `args` on the gadget and then returns to what is at `remote_sp`. */
void arch_set_call(struct user_regs_struct *regs,
		   const struct arch_gadgets *gadgets, uint64_t remote_sp,
		   long nr, const uint64_t args[6]);

/* Has the result of the call stored at `store_to` when it returns to the store
 * gadget. */
void arch_set_store(struct user_regs_struct *regs,
		    const struct arch_gadgets *gadgets, uint64_t store_to);

/* Only number and arguments, for a thread stopped at the entry of another. */
void arch_replace_call(struct user_regs_struct *regs, long nr,
		       const uint64_t args[6]);

/*
 * From a system call that would be restarted by the kernel to one that is
 * about to be made: what a thread needs that reaches `regs` without passing
 * the kernel's signal code. One with a time limit gets its whole time again.
 * False when there is none.
 */
bool arch_rewind_syscall(struct user_regs_struct *regs);

/*
 * A call with a time limit that was interrupted before goes on as
 * restart_syscall(2), which after rt_sigreturn(2) gives EINTR. Puts in its
 * place the number of the call that it is, where the code of the thread tells.
 */
void arch_name_restarted(pid_t tid, struct user_regs_struct *regs);

/* A frame that loads `regs`, `sigmask` and the XSAVE area at `remote_fpu`; the
 * alternate signal stack stays what it is. */
void arch_fill_sigframe(struct arch_sigframe *frame,
			const struct arch_gadgets *gadgets,
			const struct user_regs_struct *regs, uint64_t sigmask,
			uint64_t remote_fpu);

/*
 * From ptrace's XSAVE area of `len` bytes in a buffer of ARCH_XSTATE_MAX to the
 * one in a signal frame: marks and sizes are added. Returns its length, 0 when
 * it is not understood.
 */
size_t arch_mark_xstate(void *xstate, size_t len);

/*
 * Whether the thread is inside of a restartable sequence (rseq(2)), which the
 * kernel aborts only if it finds the instruction pointer there when the thread
 * goes on. 1, 0, or -errno.
 */
int arch_in_rseq(pid_t tid, const struct user_regs_struct *regs);
