package ir

import (
	"math"
	"slices"
)

// gemmTile is the number of columns of a tile; narrower products are left to
// gorgonia.
const gemmTile = 8

// gemm writes a [m,k] times b [k,n] into out where the CPU has fused
// multiply-add. Columns are taken a tile at a time, gathered so that rows of b far
// apart do not evict each other. Every element is summed in ascending order of k,
// whatever the width of a tile.
func gemm(out, a, b []float64, m, k, n int) {
	var panel []float64
	if m >= 8 {
		panel = make([]float64, k*2*gemmTile)
	}
	j := 0
	for j+gemmTile <= n {
		width := gemmTile
		if wide && m >= 4 && j+2*gemmTile <= n {
			width *= 2
		}
		tile, ld := b[j:], n
		if panel != nil {
			for l := range k {
				copy(panel[l*width:(l+1)*width], b[l*n+j:])
			}
			tile, ld = panel, width
		}
		i := 0
		for ; i+4 <= m; i += 4 {
			if width == gemmTile {
				gemm4x8(&out[i*n+j], n, &a[i*k], k, &tile[0], ld, k)
			} else {
				gemm4x16(&out[i*n+j], n, &a[i*k], k, &tile[0], ld, k)
			}
		}
		for ; i < m; i++ {
			for c := 0; c < width; c += gemmTile {
				gemm1x8(&out[i*n+j+c], &a[i*k], &tile[c], ld, k)
			}
		}
		j += width
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
