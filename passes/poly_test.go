package passes

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// tiny returns insecure parameters with the given number of levels.
func tiny(t testing.TB, logN int, ring ir.Ring, levels int) *ir.Params {
	t.Helper()
	q := []int{50}
	for range levels {
		q = append(q, 40)
	}
	p, err := ir.NewParams("tiny", logN, ring, ir.SecretTernary, q, []int{51, 51}, 40)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	return p
}

// schemeRun verifies a scheme graph, numbers its objects as schedule does, in
// place where that is allowed, and runs it on exact slots. It returns the slots
// of each output.
func schemeRun(t testing.TB, g *ir.Graph, par *ir.Params, inputs [][]float64) [][]float64 {
	t.Helper()
	u := &unit{opt: &Options{}, plan: &plan.Plan{Params: *par}, scheme: g, state: &packState{}, lw: &lowering{b: newBuilder(g)}}
	u.plan.Layers = []plan.Layer{{}}
	if err := ir.Verify(g, ir.Scheme); err != nil {
		t.Fatal(err)
	}
	if err := schedule(u); err != nil {
		t.Fatal(err)
	}
	p := u.plan
	e, err := clear.NewEngine(par)
	if err != nil {
		t.Fatal(err)
	}
	var ins, outs []plan.ObjectID
	for i, o := range p.Objects {
		switch o.Role {
		case plan.RoleInput:
			ins = append(ins, plan.ObjectID(i))
		case plan.RoleOutput:
			outs = append(outs, plan.ObjectID(i))
		}
	}
	got := map[plan.ObjectID][]float64{}
	err = backend.Interpret(p, e, func(id plan.ObjectID, o backend.Operand) error {
		z, _ := clear.Slots(o)
		copy(z, inputs[slices.Index(ins, id)])
		return nil
	}, nil, func(id plan.ObjectID, o backend.Operand) error {
		z, _ := clear.Slots(o)
		got[id] = slices.Clone(z)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all [][]float64
	for _, id := range outs {
		all = append(all, got[id])
	}
	return all
}

// TestPolynomial lowers random polynomials of every degree up to 63: dense ones,
// even ones with a linear term, odd ones, and ones with most coefficients zero.
// Values agree with Clenshaw's recurrence, the scale is exactly the one asked
// for, and the level that of the depth rule.
func TestPolynomial(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	par := tiny(t, 5, ir.RingReal, 8)
	for _, kind := range []string{"dense", "even", "odd", "sparse"} {
		t.Run(kind, func(t *testing.T) {
			for deg := 1; deg <= 63; deg++ {
				c := make([]float64, deg+1)
				for k := range c {
					switch {
					case kind == "even" && k%2 == 1 && k > 1, kind == "odd" && k%2 == 0, kind == "sparse" && r.IntN(4) > 0:
					default:
						c[k] = r.NormFloat64() / float64(deg)
					}
				}
				if kind == "odd" || kind == "sparse" {
					c[deg] = 1.0 / float64(deg)
				}
				top := polyDepth(deg) + r.IntN(2)
				scale := ir.ScaleTwo(40 + r.IntN(3))
				target := ir.ScaleTwo(40).Mul(ir.ScalePrime(1)).Div(ir.ScalePrime(2))
				b := newBuilder(&ir.Graph{Name: "poly"})
				x := b.emit(ir.OpHEInput, ir.Attrs{"level": top + r.IntN(2), "scale": scale.String()})
				y := b.polynomial(x, c, top, target)
				if !y.Type.Scale.Equal(target) {
					t.Fatalf("degree %d: scale %v, want %v", deg, y.Type.Scale, target)
				}
				if want := top - polyDepth(degreeOf(c)); y.Type.Level != want {
					t.Fatalf("degree %d: level %d from %d, want %d", deg, y.Type.Level, top, want)
				}
				out := b.emit(ir.OpHEOutput, nil, y)
				b.finish()
				b.g.Inputs, b.g.Outputs = []*ir.Value{x}, []*ir.Value{out}
				u := make([]float64, par.Slots())
				for i := range u {
					u[i] = 2*r.Float64() - 1
				}
				got := schemeRun(t, b.g, par, [][]float64{u})[0]
				for i, v := range u {
					if want := ir.Clenshaw(c, v); math.Abs(got[i]-want) > 1e-9 {
						t.Fatalf("degree %d at %g: %g, want %g", deg, v, got[i], want)
					}
				}
			}
		})
	}
}

func degreeOf(c []float64) int {
	d := len(c) - 1
	for d > 1 && c[d] == 0 {
		d--
	}
	return d
}

// TestPolynomialProducts guards the number of products of ciphertexts at the
// least depth, for dense polynomials and for those whose odd part is linear.
func TestPolynomialProducts(t *testing.T) {
	count := func(c []float64) int {
		b := newBuilder(&ir.Graph{Name: "poly"})
		x := b.emit(ir.OpHEInput, ir.Attrs{"level": 8, "scale": "2^40"})
		b.polynomial(x, c, x.Type.Level, ir.ScaleTwo(40))
		n := 0
		for _, v := range b.g.Values {
			if v.Op == ir.OpHEMul {
				n++
			}
		}
		return n
	}
	for _, c := range []struct{ degree, dense, even int }{
		{1, 0, 0}, {3, 2, 1}, {7, 4, 3}, {15, 6, 5}, {31, 8, 7}, {63, 10, 9},
	} {
		full, even := make([]float64, c.degree+1), make([]float64, max(2, c.degree))
		for k := range full {
			full[k] = 1
		}
		for k := range even {
			if k < 2 || k%2 == 0 {
				even[k] = 1
			}
		}
		if got := count(full); got != c.dense {
			t.Errorf("degree %d: %d products, want %d", c.degree, got, c.dense)
		}
		if got := count(even); got != c.even {
			t.Errorf("even degree %d: %d products, want %d", c.degree-1, got, c.even)
		}
	}
}
