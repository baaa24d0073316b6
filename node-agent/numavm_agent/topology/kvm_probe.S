    .code16
    .org 0
start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    cld
    movw $0x1000, %di          # page tables at 0x1000, 0x2000, 0x3000
    movw $0x1800, %cx
    rep stosw
    movw $0x2003, 0x1000       # PML4[0] -> 0x2000, present, writable
    movw $0x3003, 0x2000       # PDPT[0] -> 0x3000
    movw $0x0083, 0x3000       # PD[0]: 2 MiB at 0, present, writable, large
    lgdtl 0x7c00 + (gdt_pointer - start)
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0x20, %eax           # CR4.PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx     # EFER
    rdmsr
    orw $0x100, %ax            # LME
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax      # PG | PE
    movl %eax, %cr0
    ljmpl $0x08, $(0x7c00 + (long_mode - start))
    .code64
long_mode:
    movl $10000000, %ecx
    xorl %ebx, %ebx
    movl %ebx, 0x8000
again:
    addl $3, 0x8000
    decl %ecx
    jnz again
    cmpl $30000000, 0x8000
    jne halt
    movw $0x501, %dx
    movb $0x55, %al
    outb %al, %dx
halt:
    hlt
    jmp halt
    .balign 8
gdt:
    .quad 0
    .quad 0x00209a0000000000   # 64-bit code
gdt_pointer:
    .word . - gdt - 1
    .long 0x7c00 + (gdt - start)
    .org 510
    .word 0xaa55
