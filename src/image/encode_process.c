/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/codec.h"

#include "image/codec_internal.h"

static ProtobufCBinaryData blob_of(const uint8_t *data, size_t len)
{
	return (ProtobufCBinaryData){ .len = len, .data = (uint8_t *)data };
}

static ProtobufCBinaryData *list_of(char *const *strings, size_t n)
{
	ProtobufCBinaryData *list = calloc(n + 1, sizeof(*list));

	for (size_t i = 0; list && i < n; i++)
		list[i] = bytes_of(strings[i]);
	return list;
}

/* One message for each descriptor, and the references that protobuf wants. */
struct open_files {
	Snapuffd__OpenFile *files, **refs;
};

static void open_files_deinit(struct open_files *list)
{
	free(list->files);
	free(list->refs);
}

static int fill_open_files(struct open_files *list,
			   const struct image_process *process)
{
	list->files = calloc(process->n_fds + 1, sizeof(*list->files));
	list->refs = calloc(process->n_fds + 1, sizeof(*list->refs));
	if (!list->files || !list->refs)
		return -ENOMEM;
	for (size_t i = 0; i < process->n_fds; i++) {
		const struct image_fd *fd = &process->fds[i];
		Snapuffd__OpenFile *file = &list->files[i];

		snapuffd__open_file__init(file);
		file->fd = (uint32_t)fd->fd;
		file->path = bytes_of(fd->path);
		file->flags = fd->flags;
		file->position = fd->position;
		list->refs[i] = file;
	}
	return 0;
}

static void fill_frame(Snapuffd__Frame *frame,
		       const struct image_frame_sums *sums)
{
	frame->head_xxh3 = sums->head_xxh3;
	frame->tail_offset = sums->tail_offset;
	frame->tail_size = sums->tail_size;
	frame->tail_xxh3 = sums->tail_xxh3;
}

static void fill_process(Snapuffd__Process *message,
			 const struct image_process *process)
{
	message->pid = (uint32_t)process->pid;
	message->ppid = (uint32_t)process->ppid;
	message->pgrp = (uint32_t)process->pgrp;
	message->sid = (uint32_t)process->sid;
	/* uid_t and gid_t are what protobuf-c has for uint32. */
	message->n_uids = message->n_gids = 4;
	message->uids = (uint32_t *)process->uids;
	message->gids = (uint32_t *)process->gids;
	message->n_groups = process->n_groups;
	message->groups = process->groups;
	message->cap_permitted = process->cap_permitted;
	message->cap_effective = process->cap_effective;
	message->state = (uint8_t)process->state;
	message->nice = process->nice;
	message->flags = process->flags;
	message->name = bytes_of(process->name);
	if (process->exe)
		SET(*message, exe, bytes_of(process->exe));
	if (process->cwd)
		SET(*message, cwd, bytes_of(process->cwd));
	message->n_argv = process->n_args;
	message->n_env = process->n_env;
	message->auxv = blob_of(process->auxv, process->auxv_len);
	message->coredump_filter = process->coredump_filter;
	message->n_files = process->n_fds;
}

int encode_process(struct record *record, const struct image_process *process,
		   const struct image_frame_sums *sums)
{
	_cleanup_(open_files_deinit) struct open_files files = {};
	_cleanup_free_ ProtobufCBinaryData *argv =
		list_of(process->argv, process->n_args);
	_cleanup_free_ ProtobufCBinaryData *env =
		list_of(process->env, process->n_env);
	Snapuffd__Process message = SNAPUFFD__PROCESS__INIT;
	Snapuffd__Frame frame = SNAPUFFD__FRAME__INIT;
	int r;

	r = fill_open_files(&files, process);
	if (r || !argv || !env)
		return -ENOMEM;
	fill_process(&message, process);
	message.argv = argv;
	message.env = env;
	message.files = files.refs;
	if (sums->tail_offset) {
		fill_frame(&frame, sums);
		message.core = &frame;
	}

	r = record_init(record, IMAGE_MAGIC_PROCESS);
	return r ? r : record_append(record, &message.base);
}

static int encode_mapping(struct record *record,
			  const struct image_mapping *mapping)
{
	Snapuffd__Mapping message = SNAPUFFD__MAPPING__INIT;

	message.start = mapping->start;
	message.end = mapping->end;
	message.prot = mapping->prot;
	message.shared = mapping->shared;
	message.held = mapping->held;
	message.build_id = mapping->build_id;
	if (mapping->offset)
		SET(message, offset, mapping->offset);
	if (mapping->inode) {
		SET(message, dev_major, mapping->dev_major);
		SET(message, dev_minor, mapping->dev_minor);
		SET(message, inode, mapping->inode);
	}
	if (mapping->name && *mapping->name)
		SET(message, name, bytes_of(mapping->name));
	return record_append(record, &message.base);
}

int encode_mappings(struct record *record, const struct image_process *process)
{
	int r = record_init(record, IMAGE_MAGIC_MAPPINGS);

	for (size_t i = 0; !r && i < process->n_mappings; i++)
		r = encode_mapping(record, &process->mappings[i]);
	return r;
}

static int encode_thread(struct record *record,
			 const struct image_thread *thread)
{
	Snapuffd__Thread message = SNAPUFFD__THREAD__INIT;

	message.tid = (uint32_t)thread->tid;
	if (thread->ns_tid)
		SET(message, ns_tid, (uint32_t)thread->ns_tid);
	message.name = bytes_of(thread->name);
	message.regs = blob_of(thread->regs, thread->regs_len);
	message.xstate = blob_of(thread->xstate, thread->xstate_len);
	if (thread->siginfo)
		SET(message, siginfo,
		    blob_of(thread->siginfo, thread->siginfo_len));
	message.sigpending = thread->sigpending;
	message.sigblocked = thread->sigblocked;
	message.utime_ns = thread->utime_ns;
	message.stime_ns = thread->stime_ns;
	return record_append(record, &message.base);
}

int encode_threads(struct record *record, const struct image_process *process)
{
	int r = record_init(record, IMAGE_MAGIC_THREADS);

	for (size_t i = 0; !r && i < process->n_threads; i++)
		r = encode_thread(record, &process->threads[i]);
	return r;
}
