/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A directory that appears whole or not at all: it is filled under the name
 * DIR.partial, locked against others, and renamed. One that is not committed
 * is removed by partial_dir_deinit(). Errors are logged with DIR as subject.
 */

struct partial_dir {
	char *path;    /* DIR as given, for messages */
	char *name;    /* its last component */
	char *partial; /* name + ".partial" */
	int parent_fd;
	int fd; /* of DIR.partial, locked; -1 once committed */
};

#define PARTIAL_DIR_INIT ((struct partial_dir){ .parent_fd = -1, .fd = -1 })

/*
 * Claims DIR.partial; what a killed run left of it is removed. -EEXIST when DIR
 * exists, -EBUSY when somebody else is writing to it, or -errno.
 */
int partial_dir_create(struct partial_dir *dir, const char *path);

/* Makes it durable under its own name. 0 or -errno. */
int partial_dir_commit(struct partial_dir *dir);

/* Makes one of its files durable under the directory's own name instead; the
 * rest is not committed. 0 or -errno. */
int partial_dir_commit_file(struct partial_dir *dir, const char *file);

/* Removes what was not committed. */
void partial_dir_deinit(struct partial_dir *dir);
