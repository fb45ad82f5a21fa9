/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "victim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"

#define STEP_MS	   3
#define STEP_NS	   (STEP_MS * 1000000)
#define STATE_MAX  (256 * KIB)
#define SETTLE_NS  5000000000
#define SIGNAL_GAP 500 /* us */

/* The victim's own: a process is one victim. */
static struct victim_report *self;
static int pipe_fds[2], epoll_fd, sock, listener;
static uint32_t futex_word;
static bool eintr_allowed;
static atomic_int n_helpers; /* threads that have started */

static void fail_self(const char *fmt, ...)
{
	va_list args;

	if (atomic_fetch_add(&self->n_failures, 1))
		return;
	va_start(args, fmt);
	vsnprintf(self->failure, sizeof(self->failure), fmt, args);
	va_end(args);
}

/* The call must have returned `want`, or failed with errno `want_errno`. */
static void expect(const char *call, long got, long want, int want_errno)
{
	int err = got < 0 ? errno : 0;

	if (err == EINTR && eintr_allowed)
		return;
	if (want_errno ? err != want_errno : got != want)
		fail_self("%s: returned %ld (%s)", call, got, strerror(err));
}

/* Steps. */

static const struct timespec step_time = { .tv_nsec = STEP_NS };

static void step_poll(struct victim_report *r)
{
	(void)r;
	expect("poll", poll(NULL, 0, STEP_MS), 0, 0);
}

static void step_ppoll(struct victim_report *r)
{
	struct pollfd fd = { .fd = epoll_fd, .events = POLLIN };

	(void)r;
	expect("ppoll", ppoll(&fd, 1, &step_time, NULL), 0, 0);
}

static void step_select(struct victim_report *r)
{
	struct timeval timeout = { .tv_usec = STEP_NS / 1000 };

	(void)r;
	expect("select", select(0, NULL, NULL, NULL, &timeout), 0, 0);
}

static void step_nanosleep(struct victim_report *r)
{
	uint64_t start = now_ns(), took;

	(void)r;
	expect("nanosleep", nanosleep(&step_time, NULL), 0, 0);
	took = now_ns() - start;
	if (took < STEP_NS && !eintr_allowed)
		fail_self("nanosleep: woke %lu ns early",
			  (unsigned long)(STEP_NS - took));
}

static void step_clock_nanosleep(struct victim_report *r)
{
	struct timespec until;
	int err;

	(void)r;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += STEP_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	err = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	errno = err;
	expect("clock_nanosleep", err ? -1 : 0, 0, 0);
}

static void step_futex_timed(struct victim_report *r)
{
	static uint32_t word;

	(void)r;
	expect("futex(timeout)",
	       syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &step_time,
		       NULL, 0),
	       -1, ETIMEDOUT);
}

/* The feeder wakes it. */
static void step_futex(struct victim_report *r)
{
	(void)r;
	expect("futex",
	       syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, NULL,
		       NULL, 0),
	       0, 0);
}

static void step_read(struct victim_report *r)
{
	char c;

	(void)r;
	expect("read", read(pipe_fds[0], &c, 1), 1, 0);
}

static void step_epoll(struct victim_report *r)
{
	struct epoll_event event;

	(void)r;
	expect("epoll_wait", epoll_wait(epoll_fd, &event, 1, STEP_MS), 0, 0);
}

static void step_epoll_pwait(struct victim_report *r)
{
	struct epoll_event event;
	sigset_t mask;

	(void)r;
	sigfillset(&mask);
	expect("epoll_pwait", epoll_pwait(epoll_fd, &event, 1, STEP_MS, &mask),
	       0, 0);
}

static void step_sigtimedwait(struct victim_report *r)
{
	sigset_t set;

	(void)r;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	expect("sigtimedwait", sigtimedwait(&set, NULL, &step_time), -1,
	       EAGAIN);
}

static void step_accept(struct victim_report *r)
{
	(void)r;
	expect("accept", accept(listener, NULL, NULL), -1, EAGAIN);
}

static void step_recv(struct victim_report *r)
{
	char c;

	(void)r;
	expect("recv", recv(sock, &c, 1, 0), -1, EAGAIN);
}

/* No time limit and no end but by the signals that the feeder sends, which are
 * blocked everywhere else: each must end the wait, and nothing else may. */
static void step_sigsuspend(struct victim_report *r)
{
	unsigned long before = atomic_load(&r->signals);
	sigset_t mask;

	sigfillset(&mask);
	sigdelset(&mask, SIGUSR1);
	if (sigsuspend(&mask) != -1 || errno != EINTR)
		fail_self("sigsuspend: %m");
	if (atomic_load(&r->signals) == before)
		fail_self("sigsuspend: returned without a signal");
}

static void step_ppoll_mask(struct victim_report *r)
{
	unsigned long before = atomic_load(&r->signals);
	sigset_t mask;

	sigfillset(&mask);
	sigdelset(&mask, SIGUSR1);
	if (ppoll(NULL, 0, NULL, &mask) != -1 || errno != EINTR)
		fail_self("ppoll(mask): %m");
	if (atomic_load(&r->signals) == before)
		fail_self("ppoll(mask): returned without a signal");
}

static void step_getppid(struct victim_report *r)
{
	static pid_t parent;

	(void)r;
	if (!parent)
		parent = getppid();
	for (unsigned i = 0; i < 1000; i++)
		expect("getppid", syscall(SYS_getppid), parent, 0);
}

/* Every register that a compiler would let us have, through a long loop that
 * makes no system call. */
static void step_registers(struct victim_report *r)
{
	uint64_t pattern[4] = { 0x0123456789abcdef, ~(uint64_t)0, now_ns(),
				0xfedcba9876543210 };
	uint64_t out[4] = { 0 }, general = 0;
	uint32_t mxcsr = 0x1fc0, mxcsr_out; /* exceptions masked, DAZ */

	(void)r;
	__asm__ volatile(
		"ldmxcsr %[mxcsr]\n"
		"fldpi\n"
		"vmovdqu %[in], %%ymm7\n"
		"vmovdqu %[in], %%ymm15\n"
		"mov %[key], %%r8\n mov %%r8, %%r9\n mov %%r8, %%r10\n"
		"mov %%r8, %%r11\n mov %%r8, %%r12\n mov %%r8, %%r13\n"
		"mov %%r8, %%r14\n mov %%r8, %%r15\n mov %%r8, %%rsi\n"
		"mov %%r8, %%rdi\n mov %%r8, %%rdx\n"
		"mov %%r8, -64(%%rsp)\n" /* the red zone */
		"mov $2000000, %%ecx\n"
		"1: dec %%ecx\n jnz 1b\n"
		"xor %%r8, %%r9\n xor %%r8, %%r10\n xor %%r8, %%r11\n"
		"xor %%r8, %%r12\n xor %%r8, %%r13\n xor %%r8, %%r14\n"
		"xor %%r8, %%r15\n xor %%r8, %%rsi\n xor %%r8, %%rdi\n"
		"xor %%r8, %%rdx\n xor -64(%%rsp), %%r8\n"
		"or %%r9, %%r8\n or %%r10, %%r8\n or %%r11, %%r8\n"
		"or %%r12, %%r8\n or %%r13, %%r8\n or %%r14, %%r8\n"
		"or %%r15, %%r8\n or %%rsi, %%r8\n or %%rdi, %%r8\n"
		"or %%rdx, %%r8\n or %%rcx, %%r8\n mov %%r8, %[general]\n"
		"vpxor %%ymm7, %%ymm15, %%ymm7\n"
		"vpxor %[in], %%ymm15, %%ymm15\n"
		"vpor %%ymm7, %%ymm15, %%ymm7\n"
		"vmovdqu %%ymm7, %[out]\n"
		"fldpi\n fcomip %%st(1), %%st\n fstp %%st(0)\n"
		"je 2f\n movq $1, %[general]\n 2:\n"
		"stmxcsr %[mxcsr_out]\n vzeroupper\n"
		: [out] "=m"(out), [general] "+m"(general),
		  [mxcsr_out] "=m"(mxcsr_out)
		: [in] "m"(pattern), [key] "m"(pattern[2]), [mxcsr] "m"(mxcsr)
		: "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
		  "r13", "r14", "r15", "xmm7", "xmm15", "cc", "memory");
	if (general || out[0] | out[1] | out[2] | out[3])
		fail_self("registers: changed (%#lx, %#lx)",
			  (unsigned long)general, (unsigned long)out[3]);
	if (mxcsr_out != mxcsr)
		fail_self("registers: mxcsr changed to %#x", mxcsr_out);
	__asm__ volatile("ldmxcsr %0" : : "m"((uint32_t){ 0x1f80 }));
}

/* What reads and writes the memory below its stack pointer legitimately. */
static void step_stack(struct victim_report *r)
{
	volatile uint8_t room[16384];

	(void)r;
	for (size_t i = 0; i < sizeof(room); i++)
		room[i] = (uint8_t)(i * 7);
	for (size_t i = 0; i < sizeof(room); i++)
		if (room[i] != (uint8_t)(i * 7))
			fail_self("stack: byte %zu changed", i);
}

static void setup_usr1(struct victim_report *r);

#define STEP(n)                              \
	{                                    \
		.name = #n, .step = step_##n \
	}
#define STEP_EINTR(n)                                    \
	{                                                \
		.name = #n, .step = step_##n, NULL, true \
	}

const struct victim_kind victim_kinds[] = {
	STEP_EINTR(poll),
	STEP_EINTR(ppoll),
	STEP_EINTR(select),
	STEP_EINTR(nanosleep),
	STEP_EINTR(clock_nanosleep),
	STEP_EINTR(futex_timed),
	STEP_EINTR(futex),
	STEP(read),
	STEP_EINTR(epoll),
	STEP(epoll_pwait),
	STEP_EINTR(sigtimedwait),
	STEP_EINTR(accept),
	STEP_EINTR(recv),
	{ "sigsuspend", step_sigsuspend, setup_usr1, false },
	{ "ppoll_mask", step_ppoll_mask, setup_usr1, false },
	STEP(getppid),
	STEP(registers),
	STEP(stack),
};
const size_t victim_n_kinds = ARRAY_SIZE(victim_kinds);

const struct victim_kind *victim_find_kind(const char *name)
{
	for (size_t i = 0; i < victim_n_kinds; i++)
		if (!strcmp(victim_kinds[i].name, name))
			return &victim_kinds[i];
	return NULL;
}

/* Counts its steps in a 32-bit code segment, for good. */
static void step_32_bit(struct victim_report *r)
{
	static const uint8_t code[] = {
		0xb8, 0x2b, 0, 0, 0, /* mov $0x2b, %eax */
		0x8e, 0xd8,	     /* mov %eax, %ds */
		0xff, 0x06,	     /* 1: incl (%esi) */
		0xeb, 0xfc,	     /* jmp 1b */
	};
	uint8_t *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	memcpy(low, code, sizeof(code));
	atomic_store(&r->ready, true);
	__asm__ volatile("push $0x23\n push %0\n lretq"
			 :
			 : "r"((uint64_t)(uintptr_t)low), "S"(&r->steps));
	__builtin_unreachable();
}

const struct victim_kind victim_32_bit = { .name = "32-bit",
					   .step = step_32_bit };

static void step_vfork(struct victim_report *r)
{
	pid_t child;

	atomic_store(&r->ready, true);
	child = vfork();
	if (!child) {
		/* No signal is meant for it, and no library may be called. */
		syscall(SYS_nanosleep, &(struct timespec){ .tv_sec = 3 }, NULL);
		_exit(0);
	}
	if (child < 0 || waitpid(child, NULL, 0) != child)
		fail_self("vfork: %m");
}

const struct victim_kind victim_vfork = { .name = "vfork", .step = step_vfork };

/* The life of a victim. */

static void on_signal(int sig)
{
	int saved = errno;

	(void)sig;
	atomic_fetch_add(&self->signals, 1);
	errno = saved;
}

static void setup_usr1(struct victim_report *r)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t set;

	(void)r;
	sigaction(SIGUSR1, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Wakes whatever waits for somebody else. */
static void *feed(void *arg)
{
	bool kicks = arg;

	atomic_fetch_add(&n_helpers, 1);
	while (!atomic_load(&self->quit)) {
		int queued = 0;
		struct pollfd fd = { .fd = pipe_fds[0], .events = POLLIN };

		if (nanosleep(&step_time, NULL))
			fail_self("feeder: nanosleep: %m");
		queued = poll(&fd, 1, 0);
		if (queued == 0 && write(pipe_fds[1], "", 1) != 1)
			fail_self("feeder: write: %m");
		syscall(SYS_futex, &futex_word, FUTEX_WAKE_PRIVATE, 1, NULL,
			NULL, 0);
		if (kicks)
			/* pthread_kill() blocks signals meanwhile, which the
			 * test would see. */
			syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
	}
	return NULL;
}

/* A thread that waits for good: it must not be woken. */
static void *wait_idle(void *arg)
{
	(void)arg;
	atomic_fetch_add(&n_helpers, 1);
	poll(NULL, 0, -1);
	fail_self("idle thread: poll: woke (%m)");
	return NULL;
}

static void start_thread(void *(*run)(void *), void *arg)
{
	sigset_t all, old;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, NULL, run, arg))
		fail_self("pthread_create");
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void open_files(void)
{
	struct timeval timeout = { .tv_usec = STEP_NS / 1000 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int pair[2];

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (pipe2(pipe_fds, O_CLOEXEC) || epoll_fd < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
	    bind(listener, (void *)&addr, sizeof(addr.sun_family)) ||
	    listen(listener, 1))
		fail_self("setup: %m");
	sock = pair[0];
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &timeout,
		   sizeof(timeout));
}

static void storm_signals(bool on_altstack)
{
	struct itimerval often = { { .tv_usec = SIGNAL_GAP },
				   { .tv_usec = SIGNAL_GAP } };
	struct sigaction action = { .sa_handler = on_signal,
				    .sa_flags = SA_RESTART };

	if (on_altstack) {
		stack_t stack = { .ss_size = 64 * KIB };

		stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (sigaltstack(&stack, NULL))
			fail_self("sigaltstack: %m");
		action.sa_flags |= SA_ONSTACK;
	}
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

static const long forbidden_calls[] = {
	SYS_userfaultfd, SYS_socket, SYS_socketpair, SYS_recvmsg, SYS_ioctl,
	SYS_mmap,	 -1
};

bool victim_is_forbidden_call(long nr)
{
	for (size_t i = 0; i < ARRAY_SIZE(forbidden_calls); i++)
		if (forbidden_calls[i] == nr)
			return true;
	return false;
}

static void forbid_foreign_calls(void)
{
	struct sock_filter filter[2 * ARRAY_SIZE(forbidden_calls) + 2] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog program = { ARRAY_SIZE(filter), filter };
	struct sock_filter *at = filter + 1;

	for (size_t i = 0; i < ARRAY_SIZE(forbidden_calls); i++) {
		*at++ = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)forbidden_calls[i],
			0, 1);
		*at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
						     SECCOMP_RET_KILL_PROCESS);
	}
	*at = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		fail_self("seccomp: %m");
}

static void exhaust_fds(void)
{
	int fd = dup(0);
	struct rlimit limit = { (rlim_t)fd, (rlim_t)fd };

	close(fd);
	if (setrlimit(RLIMIT_NOFILE, &limit))
		fail_self("setrlimit: %m");
}

static _Noreturn void live(const struct victim_kind *kind, unsigned traits)
{
	sigset_t mask, mask_now;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGTRAP, SIG_IGN);
	open_files();
	/* Before there are threads: the C library would interrupt them. */
	if (traits & VICTIM_UNPRIVILEGED &&
	    (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
		fail_self("setresuid: %m");
	if (kind->setup)
		kind->setup(self);
	start_thread(feed, kind->setup ? (void *)1 : NULL);
	start_thread(wait_idle, NULL);
	while (atomic_load(&n_helpers) < 2)
		usleep(100);
	/* A change of credentials has undone it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (traits & (VICTIM_SIGNALS | VICTIM_ALTSTACK)) {
		eintr_allowed = kind->may_see_eintr_by_signals;
		storm_signals(traits & VICTIM_ALTSTACK);
	}
	if (traits & VICTIM_NO_FDS)
		exhaust_fds();
	if (traits & VICTIM_SECCOMP)
		forbid_foreign_calls();

	sigprocmask(SIG_BLOCK, NULL, &mask);
	while (!atomic_load(&self->quit)) {
		kind->step(self);
		sigprocmask(SIG_BLOCK, NULL, &mask_now);
		if (memcmp(&mask, &mask_now, 8))
			fail_self("signal mask changed");
		if (atomic_fetch_add(&self->steps, 1) == 5)
			atomic_store(&self->ready, true);
	}
	_exit(0);
}

/* The test's side. */

static void append_links(int proc_fd, FILE *out)
{
	int dir_fd = openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY);
	_cleanup_closedir_ DIR *dir = fdopendir(dir_fd);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char target[256] = "";

		if (entry->d_name[0] == '.')
			continue;
		if (readlinkat(dirfd(dir), entry->d_name, target,
			       sizeof(target) - 1) >= 0)
			fprintf(out, "fd %s %s\n", entry->d_name, target);
	}
}

static void append_signals(int proc_fd, pid_t tid, bool is_main, FILE *out)
{
	static const char *const fields[] = { "SigBlk:", "SigIgn:", "SigCgt:",
					      "TracerPid:" };
	_cleanup_free_ char *text = NULL;
	char path[64];

	snprintf(path, sizeof(path), "task/%d/status", tid);
	if (io_read_file(proc_fd, path, 64 * KIB, &text, NULL))
		return;
	/* The main thread looks after its mask itself: here it may be the one
	 * that ppoll(2) has set. */
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		for (size_t i = is_main; i < ARRAY_SIZE(fields); i++)
			if (!strncmp(line, fields[i], strlen(fields[i])))
				fprintf(out, "%d %s\n", tid, line);
}

static char *read_state(const struct victim *v)
{
	_cleanup_free_ char *maps = NULL;
	_cleanup_free_ pid_t *tids = NULL;
	size_t n_tids = 0, len;
	char *state = NULL;
	FILE *out = open_memstream(&state, &len);

	append_links(v->proc_fd, out);
	if (!procfs_read_threads(v->proc_fd, &tids, &n_tids))
		for (size_t i = 0; i < n_tids; i++)
			append_signals(v->proc_fd, tids[i], tids[i] == v->pid,
				       out);
	if (!io_read_file(v->proc_fd, "maps", STATE_MAX, &maps, NULL))
		fputs(maps, out);
	fclose(out);
	return state;
}

static bool wait_steps(struct victim *v, unsigned long n)
{
	uint64_t deadline = now_ns() + SETTLE_NS;
	unsigned long start = atomic_load(&v->report->steps);

	while (atomic_load(&v->report->steps) < start + n) {
		if (now_ns() > deadline || !pidfd_is_alive(v->pidfd))
			return false;
		usleep(100);
	}
	return true;
}

void victim_start(struct victim *v, const struct victim_kind *kind,
		  unsigned traits)
{
	uint64_t deadline = now_ns() + SETTLE_NS;

	*v = (struct victim){ .proc_fd = -1, .pidfd = -1 };
	v->report = mmap(NULL, sizeof(*v->report), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	assert_ptr_not_equal(v->report, MAP_FAILED);
	v->pid = fork();
	assert_int_not_equal(v->pid, -1);
	if (!v->pid) {
		self = v->report;
		live(kind, traits);
	}
	v->proc_fd = procfs_open(v->pid);
	v->pidfd = pidfd_from_pid(v->pid);
	assert_true(v->proc_fd >= 0 && v->pidfd >= 0);
	while (!atomic_load(&v->report->ready) && now_ns() < deadline)
		usleep(1000);
	assert_true(atomic_load(&v->report->ready));
	if (atomic_load(&v->report->tid)) {
		/* Of a main thread that has exited, /proc/PID shows little. */
		close_fd(&v->proc_fd);
		v->proc_fd = procfs_open(atomic_load(&v->report->tid));
		assert_true(v->proc_fd >= 0);
	}
	if (kind != &victim_vfork)
		victim_check_runs(v, kind->name);
	v->state = read_state(v);
}

char victim_run_state(struct victim *v)
{
	struct proc_status status;

	assert_int_equal(procfs_read_status(v->proc_fd, &status), 0);
	return status.state;
}

/* The first line that differs, for the test's log. */
static void fail_differing(const char *when, const char *was, const char *is)
{
	size_t same = 0, line = 0;

	for (; was[same] && was[same] == is[same]; same++)
		if (was[same] == '\n')
			line = same + 1;
	fail_msg("%s: the victim's state was\n%.200s\nand is\n%.200s", when,
		 was + line, is + line);
}

static void check_failures(struct victim *v, const char *when)
{
	if (atomic_load(&v->report->n_failures))
		fail_msg("%s: %s", when, v->report->failure);
}

void victim_check_runs(struct victim *v, const char *when)
{
	if (!wait_steps(v, 3))
		fail_msg("%s: victim stands still in state %c", when,
			 victim_run_state(v));
	check_failures(v, when);
}

void victim_check(struct victim *v, const char *when)
{
	uint64_t deadline = now_ns() + SETTLE_NS / 10;

	victim_check_runs(v, when);
	/* A signal mask is another one while its handler runs. */
	for (;;) {
		_cleanup_free_ char *state = read_state(v);

		if (!strcmp(state, v->state))
			return;
		if (now_ns() < deadline) {
			usleep(200);
			continue;
		}
		fail_differing(when, v->state, state);
	}
}

void victim_stop(struct victim *v)
{
	check_failures(v, "at the end");
	atomic_store(&v->report->quit, true);
	kill(v->pid, SIGKILL);
	waitpid(v->pid, NULL, 0);
	munmap(v->report, sizeof(*v->report));
	close_fd(&v->proc_fd);
	close_fd(&v->pidfd);
	free(v->state);
}
