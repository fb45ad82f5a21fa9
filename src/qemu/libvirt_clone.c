/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/libvirt_clone.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/text.h"
#include "base/util.h"
#include "qemu/libvirt.h"
#include "sys/dynlib.h"

/* What is used of libvirt.so.0. */
#define SYMBOLS(X)                   \
	X(virConnectOpen)            \
	X(virConnectClose)           \
	X(virConnectGetType)         \
	X(virConnectGetCapabilities) \
	X(virDomainLookupByName)     \
	X(virDomainDefineXML)        \
	X(virDomainUndefine)         \
	X(virDomainRestore)          \
	X(virDomainFree)             \
	X(virGetLastErrorMessage)    \
	X(virSetErrorFunc)

struct host {
#define MEMBER(name) __typeof__(name) *name;
	SYMBOLS(MEMBER)
#undef MEMBER
	virConnectPtr connection;
};

static int load_library(struct host *host)
{
	static const char *const files[] = { "libvirt.so.0", NULL };
#define SYMBOL(name) { #name, &host->name },
	const struct dynlib_symbol symbols[] = { SYMBOLS(SYMBOL) };
#undef SYMBOL
	const char *why = dynlib_load(files, symbols, ARRAY_SIZE(symbols));

	if (!why)
		return 0;
	log_error(
		"--domain: libvirt's client library cannot be loaded: %s; install it (Debian: libvirt0)",
		why);
	return RESULT_UNSUPPORTED;
}

/* Without one, libvirt prints each error by itself. */
static void ignore_error(void *opaque, virErrorPtr error)
{
	(void)opaque;
	(void)error;
}

/* One line, whatever libvirt says; to be freed. */
static char *last_error(const struct host *host)
{
	return text_make_printable(strdup(host->virGetLastErrorMessage()));
}

static int open_connection(struct host *host, const char *uri)
{
	_cleanup_free_ char *error = NULL;
	const char *type;
	int r = load_library(host);

	if (r)
		return r;
	uri = uri ?: getenv("LIBVIRT_DEFAULT_URI") ?: LIBVIRT_DEFAULT_URI;
	if (libvirt_is_remote(uri)) {
		log_error(
			"--connect %s: that is another host's libvirt, which does not see the image; run snapuffd there",
			uri);
		return RESULT_UNSUPPORTED;
	}
	host->virSetErrorFunc(NULL, ignore_error);
	host->connection = host->virConnectOpen(uri);
	if (!host->connection) {
		error = last_error(host);
		log_error("libvirt: %s: %s", uri, error ?: "no memory");
		return RESULT_UNSUPPORTED;
	}
	type = host->virConnectGetType(host->connection);
	if (type && !strcmp(type, "QEMU"))
		return 0;
	log_error("libvirt: %s is of the driver %s; an image is of a QEMU", uri,
		  type ?: "?");
	return RESULT_UNSUPPORTED;
}

struct call {
	const char *uri, *name, *definition, *save;
};

/* What a process tells; it has logged what went wrong. */
struct answer {
	int result;
	struct domain_host host;
};

static int ask(struct host *host, const struct call *call,
	       struct answer *answer)
{
	_cleanup_free_ char *capabilities = NULL;
	virDomainPtr domain =
		host->virDomainLookupByName(host->connection, call->name);

	if (domain) {
		host->virDomainFree(domain);
		log_error(
			"domain %s: libvirt has one of that name already; give another name behind --domain",
			call->name);
		return RESULT_UNSUPPORTED;
	}
	capabilities = host->virConnectGetCapabilities(host->connection);
	if (!capabilities) {
		_cleanup_free_ char *error = last_error(host);

		log_error("libvirt: its capabilities: %s", error ?: "?");
		return RESULT_UNSUPPORTED;
	}
	return domain_xml_read_host(capabilities, &answer->host);
}

static int start(struct host *host, const struct call *call,
		 struct answer *answer)
{
	_cleanup_free_ char *error = NULL;
	virDomainPtr domain =
		host->virDomainDefineXML(host->connection, call->definition);
	int r;

	(void)answer;
	if (!domain) {
		error = last_error(host);
		log_error("libvirt did not take the clone's definition: %s",
			  error ?: "?");
		return RESULT_FAILED;
	}
	r = host->virDomainRestore(host->connection, call->save);
	if (r) {
		error = last_error(host);
		log_error("libvirt did not start the clone: %s", error ?: "?");
		host->virDomainUndefine(domain);
	}
	host->virDomainFree(domain);
	return r ? RESULT_FAILED : 0;
}

static __attribute__((noreturn)) void work(int to, const struct call *call)
{
	struct host host = {};
	struct answer answer = {};

	/* Half done, there would be a domain that nobody knows of. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	answer.result = open_connection(&host, call->uri);
	if (!answer.result)
		answer.result = call->name ? ask(&host, call, &answer)
					   : start(&host, call, &answer);
	if (host.connection)
		host.virConnectClose(host.connection);
	io_write_full(to, &answer, sizeof(answer));
	_exit(0);
}

static int run_apart(const struct call *call, struct answer *answer)
{
	_cleanup_close_ int from = -1, to = -1;
	int ends[2], r;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return log_errno(-errno, "libvirt: pipe: %m");
	from = ends[0];
	to = ends[1];
	pid = fork();
	if (pid < 0)
		return log_errno(-errno, "libvirt: fork: %m");
	if (!pid)
		work(to, call);
	close_fd(&to);
	do
		r = io_read_full(from, answer, sizeof(*answer));
	while (r == -EINTR);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r ? log_errno(-EPIPE,
			     "libvirt: the process that talks to it died")
		 : answer->result;
}

int libvirt_clone_ask(const char *uri, const char *name,
		      struct domain_host *host)
{
	struct call call = { .uri = uri, .name = name };
	struct answer answer;
	int r = run_apart(&call, &answer);

	if (!r)
		*host = answer.host;
	return r;
}

int libvirt_clone_start(const char *uri, const char *definition,
			const char *save)
{
	struct call call = {
		.uri = uri,
		.definition = definition,
		.save = save,
	};
	struct answer answer;

	return run_apart(&call, &answer);
}
