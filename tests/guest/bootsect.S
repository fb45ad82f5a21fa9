/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest of 512 bytes, for hosts whose KVM boots no Linux: it writes memory
 * flat out, checks what it overwrites, and tells of it on the serial port.
 *
 *	as --32 bootsect.S -o o; ld -m elf_i386 -Ttext 0x7c00 --oformat binary o
 *
 * It asks nothing of a BIOS and can as well be copied to 0x7c00 by a ROM.
 *
 * Step s writes s to the first word of page (s * factor) mod n_pages, factor
 * odd and n_pages a power of two; so at any instant the pages hold the last
 * n_pages step numbers, each on its own page (modulo 2^32).  What a page held
 * before must be s - n_pages; if not, it is counted as bad.
 *
 * At first every page gets its step number.  Then, each `interval` ticks of
 * the TSC, a line of words in hexadecimal:
 *
 *	K start end s n_bad max slot…
 *
 * start, end: TSC / 1024.  s: the next step.  max: ticks that the slowest store
 * took.  slot: number of the slot << 24 | stores; the stores of slot 4 * e + m
 * took at least 2^e * (1 + m / 4) ticks, and less than those of the next slot.
 */
	.set	hist, 0x8000		/* 128 words */
	.set	n_bad, 0x8200
	.set	max, 0x8204		/* these two in this order */
	.set	line, 0x9000
	.set	serial, 0x3f8

	.globl	_start
	.text
	.code16
_start:
	cli
	cld
	xor	%ax, %ax
	mov	%ax, %ds
	lgdt	gdt_pointer
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmp	$8, $protected

	.code32
protected:
	mov	$16, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$0x7c00, %esp
	mov	$hist, %edi
	mov	$130, %ecx
	xor	%eax, %eax
	rep stosl

	xor	%esi, %esi
fill:
	call	page_of_step
	mov	%esi, (%edi)
	inc	%esi
	cmp	%esi, n_pages
	jne	fill

interval_begin:
	rdtsc
	mov	%eax, %ebp
	shrd	$10, %edx, %eax
	push	%eax

step:
	call	page_of_step
	mov	%esi, %ebx
	sub	n_pages, %ebx
	cmp	%ebx, (%edi)
	je	1f
	incl	n_bad
1:	rdtsc
	mov	%eax, %ecx
	mov	%esi, (%edi)
	rdtsc
	inc	%esi
	mov	%eax, %edx
	sub	%ecx, %eax
	cmp	%eax, max
	jae	2f
	mov	%eax, max
2:	or	$4, %al
	bsr	%eax, %ecx
	sub	$2, %cl
	shr	%cl, %eax		/* 4..7 */
	lea	4(%eax,%ecx,4), %ecx	/* 4 * e + 4 + m, e counted from 2 */
	incl	hist(,%ecx,4)
	sub	%ebp, %edx
	cmp	interval, %edx
	jb	step

	rdtsc
	shrd	$10, %edx, %eax
	mov	$line, %edi
	movw	$0x204b, (%edi)		/* "K " */
	inc	%edi
	inc	%edi
	pop	%edx
	call	put
	mov	%eax, %edx
	call	put
	mov	%esi, %edx
	call	put
	mov	n_bad, %edx
	call	put
	xor	%edx, %edx
	xchg	%edx, max
	call	put
	xor	%ebx, %ebx
3:	xor	%edx, %edx
	xchg	%edx, hist(,%ebx,4)
	test	%edx, %edx
	jz	4f
	mov	%ebx, %eax
	shl	$24, %eax
	or	%eax, %edx
	call	put
4:	inc	%ebx
	cmp	$128, %ebx
	jb	3b
	movb	$10, -1(%edi)		/* instead of the last blank */
	mov	%edi, %ecx
	push	%esi
	mov	$line, %esi
	sub	%esi, %ecx
	mov	$serial, %edx
	rep outsb
	pop	%esi
	jmp	interval_begin

/* esi: step; edi: its page.  Spoils eax. */
page_of_step:
	mov	%esi, %edi
	imul	factor, %edi
	mov	n_pages, %eax
	dec	%eax
	and	%eax, %edi
	shl	$12, %edi
	add	base, %edi
	ret

/* edx as eight digits and a blank to (edi).  Spoils ecx. */
put:
	push	%eax
	mov	$8, %ecx
1:	rol	$4, %edx
	mov	%dl, %al
	and	$15, %al
	cmp	$10, %al
	sbb	$0x69, %al
	das
	stosb
	loop	1b
	mov	$32, %al
	stosb
	pop	%eax
	ret

	.align	8
gdt:	.quad	0
	.quad	0x00cf9a000000ffff	/* flat code */
	.quad	0x00cf92000000ffff	/* flat data */
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

/* Filled in by whoever boots it. */
	.org	0x1ec
base:		.long	0x01000000
n_pages:	.long	0x4000
factor:		.long	0x9e3779b1
interval:	.long	0x10000000

	.org	0x1fe
	.word	0xaa55
