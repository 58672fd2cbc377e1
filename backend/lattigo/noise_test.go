package lattigo

import (
	"fmt"
	"math"
	"testing"

	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// TestNoise measures the noise of fresh encryption, of rounding and of key
// switching, and holds it against the formulas that the simulator uses.
func TestNoise(t *testing.T) {
	for _, c := range []struct {
		logN   int
		ring   ir.Ring
		secret ir.Secret
		q, p   []int
		level  int
	}{
		{10, ir.RingStandard, ir.SecretTernary, []int{45, 40, 40, 40}, []int{36}, 3},
		{10, ir.RingReal, ir.SecretTernary, []int{45, 40, 40, 40}, []int{36}, 3},
		{11, ir.RingStandard, ir.SecretH192, []int{45, 40, 40, 40, 40}, []int{36, 36}, 3},
		{11, ir.RingReal, ir.SecretTernary, []int{45, 40, 40, 40, 40}, []int{36, 36}, 2},
		{10, ir.RingReal, ir.SecretTernary, []int{40, 40, 40}, []int{50}, 2},
	} {
		t.Run(fmt.Sprintf("N%d/%s/%s/P%d/L%d", c.logN, c.ring, c.secret, len(c.p), c.level), func(t *testing.T) {
			p, err := ir.NewParams("noise", c.logN, c.ring, c.secret, c.q, c.p, 36)
			if err != nil {
				t.Fatal(err)
			}
			p.Insecure = true
			e := must[*engine](t)(openEngine(p))
			cl := newTestClient(t, e)
			one := ir.Scale{}
			ct := func(level int) *operand {
				tc := ir.Type{Kind: ir.CipherKind, Level: level, Scale: one}
				return must[*operand](t)(e.bind(tc, conformance.Slabs(e, tc)))
			}
			deviation := func(o *operand) float64 {
				coef := make([]float64, e.n)
				e.decryptCoefs(cl.s, o.rows[:o.stride], o.rows[o.stride:], one, coef)
				sq := 0.0
				for _, x := range coef {
					sq += x * x
				}
				return math.Sqrt(sq / float64(len(coef)))
			}
			// exact writes an encryption of zero without noise.
			exact := func(o *operand) {
				seed := newSeed()
				for i := range o.t.Level + 1 {
					m := e.mods[i]
					uniformRow(o.q(1, i), m.Q, &seed, rowName(elementCipher, 0, i))
					m.Mul(o.q(0, i), o.q(1, i), cl.s.ntt[i])
					clear(cl.spare(e))
					m.Sub(o.q(0, i), cl.spare(e), o.q(0, i))
				}
			}
			tk := ir.Type{Kind: ir.KeyKind, Level: p.MaxLevel()}
			key := must[*operand](t)(e.bind(tk, conformance.Slabs(e, tk)))
			if _, err := cl.MakeKey(1, key); err != nil {
				t.Fatal(err)
			}
			var fresh, rounding, rotation float64
			const runs = 8
			for range runs {
				x := ct(c.level)
				if err := cl.Encrypt(make([]float64, p.Slots()), x); err != nil {
					t.Fatal(err)
				}
				fresh += deviation(x) / runs
				exact(x)
				if d := deviation(x); d != 0 {
					t.Fatalf("exact encryption of zero has noise %g", d)
				}
				y := ct(c.level - 1)
				if err := e.exec(&plan.Step{Op: ir.OpHERescale}, []*operand{x}, y); err != nil {
					t.Fatal(err)
				}
				rounding += deviation(y) / runs
				z := ct(c.level)
				if err := e.exec(&plan.Step{Op: ir.OpHERotate, Rot: 1}, []*operand{x, key}, z); err != nil {
					t.Fatal(err)
				}
				rotation += deviation(z) / runs
			}
			for _, m := range []struct {
				what      string
				got, want float64
			}{
				{"fresh encryption", fresh, Sigma},
				{"rescale", rounding, RoundingNoise(p)},
				{"rotation", rotation, math.Hypot(KeySwitchNoise(p, c.level), RoundingNoise(p))},
			} {
				t.Logf("%s: measured %.3f, theory %.3f", m.what, m.got, m.want)
				if r := m.got / m.want; r < 0.85 || r > 1.15 {
					t.Errorf("%s: noise %g, theory %g", m.what, m.got, m.want)
				}
			}
		})
	}
}

// spare returns a limb to work in.
func (c *testClient) spare(e *engine) []uint64 {
	if c.limb == nil {
		c.limb = make([]uint64, e.n)
	}
	return c.limb
}
