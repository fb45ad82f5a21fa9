/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/vm_writers.h"

#include "flow/unsafe.h"

void vm_writers_found_deinit(struct vm_writers_found *found)
{
	vm_strings_deinit(&found->dma);
	vm_strings_deinit(&found->backends);
	vm_strings_deinit(&found->others);
}

int vm_writers_find(struct vm_writers_found *found, struct writers *writers,
		    const struct writers_policy *policy,
		    const struct target *target, struct qmp *qmp,
		    const struct ram *ram)
{
	int r = vm_list_dma_writers(qmp, &found->dma);

	if (!r)
		r = writers_list_dma(target, &found->dma);
	if (!r)
		r = vm_list_backends(qmp, &found->backends);
	if (!r)
		r = ram_list_files(ram, writers);
	if (!r)
		r = writers_open(writers, policy, &target->pid, 1,
				 &found->others, &found->dma);
	return r;
}

int vm_writers_judge(const struct dump_options *options,
		     const struct target *target, struct qmp *qmp,
		     const struct ram *ram, struct writers *writers,
		     struct vm_strings *unsafe)
{
	const struct writers_policy policy = {
		.all = options->writers == DUMP_WRITERS_AUTO,
		.named = options->also,
		.n_named = options->n_also,
	};
	_cleanup_vm_writers_found_ struct vm_writers_found found = {};
	const struct vm_strings *all[] = { &found.dma, &found.others,
					   &found.backends };
	static const char *const way_out[] = {
		"nothing can hold that back; detach the device, or go on with --unsafe",
		"--writers auto holds them back as well, --unsafe goes on without",
		"that process was not found; go on with --unsafe",
	};
	int r = vm_writers_find(&found, writers, &policy, target, qmp, ram);

	/* The other half of a device is among the processes, told of or
	 * covered. */
	if (found.others.n_items || writers->n_writers)
		vm_strings_deinit(&found.backends);
	for (size_t i = 0; !r && i < 3; i++)
		r = options->unsafe
			    ? unsafe_accept(target->pid, all[i], unsafe)
			    : unsafe_refuse(target->pid, all[i], way_out[i]);
	return r;
}
