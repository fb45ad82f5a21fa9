# SPDX-License-Identifier: GPL-2.0-or-later
"""Real QEMU guests, what they say about their memory, and the program under
test, as the tests need them."""
