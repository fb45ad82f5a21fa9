/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/util.h"

static char *dup_member(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? strdup(text) : NULL;
}

static void disk_deinit(struct disk *disk)
{
	free(disk->device);
	free(disk->node_name);
	free(disk->file);
	free(disk->format);
	free(disk->backing);
	close_fd(&disk->fd);
}

/*
 * "json:{…}" is what QEMU calls a node whose options a plain name does not
 * tell, as that of a backing file which differs from the one in the header.
 * The name that is asked for is the one at the bottom of its "file" children.
 */
static char *plain_name(char *name)
{
	_cleanup_json_ json_t *options = NULL;
	const json_t *node;
	const char *file = NULL;

	if (!name || strncmp(name, "json:", strlen("json:")))
		return name;
	options = json_loads(name + strlen("json:"), 0, NULL);
	for (node = options; node; node = json_object_get(node, "file")) {
		/* Of "raw": a part of the file. */
		if (json_object_get(node, "offset") ||
		    json_object_get(node, "size"))
			return name;
		file = json_string_value(json_object_get(node, "filename"));
		if (file)
			break;
	}
	if (!node)
		return name;
	free(name);
	return strdup(file);
}

/* BlockInfo of qapi/block-core.json. A device of -blockdev has no name of its
 * own ("") and goes by its QOM path. */
static int take_disk(const json_t *info, const json_t *inserted,
		     struct disk *disk)
{
	const char *name = json_string_value(json_object_get(info, "device"));
	const json_t *image = json_object_get(inserted, "image");
	json_int_t size =
		json_integer_value(json_object_get(image, "virtual-size"));

	*disk = (struct disk){
		.device = dup_member(info, name && *name ? "device" : "qdev"),
		.node_name = dup_member(inserted, "node-name"),
		.file = plain_name(dup_member(inserted, "file")),
		.format = dup_member(inserted, "drv"),
		.backing = dup_member(inserted, "backing_file"),
		.read_only = json_is_true(json_object_get(inserted, "ro")),
		.encrypted = json_is_true(json_object_get(image, "encrypted")),
		.virtual_size = size > 0 ? (uint64_t)size : 0,
		.fd = -1,
	};
	if (!disk->device)
		disk->device = strdup("");
	if (!disk->node_name)
		disk->node_name = strdup("");
	if (disk->device && disk->node_name && disk->file && disk->format)
		return 0;
	disk_deinit(disk);
	return -EPROTO;
}

int disks_query(struct qmp *qmp, struct disks *out)
{
	_cleanup_json_ json_t *result = NULL;
	json_t *info, *inserted;
	size_t i;
	int r;

	*out = (struct disks){ 0 };
	r = qmp_call(qmp, "query-block", NULL, &result);
	if (r)
		return r;
	out->disks = calloc(json_array_size(result) + 1, sizeof(*out->disks));
	if (!out->disks)
		return log_errno(-ENOMEM, "qmp: query-block: %m");
	json_array_foreach(result, i, info)
	{
		inserted = json_object_get(info, "inserted");
		if (!inserted)
			continue;
		r = take_disk(info, inserted, &out->disks[out->n_disks]);
		if (r) {
			disks_deinit(out);
			return log_errno(r, "qmp: query-block: unexpected"
					    " answer");
		}
		out->n_disks++;
	}
	return 0;
}

void disks_deinit(struct disks *disks)
{
	size_t i;

	for (i = 0; i < disks->n_disks; i++)
		disk_deinit(&disks->disks[i]);
	free(disks->disks);
	*disks = (struct disks){ 0 };
}

static int make_absolute(struct disk *disk, const char *cwd)
{
	char *path;

	if (*disk->file == '/')
		return 0;
	if (asprintf(&path, "%s/%s", cwd, disk->file) < 0)
		return -ENOMEM;
	free(disk->file);
	disk->file = path;
	return 0;
}

/* A name may lead to another file by now than the one that is open. */
static bool is_open_in(int proc_fd, const struct stat *wanted)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	struct stat st;
	int fd = openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir)
		close_fd(&fd);
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' &&
		    !fstatat(dirfd(dir), entry->d_name, &st, 0) &&
		    st.st_dev == wanted->st_dev && st.st_ino == wanted->st_ino)
			return true;
	return false;
}

int disks_open(struct disks *disks, int proc_fd)
{
	_cleanup_free_ char *cwd = NULL;
	int r = procfs_read_link(proc_fd, "cwd", &cwd);

	for (size_t i = 0; !r && i < disks->n_disks; i++) {
		struct disk *disk = &disks->disks[i];
		_cleanup_free_ char *given = strdup(disk->file);
		struct stat st;

		if (!given)
			return log_errno(-ENOMEM, "disk %s: %m", disk->device);
		r = make_absolute(disk, cwd);
		if (r)
			break;
		disk->fd = procfs_open_path(proc_fd, disk->file, O_PATH);
		if (disk->fd >= 0 && !fstat(disk->fd, &st) &&
		    (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) &&
		    is_open_in(proc_fd, &st)) {
			disk->is_block = S_ISBLK(st.st_mode);
			continue;
		}
		close_fd(&disk->fd);
		free(disk->file);
		disk->file = steal_ptr(given);
	}
	return r ? log_errno(r, "the VM's working directory: %m") : 0;
}

void disks_look(struct disks *disks)
{
	for (size_t i = 0; i < disks->n_disks; i++) {
		struct disk *disk = &disks->disks[i];
		struct statx st;

		/* No server is asked in the pause; what the target wrote, this
		 * host knows. */
		disk->has_stat =
			disk->fd >= 0 && !disk->is_block &&
			!statx(disk->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
			       STATX_SIZE | STATX_MTIME, &st);
		if (!disk->has_stat)
			continue;
		disk->size = st.stx_size;
		disk->mtime_ns =
			time_to_ns(st.stx_mtime.tv_sec, st.stx_mtime.tv_nsec);
	}
}

/* "flags:" of fdinfo, in octal (Documentation/filesystems/proc.rst). */
static bool is_open_for_writing(int proc_fd, const char *fd_name)
{
	_cleanup_free_ char *text = NULL;
	const char *flags;
	char path[64];

	snprintf(path, sizeof(path), "fdinfo/%s", fd_name);
	if (io_read_file(proc_fd, path, 65536, &text, NULL))
		return false;
	flags = strstr(text, "flags:");
	return flags && (strtoul(flags + strlen("flags:"), NULL, 8) &
			 O_ACCMODE) != O_RDONLY;
}

/* A file that is mapped shared may be the guest's RAM: writing that back is
 * not our business, and would take long. */
static bool is_mapped_shared(const struct proc_maps *maps,
			     const struct stat *st, const char *path)
{
	size_t i;

	for (i = 0; i < maps->n_maps; i++) {
		const struct proc_map *map = &maps->maps[i];

		if (!map->shared || !map->inode)
			continue;
		/* By name as well: on btrfs and overlayfs the device that
		 * stat(2) tells is not the one of /proc/PID/maps. */
		if ((map->inode == st->st_ino && map->dev == st->st_dev) ||
		    !strcmp(map->path, path))
			return true;
	}
	return false;
}

static void sync_fd(int proc_fd, const struct proc_maps *maps,
		    const char *fd_name)
{
	_cleanup_free_ char *target = NULL;
	_cleanup_close_ int fd = -1;
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "fd/%s", fd_name);
	if (fstatat(proc_fd, path, &st, 0) ||
	    (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) ||
	    !is_open_for_writing(proc_fd, fd_name) ||
	    procfs_read_link(proc_fd, path, &target) ||
	    is_mapped_shared(maps, &st, target))
		return;

	fd = openat(proc_fd, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fdatasync(fd))
		log_debug("%s: not synced: %s", target, strerror(errno));
}

void disks_sync(int proc_fd, const struct proc_maps *maps)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int fd;

	fd = openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	dir = fdopendir(fd);
	if (!dir) {
		close_fd(&fd);
		return;
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			sync_fd(proc_fd, maps, entry->d_name);
}
