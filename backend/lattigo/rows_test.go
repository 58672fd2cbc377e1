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
			rows = append(rows, edgeRow(rng, r.n, m.Q))
		}
		z, z1, x, y := rows[0], rows[1], rows[2], rows[3]
		v := make([]uint8, r.n)
		conv := [][]uint64{z, z1, rows[18], rows[19]}
		for _, c := range []struct {
			name string
			run  func()
		}{
			{"mul", func() { m.Mul(z, x, y) }},
			{"mac", func() { m.Mac(z, z, x, y) }},
			{"mulConst", func() { m.MulConst(z, x, 12345) }},
			{"macConst", func() { m.MacConst(z, z, x, 12345) }},
			{"subMul", func() { m.SubMul(z, x, y, 12345) }},
			{"add", func() { m.Add(z, x, y) }},
			{"centred", func() { m.Centre(z, x, r.mods[1].Q, 1) }},
			{"tensor", func() { m.Tensor(z, z1, rows[4], x, y, rows[5], rows[6]) }},
			{"dot2", func() { m.Dot(z, z1, rows[2:4], rows[4:6], rows[6:8]) }},
			{"dot5", func() { m.Dot(z, z1, rows[2:7], rows[7:12], rows[12:17]) }},
			{"prepare5", func() { r.pToQ.Prepare(rows[2:7], v) }},
			{"convert5x4", func() { r.pToQ.Convert(conv, r.all[:4], rows[2:7], v) }},
			{"convert5", func() { r.pToQ.Convert(rows[:1], r.all[:1], rows[2:7], v) }},
		} {
			b.Run(fmt.Sprintf("%s/%s", c.name, form), func(b *testing.B) {
				for b.Loop() {
					c.run()
				}
			})
		}
	}
}
