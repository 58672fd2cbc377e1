package ir

import "golang.org/x/sys/cpu"

// fma reports whether the CPU and the operating system offer what the kernels
// need.
var fma = cpu.X86.HasAVX2 && cpu.X86.HasFMA

// wide reports whether they also offer what the wide tile needs.
var wide = fma && cpu.X86.HasAVX512F

// gemm4x8 writes the product of four rows of a and eight columns of b, k > 0
// deep, into c; ld is the distance of rows in elements.
//
//go:noescape
func gemm4x8(c *float64, ldc int, a *float64, lda int, b *float64, ldb, k int)

// gemm4x16 does so for sixteen columns, on 512-bit registers.
//
//go:noescape
func gemm4x16(c *float64, ldc int, a *float64, lda int, b *float64, ldb, k int)

// gemm1x8 does so for one row and eight columns.
//
//go:noescape
func gemm1x8(c, a, b *float64, ldb, k int)

// clenshaw16 evaluates a Chebyshev series in place at sixteen times blocks
// points. c points at the highest of steps coefficients after the first; steps is
// even and positive.
//
//go:noescape
func clenshaw16(u *float64, blocks int, c *float64, steps int)
