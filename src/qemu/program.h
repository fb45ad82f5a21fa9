/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>

/*
 * Whether a process runs a QEMU system emulator, by the name of its program:
 * qemu-system-*, qemu-kvm, kvm. `proc_fd` is its /proc directory. A renamed
 * one is known by its monitor alone, which then must be named (--qmp).
 */
bool program_is_qemu(int proc_fd);
