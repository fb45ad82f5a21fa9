/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "kernel-test.h"

/*
 * Memory that userfaultfd protects is moved by mremap(2). With
 * UFFD_FEATURE_EVENT_REMAP it stays protected; its caller waits, with the move
 * made, until that event has been read, and then until the old place's
 * unmapping has. What MREMAP_FIXED overwrites is told of before. A fault at the
 * new place is handed out before the event. From the move until the last of its
 * events is read UFFDIO_WRITEPROTECT fails with EAGAIN, even for an empty
 * range, with which it fails with EINVAL at other times. MREMAP_DONTUNMAP
 * leaves an unprotected mapping behind, as an old length of 0 makes a second
 * one, and a write through that is not seen. Without the feature the protection
 * is lost.
 */

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define N_PAGES 16
#define LEN	(N_PAGES * PAGE_SIZE)

#define EVENTS                                                 \
	(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

struct caller {
	pthread_t thread;
	char *from, *to; /* to: NULL: the kernel chooses; alone, it writes */
	size_t old_len, len;
	int flags;
	char *moved;
	_Atomic pid_t tid;
	_Atomic bool done;
};

static void *call_main(void *data)
{
	struct caller *caller = data;

	caller->tid = (pid_t)syscall(SYS_gettid);
	if (caller->from)
		caller->moved = mremap(caller->from, caller->old_len,
				       caller->len, caller->flags, caller->to);
	else
		*(volatile char *)caller->to = 1;
	caller->done = true;
	return NULL;
}

static void start(struct caller *caller)
{
	need(!pthread_create(&caller->thread, NULL, call_main, caller));
	while (!caller->tid)
		usleep(100);
}

static void join(struct caller *caller)
{
	pthread_join(caller->thread, NULL);
	need(caller->moved != MAP_FAILED);
}

static int writeprotect(int uffd, const char *at, size_t len, uint64_t mode)
{
	struct uffdio_writeprotect wp = { .range = { (uintptr_t)at, len },
					  .mode = mode };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? errno : 0;
}

static int open_uffd(const char *memory, size_t len, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      features };
	struct uffdio_register reg = { .range = { (uintptr_t)memory, len },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		skip("userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		skip("cannot be registered: %s", strerror(errno));
	need(!writeprotect(uffd, memory, len, UFFDIO_WRITEPROTECT_MODE_WP));
	return uffd;
}

static bool is_changing(int uffd)
{
	int r = writeprotect(uffd, NULL, 0, 0);

	need(r == EAGAIN || r == EINVAL);
	return r == EAGAIN;
}

static bool is_readable(int uffd)
{
	struct pollfd fd = { .fd = uffd, .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

static struct uffd_msg read_one(int uffd)
{
	struct pollfd fd = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;

	need(poll(&fd, 1, 10000) == 1);
	need(read(uffd, &msg, sizeof(msg)) == sizeof(msg));
	return msg;
}

static void read_remap(int uffd, const char *from, const char *to, size_t len)
{
	struct uffd_msg msg = read_one(uffd);

	need(msg.event == UFFD_EVENT_REMAP);
	need(msg.arg.remap.from == (uintptr_t)from);
	need(!to || msg.arg.remap.to == (uintptr_t)to);
	need(msg.arg.remap.len == len);
}

static void read_unmap(int uffd, const char *at, size_t len)
{
	struct uffd_msg msg = read_one(uffd);

	need(msg.event == UFFD_EVENT_UNMAP);
	need(msg.arg.remove.start == (uintptr_t)at);
	need(msg.arg.remove.end == (uintptr_t)at + len);
}

static char *map(int flags, int fd, size_t len)
{
	char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);

	need(at != MAP_FAILED);
	return at;
}

static char *map_filled(void)
{
	char *at = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, LEN);

	memset(at, 5, LEN);
	return at;
}

/* Whether a write waits; it is let through. */
static bool is_protected(int uffd, char *at)
{
	struct caller writer = { .to = at };
	struct uffd_msg msg;

	start(&writer);
	while (!writer.done && !is_readable(uffd))
		usleep(100);
	if (!writer.done) {
		msg = read_one(uffd);
		need(msg.event == UFFD_EVENT_PAGEFAULT);
		need(msg.arg.pagefault.address / PAGE_SIZE ==
		     (uintptr_t)at / PAGE_SIZE);
		need(!writeprotect(uffd, at, PAGE_SIZE, 0));
		join(&writer);
		return true;
	}
	join(&writer);
	return false;
}

static void a_move_waits(void)
{
	char *from = map_filled(), *to = map_filled();
	int uffd = open_uffd(from, LEN, EVENTS);
	struct uffdio_register reg = { .range = { (uintptr_t)to, LEN },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	struct caller mover = { .from = from,
				.to = to,
				.old_len = LEN,
				.len = LEN,
				.flags = MREMAP_MAYMOVE | MREMAP_FIXED };
	struct caller writer = { .to = to + PAGE_SIZE };
	struct uffd_msg msg;

	need(!ioctl(uffd, UFFDIO_REGISTER, &reg));
	memset(to, 6, LEN);
	need(!is_changing(uffd));
	start(&mover);
	wait_until_in(mover.tid, SYS_mremap);
	/* The move is made. */
	need(to[0] == 5 && is_changing(uffd));
	/* Faults are read before events. */
	start(&writer);
	while (!is_readable(uffd))
		usleep(100);
	usleep(20000);
	msg = read_one(uffd);
	need(msg.event == UFFD_EVENT_PAGEFAULT);
	need(writeprotect(uffd, to, LEN, 0) == EAGAIN);

	read_unmap(uffd, to, LEN);
	need(is_changing(uffd));
	read_remap(uffd, from, to, LEN);
	need(is_changing(uffd) && !mover.done);
	read_unmap(uffd, from, LEN);
	join(&mover);
	need(!is_changing(uffd));
	need(!writer.done);
	need(!writeprotect(uffd, to + PAGE_SIZE, PAGE_SIZE, 0));
	join(&writer);
	for (size_t i = 0; i < N_PAGES; i++)
		need(is_protected(uffd, to + i * PAGE_SIZE) == (i != 1));
	close(uffd);
	munmap(to, LEN);
}

static void without_the_event(void)
{
	char *from = map_filled();
	int uffd = open_uffd(from, LEN, 0);
	char *to = mremap(from, LEN, LEN, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);

	need(to != MAP_FAILED && !is_protected(uffd, to));
	close(uffd);
}

static void what_dontunmap_leaves(void)
{
	char *from = map_filled();
	int uffd = open_uffd(from, LEN, EVENTS);
	struct caller mover = { .from = from,
				.old_len = LEN,
				.len = LEN,
				.flags = MREMAP_MAYMOVE | MREMAP_DONTUNMAP };

	start(&mover);
	read_remap(uffd, from, NULL, LEN);
	join(&mover);
	need(!is_changing(uffd) && !is_readable(uffd));
	need(mover.moved != from && mover.moved[0] == 5 && from[0] == 0);
	need(!is_protected(uffd, from + PAGE_SIZE));
	need(is_protected(uffd, mover.moved));
	close(uffd);
}

static void a_second_mapping(int flags, size_t old_len)
{
	int fd = memfd_create("test", MFD_CLOEXEC), uffd;
	struct caller mover = { .old_len = old_len,
				.len = LEN,
				.flags = MREMAP_MAYMOVE | flags };
	char *other;

	need(fd >= 0 && !ftruncate(fd, (off_t)LEN));
	mover.from = map(MAP_SHARED, fd, LEN);
	memset(mover.from, 5, LEN);
	uffd = open_uffd(mover.from, LEN, EVENTS);
	start(&mover);
	read_remap(uffd, mover.from, NULL, old_len);
	join(&mover);
	other = old_len ? mover.from : mover.moved;
	need(!is_protected(uffd, other + PAGE_SIZE));
	need(mover.from[PAGE_SIZE] == 1 && mover.moved[PAGE_SIZE] == 1);
	need(is_protected(uffd, old_len ? mover.moved : mover.from));
	close(uffd);
	close(fd);
}

int main(void)
{
	a_move_waits();
	without_the_event();
	what_dontunmap_leaves();
	a_second_mapping(0, 0);
	a_second_mapping(MREMAP_DONTUNMAP, LEN);
	return 0;
}
