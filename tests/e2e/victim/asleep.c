/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads that no signal wakes: one that waits for the child that it has made
 * with vfork(2), and one that writes to a file, whose file system somebody may
 * freeze.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "victim.h"

#define WRITES_GAP_NS 1000000

static atomic_bool vforked;
static uint64_t vfork_ms;

static struct {
	char path[256];
	int fd;
	atomic_uint n_done;
} writes;

static void sleep_ns(uint64_t ns)
{
	struct timespec time = { .tv_sec = (time_t)(ns / 1000000000),
				 .tv_nsec = (long)(ns % 1000000000) };

	nanosleep(&time, NULL);
}

/* The child shares our memory and does nothing else. */
static void *wait_for_vfork(void *unused)
{
	pid_t pid;
	int status;

	(void)unused;
	atomic_store(&vforked, true);
	pid = vfork();
	if (pid == 0) {
		sleep_ns(vfork_ms * 1000000);
		_exit(7);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != 7)
		victim_die("vfork: %s, status %#x", strerror(errno), status);
	victim_say("vfork is over");
	for (;;)
		pause();
}

/* Each as long as asked for, or the test is to see it. */
static void *write_on(void *unused)
{
	char data[64];

	(void)unused;
	memset(data, 'w', sizeof(data));
	for (;;) {
		ssize_t n = write(writes.fd, data, sizeof(data));

		if (n != sizeof(data))
			victim_die("write: %zd, %s", n, strerror(errno));
		atomic_fetch_add(&writes.n_done, 1);
		sleep_ns(WRITES_GAP_NS);
	}
	return NULL;
}

void asleep_vfork(uint64_t ms)
{
	vfork_ms = ms;
	victim_start("vfork", wait_for_vfork, NULL);
	while (!atomic_load(&vforked))
		sleep_ns(WRITES_GAP_NS);
}

void asleep_write(const char *dir)
{
	snprintf(writes.path, sizeof(writes.path), "%s/written", dir);
	writes.fd = open(writes.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			 0600);
	if (writes.fd < 0)
		victim_die("%s: %s", writes.path, strerror(errno));
	victim_start("writes", write_on, NULL);
}

void asleep_report(void)
{
	victim_say("writes %u", atomic_load(&writes.n_done));
}
