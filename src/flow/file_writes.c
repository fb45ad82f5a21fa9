/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/file_writes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "sys/filewatch.h"
#include "sys/procopen.h"
#include "sys/procstat.h"

/* Memory of hugetlbfs takes no write(2), nor does what is sealed. */
static bool may_be_written(const struct mapped_file *file)
{
	int seals;

	if (file->fd < 0 || !file->is_memory || file->page_size != PAGE_SIZE)
		return false;
	seals = fcntl(file->fd, F_GET_SEALS);
	return seals < 0 || !(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

static int watch_new(struct file_writes *w)
{
	size_t n = w->files->n_files;
	struct file_write *writes =
		reallocarray(w->writes, n + 1, sizeof(*writes));

	if (!writes)
		return -ENOMEM;
	w->writes = writes;
	for (; w->n < n; w->n++) {
		const struct mapped_file *file = &w->files->files[w->n];
		struct file_write *write = &writes[w->n];

		*write = (struct file_write){ .number = -1 };
		if (!may_be_written(file))
			continue;
		if (w->watch_fd >= 0)
			write->number = filewatch_add(w->watch_fd, file->fd);
		write->is_blind =
			write->number < 0 || filewatch_is_blind(file->fd);
	}
	return 0;
}

struct search {
	struct file_writes *writes;
	const size_t *files; /* that are looked for */
};

static int add_holder(void *opaque, size_t file, pid_t pid, int proc_fd)
{
	const struct search *search = opaque;
	struct file_writes *w = search->writes;
	struct file_holder *holders =
		reallocarray(w->holders, w->n_holders + 1, sizeof(*holders));
	struct file_holder *holder;
	struct proc_stat stat;

	if (!holders)
		return -ENOMEM;
	w->holders = holders;
	if (procstat_read(proc_fd, 0, &stat))
		return 0; /* it has ended */
	holder = &holders[w->n_holders++];
	*holder = (struct file_holder){
		.file = search->files[file],
		.pid = pid,
	};
	memcpy(holder->name, stat.name, sizeof(holder->name));
	return 0;
}

static int find_holders(struct file_writes *w)
{
	_cleanup_free_ size_t *files = calloc(w->n + 1, sizeof(*files));
	_cleanup_free_ int *fds = calloc(w->n + 1, sizeof(*fds));
	struct search search = { w, files };
	size_t n = 0;

	if (!files || !fds)
		return -ENOMEM;
	for (size_t i = 0; i < w->n; i++) {
		if (!w->writes[i].is_blind)
			continue;
		files[n] = i;
		fds[n++] = w->files->files[i].fd;
	}
	return procopen_walk(fds, n, add_holder, &search);
}

static int failed(int r)
{
	return log_errno(r, "looking for who writes to files: %m");
}

int file_writes_begin(struct file_writes *w, const struct mapped_files *files)
{
	int r;

	w->files = files;
	w->watch_fd = filewatch_open();
	r = watch_new(w);
	if (!r)
		r = find_holders(w);
	return r ? failed(r) : 0;
}

static uint64_t count_calls(pid_t pid)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	uint64_t n = 0;

	if (proc_fd >= 0)
		procstat_read_n_writes(proc_fd, &n);
	return n;
}

static struct timespec read_changed(const struct mapped_file *file)
{
	struct stat st = {};

	fstat(file->fd, &st);
	return st.st_mtim;
}

int file_writes_instant(struct file_writes *w)
{
	int r = watch_new(w);

	if (r)
		return failed(r);
	clock_gettime(CLOCK_REALTIME_COARSE, &w->instant);
	for (size_t i = 0; i < w->n; i++)
		if (w->writes[i].is_blind)
			w->writes[i].changed =
				read_changed(&w->files->files[i]);
	for (size_t i = 0; i < w->n_holders; i++)
		w->holders[i].n_calls = count_calls(w->holders[i].pid);
	while (filewatch_next(w->watch_fd) >= 0)
		;
	return 0;
}

/* inotify's own, or none of them. */
static void read_seen(struct file_writes *w)
{
	int number;

	while ((number = filewatch_next(w->watch_fd)) >= 0)
		for (size_t i = 0; i < w->n; i++)
			if (w->writes[i].number > 0 &&
			    (number == w->writes[i].number ||
			     number == FILEWATCH_SOME))
				w->writes[i].is_seen = true;
}

static bool is_before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec
				      : a->tv_nsec < b->tv_nsec;
}

/* A second change within a tick of the clock need not show. */
static bool has_changed(const struct file_writes *w, size_t i)
{
	struct timespec now = read_changed(&w->files->files[i]);
	const struct timespec *then = &w->writes[i].changed;

	return is_before(then, &now) || !is_before(then, &w->instant);
}

/* One who has it open and has written something, somewhere; or who has ended.
 */
static const struct file_holder *find_suspect(const struct file_writes *w,
					      size_t file)
{
	for (size_t i = 0; i < w->n_holders; i++)
		if (w->holders[i].file == file &&
		    count_calls(w->holders[i].pid) != w->holders[i].n_calls)
			return &w->holders[i];
	return NULL;
}

static int list_one(struct file_writes *w, size_t i, const char *name,
		    struct vm_strings *certain, struct vm_strings *maybe)
{
	const struct file_holder *suspect;

	if (w->writes[i].is_seen)
		return vm_strings_add(
			certain,
			"%.100s, which is mapped, was written to by write(2) or the like meanwhile",
			name);
	if (!w->writes[i].is_blind || !has_changed(w, i))
		return 0;
	suspect = find_suspect(w, i);
	return !suspect
		       ? 0
		       : vm_strings_add(
				 maybe,
				 "%.100s, which is mapped, may have been written to by write(2) or the like meanwhile: process %d (%s) has it open and has written something",
				 name, suspect->pid, suspect->name);
}

int file_writes_list(struct file_writes *w, file_writes_used_fn used,
		     void *opaque, struct vm_strings *certain,
		     struct vm_strings *maybe)
{
	int r = 0;

	read_seen(w);
	for (size_t i = 0; !r && i < w->n; i++) {
		char path[32], name[PATH_MAX] = "a file";

		if (!used(opaque, i))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d",
			 w->files->files[i].fd);
		if (readlink(path, name, sizeof(name) - 1) < 0)
			strcpy(name, "a file");
		r = list_one(w, i, name, certain, maybe);
	}
	return r;
}

void file_writes_deinit(struct file_writes *w)
{
	close_fd(&w->watch_fd);
	free(w->writes);
	free(w->holders);
	*w = (struct file_writes)FILE_WRITES_INIT;
}
