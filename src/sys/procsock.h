/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Which sockets a process holds, as the links of /proc/PID/fd tell:
 * "socket:[INODE]" (proc(5)). The inode is what sock_diag tells, too.
 * No logging.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_socket {
	int fd; /* in that process */
	uint32_t inode;
};

struct proc_sockets {
	struct proc_socket *sockets;
	size_t n_sockets;
};

/* 0 or -errno; -EACCES where the process may not be inspected. */
int procsock_list(int proc_fd, struct proc_sockets *out);
void proc_sockets_deinit(struct proc_sockets *list);

bool proc_sockets_has(const struct proc_sockets *list, uint32_t inode);

/* A process but `except` that holds the socket; 0: none is seen. */
pid_t procsock_find_holder(uint32_t inode, pid_t except);
