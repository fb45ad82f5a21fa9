/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/keeper.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/util.h"
#include "parasite/parasite.h"
#include "qemu/qmp.h"
#include "sys/caps.h"
#include "sys/fdpass.h"
#include "sys/pidfd.h"
#include "sys/uffd.h"

enum keeper_command {
	KEEPER_TAKE_UFFD = 1,
	KEEPER_GUARD,
	KEEPER_UNGUARD,
	KEEPER_QUIT,
};

/* How long a VM may take to answer the `cont` of a keeper. */
#define RESCUE_TIMEOUT_MS 30000
/* How long one that hung up may take to be gone. */
#define EXIT_TIMEOUT_MS	  1000

static int take_uffd(const struct target *target, int *uffd)
{
	_cleanup_close_ int dev = uffd_open_device();
	struct parasite *parasite;
	int r, cured;

	r = parasite_infect(&parasite, target->pid, target->proc_fd,
			    target->pidfd);
	if (r < 0 && !log_had_error())
		log_errno(r, "pid %d: entering it: %m", target->pid);
	if (r)
		return r;
	r = parasite_make_uffd(parasite, dev, uffd);
	INJECT_HERE("keeper-cure");
	cured = parasite_cure(parasite);
	if (!r && cured) {
		close_fd(uffd);
		r = cured;
	}
	return r;
}

/* What may be needed to take a userfaultfd, until that is done. */
static void drop_capabilities(const struct target *target, bool all)
{
	static const cap_value_t keep[] = { CAP_SYS_PTRACE, CAP_DAC_OVERRIDE,
					    CAP_DAC_READ_SEARCH,
					    CAP_SYS_ADMIN };
	size_t n = ARRAY_SIZE(keep) - !target->status.seccomp;
	int r = caps_reduce(keep, all ? 0 : n);

	if (r)
		log_errno(r, "keeper: cannot drop capabilities: %m");
}

static int answer(int sock, int result, int fd)
{
	return fdpass_send(sock, &result, sizeof(result), &fd, fd >= 0);
}

/* Serves until the dumper hangs up, by closing or by dying. */
static void serve(int sock, const struct target *target, int qmp_fd,
		  int freeze_fd, pid_t dumper)
{
	bool guarding = false, died = true;

	drop_capabilities(target, false);
	for (;;) {
		_cleanup_close_ int uffd = -1;
		size_t n_fds = 0, len;
		int command, r = 0;

		len = sizeof(command);
		if (fdpass_recv(sock, &command, &len, NULL, &n_fds) ||
		    len != sizeof(command))
			break;
		if (command == KEEPER_QUIT) {
			died = false;
			break;
		}
		if (command == KEEPER_TAKE_UFFD)
			r = take_uffd(target, &uffd);
		else
			guarding = command == KEEPER_GUARD;
		/* Whatever comes next goes by descriptors. */
		drop_capabilities(target, true);
		if (guarding)
			INJECT_HERE("keeper-guard");
		if (INJECT("keeper-answer") ?: answer(sock, r, uffd))
			break;
	}

	if (guarding && freeze_fd >= 0 && pwrite(freeze_fd, "0", 1, 0) < 0)
		log_errno(
			-errno,
			"pid %d: the dump ended while its cgroup was frozen, and that cannot be thawed: %m; write 0 to its cgroup.freeze",
			target->pid);
	if (guarding && qmp_fd >= 0) {
		int r = qmp_rescue_cont(qmp_fd, RESCUE_TIMEOUT_MS);

		if (r && pidfd_wait_exit(target->pidfd, EXIT_TIMEOUT_MS))
			log_errno(
				r,
				"pid %d: the dump ended while the VM stood, and the VM did not take `cont`: %m; continue it by hand",
				target->pid);
	}
	/* The descriptor for the device state; mostly there is none. */
	if (died && qmp_fd >= 0)
		qmp_rescue_remove_fd(qmp_fd, dumper, RESCUE_TIMEOUT_MS);
}

static void ignore_signals(void)
{
	static const int signals[] = { SIGINT,	SIGTERM, SIGHUP, SIGQUIT,
				       SIGPIPE, SIGTSTP, SIGALRM };

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		signal(signals[i], SIG_IGN);
}

int keeper_start(struct keeper *keeper, const struct target *target, int qmp_fd,
		 int freeze_fd)
{
	int socks[2];
	pid_t dumper;

	if (INJECT_ERRNO("keeper-start") ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		return log_errno(-errno, "socketpair: %m");

	dumper = getpid();
	keeper->pid = fork();
	if (keeper->pid < 0) {
		close(socks[0]);
		close(socks[1]);
		return log_errno(-errno, "fork: %m");
	}
	if (!keeper->pid) {
		ignore_signals();
		setsid();
		prctl(PR_SET_NAME, "snapuffd-keeper");
		close(socks[0]);
		serve(socks[1], target, qmp_fd, freeze_fd, dumper);
		_exit(0);
	}

	close(socks[1]);
	keeper->sock = socks[0];
	return 0;
}

static int ask(struct keeper *keeper, int command, int *fd)
{
	size_t n_fds = fd ? 1 : 0, len = sizeof(int);
	int result, r;

	r = fdpass_send(keeper->sock, &command, sizeof(command), NULL, 0);
	INJECT_INTO(r, "keeper-ask");
	if (!r)
		r = fdpass_recv(keeper->sock, &result, &len, fd, &n_fds);
	if (!r && len != sizeof(result))
		r = -EPIPE;
	if (r)
		return log_errno(r, "the keeper process %d died: %m",
				 keeper->pid);
	if (fd && !result && !n_fds)
		return -EPROTO;
	if (result)
		log_note_error(); /* by the keeper */
	return result;
}

int keeper_take_uffd(struct keeper *keeper, int *uffd)
{
	return ask(keeper, KEEPER_TAKE_UFFD, uffd);
}

int keeper_fetch_uffd(const struct target *target, uint64_t features, int *uffd)
{
	_cleanup_keeper_ struct keeper keeper = KEEPER_INIT;
	int r = keeper_start(&keeper, target, -1, -1);

	if (!r)
		r = keeper_take_uffd(&keeper, uffd);
	if (r)
		return r;
	r = INJECT("infect-init-uffd") ?: uffd_init(*uffd, features);
	if (!r)
		return 0;
	close_fd(uffd);
	return log_errno(r, "pid %d: userfaultfd: %m", target->pid);
}

int keeper_guard(struct keeper *keeper, bool stopped)
{
	return ask(keeper, stopped ? KEEPER_GUARD : KEEPER_UNGUARD, NULL);
}

void keeper_stop(struct keeper *keeper)
{
	int quit = KEEPER_QUIT;

	if (keeper->sock >= 0)
		fdpass_send(keeper->sock, &quit, sizeof(quit), NULL, 0);
	close_fd(&keeper->sock);
	if (keeper->pid > 0)
		while (waitpid(keeper->pid, NULL, 0) < 0 && errno == EINTR)
			;
	keeper->pid = -1;
}
