/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/libvirt.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"

/* Where virDomainQemuMonitorCommandWithFiles() came, 8.2.0. */
#define LIBVIRT_VERSION_NEEDED 8002000ul

/* What is used of libvirt.so.0 and libvirt-qemu.so.0. */
struct library {
	void *handle, *qemu_handle;
	__typeof__(virConnectOpen) *connect_open;
	__typeof__(virConnectClose) *connect_close;
	__typeof__(virConnectGetType) *connect_get_type;
	__typeof__(virConnectGetLibVersion) *connect_get_lib_version;
	__typeof__(virConnectIsAlive) *connect_is_alive;
	__typeof__(virDomainLookupByName) *domain_lookup_by_name;
	__typeof__(virDomainLookupByUUIDString) *domain_lookup_by_uuid;
	__typeof__(virDomainGetUUIDString) *domain_get_uuid;
	__typeof__(virDomainIsActive) *domain_is_active;
	__typeof__(virDomainGetJobInfo) *domain_get_job_info;
	__typeof__(virDomainGetXMLDesc) *domain_get_xml_desc;
	__typeof__(virDomainFree) *domain_free;
	__typeof__(virGetLastError) *get_last_error;
	__typeof__(virGetLastErrorMessage) *get_last_error_message;
	__typeof__(virSetErrorFunc) *set_error_func;
	__typeof__(virDomainQemuMonitorCommandWithFiles) *command_with_files;
};

struct libvirt {
	struct library lib;
	char *uri;
	virConnectPtr connection;
	virDomainPtr domain;
	char uuid[VIR_UUID_STRING_BUFLEN];
	char error[512];
};

static int load_symbol(void *handle, const char *name, void *function)
{
	void *symbol = dlsym(handle, name);

	if (!symbol) {
		log_error(
			"--domain: libvirt's library on this host has no %s: it is too old; libvirt 8.2 or later is needed",
			name);
		return RESULT_UNSUPPORTED;
	}
	memcpy(function, &symbol, sizeof(symbol));
	return 0;
}

static int load_library(struct library *lib)
{
	const struct {
		const char *name;
		void *function;
		bool of_qemu;
	} symbols[] = {
		{ "virConnectOpen", &lib->connect_open },
		{ "virConnectClose", &lib->connect_close },
		{ "virConnectGetType", &lib->connect_get_type },
		{ "virConnectGetLibVersion", &lib->connect_get_lib_version },
		{ "virConnectIsAlive", &lib->connect_is_alive },
		{ "virDomainLookupByName", &lib->domain_lookup_by_name },
		{ "virDomainLookupByUUIDString", &lib->domain_lookup_by_uuid },
		{ "virDomainGetUUIDString", &lib->domain_get_uuid },
		{ "virDomainIsActive", &lib->domain_is_active },
		{ "virDomainGetJobInfo", &lib->domain_get_job_info },
		{ "virDomainGetXMLDesc", &lib->domain_get_xml_desc },
		{ "virDomainFree", &lib->domain_free },
		{ "virGetLastError", &lib->get_last_error },
		{ "virGetLastErrorMessage", &lib->get_last_error_message },
		{ "virSetErrorFunc", &lib->set_error_func },
		{ "virDomainQemuMonitorCommandWithFiles",
		  &lib->command_with_files, true },
	};
	int r = 0;

	lib->handle = dlopen("libvirt.so.0", RTLD_NOW);
	lib->qemu_handle =
		lib->handle ? dlopen("libvirt-qemu.so.0", RTLD_NOW) : NULL;
	if (!lib->qemu_handle) {
		log_error(
			"--domain: libvirt's client library cannot be loaded: %s; install it (Debian: libvirt0), or use --pid",
			dlerror());
		return RESULT_UNSUPPORTED;
	}
	for (size_t i = 0; !r && i < ARRAY_SIZE(symbols); i++)
		r = load_symbol(symbols[i].of_qemu ? lib->qemu_handle
						   : lib->handle,
				symbols[i].name, symbols[i].function);
	return r;
}

/* Without one, libvirt prints each error by itself. */
static void ignore_error(void *opaque, virErrorPtr error)
{
	(void)opaque;
	(void)error;
}

static void keep_error(struct libvirt *libvirt)
{
	snprintf(libvirt->error, sizeof(libvirt->error), "%s",
		 libvirt->lib.get_last_error_message());
	for (char *c = libvirt->error; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';
}

static int open_connection(struct libvirt *libvirt)
{
	struct library *lib = &libvirt->lib;
	unsigned long version;
	const char *type;

	if (libvirt_is_remote(libvirt->uri)) {
		log_error(
			"--connect %s: that is another host's libvirt; a process can only be dumped on its own host, so run snapuffd there",
			libvirt->uri);
		return RESULT_UNSUPPORTED;
	}
	libvirt->connection = lib->connect_open(libvirt->uri);
	if (!libvirt->connection) {
		keep_error(libvirt);
		log_error("libvirt: %s: %s", libvirt->uri, libvirt->error);
		return RESULT_UNSUPPORTED;
	}
	type = lib->connect_get_type(libvirt->connection);
	if (!type || strcmp(type, "QEMU")) {
		log_error(
			"libvirt: %s is of the driver %s; only domains of QEMU can be dumped by name",
			libvirt->uri, type ?: "?");
		return RESULT_UNSUPPORTED;
	}
	if (lib->connect_get_lib_version(libvirt->connection, &version) ||
	    version < LIBVIRT_VERSION_NEEDED) {
		log_error(
			"libvirt: the daemon at %s is too old: 8.2 or later is needed, which can hand descriptors to QEMU; or give the domain a second monitor, and use --pid",
			libvirt->uri);
		return RESULT_UNSUPPORTED;
	}
	return 0;
}

static int find_domain(struct libvirt *libvirt, const char *domain)
{
	struct library *lib = &libvirt->lib;

	libvirt->domain =
		lib->domain_lookup_by_name(libvirt->connection, domain);
	if (!libvirt->domain)
		libvirt->domain =
			lib->domain_lookup_by_uuid(libvirt->connection, domain);
	if (!libvirt->domain) {
		log_error(
			"domain %s: %s has no domain of that name or UUID; see virsh list",
			domain, libvirt->uri);
		return RESULT_UNSUPPORTED;
	}
	if (lib->domain_get_uuid(libvirt->domain, libvirt->uuid)) {
		keep_error(libvirt);
		log_error("domain %s: %s", domain, libvirt->error);
		return RESULT_UNSUPPORTED;
	}
	return 0;
}

static int check_domain(struct libvirt *libvirt, const char *domain)
{
	virDomainJobInfo job = { .type = VIR_DOMAIN_JOB_NONE };
	struct library *lib = &libvirt->lib;

	if (lib->domain_is_active(libvirt->domain) != 1) {
		log_error(
			"domain %s: it is shut off, so there is nothing to dump",
			domain);
		return RESULT_UNSUPPORTED;
	}
	if (!lib->domain_get_job_info(libvirt->domain, &job) &&
	    job.type != VIR_DOMAIN_JOB_NONE) {
		log_error(
			"domain %s: a job of libvirt (save, dump, migration, backup) is under way; wait for its end, or see virsh domjobinfo",
			domain);
		return RESULT_UNSUPPORTED;
	}
	return 0;
}

int libvirt_open(const char *uri, const char *domain, struct libvirt **out)
{
	_cleanup_libvirt_ struct libvirt *libvirt = calloc(1, sizeof(*libvirt));
	int r;

	if (!uri)
		uri = getenv("LIBVIRT_DEFAULT_URI");
	if (!libvirt || !(libvirt->uri = strdup(uri ?: LIBVIRT_DEFAULT_URI)))
		return log_errno(-ENOMEM, "--domain: %m");
	r = load_library(&libvirt->lib);
	if (r)
		return r;
	libvirt->lib.set_error_func(NULL, ignore_error);
	r = open_connection(libvirt);
	if (!r)
		r = find_domain(libvirt, domain);
	if (!r)
		r = check_domain(libvirt, domain);
	if (!r)
		*out = steal_ptr(libvirt);
	return r;
}

static void hang_up(struct libvirt *libvirt)
{
	if (libvirt->domain)
		libvirt->lib.domain_free(libvirt->domain);
	libvirt->domain = NULL;
	if (libvirt->connection)
		libvirt->lib.connect_close(libvirt->connection);
	libvirt->connection = NULL;
}

/* The libraries stay loaded: they cannot be unloaded. */
struct libvirt *libvirt_free(struct libvirt *libvirt)
{
	if (!libvirt)
		return NULL;
	hang_up(libvirt);
	free(libvirt->uri);
	free(libvirt);
	return NULL;
}

int libvirt_reopen(struct libvirt *libvirt)
{
	struct library *lib = &libvirt->lib;

	hang_up(libvirt);
	libvirt->connection = lib->connect_open(libvirt->uri);
	if (libvirt->connection)
		libvirt->domain = lib->domain_lookup_by_uuid(
			libvirt->connection, libvirt->uuid);
	if (libvirt->domain)
		return 0;
	keep_error(libvirt);
	return -ENOTCONN;
}

/* By the last error: what the daemon says of itself is of other domains. A
 * connection may be taken for alive for a moment after it has failed. */
static bool is_disconnected(const struct libvirt *libvirt)
{
	const virError *error = libvirt->lib.get_last_error();

	return !error || error->domain == VIR_FROM_RPC ||
	       libvirt->lib.connect_is_alive(libvirt->connection) != 1;
}

int libvirt_command(struct libvirt *libvirt, const char *command, int fd,
		    char **answer)
{
	struct library *lib = &libvirt->lib;
	int r;

	if (!libvirt->domain)
		return -ENOTCONN;
	r = lib->command_with_files(libvirt->domain, command, fd >= 0, &fd,
				    NULL, NULL, answer, 0);
	if (r >= 0)
		return 0;
	keep_error(libvirt);
	return is_disconnected(libvirt) ? -ENOTCONN : -EREMOTEIO;
}

int libvirt_get_xml(struct libvirt *libvirt, char **xml)
{
	if (!libvirt->domain)
		return -ENOTCONN;
	*xml = libvirt->lib.domain_get_xml_desc(
		libvirt->domain,
		VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_MIGRATABLE);
	if (*xml)
		return 0;
	keep_error(libvirt);
	return is_disconnected(libvirt) ? -ENOTCONN : -EREMOTEIO;
}

const char *libvirt_error(const struct libvirt *libvirt)
{
	return libvirt->error;
}

const char *libvirt_uuid(const struct libvirt *libvirt)
{
	return libvirt->uuid;
}
