/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/codec.h"

#include <limits.h>
#include <sys/mman.h>

#include "base/util.h"
#include "image/codec_internal.h"

/* The kernel's own limits, where it has one. */
#define COMM_MAX	63 /* its own threads'; others have 15 */
#define GROUPS_MAX	65536
#define AUXV_ENTRY	16
#define AUXV_MAX	(64 * KIB)
#define REGS_LEN	216 /* sizeof(struct user_regs_struct) */
#define SIGINFO_LEN	128
#define XSTATE_MIN	576 /* legacy area and header */
#define XSTATE_MAX	(16 * KIB)
#define TAIL_MAX	GIB
#define BUILD_ID_DIGITS 128

static int decode_bytes(ProtobufCBinaryData bytes, char **to)
{
	*to = string_of(bytes);
	return *to ? 0 : -EBADMSG;
}

static int copy_blob(ProtobufCBinaryData bytes, uint8_t **to, size_t *len)
{
	*to = malloc(bytes.len + 1);
	if (!*to)
		return -ENOMEM;
	if (bytes.len)
		memcpy(*to, bytes.data, bytes.len);
	*len = bytes.len;
	return 0;
}

static int decode_list(const ProtobufCBinaryData *from, size_t n, char ***list,
		       size_t *n_list)
{
	int r = 0;

	*list = calloc(n + 1, sizeof(**list));
	if (!*list)
		return -ENOMEM;
	for (size_t i = 0; !r && i < n; i++) {
		r = decode_bytes(from[i], &(*list)[i]);
		++*n_list;
	}
	return r;
}

static int decode_groups(const Snapuffd__Process *message,
			 struct image_process *process)
{
	process->groups =
		calloc(message->n_groups + 1, sizeof(*process->groups));
	if (!process->groups)
		return -ENOMEM;
	process->n_groups = message->n_groups;
	for (size_t i = 0; i < message->n_groups; i++)
		process->groups[i] = message->groups[i];
	return 0;
}

static int decode_files(const Snapuffd__Process *message,
			struct image_process *process)
{
	int r = 0;

	process->fds = calloc(message->n_files + 1, sizeof(*process->fds));
	if (!process->fds)
		return -ENOMEM;
	for (size_t i = 0; !r && i < message->n_files; i++) {
		const Snapuffd__OpenFile *file = message->files[i];
		struct image_fd *fd = &process->fds[process->n_fds++];

		if (file->fd > INT_MAX)
			return -EBADMSG;
		fd->fd = (int)file->fd;
		fd->flags = file->flags;
		fd->position = file->position;
		r = decode_bytes(file->path, &fd->path);
	}
	return r;
}

/* Whole entries, of which the last is AT_NULL. */
static bool is_sound_auxv(ProtobufCBinaryData auxv)
{
	uint64_t type;

	if (!auxv.len)
		return true;
	if (auxv.len % AUXV_ENTRY || auxv.len > AUXV_MAX)
		return false;
	memcpy(&type, auxv.data + auxv.len - AUXV_ENTRY, sizeof(type));
	return !type;
}

static bool is_sound_process(const Snapuffd__Process *message)
{
	return message->pid && message->pid <= INT_MAX &&
	       message->ppid <= INT_MAX && message->pgrp <= INT_MAX &&
	       message->sid <= INT_MAX && message->n_uids == 4 &&
	       message->n_gids == 4 && message->n_groups <= GROUPS_MAX &&
	       message->state > ' ' && message->state < 0x7f &&
	       message->nice >= -20 && message->nice <= 19 &&
	       message->name.len <= COMM_MAX && is_sound_auxv(message->auxv);
}

static int decode_frame(const Snapuffd__Frame *message,
			struct image_frame_sums *sums)
{
	if (!message)
		return 0;
	if (message->tail_offset < IMAGE_PAGE_SIZE ||
	    message->tail_offset % IMAGE_PAGE_SIZE ||
	    message->tail_offset > 2 * REGION_MAX_LENGTH ||
	    !message->tail_size || message->tail_size > TAIL_MAX)
		return -EBADMSG;
	sums->head_xxh3 = message->head_xxh3;
	sums->tail_offset = message->tail_offset;
	sums->tail_size = message->tail_size;
	sums->tail_xxh3 = message->tail_xxh3;
	return 0;
}

static void take_numbers(const Snapuffd__Process *message,
			 struct image_process *process)
{
	process->pid = (pid_t)message->pid;
	process->ppid = (pid_t)message->ppid;
	process->pgrp = (pid_t)message->pgrp;
	process->sid = (pid_t)message->sid;
	for (size_t i = 0; i < 4; i++) {
		process->uids[i] = message->uids[i];
		process->gids[i] = message->gids[i];
	}
	process->cap_permitted = message->cap_permitted;
	process->cap_effective = message->cap_effective;
	process->state = (char)message->state;
	process->nice = message->nice;
	process->flags = message->flags;
	process->coredump_filter = message->coredump_filter;
}

int decode_process(struct record *record, struct image_process *process,
		   struct image_frame_sums *sums)
{
	_cleanup_message_ Snapuffd__Process *message =
		NEXT(record, snapuffd__process__descriptor);
	int r;

	*process = (struct image_process){};
	*sums = (struct image_frame_sums){};
	if (!message || !record_at_end(record) || !is_sound_process(message))
		return -EBADMSG;

	take_numbers(message, process);
	r = decode_frame(message->core, sums);
	if (!r)
		r = decode_bytes(message->name, &process->name);
	if (!r && message->has_exe)
		r = decode_bytes(message->exe, &process->exe);
	if (!r && message->has_cwd)
		r = decode_bytes(message->cwd, &process->cwd);
	if (!r)
		r = copy_blob(message->auxv, &process->auxv,
			      &process->auxv_len);
	if (!r)
		r = decode_groups(message, process);
	if (!r)
		r = decode_list(message->argv, message->n_argv, &process->argv,
				&process->n_args);
	if (!r)
		r = decode_list(message->env, message->n_env, &process->env,
				&process->n_env);
	return r ? r : decode_files(message, process);
}

static bool is_build_id(const char *text)
{
	size_t len = strlen(text);

	return len && len % 2 == 0 && len <= BUILD_ID_DIGITS &&
	       strspn(text, "0123456789abcdef") == len;
}

/* `floor`: where the one before it ends. */
static int decode_mapping(const Snapuffd__Mapping *message, uint64_t floor,
			  struct image_mapping *mapping)
{
	uint64_t length = message->end - message->start;
	int r;

	if (message->start < floor || message->end <= message->start ||
	    message->start % IMAGE_PAGE_SIZE || length % IMAGE_PAGE_SIZE ||
	    message->held > length || message->held % IMAGE_PAGE_SIZE ||
	    message->prot & ~(uint32_t)(PROT_READ | PROT_WRITE | PROT_EXEC) ||
	    (message->build_id && !is_build_id(message->build_id)))
		return -EBADMSG;
	mapping->start = message->start;
	mapping->end = message->end;
	mapping->prot = message->prot;
	mapping->shared = message->shared;
	mapping->offset = message->offset;
	mapping->dev_major = message->dev_major;
	mapping->dev_minor = message->dev_minor;
	mapping->inode = message->inode;
	mapping->held = message->held;
	r = decode_bytes(message->name, &mapping->name);
	return r ? r : copy_string(message->build_id, &mapping->build_id);
}

/* Room for one more, zeroed, of `n` elements of `size` bytes; NULL without
 * memory. Doubles, so that what is read one by one is not copied each time. */
static void *grow_list(void **list, size_t n, size_t size)
{
	uint8_t *grown = *list;

	if (!(n & (n - 1))) {
		grown = reallocarray(*list, n ? n * 2 : 1, size);
		if (!grown)
			return NULL;
		*list = grown;
	}
	return memset(grown + n * size, 0, size);
}

int decode_mappings(struct record *record, struct image_process *process)
{
	uint64_t floor = 0;
	int r = 0;

	while (!r && !record_at_end(record)) {
		_cleanup_message_ Snapuffd__Mapping *message =
			NEXT(record, snapuffd__mapping__descriptor);
		struct image_mapping *mapping;

		if (!message)
			return -EBADMSG;
		mapping = grow_list((void **)&process->mappings,
				    process->n_mappings, sizeof(*mapping));
		if (!mapping)
			return -ENOMEM;
		process->n_mappings++;
		r = decode_mapping(message, floor, mapping);
		floor = mapping->end;
	}
	return r;
}

static int decode_thread(const Snapuffd__Thread *message,
			 struct image_thread *thread)
{
	int r;

	if (!message->tid || message->tid > INT_MAX ||
	    message->ns_tid > INT_MAX ||
	    message->name.len > COMM_MAX || message->regs.len != REGS_LEN ||
	    message->xstate.len < XSTATE_MIN ||
	    message->xstate.len > XSTATE_MAX ||
	    (message->has_siginfo && message->siginfo.len != SIGINFO_LEN))
		return -EBADMSG;
	thread->tid = (pid_t)message->tid;
	thread->ns_tid = (pid_t)message->ns_tid;
	thread->sigpending = message->sigpending;
	thread->sigblocked = message->sigblocked;
	thread->utime_ns = message->utime_ns;
	thread->stime_ns = message->stime_ns;
	r = decode_bytes(message->name, &thread->name);
	if (!r)
		r = copy_blob(message->regs, &thread->regs, &thread->regs_len);
	if (!r)
		r = copy_blob(message->xstate, &thread->xstate,
			      &thread->xstate_len);
	if (!r && message->has_siginfo)
		r = copy_blob(message->siginfo, &thread->siginfo,
			      &thread->siginfo_len);
	return r;
}

int decode_threads(struct record *record, struct image_process *process)
{
	int r = 0;

	while (!r && !record_at_end(record)) {
		_cleanup_message_ Snapuffd__Thread *message =
			NEXT(record, snapuffd__thread__descriptor);
		struct image_thread *thread;

		if (!message)
			return -EBADMSG;
		thread = grow_list((void **)&process->threads,
				   process->n_threads, sizeof(*thread));
		if (!thread)
			return -ENOMEM;
		process->n_threads++;
		r = decode_thread(message, thread);
	}
	if (!r && !process->n_threads)
		return -EBADMSG;
	return r;
}
