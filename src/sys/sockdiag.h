/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * AF_UNIX sockets as the kernel lists them: sock_diag(7), over libnl-3.
 *
 * The kernel lists a network namespace's sockets only to a netlink socket of
 * that namespace, and abstract names are the namespace's too. So everything
 * here takes `netns_fd`, a descriptor of /proc/PID/ns/net; -1 is the caller's
 * own namespace. Entering another one needs CAP_SYS_ADMIN, and is done in a
 * short-lived thread: the caller never leaves its own.
 *
 * No logging. Thread-safe.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Socket states as AF_UNIX uses them (net/unix takes TCP's numbers). */
#define SOCKDIAG_ESTABLISHED 1u
#define SOCKDIAG_LISTEN	     10u
#define SOCKDIAG_MASK(state) (1u << (state))

struct unix_socket {
	uint32_t inode;
	uint32_t peer_inode; /* 0: not connected, or not yet accepted */
	uint32_t file_inode; /* of the path's file, its low 32 bits; 0: none */
	uint8_t state;	     /* SOCKDIAG_* */
	uint8_t type;	     /* SOCK_STREAM, … */
	/*
	 * sun_path as it was bound, without a path's last NUL: starts with a
	 * NUL byte when abstract. Never NULL, NUL-terminated behind its
	 * `name_len` bytes; length 0: not bound.
	 */
	char *name;
	size_t name_len;
};

struct unix_sockets {
	struct unix_socket *sockets;
	size_t n_sockets;
};

/*
 * Lists the sockets whose state is in `states`, an OR of SOCKDIAG_MASK().
 * An accepted socket carries its listener's name. Returns 0 or -errno
 * (-ENOENT where the kernel lacks unix_diag); on success the caller owns
 * `out`, to be given to unix_sockets_deinit().
 */
int sockdiag_list_unix(int netns_fd, uint32_t states, struct unix_sockets *out);
void unix_sockets_deinit(struct unix_sockets *list);

/* The socket with this inode, or NULL. */
const struct unix_socket *unix_sockets_find(const struct unix_sockets *list,
					    uint32_t inode);

/* socket(2) in that namespace. Returns a descriptor or -errno. */
int sockdiag_socket(int netns_fd, int domain, int type, int protocol);
