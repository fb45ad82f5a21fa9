/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QMP client against a scripted server at the other end of a socket pair:
 * what QEMU says, and what a hostile process might.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/result.h"
#include "base/util.h"
#include "qemu/devstate.h"
#include "qemu/disks.h"
#include "qemu/overlay.h"
#include "qemu/qmp.h"
#include "qemu/vm.h"
#include "sys/procfs.h"

#define GREETING                                                              \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, "   \
	"\"major\": 7}, \"package\": \"Debian 7.2\"}, \"capabilities\": []}}" \
	"\r\n"
#define OK(id) "{\"return\": {}, \"id\": " #id "}\r\n"

/* Short, for the tests that wait until it is over. */
/* Where the time is to run out, and where it must not, however busy the
 * machine. */
#define TIMEOUT_MS  200
#define PATIENCE_MS 30000

/* Says each line once a whole command came; the first at once. */
struct script {
	int fd;
	const char *const *says;
	pthread_t thread;
	int received_fd;
	char heard[4096];
};

static bool hear_line(struct script *script)
{
	char control[CMSG_SPACE(sizeof(int))];
	size_t len = strlen(script->heard);
	struct msghdr msg;
	struct iovec iov;
	char c = 0;

	while (c != '\n') {
		iov = (struct iovec){ &c, 1 };
		msg = (struct msghdr){ .msg_iov = &iov,
				       .msg_iovlen = 1,
				       .msg_control = control,
				       .msg_controllen = sizeof(control) };
		if (recvmsg(script->fd, &msg, 0) != 1)
			return false;
		if (CMSG_FIRSTHDR(&msg))
			memcpy(&script->received_fd,
			       CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
		if (len + 1 < sizeof(script->heard))
			script->heard[len++] = c;
	}
	script->heard[len] = '\0';
	return true;
}

static void say(int fd, const char *text)
{
	size_t len = strlen(text);
	ssize_t n;

	while (len) {
		n = send(fd, text, len, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static void *run_script(void *arg)
{
	struct script *script = arg;
	size_t i;

	for (i = 0; script->says[i]; i++) {
		if (i && !hear_line(script))
			break;
		say(script->fd, script->says[i]);
	}
	/* Hangs up when the client does, or was told to by the empty text. */
	if (!i || *script->says[i - 1])
		while (hear_line(script))
			;
	shutdown(script->fd, SHUT_RDWR);
	return NULL;
}

static int start(struct script *script, const char *const *says)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	*script = (struct script){ .fd = pair[0],
				   .says = says,
				   .received_fd = -1 };
	assert_int_equal(
		pthread_create(&script->thread, NULL, run_script, script), 0);
	return pair[1];
}

static void finish(struct script *script, struct qmp *qmp)
{
	qmp_free(qmp);
	pthread_join(script->thread, NULL);
	close(script->fd);
	if (script->received_fd >= 0)
		close(script->received_fd);
}

static struct qmp *open_good(struct script *script, const char *const *says)
{
	struct qmp *qmp = NULL;
	char why[128];

	assert_int_equal(qmp_open_fd(start(script, says), PATIENCE_MS, &qmp,
				     why, sizeof(why)),
			 0);
	qmp_set_timeout(qmp, PATIENCE_MS);
	return qmp;
}

static void open_bad(const char *const *says, int expected)
{
	struct script script;
	struct qmp *qmp = NULL;
	char why[128] = "";

	assert_int_equal(
		qmp_open_fd(start(&script, says),
			    expected == -ETIMEDOUT ? TIMEOUT_MS : PATIENCE_MS,
			    &qmp, why, sizeof(why)),
		expected);
	assert_null(qmp);
	assert_true(*why);
	finish(&script, NULL);
}

#define SAYS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void test_greeting(void **state)
{
	struct script script;
	struct qmp *qmp = open_good(&script, SAYS(GREETING, OK(1)));

	(void)state;
	assert_int_equal(qmp_get_version(qmp)->major, 7);
	assert_int_equal(qmp_get_version(qmp)->micro, 22);
	assert_string_equal(qmp_get_version(qmp)->package, "Debian 7.2");
	assert_true(qmp_version_at_least(qmp, 7, 2));
	assert_true(qmp_version_at_least(qmp, 6, 9));
	assert_false(qmp_version_at_least(qmp, 8, 0));
	finish(&script, qmp);
}

static void test_no_greeting(void **state)
{
	(void)state;
	open_bad(SAYS("QEMU 7.2.22 monitor - type 'help'\r\n"), -EPROTO);
	open_bad(SAYS("{\"event\": \"STOP\"}"), -EPROTO);
	open_bad(SAYS("{\"QMP\": 3}"), -EPROTO);
	open_bad(SAYS("{\"QMP\": {\"version\": {\"qemu\": []}}}"), -EPROTO);
	open_bad(SAYS("{\"QMP\": {\"version\": {\"qemu\": {\"major\": \"7\","
		      "\"minor\": 2, \"micro\": 0}}}}"),
		 -EPROTO);
	open_bad(SAYS("{]}"), -EPROTO);
	open_bad(SAYS("{\"QMP\": "), -ETIMEDOUT);
	open_bad(SAYS("\r\n", "", ""), -ETIMEDOUT);
	open_bad(SAYS(GREETING, "{\"error\": {}, \"id\": 1}"), -EREMOTEIO);
	open_bad(SAYS(GREETING, ""), -ECONNRESET);
}

static void test_result_and_events(void **state)
{
	struct script script;
	struct qmp *qmp = open_good(
		&script,
		SAYS(GREETING, OK(1),
		     "{\"event\": \"STOP\"}\r\n{\"return\": 9, \"id\": 1}\r\n"
		     "{\n    \"return\": {\n        \"a}\\\"{\": [1, 2]\n    },"
		     "\n    \"id\": 2\n}\r\n"));
	_cleanup_json_ json_t *result = NULL;

	(void)state;
	assert_int_equal(
		qmp_execute(qmp, "x", json_pack("{s:i}", "n", 5), &result), 0);
	assert_int_equal(json_array_size(json_object_get(result, "a}\"{")), 2);
	assert_non_null(strstr(script.heard, "\"arguments\":{\"n\":5}"));
	finish(&script, qmp);
}

static void test_qemu_error(void **state)
{
	struct script script;
	struct qmp *qmp = open_good(
		&script,
		SAYS(GREETING, OK(1),
		     "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": "
		     "\"no\\nway\"}, \"id\": 2}\r\n",
		     OK(3)));

	(void)state;
	assert_int_equal(qmp_execute(qmp, "x", NULL, NULL), -EREMOTEIO);
	assert_string_equal(qmp_error(qmp), "no way");
	assert_string_equal(qmp_error_class(qmp), "CommandNotFound");
	assert_int_equal(qmp_execute(qmp, "x", NULL, NULL), 0);
	assert_string_equal(qmp_error_class(qmp), "");
	finish(&script, qmp);
}

static void test_late_answer(void **state)
{
	struct script script;
	struct qmp *qmp =
		open_good(&script, SAYS(GREETING, OK(1), " ", OK(2) OK(3)));
	uint64_t start_ns = now_ns();

	(void)state;
	qmp_set_timeout(qmp, TIMEOUT_MS);
	assert_int_equal(qmp_execute(qmp, "x", NULL, NULL), -ETIMEDOUT);
	assert_true(now_ns() - start_ns >= TIMEOUT_MS * 1000000ull);
	qmp_set_timeout(qmp, PATIENCE_MS);
	assert_int_equal(qmp_execute(qmp, "y", NULL, NULL), 0);
	finish(&script, qmp);
}

static void check_broken(const char *answer, int expected)
{
	struct script script;
	struct qmp *qmp = open_good(&script, SAYS(GREETING, OK(1), answer));

	assert_int_equal(qmp_execute(qmp, "x", NULL, NULL), expected);
	assert_true(*qmp_error(qmp));
	assert_int_equal(qmp_execute(qmp, "x", NULL, NULL), -ENOTCONN);
	finish(&script, qmp);
}

static void test_hostile_answers(void **state)
{
	char *text = malloc(QMP_MAX_MESSAGE + 100000);

	(void)state;
	check_broken("\xff\xfe\x00", -EPROTO);
	check_broken("hello\r\n", -EPROTO);
	check_broken("{\"id\": 2}\r\n", -EPROTO);
	check_broken("{\"id\": 2, \"error\": 5}\r\n", -EPROTO);
	check_broken("{\"return\": \"\xff\", \"id\": 2}\r\n", -EPROTO);
	check_broken("", -ECONNRESET);

	/* Endless in a string, and endless in depth. */
	memset(text, 'a', QMP_MAX_MESSAGE + 100000);
	memcpy(text, "{\"", 2);
	text[QMP_MAX_MESSAGE + 99999] = '\0';
	check_broken(text, -EMSGSIZE);
	memset(text, '[', 100000);
	memset(text + 100000, ']', 100000);
	memcpy(text, "{\"return\":", 10);
	strcpy(text + 200000 - 10, "}");
	check_broken(text, -EPROTO);
	free(text);
}

static void test_big_numbers(void **state)
{
	struct script script;
	struct qmp *qmp = open_good(
		&script,
		SAYS(GREETING, OK(1),
		     "{\"return\": 18446744073709551615, \"id\": 2}", OK(3)));
	_cleanup_json_ json_t *result = NULL;

	(void)state;
	assert_int_equal(qmp_execute(qmp, "x", NULL, &result), 0);
	assert_true(json_is_real(result));
	assert_int_equal(qmp_execute(qmp, "x", NULL, NULL), 0);
	finish(&script, qmp);
}

static void *flood(void *arg)
{
	int fd = *(int *)arg;
	static const char event[] = "{\"event\": \"RTC_CHANGE\"}\r\n";

	say(fd, GREETING OK(1));
	while (send(fd, event, sizeof(event) - 1, MSG_NOSIGNAL) > 0)
		;
	return NULL;
}

/* Events without end and no answer must not hold us beyond the limit. */
static void test_event_flood(void **state)
{
	struct qmp *qmp = NULL;
	pthread_t thread;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pthread_create(&thread, NULL, flood, &pair[0]);
	assert_int_equal(qmp_open_fd(pair[1], PATIENCE_MS, &qmp, NULL, 0), 0);
	qmp_set_timeout(qmp, TIMEOUT_MS);
	assert_int_equal(qmp_execute(qmp, "x", NULL, NULL), -ETIMEDOUT);
	qmp_free(qmp);
	pthread_join(thread, NULL);
	close(pair[0]);
}

static void test_sends_fd(void **state)
{
	struct script script;
	struct qmp *qmp = open_good(&script, SAYS(GREETING, OK(1), OK(2)));

	(void)state;
	assert_int_equal(qmp_execute_fd(qmp, "add-fd", NULL, 0, NULL), 0);
	assert_true(script.received_fd > 0);
	finish(&script, qmp);
}

static void test_human(void **state)
{
	struct script script;
	struct qmp *qmp =
		open_good(&script, SAYS(GREETING, OK(1),
					"{\"return\": \"a\\r\\n\", \"id\": 2}",
					"{\"return\": {}, \"id\": 3}"));
	_cleanup_free_ char *text = NULL;

	(void)state;
	assert_int_equal(qmp_human(qmp, "info x", &text), 0);
	assert_string_equal(text, "a\r\n");
	assert_non_null(strstr(script.heard, "\"command-line\":\"info x\""));
	assert_int_equal(qmp_human(qmp, "info y", &text), -EPROTO);
	finish(&script, qmp);
}

#define RESCUED "\"id\": \"snapuffd-rescue\""

static int rescue_within(unsigned timeout_ms, const char *const *says)
{
	struct script script;
	int r, fd = start(&script, says);

	r = qmp_rescue_cont(fd, timeout_ms);
	close(fd);
	finish(&script, NULL);
	return r;
}

#define rescue(says) rescue_within(PATIENCE_MS, says)

static void test_rescue(void **state)
{
	(void)state;
	/* The script answers 0xff's line, and the command's line. */
	assert_int_equal(rescue(SAYS("rest of a message\"}}\r\n",
				     "{\"error\": {\"desc\": \"JSON\"}}\r\n",
				     "{\"return\": {}, " RESCUED "}\r\n")),
			 0);
	assert_int_equal(rescue(SAYS("\"error\"", " ",
				     "\r\n{\"event\": \"\"}\r\n{" RESCUED
				     ", \"return\": {}}\r\n")),
			 0);
	assert_int_equal(
		rescue(SAYS(" ", "{\n    \"error\": {\n    }\n}\r\n",
			    "{\n    \"return\": {\n    },\n    " RESCUED
			    "\n}\r\n")),
		0);
	assert_int_equal(
		rescue(SAYS(" ", " ", "\n{\"error\": {}, " RESCUED "}\r\n")),
		-EREMOTEIO);
	assert_int_equal(rescue_within(TIMEOUT_MS, SAYS(" ", " ", " ")),
			 -ETIMEDOUT);
	assert_int_equal(rescue(SAYS(" ", "")), -ECONNRESET);
}

/* After a garbled answer, cont must get through all the same. */
static void test_cont_on_broken(void **state)
{
	struct script script;
	struct qmp *qmp =
		open_good(&script, SAYS(GREETING, OK(1), "garbage\r\n",
					"{\"error\": {}}\r\n",
					"{\"return\": {}, " RESCUED "}\r\n"));

	(void)state;
	assert_int_equal(qmp_execute(qmp, "x", NULL, NULL), -EPROTO);
	assert_int_equal(vm_cont(qmp, PATIENCE_MS), 0);
	finish(&script, qmp);
}

static void test_vm_answers(void **state)
{
	struct script script;
	struct qmp *qmp = open_good(
		&script,
		SAYS(GREETING, OK(1),
		     "{\"return\": {\"running\": true, \"status\": \"running\"}"
		     ", \"id\": 2}",
		     "{\"return\": {\"running\": 1, \"status\": 5}, \"id\": 3}",
		     "{\"return\": \"pc-q35-7.2-machine\", \"id\": 4}",
		     "{\"return\": \"-machine\", \"id\": 5}",
		     "{\"return\": {\"status\": \"active\", \"blocked-reasons\""
		     ": [\"because\", 7]}, \"id\": 6}"));
	struct vm_strings reasons = { 0 };
	struct vm_status status;
	_cleanup_free_ char *machine = NULL;

	(void)state;
	assert_int_equal(vm_query_status(qmp, &status), 0);
	assert_true(status.running);
	assert_int_equal(vm_query_status(qmp, &status), -EPROTO);
	assert_int_equal(vm_query_machine(qmp, &machine), 0);
	assert_string_equal(machine, "pc-q35-7.2");
	assert_int_equal(vm_query_machine(qmp, &machine), -EPROTO);
	assert_int_equal(vm_list_blockers(qmp, &reasons), 0);
	assert_int_equal(reasons.n_items, 2);
	assert_string_equal(reasons.items[1], "QEMU: because");
	vm_strings_deinit(&reasons);
	finish(&script, qmp);
}

#define BLOCK(file, ro)                                                     \
	"{\"device\": \"\", \"qdev\": \"/machine/x\", \"inserted\": {"      \
	"\"node-name\": \"#block1\", \"drv\": \"qcow2\", \"file\": \"" file \
	"\", \"ro\": " ro ", \"image\": {\"virtual-size\": 512}}}"

#define WHOLE_FILE "json:{\\\"file\\\": {\\\"filename\\\": \\\"/a\\\"}}"
#define PART_OF_IT \
	"json:{\\\"file\\\": {\\\"filename\\\": \\\"/a\\\"}, \\\"offset\\\": 1}"
/* clang-format off */
#define BLOCKS                                                              \
	"{\"return\": [{\"device\": \"cd\"}, " BLOCK("disk", "true")         \
	", " BLOCK(WHOLE_FILE, "false") ", " BLOCK(PART_OF_IT, "false")     \
	"], \"id\": 2}"
/* clang-format on */

static void test_disk_names(void **state)
{
	struct script script;
	struct qmp *qmp = open_good(&script, SAYS(GREETING, OK(1), BLOCKS));
	struct disks disks;

	(void)state;
	assert_int_equal(disks_query(qmp, &disks), 0);
	assert_int_equal(disks.n_disks, 3);
	assert_string_equal(disks.disks[0].device, "/machine/x");
	assert_string_equal(disks.disks[0].file, "disk");
	assert_true(disks.disks[0].read_only);
	assert_int_equal(disks.disks[0].virtual_size, 512);
	assert_string_equal(disks.disks[1].file, "/a");
	assert_memory_equal(disks.disks[2].file, "json:", 5);
	disks_deinit(&disks);
	finish(&script, qmp);
}

#define JOB "{\"return\": [{\"id\": \"%s\", \"status\": \"%s\"%s}], \"id\": %d}"

struct overlay_case {
	const char *job_error; /* of the second job, or "" */
	const char *answer;    /* to the transaction; NULL: not asked */
	int result;
	bool kept; /* the file */
};

static void check_overlay(const struct overlay_case *c)
{
	char dir[] = "/tmp/snapuffd-test-XXXXXX", base[64], jobs[3][256];
	struct overlays overlays;
	struct script script;
	_cleanup_free_ char *path = NULL;
	int r, fd, proc_fd = procfs_open(getpid());

	assert_non_null(mkdtemp(dir));
	snprintf(base, sizeof(base), "%s/b", dir);
	fd = open(base, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	struct disk disk = { .device = "d",
			     .node_name = "n",
			     .file = base,
			     .format = "raw",
			     .virtual_size = 512,
			     .fd = fd };
	struct disks disks = { &disk, 1 };

	assert_int_equal(
		overlays_plan(&overlays, NULL, 1, proc_fd, &disks, NULL), 0);
	assert_int_equal(overlays.n_overlays, 1);
	path = strdup(overlays.overlays[0].path);
	assert_memory_equal(path, base, strlen(base));

	snprintf(jobs[0], 256, JOB, overlays.overlays[0].node_name, "running",
		 "", 3);
	snprintf(jobs[1], 256, JOB, overlays.overlays[0].node_name, "concluded",
		 "", 4);
	snprintf(jobs[2], 256, JOB, overlays.overlays[0].node_name, "concluded",
		 c->job_error, 7);
	overlays.qmp = open_good(&script, SAYS(GREETING, OK(1), OK(2), jobs[0],
					       jobs[1], OK(5), OK(6), jobs[2],
					       OK(8), c->answer ?: ""));
	r = overlays_create(&overlays);
	/* As QEMU would have. */
	close(open(path, O_CREAT | O_RDWR, 0600));
	if (c->result == -ETIMEDOUT)
		qmp_set_timeout(overlays.qmp, TIMEOUT_MS);
	if (!r)
		r = overlays_switch(&overlays);
	assert_int_equal(r, c->result);
	if (!r)
		overlays_keep(&overlays);
	finish(&script, overlays.qmp);
	overlays_deinit(&overlays);

	assert_int_equal(access(path, F_OK), c->kept ? 0 : -1);
	unlink(path);
	unlink(base);
	rmdir(dir);
	close(fd);
	close(proc_fd);
}

/* What is there is neither used nor removed. */
static void test_overlay_exists(void **state)
{
	char dir[] = "/tmp/snapuffd-test-XXXXXX", base[64];
	struct disk disk = { .device = "d",
			     .node_name = "n",
			     .file = base,
			     .format = "raw",
			     .virtual_size = 512 };
	struct disks disks = { &disk, 1 };
	struct overlays overlays;
	_cleanup_free_ char *path = NULL;
	int proc_fd = procfs_open(getpid());

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(base, sizeof(base), "%s/b", dir);
	assert_int_equal(
		overlays_plan(&overlays, NULL, 1, proc_fd, &disks, NULL), 0);
	path = strdup(overlays.overlays[0].path);
	close(open(path, O_CREAT | O_RDWR, 0600));
	assert_int_equal(overlays_create(&overlays), -EEXIST);
	overlays_deinit(&overlays);
	assert_int_equal(unlink(path), 0);

	disk.is_block = true;
	assert_int_equal(
		overlays_plan(&overlays, NULL, 1, proc_fd, &disks, NULL),
		RESULT_UNSUPPORTED);
	overlays_deinit(&overlays);
	assert_int_equal(
		overlays_plan(&overlays, NULL, 1, proc_fd, &disks, dir), 0);
	overlays_deinit(&overlays);
	disk.encrypted = true;
	assert_int_equal(
		overlays_plan(&overlays, NULL, 1, proc_fd, &disks, dir),
		RESULT_UNSUPPORTED);
	overlays_deinit(&overlays);
	rmdir(dir);
	close(proc_fd);
}

/* A file is removed unless QEMU may have gone over to it. */
static void test_overlay(void **state)
{
	static const struct overlay_case cases[] = {
		{ "", OK(9), 0, true },
		{ ", \"error\": \"full\"", NULL, -EREMOTEIO, false },
		{ "", "{\"error\": {\"desc\": \"no\"}, \"id\": 9}", -EREMOTEIO,
		  false },
		{ "", "", -ECONNRESET, true },
		{ "", " ", -ETIMEDOUT, true },
		{ "", "garbage\r\n", -EPROTO, true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_overlay(&cases[i]);
}

static void test_devstate_frame(void **state)
{
	static const char good[] = "QEVM\0\0\0\3\4abc";

	(void)state;
	assert_int_equal(devstate_check(good, sizeof(good)), 0);
	assert_int_equal(devstate_check(good, sizeof(good) - 1), -EPROTO);
	assert_int_equal(devstate_check("QEVM\0\0\0\2\4a", 11), -EPROTO);
	assert_int_equal(devstate_check("QEVM\0\0\0\3\7a", 11), -EPROTO);
	assert_int_equal(devstate_check("QEVM\0\0\0\3", 9), -EPROTO);
	assert_int_equal(devstate_check("", 0), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greeting),
		cmocka_unit_test(test_no_greeting),
		cmocka_unit_test(test_result_and_events),
		cmocka_unit_test(test_qemu_error),
		cmocka_unit_test(test_late_answer),
		cmocka_unit_test(test_hostile_answers),
		cmocka_unit_test(test_big_numbers),
		cmocka_unit_test(test_event_flood),
		cmocka_unit_test(test_sends_fd),
		cmocka_unit_test(test_human),
		cmocka_unit_test(test_rescue),
		cmocka_unit_test(test_cont_on_broken),
		cmocka_unit_test(test_vm_answers),
		cmocka_unit_test(test_disk_names),
		cmocka_unit_test(test_overlay),
		cmocka_unit_test(test_overlay_exists),
		cmocka_unit_test(test_devstate_frame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
