"""ARM CPUs, emulated: the real aarch64 library under qemu-user, one tier per core, with instruction counts.

`parts` says what is fetched, `kit` makes the folder, `tiers` runs jobs; `decode` tells classes of
instructions apart, `count.c` counts them inside the emulator, `counting` asks for it, and `estimate` turns
counts into an estimated time.
"""
