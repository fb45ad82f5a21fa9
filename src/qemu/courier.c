/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/courier.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "image/image.h"
#include "qemu/find.h"
#include "qemu/libvirt.h"
#include "qemu/qmp.h"
#include "sys/caps.h"
#include "sys/fdpass.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"

/* Our commands are a line each, and short. */
#define LINE_MAX_LEN ((size_t)1 << 20)

/* How long a command waits for a daemon that is gone; a restart takes less. */
#define DAEMON_TIMEOUT_NS ((uint64_t)20 * 1000000000)
/* From when on the monitor is tried itself. */
#define DIRECT_AFTER_NS	  ((uint64_t)500 * 1000000)
#define RETRY_NS	  ((uint64_t)100 * 1000000)

/* One after the other. */
#define COURIERS_MAX 8

/* How long one that was told to end may take; it may wait for the daemon. */
#define EXIT_TIMEOUT_MS 1000

/* What the process tells of how it began. */
struct report {
	int result;
	pid_t domain_pid;
	size_t xml_len; /* the text follows */
};

struct post {
	struct libvirt *libvirt;
	pid_t domain_pid;
	int sock;
	/* Received, and the descriptor that came along. */
	char *buf;
	size_t len, capacity;
	int fd;
};

static int run_by_libvirt(struct post *post, const char *command, int fd,
			  json_t **answer)
{
	_cleanup_free_ char *text = NULL;
	json_error_t error;
	int r = libvirt_command(post->libvirt, command, fd, &text);

	if (r)
		return r;
	*answer = json_loads(text, JSON_ALLOW_NUL, &error);
	/* As in qmp.c: some of QEMU's numbers are above jansson's integers. */
	if (!*answer && json_error_code(&error) == json_error_numeric_overflow)
		*answer = json_loads(
			text, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
	return json_is_object(*answer) ? 0 : -EPROTO;
}

/* By the monitor's own socket, which is free while no daemon is there. */
static int run_directly(struct post *post, const char *name, json_t *arguments,
			int fd, json_t **answer)
{
	_cleanup_close_ int proc_fd = procfs_open(post->domain_pid);
	_cleanup_json_ json_t *result = NULL;
	_cleanup_qmp_ struct qmp *qmp = NULL;
	int r;

	if (proc_fd < 0)
		return proc_fd;
	r = find_qmp_silently(post->domain_pid, proc_fd, &qmp);
	if (r)
		return -ENOTCONN;
	r = qmp_execute_fd(qmp, name, json_incref(arguments), fd, &result);
	if (r == -EREMOTEIO)
		*answer =
			json_pack("{s:{s:s, s:s}}", "error", "class",
				  qmp_error_class(qmp), "desc", qmp_error(qmp));
	else if (!r)
		*answer = json_pack("{s:O}", "return", result);
	else
		return r;
	return *answer ? 0 : -ENOMEM;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / 1000000000),
		.tv_nsec = (long)(ns % 1000000000),
	};

	nanosleep(&ts, NULL);
}

static int run(struct post *post, const char *command, const char *name,
	       json_t *arguments, int fd, json_t **answer)
{
	uint64_t started = now_ns();
	int r = run_by_libvirt(post, command, fd, answer);

	while (r == -ENOTCONN && now_ns() - started < DAEMON_TIMEOUT_NS) {
		r = libvirt_reopen(post->libvirt);
		if (!r)
			r = run_by_libvirt(post, command, fd, answer);
		else if (now_ns() - started >= DIRECT_AFTER_NS)
			r = run_directly(post, name, arguments, fd, answer);
		if (r == -ENOTCONN)
			sleep_ns(RETRY_NS);
	}
	return r;
}

static json_t *error_answer(const struct post *post, int r)
{
	const char *why = strerror(-r);

	if (r == -EREMOTEIO)
		why = libvirt_error(post->libvirt);
	else if (r == -ENOTCONN)
		why = "its daemon is gone";
	return json_pack("{s:{s:s, s:s+}}", "error", "class", "GenericError",
			 "desc", "libvirt: ", why);
}

/* The answer to a line; NULL: it was none. */
static json_t *answer_line(struct post *post, const char *line, size_t len)
{
	_cleanup_json_ json_t *command = json_loadb(line, len, 0, NULL);
	_cleanup_json_ json_t *id = NULL;
	_cleanup_free_ char *text = NULL;
	json_t *answer = NULL;
	const char *name;
	int r;

	name = json_string_value(json_object_get(command, "execute"));
	if (!name)
		return NULL;
	id = json_incref(json_object_get(command, "id"));
	/* libvirt has done this, and has ids of its own. */
	json_object_del(command, "id");
	text = json_dumps(command, JSON_COMPACT);
	if (!strcmp(name, "qmp_capabilities"))
		answer = json_pack("{s:{}}", "return");
	else if (text) {
		r = run(post, text, name, json_object_get(command, "arguments"),
			post->fd, &answer);
		if (r) {
			json_decref(answer);
			answer = error_answer(post, r);
		}
	}
	if (id)
		json_object_set(answer, "id", id);
	else
		json_object_del(answer, "id");
	return answer;
}

static int send_message(struct post *post, const json_t *message)
{
	_cleanup_free_ char *text = json_dumps(message, JSON_COMPACT);
	size_t len, done = 0;

	if (!text)
		return -ENOMEM;
	len = strlen(text);
	text[len++] = '\n';
	while (done < len) {
		ssize_t n =
			send(post->sock, text + done, len - done, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* As a monitor greets, by what QEMU tells of itself. */
static int greet(struct post *post)
{
	_cleanup_json_ json_t *answer = NULL, *greeting = NULL;
	json_t *version;
	int r = run_by_libvirt(post, "{\"execute\":\"query-version\"}", -1,
			       &answer);

	if (r)
		return log_errno(r, "libvirt: query-version: %s",
				 libvirt_error(post->libvirt));
	version = json_object_get(answer, "return");
	greeting = json_pack("{s:{s:O, s:[]}}", "QMP", "version", version,
			     "capabilities");
	return greeting ? send_message(post, greeting) : -EPROTO;
}

static int receive(struct post *post)
{
	size_t n_fds = 1, len;
	char *longer;
	int fd, r;

	if (post->len == post->capacity) {
		if (post->capacity >= LINE_MAX_LEN)
			return -EMSGSIZE;
		post->capacity = max_u64(2 * post->capacity, 65536);
		longer = realloc(post->buf, post->capacity);
		if (!longer)
			return -ENOMEM;
		post->buf = longer;
	}
	len = post->capacity - post->len;
	r = fdpass_recv(post->sock, post->buf + post->len, &len, &fd, &n_fds);
	if (r)
		return r;
	if (n_fds) {
		close_fd(&post->fd);
		post->fd = fd;
	}
	post->len += len;
	return len ? 0 : -EPIPE;
}

/*
 * Answers each whole line. What a dumper that died has left unfinished ends
 * with a byte that is in no UTF-8 text (qmp_rescue.c), and is no JSON.
 */
static int answer_lines(struct post *post)
{
	char *end;
	int r = 0;

	while (!r && (end = memchr(post->buf, '\n', post->len))) {
		size_t len = (size_t)(end - post->buf) + 1;
		_cleanup_json_ json_t *answer =
			answer_line(post, post->buf, len);

		close_fd(&post->fd);
		post->len -= len;
		memmove(post->buf, post->buf + len, post->len);
		if (answer)
			r = send_message(post, answer);
	}
	return r;
}

/* Until nobody has the other end. */
static void serve(struct post *post)
{
	int r;

	do {
		r = receive(post);
		if (!r)
			r = answer_lines(post);
	} while (!r);
}

/* libvirt tells nobody of the process; the threads of its vCPUs do. */
static int find_process(struct post *post)
{
	_cleanup_json_ json_t *answer = NULL;
	_cleanup_free_ char **argv = NULL;
	_cleanup_close_ int proc_fd = -1;
	struct proc_status status;
	json_int_t tid = 0;
	size_t n_args = 0;
	int r;

	r = run_by_libvirt(post, "{\"execute\":\"query-cpus-fast\"}", -1,
			   &answer);
	if (r)
		return log_errno(r, "libvirt: query-cpus-fast: %s",
				 libvirt_error(post->libvirt));
	json_unpack(answer, "{s:[{s:I}]}", "return", "thread-id", &tid);
	proc_fd = procfs_open((pid_t)tid);
	if (proc_fd >= 0 && !procfs_read_status(proc_fd, &status) &&
	    !procfs_read_argv(proc_fd, &argv, &n_args))
		for (size_t i = 0; i < n_args; i++)
			if (!strcmp(argv[i], libvirt_uuid(post->libvirt))) {
				post->domain_pid = status.tgid;
				return 0;
			}
	log_error(
		"libvirt: the domain's QEMU is not among the processes seen from here; run snapuffd on its host, and in the host's pid namespace");
	return RESULT_UNSUPPORTED;
}

/* Of now, so that the pause is not longer by it. */
static int read_xml(struct post *post, char **xml)
{
	int r = libvirt_get_xml(post->libvirt, xml);

	if (r)
		return log_errno(r, "libvirt: the domain's XML: %s",
				 libvirt_error(post->libvirt));
	if (strlen(*xml) <= IMAGE_DOMAIN_XML_MAX)
		return 0;
	log_error("libvirt: the domain's XML has %zu bytes, too many",
		  strlen(*xml));
	return RESULT_UNSUPPORTED;
}

static void ignore_signals(void)
{
	static const int signals[] = { SIGINT,	SIGTERM, SIGHUP, SIGQUIT,
				       SIGPIPE, SIGTSTP, SIGALRM };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		signal(signals[i], SIG_IGN);
}

/* The other end of what we stream to may be waiting for our end of it. */
static void leave_stdio(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	close(null);
}

/* `report_fd` is -1 in one that takes the place of one that died. */
static __attribute__((noreturn)) void carry(int sock, int report_fd,
					    const char *uri, const char *domain)
{
	struct post post = { .sock = sock, .fd = -1 };
	struct report report = {};
	_cleanup_free_ char *xml = NULL;
	int r;

	prctl(PR_SET_NAME, "snapuffd-courier");
	r = libvirt_open(uri, domain, &post.libvirt);
	if (!r)
		r = find_process(&post);
	if (report_fd >= 0) {
		if (!r)
			r = read_xml(&post, &xml);
		/* It is logged already. */
		report.result = result_exit_code(r);
		report.domain_pid = post.domain_pid;
		report.xml_len = xml ? strlen(xml) : 0;
		io_write_full(report_fd, &report, sizeof(report));
		if (report.xml_len)
			io_write_full(report_fd, xml, report.xml_len);
		close(report_fd);
		if (!r)
			r = greet(&post);
	}
	if (!r)
		serve(&post);
	libvirt_free(post.libvirt);
	free(post.buf);
	_exit(0);
}

/* What finding the monitor of another user's process takes. */
static void drop_capabilities(void)
{
	static const cap_value_t keep[] = { CAP_SYS_PTRACE, CAP_DAC_OVERRIDE,
					    CAP_DAC_READ_SEARCH };
	int r = caps_reduce(keep, ARRAY_SIZE(keep));

	if (r)
		log_errno(r, "libvirt: cannot drop capabilities: %m");
}

/*
 * The VM may be stopped when a courier dies, and nobody else could have it
 * continued. So the process that we start does nothing but put another into
 * its place.
 */
static __attribute__((noreturn)) void run_depot(int sock, int report_fd,
						const char *uri,
						const char *domain)
{
	int status = 0;

	setsid();
	ignore_signals();
	prctl(PR_SET_NAME, "snapuffd-depot");
	leave_stdio();
	drop_capabilities();
	for (unsigned n = 0; n < COURIERS_MAX; n++) {
		pid_t pid = fork();

		if (!pid)
			carry(sock, report_fd, uri, domain);
		close_fd(&report_fd);
		if (pid < 0)
			break;
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (!WIFSIGNALED(status))
			break;
		log_warning(
			"libvirt: the process %d that talks to it was killed by signal %d; another takes its place",
			pid, WTERMSIG(status));
	}
	_exit(0);
}

static int take_report(struct courier *courier, int report_fd)
{
	struct report report;
	int r = io_read_full(report_fd, &report, sizeof(report));

	if (r)
		return log_errno(
			-EPIPE, "libvirt: the process %d that talks to it died",
			courier->pid);
	courier->domain_pid = report.domain_pid;
	if (report.result || !report.xml_len)
		return report.result;
	courier->xml = calloc(1, report.xml_len + 1);
	if (!courier->xml)
		return -ENOMEM;
	r = io_read_full(report_fd, courier->xml, report.xml_len);
	return r ? log_errno(-EPIPE,
			     "libvirt: the process %d that talks to it died",
			     courier->pid)
		 : 0;
}

int courier_start(struct courier *courier, const char *uri, const char *domain)
{
	_cleanup_close_ int theirs = -1;
	_cleanup_close_ int report_in = -1;
	_cleanup_close_ int report_out = -1;
	int socks[2], pipes[2];

	*courier = COURIER_INIT;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		return log_errno(-errno, "libvirt: socketpair: %m");
	courier->sock = socks[0];
	theirs = socks[1];
	if (pipe2(pipes, O_CLOEXEC))
		return log_errno(-errno, "libvirt: pipe: %m");
	report_in = pipes[0];
	report_out = pipes[1];

	courier->pid = fork();
	if (courier->pid < 0)
		return log_errno(-errno, "libvirt: fork: %m");
	if (!courier->pid) {
		close(courier->sock);
		close(report_in);
		run_depot(theirs, report_out, uri, domain);
	}
	close_fd(&report_out);
	return take_report(courier, report_in);
}

void courier_stop(struct courier *courier)
{
	int pidfd;

	close_fd(&courier->sock);
	free(courier->xml);
	courier->xml = NULL;
	if (courier->pid <= 0)
		return;
	pidfd = pidfd_from_pid(courier->pid);
	if (pidfd < 0 || !pidfd_wait_exit(pidfd, EXIT_TIMEOUT_MS))
		while (waitpid(courier->pid, NULL, 0) < 0 && errno == EINTR)
			;
	close_fd(&pidfd);
	courier->pid = -1;
}
