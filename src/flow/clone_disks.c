/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/clone_disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "qemu/clone.h"
#include "sys/run.h"

/* What a path of the image's is relative to. */
static const char *cwd_of(const struct image *image)
{
	return image->machine.cwd ? image->machine.cwd : "/";
}

static char *absolute(const struct image *image, const char *file)
{
	char *path;

	if (*file == '/')
		return strdup(file);
	if (asprintf(&path, "%s/%s", cwd_of(image), file) < 0)
		return NULL;
	return path;
}

/* "DIR/virtio0.qcow2", DIR/disk3.qcow2 where the device has no plain name. */
static char *overlay_path(const char *dir, const struct image_disk *disk,
			  size_t i)
{
	const char *name = disk->device ? disk->device : "";
	char *path;
	int n;

	if (*name && !strchr(name, '/'))
		n = asprintf(&path, "%s/%s.qcow2", dir, name);
	else
		n = asprintf(&path, "%s/disk%zu.qcow2", dir, i);
	if (n >= 0 && !access(path, F_OK)) {
		free(path);
		n = asprintf(&path, "%s/disk%zu-%zu.qcow2", dir, i,
			     strlen(name));
	}
	return n < 0 ? NULL : path;
}

static int check_unchanged(const struct image *image,
			   const struct image_disk *disk, const char *file,
			   bool changed)
{
	struct stat st;
	int64_t mtime_ns;

	if (stat(file, &st)) {
		log_errno(-errno, "%s: disk %s: %m", image->path, file);
		return RESULT_FAILED;
	}
	if (!disk->has_stat || !S_ISREG(st.st_mode) || changed)
		return 0;
	mtime_ns = time_to_ns(st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	if ((uint64_t)st.st_size == disk->size && mtime_ns == disk->mtime_ns)
		return 0;
	log_error(
		"%s: disk %s has changed since the dump (it had %" PRIu64
		" bytes, written to last at %" PRId64 ".%03" PRId64
		"; now %" PRIu64 " bytes, %" PRId64 ".%03" PRId64
		"): memory and disk would not agree; dump with --disks overlay, or give --changed-disks",
		image->path, file, disk->size, disk->mtime_ns / 1000000000,
		disk->mtime_ns / 1000000 % 1000, (uint64_t)st.st_size,
		mtime_ns / 1000000000, mtime_ns / 1000000 % 1000);
	return RESULT_FAILED;
}

/*
 * Whether a QEMU writes to it. Such a one holds a read lock on the byte for
 * that permission, 100 + 1 (RAW_LOCK_PERM_BASE in block/file-posix.c,
 * BLK_PERM_WRITE); others say so with a write lock that they do not get.
 */
static int check_unused(const struct image *image, const char *file)
{
	_cleanup_close_ int fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = 101,
		.l_len = 1,
	};

	if (fd < 0) {
		log_errno(-errno, "%s: disk %s: %m", image->path, file);
		return RESULT_FAILED;
	}
	if (fcntl(fd, F_OFD_GETLK, &lock) || lock.l_type == F_UNLCK)
		return 0;
	log_error(
		"%s: disk %s is in use: a QEMU has it open for writing, maybe the VM that was dumped; dump with --disks overlay, or end that VM",
		image->path, file);
	return RESULT_FAILED;
}

static int make_overlay(const struct image_disk *disk, const char *file,
			const char *overlay)
{
	char *argv[] = {
		"qemu-img", "create",	  "-q", "-f",	      "qcow2",
		"-F",	    disk->format, "-b", (char *)file, (char *)overlay,
		NULL
	};
	_cleanup_free_ char *text = NULL;
	int r = run_program(argv, 64 * KIB, &text);

	if (r == -ENOENT) {
		log_error("qemu-img is missing; install qemu-utils");
		return RESULT_FAILED;
	}
	if (r < 0)
		return log_errno(r, "qemu-img: %m");
	if (r)
		log_error("disk %s: no overlay can be made: %.*s", file,
			  (int)strcspn(text, "\n"), text);
	return r ? RESULT_FAILED : 0;
}

static int make_disk(const struct image *image, size_t i, bool changed,
		     bool pretend, const char *dir, char **file, char **overlay)
{
	const struct image_disk *disk = &image->machine.disks[i];
	int r;

	if (strstr(disk->file, "://") || !strncmp(disk->file, "json:", 5) ||
	    !disk->format || !*disk->format) {
		log_error(
			"%s: disk %s is no file that an overlay can be made of; give the whole command line after --, or --disks as-is",
			image->path, disk->file);
		return RESULT_FAILED;
	}
	*file = absolute(image, disk->file);
	*overlay = overlay_path(dir, disk, i);
	if (!*file || !*overlay)
		return -ENOMEM;
	r = check_unchanged(image, disk, *file, changed);
	if (!r)
		r = check_unused(image, *file);
	return r || pretend ? r : make_overlay(disk, *file, *overlay);
}

int clone_disk_make(const struct image *image, size_t i, bool changed,
		    const char *dir, char **file, char **overlay)
{
	return make_disk(image, i, changed, false, dir, file, overlay);
}

static int clone_disk(const struct image *image, size_t i, bool changed,
		      bool pretend, const char *dir, struct cmdline *line)
{
	_cleanup_free_ char *file = NULL, *overlay = NULL;
	int r = make_disk(image, i, changed, pretend, dir, &file, &overlay);

	if (!r)
		r = clone_replace_disk(line, cwd_of(image), file, overlay);
	if (r == -ENOENT) {
		log_error(
			"%s: disk %s is not on the VM's command line, it was plugged in later; give the whole command line after --",
			image->path, file);
		return RESULT_FAILED;
	}
	return r;
}

/* A file that the VM only reads. */
static bool is_read_only(const struct image *image, const char *file)
{
	for (size_t i = 0; i < image->machine.n_disks; i++) {
		const struct image_disk *disk = &image->machine.disks[i];
		_cleanup_free_ char *one = absolute(image, disk->file);
		_cleanup_free_ char *other = absolute(image, file);

		if (disk->read_only && one && other && !strcmp(one, other))
			return true;
	}
	return false;
}

/* A disk of the command line that the VM did not have any more: its file is
 * somebody else's by now. */
static int check_no_others(const struct image *image, const char *dir,
			   const struct cmdline *line)
{
	size_t i = 0, len = strlen(dir);
	int r;

	for (;;) {
		_cleanup_free_ char *file = NULL;

		r = clone_next_disk(line, &i, &file);
		if (r <= 0)
			return r;
		if ((!strncmp(file, dir, len) && file[len] == '/') ||
		    is_read_only(image, file))
			continue;
		log_error(
			"%s: disk %s is on the command line, but the VM did not have it any more; give the whole command line after --",
			image->path, file);
		return RESULT_FAILED;
	}
}

int clone_disks(const struct image *image, bool changed, bool pretend,
		const char *dir, struct cmdline *line)
{
	int r = 0;

	for (size_t i = 0; !r && i < image->machine.n_disks; i++)
		if (!image->machine.disks[i].read_only)
			r = clone_disk(image, i, changed, pretend, dir, line);
	return r ? r : check_no_others(image, dir, line);
}
