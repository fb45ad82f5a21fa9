/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A client of QEMU's machine protocol (docs/interop/qmp-spec in QEMU's tree):
 * JSON objects, a greeting first, then capability negotiation, then one answer
 * for every command, found by its id; events come in between and are skipped.
 *
 * Every wait ends: each call gets `timeout_ms`, from its start to its answer.
 * A message longer than QMP_MAX_MESSAGE is refused. What arrives is the
 * target's and is not trusted.
 *
 * Errors: -EREMOTEIO when QEMU answered with an error; -ETIMEDOUT; -EPROTO for
 * an answer that is not QMP; -EMSGSIZE for one that is too long; -ECONNRESET
 * when QEMU hung up; else -errno. Only qmp_call() logs; for the others
 * qmp_error() is the text for the caller's message. After -ETIMEDOUT the
 * connection stays good, since a late answer is known by its id; after the
 * others, but -EREMOTEIO, it is broken and says so (-ENOTCONN).
 *
 * One thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/cleanup.h"

/* jansson has the function already. */
#define _cleanup_json_ _cleanup_(json_decrefp)

#define QMP_MAX_MESSAGE	       ((size_t)16 << 20)
#define QMP_DEFAULT_TIMEOUT_MS 10000u

/*
 * What carries the messages: a unix socket (qemu/qmpsock.h), or later another
 * process's monitor connection. `deadline_ns` is of now_ns().
 */
struct qmp_transport_ops {
	/* Sends all of `len` bytes, with descriptor `fd` unless that is -1. */
	int (*send)(void *transport, const char *buf, size_t len, int fd,
		    uint64_t deadline_ns);
	/*
	 * The next message, `len` bytes that may not end in a NUL; valid until
	 * the next call. Errors as above.
	 */
	int (*receive)(void *transport, const char **text, size_t *len,
		       uint64_t deadline_ns);
	/* A descriptor on which raw QMP can be spoken, or -1. */
	int (*fd)(const void *transport);
	void (*free)(void *transport);
};

struct qmp;

struct qmp_version {
	int major, minor, micro;
	char package[64]; /* "Debian 1:7.2+dfsg-7+deb12u16"; may be "" */
};

/*
 * Reads the greeting and negotiates, `greeting_ms` for both. Takes `fd`, a
 * connected stream socket, in any case: it is closed on failure. -ETIMEDOUT
 * with no byte received is what a busy monitor looks like. `why`, of `why_len`
 * bytes, gets the text of an error (there is no struct qmp to ask yet); it may
 * be NULL.
 */
int qmp_open_fd(int fd, unsigned greeting_ms, struct qmp **out, char *why,
		size_t why_len);

/* The same over another transport, which it takes in any case. */
int qmp_open(const struct qmp_transport_ops *ops, void *transport,
	     unsigned greeting_ms, struct qmp **out, char *why, size_t why_len);

/* Closes the connection. Always returns NULL; NULL is fine. */
struct qmp *qmp_free(struct qmp *qmp);

static inline void qmp_freep(struct qmp **qmp)
{
	*qmp = qmp_free(*qmp);
}

#define _cleanup_qmp_ _cleanup_(qmp_freep)

/* The time limit of each following call; QMP_DEFAULT_TIMEOUT_MS at first. */
void qmp_set_timeout(struct qmp *qmp, unsigned timeout_ms);

const struct qmp_version *qmp_get_version(const struct qmp *qmp);
/* Whether QEMU is at least this version. */
bool qmp_version_at_least(const struct qmp *qmp, int major, int minor);

/* Why the last call failed; one line, never NULL. */
const char *qmp_error(const struct qmp *qmp);
/* QEMU's error class ("CommandNotFound") after -EREMOTEIO, else "". */
const char *qmp_error_class(const struct qmp *qmp);

/*
 * Runs a command. `arguments` (an object, or NULL) is taken in any case.
 * `fd` goes along unless it is -1, and stays the caller's. `result` may be
 * NULL; else it gets the value of "return", for json_decref().
 */
int qmp_execute_fd(struct qmp *qmp, const char *command, json_t *arguments,
		   int fd, json_t **result);

static inline int qmp_execute(struct qmp *qmp, const char *command,
			      json_t *arguments, json_t **result)
{
	return qmp_execute_fd(qmp, command, arguments, -1, result);
}

/* The same, but logs a failure: "qmp: COMMAND: reason". */
int qmp_call(struct qmp *qmp, const char *command, json_t *arguments,
	     json_t **result);

/* A line for the human monitor; `text`, to be freed, gets what it prints. */
int qmp_human(struct qmp *qmp, const char *line, char **text);

/* The connection's descriptor, for a guardian process; -1: it has none. */
int qmp_fd(const struct qmp *qmp);

/*
 * For a guardian that holds a copy of qmp_fd() when the dumper has died: makes
 * QEMU drop whatever half a command was sent, sends `cont`, and waits for its
 * answer (QEMU forgets queued commands of a connection that closes). Uses the
 * stack and system calls only, so it may run after fork() in a process that
 * had threads. 0 once answered; -EREMOTEIO when QEMU would not continue.
 */
int qmp_rescue_cont(int fd, unsigned timeout_ms);

/* The same for `remove-fd`: -EREMOTEIO when there is no such set. */
int qmp_rescue_remove_fd(int fd, int64_t fdset_id, unsigned timeout_ms);
