/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Constants of the image directory; Documentation/image-format.md describes
 * it. A reader refuses a version that is newer than its own.
 */

#define IMAGE_VERSION 1

/* First four bytes of each record file, little-endian. */
#define IMAGE_MAGIC_INVENTORY 0x56495553 /* "SUIV" */
#define IMAGE_MAGIC_REGIONS   0x47525553 /* "SURG" */
#define IMAGE_MAGIC_PAGEMAP   0x4d505553 /* "SUPM" */
#define IMAGE_MAGIC_MACHINE   0x434d5553 /* "SUMC" */
#define IMAGE_MAGIC_STATS     0x54535553 /* "SUST" */
#define IMAGE_MAGIC_PROCESS   0x52505553 /* "SUPR" */
#define IMAGE_MAGIC_MAPPINGS  0x414d5553 /* "SUMA" */
#define IMAGE_MAGIC_THREADS   0x48545553 /* "SUTH" */

#define IMAGE_INVENTORY	   "inventory.img"
#define IMAGE_REGIONS	   "regions.img"
#define IMAGE_PAGEMAP	   "pagemap.img"
#define IMAGE_MACHINE	   "machine.img"
#define IMAGE_STATS	   "stats.img"
#define IMAGE_PROCESS	   "process.img"
#define IMAGE_MAPPINGS	   "mappings.img"
#define IMAGE_THREADS	   "threads.img"
#define IMAGE_DEVICE_STATE "device.state"
#define IMAGE_PAGES_SUFFIX ".pages"
/* All regions of a process, behind one page for the ELF header. */
#define IMAGE_CORE "memory.core"

/* All page numbers in an image count pages of this size. */
#define IMAGE_PAGE_SIZE 4096

#define IMAGE_RUNS_PER_MESSAGE 4096

/* The longest run: what a reader needs as a buffer to check one. */
#define IMAGE_RUN_MAX_PAGES 2048
