/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/setup.h"

#include <assert.h>
#include <time.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/caps.h"
#include "sys/memlimit.h"
#include "sys/probe.h"
#include "sys/procfs.h"
#include "sys/uffd.h"

#define BUFFER_MIN   (64 * MIB)
#define BUFFER_SHARE 4 /* of what is available */

/* Of what a cgroup leaves: whoever takes all of that is killed. */
#define BUFFER_MIN_LIMITED   (16 * MIB)
#define BUFFER_SHARE_LIMITED 2

int setup_check_kernel(void)
{
	struct probe_protection protection;
	uint64_t known = 0;
	int r = uffd_query_features(&known);

	if (r)
		return log_errno(r, "userfaultfd: %m");
	if (!(known & UFFD_FEATURE_PAGEFAULT_FLAG_WP)) {
		log_error(
			"this kernel's userfaultfd cannot write-protect; Linux 5.13 or newer is needed");
		return RESULT_UNSUPPORTED;
	}
	probe_protection(&protection);
	if (!protection.shows) {
		log_error(
			"this kernel does not show in /proc/PID/pagemap what userfaultfd write-protects; Linux 5.13 or newer is needed");
		return RESULT_UNSUPPORTED;
	}
	return 0;
}

int setup_choose_features(uint64_t also, uint64_t *features)
{
	uint64_t wanted = also | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			  UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
			  UFFD_FEATURE_EVENT_REMAP;
	uint64_t known = 0;
	int r = INJECT("probe-features") ?: uffd_query_features(&known);

	if (r)
		return log_errno(r, "userfaultfd: %m");
	*features = wanted | (known & (UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
				       UFFD_FEATURE_WP_UNPOPULATED));
	return 0;
}

uint64_t setup_choose_buffer(uint64_t bytes_all)
{
	uint64_t available = 0, limit;

	procfs_read_meminfo("MemAvailable", &available);
	limit = max_u64(BUFFER_MIN_LIMITED,
			memlimit_headroom() / BUFFER_SHARE_LIMITED);
	/* All memory, and a reserve as large as half of it, is enough. */
	return min_u64(limit,
		       max_u64(BUFFER_MIN, min_u64(available / BUFFER_SHARE,
						   bytes_all + bytes_all / 2)));
}

int setup_drop_capabilities(const cap_value_t *also, size_t n_also)
{
	/* Who may write everywhere needs no other way to read. */
	cap_value_t keep[3 + SETUP_ALSO_MAX] = {
		CAP_SYS_PTRACE,
		CAP_SYS_NICE,
		caps_have(CAP_DAC_OVERRIDE) ? CAP_DAC_OVERRIDE
					    : CAP_DAC_READ_SEARCH,
	};
	int r;

	assert(n_also <= SETUP_ALSO_MAX);
	for (size_t i = 0; i < n_also; i++)
		keep[3 + i] = also[i];
	r = INJECT("infect-drop-caps") ?: caps_reduce(keep, 3 + n_also);
	return r ? log_errno(r, "cannot drop capabilities: %m") : 0;
}

void setup_fill_stats(struct image_stats *stats, struct capture *capture)
{
	struct capture_stats figures;

	capture_get_stats(capture, &figures);
	stats->pages_total = figures.pages_total;
	stats->pages_fault = figures.pages_fault;
	stats->peak_buffer_bytes = figures.peak_buffer_bytes;
	stats->noted_pages = figures.noted_pages;
	stats->rearmed_pages = figures.rearmed_pages;
	stats->faults = figures.faults;
	stats->queue = figures.queue;
}

uint64_t setup_unix_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}
