/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What an image holds, as both its writer and its reader see it. Strings and
 * arrays belong to the structure that they are in; the *_deinit functions
 * free them. Pages are numbered in units of IMAGE_PAGE_SIZE from the start of
 * their region.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/histogram.h"

enum image_kind {
	IMAGE_KIND_QEMU = 1,
	IMAGE_KIND_PROCESS = 2,
};

enum image_backing {
	IMAGE_BACKING_ANON = 1,
	IMAGE_BACKING_SHARED = 2,
	IMAGE_BACKING_PRIVATE_FILE = 3,
};

/* Pages [first, first + n) hold data; xxh3 is the XXH3-64 of their bytes. */
struct image_run {
	uint64_t first;
	uint64_t n;
	uint64_t xxh3;
};

struct image_region {
	char *name;
	uint64_t address; /* in the target */
	uint64_t length;  /* bytes */
	uint32_t page_size;
	enum image_backing backing;
	char *file;	  /* what backs it, or NULL */
	char *pages_file; /* name within the directory */
	/* Where it begins in there, bytes. A file of its own: 0. */
	uint64_t pages_offset;
	struct image_run *runs;
	size_t n_runs;
};

struct image_ram_block {
	char *idstr;
	uint64_t offset;
	uint64_t used_length;
	uint64_t max_length;
	uint64_t page_size;
	bool shared, resizeable, migratable;
	int region; /* -1: not in the image */
};

struct image_disk {
	char *file;	 /* absolute where it is one */
	char *device;	 /* "virtio0", or a QOM path */
	char *node_name; /* QEMU's, maybe generated */
	char *format;
	bool read_only;
	/* Of the file while the VM stood; has_stat: it could be looked at. */
	bool has_stat;
	uint64_t size; /* bytes */
	int64_t mtime_ns;
	/* What the source has written to since; NULL: the same file. */
	char *overlay;
};

/* A DIMM. */
struct image_memory_device {
	char *id;     /* "" when it has none */
	char *memdev; /* id of its memory-backend object */
	uint64_t address, size;
	int64_t slot, node;
};

/* Of the domain's XML, in bytes: no text is longer in libvirt's own protocol
 * (REMOTE_STRING_MAX, src/remote/remote_protocol.x). */
#define IMAGE_DOMAIN_XML_MAX ((size_t)4 << 20)

struct image_machine {
	char *qemu_version;
	char *machine_class; /* without "-machine" */
	bool running;	     /* when the dump began */
	char *cwd;
	char **argv; /* n_args of them */
	size_t n_args;
	struct image_ram_block *blocks;
	size_t n_blocks;
	struct image_disk *disks;
	size_t n_disks;
	struct image_memory_device *memory_devices;
	size_t n_memory_devices;
	char *domain_xml; /* libvirt's, with secrets; NULL: not its domain */
};

/* One mapping of a process, in the order of addresses. */
struct image_mapping {
	uint64_t start, end;
	unsigned prot; /* PROT_* */
	bool shared;
	uint64_t offset; /* bytes into the file */
	unsigned dev_major, dev_minor;
	uint64_t inode; /* 0: no file */
	char *name;	/* what /proc/PID/maps shows; "" when nothing */
	/*
	 * So many bytes from the start are in the image: what no region holds
	 * of them is zero. The rest is not: it is the file's, or was left out
	 * as the kernel leaves it out of a core dump.
	 */
	uint64_t held;
	char *build_id; /* of the ELF file, hexadecimal; or NULL */
};

/* The registers are as ptrace(2) gives them on x86-64. */
struct image_thread {
	pid_t tid;
	pid_t ns_tid; /* in its own pid namespace; 0: the same */
	char *name;
	uint8_t *regs; /* NT_PRSTATUS: struct user_regs_struct */
	size_t regs_len;
	uint8_t *xstate; /* NT_X86_XSTATE, standard format */
	size_t xstate_len;
	uint8_t *siginfo; /* siginfo_t; NULL: no signal is being delivered */
	size_t siginfo_len;
	uint64_t sigpending, sigblocked; /* bit n - 1 is signal n */
	uint64_t utime_ns, stime_ns;
};

struct image_fd {
	int fd;
	char *path;	/* what /proc/PID/fd shows */
	unsigned flags; /* O_* */
	uint64_t position;
};

struct image_process {
	pid_t pid, ppid, pgrp, sid;
	uid_t uids[4]; /* real, effective, saved, file system */
	gid_t gids[4];
	gid_t *groups;
	size_t n_groups;
	uint64_t cap_permitted, cap_effective;
	char state; /* as proc_pid_stat(5) has it, before the dump */
	int nice;
	uint64_t flags; /* the kernel's PF_* */
	char *name;	/* at most 15 bytes */
	char *exe, *cwd;
	char **argv;
	size_t n_args;
	char **env;
	size_t n_env;
	uint8_t *auxv; /* Elf64_auxv_t, ends with AT_NULL */
	size_t auxv_len;
	uint32_t coredump_filter;
	struct image_mapping *mappings;
	size_t n_mappings;
	struct image_thread *threads; /* the main thread first */
	size_t n_threads;
	struct image_fd *fds;
	size_t n_fds;
};

/*
 * What memory.core has beside pages, so that it is an ELF core: its first page
 * and what follows the last region.
 */
struct image_frame {
	uint8_t *head; /* IMAGE_PAGE_SIZE bytes */
	uint8_t *tail;
	size_t tail_len; /* bytes, more than 0 */
};

struct image_stats {
	uint64_t pause_ns;
	uint64_t captured_ns; /* from thaw to the last page captured */
	uint64_t duration_ns; /* until the image is complete */
	uint64_t pages_total, pages_data, pages_zero, pages_parent;
	uint64_t pages_fault; /* captured by the fault thread */
	uint64_t bytes_written;
	uint64_t peak_buffer_bytes;
	uint64_t noted_pages;	 /* written while being armed */
	uint64_t rearmed_pages;	 /* of these, in the freeze */
	struct histogram faults; /* from reading an event to its release */
	struct histogram queue;	 /* from reading it to the start on it */
};

struct image_inventory {
	uint32_t version;
	enum image_kind kind;
	bool complete;
	char *tool_version;
	char *host;
	char *kernel;
	pid_t pid;
	uint64_t started_unix_ns;
	uint64_t frozen_unix_ns;
	/* What could write to the memory unseen, so that it may be torn. */
	char **unsafe; /* n_unsafe of them */
	size_t n_unsafe;
};

void image_region_deinit(struct image_region *region);
void image_machine_deinit(struct image_machine *machine);
void image_process_deinit(struct image_process *process);
void image_frame_deinit(struct image_frame *frame);
void image_inventory_deinit(struct image_inventory *inventory);
