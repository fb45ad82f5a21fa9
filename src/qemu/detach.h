/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Makes a VM's command line fit for a second VM beside it: what both would
 * share, or fight for, goes elsewhere. RAM and disks are not done here
 * (qemu/clone.h).
 *
 *   sockets that QEMU makes, log files, pid files  into `run_dir`, under the
 *                                                  same names where that goes
 *   other ends: clients, host ports, devices, spice  a null device
 *   displays                                       none
 *   network  user: without its forwarded host ports;
 *            tap, bridge: a tap device of its own that is attached to nothing;
 *            else: user, restricted
 *   secrets whose file is gone                     a placeholder
 *   -incoming, -S, -add-fd, -loadvm, -daemonize, -gdb       gone
 */

#include "qemu/cmdline.h"

/* 0; -EINVAL, logged, for an option that cannot be read, or -readconfig, which
 * may say anything; -ENOMEM. */
int detach_cmdline(struct cmdline *line, const char *run_dir);
