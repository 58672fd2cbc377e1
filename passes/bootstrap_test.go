package passes

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// bootParams returns insecure parameters in the standard ring that hold a
// bootstrap with so many levels to spare.
func bootParams(t testing.TB, logN int, c *bootstrap, spare int) *ir.Params {
	t.Helper()
	q := []int{49}
	for range c.levelsOver() + spare {
		q = append(q, 44)
	}
	p, err := ir.NewParams("tiny-boot", logN, ir.RingStandard, ir.SecretTernary, q, []int{46, 46, 46, 46, 46}, 44)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	return p
}

// refreshGraph is one refresh of an input whose slots repeat after period.
func refreshGraph(par *ir.Params, c *bootstrap, period, level int) *ir.Graph {
	lw := &lowering{b: newBuilder(&ir.Graph{Name: "refresh"}), par: par, prof: backend.DefaultProfile(), target: ir.ScaleTwo(par.LogScale)}
	x := lw.b.emit(ir.OpHEInput, ir.Attrs{"level": c.levelsIn(), "scale": lw.target.String()})
	lw.b.g.Inputs = append(lw.b.g.Inputs, x)
	y := lw.b.emit(ir.OpHEOutput, nil, lw.refresh(c, x, period, level))
	lw.b.g.Outputs = append(lw.b.g.Outputs, y)
	lw.b.finish()
	return lw.b.g
}

// TestRefresh runs bootstraps of full and of repeating slots, with two circuits,
// on exact slots with random multiples of q_0: what remains is the error of the
// sine and of its polynomial.
func TestRefresh(t *testing.T) {
	for _, c := range []*bootstrap{
		{stc: 3, cts: 4, bound: 14, degree: 30, doublings: 3, ratio: 10},
		{stc: 2, cts: 3, bound: 14, degree: 30, doublings: 3, ratio: 8},
	} {
		par := bootParams(t, 10, c, 3)
		for _, period := range []int{512, 64, 16} {
			for level := c.levelsIn() - 1; level <= 3; level++ {
				t.Run(fmt.Sprintf("%d+%d/period %d/level %d", c.stc, c.cts, period, level), func(t *testing.T) {
					r := rand.New(rand.NewPCG(3, uint64(period)))
					x := make([]float64, par.Slots())
					for i := range x {
						if x[i] = 2*r.Float64() - 1; i >= period {
							x[i] = x[i-period]
						}
					}
					g := refreshGraph(par, c, period, level)
					if got := g.Outputs[0].Type.Level; got != level {
						t.Fatalf("level %d, want %d", got, level)
					}
					y := schemeRun(t, g, par, [][]float64{x})[0]
					angle := 2 * math.Pi / math.Exp2(float64(c.ratio))
					for i := range y {
						want := math.Sin(angle*x[i]) / angle
						if d := math.Abs(y[i] - want); d > 1e-5 {
							t.Fatalf("slot %d: %v, want %v", i, y[i], want)
						}
					}
				})
			}
		}
	}
}

// TestScaleAfterRefresh lowers the longest polynomial right behind a refresh, where
// the drift of the doublings is raised to the power of its degree: every scale can
// still be written to a plan.
func TestScaleAfterRefresh(t *testing.T) {
	c := &bootstrap{stc: 2, cts: 3, bound: 14, degree: 30, doublings: 3, ratio: 8}
	par := bootParams(t, 8, c, maxPolyLevels)
	lw := &lowering{b: newBuilder(&ir.Graph{Name: "scales"}), par: par, prof: backend.DefaultProfile(), target: ir.ScaleTwo(par.LogScale)}
	x := lw.b.emit(ir.OpHEInput, ir.Attrs{"level": c.levelsIn(), "scale": lw.target.String()})
	coef := make([]float64, 1<<maxPolyLevels)
	for i := range coef {
		coef[i] = 1
	}
	y := lw.b.polynomial(lw.refresh(c, x, par.Slots(), maxPolyLevels), coef, maxPolyLevels, lw.target)
	if !y.Type.Scale.Equal(lw.target) {
		t.Errorf("the polynomial ends at scale %s", y.Type.Scale)
	}
	for _, v := range lw.b.g.Values {
		if err := v.Type.Scale.Check(len(par.Q)); err != nil {
			t.Fatalf("%s: %v", v.Op, err)
		}
	}
}
