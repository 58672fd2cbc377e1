//go:build !amd64

package ir

const fma, wide = false, false

func gemm4x8(c *float64, ldc int, a *float64, lda int, b *float64, ldb, k int) {
	panic("BUG: no vector unit")
}

func gemm4x16(c *float64, ldc int, a *float64, lda int, b *float64, ldb, k int) {
	panic("BUG: no vector unit")
}

func gemm1x8(c, a, b *float64, ldb, k int) { panic("BUG: no vector unit") }

func clenshaw16(u *float64, blocks int, c *float64, steps int) { panic("BUG: no vector unit") }
