#include "textflag.h"

// Kernels on 256-bit fused multiply-add. Tiles of a matrix product sum in
// ascending order of k, so a tile's result does not depend on where the tile lies.

// func gemm4x8(c *float64, ldc int, a *float64, lda int, b *float64, ldb, k int)
TEXT ·gemm4x8(SB), NOSPLIT, $0-56
	MOVQ c+0(FP), DI
	MOVQ ldc+8(FP), R8
	MOVQ a+16(FP), SI
	MOVQ lda+24(FP), R9
	MOVQ b+32(FP), DX
	MOVQ ldb+40(FP), R10
	MOVQ k+48(FP), CX
	SHLQ $3, R8
	SHLQ $3, R9
	SHLQ $3, R10
	LEAQ (R9)(R9*2), R11
	VXORPD Y0, Y0, Y0
	VXORPD Y1, Y1, Y1
	VXORPD Y2, Y2, Y2
	VXORPD Y3, Y3, Y3
	VXORPD Y4, Y4, Y4
	VXORPD Y5, Y5, Y5
	VXORPD Y6, Y6, Y6
	VXORPD Y7, Y7, Y7
loop:
	VMOVUPD (DX), Y8
	VMOVUPD 32(DX), Y9
	VBROADCASTSD (SI), Y10
	VBROADCASTSD (SI)(R9*1), Y11
	VBROADCASTSD (SI)(R9*2), Y12
	VBROADCASTSD (SI)(R11*1), Y13
	VFMADD231PD Y8, Y10, Y0
	VFMADD231PD Y9, Y10, Y1
	VFMADD231PD Y8, Y11, Y2
	VFMADD231PD Y9, Y11, Y3
	VFMADD231PD Y8, Y12, Y4
	VFMADD231PD Y9, Y12, Y5
	VFMADD231PD Y8, Y13, Y6
	VFMADD231PD Y9, Y13, Y7
	ADDQ $8, SI
	ADDQ R10, DX
	DECQ CX
	JNZ loop
	VMOVUPD Y0, (DI)
	VMOVUPD Y1, 32(DI)
	ADDQ R8, DI
	VMOVUPD Y2, (DI)
	VMOVUPD Y3, 32(DI)
	ADDQ R8, DI
	VMOVUPD Y4, (DI)
	VMOVUPD Y5, 32(DI)
	ADDQ R8, DI
	VMOVUPD Y6, (DI)
	VMOVUPD Y7, 32(DI)
	VZEROUPPER
	RET

// func gemm1x8(c, a, b *float64, ldb, k int)
TEXT ·gemm1x8(SB), NOSPLIT, $0-40
	MOVQ c+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ b+16(FP), DX
	MOVQ ldb+24(FP), R10
	MOVQ k+32(FP), CX
	SHLQ $3, R10
	VXORPD Y0, Y0, Y0
	VXORPD Y1, Y1, Y1
row:
	VBROADCASTSD (SI), Y10
	VFMADD231PD (DX), Y10, Y0
	VFMADD231PD 32(DX), Y10, Y1
	ADDQ $8, SI
	ADDQ R10, DX
	DECQ CX
	JNZ row
	VMOVUPD Y0, (DI)
	VMOVUPD Y1, 32(DI)
	VZEROUPPER
	RET

// STEP is one step of Clenshaw's recurrence: q becomes uu*p-q+c, uu = 2u, and
// takes the place of p in the next step.
#define STEP(uu, p, q) \
	VSUBPD q, Y12, q \
	VFMADD231PD p, uu, q

// func clenshaw16(u *float64, blocks int, c *float64, steps int)
//
// steps is even: the coefficients above the first, with a leading zero where
// their number is odd; c points at the last of them.
TEXT ·clenshaw16(SB), NOSPLIT, $0-32
	MOVQ u+0(FP), DI
	MOVQ blocks+8(FP), R8
	MOVQ c+16(FP), R9
	MOVQ steps+24(FP), R10
block:
	VMOVUPD (DI), Y0
	VMOVUPD 32(DI), Y1
	VMOVUPD 64(DI), Y2
	VMOVUPD 96(DI), Y3
	VADDPD Y0, Y0, Y0
	VADDPD Y1, Y1, Y1
	VADDPD Y2, Y2, Y2
	VADDPD Y3, Y3, Y3
	VXORPD Y4, Y4, Y4
	VXORPD Y5, Y5, Y5
	VXORPD Y6, Y6, Y6
	VXORPD Y7, Y7, Y7
	VXORPD Y8, Y8, Y8
	VXORPD Y9, Y9, Y9
	VXORPD Y10, Y10, Y10
	VXORPD Y11, Y11, Y11
	MOVQ R9, SI
	MOVQ R10, CX
steps:
	VBROADCASTSD (SI), Y12
	STEP(Y0, Y4, Y8)
	STEP(Y1, Y5, Y9)
	STEP(Y2, Y6, Y10)
	STEP(Y3, Y7, Y11)
	VBROADCASTSD -8(SI), Y12
	STEP(Y0, Y8, Y4)
	STEP(Y1, Y9, Y5)
	STEP(Y2, Y10, Y6)
	STEP(Y3, Y11, Y7)
	SUBQ $16, SI
	SUBQ $2, CX
	JNZ steps
	// u*p - q + c0, and c0 is where SI points now.
	VBROADCASTSD (SI), Y12
	VSUBPD Y8, Y12, Y8
	VSUBPD Y9, Y12, Y9
	VSUBPD Y10, Y12, Y10
	VSUBPD Y11, Y12, Y11
	VFMADD231PD (DI), Y4, Y8
	VFMADD231PD 32(DI), Y5, Y9
	VFMADD231PD 64(DI), Y6, Y10
	VFMADD231PD 96(DI), Y7, Y11
	VMOVUPD Y8, (DI)
	VMOVUPD Y9, 32(DI)
	VMOVUPD Y10, 64(DI)
	VMOVUPD Y11, 96(DI)
	ADDQ $128, DI
	DECQ R8
	JNZ block
	VZEROUPPER
	RET
