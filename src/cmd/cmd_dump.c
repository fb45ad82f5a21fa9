/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "cmd/dump_parse.h"
#include "cmd/front.h"
#include "cmd/progress.h"
#include "flow/dump.h"
#include "sys/pidlist.h"

#define RETRIES	    2u
#define RETRIES_MAX 100u

#define MAX_PAUSE_MAX_MS 60000u

#define MAX_STALL_MS	 2000u
#define MAX_STALL_MAX_MS 600000u

/* For the command that runs while the VM stands. */
#define COMMAND_TIMEOUT_S     10u
#define COMMAND_TIMEOUT_MAX_S 3600u

enum {
	OPT_PID = OPT_FIRST,
	OPT_OUT,
	OPT_AS,
	OPT_FORMAT,
	OPT_QMP,
	OPT_DOMAIN,
	OPT_CONNECT,
	OPT_BUFFER,
	OPT_GRANULE,
	OPT_RATE_LIMIT,
	OPT_DISKS,
	OPT_EXEC_FROZEN,
	OPT_EXEC_FROZEN_TIMEOUT,
	OPT_TREE,
	OPT_FREEZE,
	OPT_ALL,
	OPT_RETRIES,
	OPT_HOLD_UNMAPS,
	OPT_MAX_PAUSE,
	OPT_MAX_STALL,
	OPT_WRITERS,
	OPT_UNSAFE,
	OPT_PROGRESS,
	OPT_NO_IO_URING,
	OPT_NO_DIRECT,
};

static const struct option long_options[] = {
	{ "pid", required_argument, NULL, OPT_PID },
	{ "out", required_argument, NULL, OPT_OUT },
	{ "as", required_argument, NULL, OPT_AS },
	{ "format", required_argument, NULL, OPT_FORMAT },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "domain", required_argument, NULL, OPT_DOMAIN },
	{ "connect", required_argument, NULL, OPT_CONNECT },
	{ "buffer", required_argument, NULL, OPT_BUFFER },
	{ "granule", required_argument, NULL, OPT_GRANULE },
	{ "rate-limit", required_argument, NULL, OPT_RATE_LIMIT },
	{ "disks", required_argument, NULL, OPT_DISKS },
	{ "exec-frozen", required_argument, NULL, OPT_EXEC_FROZEN },
	{ "exec-frozen-timeout", required_argument, NULL,
	  OPT_EXEC_FROZEN_TIMEOUT },
	{ "tree", no_argument, NULL, OPT_TREE },
	{ "freeze", required_argument, NULL, OPT_FREEZE },
	{ "all", no_argument, NULL, OPT_ALL },
	{ "retries", required_argument, NULL, OPT_RETRIES },
	{ "hold-unmaps", required_argument, NULL, OPT_HOLD_UNMAPS },
	{ "max-pause", required_argument, NULL, OPT_MAX_PAUSE },
	{ "max-stall", required_argument, NULL, OPT_MAX_STALL },
	{ "writers", required_argument, NULL, OPT_WRITERS },
	{ "unsafe", no_argument, NULL, OPT_UNSAFE },
	{ "progress", required_argument, NULL, OPT_PROGRESS },
	{ "no-io-uring", no_argument, NULL, OPT_NO_IO_URING },
	{ "no-direct", no_argument, NULL, OPT_NO_DIRECT },
	COMMON_LONG_OPTIONS,
	{},
};

static int check_options(const struct dump_options *options,
			 const struct common_options *common)
{
	int r = check_domain_options(&cmd_dump, options->domain,
				     options->connect,
				     options->qmp || options->kind);

	if (r)
		return r;
	if ((!options->pid && !options->domain) || !options->out ||
	    !*options->out) {
		log_error(
			"dump: --pid or --domain, and --out are needed; see snapuffd dump --help");
		return RESULT_USAGE;
	}
	if (options->tree && options->format != DUMP_IMAGE) {
		log_error("dump: --tree makes images, one for each process");
		return RESULT_USAGE;
	}
	if (strcmp(options->out, "-"))
		return 0;
	if (options->format == DUMP_IMAGE) {
		log_error(
			"dump: --out -: an image is a directory; a stream is had with --format qemu or core");
		return RESULT_USAGE;
	}
	return require_stdout(&cmd_dump, common);
}

/* On stderr where stdout is the snapshot. */
static void print_summary(const struct dump_options *options,
			  const struct image_stats *stats)
{
	FILE *to = strcmp(options->out, "-") ? stdout : stderr;

	if (options->format == DUMP_IMAGE)
		fprintf(to, "image      %s\n", options->out);
	else
		fprintf(to, "%s %s\n",
			options->format == DUMP_CORE ? "core      "
						     : "stream    ",
			to == stdout ? options->out : "stdout");
	stats_print(to, stats);
}

static int print_report(const struct dump_options *options,
			const struct common_options *common,
			const struct dump_report *report)
{
	json_t *object;

	if (!common->json) {
		if (!common->quiet)
			print_summary(options, &report->stats);
		return 0;
	}
	object = stats_to_json(&report->stats);
	json_object_set_new(object, "kind",
			    json_string(report->kind == IMAGE_KIND_QEMU
						? "qemu"
						: "process"));
	json_object_set_new(object, "complete", json_true());
	json_object_set_new(
		object, "unsafe",
		texts_to_json(report->unsafe.items, report->unsafe.n_items));
	return print_json(object);
}

static int dump(struct dump_options *options,
		const struct common_options *common, struct progress *progress)
{
	struct dump_report report;
	int r;

	if (progress_wanted(progress, common->quiet)) {
		options->progress = progress_show;
		options->progress_opaque = progress;
	}
	r = flow_dump(options, &report);
	progress_end(progress);
	if (!r)
		r = print_report(options, common, &report);
	dump_report_deinit(&report);
	return r;
}

/* Each once. */
static int add_pid(struct pid_list *pids, const char *text)
{
	pid_t pid;
	int r = parse_pid(text, &pid);

	if (r || pid_is_in(pid, pids->pids, pids->n))
		return r;
	if (pid == getpid()) {
		log_error("pid %d: is snapuffd itself", pid);
		return RESULT_UNSUPPORTED;
	}
	return pid_list_append(pids, pid);
}

/* The first is the target, unless that is a domain. */
static void take_pids(struct dump_options *options, const struct pid_list *pids)
{
	size_t n_targets = !options->domain && pids->n;

	if (!pids->n)
		return;
	options->pid = n_targets ? pids->pids[0] : 0;
	options->also = pids->pids + n_targets;
	options->n_also = pids->n - n_targets;
}

static int run(int argc, char **argv)
{
	struct progress progress = {};
	struct dump_options options = {
		.storage.command_timeout_s = COMMAND_TIMEOUT_S,
		.retries = RETRIES,
		.max_stall_ns = MAX_STALL_MS * NS_PER_MS,
	};
	struct common_options common = {};
	struct pid_list pids = {};
	int option, r = 0;

	while (!r && (option = getopt_long(argc, argv, ":", long_options,
					   NULL)) != -1) {
		switch (option) {
		case OPT_PID:
			r = add_pid(&pids, optarg);
			break;
		case OPT_OUT:
			options.out = optarg;
			break;
		case OPT_AS:
			r = dump_parse_kind(optarg, &options.kind);
			break;
		case OPT_FORMAT:
			r = dump_parse_format(optarg, &options.format);
			break;
		case OPT_QMP:
			options.qmp = optarg;
			break;
		case OPT_DOMAIN:
			options.domain = optarg;
			break;
		case OPT_CONNECT:
			options.connect = optarg;
			break;
		case OPT_BUFFER:
			r = parse_size("--buffer", optarg,
				       &options.buffer_bytes);
			break;
		case OPT_GRANULE:
			r = dump_parse_granule(optarg, &options.granule_bytes);
			break;
		case OPT_RATE_LIMIT:
			r = dump_parse_rate(optarg, &options.writer.rate);
			break;
		case OPT_DISKS:
			r = dump_parse_disks(optarg, &options.storage);
			break;
		case OPT_EXEC_FROZEN:
			options.storage.command = optarg;
			break;
		case OPT_EXEC_FROZEN_TIMEOUT:
			r = dump_parse_number(
				"--exec-frozen-timeout", optarg, 1,
				COMMAND_TIMEOUT_MAX_S,
				&options.storage.command_timeout_s);
			break;
		case OPT_TREE:
			options.tree = true;
			break;
		case OPT_FREEZE:
			r = dump_parse_freeze(optarg, &options.by_cgroup);
			break;
		case OPT_ALL:
			options.all = true;
			break;
		case OPT_RETRIES:
			r = dump_parse_number("--retries", optarg, 0,
					      RETRIES_MAX, &options.retries);
			break;
		case OPT_HOLD_UNMAPS:
			r = dump_parse_hold(optarg, &options.hold);
			break;
		case OPT_MAX_PAUSE:
			r = dump_parse_ms("--max-pause", optarg, 1,
					  MAX_PAUSE_MAX_MS,
					  &options.max_pause_ns);
			break;
		case OPT_MAX_STALL:
			r = dump_parse_stall(optarg, MAX_STALL_MAX_MS,
					     &options.max_stall_ns);
			break;
		case OPT_WRITERS:
			r = dump_parse_writers(optarg, &options.writers);
			break;
		case OPT_UNSAFE:
			options.unsafe = true;
			break;
		case OPT_PROGRESS:
			r = progress_parse(&progress, optarg);
			break;
		case OPT_NO_IO_URING:
			options.writer.no_uring = true;
			break;
		case OPT_NO_DIRECT:
			options.writer.no_direct = true;
			break;
		default:
			r = common_option(&common, option, &cmd_dump, argv);
		}
	}
	take_pids(&options, &pids);
	if (!r)
		r = require_arguments(&cmd_dump, argc, 0, "");
	if (!r)
		r = check_options(&options, &common);
	if (!r && !front_wait(&r))
		r = dump(&options, &common, &progress);
	free(pids.pids);
	return r;
}

const struct verb cmd_dump = {
	.name = "dump",
	.summary = "snapshot a running process into a directory or stream",
	.usage =
		"usage: snapuffd dump --pid N --out DIR [options]\n"
		"       snapuffd dump --domain NAME --out DIR [options]\n"
		"       snapuffd dump --pid N --out F --format qemu|core [options]\n"
		"\n"
		"Takes the memory of a process, and the device state of a QEMU or the\n"
		"registers of all threads of any other program, as they are at one instant,\n"
		"while it runs on, and writes them to DIR or F, which must not exist.\n"
		"\n"
		"  --pid N          the process; more than once: of a VM, who else writes to its\n"
		"                   RAM; else, dumped at the same instant, as by --tree\n"
		"  --out DIR        the image directory to make\n"
		"  --as KIND        qemu or process, instead of telling by the program\n"
		"  --writers HOW    other processes that may write to the memory: refuse (the\n"
		"                   default of a VM), or auto: hold back what they write, too\n"
		"  --unsafe         dump although something may write unseen; the image says so\n"
		"  --buffer SIZE    memory for pages on their way to the disk or reader, at\n"
		"                   least 16M (default: a quarter of what is available)\n"
		"  --granule SIZE   what one write fault captures where memory is not in\n"
		"                   huge pages, 4K to 2M (default: 256K)\n"
		"  --rate-limit N   write at most N MiB a second\n"
		"  --max-pause MS   give up if it would stand for longer (default: a process\n"
		"                   1000, a VM three quarters of --max-stall)\n"
		"  --max-stall MS   give up if a thread of it has to wait for longer, since a\n"
		"                   disk, a reader or snapuffd hangs (default: 2000; 0: never)\n"
		"  --progress HOW   auto (a line, on a terminal), json (an object each 250 ms\n"
		"                   on stderr), or none\n"
		"  --no-io-uring    write with threads even where io_uring is allowed\n"
		"  --no-direct      write through the page cache\n" COMMON_USAGE
		"\n"
		"of a QEMU:\n"
		"  --format qemu    no image, but the stream that another QEMU takes with\n"
		"                   -incoming; --out - sends it to stdout\n"
		"  --qmp PATH       its QMP socket, instead of searching for it\n"
		"  --domain NAME    a domain of libvirt, by name or UUID, instead of --pid: its\n"
		"                   monitor is libvirt's, and is used through it\n"
		"  --connect URI    its libvirt (default: qemu:///system)\n"
		"  --disks overlay[:DIR]\n"
		"                   the disks of the same instant: at it, each writable disk\n"
		"                   goes on in a new qcow2 file, in DIR or beside the old\n"
		"                   one, which stays as it was\n"
		"  --exec-frozen COMMAND\n"
		"                   run this in the pause, to snapshot volumes; if it fails,\n"
		"                   so does the dump\n"
		"  --exec-frozen-timeout SECONDS\n"
		"                   how long it may take (default: 10)\n"
		"\n"
		"of a process:\n"
		"  --format core    no image, but an ELF core, as the kernel writes it, for\n"
		"                   gdb and others; --out - sends it to stdout\n"
		"  --tree           its descendants as well, at the same instant; DIR gets an\n"
		"                   image for each, named by its pid\n"
		"  --all            what a core dump leaves out as well (files that are only\n"
		"                   read, MADV_DONTDUMP, coredump_filter)\n"
		"  --freeze HOW     ptrace, or cgroup: by one write, where the processes have\n"
		"                   a cgroup (v2) of their own\n"
		"  --hold-unmaps H  whether calls that unmap memory wait until it is saved:\n"
		"                   yes, no, or auto: when memory was lost without\n"
		"  --retries N      start over when memory was lost all the same (default: 2)\n"
		"\n"
		"example: snapuffd dump --pid $(pidof qemu-system-x86_64) --out /var/backups/vm1\n"
		"         snapuffd dump --domain vm1 --out /var/backups/vm1\n"
		"         snapuffd dump --pid 412 --out /var/backups/vm1 --disks overlay\n"
		"         snapuffd dump --pid 412 --out - --format qemu | ssh host 'cat >vm1.mig'\n"
		"         snapuffd dump --pid $(pidof redis-server) --format core --out core\n",
	.run = run,
};
