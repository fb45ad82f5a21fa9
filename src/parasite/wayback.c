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

#define XSTATE_ALIGN 64

struct image {
	uint8_t scratch[WAYBACK_SCRATCH];
	struct wayback_link links[WAYBACK_FDS];
	struct arch_sigframe home;
	_Alignas(XSTATE_ALIGN) uint8_t xstate[ARCH_XSTATE_MAX];
};

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
	arch_rewind_syscall(&home);
	arch_fill_sigframe(&image->home, &w->gadgets, &home, sigmask,
			   w->remote_addr + offsetof(struct image, xstate));
	fill_links(w, image, found);
	return 0;
}

int wayback_init(struct wayback *w, pid_t pid, struct range stack,
		 const struct arch_gadgets *gadgets,
		 const struct user_regs_struct *regs, uint64_t sigmask)
{
	_cleanup_free_ struct image *image = NULL;
	size_t n_xstate = ARCH_XSTATE_MAX;
	uint64_t top = ROUND_DOWN(regs->rsp - ARCH_RED_ZONE, XSTATE_ALIGN);
	int r;

	*w = (struct wayback){ .pid = pid, .gadgets = *gadgets };
	image = aligned_alloc(XSTATE_ALIGN, sizeof(*image));
	if (!image)
		return -ENOMEM;
	memset(image, 0, sizeof(*image));
	r = ptrace_get_xstate(pid, image->xstate, &n_xstate);
	if (r)
		return r;

	/* Behind the state there is a mark of 4 bytes. */
	w->len = ROUND_UP(offsetof(struct image, xstate) + n_xstate + 4,
			  XSTATE_ALIGN);
	if (w->len > sizeof(*image))
		return -EOVERFLOW;
	if (top < stack.start || top > stack.end || top - stack.start < w->len)
		return -ENOSPC;
	w->remote_addr = top - w->len;

	r = fill_image(w, image, n_xstate, regs, sigmask);
	if (r)
		return r;
	w->saved = malloc(w->len);
	if (!w->saved)
		return -ENOMEM;
	r = vm_read(pid, w->remote_addr, w->saved, w->len);
	if (!r)
		r = vm_write(pid, w->remote_addr, image, w->len);
	if (r)
		wayback_deinit(w);
	return r;
}

void wayback_deinit(struct wayback *w)
{
	free(w->saved);
	*w = (struct wayback){ 0 };
}

int wayback_erase(const struct wayback *w)
{
	return vm_write(w->pid, w->remote_addr, w->saved, w->len);
}

int wayback_push_fd(struct wayback *w, int fd)
{
	int r;

	if (w->n_fds == WAYBACK_FDS)
		return -EMFILE;
	r = vm_write(w->pid, wayback_next_fd(w), &fd, sizeof(fd));
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
	return vm_write(w->pid, wayback_next_fd(w), &none, sizeof(none));
}
