/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "parasite/arch-x86_64.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "sys/vmio.h"

/* The kernel's own codes for "interrupted, to be restarted" (linux/errno.h):
 * they never reach user mode, but a tracer sees them. */
#define ERESTARTSYS	      512
#define ERESTARTNOINTR	      513
#define ERESTARTNOHAND	      514
#define ERESTART_RESTARTBLOCK 516

/* uc_flags, arch/x86/include/uapi/asm/ucontext.h */
#define UC_FP_XSTATE	     1
#define UC_SIGCONTEXT_SS     2
#define UC_STRICT_RESTORE_SS 4

/* arch/x86/include/uapi/asm/sigcontext.h */
#define XSTATE_MAGIC1	   0x46505853
#define XSTATE_MAGIC2	   0x46505845
#define XSTATE_SW_OFFSET   464
#define XSTATE_BV_OFFSET   512
#define XSTATE_LEGACY_SIZE 576 /* with the XSAVE header */

/* AMX tile data: not in a frame before the thread used it. */
#define XFEATURE_TILE_DATA ((uint64_t)1 << 18)

/* Interrupts on, and nothing else, as for a fresh thread. */
#define EFLAGS_PLAIN 0x202

#define SCAN_CHUNK   (256 * KIB)
#define SCAN_OVERLAP 16

/* No gadget is longer. */
#define GADGET_MAX   16
#define SCAN_MAX     (64 * MIB)
/* Of all of a target's code: it may map as much as it likes. */
#define SCAN_ALL_MAX (4 * GIB)

struct store_form {
	uint8_t code[9];
	size_t len;
	size_t reg;
	size_t slots;
};

#define REG(r) offsetof(struct user_regs_struct, r)

/* Registers that neither a system call nor its arguments use. */
static const struct store_form store_forms[] = {
	/* mov %eax,(%rbx); pop %rbx; ret */
	{ { 0x89, 0x03, 0x5b, 0xc3 }, 4, REG(rbx), 1 },
	/* mov %eax,0(%rbp); pop %rbp; ret */
	{ { 0x89, 0x45, 0x00, 0x5d, 0xc3 }, 5, REG(rbp), 1 },
	/* mov %eax,(%r12); pop %r12; ret */
	{ { 0x41, 0x89, 0x04, 0x24, 0x41, 0x5c, 0xc3 }, 7, REG(r12), 1 },
	/* mov %eax,(%rbx); pop %rbx; pop %rbp; ret */
	{ { 0x89, 0x03, 0x5b, 0x5d, 0xc3 }, 5, REG(rbx), 2 },
	/* mov %eax,(%rbx); add $8,%rsp; pop %rbx; pop %rbp; ret */
	{ { 0x89, 0x03, 0x48, 0x83, 0xc4, 0x08, 0x5b, 0x5d, 0xc3 },
	  9,
	  REG(rbx),
	  3 },
};

struct code {
	uint8_t bytes[12];
	size_t len;
};

static const struct code syscall_ret_forms[] = {
	{ { 0x0f, 0x05, 0xc3 }, 3 },
	/* repz ret */
	{ { 0x0f, 0x05, 0xf3, 0xc3 }, 4 },
};

/* The C libraries have the first two, Go the first. The others are of programs
 * that call the kernel themselves. */
static const struct code sigreturn_forms[] = {
	/* mov $15,%rax */
	{ { 0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05 }, 9 },
	/* mov $15,%eax */
	{ { 0xb8, 15, 0, 0, 0, 0x0f, 0x05 }, 7 },
	/* movabs $15,%rax */
	{ { 0x48, 0xb8, 15, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0x05 }, 12 },
	/* xor %eax,%eax; mov $15,%al */
	{ { 0x31, 0xc0, 0xb0, 15, 0x0f, 0x05 }, 6 },
	/* push $15; pop %rax: over the return address, which is used up */
	{ { 0x6a, 15, 0x58, 0x0f, 0x05 }, 5 },
};

/* The address of the first form that is there, or 0. */
static uint64_t scan_forms(const uint8_t *code, size_t len, uint64_t addr,
			   const struct code *forms, size_t n_forms)
{
	for (size_t i = 0; i < n_forms; i++) {
		const uint8_t *at =
			memmem(code, len, forms[i].bytes, forms[i].len);

		if (at)
			return addr + (uint64_t)(at - code);
	}
	return 0;
}

static void scan_chunk(const uint8_t *code, size_t len, uint64_t addr,
		       struct arch_gadgets *g)
{
	const uint8_t *at;

	if (!g->syscall_ret)
		g->syscall_ret = scan_forms(code, len, addr, syscall_ret_forms,
					    ARRAY_SIZE(syscall_ret_forms));
	if (!g->sigreturn)
		g->sigreturn = scan_forms(code, len, addr, sigreturn_forms,
					  ARRAY_SIZE(sigreturn_forms));
	for (size_t i = 0; i < ARRAY_SIZE(store_forms) && !g->store; i++) {
		const struct store_form *form = &store_forms[i];

		at = memmem(code, len, form->code, form->len);
		if (!at)
			continue;
		g->store = addr + (uint64_t)(at - code);
		g->store_reg = form->reg;
		g->store_slots = form->slots;
	}
}

static bool is_complete(const struct arch_gadgets *g)
{
	return g->syscall_ret && g->sigreturn && g->store;
}

/* What cannot be read holds no gadget. */
static void scan_map(pid_t pid, const struct proc_map *map, uint8_t *buf,
		     struct arch_gadgets *g, uint64_t *budget)
{
	uint64_t end = min_u64(map->range.end, map->range.start + SCAN_MAX);

	for (uint64_t at = map->range.start; at < end && !is_complete(g);) {
		size_t len = min_u64(end - at, SCAN_CHUNK);

		if (len > *budget)
			return;
		*budget -= len;
		if (vm_read(pid, at, buf, len))
			return;
		scan_chunk(buf, len, at, g);
		if (len <= SCAN_OVERLAP)
			return;
		at += at + len == end ? len : len - SCAN_OVERLAP;
	}
}

/* Code that is being generated may change under us, files do not. */
static bool is_code_file(const struct proc_map *map)
{
	return map->read && map->exec && !map->write && !map->shared &&
	       map->inode;
}

int arch_find_gadgets(pid_t pid, const struct proc_maps *maps,
		      struct arch_gadgets *gadgets)
{
	_cleanup_free_ uint8_t *buf = malloc(SCAN_CHUNK);
	enum { VDSO, LIBC, OTHER } pass;
	uint64_t budget = SCAN_ALL_MAX;

	if (!buf)
		return -ENOMEM;
	memset(gadgets, 0, sizeof(*gadgets));
	for (pass = VDSO; pass <= OTHER; pass++) {
		for (size_t i = 0; i < maps->n_maps; i++) {
			const struct proc_map *map = &maps->maps[i];
			bool vdso = !strcmp(map->path, "[vdso]");
			bool libc = strstr(map->path, "/libc") ||
				    strstr(map->path, "/ld-musl");

			if (is_complete(gadgets))
				return 0;
			if (pass == VDSO ? vdso && !map->write
					 : is_code_file(map) &&
						   libc == (pass == LIBC))
				scan_map(pid, map, buf, gadgets, &budget);
		}
	}
	return gadgets->syscall_ret && gadgets->sigreturn ? 0 : -ENOENT;
}

bool arch_has_gadgets(pid_t pid, const struct arch_gadgets *gadgets)
{
	const uint64_t addrs[] = { gadgets->syscall_ret, gadgets->sigreturn,
				   gadgets->store };
	struct arch_gadgets found = {};

	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++) {
		uint8_t code[GADGET_MAX];

		if (!addrs[i])
			continue;
		if (vm_read(pid, addrs[i], code, sizeof(code)))
			return false;
		scan_chunk(code, sizeof(code), addrs[i], &found);
	}
	return found.syscall_ret == gadgets->syscall_ret &&
	       found.sigreturn == gadgets->sigreturn &&
	       found.store == gadgets->store;
}

static void set_args(struct user_regs_struct *regs, const uint64_t args[6])
{
	regs->rdi = args[0];
	regs->rsi = args[1];
	regs->rdx = args[2];
	regs->r10 = args[3];
	regs->r8 = args[4];
	regs->r9 = args[5];
}

void arch_set_call(struct user_regs_struct *regs,
		   const struct arch_gadgets *gadgets, uint64_t remote_sp,
		   long nr, const uint64_t args[6])
{
	set_args(regs, args);
	regs->rax = (uint64_t)nr;
	/* Not in a system call: the kernel must not restart one. */
	regs->orig_rax = (uint64_t)-1;
	regs->rip = gadgets->syscall_ret;
	regs->rsp = remote_sp;
	regs->eflags = EFLAGS_PLAIN;
}

void arch_set_store(struct user_regs_struct *regs,
		    const struct arch_gadgets *gadgets, uint64_t store_to)
{
	memcpy((char *)regs + gadgets->store_reg, &store_to, sizeof(store_to));
}

void arch_replace_call(struct user_regs_struct *regs, long nr,
		       const uint64_t args[6])
{
	set_args(regs, args);
	regs->orig_rax = (uint64_t)nr;
}

bool arch_rewind_syscall(struct user_regs_struct *regs)
{
	if ((long)regs->orig_rax < 0)
		return false;
	switch ((long)-regs->rax) {
	case ERESTARTSYS:
	case ERESTARTNOINTR:
	case ERESTARTNOHAND:
	case ERESTART_RESTARTBLOCK:
		regs->rax = regs->orig_rax;
		regs->rip -= ARCH_SYSCALL_LEN;
		regs->orig_rax = (uint64_t)-1;
		return true;
	default:
		return false;
	}
}

void arch_name_restarted(pid_t tid, struct user_regs_struct *regs)
{
	static const uint32_t restarting[] = { SYS_poll, SYS_nanosleep,
					       SYS_clock_nanosleep, SYS_futex };
	uint8_t code[5 + ARCH_SYSCALL_LEN];
	uint32_t nr;

	/* mov $nr,%eax; syscall */
	if (regs->orig_rax != SYS_restart_syscall ||
	    vm_read(tid, regs->rip - sizeof(code), code, sizeof(code)) ||
	    code[0] != 0xb8 || code[5] != 0x0f || code[6] != 0x05)
		return;
	memcpy(&nr, code + 1, sizeof(nr));
	for (size_t i = 0; i < ARRAY_SIZE(restarting); i++)
		if (nr == restarting[i])
			regs->orig_rax = nr;
}

void arch_fill_sigframe(struct arch_sigframe *frame,
			const struct arch_gadgets *gadgets,
			const struct user_regs_struct *regs, uint64_t sigmask,
			uint64_t remote_fpu)
{
	*frame = (struct arch_sigframe){
		.pretcode = gadgets->sigreturn,
		.uc_flags =
			UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
		/* sigaltstack(2) finds this invalid and changes nothing, and
		 * rt_sigreturn(2) does not mind. */
		.ss_flags = 0x7fff,
		.r8 = regs->r8,
		.r9 = regs->r9,
		.r10 = regs->r10,
		.r11 = regs->r11,
		.r12 = regs->r12,
		.r13 = regs->r13,
		.r14 = regs->r14,
		.r15 = regs->r15,
		.rdi = regs->rdi,
		.rsi = regs->rsi,
		.rbp = regs->rbp,
		.rbx = regs->rbx,
		.rdx = regs->rdx,
		.rax = regs->rax,
		.rcx = regs->rcx,
		.rsp = regs->rsp,
		.rip = regs->rip,
		.eflags = regs->eflags,
		.cs = (uint16_t)regs->cs,
		.ss = (uint16_t)regs->ss,
		.fpstate = remote_fpu,
		.sigmask = sigmask,
	};
}

/* The length of a standard XSAVE area with these features. */
static size_t xstate_size(uint64_t features)
{
	size_t size = XSTATE_LEGACY_SIZE;

	for (unsigned i = 2; i < 63; i++) {
		unsigned eax, ebx, ecx, edx;

		if (!(features >> i & 1))
			continue;
		__cpuid_count(0xd, i, eax, ebx, ecx, edx);
		size = max_u64(size, (uint64_t)ebx + eax);
	}
	return size;
}

/*
 * The kernel takes the state for a whole one when it finds magic2 at the end:
 * at the size that the frame claims (before 6.8), or at the size that the
 * thread's own frames have (since). The two differ where AMX exists and the
 * thread has no tile data; then a mark at both ends serves both, for nothing
 * reads the space between.
 */
size_t arch_mark_xstate(void *xstate, size_t len)
{
	struct {
		uint32_t magic1;
		uint32_t extended_size;
		uint64_t xfeatures;
		uint32_t xstate_size;
		uint32_t padding[7];
	} sw = { .magic1 = XSTATE_MAGIC1 };
	const uint32_t magic2 = XSTATE_MAGIC2;
	uint8_t *area = xstate;
	uint64_t in_use;
	size_t size;

	if (len < XSTATE_LEGACY_SIZE || len + sizeof(magic2) > ARCH_XSTATE_MAX)
		return 0;
	/* ptrace has the mask of all features there. */
	memcpy(&sw.xfeatures, area + XSTATE_SW_OFFSET, sizeof(sw.xfeatures));
	memcpy(&in_use, area + XSTATE_BV_OFFSET, sizeof(in_use));

	if (!(in_use & XFEATURE_TILE_DATA))
		sw.xfeatures &= ~XFEATURE_TILE_DATA;
	size = xstate_size(sw.xfeatures);
	if (size > len)
		return 0;
	sw.xstate_size = (uint32_t)size;
	sw.extended_size = (uint32_t)(size + sizeof(magic2));
	memcpy(area + XSTATE_SW_OFFSET, &sw, sizeof(sw));
	memcpy(area + size, &magic2, sizeof(magic2));
	memcpy(area + len, &magic2, sizeof(magic2));
	return len + sizeof(magic2);
}

int arch_in_rseq(pid_t tid, const struct user_regs_struct *regs)
{
	/* linux/rseq.h */
	struct {
		uint32_t version;
		uint32_t flags;
		uint64_t start_ip;
		uint64_t post_commit_offset;
		uint64_t abort_ip;
	} cs;
	uint64_t rseq, remote_cs;
	int r;

	r = ptrace_get_rseq(tid, &rseq);
	if (r || !rseq)
		return r;
	/* struct rseq: two CPU numbers, then the current sequence. Where this
	 * cannot be read, the kernel will not find a sequence either. */
	if (vm_read(tid, rseq + 8, &remote_cs, sizeof(remote_cs)) ||
	    !remote_cs || vm_read(tid, remote_cs, &cs, sizeof(cs)))
		return 0;
	return regs->rip - cs.start_ip < cs.post_commit_offset;
}
