/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/pwriter.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/inject.h"
#include "base/io.h"
#include "image/pwriter_internal.h"

static void freep(struct pwriter **writer)
{
	*writer = pwriter_free(*writer);
}

int pwriter_new(struct pwriter **out, unsigned depth, bool allow_uring)
{
	_cleanup_(freep) struct pwriter *writer = calloc(1, sizeof(*writer));
	int r;

	if (!writer)
		return -ENOMEM;
	writer->jobs = calloc(depth, sizeof(*writer->jobs));
	if (!writer->jobs)
		return -ENOMEM;
	for (unsigned i = 0; i < depth; i++) {
		writer->jobs[i].next = writer->free;
		writer->free = &writer->jobs[i];
	}

	writer->ops = &pwriter_uring_ops;
	r = allow_uring ? writer->ops->start(writer, depth) : -ENOSYS;
	if (r) {
		writer->ops = &pwriter_threads_ops;
		r = writer->ops->start(writer, depth);
	}
	if (r) {
		writer->ops = NULL;
		return r;
	}
	*out = steal_ptr(writer);
	return 0;
}

const char *pwriter_name(const struct pwriter *writer)
{
	return writer->ops->name;
}

/* What is left of a job that the kernel did in part, or refused. */
static int finish_by_hand(const struct pwriter_job *job, int result)
{
	size_t done = result > 0 ? (size_t)result : 0;
	int fd = result == -EINVAL ? job->fallback_fd : job->fd;
	int r;

	if (done == job->len)
		return 0;
	if (result < 0 && result != -EINVAL && result != -EAGAIN &&
	    result != -EINTR)
		return result;
	r = io_pwrite_full(fd, (const char *)job->buf + done, job->len - done,
			   job->offset + done);
	/* A short direct write leaves an odd rest. */
	if (r == -EINVAL && fd != job->fallback_fd)
		r = io_pwrite_full(job->fallback_fd,
				   (const char *)job->buf + done,
				   job->len - done, job->offset + done);
	return r;
}

int pwriter_wait(struct pwriter *writer)
{
	struct pwriter_job *job;
	int result, r;

	if (!writer->n_under_way)
		return writer->error;
	r = writer->ops->wait(writer, &job, &result);
	if (r)
		return r;

	writer->n_under_way--;
	r = INJECT("image-write") ?: finish_by_hand(job, result);
	if (r && !writer->error)
		writer->error = r;
	hold_put(job->hold);
	job->next = writer->free;
	writer->free = job;
	return writer->error ? writer->error : 1;
}

void pwriter_drain(struct pwriter *writer)
{
	unsigned before;

	/* Each wait ends one, but if the ring itself is broken. */
	do {
		before = writer->n_under_way;
		pwriter_wait(writer);
	} while (writer->n_under_way && writer->n_under_way < before);
}

int pwriter_submit(struct pwriter *writer, int fd, int fallback_fd,
		   const void *buf, size_t len, uint64_t offset,
		   struct hold *hold)
{
	struct pwriter_job *job;
	int r;

	while (!writer->free && !writer->error) {
		r = pwriter_wait(writer);
		if (r < 0)
			return r;
	}
	if (writer->error)
		return writer->error;

	job = writer->free;
	writer->free = job->next;
	*job = (struct pwriter_job){
		.fd = fd,
		.fallback_fd = fallback_fd,
		.buf = buf,
		.len = len,
		.offset = offset,
		.hold = hold,
	};
	hold_get(hold);
	writer->n_under_way++;
	r = writer->ops->submit(writer, job);
	if (r) {
		writer->n_under_way--;
		hold_put(hold);
		job->next = writer->free;
		writer->free = job;
		writer->error = r;
	}
	return r;
}

struct pwriter *pwriter_free(struct pwriter *writer)
{
	if (!writer)
		return NULL;
	if (writer->ops) {
		pwriter_drain(writer);
		writer->ops->stop(writer);
	}
	free(writer->jobs);
	free(writer);
	return NULL;
}
