/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/restore_domain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/clone_dir.h"
#include "flow/clone_disks.h"
#include "flow/confined.h"
#include "flow/convert.h"
#include "flow/image_summary.h"
#include "flow/imagewalk.h"
#include "flow/output.h"
#include "flow/restore.h"
#include "image/reader.h"
#include "qemu/clone.h"
#include "qemu/domain_xml.h"
#include "qemu/libvirt_clone.h"
#include "qemu/libvirt_save.h"

/* Where libvirt's own disks are, and whoever runs domains may pass through. */
#define PARENT "/var/lib/libvirt/images"

/* The RAM of a machine that libvirt gives no other. */
#define LIBVIRT_RAM "pc.ram"
/* Ours, which is to take its place: libvirt's object is there as well, but
 * nothing uses it. */
#define RAM_ID	    "snapuffd-ram"

struct clone {
	const struct image *image;
	struct domain_xml *xml;
	struct domain_host host;
	struct clone_dir dir;
	size_t ram; /* the block that is mapped */
	bool eager;
};

static void clone_deinit(struct clone *clone)
{
	domain_xml_free(clone->xml);
	clone_dir_deinit(&clone->dir);
}

#define _cleanup_clone_ _cleanup_(clone_deinit)

static int check_xml(const struct image *image)
{
	if (image->machine.domain_xml)
		return 0;
	log_error(
		"%s: has no XML of libvirt, for it was not dumped with --domain; without --domain, restore runs it outside of libvirt",
		image->path);
	return RESULT_FAILED;
}

/* It is part of a path, too. */
static int choose_name(struct domain_xml *xml, const char *wanted, char **name)
{
	_cleanup_free_ char *old = NULL;

	if (wanted) {
		*name = strdup(wanted);
	} else {
		old = domain_xml_get_name(xml);
		if (asprintf(name, "%s-clone", old ?: "domain") < 0)
			*name = NULL;
	}
	if (!*name)
		return -ENOMEM;
	if (**name && **name != '.' && !strchr(*name, '/'))
		return 0;
	log_error("--domain %s: is no name for a domain", *name);
	return RESULT_USAGE;
}

static int make_dir(struct clone *clone, const char *path, const char *name)
{
	_cleanup_free_ char *own = NULL;
	int r;

	if (!path && asprintf(&own, PARENT "/%s.snapuffd", name) < 0)
		return -ENOMEM;
	r = clone_dir_init(&clone->dir, path ?: own, false);
	if (r)
		return r;
	/* QEMU is another user, and has to find its files. */
	if (chmod(clone->dir.path, 0711))
		return log_errno(-errno, "%s: chmod: %m", clone->dir.path);
	return 0;
}

/* To whom the domain runs as, and nobody else. */
static int hand_over(const struct clone *clone, const char *path)
{
	if (chmod(path, 0600) || chown(path, clone->host.uid, clone->host.gid))
		return log_errno(-errno, "%s: giving it to the domain: %m",
				 path);
	return 0;
}

static int replace_disks(struct clone *clone, bool changed)
{
	const struct image_machine *machine = &clone->image->machine;

	for (size_t i = 0; i < machine->n_disks; i++) {
		_cleanup_free_ char *file = NULL, *overlay = NULL;
		int r;

		if (machine->disks[i].read_only)
			continue;
		r = clone_disk_make(clone->image, i, changed, clone->dir.path,
				    &file, &overlay);
		if (!r)
			r = hand_over(clone, overlay);
		if (!r)
			r = domain_xml_replace_disk(clone->xml, file, overlay);
		if (r == -ENOENT) {
			log_error("%s: disk %s is not in the domain's XML",
				  clone->image->path, file);
			return RESULT_FAILED;
		}
		if (r)
			return r;
	}
	return domain_xml_check_disks(clone->xml, clone->dir.path);
}

/* Why a copy of the pages cannot be its RAM, or NULL. */
static const char *find_hindrance(struct clone *clone)
{
	const struct image_machine *machine = &clone->image->machine;
	size_t n = 0;

	if (clone->host.confined)
		return "AppArmor or SELinux lets QEMU open nothing that libvirt does not know of";
	for (size_t i = 0; i < machine->n_blocks; i++)
		if (imagewalk_is_ram(&machine->blocks[i])) {
			clone->ram = i;
			n++;
		}
	if (n != 1 || machine->n_memory_devices ||
	    strcmp(machine->blocks[clone->ram].idstr, LIBVIRT_RAM) ||
	    !domain_xml_has_plain_ram(clone->xml))
		return "its memory is more than one private block";
	return NULL;
}

static void choose_ram(struct clone *clone, bool eager)
{
	const char *hindrance = eager ? NULL : find_hindrance(clone);

	clone->eager = eager || hindrance;
	if (hindrance)
		log_warning("%s: all RAM is read before the domain runs: %s",
			    clone->image->path, hindrance);
}

/* What a confined child makes of the image. */
struct part {
	const struct clone *clone;
	const char *xml;
	struct output output;
};

static int put_pages(void *opaque, const struct imagewalk_pages *pages)
{
	return output_put_pages(opaque, pages->first * PAGE_SIZE, pages);
}

/* In the child. */
static int write_ram(void *data)
{
	struct part *part = data;
	const struct clone *clone = part->clone;
	struct imagewalk walk = { put_pages, NULL, &part->output };
	_cleanup_image_ struct image *image = NULL;
	int region = clone->image->machine.blocks[clone->ram].region;
	int r = image_open(&image, clone->image->path);

	return r ? r : imagewalk_region(image, &image->regions[region], &walk);
}

/* In the child. */
static int write_save(void *data)
{
	struct part *part = data;
	const struct clone *clone = part->clone;
	struct savevm_sink sink = { output_append, &part->output };
	_cleanup_image_ struct image *image = NULL;
	int r = image_open(&image, clone->image->path);

	if (!r && !clone->eager) {
		struct image_ram_block *block =
			&image->machine.blocks[clone->ram];

		free(block->idstr);
		block->idstr = strdup(RAM_ID);
		r = block->idstr ? 0 : -ENOMEM;
	}
	if (!r)
		r = libvirt_save_begin(&sink, part->xml,
				       image->machine.running);
	return r ? r : convert_stream(image, clone->eager, &sink);
}

static int write_part(struct part *part, const char *path, uint64_t len,
		      int (*work)(void *))
{
	int r = output_open(&part->output, path);

	if (!r && ftruncate(part->output.fd, (off_t)len))
		r = log_errno(-errno, "%s: cannot size it: %m", path);
	if (!r)
		r = confined_run(part->clone->image->path, NULL, work, part);
	if (!r)
		r = output_finish(&part->output);
	output_discard(&part->output);
	return r;
}

/* The clone's own copy: QEMU opens it for writing, and a balloon punches holes
 * into it, which must not be the image's. */
static int map_ram(struct clone *clone)
{
	const struct image_ram_block *block =
		&clone->image->machine.blocks[clone->ram];
	struct part part = { .clone = clone, .output = OUTPUT_INIT };
	_cleanup_free_ char *path = NULL, *object = NULL;
	int r;

	if (asprintf(&path, "%s/ram", clone->dir.path) < 0)
		return -ENOMEM;
	r = write_part(&part, path, block->used_length, write_ram);
	if (!r)
		r = hand_over(clone, path);
	if (r)
		return r;
	object = clone_print_ram(RAM_ID, block->used_length, path);
	if (!object)
		return -ENOMEM;
	r = domain_xml_add_argument(clone->xml, "-object");
	if (!r)
		r = domain_xml_add_argument(clone->xml, object);
	if (!r)
		r = domain_xml_add_argument(clone->xml, "-machine");
	if (!r)
		r = domain_xml_add_argument(clone->xml,
					    "memory-backend=" RAM_ID);
	return r;
}

/* The definition that stays has RAM as the domain's: without the arguments. */
static int start(struct clone *clone, const char *connect,
		 struct restore_domain_report *report)
{
	_cleanup_free_ char *definition = domain_xml_print(clone->xml);
	_cleanup_free_ char *xml = NULL, *path = NULL;
	struct part part = { .clone = clone, .output = OUTPUT_INIT };
	uint64_t asked_ns;
	int r;

	if (!definition || asprintf(&path, "%s/save", clone->dir.path) < 0)
		return -ENOMEM;
	r = clone->eager ? 0 : map_ram(clone);
	if (r)
		return r;
	part.xml = xml = domain_xml_print(clone->xml);
	if (!xml)
		return -ENOMEM;
	r = write_part(&part, path, 0, write_save);
	if (r)
		return r;
	asked_ns = now_ns();
	r = libvirt_clone_start(connect, definition, path);
	report->started_ns = now_ns() - asked_ns;
	/* It has been read. */
	unlink(path);
	return r;
}

static void warn_of_addresses(struct clone *clone)
{
	if (domain_xml_count_interfaces(clone->xml))
		log_warning(
			"%s: the clone's guest still has the MAC and IP addresses of the first one; set its links down (virsh domif-setlink) where both would meet",
			clone->image->path);
}

static int restore(struct clone *clone,
		   const struct restore_domain_options *options,
		   struct restore_domain_report *report)
{
	int r = check_xml(clone->image);

	if (!r)
		r = domain_xml_parse(clone->image->machine.domain_xml,
				     clone->image->path, &clone->xml);
	if (!r)
		r = choose_name(clone->xml, options->name, &report->name);
	if (!r)
		r = libvirt_clone_ask(options->connect, report->name,
				      &clone->host);
	if (!r)
		r = domain_xml_rename(clone->xml, report->name);
	if (!r)
		r = make_dir(clone, options->dir, report->name);
	if (!r)
		r = domain_xml_detach(clone->xml, clone->dir.path);
	if (!r)
		r = replace_disks(clone, options->changed_disks);
	if (r)
		return r;
	choose_ram(clone, options->eager);
	warn_of_addresses(clone);
	r = start(clone, options->connect, report);
	if (r)
		return r;
	report->dir = strdup(clone->dir.path);
	report->running = clone->image->machine.running;
	report->eager = clone->eager;
	clone_dir_keep(&clone->dir);
	return report->dir ? 0 : -ENOMEM;
}

int flow_restore_domain(const struct restore_domain_options *options,
			struct restore_domain_report *report)
{
	_cleanup_image_ struct image *image = NULL;
	_cleanup_clone_ struct clone clone = {};
	uint64_t began_ns = now_ns();
	int r;

	*report = (struct restore_domain_report){};
	r = image_summary_open(&image, options->image);
	if (!r)
		r = restore_check_image(image);
	if (r)
		return r;
	clone.image = image;
	r = restore(&clone, options, report);
	if (r == -EINTR)
		log_error("%s: interrupted; nothing was kept", options->image);
	report->took_ns = now_ns() - began_ns;
	return r;
}

void restore_domain_report_deinit(struct restore_domain_report *report)
{
	free(report->name);
	free(report->dir);
	*report = (struct restore_domain_report){};
}
