package ir

import (
	"math"
	"slices"
)

// gemmTile is the number of columns of a tile; narrower products are left to
// gorgonia.
const gemmTile = 8

// gemm writes a [m,k] times b [k,n] into out where the CPU has fused
// multiply-add. Columns are taken eight at a time, gathered so that rows of b far
// apart do not evict each other.
func gemm(out, a, b []float64, m, k, n int) {
	var panel []float64
	if m >= 8 {
		panel = make([]float64, k*gemmTile)
	}
	j := 0
	for ; j+gemmTile <= n; j += gemmTile {
		tile, ld := b[j:], n
		if panel != nil {
			for l := range k {
				copy(panel[l*gemmTile:(l+1)*gemmTile], b[l*n+j:])
			}
			tile, ld = panel, gemmTile
		}
		i := 0
		for ; i+4 <= m; i += 4 {
			gemm4x8(&out[i*n+j], n, &a[i*k], k, &tile[0], ld, k)
		}
		for ; i < m; i++ {
			gemm1x8(&out[i*n+j], &a[i*k], &tile[0], ld, k)
		}
	}
	for i := range m {
		row := a[i*k : (i+1)*k]
		for c := j; c < n; c++ {
			s := 0.0
			for l, x := range row {
				s = math.FMA(x, b[l*n+c], s)
			}
			out[i*n+c] = s
		}
	}
}

// ClenshawAll replaces every element of u by the Chebyshev series there.
func ClenshawAll(u, c []float64) {
	if n := len(u) / 16; fma && n > 0 && len(c) > 2 {
		if len(c)%2 == 0 { // an odd number after the first
			c = append(slices.Clone(c), 0)
		}
		clenshaw16(&u[0], n, &c[len(c)-1], len(c)-1)
		u = u[16*n:]
	}
	for i, x := range u {
		u[i] = Clenshaw(c, x)
	}
}
