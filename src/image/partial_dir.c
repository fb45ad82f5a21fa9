/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/partial_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/inject.h"
#include "base/io.h"
#include "base/log.h"

#define PARTIAL_SUFFIX ".partial"

/* The snapshot of a tree has an image for each of its processes. */
#define TREE_DEPTH 1

static int remove_contents(int dir_fd, unsigned depth);

/* A directory within, with what it holds. */
static int remove_dir(int parent_fd, const char *name, unsigned depth)
{
	_cleanup_close_ int fd =
		openat(parent_fd, name,
		       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = remove_contents(fd, depth);
	if (!r && unlinkat(parent_fd, name, AT_REMOVEDIR))
		r = -errno;
	return r;
}

/* Removes the files of a directory, and `depth` levels of directories: it has
 * no others but what images have, and anything else stops it. */
static int remove_contents(int dir_fd, unsigned depth)
{
	_cleanup_close_ int fd =
		openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int r;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	steal_fd(&fd);

	while ((errno = 0, entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!unlinkat(dir_fd, entry->d_name, 0))
			continue;
		if (errno != EISDIR || !depth)
			return -errno;
		r = remove_dir(dir_fd, entry->d_name, depth - 1);
		if (r)
			return r;
	}
	return -errno;
}

static int split_path(struct partial_dir *d, const char *dir)
{
	_cleanup_free_ char *for_base = strdup(dir), *for_dir = strdup(dir);
	const char *base, *parent;

	d->path = strdup(dir);
	if (!for_base || !for_dir || !d->path)
		return -ENOMEM;

	base = basename(for_base);
	parent = dirname(for_dir);
	if (!strcmp(base, "/") || !strcmp(base, ".") || !strcmp(base, ".."))
		return log_errno(-EINVAL, "%s: not the name of a new directory",
				 dir);

	d->name = strdup(base);
	if (!d->name || asprintf(&d->partial, "%s" PARTIAL_SUFFIX, base) < 0)
		return -ENOMEM;

	d->parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->parent_fd < 0)
		return log_errno(-errno, "%s: cannot open %s: %m", dir, parent);
	return 0;
}

/* One that was made a moment ago, and is empty if it is still ours. */
static void unmake_partial(const struct partial_dir *d, bool fresh)
{
	if (fresh)
		unlinkat(d->parent_fd, d->partial, AT_REMOVEDIR);
}

/* Opens and locks DIR.partial, fresh or taken over from a killed dump. */
static int claim_partial(struct partial_dir *d)
{
	bool fresh = !mkdirat(d->parent_fd, d->partial, 0700);
	struct stat st;
	int r;

	if (!fresh && errno != EEXIST)
		return log_errno(-errno, "%s: cannot create %s: %m", d->path,
				 d->partial);

	d->fd = openat(d->parent_fd, d->partial,
		       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->fd < 0) {
		r = -errno;
		unmake_partial(d, fresh);
		return log_errno(r, "%s: cannot open %s: %m", d->path,
				 d->partial);
	}

	if (INJECT_ERRNO("image-lock") || flock(d->fd, LOCK_EX | LOCK_NB)) {
		r = -errno;
		close_fd(&d->fd); /* it is not ours to discard */
		if (r == -EWOULDBLOCK)
			return log_errno(
				-EBUSY,
				"%s: another dump is writing to %s; wait for it or choose another directory",
				d->path, d->partial);
		unmake_partial(d, fresh);
		return log_errno(r, "%s: cannot lock %s: %m", d->path,
				 d->partial);
	}

	/* Anybody may have made one where everybody may write. */
	if (fstat(d->fd, &st) || st.st_uid != geteuid() ||
	    st.st_mode & (S_IRWXG | S_IRWXO)) {
		close_fd(&d->fd);
		return log_errno(
			-EPERM,
			"%s: %s exists and is not a private directory of this user; remove it",
			d->path, d->partial);
	}
	if (!fresh) {
		log_info("%s: removing what a killed dump left in %s", d->path,
			 d->partial);
		r = remove_contents(d->fd, TREE_DEPTH);
		if (r) {
			close_fd(&d->fd);
			return log_errno(
				r,
				"%s: cannot clear the stale %s: %m; remove it",
				d->path, d->partial);
		}
	}
	return 0;
}

int partial_dir_create(struct partial_dir *d, const char *path)
{
	struct stat st;
	int r;

	*d = PARTIAL_DIR_INIT;
	r = split_path(d, path);
	if (r)
		return r;
	if (!fstatat(d->parent_fd, d->name, &st, AT_SYMLINK_NOFOLLOW))
		return log_errno(
			-EEXIST,
			"%s: exists already; remove it or choose another directory",
			path);
	return claim_partial(d);
}

/* RENAME_NOREPLACE where the file system has it; `to` was not there before. */
static int rename_new(int from_fd, const char *from, int to_fd, const char *to)
{
	if (!renameat2(from_fd, from, to_fd, to, RENAME_NOREPLACE))
		return 0;
	if (errno == EINVAL && !renameat(from_fd, from, to_fd, to))
		return 0;
	return -errno;
}

static void sync_parent(struct partial_dir *d)
{
	if (io_sync(d->parent_fd))
		log_warning("%s: syncing the directory above: %m", d->path);
}

int partial_dir_commit_file(struct partial_dir *d, const char *file)
{
	int r = INJECT("core-rename");

	if (!r)
		r = rename_new(d->fd, file, d->parent_fd, d->name);
	if (r)
		return log_errno(r, "%s: cannot rename %s: %m", d->path, file);
	sync_parent(d);
	return 0;
}

int partial_dir_commit(struct partial_dir *d)
{
	int r;

	r = INJECT("image-dir-sync") ?: io_sync(d->fd);
	if (r)
		return log_errno(r, "%s: syncing %s: %m", d->path, d->partial);
	r = INJECT("image-rename");
	if (!r)
		r = rename_new(d->parent_fd, d->partial, d->parent_fd, d->name);
	if (r)
		return log_errno(r, "%s: cannot rename %s: %m", d->path,
				 d->partial);
	INJECT_HERE("image-rename-done");
	close_fd(&d->fd);
	sync_parent(d);
	return 0;
}

void partial_dir_deinit(struct partial_dir *d)
{
	if (d->fd >= 0) {
		int r = remove_contents(d->fd, TREE_DEPTH);

		if (!r && unlinkat(d->parent_fd, d->partial, AT_REMOVEDIR))
			r = -errno;
		if (r)
			log_errno(r, "%s: cannot remove %s: %m", d->path,
				  d->partial);
	}
	close_fd(&d->fd);
	close_fd(&d->parent_fd);
	free(d->path);
	free(d->name);
	free(d->partial);
	*d = PARTIAL_DIR_INIT;
}
