/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/savevm.h"

#include <endian.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "qemu/devstate.h"

/* migration/qemu-file-types.h, savevm.c */
#define FILE_MAGIC	    0x5145564du /* "QEVM" */
#define FILE_VERSION	    3
#define SECTION_EOF	    0x00
#define SECTION_START	    0x01
#define SECTION_SUBSECTION  0x05
#define SECTION_VMDESC	    0x06
#define SECTION_CONFIG	    0x07
#define SECTION_FOOTER	    0x7e
#define CAPABILITIES	    "configuration/capabilities"
/* What xen-save-devices-state writes before its first section. */
#define DEVSTATE_HEADER_LEN 8

#define RAM_VERSION 4

/* Any number that no device's section has, but 0: QEMU takes that for none.
 * QEMU counts its own up from 0. */
#define RAM_SECTION_ID 0x7ffffff0u

static int write_sink(struct savevm *vm, const void *data, size_t len)
{
	if (!vm->error)
		vm->error =
			vm->sink.write(vm->sink.opaque, vm->flushed, data, len);
	if (!vm->error)
		vm->flushed += len;
	return vm->error;
}

static int flush(struct savevm *vm)
{
	size_t used = vm->used;

	vm->used = 0;
	return used ? write_sink(vm, vm->buf, used) : vm->error;
}

uint64_t savevm_position(const struct savevm *vm)
{
	return vm->flushed + vm->used;
}

int savevm_seek(struct savevm *vm, uint64_t at)
{
	int r;

	if (at == savevm_position(vm))
		return vm->error;
	r = flush(vm);
	vm->flushed = at;
	return r;
}

int savevm_reserve(struct savevm *vm, size_t len)
{
	return SAVEVM_BUF_LEN - vm->used < len ? flush(vm) : vm->error;
}

void savevm_put(struct savevm *vm, const void *data, size_t len)
{
	memcpy(vm->buf + vm->used, data, len);
	vm->used += len;
}

void savevm_put_u8(struct savevm *vm, uint8_t value)
{
	vm->buf[vm->used++] = value;
}

void savevm_put_be32(struct savevm *vm, uint32_t value)
{
	value = htobe32(value);
	savevm_put(vm, &value, sizeof(value));
}

void savevm_put_be64(struct savevm *vm, uint64_t value)
{
	value = htobe64(value);
	savevm_put(vm, &value, sizeof(value));
}

void savevm_put_name(struct savevm *vm, const char *name)
{
	size_t len = strlen(name);

	savevm_put_u8(vm, (uint8_t)len);
	savevm_put(vm, name, len);
}

static int put_header(struct savevm *vm, const char *machine,
		      const char *capability)
{
	size_t len = strlen(machine);
	int r;

	r = savevm_reserve(vm, 32 + len);
	if (r)
		return r;
	savevm_put_be32(vm, FILE_MAGIC);
	savevm_put_be32(vm, FILE_VERSION);
	savevm_put_u8(vm, SECTION_CONFIG);
	savevm_put_be32(vm, (uint32_t)len);
	savevm_put(vm, machine, len);
	if (!capability)
		return 0;

	r = savevm_reserve(vm, 64 + strlen(capability));
	if (r)
		return r;
	savevm_put_u8(vm, SECTION_SUBSECTION);
	savevm_put_name(vm, CAPABILITIES);
	savevm_put_be32(vm, 1); /* version */
	savevm_put_be32(vm, 1); /* how many */
	savevm_put_name(vm, capability);
	return 0;
}

static int put_start_of_ram(struct savevm *vm)
{
	uint64_t total = 0;
	int r;

	for (size_t i = 0; i < vm->blocks->n_blocks; i++)
		if (vm->blocks->blocks[i].migratable)
			total += vm->blocks->blocks[i].used_length;

	r = savevm_reserve(vm, 64);
	if (r)
		return r;
	savevm_put_u8(vm, SECTION_START);
	savevm_put_be32(vm, RAM_SECTION_ID);
	savevm_put_name(vm, "ram");
	savevm_put_be32(vm, 0); /* instance */
	savevm_put_be32(vm, RAM_VERSION);
	savevm_put_be64(vm, total | RAM_MEM_SIZE);
	return 0;
}

int savevm_put_block(struct savevm *vm, const struct ram_block *block)
{
	int r = savevm_reserve(vm, 1 + RAM_BLOCK_NAME_MAX + sizeof(uint64_t));

	if (r)
		return r;
	savevm_put_name(vm, block->name);
	savevm_put_be64(vm, block->used_length);
	return 0;
}

/* What the format can't say, from whatever source the blocks are. */
static bool can_be_told(const struct ram_blocks *blocks, const char *machine)
{
	uint64_t left = INT64_MAX;

	for (size_t i = 0; i < blocks->n_blocks; i++) {
		const struct ram_block *block = &blocks->blocks[i];

		if (strlen(block->name) > RAM_BLOCK_NAME_MAX ||
		    block->used_length % PAGE_SIZE || block->used_length > left)
			return false;
		left -= block->used_length;
	}
	return strlen(machine) <= RAM_BLOCK_NAME_MAX;
}

int savevm_begin(struct savevm *vm, const struct savevm_sink *sink,
		 const char *machine, const char *capability,
		 const struct ram_blocks *blocks)
{
	int r;

	if (!can_be_told(blocks, machine))
		return log_errno(-EINVAL, "savevm: machine or ram blocks: %m");
	/* One by one: the buffer need not be touched before it is used. */
	vm->sink = *sink;
	vm->blocks = blocks;
	vm->flushed = 0;
	vm->used = 0;
	vm->error = 0;

	r = put_header(vm, machine, capability);
	return r ?: put_start_of_ram(vm);
}

int savevm_check_pages(const struct savevm *vm, size_t block, uint64_t offset,
		       size_t n_pages)
{
	const struct ram_block *b;

	if (block < vm->blocks->n_blocks) {
		b = &vm->blocks->blocks[block];
		if (b->migratable && !(offset % PAGE_SIZE) &&
		    offset <= b->used_length &&
		    n_pages <= (b->used_length - offset) / PAGE_SIZE)
			return 0;
	}
	return log_errno(-ERANGE,
			 "savevm: page at offset %#llx is not in block %zu",
			 (unsigned long long)offset, block);
}

static int put_end_of_ram(struct savevm *vm)
{
	int r;

	r = savevm_reserve(vm, 64);
	if (r)
		return r;
	savevm_put_be64(vm, RAM_EOS);
	savevm_put_u8(vm, SECTION_FOOTER);
	savevm_put_be32(vm, RAM_SECTION_ID);
	return 0;
}

static int put_trailer(struct savevm *vm)
{
	int r;

	r = savevm_reserve(vm, 64);
	if (r)
		return r;
	savevm_put_u8(vm, SECTION_EOF);
	/* QEMU reads a description for debuggers here, and takes an empty one;
	 * with none it would wait for it. */
	savevm_put_u8(vm, SECTION_VMDESC);
	savevm_put_be32(vm, 0);
	return flush(vm);
}

int savevm_end(struct savevm *vm, const void *devstate, size_t devstate_len)
{
	const uint8_t *bytes = devstate;
	int r;

	r = devstate_check(devstate, devstate_len);
	if (r)
		return log_errno(r, "savevm: device state: %m");
	r = put_end_of_ram(vm);
	r = r ?: flush(vm);
	/* Without its own header and end, which the file has already. */
	r = r
		    ?: write_sink(vm, bytes + DEVSTATE_HEADER_LEN,
				  devstate_len - DEVSTATE_HEADER_LEN - 1);
	return r ?: put_trailer(vm);
}
