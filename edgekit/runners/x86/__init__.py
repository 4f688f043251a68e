"""This CPU with features off: ONNX Runtime as it dispatches on older x86 CPUs, at native speed.

A patched copy of the installed runtime (`overlay`) asks a small preload library (`mask.c`) instead of the CPU
which features there are; `tiers` says which generation answers what. `instructions` and `elf` find the
CPUID instructions in the library.
"""
