/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Command lines: parsing and printing, and what becomes of them for a second
 * VM.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "qemu/clone.h"
#include "qemu/detach.h"

#define MAX_ARGS 32

static void init(struct cmdline *line, const char *const *args)
{
	char *argv[MAX_ARGS] = { "qemu" };
	size_t n = 1;

	for (; args[n - 1]; n++)
		argv[n] = (char *)args[n - 1];
	assert_int_equal(cmdline_init(line, argv, n), 0);
}

#define LINE(line, ...) init(line, (const char *const[]){ __VA_ARGS__, NULL })

static void expect(const struct cmdline *line, const char *const *args)
{
	char **argv = cmdline_to_argv(line);
	size_t i;

	assert_non_null(argv);
	for (i = 0; args[i] && argv[i + 1]; i++)
		assert_string_equal(argv[i + 1], args[i]);
	assert_null(args[i]);
	assert_null(argv[i + 1]);
	free(argv);
}

#define EXPECT(line, ...) \
	expect(line, (const char *const[]){ __VA_ARGS__, NULL })

static void test_cmdline(void **state)
{
	char *const lacks_value[] = { "qemu", "-S", "-m" };
	struct cmdline line;
	char *text;

	(void)state;
	LINE(&line, "--nographic", "-m", "1G", "disk.img", "-name", "it's");
	EXPECT(&line, "-nographic", "-m", "1G", "-hda", "disk.img", "-name",
	       "it's");
	assert_string_equal(cmdline_get(&line, "m"), "1G");
	assert_string_equal(cmdline_get(&line, "nographic"), "");
	assert_null(cmdline_get(&line, "S"));
	cmdline_add_format(&line, "m", "%dG", 2);
	cmdline_remove_all(&line, "hda");
	text = cmdline_print(&line);
	assert_string_equal(text, "qemu \\\n  -nographic \\\n  -m 1G \\\n"
				  "  -name 'it'\\''s' \\\n  -m 2G");
	free(text);
	cmdline_deinit(&line);

	assert_int_equal(cmdline_init(&line, lacks_value, 3), -EINVAL);
	cmdline_deinit(&line);
	assert_int_equal(cmdline_init(&line, lacks_value, 0), -EINVAL);
	cmdline_deinit(&line);
}

static void detach(const char *const *args, const char *const *expected)
{
	struct cmdline line;

	init(&line, args);
	assert_int_equal(detach_cmdline(&line, "/run/c"), 0);
	expect(&line, expected);
	cmdline_deinit(&line);
}

#define L(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void test_detach_sockets(void **state)
{
	(void)state;
	detach(L("-qmp", "unix:/var/q.sock,server,nowait", "-monitor",
		 "unix:/var/peer", "-serial", "file:/var/log/s.log", "-serial",
		 "tcp::4444,server=on", "-nographic"),
	       L("-qmp", "unix:/run/c/q.sock,server,wait=off", "-monitor",
		 "null", "-serial", "file:/run/c/s.log", "-serial", "null",
		 "-nographic"));
	detach(L("-chardev", "socket,id=m,fd=22,server=on", "-mon",
		 "chardev=m,mode=control", "-chardev",
		 "socket,id=v,path=/a/peer", "-chardev",
		 "socket,id=n,host=::1,port=9,server=on", "-chardev",
		 "file,id=f,path=/var/f,append=on", "-chardev", "pty,id=p",
		 "-chardev", "spicevmc,id=s,name=vdagent", "-nographic"),
	       L("-chardev",
		 "socket,id=m,server=on,path=/run/c/m.sock,wait=off", "-mon",
		 "chardev=m,mode=control", "-chardev", "null,id=v", "-chardev",
		 "null,id=n", "-chardev", "file,id=f,path=/run/c/f,append=on",
		 "-chardev", "pty,id=p", "-chardev", "null,id=s",
		 "-nographic"));
}

static void test_detach_the_rest(void **state)
{
	(void)state;
	detach(L("-daemonize", "-S", "-pidfile", "/run/vm.pid", "-vnc", ":1",
		 "-incoming", "defer", "-gdb", "tcp::1", "-audiodev",
		 "pa,id=a,server=/x", "-no-reboot"),
	       L("-pidfile", "/run/c/vm.pid", "-audiodev", "none,id=a",
		 "-no-reboot", "-display", "none"));
	detach(L("-netdev", "user,id=u,hostfwd=tcp::2222-:22,net=10.0.0.0/8",
		 "-netdev",
		 "{\"type\":\"tap\",\"id\":\"t\",\"fd\":\"30\",\"vhost\":true,"
		 "\"vhostfd\":\"31\"}",
		 "-netdev", "bridge,id=b,br=br0", "-netdev",
		 "socket,id=s,listen=:1", "-nic", "none", "-nographic"),
	       L("-netdev", "user,id=u,net=10.0.0.0/8", "-netdev",
		 "tap,id=t,vhost=on,script=no,downscript=no", "-netdev",
		 "tap,id=b,script=no,downscript=no", "-netdev",
		 "user,id=s,restrict=on", "-nic", "none", "-nographic"));
}

static void test_detach_what_libvirt_hands_in(void **state)
{
	(void)state;
	detach(L("-add-fd", "set=0,fd=30,opaque=x", "-chardev",
		 "file,id=s0,path=/dev/fdset/0,append=on", "-object",
		 "{\"qom-type\":\"secret\",\"id\":\"k\",\"format\":\"raw\","
		 "\"file\":\"/nonexistent/k\"}",
		 "-object", "secret,id=l,file=/dev/null", "-nographic"),
	       L("-chardev", "file,id=s0,path=/run/c/s0,append=on", "-object",
		 "secret,id=k,data=00000000000000000000000000000000", "-object",
		 "secret,id=l,file=/dev/null", "-nographic"));
}

/* Neither the first VM's files nor one another's. */
static void test_detach_names(void **state)
{
	(void)state;
	detach(L("-serial", "mon:unix:/run/a/vm,server=on", "-qmp",
		 "unix:/run/b/vm,server=on", "-D", "/var/log/qemu.log",
		 "-serial", "mon:stdio", "-qtest", "unix:/q", "-object",
		 "filter-dump,id=f,netdev=n,file=/var/f.pcap", "-trace",
		 "enable=x,file=/var/t", "-nographic"),
	       L("-serial", "mon:unix:/run/c/vm,server=on,wait=off", "-qmp",
		 "unix:/run/c/1-vm,server=on,wait=off", "-D",
		 "/run/c/2-qemu.log", "-serial", "mon:stdio", "-object",
		 "filter-dump,id=f,netdev=n,file=/run/c/f.pcap", "-trace",
		 "x,file=/run/c/t", "-nographic"));
	detach(L("-netdev",
		 "{\"type\":\"tap\",\"id\":\"t\",\"fds\":\"30:31\","
		 "\"vhostfds\":\"32:33\"}",
		 "-netdev",
		 "{\"type\":\"user\",\"id\":\"u\",\"hostfwd\":[{\"str\":"
		 "\"tcp::1-:2\"}]}",
		 "-nographic"),
	       L("-netdev", "tap,id=t,queues=2,script=no,downscript=no",
		 "-netdev", "user,id=u", "-nographic"));
}

static void test_next_disk(void **state)
{
	struct cmdline line;
	size_t i = 0;
	char *file;

	(void)state;
	LINE(&line, "-drive", "file=/ro,readonly=on", "-cdrom", "/cd", "-drive",
	     "media=cdrom,file=/cd2", "-hda", "/a", "-blockdev",
	     "driver=file,node-name=p,filename=/b", "-blockdev",
	     "driver=qcow2,file=p", "-blockdev",
	     "driver=raw,file.driver=file,file.filename=/c,read-only=on");
	assert_int_equal(clone_next_disk(&line, &i, &file), 1);
	assert_string_equal(file, "/a");
	free(file);
	assert_int_equal(clone_next_disk(&line, &i, &file), 1);
	assert_string_equal(file, "/b");
	free(file);
	assert_int_equal(clone_next_disk(&line, &i, &file), 0);
	cmdline_deinit(&line);
}

static void test_detach_bad(void **state)
{
	struct cmdline line;

	(void)state;
	LINE(&line, "-readconfig", "/etc/vm.cfg");
	assert_int_equal(detach_cmdline(&line, "/r"), -EINVAL);
	cmdline_deinit(&line);
	LINE(&line, "-chardev", "{\"id\":");
	assert_int_equal(detach_cmdline(&line, "/r"), -EINVAL);
	cmdline_deinit(&line);
	LINE(&line, "-qmp", "unix:");
	assert_int_equal(detach_cmdline(&line, "/r"), -EINVAL);
	cmdline_deinit(&line);
}

static void test_machine(void **state)
{
	struct cmdline line;
	char *machine;
	int r;

	(void)state;
	LINE(&line, "-M", "q35", "-machine", "accel=kvm");
	machine = clone_get_machine(&line, &r);
	assert_string_equal(machine, "q35");
	free(machine);
	assert_int_equal(clone_set_machine(&line, "pc-q35-7.2"), 0);
	EXPECT(&line, "-M", "pc-q35-7.2", "-machine", "accel=kvm");
	cmdline_deinit(&line);

	LINE(&line, "-smp", "2");
	assert_null(clone_get_machine(&line, &r));
	assert_int_equal(r, 0);
	assert_int_equal(clone_set_machine(&line, "pc-q35-7.2"), 0);
	EXPECT(&line, "-smp", "2", "-machine", "pc-q35-7.2");
	cmdline_deinit(&line);
}

static void test_memory(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} cases[] = {
		{ "512", 512 * MIB },
		{ "size=2G,slots=2,maxmem=8G", 2 * GIB },
		{ "1048576k", GIB },
		{ "1g", GIB },
		{ "slots=2", 128 * MIB },
		{ "0", 0 },
		{ "-1", 0 },
		{ "1X", 0 },
		{ "99999999999T", 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cmdline line;
		uint64_t bytes;
		int r;

		LINE(&line, "-m", cases[i].text);
		r = clone_get_memory(&line, &bytes);
		assert_int_equal(r, cases[i].bytes ? 0 : -EINVAL);
		if (!r)
			assert_int_equal(bytes, cases[i].bytes);
		cmdline_deinit(&line);
	}
}

static void test_ram(void **state)
{
	struct cmdline line;

	(void)state;
	/* the machine's own */
	LINE(&line, "-machine", "pc", "-mem-path", "/dev/hugepages",
	     "-mem-prealloc");
	assert_int_equal(clone_back_ram(&line, "pc.ram", 4096, "/i/a,b.pages",
					CLONE_FILE_READ_ONLY),
			 0);
	EXPECT(&line, "-machine", "pc,memory-backend=pc.ram", "-object",
	       "memory-backend-file,id=pc.ram,size=4096,mem-path=/i/a,,b.pages,"
	       "share=off,x-use-canonical-path-for-ramblock-id=off,readonly=on,rom=off");
	cmdline_deinit(&line);

	/* objects, one of them named by its path */
	LINE(&line, "-object",
	     "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"m\",\"size\":1}",
	     "-object", "memory-backend-ram,id=n,size=1", "-object",
	     "iothread,id=pc.ram");
	assert_int_equal(
		clone_back_ram(&line, "m", 8192, "/i/m", CLONE_FILE_PRIVATE),
		0);
	assert_int_equal(clone_back_ram(&line, "/objects/n", 8192, "/i/n",
					CLONE_FILE_PRIVATE),
			 0);
	assert_int_equal(
		clone_back_ram(&line, "x", 8192, "/i/x", CLONE_FILE_PRIVATE),
		-ENOENT);
	EXPECT(&line, "-object",
	       "memory-backend-file,id=m,size=8192,mem-path=/i/m,share=off,"
	       "x-use-canonical-path-for-ramblock-id=off",
	       "-object",
	       "memory-backend-file,id=n,size=8192,mem-path=/i/n,share=off,"
	       "x-use-canonical-path-for-ramblock-id=on",
	       "-object", "iothread,id=pc.ram");
	assert_true(clone_has_id(&line, "n"));
	assert_false(clone_has_id(&line, "x"));
	cmdline_deinit(&line);
}

static void test_unshare(void **state)
{
	struct cmdline line;

	(void)state;
	LINE(&line, "-object",
	     "memory-backend-file,id=a,size=1G,share=on,mem-path=/dev/shm/vm",
	     "-object", "memory-backend-file,id=b,size=1G,mem-path=/tmp");
	assert_int_equal(clone_unshare_ram(&line), 0);
	EXPECT(&line, "-object", "memory-backend-ram,id=a,size=1G", "-object",
	       "memory-backend-file,id=b,size=1G,mem-path=/tmp");
	cmdline_deinit(&line);
}

static void test_disks(void **state)
{
	struct cmdline line;

	(void)state;
	LINE(&line, "-drive", "file=d.raw,if=virtio,format=raw", "-hdb",
	     "/vm/e.img", "-drive", "file=/other");
	assert_int_equal(clone_replace_disk(&line, "/vm", "/vm/d.raw", "/o/d"),
			 0);
	assert_int_equal(clone_replace_disk(&line, "/vm", "/vm/e.img", "/o/e"),
			 0);
	assert_int_equal(clone_replace_disk(&line, "/vm", "/vm/no", "/o/e"),
			 -ENOENT);
	EXPECT(&line, "-drive", "file=/o/d,if=virtio,format=qcow2", "-drive",
	       "index=1,media=disk,file=/o/e,format=qcow2", "-drive",
	       "file=/other");
	cmdline_deinit(&line);

	LINE(&line, "-blockdev",
	     "driver=raw,node-name=d,file.driver=host_device,file.filename=/vm/d",
	     "-blockdev",
	     "{\"driver\":\"file\",\"node-name\":\"p\",\"filename\":\"/vm/e\"}",
	     "-blockdev",
	     "{\"node-name\":\"f\",\"driver\":\"raw\",\"file\":\"p\","
	     "\"backing\":null}");
	assert_int_equal(clone_replace_disk(&line, "/", "/vm/d", "/o/d"), 0);
	assert_int_equal(clone_replace_disk(&line, "/", "/vm/e", "/o/e"), 0);
	EXPECT(&line, "-blockdev",
	       "qcow2,node-name=d,file.driver=file,file.filename=/o/d",
	       "-blockdev", "file,node-name=p,filename=/o/e", "-blockdev",
	       "qcow2,node-name=f,file=p");
	cmdline_deinit(&line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cmdline),
		cmocka_unit_test(test_detach_sockets),
		cmocka_unit_test(test_detach_the_rest),
		cmocka_unit_test(test_detach_what_libvirt_hands_in),
		cmocka_unit_test(test_detach_names),
		cmocka_unit_test(test_detach_bad),
		cmocka_unit_test(test_next_disk),
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_ram),
		cmocka_unit_test(test_unshare),
		cmocka_unit_test(test_disks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
