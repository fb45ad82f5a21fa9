/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <getopt.h>
#include <stdio.h>

#include "base/text.h"
#include "flow/confined.h"
#include "image/reader.h"

static const struct option long_options[] = {
	COMMON_LONG_OPTIONS,
	{},
};

static int run(int argc, char **argv)
{
	_cleanup_image_ struct image *image = NULL;
	struct common_options common = {};
	const char *dir;
	int option, r = 0;

	while (!r && (option = getopt_long(argc, argv, ":", long_options,
					   NULL)) != -1)
		r = common_option(&common, option, &cmd_verify, argv);
	if (!r)
		r = require_arguments(&cmd_verify, argc, 1,
				      "the image directory is missing");
	if (r)
		return r;

	dir = argv[optind];
	r = confine_to_image(dir);
	if (!r)
		r = image_open(&image, dir);
	if (!r)
		r = image_verify(image);
	if (r)
		return r;
	if (common.json)
		return print_json(
			json_pack("{s:b, s:I, s:o}", "ok", 1, "data_pages",
				  (json_int_t)image->stats.pages_data, "unsafe",
				  texts_to_json(image->inventory.unsafe,
						image->inventory.n_unsafe)));
	if (common.quiet)
		return 0;
	printf("%s: whole, every checksum is right\n", dir);
	for (size_t i = 0; i < image->inventory.n_unsafe; i++)
		printf("UNSAFE     %s\n",
		       text_make_printable(image->inventory.unsafe[i]));
	return 0;
}

const struct verb cmd_verify = {
	.name = "verify",
	.summary = "check every checksum and record of an image",
	.usage =
		"usage: snapuffd verify DIR [options]\n"
		"\n"
		"Reads all of an image and checks every record and every page against its\n"
		"checksum. Exit code 1 on the first that is wrong, which is named.\n"
		"\n" COMMON_USAGE "\n"
		"example: snapuffd verify /var/backups/vm1\n",
	.run = run,
};
