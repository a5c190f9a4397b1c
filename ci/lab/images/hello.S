# The lab's test workload: a whole static x86-64 ELF program in one section, so that the same source gives the same bytes
# with any binutils (as hello.S -o hello.o && objcopy -O binary -j .text hello.o hello). No linker, no libc, no date.
#
#   hello [PORT [FILE]]   answer every HTTP request on PORT (8080) with FILE's content, or "hello"; GET /env: the environment
#   hello exit [CODE]     say so on stderr and exit with CODE (1) at once
#
# Exits 0 on SIGTERM, so that a container stops at once; exits 1 with a message when it cannot listen.
    .intel_syntax noprefix
    .text
    .set base, 0x400000

# --- ELF header (64 bytes) and one loadable segment: read, execute
elf:
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .short 2, 62                        # executable, x86-64
    .long 1
    .quad base + (start - elf)          # entry
    .quad segment - elf                 # program headers
    .quad 0
    .long 0
    .short 64, 56, 1, 0, 0, 0
segment:
    .long 1, 5
    .quad 0, base, base
    .quad end - elf, end - elf, 0x1000

# --- program; r15 listening socket, r14 FILE or 0, r13 environment, rbx argument count
start:
    mov     rbx, [rsp]
    lea     r12, [rsp + 16]             # &argv[1]
    lea     r13, [rsp + rbx*8 + 16]     # envp
    sub     rsp, 8192

    mov     edi, 13                     # SIGPIPE: ignore, a client that leaves must not end the server
    mov     eax, 1
    call    on_signal
    mov     edi, 15                     # SIGTERM: exit 0; as process 1 of a container there is no default action
    lea     rax, [rip + leave]
    call    on_signal

    mov     eax, 8080
    xor     r14d, r14d
    cmp     rbx, 2
    jl      serve
    mov     rsi, [r12]
    cmp     byte ptr [rsi], 'e'
    je      exits
    call    number
    cmp     rbx, 3
    jl      serve
    mov     r14, [r12 + 8]

serve:
    xchg    al, ah                      # network byte order
    mov     qword ptr [rsp], 2          # sockaddr_in: AF_INET, port, any address
    mov     [rsp + 2], ax
    mov     qword ptr [rsp + 8], 0
    mov     edi, 2
    mov     esi, 0x80001                # SOCK_STREAM | SOCK_CLOEXEC
    xor     edx, edx
    mov     eax, 41                     # socket
    syscall
    mov     r15, rax
    mov     dword ptr [rsp + 16], 1
    mov     rdi, r15
    mov     esi, 1                      # SOL_SOCKET
    mov     edx, 2                      # SO_REUSEADDR
    lea     r10, [rsp + 16]
    mov     r8d, 4
    mov     eax, 54                     # setsockopt
    syscall
    mov     rdi, r15
    mov     rsi, rsp
    mov     edx, 16
    mov     eax, 49                     # bind
    syscall
    test    rax, rax
    jnz     taken
    mov     rdi, r15
    mov     esi, 64
    mov     eax, 50                     # listen
    syscall
    test    rax, rax
    jnz     taken

next:
    mov     rdi, r15
    xor     esi, esi
    xor     edx, edx
    mov     eax, 43                     # accept
    syscall
    test    rax, rax
    js      next
    mov     rbp, rax
    mov     rdi, rbp
    mov     rsi, rsp
    mov     edx, 4096
    xor     eax, eax                    # read
    syscall
    cmp     rax, 8
    jl      hang_up
    cmp     dword ptr [rsp + 4], 0x766e652f   # "/env" after "GET "
    je      environment
    test    r14, r14
    jz      greeting

    mov     rdi, r14                    # FILE is opened anew each time: a change shows without a restart
    xor     esi, esi
    mov     eax, 2                      # open
    syscall
    test    rax, rax
    js      no_file
    mov     r12, rax
    call    head
more:
    mov     rdi, rbp
    mov     rsi, r12
    xor     edx, edx
    mov     r10d, 0x10000
    mov     eax, 40                     # sendfile
    syscall
    test    rax, rax
    jg      more
    mov     rdi, r12
    mov     eax, 3                      # close
    syscall
    jmp     hang_up

no_file:
    lea     rsi, [rip + text_error]
    mov     edx, text_error_end - text_error
    jmp     say
greeting:
    call    head
    lea     rsi, [rip + text_hello]
    mov     edx, text_hello_end - text_hello
say:
    mov     rdi, rbp
    mov     eax, 1                      # write
    syscall
hang_up:
    mov     rdi, rbp
    mov     eax, 3
    syscall
    jmp     next

environment:
    call    head
    mov     r12, r13
variable:
    mov     rsi, [r12]
    test    rsi, rsi
    jz      hang_up
    xor     edx, edx
length:
    cmp     byte ptr [rsi + rdx], 0
    je      measured
    inc     rdx
    jmp     length
measured:
    mov     rdi, rbp
    mov     eax, 1
    syscall
    lea     rsi, [rip + text_newline]
    mov     edx, 1
    mov     rdi, rbp
    mov     eax, 1
    syscall
    add     r12, 8
    jmp     variable

head:
    lea     rsi, [rip + text_ok]
    mov     edx, text_ok_end - text_ok
    mov     rdi, rbp
    mov     eax, 1
    syscall
    ret

taken:
    lea     rsi, [rip + text_taken]
    mov     edx, text_taken_end - text_taken
    mov     ebx, 1
    jmp     complain
exits:
    mov     eax, 1
    cmp     rbx, 3
    jl      coded
    mov     rsi, [r12 + 8]
    call    number
coded:
    mov     ebx, eax
    lea     rsi, [rip + text_exits]
    mov     edx, text_exits_end - text_exits
complain:
    mov     edi, 2
    mov     eax, 1
    syscall
    mov     edi, ebx
    mov     eax, 231                    # exit_group
    syscall
leave:
    xor     edi, edi
    mov     eax, 231
    syscall

number:                                 # decimal digits at rsi -> eax
    xor     eax, eax
digit:
    movzx   ecx, byte ptr [rsi]
    sub     ecx, '0'
    cmp     ecx, 9
    ja      parsed
    imul    eax, eax, 10
    add     eax, ecx
    inc     rsi
    jmp     digit
parsed:
    ret

on_signal:                              # edi signal, rax handler; the kernel wants a restorer, ours is never returned to
    sub     rsp, 40
    mov     [rsp], rax
    mov     qword ptr [rsp + 8], 0x04000000
    mov     [rsp + 16], rax
    mov     qword ptr [rsp + 24], 0
    mov     rsi, rsp
    xor     edx, edx
    mov     r10d, 8
    mov     eax, 13                     # rt_sigaction
    syscall
    add     rsp, 40
    ret

text_ok:
    .ascii "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
text_ok_end:
text_error:
    .ascii "HTTP/1.0 500 Internal Server Error\r\nConnection: close\r\n\r\nhello: cannot open the file\n"
text_error_end:
text_hello:
    .ascii "hello"
text_newline:
    .ascii "\n"
text_hello_end:
text_taken:
    .ascii "hello: cannot listen: address already in use\n"
text_taken_end:
text_exits:
    .ascii "hello: told to exit\n"
text_exits_end:
end:
