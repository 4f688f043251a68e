"""The C program that runs a job folder (`runner.c`), and how it is compiled for any Linux from here.

`runner.c` opens the ONNX Runtime library that it is given, so one build serves every release from 1.16 on;
`cpu.h` says what the CPU looks like from inside, `start.S` replaces the C library's start files.
"""
