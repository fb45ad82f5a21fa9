/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "kernel-test.h"

/*
 * Who discards memory that userfaultfd watches waits until the event has been
 * read, and its pages stay until then; /proc shows it asleep in madvise(2) with
 * the range. Faults are read before events, and /proc/self/fdinfo says how many
 * there are: who reads no more than that leaves the events in place. Events are
 * read in the order in which they came. A hole in a file that is mapped raises
 * none.
 */

#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/userfaultfd.h>

#define N_PAGES 16

struct caller {
	pthread_t thread;
	char *at;
	size_t len; /* 0: it writes */
	_Atomic pid_t tid;
	_Atomic bool done;
};

static void *call_main(void *data)
{
	struct caller *caller = data;

	caller->tid = (pid_t)syscall(SYS_gettid);
	if (caller->len)
		need(!madvise(caller->at, caller->len, MADV_DONTNEED));
	else
		*(volatile char *)caller->at = 1;
	caller->done = true;
	return NULL;
}

static void start(struct caller *caller)
{
	need(!pthread_create(&caller->thread, NULL, call_main, caller));
	while (!caller->tid)
		usleep(100);
}

static int count_pending(int uffd)
{
	char path[48], line[128];
	int n = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	file = fopen(path, "r");
	need(file);
	while (fgets(line, sizeof(line), file))
		sscanf(line, "pending: %d", &n);
	fclose(file);
	need(n >= 0);
	return n;
}

static void wait_for_pending(int uffd, int n)
{
	uint64_t deadline = now_ns() + STOP_NS;

	while (count_pending(uffd) != n) {
		need(now_ns() < deadline);
		usleep(100);
	}
}

static bool is_readable(int uffd)
{
	struct pollfd fd = { .fd = uffd, .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

static struct uffd_msg read_one(int uffd)
{
	struct uffd_msg msg;

	need(read(uffd, &msg, sizeof(msg)) == sizeof(msg));
	return msg;
}

static int open_uffd(const char *memory, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_EVENT_REMOVE };
	struct uffdio_register reg = { .range = { (uintptr_t)memory, len },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .range = reg.range,
					  .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		skip("userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		skip("cannot be registered: %s", strerror(errno));
	need(!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	return uffd;
}

static void release(int uffd, const char *at)
{
	struct uffdio_writeprotect wp = { .range = { (uintptr_t)at,
						     PAGE_SIZE } };

	while (ioctl(uffd, UFFDIO_WRITEPROTECT, &wp)) {
		need(errno == EAGAIN);
		usleep(100);
	}
}

static void is_shown(const struct caller *caller)
{
	unsigned long addr, len, advice;
	char path[48];
	long nr;
	FILE *file;

	wait_until_in(caller->tid, SYS_madvise);
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", caller->tid);
	file = fopen(path, "r");
	need(file);
	need(fscanf(file, "%ld %lx %lx %lx", &nr, &addr, &len, &advice) == 4);
	fclose(file);
	need(nr == SYS_madvise && addr == (uintptr_t)caller->at &&
	     len == caller->len && advice == MADV_DONTNEED);
}

static void discards_wait(void)
{
	size_t len = N_PAGES * PAGE_SIZE;
	char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct caller discards[2] = { { .at = memory, .len = PAGE_SIZE },
				      { .at = memory + PAGE_SIZE,
					.len = 2 * PAGE_SIZE } };
	struct caller writer = { .at = memory + 8 * PAGE_SIZE };
	struct uffdio_writeprotect wp;
	int uffd;

	need(memory != MAP_FAILED);
	memset(memory, 5, len);
	uffd = open_uffd(memory, len);
	need(count_pending(uffd) == 0 && !is_readable(uffd));
	for (int i = 0; i < 2; i++) {
		start(&discards[i]);
		is_shown(&discards[i]);
	}
	/* Events are no faults; and refuse all changes of protection. */
	need(is_readable(uffd) && count_pending(uffd) == 0);
	wp = (struct uffdio_writeprotect){ .range = { (uintptr_t)memory,
						      PAGE_SIZE } };
	need(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) && errno == EAGAIN);

	start(&writer);
	wait_for_pending(uffd, 1);
	need(read_one(uffd).event == UFFD_EVENT_PAGEFAULT);
	need(count_pending(uffd) == 0 && is_readable(uffd));
	usleep(20000);
	for (size_t i = 0; i < 3 * PAGE_SIZE; i++)
		need(memory[i] == 5);

	for (int i = 0; i < 2; i++) {
		struct uffd_msg msg;

		need(!discards[1].done);
		msg = read_one(uffd);
		need(msg.event == UFFD_EVENT_REMOVE &&
		     msg.arg.remove.start == (uintptr_t)discards[i].at);
		pthread_join(discards[i].thread, NULL);
		need(discards[i].at[0] == 0);
	}
	release(uffd, writer.at);
	pthread_join(writer.thread, NULL);
	close(uffd);
	munmap(memory, len);
}

static void holes_are_silent(void)
{
	size_t len = N_PAGES * PAGE_SIZE;
	int fd = memfd_create("test", MFD_CLOEXEC), uffd;
	char *memory;

	need(fd >= 0 && !ftruncate(fd, (off_t)len));
	memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(memory != MAP_FAILED);
	memset(memory, 5, len);
	uffd = open_uffd(memory, len);
	need(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			(off_t)PAGE_SIZE));
	need(!is_readable(uffd));
	need(memory[0] == 0 && memory[PAGE_SIZE] == 5);
	need(!is_readable(uffd));
	close(uffd);
}

int main(void)
{
	discards_wait();
	holes_are_silent();
	return 0;
}
