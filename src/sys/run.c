/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/run.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/io.h"

extern char **environ;

static int spawn(char *const *argv, int out, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	int r = posix_spawn_file_actions_init(&actions);

	if (r)
		return -r;
	r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY,
					     0);
	if (!r)
		r = posix_spawn_file_actions_adddup2(&actions, out, 1);
	if (!r)
		r = posix_spawn_file_actions_adddup2(&actions, out, 2);
	if (!r)
		r = posix_spawnp(pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

int run_program(char *const *argv, size_t max, char **text)
{
	_cleanup_close_ int read_end = -1;
	int ends[2], status, r;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	read_end = ends[0];
	r = spawn(argv, ends[1], &pid);
	close(ends[1]);
	if (r)
		return r;
	r = io_read_all(read_end, max, text, NULL);
	close_fd(&read_end);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (r)
		return r;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : 1;
}
