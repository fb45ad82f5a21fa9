/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

/*
 * One command by a process that may not allocate, on a connection whose former
 * user died at any byte. Hence no JSON library. What the lines tell suffices:
 * QEMU ends each message with a line end, and starts each with a brace in the
 * first column, where a pretty-printing monitor has no other opening brace.
 */

#define RESCUE_ID "\"snapuffd-rescue\""

/* 0xff is in no UTF-8 text: QEMU's lexer drops what it has, and answers with
 * an error that has no id (qobject/json-lexer.c). */
#define RESCUE_PREFIX "\xff\n{\"id\":" RESCUE_ID ",\"execute\":"

/* Finds a word in a stream of bytes. */
struct matcher {
	const char *word;
	size_t n_matched;
	bool found;
};

static void match_byte(struct matcher *matcher, char c)
{
	if (matcher->found)
		return;
	if (c != matcher->word[matcher->n_matched])
		matcher->n_matched = 0;
	if (c == matcher->word[matcher->n_matched])
		matcher->n_matched++;
	matcher->found = !matcher->word[matcher->n_matched];
}

struct answer {
	struct matcher id, error;
	char first; /* of this line */
	size_t line_len;
};

static void start_message(struct answer *answer)
{
	answer->id = (struct matcher){ .word = RESCUE_ID };
	answer->error = (struct matcher){ .word = "\"error\"" };
}

/* Whether this byte ends a message. */
static bool take_byte(struct answer *answer, char c)
{
	bool ends;

	if (c == '\r')
		return false;
	if (c == '\n') {
		/* A brace alone opens a message that is pretty-printed. */
		ends = answer->first == '}' ||
		       (answer->first == '{' && answer->line_len > 1);
		answer->line_len = 0;
		answer->first = '\0';
		return ends;
	}
	if (!answer->line_len++) {
		answer->first = c;
		if (c == '{')
			start_message(answer);
	}
	match_byte(&answer->id, c);
	match_byte(&answer->error, c);
	return false;
}

static int poll_until(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	uint64_t now = now_ns();
	int r;

	if (now >= deadline_ns)
		return -ETIMEDOUT;
	r = poll(&pfd, 1, (int)((deadline_ns - now) / 1000000 + 1));
	return r < 0 && errno != EINTR ? -errno : 0;
}

static int send_command(int fd, const char *command, uint64_t deadline_ns)
{
	size_t len = strlen(command), done = 0;
	ssize_t n;
	int r;

	while (done < len) {
		r = poll_until(fd, POLLOUT, deadline_ns);
		if (r)
			return r;
		n = send(fd, command + done, len - done,
			 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0)
			done += (size_t)n;
		else if (errno != EAGAIN && errno != EINTR)
			return errno == EPIPE ? -ECONNRESET : -errno;
	}
	return 0;
}

static int rescue(int fd, const char *command, unsigned timeout_ms)
{
	uint64_t deadline_ns = now_ns() + (uint64_t)timeout_ms * 1000000;
	struct answer answer = { 0 };
	char buf[4096];
	ssize_t i, n;
	int r;

	r = send_command(fd, command, deadline_ns);
	start_message(&answer);
	while (!r) {
		r = poll_until(fd, POLLIN, deadline_ns);
		if (r)
			break;
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (!n)
			return -ECONNRESET;
		for (i = 0; i < n; i++)
			if (take_byte(&answer, buf[i]) && answer.id.found)
				return answer.error.found ? -EREMOTEIO : 0;
	}
	return r;
}

int qmp_rescue_cont(int fd, unsigned timeout_ms)
{
	return rescue(fd, RESCUE_PREFIX "\"cont\"}\n", timeout_ms);
}

int qmp_rescue_remove_fd(int fd, int64_t fdset_id, unsigned timeout_ms)
{
	char command[128];

	snprintf(command, sizeof(command),
		 RESCUE_PREFIX "\"remove-fd\",\"arguments\":{\"fdset-id\":%" PRId64
			       "}}\n",
		 fdset_id);
	return rescue(fd, command, timeout_ms);
}
