/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "process/files.h"

/* The ELF file that a process has mapped: its build id. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static int fd = -1;
	struct mapped_file file = { .is_elf = true };
	const char *id;

	if (fd < 0)
		fd = memfd_create("fuzz", MFD_CLOEXEC);
	fuzz_require(fd >= 0 && !ftruncate(fd, 0));
	fuzz_require(pwrite(fd, data, len, 0) == (ssize_t)len);
	file.fd = fd;
	id = mapped_file_build_id(&file);
	/* As a reader of the image wants it. */
	if (id)
		fuzz_require(*id && strlen(id) <= 128);
	free(file.build_id);
	return 0;
}
