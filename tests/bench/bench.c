/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/fdpass.h"
#include "sys/pagemap.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/uffd.h"

#define MAX_SAMPLES ((size_t)1 << 19)

const char *const target_kind_names[N_TARGET_KINDS] = {
	[TARGET_SMALL] = "4K",
	[TARGET_HUGE] = "THP",
	[TARGET_MEMFD] = "memfd",
};

/* Both processes map it. */
struct target_shared {
	_Atomic bool stop;
	uint64_t total_ns;
	size_t n;
	uint64_t ns[MAX_SAMPLES];
};

enum verb {
	VERB_OPEN_UFFD,
	VERB_WRITE,
	VERB_LOAD,
};

struct command {
	enum verb verb;
	uint64_t a, b;
};

void bench_die(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, strerror(errno));
	exit(1);
}

void bench_skip(const char *why)
{
	printf("skipped: %s\n", why);
	exit(77);
}

uint64_t bench_env(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void sort_u64(uint64_t *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_u64);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double quantile_us(const uint64_t *sorted, size_t n, double q)
{
	size_t i = (size_t)(q * (double)n);

	return n ? (double)sorted[i < n ? i : n - 1] / 1e3 : 0;
}

/*
 * The child.
 */

static uint8_t *map_memory(const struct target *target)
{
	uint8_t *memory = mmap(
		NULL, target->len + PMD_SIZE, PROT_READ | PROT_WRITE,
		target->memfd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
		target->memfd, 0);

	need(memory != MAP_FAILED);
	if (target->kind == TARGET_HUGE)
		madvise(memory, target->len + PMD_SIZE, MADV_HUGEPAGE);
	if (target->kind == TARGET_SMALL)
		madvise(memory, target->len + PMD_SIZE, MADV_NOHUGEPAGE);
	if (target->memfd < 0)
		memory = (uint8_t *)ROUND_UP((uintptr_t)memory, PMD_SIZE);
	for (size_t at = 0; at < target->len; at += 8)
		*(uint64_t *)(memory + at) = at * 0x9e3779b97f4a7c15;
	return memory;
}

static int open_uffd(const struct target *target, bool nonblocking)
{
	int fd = (int)syscall(SYS_userfaultfd,
			      O_CLOEXEC | (nonblocking ? O_NONBLOCK : 0));

	need(fd >= 0);
	need(!uffd_init(fd, target->features));
	return fd;
}

/* Steps in an order that jumps about: `n` and the stride have no divisor in
 * common, for it is a prime. */
static void write_steps(struct target_shared *shared, uint8_t *memory, size_t n,
			size_t step)
{
	const size_t stride = 7368787;
	uint64_t began = now_ns(), before = began, after;

	for (size_t i = 0, at = 0; i < n; i++, at = (at + stride) % n) {
		__atomic_fetch_add((uint64_t *)(memory + at * step), 1,
				   __ATOMIC_RELAXED);
		after = now_ns();
		if (i < MAX_SAMPLES)
			shared->ns[i] = after - before;
		before = after;
	}
	shared->n = min_u64(n, MAX_SAMPLES);
	shared->total_ns = before - began;
}

static void write_until_stopped(struct target_shared *shared, uint8_t *memory,
				size_t len)
{
	uint64_t random = 88172645463325252;

	while (!atomic_load(&shared->stop)) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		((volatile uint64_t *)memory)[random % (len / 8)] = random;
	}
}

static _Noreturn void child_main(const struct target *target, int sock)
{
	uint8_t *memory = map_memory(target);
	uint64_t answer = (uintptr_t)memory;
	struct command command;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	need(write(sock, &answer, sizeof(answer)) == sizeof(answer));
	while (read(sock, &command, sizeof(command)) == sizeof(command)) {
		switch (command.verb) {
		case VERB_OPEN_UFFD:
			fd = open_uffd(target, command.a);
			need(!fdpass_send(sock, &answer, sizeof(answer), &fd,
					  1));
			/* Not a reference more: closing it must end it. */
			close(fd);
			continue;
		case VERB_WRITE:
			write_steps(target->shared, memory, command.a,
				    command.b);
			break;
		case VERB_LOAD:
			write_until_stopped(target->shared, memory,
					    target->len);
			break;
		}
		need(write(sock, &answer, sizeof(answer)) == sizeof(answer));
	}
	_exit(0);
}

/*
 * The parent.
 */

static void say(struct target *target, enum verb verb, uint64_t a, uint64_t b)
{
	struct command command = { verb, a, b };

	need(write(target->sock, &command, sizeof(command)) == sizeof(command));
}

static uint64_t hear(struct target *target)
{
	uint64_t answer;

	need(read(target->sock, &answer, sizeof(answer)) == sizeof(answer));
	return answer;
}

void target_start(struct target *target, enum target_kind kind, size_t len)
{
	int socks[2];
	uint64_t known;

	if (uffd_query_features(&known) ||
	    !(known & UFFD_FEATURE_PAGEFAULT_FLAG_WP) ||
	    !(known & UFFD_FEATURE_WP_UNPOPULATED))
		bench_skip("no userfaultfd write-protection here");
	*target = (struct target){ .kind = kind, .len = len, .memfd = -1 };
	target->features = known & (UFFD_FEATURE_PAGEFAULT_FLAG_WP |
				    UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
				    UFFD_FEATURE_WP_UNPOPULATED);
	if (kind == TARGET_MEMFD) {
		target->memfd = memfd_create("bench", MFD_CLOEXEC);
		need(!ftruncate(target->memfd, (off_t)(len + PMD_SIZE)));
	}
	target->shared =
		mmap(NULL, sizeof(*target->shared), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(target->shared != MAP_FAILED);
	memset(target->shared, 0, sizeof(*target->shared));
	need(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks));
	fflush(stdout);
	target->pid = fork();
	need(target->pid >= 0);
	if (!target->pid) {
		close(socks[0]);
		child_main(target, socks[1]);
	}
	close(socks[1]);
	target->sock = socks[0];
	target->addr = hear(target);
	target->pidfd = pidfd_from_pid(target->pid);
	target->proc_fd = procfs_open(target->pid);
	target->pagemap_fd = pagemap_open(target->proc_fd);
	need(target->pagemap_fd >= 0);
}

void target_stop(struct target *target)
{
	close(target->sock);
	waitpid(target->pid, NULL, 0);
	munmap(target->shared, sizeof(*target->shared));
	close(target->pidfd);
	close(target->proc_fd);
	close(target->pagemap_fd);
	if (target->memfd >= 0)
		close(target->memfd);
}

int target_open_uffd(struct target *target, bool nonblocking)
{
	size_t len = sizeof(uint64_t), n_fds = 1;
	uint64_t answer;
	int fd;

	say(target, VERB_OPEN_UFFD, nonblocking, 0);
	need(!fdpass_recv(target->sock, &answer, &len, &fd, &n_fds));
	need(n_fds == 1);
	return fd;
}

void target_begin_writes(struct target *target, size_t n, size_t step)
{
	say(target, VERB_WRITE, n, step);
}

uint64_t target_end_writes(struct target *target, const uint64_t **ns,
			   size_t *n)
{
	hear(target);
	sort_u64(target->shared->ns, target->shared->n);
	*ns = target->shared->ns;
	*n = target->shared->n;
	return target->shared->total_ns;
}

void target_begin_load(struct target *target)
{
	atomic_store(&target->shared->stop, false);
	say(target, VERB_LOAD, 0, 0);
}

void target_end_load(struct target *target)
{
	atomic_store(&target->shared->stop, true);
	hear(target);
}

static int put_nowhere(void *opaque, unsigned region, uint64_t first,
		       uint64_t n, const void *data, struct hold *hold)
{
	(void)opaque;
	(void)region;
	(void)first;
	(void)n;
	(void)data;
	(void)hold;
	return 0;
}

struct capture *target_capture(struct target *target, uint64_t granule,
			       uint64_t buffer)
{
	struct capture_space space = {
		.pid = target->pid,
		.pidfd = target->pidfd,
		.pagemap_fd = target->pagemap_fd,
		.mem_fd = -1,
		.uffd = target_open_uffd(target, true),
	};
	struct capture_config config = {
		.markers = true,
		.buffer_bytes = buffer,
		.granule_bytes = granule,
		.sink = { .put = put_nowhere },
	};
	struct region_desc desc = {
		.range = { target->addr, target->addr + target->len },
		.page_size = PAGE_SIZE,
		.fd = target->memfd,
		.shared = target->memfd >= 0,
	};
	struct capture *capture;

	need(!capture_new(&capture, &config));
	need(!capture_add_space(capture, &space));
	need(!capture_add_region(capture, &desc));
	return capture;
}
