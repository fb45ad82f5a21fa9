/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/pwriter_internal.h"

#include <errno.h>

static int uring_start(struct pwriter *writer, unsigned depth)
{
	return io_uring_queue_init(depth, &writer->ring, 0);
}

static int uring_submit(struct pwriter *writer, struct pwriter_job *job)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&writer->ring);
	int r;

	if (!sqe)
		return -EBUSY;
	io_uring_prep_write(sqe, job->fd, job->buf, (unsigned)job->len,
			    job->offset);
	io_uring_sqe_set_data(sqe, job);
	do {
		r = io_uring_submit(&writer->ring);
	} while (r == -EINTR || r == -EAGAIN);
	return r < 0 ? r : 0;
}

static int uring_wait(struct pwriter *writer, struct pwriter_job **job,
		      int *result)
{
	struct io_uring_cqe *cqe;
	int r;

	do {
		r = io_uring_wait_cqe(&writer->ring, &cqe);
	} while (r == -EINTR);
	if (r)
		return r;
	*job = io_uring_cqe_get_data(cqe);
	*result = cqe->res;
	io_uring_cqe_seen(&writer->ring, cqe);
	return 0;
}

static void uring_stop(struct pwriter *writer)
{
	io_uring_queue_exit(&writer->ring);
}

const struct pwriter_ops pwriter_uring_ops = {
	.name = "io_uring",
	.start = uring_start,
	.submit = uring_submit,
	.wait = uring_wait,
	.stop = uring_stop,
};
