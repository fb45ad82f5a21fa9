/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "process/files.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/io.h"

/* More of a file than its program headers and their notes are not looked at. */
#define MAX_PHDRS 128
#define MAX_NOTES (64 * KIB)

/* A build id is 16 or 20 bytes; what is longer an image may not say. */
#define MAX_BUILD_ID 64

static void look_at(struct mapped_file *file)
{
	unsigned char ident[SELFMAG];
	struct statfs fs;

	if (fstatfs(file->fd, &fs) == 0) {
		file->is_memory = fs.f_type == TMPFS_MAGIC ||
				  fs.f_type == HUGETLBFS_MAGIC;
		if (fs.f_type == HUGETLBFS_MAGIC)
			file->page_size = (uint64_t)fs.f_bsize;
	}
	if (!file->is_memory)
		file->is_elf =
			!io_pread_full(file->fd, ident, sizeof(ident), 0) &&
			!memcmp(ident, ELFMAG, SELFMAG);
}

struct mapped_file *mapped_files_get(struct mapped_files *files,
				     const struct target *target,
				     const struct proc_map *map)
{
	struct mapped_file *list;

	for (size_t i = files->n_files; i-- > 0;)
		if (files->files[i].dev == map->dev &&
		    files->files[i].inode == map->inode)
			return &files->files[i];

	list = reallocarray(files->files, files->n_files + 1, sizeof(*list));
	if (!list)
		return NULL;
	files->files = list;
	list[files->n_files] = (struct mapped_file){
		.dev = map->dev,
		.inode = map->inode,
		.fd = target_try_open_mapped_file(target, map),
		.page_size = PAGE_SIZE,
	};
	if (list[files->n_files].fd >= 0)
		look_at(&list[files->n_files]);
	return &list[files->n_files++];
}

static char *to_hex(const uint8_t *bytes, size_t len)
{
	char *text = malloc(len * 2 + 1);

	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i++)
		snprintf(text + i * 2, 3, "%02x", bytes[i]);
	text[len * 2] = '\0';
	return text;
}

/* elf(5), "Notes": name and descriptor are padded to 4 bytes. */
static char *find_build_id(const uint8_t *notes, size_t len)
{
	size_t at = 0;

	while (len - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		size_t name, desc, end;

		memcpy(&note, notes + at, sizeof(note));
		name = at + sizeof(note);
		if (note.n_namesz > len || note.n_descsz > len)
			return NULL;
		desc = name + ROUND_UP(note.n_namesz, 4);
		end = desc + ROUND_UP(note.n_descsz, 4);
		if (end > len)
			return NULL;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
		    note.n_descsz && note.n_descsz <= MAX_BUILD_ID &&
		    !memcmp(notes + name, ELF_NOTE_GNU, 4))
			return to_hex(notes + desc, note.n_descsz);
		at = end;
	}
	return NULL;
}

static char *read_build_id(int fd)
{
	_cleanup_free_ uint8_t *notes = malloc(MAX_NOTES);
	Elf64_Phdr phdrs[MAX_PHDRS];
	Elf64_Ehdr ehdr;
	char *id = NULL;

	if (!notes || io_pread_full(fd, &ehdr, sizeof(ehdr), 0) ||
	    ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
	    ehdr.e_phentsize != sizeof(*phdrs) || ehdr.e_phnum > MAX_PHDRS ||
	    io_pread_full(fd, phdrs, ehdr.e_phnum * sizeof(*phdrs),
			  ehdr.e_phoff))
		return NULL;
	for (size_t i = 0; !id && i < ehdr.e_phnum; i++)
		if (phdrs[i].p_type == PT_NOTE &&
		    phdrs[i].p_filesz <= MAX_NOTES &&
		    !io_pread_full(fd, notes, phdrs[i].p_filesz,
				   phdrs[i].p_offset))
			id = find_build_id(notes, phdrs[i].p_filesz);
	return id;
}

const char *mapped_file_build_id(struct mapped_file *file)
{
	if (!file->know_build_id && file->is_elf)
		file->build_id = read_build_id(file->fd);
	file->know_build_id = true;
	return file->build_id;
}

void mapped_files_deinit(struct mapped_files *files)
{
	for (size_t i = 0; i < files->n_files; i++) {
		close_fd(&files->files[i].fd);
		free(files->files[i].build_id);
	}
	free(files->files);
	*files = (struct mapped_files){};
}
