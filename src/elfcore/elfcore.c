/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "elfcore/elfcore.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "elfcore/internal.h"

#define REGS_LEN   216
#define FPREGS_LEN 512

static int compare_regions(const void *a, const void *b)
{
	const struct image_region *x = *(const struct image_region *const *)a;
	const struct image_region *y = *(const struct image_region *const *)b;

	return x->address < y->address ? -1 : x->address > y->address;
}

static const struct image_region **sort_regions(
	const struct image_region *regions, size_t n)
{
	const struct image_region **sorted = calloc(n + 1, sizeof(*sorted));

	if (!sorted)
		return NULL;
	for (size_t i = 0; i < n; i++)
		sorted[i] = &regions[i];
	qsort(sorted, n, sizeof(*sorted), compare_regions);
	return sorted;
}

static bool has_registers(const struct image_process *process)
{
	for (size_t i = 0; i < process->n_threads; i++)
		if (process->threads[i].regs_len != REGS_LEN ||
		    process->threads[i].xstate_len < FPREGS_LEN)
			return false;
	return process->n_threads;
}

/* With more headers than the ELF header can count, a section header does. */
static void fill_header(Elf64_Ehdr *header, uint64_t phdrs, size_t n_phdrs,
			struct buffer *tail, uint64_t tail_offset)
{
	*header = (Elf64_Ehdr){
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
			     ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE },
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = phdrs,
		.e_ehsize = sizeof(*header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = (uint16_t)min_u64(n_phdrs, PN_XNUM),
	};
	if (n_phdrs >= PN_XNUM) {
		Elf64_Shdr section = {
			.sh_type = SHT_NULL,
			.sh_size = 1, /* sections */
			.sh_info = (uint32_t)n_phdrs,
		};

		header->e_shoff = tail_offset + tail->len;
		header->e_shentsize = sizeof(section);
		header->e_shnum = 1;
		buffer_append(tail, &section, sizeof(section));
	}
}

/* Notes, then the program headers, of which the first is that of the notes. */
static int fill_frame(const struct image_process *process,
		      const struct image_region *const *sorted, size_t n,
		      uint64_t tail_offset, struct image_frame *frame)
{
	_cleanup_buffer_ struct buffer tail = {};
	size_t notes_len, phdrs, n_phdrs;
	Elf64_Phdr notes;

	elfcore_add_notes(&tail, process);
	notes_len = tail.len;
	buffer_align(&tail, sizeof(uint64_t));
	phdrs = tail.len;

	notes = (Elf64_Phdr){
		.p_type = PT_NOTE,
		.p_offset = tail_offset,
		.p_filesz = notes_len,
		.p_align = 4,
	};
	buffer_append(&tail, &notes, sizeof(notes));
	n_phdrs = 1 + elfcore_add_loads(&tail, process, sorted, n);
	fill_header((Elf64_Ehdr *)frame->head, tail_offset + phdrs, n_phdrs,
		    &tail, tail_offset);
	if (tail.failed)
		return -ENOMEM;
	frame->tail_len = tail.len;
	frame->tail = steal_ptr(tail.data);
	return 0;
}

int elfcore_build(const struct image_process *process,
		  const struct image_region *regions, size_t n,
		  uint64_t tail_offset, struct image_frame *frame)
{
	_cleanup_free_ const struct image_region **sorted =
		sort_regions(regions, n);
	int r;

	*frame = (struct image_frame){};
	if (!has_registers(process))
		return -EINVAL;
	frame->head = calloc(1, PAGE_SIZE);
	if (!sorted || !frame->head)
		return -ENOMEM;
	r = fill_frame(process, sorted, n, tail_offset, frame);
	if (r)
		image_frame_deinit(frame);
	return r;
}
