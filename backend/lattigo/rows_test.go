package lattigo

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
)

// BenchmarkRows times the row kernels in plain Go beside the vector ones.
func BenchmarkRows(b *testing.B) {
	p, err := ir.NewParams("rows", 13, ir.RingStandard, ir.SecretTernary, sizes(45, 45, 9), sizes(49, 49, 4), 45)
	if err != nil {
		b.Fatal(err)
	}
	for _, form := range kernels.Supported() {
		r := must[*rings](b)(newRingsWith(p, form))
		m, rng := r.mods[0], rand.New(rand.NewPCG(1, 1))
		var rows [][]uint64
		for range 20 {
			rows = append(rows, edgeRow(rng, r.n, m.q))
		}
		z, z1, x, y := rows[0], rows[1], rows[2], rows[3]
		v := make([]uint8, r.n)
		for _, c := range []struct {
			name string
			run  func()
		}{
			{"mul", func() { m.mulRow(z, x, y) }},
			{"mac", func() { m.macRow(z, z, x, y) }},
			{"mulConst", func() { m.mulScalarRow(z, x, 12345) }},
			{"macConst", func() { m.macScalarRow(z, z, x, 12345) }},
			{"subMul", func() { m.subMulRow(z, x, y, 12345) }},
			{"add", func() { m.addRow(z, x, y) }},
			{"centred", func() { m.centredRow(z, x, r.mods[1].q) }},
			{"tensor", func() { m.tensorRow(z, z1, rows[4], x, y, rows[5], rows[6]) }},
			{"dot2", func() { m.dotRows(z, z1, rows[2:4], rows[4:6], rows[6:8]) }},
			{"dot5", func() { m.dotRows(z, z1, rows[2:7], rows[7:12], rows[12:17]) }},
			{"prepare5", func() { r.pToQ.prepare(rows[2:7], v) }},
			{"convert5", func() { r.pToQ.convert(z, 0, m, rows[2:7], v) }},
		} {
			b.Run(fmt.Sprintf("%s/%s", c.name, form), func(b *testing.B) {
				for b.Loop() {
					c.run()
				}
			})
		}
	}
}
