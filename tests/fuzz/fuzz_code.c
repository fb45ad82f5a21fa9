/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "parasite/arch-x86_64.h"

#define CODE_LEN (4 * PAGE_SIZE)

static uint8_t *map_code(void)
{
	static uint8_t *code;

	if (!code)
		code = mmap(NULL, CODE_LEN, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fuzz_require(code != MAP_FAILED);
	return code;
}

/* Where the thread of a target stands, and what its stack is in a frame. */
static void look_at_thread(const uint8_t *code, size_t len,
			   const struct arch_gadgets *gadgets)
{
	static uint8_t xstate[ARCH_XSTATE_MAX];
	struct user_regs_struct regs = {};
	struct arch_sigframe frame;

	memcpy(&regs, code, sizeof(regs));
	arch_rewind_syscall(&regs);
	regs.rip = (uintptr_t)code + len / 2;
	arch_name_restarted(getpid(), &regs);
	regs.rip = (uintptr_t)code;
	arch_name_restarted(getpid(), &regs);
	arch_fill_sigframe(&frame, gadgets, &regs, 0, 0);
	memcpy(xstate, code, len);
	fuzz_require(arch_mark_xstate(xstate, len) <= sizeof(xstate));
}

/*
 * The code and the registers of a target: instructions are looked for that
 * system calls can be run on, and the one that a thread stands behind.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t *code = map_code();
	struct proc_map map = {
		.range = { (uintptr_t)code, (uintptr_t)code + CODE_LEN },
		.read = true,
		.exec = true,
		.inode = 1,
		.path = (char *)"/lib/libc.so.6",
	};
	struct proc_maps maps = { &map, 1 };
	struct arch_gadgets gadgets;

	len = min_u64(len, CODE_LEN);
	memset(code, 0, CODE_LEN);
	/* At the end: what is too long leaves the mapping. */
	memcpy(code + CODE_LEN - len, data, len);
	if (!arch_find_gadgets(getpid(), &maps, &gadgets)) {
		fuzz_require(gadgets.syscall_ret >= map.range.start &&
			     gadgets.syscall_ret < map.range.end);
		fuzz_require(gadgets.sigreturn >= map.range.start &&
			     gadgets.sigreturn < map.range.end);
		arch_has_gadgets(getpid(), &gadgets);
	}
	memmove(code, code + CODE_LEN - len, len);
	look_at_thread(code, len, &gadgets);
	return 0;
}
