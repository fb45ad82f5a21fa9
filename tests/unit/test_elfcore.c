/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"
#include "elfcore/elfcore.h"
#include "image/writer.h"
#include "snapuffd/image-format.h"
#include "sys/procfs.h"
#include "sys/ptrace.h"

#define REGS_LEN   216
#define XSTATE_LEN 1088
#define TAIL_AT	   0x100000

/* A core's headers, found as any reader would. */
struct core {
	const uint8_t *data;
	size_t len;
	const Elf64_Ehdr *header;
	const Elf64_Phdr *loads; /* behind PT_NOTE */
	size_t n_loads;
	const uint8_t *notes, *notes_end;
};

/* `offset`: where in the core `data` begins, behind a header of its own. */
static void core_parse(struct core *core, const uint8_t *head,
		       const uint8_t *data, size_t len, uint64_t offset)
{
	const Elf64_Phdr *phdrs;
	size_t n;

	core->header = (const Elf64_Ehdr *)head;
	assert_memory_equal(head, ELFMAG, SELFMAG);
	assert_int_equal(core->header->e_type, ET_CORE);
	assert_int_equal(core->header->e_machine, EM_X86_64);
	assert_int_equal(core->header->e_phentsize, sizeof(*phdrs));
	n = core->header->e_phnum;
	if (n == PN_XNUM) {
		const Elf64_Shdr *section;

		assert_int_equal(core->header->e_shoff + sizeof(*section),
				 offset + len);
		section = (const void *)(data + core->header->e_shoff - offset);
		n = section->sh_info;
	} else {
		assert_int_equal(core->header->e_shoff, 0);
	}
	assert_true(core->header->e_phoff >= offset &&
		    core->header->e_phoff + n * sizeof(*phdrs) <= offset + len);
	assert_int_equal(core->header->e_phoff % 8, 0);
	phdrs = (const void *)(data + core->header->e_phoff - offset);
	assert_int_equal(phdrs[0].p_type, PT_NOTE);
	core->notes = data + phdrs[0].p_offset - offset;
	core->notes_end = core->notes + phdrs[0].p_filesz;
	core->loads = phdrs + 1;
	core->n_loads = n - 1;
}

/* The next note, or false. */
static bool next_note(struct core *core, uint32_t *type, const uint8_t **desc,
		      size_t *len)
{
	const Elf64_Nhdr *note = (const void *)core->notes;

	if (core->notes == core->notes_end)
		return false;
	*type = note->n_type;
	*len = note->n_descsz;
	*desc = core->notes + sizeof(*note) + ROUND_UP(note->n_namesz, 4);
	assert_string_equal(core->notes + sizeof(*note),
			    *type == NT_X86_XSTATE ? "LINUX" : "CORE");
	core->notes = *desc + ROUND_UP(*len, 4);
	assert_true(core->notes <= core->notes_end);
	return true;
}

static uint8_t registers[REGS_LEN], xstate[XSTATE_LEN];

static struct image_thread thread_of(pid_t tid)
{
	return (struct image_thread){
		.tid = tid,
		.name = "t",
		.regs = registers,
		.regs_len = REGS_LEN,
		.xstate = xstate,
		.xstate_len = XSTATE_LEN,
	};
}

static void check_load(const Elf64_Phdr *load, uint64_t start, uint64_t end,
		       uint64_t file_len, uint64_t offset)
{
	assert_int_equal(load->p_type, PT_LOAD);
	assert_int_equal(load->p_vaddr, start);
	assert_int_equal(load->p_memsz, end - start);
	assert_int_equal(load->p_filesz, file_len);
	if (file_len)
		assert_int_equal(load->p_offset, offset);
	assert_int_equal(load->p_align, 4096);
}

static void loads_follow_what_regions_hold(void **state)
{
	struct image_mapping mappings[] = {
		{ .start = 0x10000,
		  .end = 0x1a000,
		  .held = 0x8000,
		  .prot = PROT_READ | PROT_WRITE,
		  .name = "" },
		{ .start = 0x20000,
		  .end = 0x22000,
		  .held = 0x2000,
		  .prot = PROT_READ,
		  .name = "" },
		{ .start = 0x22000,
		  .end = 0x24000,
		  .held = 0x1000,
		  .prot = PROT_READ | PROT_EXEC,
		  .name = "" },
		{ .start = 0x30000, .end = 0x31000, .name = "" },
		{ .start = 0x40000,
		  .end = 0x80000,
		  .held = 0x40000,
		  .prot = PROT_WRITE,
		  .name = "" },
	};
	/* One spans two mappings; they come in any order. */
	struct image_region regions[] = {
		{ .address = 0x15000,
		  .length = 0x1000,
		  .pages_offset = 0x1000 },
		{ .address = 0x20000,
		  .length = 0x4000,
		  .pages_offset = 0x2000 },
		{ .address = 0x11000,
		  .length = 0x2000,
		  .pages_offset = 0x6000 },
	};
	struct image_thread thread = thread_of(7);
	struct image_process process = {
		.name = "",
		.mappings = mappings,
		.n_mappings = ARRAY_SIZE(mappings),
		.threads = &thread,
		.n_threads = 1,
	};
	struct image_frame frame;
	struct core core;

	(void)state;
	assert_int_equal(elfcore_build(&process, regions, ARRAY_SIZE(regions),
				       TAIL_AT, &frame),
			 0);
	core_parse(&core, frame.head, frame.tail, frame.tail_len, TAIL_AT);
	assert_int_equal(core.n_loads, 7);
	check_load(&core.loads[0], 0x10000, 0x11000, 0, 0);
	check_load(&core.loads[1], 0x11000, 0x15000, 0x2000, 0x6000);
	check_load(&core.loads[2], 0x15000, 0x1a000, 0x1000, 0x1000);
	check_load(&core.loads[3], 0x20000, 0x22000, 0x2000, 0x2000);
	check_load(&core.loads[4], 0x22000, 0x24000, 0x1000, 0x4000);
	check_load(&core.loads[5], 0x30000, 0x31000, 0, 0);
	check_load(&core.loads[6], 0x40000, 0x80000, 0, 0);
	assert_int_equal(core.loads[0].p_flags, PF_R | PF_W);
	assert_int_equal(core.loads[4].p_flags, PF_R | PF_X);
	assert_int_equal(core.loads[5].p_flags, 0);
	image_frame_deinit(&frame);
}

/* Of the kernel's struct elf_prstatus and elf_prpsinfo. */
#define STATUS_LEN  336
#define STATUS_PEND 16
#define STATUS_HOLD 24
#define STATUS_PID  32
#define STATUS_SID  44
#define STATUS_TIME 48
#define STATUS_REGS 112
#define INFO_LEN    136
#define INFO_UID    16
#define INFO_PID    24
#define INFO_FNAME  40
#define INFO_ARGS   56

static uint32_t u32_at(const uint8_t *data, size_t at)
{
	uint32_t value;

	memcpy(&value, data + at, sizeof(value));
	return value;
}

static uint64_t u64_at(const uint8_t *data, size_t at)
{
	uint64_t value;

	memcpy(&value, data + at, sizeof(value));
	return value;
}

static const struct {
	uint32_t type;
	size_t len;
} kernel_order[] = {
	{ NT_PRSTATUS, STATUS_LEN },   { NT_PRPSINFO, INFO_LEN },
	{ NT_SIGINFO, 128 },	       { NT_AUXV, 32 },
	{ NT_FILE, 16 + 24 + 5 },      { NT_FPREGSET, 512 },
	{ NT_X86_XSTATE, XSTATE_LEN }, { NT_PRSTATUS, STATUS_LEN },
	{ NT_FPREGSET, 512 },	       { NT_X86_XSTATE, XSTATE_LEN },
};

static void notes_are_those_of_the_kernel(void **state)
{
	char *argv[] = { "prog", "-x", "" };
	uint8_t auxv[32] = { 6 };
	struct image_mapping mappings[] = {
		{ .start = 0x1000,
		  .end = 0x3000,
		  .offset = 0x5000,
		  .inode = 9,
		  .name = "/a b" },
		{ .start = 0x8000, .end = 0x9000, .name = "[heap]" },
	};
	struct image_thread threads[] = { thread_of(70), thread_of(71) };
	struct image_process process = {
		.pid = 70,
		.ppid = 1,
		.pgrp = 69,
		.sid = 68,
		.uids = { 5 },
		.gids = { 6 },
		.state = 'S',
		.name = "a-name-of-more-than-fifteen",
		.argv = argv,
		.n_args = 3,
		.auxv = auxv,
		.auxv_len = sizeof(auxv),
		.mappings = mappings,
		.n_mappings = 2,
		.threads = threads,
		.n_threads = 2,
	};
	const uint8_t *descs[ARRAY_SIZE(kernel_order)];
	struct image_frame frame;
	struct core core;
	uint32_t type;
	size_t len;

	(void)state;
	for (size_t i = 0; i < REGS_LEN; i++)
		registers[i] = (uint8_t)(i + 1);
	for (size_t i = 0; i < XSTATE_LEN; i++)
		xstate[i] = (uint8_t)(i * 3);
	threads[1].sigpending = 1 << 9;
	threads[1].sigblocked = 1ull << 40;
	threads[1].utime_ns = 3000007000;
	assert_int_equal(elfcore_build(&process, NULL, 0, TAIL_AT, &frame), 0);
	core_parse(&core, frame.head, frame.tail, frame.tail_len, TAIL_AT);
	for (size_t i = 0; i < ARRAY_SIZE(kernel_order); i++) {
		assert_true(next_note(&core, &type, &descs[i], &len));
		assert_int_equal(type, kernel_order[i].type);
		assert_int_equal(len, kernel_order[i].len);
	}
	assert_false(next_note(&core, &type, &descs[0], &len));

	assert_int_equal(u32_at(descs[0], STATUS_PID), 70);
	assert_int_equal(u32_at(descs[7], STATUS_PID), 71);
	assert_int_equal(u32_at(descs[7], STATUS_SID), 68);
	assert_int_equal(u64_at(descs[7], STATUS_PEND), 1 << 9);
	assert_int_equal(u64_at(descs[7], STATUS_HOLD), 1ull << 40);
	assert_int_equal(u64_at(descs[7], STATUS_TIME), 3);
	assert_int_equal(u64_at(descs[7], STATUS_TIME + 8), 7);
	assert_memory_equal(descs[7] + STATUS_REGS, registers, REGS_LEN);
	assert_int_equal(u32_at(descs[7], STATUS_REGS + REGS_LEN), 1);
	assert_int_equal(descs[1][0], 1);
	assert_int_equal(descs[1][1], 'S');
	assert_int_equal(u32_at(descs[1], INFO_UID), 5);
	assert_int_equal(u32_at(descs[1], INFO_PID), 70);
	assert_string_equal(descs[1] + INFO_FNAME, "a-name-of-more-");
	assert_string_equal(descs[1] + INFO_ARGS, "prog -x ");
	assert_memory_equal(descs[3], auxv, sizeof(auxv));
	assert_int_equal(u64_at(descs[4], 0), 1);
	assert_int_equal(u64_at(descs[4], 8), 4096);
	assert_int_equal(u64_at(descs[4], 16), 0x1000);
	assert_int_equal(u64_at(descs[4], 24), 0x3000);
	assert_int_equal(u64_at(descs[4], 32), 5); /* pages */
	assert_string_equal(descs[4] + 40, "/a b");
	assert_memory_equal(descs[5], xstate, 512);
	assert_memory_equal(descs[6], xstate, XSTATE_LEN);
	image_frame_deinit(&frame);
}

static void more_headers_than_fit_are_counted_elsewhere(void **state)
{
	static const size_t counts[] = { PN_XNUM - 2, PN_XNUM - 1, 70000 };
	struct image_mapping *mappings = calloc(70000, sizeof(*mappings));
	struct image_thread thread = thread_of(7);
	struct image_process process = {
		.name = "",
		.mappings = mappings,
		.threads = &thread,
		.n_threads = 1,
	};

	(void)state;
	for (size_t i = 0; i < 70000; i++)
		mappings[i] = (struct image_mapping){
			.start = (i + 1) * 0x2000,
			.end = (i + 1) * 0x2000 + 0x1000,
			.name = "",
		};
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct image_frame frame;
		struct core core;

		process.n_mappings = counts[i];
		assert_int_equal(
			elfcore_build(&process, NULL, 0, TAIL_AT, &frame), 0);
		core_parse(&core, frame.head, frame.tail, frame.tail_len,
			   TAIL_AT);
		assert_int_equal(core.n_loads, counts[i]);
		assert_int_equal(core.header->e_phnum,
				 i ? PN_XNUM : PN_XNUM - 1);
		image_frame_deinit(&frame);
	}
	free(mappings);
}

static void threads_without_registers_are_refused(void **state)
{
	struct image_thread thread = thread_of(7);
	struct image_process process = { .name = "", .threads = &thread };
	struct image_frame frame;

	(void)state;
	assert_int_equal(elfcore_build(&process, NULL, 0, TAIL_AT, &frame),
			 -EINVAL);
	process.n_threads = 1;
	thread.xstate_len = 511;
	assert_int_equal(elfcore_build(&process, NULL, 0, TAIL_AT, &frame),
			 -EINVAL);
}

/* What the debugger is to find: not what the program's file has. */
volatile uint64_t elfcore_test_value = 1;

static int ready_fd;

__attribute__((noinline)) static void elfcore_test_waits(void)
{
	assert_int_equal(write(ready_fd, "", 1), 1);
	for (;;)
		pause();
}

static void *run_thread(void *opaque)
{
	prctl(PR_SET_NAME, "a-thread");
	elfcore_test_waits();
	return opaque;
}

static _Noreturn void child(int fd)
{
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ready_fd = fd;
	elfcore_test_value = 0x5eed5eed1234;
	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread, NULL, run_thread, NULL))
			_exit(1);
	elfcore_test_waits();
	_exit(1);
}

static pid_t start_child(void)
{
	int fds[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		child(fds[1]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(read(fds[0], &byte, 1), 1);
	close(fds[0]);
	close(fds[1]);
	return pid;
}

static void read_thread(pid_t tid, struct image_thread *thread)
{
	struct ptrace_stop stop;

	*thread = (struct image_thread){ .tid = tid, .name = strdup("t") };
	assert_int_equal(ptrace_seize(tid, 0), 0);
	assert_int_equal(ptrace_interrupt(tid), 0);
	assert_int_equal(ptrace_wait(tid, now_ns() + 60000000000, &stop), 0);
	thread->regs_len = sizeof(struct user_regs_struct);
	thread->regs = malloc(thread->regs_len);
	thread->xstate_len = 16384;
	thread->xstate = malloc(thread->xstate_len);
	assert_int_equal(ptrace_get_regs(tid, (void *)thread->regs), 0);
	assert_int_equal(
		ptrace_get_xstate(tid, thread->xstate, &thread->xstate_len), 0);
}

/* Of files all but text and headers: what was relocated is not writable now.
 * Terabytes are a sanitizer's. */
static bool is_kept(const struct proc_map *map)
{
	if (!map->read || range_len(map->range) > GIB ||
	    !strncmp(map->path, "[vvar", 5) || !strcmp(map->path, "[vsyscall]"))
		return false;
	return map->write || !map->inode || (!map->exec && map->offset);
}

static void take_mapping(struct image_writer *w, int mem_fd,
			 const struct proc_map *map, unsigned *n_regions,
			 struct image_mapping *out)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct image_region region = {
		.name = "r",
		.address = map->range.start,
		.page_size = 4096,
		.backing = IMAGE_BACKING_ANON,
	};

	*out = (struct image_mapping){
		.start = map->range.start,
		.end = map->range.end,
		.prot = (map->read ? PROT_READ : 0) |
			(map->write ? PROT_WRITE : 0) |
			(map->exec ? PROT_EXEC : 0),
		.shared = map->shared,
		.offset = map->offset,
		.inode = map->inode,
		.name = strdup(map->path),
	};
	/* As the kernel: of a program or library its first page. */
	if (is_kept(map))
		out->held = range_len(map->range);
	else if (map->inode && map->read && !map->offset)
		out->held = PAGE_SIZE;
	if (!out->held)
		return;
	region.length = out->held;
	data = aligned_alloc(PAGE_SIZE, out->held);
	assert_int_equal(
		io_pread_full(mem_fd, data, out->held, map->range.start), 0);
	assert_int_equal(image_writer_add_region(w, &region), 0);
	for (uint64_t at = 0; at < out->held / PAGE_SIZE;
	     at += IMAGE_RUN_MAX_PAGES)
		assert_int_equal(image_writer_put_pages(
					 w, *n_regions, at,
					 min_u64(out->held / PAGE_SIZE - at,
						 IMAGE_RUN_MAX_PAGES),
					 data + at * PAGE_SIZE, NULL),
				 0);
	image_writer_drain(w);
	++*n_regions;
}

static void take_memory(struct image_writer *w, int proc_fd,
			struct image_process *process)
{
	_cleanup_(proc_maps_deinit) struct proc_maps maps = {};
	_cleanup_close_ int mem_fd =
		openat(proc_fd, "mem", O_RDONLY | O_CLOEXEC);
	unsigned n_regions = 0;

	assert_true(mem_fd >= 0);
	assert_int_equal(procfs_read_maps(proc_fd, &maps), 0);
	process->mappings = calloc(maps.n_maps, sizeof(*process->mappings));
	process->n_mappings = maps.n_maps;
	for (size_t i = 0; i < maps.n_maps; i++)
		take_mapping(w, mem_fd, &maps.maps[i], &n_regions,
			     &process->mappings[i]);
}

static void take_threads(int proc_fd, struct image_process *process)
{
	_cleanup_free_ pid_t *tids = NULL;

	assert_int_equal(
		procfs_read_threads(proc_fd, &tids, &process->n_threads), 0);
	process->threads =
		calloc(process->n_threads, sizeof(*process->threads));
	for (size_t i = 0; i < process->n_threads; i++)
		read_thread(tids[i], &process->threads[i]);
}

static void write_core(const char *dir, pid_t pid)
{
	_cleanup_(image_process_deinit) struct image_process process = {
		.pid = pid,
		.state = 'S',
		.name = strdup("test-elfcore"),
	};
	static const struct image_writer_options options;
	struct image_inventory inventory = {
		.version = IMAGE_VERSION,
		.kind = IMAGE_KIND_PROCESS,
		.complete = true,
	};
	_cleanup_image_writer_ struct image_writer *w = NULL;
	_cleanup_(image_frame_deinit) struct image_frame frame = {};
	_cleanup_free_ struct image_region *regions = NULL;
	_cleanup_close_ int proc_fd = procfs_open(pid);
	struct image_stats stats = {};
	size_t n;

	assert_int_equal(image_writer_new(&w, dir, &options), 0);
	assert_int_equal(image_writer_use_core(w), 0);
	take_threads(proc_fd, &process);
	assert_int_equal(process.n_threads, 3);
	take_memory(w, proc_fd, &process);
	assert_int_equal(io_read_file(proc_fd, "auxv", MIB,
				      (char **)&process.auxv,
				      &process.auxv_len),
			 0);
	assert_int_equal(image_writer_list_regions(w, &regions, &n), 0);
	assert_int_equal(elfcore_build(&process, regions, n,
				       image_writer_tail_offset(w), &frame),
			 0);
	assert_int_equal(image_writer_put_process(w, &process, &frame), 0);
	assert_int_equal(image_writer_commit(w, &inventory, &stats), 0);
}

static bool have_program(const char *name)
{
	char command[64];

	snprintf(command, sizeof(command), "command -v %s >/dev/null", name);
	return !system(command);
}

/* Output and errors of a command, to be freed. */
static char *output_of(const char *command, int *status)
{
	_cleanup_free_ char *line = NULL;
	FILE *pipe;
	char *text;

	assert_true(asprintf(&line, "%s 2>&1 </dev/null", command) > 0);
	pipe = popen(line, "re");
	assert_non_null(pipe);
	assert_int_equal(io_read_all(fileno(pipe), MIB, &text, NULL), 0);
	*status = pclose(pipe);
	return text;
}

static void check_contains(const char *text, const char *what)
{
	if (!strstr(text, what))
		fail_msg("no '%s' in:\n%s", what, text);
}

static size_t count_of(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

static void check_with_gdb(const char *core)
{
	_cleanup_free_ char *command = NULL, *text = NULL;
	int status;

	assert_true(asprintf(&command,
			     "gdb -nx -batch -iex 'set debuginfod enabled off'"
			     " -ex 'info threads' -ex 'thread apply all bt'"
			     " -ex 'p/x elfcore_test_value' -ex 'info auxv'"
			     " -ex 'p $_siginfo.si_signo' "
			     "/proc/%d/exe %s",
			     getpid(), core) > 0);
	text = output_of(command, &status);
	assert_int_equal(status, 0);
	assert_int_equal(count_of(text, "\nThread "), 3);
	/* Up to where a thread starts, through libc's own frames. */
	assert_int_equal(count_of(text, " elfcore_test_waits ("), 3);
	assert_int_equal(count_of(text, " run_thread ("), 2);
	assert_true(count_of(text, "pause () ") >= 3);
	check_contains(text, " = 0x5eed5eed1234\n");
	check_contains(text, "AT_SYSINFO_EHDR");
}

static void check_with_readelf(const char *core)
{
	_cleanup_free_ char *command = NULL, *text = NULL;
	int status;

	assert_true(asprintf(&command, "eu-readelf -nl %s", core) > 0);
	text = output_of(command, &status);
	assert_int_equal(status, 0);
	assert_int_equal(count_of(text, "PRSTATUS\n"), 3);
	assert_int_equal(count_of(text, "FPREGSET\n"), 3);
	assert_int_equal(count_of(text, "X86_XSTATE\n"), 3);
	check_contains(text, "FILE\n");
	check_contains(text, "libc.so");
	assert_null(strstr(text, "invalid"));
	assert_null(strstr(text, "cannot"));
}

/* Stopped only by us: it dies with this. */
static void debuggers_load_a_live_process(void **state)
{
	char top[] = "/tmp/snapuffd-elfcore-XXXXXX", dir[64], core[96];
	char command[96];
	pid_t pid = start_child();

	(void)state;
	assert_non_null(mkdtemp(top));
	snprintf(dir, sizeof(dir), "%s/image", top);
	snprintf(core, sizeof(core), "%s/" IMAGE_CORE, dir);
	write_core(dir, pid);
	kill(pid, SIGKILL);
	/* Traced threads are to be waited for, each. */
	while (waitpid(-1, NULL, __WALL) > 0)
		;

	if (have_program("gdb"))
		check_with_gdb(core);
	else
		print_message("no gdb: skipped\n");
	if (have_program("eu-readelf"))
		check_with_readelf(core);
	else
		print_message("no eu-readelf (elfutils): skipped\n");
	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_follow_what_regions_hold),
		cmocka_unit_test(notes_are_those_of_the_kernel),
		cmocka_unit_test(more_headers_than_fit_are_counted_elsewhere),
		cmocka_unit_test(threads_without_registers_are_refused),
		cmocka_unit_test(debuggers_load_a_live_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
