/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/qmp.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/text.h"
#include "base/util.h"
#include "qemu/qmpsock.h"

struct qmp {
	const struct qmp_transport_ops *ops;
	void *transport;
	unsigned timeout_ms;
	json_int_t next_id;
	bool broken;
	struct qmp_version version;
	char error[512];
	char error_class[64];
};

static uint64_t deadline_in(unsigned ms)
{
	return now_ns() + (uint64_t)ms * 1000000;
}

/* Keeps the reason, as one line: it may hold text of the target. */
static int fail(struct qmp *qmp, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct qmp *qmp, int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(qmp->error, sizeof(qmp->error), fmt, args);
	va_end(args);
	for (char *c = qmp->error; *c; c++)
		if (isspace((unsigned char)*c))
			*c = ' ';
	text_make_printable(qmp->error);
	return err;
}

/* The connection's state is unknown from here on. */
static int fail_transport(struct qmp *qmp, int err)
{
	qmp->broken = true;
	switch (err) {
	case -ECONNRESET:
		return fail(qmp, err, "QEMU closed the QMP connection");
	case -EMSGSIZE:
		return fail(qmp, err, "a QMP message exceeds %zu MiB",
			    QMP_MAX_MESSAGE >> 20);
	case -EPROTO:
		return fail(qmp, err, "what was received is not QMP");
	default:
		return fail(qmp, err, "QMP: %s", strerror(-err));
	}
}

static int parse(struct qmp *qmp, const char *text, size_t len, json_t **out)
{
	json_error_t error;

	*out = json_loadb(text, len, JSON_ALLOW_NUL, &error);
	/* QEMU prints some u64 that are above jansson's integers; no answer
	 * that is used here holds one. */
	if (!*out && json_error_code(&error) == json_error_numeric_overflow)
		*out = json_loadb(text, len,
				  JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL,
				  &error);
	if (!*out) {
		qmp->broken = true;
		return fail(qmp, -EPROTO, "QMP message is not JSON: %s",
			    error.text);
	}
	return 0;
}

static int receive(struct qmp *qmp, uint64_t deadline_ns, json_t **out)
{
	const char *text;
	size_t len;
	int r;

	r = qmp->ops->receive(qmp->transport, &text, &len, deadline_ns);
	if (r == -ETIMEDOUT)
		return fail(qmp, r, "no answer from QEMU in %u ms",
			    qmp->timeout_ms);
	if (r)
		return fail_transport(qmp, r);
	return parse(qmp, text, len, out);
}

static int send_command(struct qmp *qmp, const char *command, json_t *arguments,
			int fd, json_int_t id, uint64_t deadline_ns)
{
	_cleanup_json_ json_t *message = NULL;
	_cleanup_free_ char *text = NULL;
	size_t len;
	int r;

	message = json_pack("{s:s, s:I}", "execute", command, "id", id);
	if (!message)
		return fail(qmp, -ENOMEM, "no memory");
	if (arguments && json_object_set(message, "arguments", arguments))
		return fail(qmp, -ENOMEM, "no memory");
	text = json_dumps(message, JSON_COMPACT);
	if (!text)
		return fail(qmp, -ENOMEM, "no memory");

	/* The end of line takes the NUL's place: one write, whole lines. */
	len = strlen(text);
	text[len++] = '\n';
	r = qmp->ops->send(qmp->transport, text, len, fd, deadline_ns);
	if (r == -ETIMEDOUT) {
		qmp->broken = true;
		return fail(qmp, r, "QEMU does not read from its monitor");
	}
	return r ? fail_transport(qmp, r) : 0;
}

static bool is_answer_to(const json_t *message, json_int_t id)
{
	const json_t *got = json_object_get(message, "id");

	/* QEMU leaves the id out where it could not parse a command. */
	if (!got)
		return json_object_get(message, "error");
	return json_is_number(got) && json_number_value(got) == (double)id;
}

static int take_answer(struct qmp *qmp, const json_t *answer, json_t **result)
{
	json_t *value = json_object_get(answer, "return");
	json_t *error = json_object_get(answer, "error");
	const char *class, *desc;

	if (value) {
		if (result)
			*result = json_incref(value);
		return 0;
	}
	if (!json_is_object(error)) {
		qmp->broken = true;
		return fail(qmp, -EPROTO, "QMP answer without result or error");
	}
	class = json_string_value(json_object_get(error, "class"));
	desc = json_string_value(json_object_get(error, "desc"));
	snprintf(qmp->error_class, sizeof(qmp->error_class), "%s", class ?: "");
	return fail(qmp, -EREMOTEIO, "%s", desc ?: class ?: "unnamed error");
}

static int wait_answer(struct qmp *qmp, json_int_t id, uint64_t deadline_ns,
		       json_t **result)
{
	int r;

	for (;;) {
		_cleanup_json_ json_t *message = NULL;

		r = receive(qmp, deadline_ns, &message);
		if (r)
			return r;
		if (is_answer_to(message, id))
			return take_answer(qmp, message, result);
		/* Events and late answers; they must not keep us for ever. */
		if (now_ns() >= deadline_ns)
			return fail(qmp, -ETIMEDOUT,
				    "no answer from QEMU in %u ms",
				    qmp->timeout_ms);
	}
}

static int execute(struct qmp *qmp, const char *command, json_t *arguments,
		   int fd, uint64_t deadline_ns, json_t **result)
{
	json_int_t id = qmp->next_id++;
	int r;

	qmp->error[0] = '\0';
	qmp->error_class[0] = '\0';
	if (qmp->broken)
		return fail(qmp, -ENOTCONN, "the QMP connection is broken");
	r = send_command(qmp, command, arguments, fd, id, deadline_ns);
	return r ?: wait_answer(qmp, id, deadline_ns, result);
}

int qmp_execute_fd(struct qmp *qmp, const char *command, json_t *arguments,
		   int fd, json_t **result)
{
	_cleanup_json_ json_t *owned = arguments;

	return execute(qmp, command, owned, fd, deadline_in(qmp->timeout_ms),
		       result);
}

int qmp_call(struct qmp *qmp, const char *command, json_t *arguments,
	     json_t **result)
{
	int r = qmp_execute(qmp, command, arguments, result);

	return r ? log_errno(r, "qmp: %s: %s", command, qmp_error(qmp)) : 0;
}

int qmp_human(struct qmp *qmp, const char *line, char **text)
{
	_cleanup_json_ json_t *result = NULL;
	const char *value;
	int r;

	r = qmp_execute(qmp, "human-monitor-command",
			json_pack("{s:s}", "command-line", line), &result);
	if (r)
		return r;
	value = json_string_value(result);
	if (!value)
		return fail(qmp, -EPROTO, "%s: the answer is no text", line);
	*text = strdup(value);
	return *text ? 0 : fail(qmp, -ENOMEM, "no memory");
}

static int read_greeting(struct qmp *qmp, uint64_t deadline_ns)
{
	_cleanup_json_ json_t *greeting = NULL;
	const char *package = "";
	json_t *version;
	int r;

	r = receive(qmp, deadline_ns, &greeting);
	if (r == -ETIMEDOUT)
		return fail(qmp, r, "no QMP greeting in time");
	if (r)
		return r;
	version = json_object_get(json_object_get(greeting, "QMP"), "version");
	if (json_unpack(version, "{s:{s:i, s:i, s:i}, s?s}", "qemu", "major",
			&qmp->version.major, "minor", &qmp->version.minor,
			"micro", &qmp->version.micro, "package", &package))
		return fail(qmp, -EPROTO,
			    "the first message is no QMP greeting");
	snprintf(qmp->version.package, sizeof(qmp->version.package), "%s",
		 package);
	return 0;
}

int qmp_open(const struct qmp_transport_ops *ops, void *transport,
	     unsigned greeting_ms, struct qmp **out, char *why, size_t why_len)
{
	uint64_t deadline_ns = deadline_in(greeting_ms);
	_cleanup_qmp_ struct qmp *qmp = calloc(1, sizeof(*qmp));
	int r;

	if (why)
		snprintf(why, why_len, "no memory");
	if (!qmp) {
		ops->free(transport);
		return -ENOMEM;
	}
	qmp->ops = ops;
	qmp->transport = transport;
	qmp->timeout_ms = QMP_DEFAULT_TIMEOUT_MS;
	qmp->next_id = 1;

	r = read_greeting(qmp, deadline_ns);
	if (!r)
		r = execute(qmp, "qmp_capabilities", NULL, -1, deadline_ns,
			    NULL);
	if (r && why)
		snprintf(why, why_len, "%s", qmp->error);
	if (r)
		return r;

	*out = steal_ptr(qmp);
	return 0;
}

int qmp_open_fd(int fd, unsigned greeting_ms, struct qmp **out, char *why,
		size_t why_len)
{
	void *transport = qmp_sock_new(fd);

	if (!transport) {
		if (why)
			snprintf(why, why_len, "no memory");
		return -ENOMEM;
	}
	return qmp_open(&qmp_sock_ops, transport, greeting_ms, out, why,
			why_len);
}

struct qmp *qmp_free(struct qmp *qmp)
{
	if (!qmp)
		return NULL;
	qmp->ops->free(qmp->transport);
	free(qmp);
	return NULL;
}

void qmp_set_timeout(struct qmp *qmp, unsigned timeout_ms)
{
	qmp->timeout_ms = timeout_ms;
}

const struct qmp_version *qmp_get_version(const struct qmp *qmp)
{
	return &qmp->version;
}

bool qmp_version_at_least(const struct qmp *qmp, int major, int minor)
{
	return qmp->version.major > major ||
	       (qmp->version.major == major && qmp->version.minor >= minor);
}

const char *qmp_error(const struct qmp *qmp)
{
	return qmp->error;
}

const char *qmp_error_class(const struct qmp *qmp)
{
	return qmp->error_class;
}

int qmp_fd(const struct qmp *qmp)
{
	return qmp->ops->fd(qmp->transport);
}
