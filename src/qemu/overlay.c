/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/procfs.h"

/* In the names of files that are made here. */
#define MARK	    ".snapuffd-"
/* What names of nodes and jobs begin with. */
#define NODE_MARK   "snapuffd-"
/* How long QEMU may take to make a file, and how often it is asked. */
#define JOB_TIMEOUT (30 * (uint64_t)1000000000)
#define JOB_POLL_US 1000

static const char *file_name(const char *path)
{
	return strrchr(path, '/') + 1;
}

/*
 * "disk.qcow2" -> "disk.qcow2.snapuffd-<seconds>-<pid>.qcow2", with a number
 * from the second on. The mark of an overlay that is itself a base is replaced:
 * names would grow from snapshot to snapshot.
 */
static int name_file(struct overlay *overlay, const char *dir, size_t number,
		     time_t now)
{
	const char *base = overlay->disk->file;
	const char *name = file_name(base), *mark = strstr(name, MARK);
	int stem = mark ? (int)(mark - name) : (int)strlen(name);
	int dir_len = dir ? (int)strlen(dir) : (int)(name - 1 - base);
	char suffix[24] = "";
	int len;

	if (number)
		snprintf(suffix, sizeof(suffix), "-%zu", number);
	len = snprintf(overlay->node_name, sizeof(overlay->node_name),
		       NODE_MARK "%" PRId64 "-%d-%zu", (int64_t)now, getpid(),
		       number);
	if (len >= (int)sizeof(overlay->node_name))
		return -ENAMETOOLONG;
	if (asprintf(&overlay->path, "%.*s/%.*s" MARK "%" PRId64 "-%d%s.qcow2",
		     dir_len, dir ?: base, stem, name, (int64_t)now, getpid(),
		     suffix) < 0) {
		overlay->path = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* For a look at what is there, and to remove what is not used: by a descriptor
 * both work when the target is gone, or its path leads elsewhere by then. */
static int open_dir(struct overlay *overlay, int proc_fd)
{
	_cleanup_free_ char *dir =
		strndup(overlay->path,
			(size_t)(file_name(overlay->path) - overlay->path));

	if (!dir)
		return -ENOMEM;
	overlay->dir_fd = procfs_open_path(proc_fd, dir, O_PATH | O_DIRECTORY);
	return overlay->dir_fd < 0 ? overlay->dir_fd : 0;
}

static int refuse(const struct overlays *overlays, const struct disk *disk,
		  const char *why)
{
	log_error("pid %d: --disks overlay: disk %s (%s) %s", overlays->pid,
		  *disk->device ? disk->device : disk->node_name, disk->file,
		  why);
	return RESULT_UNSUPPORTED;
}

static int plan_disk(struct overlays *overlays, const struct disk *disk,
		     const char *dir, int proc_fd, time_t now)
{
	struct overlay *overlay = &overlays->overlays[overlays->n_overlays];
	int r;

	if (disk->fd < 0)
		return refuse(
			overlays, disk,
			"is no file of the VM's; snapshot it with --exec-frozen");
	if (disk->is_block && !dir)
		return refuse(
			overlays, disk,
			"is a block device; say where its overlay goes: overlay:DIR");
	if (disk->encrypted)
		return refuse(overlays, disk,
			      "is encrypted, which its overlay would not be");
	if (!disk->virtual_size || !*disk->node_name)
		return refuse(overlays, disk, "has no size or node name");

	*overlay = (struct overlay){ .disk = disk, .dir_fd = -1 };
	r = name_file(overlay, dir, overlays->n_overlays++, now);
	if (!r)
		r = open_dir(overlay, proc_fd);
	return r ? log_errno(r, "pid %d: overlay %s: its directory: %m",
			     overlays->pid, overlay->path ?: disk->file)
		 : 0;
}

int overlays_plan(struct overlays *overlays, struct qmp *qmp, pid_t pid,
		  int proc_fd, const struct disks *disks, const char *dir)
{
	time_t now = time(NULL);
	int r = 0;

	*overlays = (struct overlays){ .qmp = qmp, .pid = pid };
	overlays->overlays =
		calloc(disks->n_disks + 1, sizeof(*overlays->overlays));
	if (!overlays->overlays)
		return log_errno(-ENOMEM, "pid %d: overlays: %m", pid);
	for (size_t i = 0; !r && i < disks->n_disks; i++)
		if (!disks->disks[i].read_only)
			r = plan_disk(overlays, &disks->disks[i], dir, proc_fd,
				      now);
	return r;
}

/* QEMU's reason; from a job's `error`, or of the last command. */
static int qemu_failed(const struct overlays *overlays,
		       const struct overlay *overlay, int r, const char *reason)
{
	return log_errno(r, "pid %d: overlay %s of disk %s: QEMU: %s",
			 overlays->pid, overlay->path, overlay->disk->device,
			 reason);
}

static const json_t *find_job(const json_t *jobs, const char *id)
{
	json_t *job;
	size_t i;

	json_array_foreach(jobs, i, job)
	{
		const char *got = json_string_value(json_object_get(job, "id"));

		if (got && !strcmp(got, id))
			return job;
	}
	return NULL;
}

/* Waits for the end of the job and takes it off QEMU's list. */
static int finish_job(struct overlays *overlays, const struct overlay *overlay)
{
	uint64_t deadline = now_ns() + JOB_TIMEOUT;
	const char *id = overlay->node_name, *status, *error;
	const json_t *job;
	int r;

	for (;;) {
		_cleanup_json_ json_t *jobs = NULL;

		r = qmp_execute(overlays->qmp, "query-jobs", NULL, &jobs);
		if (r)
			return qemu_failed(overlays, overlay, r,
					   qmp_error(overlays->qmp));
		job = find_job(jobs, id);
		status = json_string_value(json_object_get(job, "status"));
		if (!status)
			return qemu_failed(overlays, overlay, -EPROTO,
					   "its job is gone");
		if (!strcmp(status, "concluded")) {
			error = json_string_value(
				json_object_get(job, "error"));
			r = error ? qemu_failed(overlays, overlay, -EREMOTEIO,
						error)
				  : 0;
			break;
		}
		if (now_ns() > deadline)
			return qemu_failed(overlays, overlay, -ETIMEDOUT,
					   "not made in time");
		usleep(JOB_POLL_US);
	}
	qmp_execute(overlays->qmp, "job-dismiss", json_pack("{s:s}", "id", id),
		    NULL);
	return r;
}

static int create(struct overlays *overlays, const struct overlay *overlay,
		  json_t *options)
{
	int r = qmp_execute(overlays->qmp, "blockdev-create",
			    json_pack("{s:s, s:o}", "job-id",
				      overlay->node_name, "options", options),
			    NULL);

	if (r)
		return qemu_failed(overlays, overlay, r,
				   qmp_error(overlays->qmp));
	INJECT_HERE("overlay-job");
	return finish_job(overlays, overlay);
}

/* A disk without a format layer is read as raw. */
static const char *backing_format(const char *format)
{
	return !strcmp(format, "file") || !strcmp(format, "host_device")
		       ? "raw"
		       : format;
}

/* QEMU would open and cut what is there. */
static int check_is_new(const struct overlays *overlays,
			const struct overlay *overlay)
{
	struct stat st;

	if (fstatat(overlay->dir_fd, file_name(overlay->path), &st,
		    AT_SYMLINK_NOFOLLOW))
		return 0;
	return log_errno(-EEXIST, "pid %d: overlay %s of disk %s: %m",
			 overlays->pid, overlay->path, overlay->disk->device);
}

static int create_file(struct overlays *overlays, struct overlay *overlay)
{
	const struct disk *disk = overlay->disk;
	int r;

	INJECT_HERE("overlay-create");
	overlay->created = true;
	r = create(overlays, overlay,
		   json_pack("{s:s, s:s, s:i}", "driver", "file", "filename",
			     overlay->path, "size", 0));
	if (r)
		return r;
	return create(overlays, overlay,
		      json_pack("{s:s, s:{s:s, s:s}, s:I, s:s, s:s}", "driver",
				"qcow2", "file", "driver", "file", "filename",
				overlay->path, "size",
				(json_int_t)disk->virtual_size, "backing-file",
				disk->file, "backing-fmt",
				backing_format(disk->format)));
}

/* Jobs of a dump that was killed: QEMU lists them until they are dismissed. */
static void dismiss_leavings(struct overlays *overlays)
{
	_cleanup_json_ json_t *jobs = NULL;
	json_t *job;
	size_t i;

	if (qmp_execute(overlays->qmp, "query-jobs", NULL, &jobs))
		return;
	json_array_foreach(jobs, i, job)
	{
		const char *id = json_string_value(json_object_get(job, "id"));
		const char *status =
			json_string_value(json_object_get(job, "status"));

		if (id && status && !strcmp(status, "concluded") &&
		    !strncmp(id, NODE_MARK, strlen(NODE_MARK)))
			qmp_execute(overlays->qmp, "job-dismiss",
				    json_pack("{s:s}", "id", id), NULL);
	}
}

int overlays_create(struct overlays *overlays)
{
	int r = 0;

	for (size_t i = 0; !r && i < overlays->n_overlays; i++)
		r = check_is_new(overlays, &overlays->overlays[i]);
	if (!r && overlays->n_overlays)
		dismiss_leavings(overlays);
	for (size_t i = 0; !r && i < overlays->n_overlays; i++)
		r = create_file(overlays, &overlays->overlays[i]);
	INJECT_INTO(r, "overlay-create-done");
	return r;
}

/* Which of the disks it was, QEMU tells by the file only. */
static const struct overlay *find_guilty(const struct overlays *overlays)
{
	for (size_t i = 0; i < overlays->n_overlays; i++)
		if (strstr(qmp_error(overlays->qmp),
			   overlays->overlays[i].path))
			return &overlays->overlays[i];
	return &overlays->overlays[0];
}

/*
 * blockdev-snapshot-sync rather than blockdev-snapshot: it opens the overlay
 * with the base's cache mode, AIO and discard options.
 */
int overlays_switch(struct overlays *overlays)
{
	json_t *actions = json_array();
	int r;

	for (size_t i = 0; i < overlays->n_overlays; i++) {
		const struct overlay *overlay = &overlays->overlays[i];

		json_array_append_new(
			actions,
			json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s}}", "type",
				  "blockdev-snapshot-sync", "data", "node-name",
				  overlay->disk->node_name, "snapshot-file",
				  overlay->path, "snapshot-node-name",
				  overlay->node_name, "format", "qcow2", "mode",
				  "existing"));
	}
	if (json_array_size(actions) != overlays->n_overlays) {
		json_decref(actions);
		return log_errno(-ENOMEM, "pid %d: overlays: %m",
				 overlays->pid);
	}
	if (!overlays->n_overlays) {
		json_decref(actions);
		return 0;
	}

	r = qmp_execute(overlays->qmp, "transaction",
			json_pack("{s:o}", "actions", actions), NULL);
	if (!r || r != -EREMOTEIO)
		overlays->state = r ? OVERLAYS_ASKED : OVERLAYS_IN_USE;
	return r ? qemu_failed(overlays, find_guilty(overlays), r,
			       qmp_error(overlays->qmp))
		 : 0;
}

void overlays_keep(struct overlays *overlays)
{
	if (overlays->state == OVERLAYS_IN_USE)
		overlays->state = OVERLAYS_KEPT;
}

static void remove_file(const struct overlays *overlays,
			const struct overlay *overlay)
{
	if (overlay->created &&
	    unlinkat(overlay->dir_fd, file_name(overlay->path), 0) &&
	    errno != ENOENT)
		log_warning("pid %d: overlay %s is not used and can't be"
			    " removed: %s",
			    overlays->pid, overlay->path, strerror(errno));
}

/* Without the base, block-commit goes down to the last backing file. */
static void tell_way_back(const struct overlays *overlays,
			  const struct overlay *overlay)
{
	log_error("pid %d: disk %s %s in %s; this folds it back:"
		  " {\"execute\": \"block-commit\", \"arguments\":"
		  " {\"job-id\": \"%s\", \"device\": \"%s\","
		  " \"base-node\": \"%s\"}}, then block-job-complete",
		  overlays->pid, overlay->disk->device,
		  overlays->state == OVERLAYS_ASKED ? "may go on" : "goes on",
		  overlay->path, overlay->node_name, overlay->node_name,
		  overlay->disk->node_name);
}

void overlays_deinit(struct overlays *overlays)
{
	for (size_t i = 0; i < overlays->n_overlays; i++) {
		struct overlay *overlay = &overlays->overlays[i];

		if (overlays->state == OVERLAYS_UNUSED)
			remove_file(overlays, overlay);
		else if (overlays->state != OVERLAYS_KEPT)
			tell_way_back(overlays, overlay);
		free(overlay->path);
		close_fd(&overlay->dir_fd);
	}
	free(overlays->overlays);
	*overlays = (struct overlays){};
}
