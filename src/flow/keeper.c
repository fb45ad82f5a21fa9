/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/keeper.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/connect.h"
#include "flow/guardian.h"
#include "parasite/parasite.h"
#include "qemu/qmp.h"
#include "qemu/vm.h"
#include "sys/caps.h"
#include "sys/fdpass.h"
#include "sys/heirs.h"
#include "sys/pidfd.h"
#include "sys/uffd.h"

enum keeper_command {
	KEEPER_TAKE_UFFD = 1,
	KEEPER_GUARD,
	KEEPER_UNGUARD,
	KEEPER_QUIT,
};

/* How long a VM may take to answer the `cont` of a keeper, before it is told on
 * another connection; and there. */
#define RESCUE_TIMEOUT_MS 3000
#define ANEW_TIMEOUT_MS	  10000
/* Between two connections; also, how long one that hung up may take to be gone.
 */
#define REST_MS		  1000
/* How long the dumper waits for a keeper that is to end. */
#define STOP_TIMEOUT_MS	  6000

#define REMOVE_FD_TIMEOUT_MS 30000

/* Each is met by a fork only if that falls into the microseconds for which it
 * is in the target. */
#define UFFD_TRIES 16

/* For which a parasite may look for a place where it can hold a thread, which
 * runs on meanwhile. */
#define SEARCH_NS (2 * NS_PER_S)

/* All that the process knows. */
struct charge {
	struct keeper_charge of;
	const struct target *target;
	pid_t dumper;
};

static int take_one(const struct target *target, struct watch *watch, int dev,
		    int *uffd)
{
	struct parasite *parasite;
	int r, cured;

	if (watch)
		watch_begin_long(watch, WATCH_INFECTION,
				 watch->max_ns + SEARCH_NS);
	r = parasite_infect(&parasite, target->pid, target->proc_fd,
			    target->pidfd);
	if (r < 0 && !log_had_error())
		log_errno(r, "pid %d: entering it: %m", target->pid);
	if (r)
		return r;
	watch_begin(watch, WATCH_INFECTION);
	r = parasite_make_uffd(parasite, dev, uffd);
	INJECT_HERE("keeper-cure");
	cured = parasite_cure(parasite);
	if (!r && cured) {
		close_fd(uffd);
		r = cured;
	}
	return r;
}

/*
 * One that a child of the target has inherited would keep the target protected
 * after us. It is given up, which harms nobody, for nothing is registered with
 * it yet; the next one will hardly be met by a fork, too.
 */
static int take_uffd(const struct target *target, struct watch *watch,
		     int *uffd)
{
	_cleanup_close_ int dev = uffd_open_device();

	for (int i = 0; i < UFFD_TRIES; i++) {
		struct heirs_mark mark = heirs_mark();
		pid_t heir = 0;
		int r = take_one(target, watch, dev, uffd);

		if (r)
			return r;
		r = heirs_find(uffd, 1, &mark, &heir);
		if (r < 0) {
			close_fd(uffd);
			return log_errno(r, "/proc: looking for children: %m");
		}
		if (!r)
			return 0;
		log_debug("pid %d: its child %d has inherited the userfaultfd",
			  target->pid, heir);
		close_fd(uffd);
	}
	log_error(
		"pid %d: forks so often that each userfaultfd was inherited by a child; try again",
		target->pid);
	return RESULT_FAILED;
}

/* What may be needed to take a userfaultfd and, once that is done, to find the
 * VM's monitor again. */
static void drop_capabilities(const struct charge *charge, bool has_taken)
{
	static const cap_value_t keep[] = { CAP_SYS_PTRACE, CAP_DAC_OVERRIDE,
					    CAP_DAC_READ_SEARCH,
					    CAP_SYS_ADMIN };
	size_t n = ARRAY_SIZE(keep);
	int r;

	if (has_taken)
		n = charge->of.qmp_fd >= 0 ? n - 1 : 0;
	else if (!charge->target->status.seccomp)
		n--;
	r = caps_reduce(keep, n);
	if (r)
		log_errno(r, "keeper: cannot drop capabilities: %m");
}

static int answer(int sock, int result, int fd)
{
	return fdpass_send(sock, &result, sizeof(result), &fd, fd >= 0);
}

static void thaw(const struct charge *charge)
{
	if (pwrite(charge->of.freeze_fd, "0", 1, 0) < 0)
		log_errno(
			-errno,
			"pid %d: the dump ended while its cgroup was frozen, and that cannot be thawed: %m; write 0 to its cgroup.freeze",
			charge->target->pid);
}

/* Not to be told of each time that it fails. */
static int cont_anew(const struct charge *charge)
{
	_cleanup_qmp_ struct qmp *qmp = NULL;
	enum log_level level = log_get_level();
	int r;

	log_set_level(LOG_NOTHING);
	r = connect_vm(charge->target, charge->of.qmp_path, NULL, &qmp);
	if (!r)
		r = vm_cont(qmp, ANEW_TIMEOUT_MS);
	log_set_level(level);
	return r > 0 ? -ETIMEDOUT : r;
}

/* A monitor takes one client at a time, and whatever else holds a copy of its
 * socket is not to keep ours. A courier sees to connections itself. */
static int cont_until(const struct charge *charge, uint64_t deadline_ns)
{
	int r;

	if (!charge->of.is_courier)
		shutdown(charge->of.qmp_fd, SHUT_RDWR);
	do {
		r = charge->of.is_courier ? qmp_rescue_cont(charge->of.qmp_fd,
							    ANEW_TIMEOUT_MS)
					  : cont_anew(charge);
		if (!r || r == -EREMOTEIO)
			break;
	} while (now_ns() < deadline_ns &&
		 pidfd_wait_exit(charge->target->pidfd, REST_MS));
	return r;
}

/* The VM stands, and the dumper cannot, or may not, let it run. */
static void let_run(const struct charge *charge)
{
	uint64_t started_ns = now_ns();
	int r = qmp_rescue_cont(charge->of.qmp_fd, RESCUE_TIMEOUT_MS);

	if (r && r != -EREMOTEIO &&
	    pidfd_wait_exit(charge->target->pidfd, REST_MS)) {
		r = cont_until(charge,
			       started_ns + KEEPER_TRIES_S * 1000000000ull);
		if (!r)
			log_warning(
				"pid %d: the VM runs on, after `cont` was tried for %llu s",
				charge->target->pid,
				(unsigned long long)(now_ns() - started_ns) /
					1000000000);
	}
	if (r && pidfd_wait_exit(charge->target->pidfd, REST_MS))
		log_errno(
			r,
			"pid %d: the dump ended while the VM stood, and the VM did not take `cont`: %m; continue it by hand",
			charge->target->pid);
}

/* While a thread of the target may stand for us. */
static int take_uffd_watched(const struct charge *charge, int *uffd)
{
	struct watch *watch = charge->of.watch;
	int r;

	if (watch)
		atomic_store(&watch->keeper, getpid());
	r = take_uffd(charge->target, watch, uffd);
	watch_end(watch, WATCH_INFECTION);
	return r;
}

/* Serves until the dumper hangs up, by closing or by dying. */
static void serve(int sock, const struct charge *charge)
{
	bool guarding = false, died = true;

	drop_capabilities(charge, false);
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
			r = take_uffd_watched(charge, &uffd);
		else
			guarding = command == KEEPER_GUARD;
		drop_capabilities(charge, true);
		if (guarding)
			INJECT_HERE("keeper-guard");
		if (INJECT("keeper-answer") ?: answer(sock, r, uffd))
			break;
	}

	/* Else whoever reads the dump would wait for this process. */
	close(STDOUT_FILENO);
	if (guarding && charge->of.freeze_fd >= 0)
		thaw(charge);
	if (guarding && charge->of.qmp_fd >= 0)
		let_run(charge);
	/* The descriptor for the device state; mostly there is none. */
	if (died && charge->of.qmp_fd >= 0)
		qmp_rescue_remove_fd(charge->of.qmp_fd, charge->dumper,
				     REMOVE_FD_TIMEOUT_MS);
}

int keeper_start(struct keeper *keeper, const struct target *target,
		 const struct keeper_charge *of)
{
	struct charge charge = { *of, target, getpid() };
	int socks[2];

	if (INJECT_ERRNO("keeper-start") ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		return log_errno(-errno, "socketpair: %m");

	*keeper = (struct keeper){ .sock = socks[0],
				   .watch = of->watch,
				   .target_pid = target->pid };
	keeper->pid = fork();
	if (keeper->pid < 0) {
		close(socks[1]);
		close_fd(&keeper->sock);
		return log_errno(-errno, "fork: %m");
	}
	if (!keeper->pid) {
		guardian_begin("snapuffd-keeper");
		close(socks[0]);
		serve(socks[1], &charge);
		_exit(0);
	}
	close(socks[1]);
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
	int r = ask(keeper, KEEPER_TAKE_UFFD, uffd);

	/* It may have been killed before it said so. */
	watch_end(keeper->watch, WATCH_INFECTION);
	return r;
}

int keeper_fetch_uffd(const struct target *target, struct watch *watch,
		      uint64_t features, int *uffd)
{
	const struct keeper_charge charge = { .qmp_fd = -1,
					      .freeze_fd = -1,
					      .watch = watch };
	_cleanup_keeper_ struct keeper keeper = KEEPER_INIT;
	int r = keeper_start(&keeper, target, &charge);

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

/* Nobody else waits for it, so its number is its own. */
static bool has_ended(const struct keeper *keeper)
{
	_cleanup_close_ int pidfd = pidfd_from_pid(keeper->pid);

	return pidfd < 0 ||
	       pidfd_wait_exit(pidfd, STOP_TIMEOUT_MS) != -ETIMEDOUT;
}

void keeper_stop(struct keeper *keeper)
{
	int quit = KEEPER_QUIT;

	if (keeper->sock >= 0)
		fdpass_send(keeper->sock, &quit, sizeof(quit), NULL, 0);
	close_fd(&keeper->sock);
	if (keeper->pid > 0 && !has_ended(keeper))
		log_error(
			"pid %d: QEMU does not answer, and the VM may stand; process %d tries to continue it for %u minutes more",
			keeper->target_pid, keeper->pid, KEEPER_TRIES_S / 60);
	else if (keeper->pid > 0)
		while (waitpid(keeper->pid, NULL, 0) < 0 && errno == EINTR)
			;
	keeper->pid = -1;
}
