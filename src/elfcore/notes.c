/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "elfcore/internal.h"

#include <elf.h>
#include <string.h>

#include <sys/time.h>

#include "base/util.h"

#define SIGINFO_LEN 128
#define FPREGS_LEN  512 /* what the extended state begins with */

/*
 * As <sys/procfs.h>, which with src/ in the include path is another file, and
 * the kernel's elfcore.h have them.
 */
struct elf_prstatus {
	int32_t si_signo, si_code, si_errno;
	int16_t pr_cursig;
	uint64_t pr_sigpend, pr_sighold;
	int32_t pr_pid, pr_ppid, pr_pgrp, pr_sid;
	struct timeval pr_utime, pr_stime, pr_cutime, pr_cstime;
	uint64_t pr_reg[27];
	int32_t pr_fpvalid;
};

struct elf_prpsinfo {
	char pr_state, pr_sname, pr_zomb, pr_nice;
	uint64_t pr_flag;
	uint32_t pr_uid, pr_gid;
	int32_t pr_pid, pr_ppid, pr_pgrp, pr_sid;
	char pr_fname[16], pr_psargs[80];
};

_Static_assert(sizeof(struct elf_prstatus) == 336, "as the kernel's");
_Static_assert(sizeof(struct elf_prpsinfo) == 136, "as the kernel's");

static void add_note(struct buffer *to, const char *name, uint32_t type,
		     const void *data, size_t len)
{
	Elf64_Nhdr header = {
		.n_namesz = (uint32_t)strlen(name) + 1,
		.n_descsz = (uint32_t)len,
		.n_type = type,
	};

	buffer_append(to, &header, sizeof(header));
	buffer_append(to, name, header.n_namesz);
	buffer_align(to, 4);
	buffer_append(to, data, len);
	buffer_align(to, 4);
}

static struct timeval timeval_of(uint64_t ns)
{
	return (struct timeval){
		.tv_sec = (time_t)(ns / 1000000000),
		.tv_usec = (suseconds_t)(ns % 1000000000 / 1000),
	};
}

/* The kernel gives the numbers of the process's own namespace, as does the C
 * library in its memory, by which debuggers find a thread. What is outside of
 * it is 0. */
static int32_t own_tid(const struct image_thread *thread)
{
	return thread->ns_tid ? thread->ns_tid : thread->tid;
}

static int32_t own_id(const struct image_process *process, pid_t id)
{
	return process->threads[0].ns_tid ? 0 : id;
}

static void add_prstatus(struct buffer *to, const struct image_process *process,
			 const struct image_thread *thread)
{
	struct elf_prstatus status = {
		.pr_sigpend = thread->sigpending,
		.pr_sighold = thread->sigblocked,
		.pr_pid = own_tid(thread),
		.pr_ppid = own_id(process, process->ppid),
		.pr_pgrp = own_id(process, process->pgrp),
		.pr_sid = own_id(process, process->sid),
		.pr_utime = timeval_of(thread->utime_ns),
		.pr_stime = timeval_of(thread->stime_ns),
		.pr_fpvalid = 1,
	};

	memcpy(&status.pr_reg, thread->regs, sizeof(status.pr_reg));
	add_note(to, "CORE", NT_PRSTATUS, &status, sizeof(status));
}

/* The command line as far as it fits, blanks between the arguments. */
static void fill_psargs(char *to, size_t size,
			const struct image_process *process)
{
	size_t len = 0;

	for (size_t i = 0; i < process->n_args && len < size - 1; i++) {
		const char *arg = process->argv[i];

		if (i)
			to[len++] = ' ';
		while (*arg && len < size - 1)
			to[len++] = *arg++;
	}
	to[len] = '\0';
}

static void add_prpsinfo(struct buffer *to, const struct image_process *process)
{
	/* The kernel numbers the states by their bits. */
	static const char states[] = "RSDTZW";
	const char *state = strchr(states, process->state);
	struct elf_prpsinfo info = {
		.pr_state = state ? (char)(state - states) : 0,
		.pr_sname = process->state,
		.pr_zomb = process->state == 'Z',
		.pr_nice = (char)process->nice,
		.pr_flag = process->flags,
		.pr_uid = process->uids[0],
		.pr_gid = process->gids[0],
		.pr_pid = own_tid(&process->threads[0]),
		.pr_ppid = own_id(process, process->ppid),
		.pr_pgrp = own_id(process, process->pgrp),
		.pr_sid = own_id(process, process->sid),
	};

	memcpy(info.pr_fname, process->name,
	       strnlen(process->name, sizeof(info.pr_fname) - 1));
	fill_psargs(info.pr_psargs, sizeof(info.pr_psargs), process);
	add_note(to, "CORE", NT_PRPSINFO, &info, sizeof(info));
}

/* Where there is no signal the kernel would not dump: debuggers show none for
 * zeros. */
static void add_siginfo(struct buffer *to, const struct image_thread *thread)
{
	static const uint8_t none[SIGINFO_LEN];

	if (thread->siginfo)
		add_note(to, "CORE", NT_SIGINFO, thread->siginfo,
			 thread->siginfo_len);
	else
		add_note(to, "CORE", NT_SIGINFO, none, sizeof(none));
}

/*
 * Its layout is fill_files_note()'s: the count, the unit of the offsets, three
 * words for each mapping, and then the names, in the same order.
 */
static void add_file_note(struct buffer *to,
			  const struct image_process *process)
{
	_cleanup_buffer_ struct buffer words = {}, names = {};
	uint64_t head[2] = { 0, PAGE_SIZE };

	for (size_t i = 0; i < process->n_mappings; i++) {
		const struct image_mapping *map = &process->mappings[i];
		uint64_t file[3] = { map->start, map->end,
				     map->offset / PAGE_SIZE };

		if (!map->inode)
			continue;
		head[0]++;
		buffer_append(&words, file, sizeof(file));
		buffer_append(&names, map->name, strlen(map->name) + 1);
	}
	if (head[0]) {
		_cleanup_buffer_ struct buffer note = {};

		buffer_append(&note, head, sizeof(head));
		buffer_append(&note, words.data, words.len);
		buffer_append(&note, names.data, names.len);
		add_note(to, "CORE", NT_FILE, note.data, note.len);
		to->failed |= words.failed | names.failed | note.failed;
	}
}

static void add_float_notes(struct buffer *to,
			    const struct image_thread *thread)
{
	add_note(to, "CORE", NT_FPREGSET, thread->xstate, FPREGS_LEN);
	add_note(to, "LINUX", NT_X86_XSTATE, thread->xstate,
		 thread->xstate_len);
}

void elfcore_add_notes(struct buffer *to, const struct image_process *process)
{
	add_prstatus(to, process, &process->threads[0]);
	add_prpsinfo(to, process);
	add_siginfo(to, &process->threads[0]);
	add_note(to, "CORE", NT_AUXV, process->auxv, process->auxv_len);
	add_file_note(to, process);
	add_float_notes(to, &process->threads[0]);
	for (size_t i = 1; i < process->n_threads; i++) {
		add_prstatus(to, process, &process->threads[i]);
		add_float_notes(to, &process->threads[i]);
	}
}
