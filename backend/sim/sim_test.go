package sim

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// client reads and writes the slots of the simulated engine.
type client struct{ *Engine }

func (client) Decrypt(in backend.Operand) ([]float64, error) {
	z, ok := clear.Slots(in)
	if !ok {
		return nil, errors.New("no slots")
	}
	return slices.Clone(z), nil
}

func (client) DecryptComplex(in backend.Operand) ([]complex128, error) {
	re, ok := clear.Slots(in)
	if !ok {
		return nil, errors.New("no slots")
	}
	im, has := clear.Imaginary(in)
	z := make([]complex128, len(re))
	for i := range z {
		z[i] = complex(re[i], 0)
		if has {
			z[i] = complex(re[i], im[i])
		}
	}
	return z, nil
}

func (client) MakeKey(int, backend.Operand) ([]byte, error) { return nil, nil }

func TestConformance(t *testing.T) {
	conformance.Run(t, "simulate", func(p *ir.Params) (backend.Engine, conformance.Client) {
		e, err := New(p, backend.DefaultProfile(), 1)
		if err != nil {
			t.Fatal(err)
		}
		return e, client{e}
	})
}

func open(t *testing.T, seed uint64) *Engine {
	t.Helper()
	p, err := ir.NewParams("tiny", 8, ir.RingReal, ir.SecretTernary, []int{45, 40, 40}, []int{46}, 40)
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(p, backend.DefaultProfile(), seed)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func bind(t *testing.T, e *Engine, level int, s ir.Scale) backend.Operand {
	t.Helper()
	ct := ir.Type{Kind: ir.CipherKind, Encrypted: true, Level: level, Scale: s}
	o, err := e.Bind(ct, conformance.Slabs(e, ct))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func constant(e *Engine, x float64) []float64 {
	v := make([]float64, e.Params().Slots())
	for i := range v {
		v[i] = x
	}
	return v
}

// TestOverflow feeds values on both sides of what the modulus of a level holds,
// into every step that the engine checks.
func TestOverflow(t *testing.T) {
	e := open(t, 1)
	s := ir.ScaleTwo(40)
	q0 := float64(e.Params().Q[0])
	most := q0 / 2 / math.Exp2(40) // what fits at level 0
	for _, c := range []struct {
		factor float64
		fits   bool
	}{{0.01, true}, {0.95, true}, {1.05, false}, {100, false}, {math.NaN(), false}, {math.Inf(1), false}} {
		x := c.factor * most
		judge := func(what string, err error) {
			t.Helper()
			if c.fits && err != nil || !c.fits && !errors.Is(err, ErrOverflow) {
				t.Errorf("%s of %g, where %g fits: error %v", what, x, most, err)
			}
		}
		judge("encryption", e.Encrypt(constant(e, x), bind(t, e, 0, s)))
		if math.IsNaN(x) || math.IsInf(x, 0) {
			continue
		}
		// A product that fits at level 1 and may not fit at level 0 after the
		// rescale.
		a, b := bind(t, e, 1, s), bind(t, e, 1, s)
		if err := errors.Join(e.Encrypt(constant(e, x), a), e.Encrypt(constant(e, 1), b)); err != nil {
			t.Fatal(err)
		}
		p := bind(t, e, 1, s.Mul(s))
		if err := e.Exec(&plan.Step{Op: ir.OpHEMul}, []backend.Operand{a, b}, p); err != nil {
			if c.factor < 1 {
				t.Errorf("product: %v", err)
			}
			continue
		}
		judge("rescale", e.Exec(&plan.Step{Op: ir.OpHERescale}, []backend.Operand{p}, bind(t, e, 0, s.Mul(s).Div(ir.ScalePrime(1)))))
	}
}

// TestComplexOverflow rescales complex values to level 0, where it is coefficients
// that must fit: the slots of many that do may be far larger.
func TestComplexOverflow(t *testing.T) {
	p, err := ir.NewParams("tiny", 8, ir.RingStandard, ir.SecretTernary, []int{45, 40}, []int{46}, 40)
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(p, backend.DefaultProfile(), 1)
	if err != nil {
		t.Fatal(err)
	}
	n, s := p.Slots(), ir.ScaleTwo(40).Mul(ir.ScalePrime(1))
	most := float64(p.Q[0]) / 2 / math.Exp2(40) // what fits at level 0
	at := func(l int, s ir.Scale) backend.Operand {
		ct := ir.Type{Kind: ir.CipherKind, Encrypted: true, Level: l, Scale: s, Complex: true}
		o, err := e.Bind(ct, conformance.Slabs(e, ct))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	for _, c := range []struct {
		factor, other float64 // of all coefficients and of one of them
		fits          bool
	}{{0.9, 0.9, true}, {0.9, 1.1, false}, {0.9, -1.1, false}, {0, 0.9, true}, {0.9, math.NaN(), false}, {0, math.Inf(1), false}} {
		for _, part := range []complex128{1, 1i} {
			z := make([]complex128, n)
			for i := range z {
				z[i] = complex(c.factor*most, c.factor*most)
			}
			z[3] = complex(c.factor*most, c.other*most)
			if part == 1 {
				z[3] = complex(c.other*most, c.factor*most)
			}
			ir.NewEmbedding(n).ToSlots(z)
			x := at(1, s)
			re, _ := clear.Slots(x)
			im, _ := clear.Imaginary(x)
			top := 0.0
			for i, v := range z {
				re[i], im[i] = real(v), imag(v)
				top = max(top, math.Abs(re[i]), math.Abs(im[i]))
			}
			if c.factor > 0 && top < 4*most {
				t.Fatalf("slots reach %g only, %g fits", top, most)
			}
			err := e.Exec(&plan.Step{Op: ir.OpHERescale}, []backend.Operand{x}, at(0, ir.ScaleTwo(40)))
			if c.fits && err != nil || !c.fits && !errors.Is(err, ErrOverflow) {
				t.Errorf("coefficients %g and once %g of what fits: error %v", c.factor, c.other, err)
			}
		}
	}
}

// TestSeeds runs the same steps under equal and unequal seeds: noise depends on
// the seed and on nothing else.
func TestSeeds(t *testing.T) {
	s := ir.ScaleTwo(40)
	run := func(seed uint64) []float64 {
		e := open(t, seed)
		x, y := bind(t, e, 2, s), bind(t, e, 1, s.Div(ir.ScalePrime(2)))
		if err := e.Encrypt(constant(e, 0.5), x); err != nil {
			t.Fatal(err)
		}
		if err := e.Exec(&plan.Step{Op: ir.OpHERescale}, []backend.Operand{x}, y); err != nil {
			t.Fatal(err)
		}
		z, _ := clear.Slots(y)
		if e.Seconds() <= 0 {
			t.Error("steps take no time")
		}
		return slices.Clone(z)
	}
	if !slices.Equal(run(1), run(1)) {
		t.Error("equal seeds, other noise")
	}
	if slices.Equal(run(1), run(2)) {
		t.Error("other seeds, equal noise")
	}
}
