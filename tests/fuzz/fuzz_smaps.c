/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include "sys/smaps.h"

/* /proc/PID/smaps. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	struct smap *smaps;
	size_t n;

	fuzz_put("smaps", part);
	if (smaps_read(fuzz_dir(), &smaps, &n))
		return 0;
	fuzz_require(n);
	for (size_t i = 0; i < n; i++)
		fuzz_require(smaps[i].range.start < smaps[i].range.end);
	smaps_find(smaps, n, smaps[0].range.start);
	smaps_find(smaps, n, UINT64_MAX);
	free(smaps);
	return 0;
}
