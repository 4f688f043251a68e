/* Where a program begins, for links against a bare libc.so.6 (glibc 2.34 or newer) without its start files.
 * Source: glibc, sysdeps/aarch64/start.S and sysdeps/arm/start.S say what `__libc_start_main` is given:
 * main, argc, argv, two null functions, what the loader wants called at exit, the end of the stack.
 */
    .globl _start
    .type _start, %function
_start:
#if defined(__aarch64__)
    mov x29, #0
    mov x30, #0
    mov x5, x0
    ldr x1, [sp]
    add x2, sp, #8
    mov x3, #0
    mov x4, #0
    mov x6, sp
    adrp x0, :got:main
    ldr x0, [x0, #:got_lo12:main]
    bl __libc_start_main
    bl abort
#elif defined(__arm__)
    .arm
    mov r11, #0
    mov lr, #0
    mov r3, #0
    pop {r1}
    mov r2, sp
    push {r2}
    push {r0}
    push {r3}
    ldr r0, 2f
1:  add r0, pc, r0
    bl __libc_start_main
    bl abort
2:  .word main - (1b + 8)
#else
#error "no start code for this architecture"
#endif
    .section .note.GNU-stack, "", %progbits
