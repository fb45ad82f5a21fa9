/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/devstate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/inject.h"
#include "base/log.h"

/* migration/savevm.c, migration/qemu-file-types.h: magic, version 3, then
 * sections of type FULL, then EOF. */
#define HEADER_LEN   8
#define SECTION_FULL 0x04
#define SECTION_EOF  0x00

static int open_writer(int memfd)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int devstate_prepare(struct devstate *state, struct qmp *qmp)
{
	_cleanup_json_ json_t *result = NULL;
	_cleanup_close_ int writer = -1;
	json_int_t id;
	int r;

	*state = DEVSTATE_INIT;
	state->memfd = memfd_create("snapuffd-devices",
				    MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (state->memfd < 0)
		return log_errno(-errno, "device state: memfd_create: %m");
	writer = open_writer(state->memfd);
	if (writer < 0)
		return log_errno(writer, "device state: reopen memfd: %m");

	INJECT_HERE("devices-add-fd");
	r = qmp_execute_fd(qmp, "add-fd",
			   json_pack("{s:I, s:s}", "fdset-id",
				     (json_int_t)getpid(), "opaque",
				     "snapuffd"),
			   writer, &result);
	if (r)
		return log_errno(r, "qmp: add-fd: %s", qmp_error(qmp));
	if (json_unpack(result, "{s:I}", "fdset-id", &id))
		return log_errno(-EPROTO, "qmp: add-fd: unexpected answer");
	state->qmp = qmp;
	state->fdset_id = id;
	return INJECT("devices-add-fd-done");
}

int devstate_save(struct devstate *state)
{
	char path[48];
	int r;

	snprintf(path, sizeof(path), "/dev/fdset/%" PRId64, state->fdset_id);
	r = qmp_call(state->qmp, "xen-save-devices-state",
		     json_pack("{s:s, s:b}", "filename", path, "live", 0),
		     NULL);
	INJECT_INTO(r, "devices-save-done");
	return r;
}

static int remove_fd(struct devstate *state)
{
	struct qmp *qmp = steal_ptr(state->qmp);

	if (!qmp)
		return 0;
	return qmp_execute(
		qmp, "remove-fd",
		json_pack("{s:I}", "fdset-id", (json_int_t)state->fdset_id),
		NULL);
}

/* From here on nobody, not even the target, can change or cut it. */
static int map_sealed(struct devstate *state)
{
	struct stat st;
	void *data;

	if (fcntl(state->memfd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) ||
	    fstat(state->memfd, &st))
		return -errno;
	if (st.st_size <= HEADER_LEN || (uint64_t)st.st_size > DEVSTATE_MAX)
		return -EFBIG;
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE,
		    state->memfd, 0);
	if (data == MAP_FAILED)
		return -errno;
	state->data = data;
	state->len = (size_t)st.st_size;
	return 0;
}

int devstate_check(const void *data, size_t len)
{
	static const uint8_t header[HEADER_LEN] = { 'Q', 'E', 'V', 'M',
						    0,	 0,   0,   3 };
	const uint8_t *bytes = data;

	if (len < HEADER_LEN + 2 || memcmp(bytes, header, HEADER_LEN) ||
	    bytes[HEADER_LEN] != SECTION_FULL || bytes[len - 1] != SECTION_EOF)
		return -EPROTO;
	return 0;
}

int devstate_finish(struct devstate *state)
{
	struct qmp *qmp = state->qmp;
	int r;

	r = INJECT("devices-remove-fd") ?: remove_fd(state);
	/* It is gone where the monitor's user went away meanwhile, and another
	 * came: libvirt's daemon. */
	if (r && r != -EREMOTEIO)
		return log_errno(r, "qmp: remove-fd: %s", qmp_error(qmp));
	r = INJECT("devices-seal") ?: map_sealed(state);
	if (r)
		return log_errno(r, "device state: %m");
	r = devstate_check(state->data, state->len);
	if (r)
		return log_errno(r,
				 "device state: not as QEMU writes it"
				 " (%zu bytes)",
				 state->len);
	return 0;
}

void devstate_deinit(struct devstate *state)
{
	/* On the way out of a failure that was told, maybe QEMU's death. */
	remove_fd(state);
	if (state->data)
		munmap((void *)state->data, state->len);
	close_fd(&state->memfd);
	*state = DEVSTATE_INIT;
}
