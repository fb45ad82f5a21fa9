/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stands in for libvirt.so.0 and libvirt-qemu.so.0, for what a real daemon
 * does not show at will: STUB_VERSION is the daemon's version, STUB_JOB=1 has
 * a job run on the domain. Built with -DWITH_FILES or, as an old library,
 * without.
 */
#include <stdlib.h>
#include <string.h>

static int object;

void *virConnectOpen(const char *uri)
{
	(void)uri;
	return &object;
}

int virConnectClose(void *connection)
{
	(void)connection;
	return 0;
}

const char *virConnectGetType(void *connection)
{
	(void)connection;
	return "QEMU";
}

int virConnectGetLibVersion(void *connection, unsigned long *version)
{
	const char *given = getenv("STUB_VERSION");

	(void)connection;
	*version = given ? strtoul(given, NULL, 10) : 9000000;
	return 0;
}

int virConnectIsAlive(void *connection)
{
	(void)connection;
	return 1;
}

void *virDomainLookupByName(void *connection, const char *name)
{
	(void)connection;
	(void)name;
	return &object;
}

void *virDomainLookupByUUIDString(void *connection, const char *uuid)
{
	(void)connection;
	(void)uuid;
	return &object;
}

int virDomainGetUUIDString(void *domain, char *uuid)
{
	(void)domain;
	strcpy(uuid, "00000000-0000-0000-0000-000000000000");
	return 0;
}

int virDomainIsActive(void *domain)
{
	(void)domain;
	return 1;
}

/* virDomainJobInfo begins with the type of the job. */
int virDomainGetJobInfo(void *domain, int *info)
{
	(void)domain;
	*info = getenv("STUB_JOB") ? 2 : 0;
	return 0;
}

int virDomainFree(void *domain)
{
	(void)domain;
	return 0;
}

char *virDomainGetXMLDesc(void *domain, unsigned int flags)
{
	(void)domain;
	(void)flags;
	return NULL;
}

void *virGetLastError(void)
{
	return NULL;
}

const char *virGetLastErrorMessage(void)
{
	return "a stub";
}

void virSetErrorFunc(void *opaque, void *function)
{
	(void)opaque;
	(void)function;
}

#ifdef WITH_FILES
int virDomainQemuMonitorCommandWithFiles(void)
{
	return -1;
}
#endif
