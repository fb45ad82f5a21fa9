/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "parasite/wayback.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "sys/vmio.h"

/* Random. */
#define MAGIC_0 0x8c5fd1a36be0927d
#define MAGIC_1 0x49b72e80d61f35ca

struct image {
	struct wayback_mark mark;
	uint8_t scratch[WAYBACK_SCRATCH];
	struct wayback_link links[WAYBACK_FDS];
	struct arch_sigframe home;
	_Alignas(WAYBACK_ALIGN) uint8_t xstate[ARCH_XSTATE_MAX];
};

_Static_assert(sizeof(struct image) <= WAYBACK_LEN_MAX, "fits");

static uint64_t remote_link(const struct wayback *w, size_t i)
{
	return w->remote_addr + offsetof(struct image, links) +
	       i * sizeof(struct wayback_link);
}

uint64_t wayback_sp(const struct wayback *w, size_t n_fds)
{
	if (!n_fds)
		return w->remote_addr + offsetof(struct image, home);
	return remote_link(w, n_fds - 1) + offsetof(struct wayback_link, frame);
}

uint64_t wayback_sp_storing(const struct wayback *w, uint64_t *store_to)
{
	*store_to = 0;
	if (!w->gadgets.store)
		return wayback_sp(w, w->n_fds);
	*store_to = wayback_next_fd(w);
	return wayback_sp(w, w->n_fds + 1) -
	       (1 + w->gadgets.store_slots) * sizeof(uint64_t);
}

uint64_t wayback_next_fd(const struct wayback *w)
{
	assert(w->n_fds < WAYBACK_FDS);
	return remote_link(w, w->n_fds) +
	       offsetof(struct wayback_link, frame.rdi);
}

uint64_t wayback_scratch(const struct wayback *w)
{
	return w->remote_addr + offsetof(struct image, scratch);
}

static void fill_links(const struct wayback *w, struct image *image,
		       const struct user_regs_struct *found)
{
	static const uint64_t close_none[6] = { (uint32_t)-1 };
	uint64_t remote_xstate =
		w->remote_addr + offsetof(struct image, xstate);
	struct user_regs_struct regs = *found;

	for (size_t i = 0; i < WAYBACK_FDS; i++) {
		struct wayback_link *link = &image->links[i];

		link->slots[ARCH_STORE_SLOTS - w->gadgets.store_slots] =
			w->gadgets.store;
		arch_set_call(&regs, &w->gadgets, wayback_sp(w, i), SYS_close,
			      close_none);
		/* All frames load the thread's own extended state: its memory
		 * protection keys must hold on the way, too. */
		arch_fill_sigframe(&link->frame, &w->gadgets, &regs, UINT64_MAX,
				   remote_xstate);
	}
}

static int fill_image(struct wayback *w, struct image *image, size_t n_xstate,
		      const struct user_regs_struct *found, uint64_t sigmask)
{
	struct user_regs_struct home = *found;

	if (!arch_mark_xstate(image->xstate, n_xstate))
		return -EOPNOTSUPP;
	arch_name_restarted(w->tid, &home);
	arch_rewind_syscall(&home);
	arch_fill_sigframe(&image->home, &w->gadgets, &home, sigmask,
			   w->remote_addr + offsetof(struct image, xstate));
	fill_links(w, image, found);
	return 0;
}

/* Behind the state there is a mark of 4 bytes. */
static size_t image_len(size_t n_xstate)
{
	return ROUND_UP(offsetof(struct image, xstate) + n_xstate + 4,
			WAYBACK_ALIGN);
}

int wayback_measure(pid_t tid, size_t *len)
{
	uint8_t xstate[ARCH_XSTATE_MAX];
	size_t n_xstate = sizeof(xstate);
	int r = ptrace_get_xstate(tid, xstate, &n_xstate);

	if (r)
		return r;
	*len = image_len(n_xstate);
	return *len > sizeof(struct image) ? -EOVERFLOW : 0;
}

/* What is there before, and then the chain. */
static int exchange(struct wayback *w, const struct image *image)
{
	int r;

	w->saved = malloc(w->len);
	if (!w->saved)
		return -ENOMEM;
	r = vm_read(w->tid, w->remote_addr, w->saved, w->len);
	if (!r)
		r = vm_write(w->tid, w->remote_addr, image, w->len);
	return r;
}

int wayback_init(struct wayback *w, pid_t tid, uint64_t remote_addr, size_t len,
		 const struct arch_gadgets *gadgets,
		 const struct user_regs_struct *regs, uint64_t sigmask)
{
	_cleanup_free_ struct image *image = NULL;
	size_t n_xstate = ARCH_XSTATE_MAX;
	int r;

	*w = (struct wayback){ .tid = tid,
			       .gadgets = *gadgets,
			       .remote_addr = remote_addr,
			       .len = len };
	image = aligned_alloc(WAYBACK_ALIGN, sizeof(*image));
	if (!image)
		return -ENOMEM;
	memset(image, 0, sizeof(*image));
	image->mark = (struct wayback_mark){ { MAGIC_0, MAGIC_1 },
					     (uint32_t)tid,
					     (uint32_t)len };
	r = ptrace_get_xstate(tid, image->xstate, &n_xstate);
	if (!r && image_len(n_xstate) != len)
		r = -EAGAIN;
	if (!r)
		r = fill_image(w, image, n_xstate, regs, sigmask);
	if (!r)
		r = exchange(w, image);
	if (r)
		wayback_deinit(w);
	return r;
}

bool wayback_is_mark(const struct wayback_mark *mark)
{
	return mark->magic[0] == MAGIC_0 && mark->magic[1] == MAGIC_1 &&
	       mark->len > offsetof(struct image, xstate) &&
	       mark->len <= sizeof(struct image);
}

void wayback_deinit(struct wayback *w)
{
	free(w->saved);
	*w = (struct wayback){ 0 };
}

int wayback_erase(const struct wayback *w)
{
	return vm_write(w->tid, w->remote_addr, w->saved, w->len);
}

int wayback_push_fd(struct wayback *w, int fd)
{
	int r;

	if (w->n_fds == WAYBACK_FDS)
		return -EMFILE;
	r = vm_write(w->tid, wayback_next_fd(w), &fd, sizeof(fd));
	if (!r)
		w->fds[w->n_fds++] = fd;
	return r;
}

int wayback_pop_fd(struct wayback *w)
{
	static const int none = -1;

	assert(w->n_fds);
	w->n_fds--;
	/* The number may soon be another file's. */
	return vm_write(w->tid, wayback_next_fd(w), &none, sizeof(none));
}
