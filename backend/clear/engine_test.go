package clear

import (
	"errors"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// client encrypts by writing slots.
type client struct{}

func (client) Encrypt(v []float64, out backend.Operand) error {
	z, ok := Slots(out)
	if !ok {
		return errors.New("no slots")
	}
	copy(z, v)
	return nil
}

func (client) Decrypt(in backend.Operand) ([]float64, error) {
	z, ok := Slots(in)
	if !ok {
		return nil, errors.New("no slots")
	}
	return append([]float64{}, z...), nil
}

func (client) DecryptComplex(in backend.Operand) ([]complex128, error) {
	re, ok := Slots(in)
	if !ok {
		return nil, errors.New("no slots")
	}
	im, has := Imaginary(in)
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
	conformance.Run(t, "clear", func(p *ir.Params) (backend.Engine, conformance.Client) {
		e, err := NewEngine(p)
		if err != nil {
			t.Fatal(err)
		}
		return e, client{}
	})
}

// TestRaiseRepeats raises values under equal and unequal steps and inputs: what is
// added depends on both and on nothing else.
func TestRaiseRepeats(t *testing.T) {
	p, err := ir.NewParams("raise", 8, ir.RingStandard, ir.SecretTernary, []int{50, 40}, []int{51}, 40)
	if err != nil {
		t.Fatal(err)
	}
	raise := func(out plan.ObjectID, value float64) []float64 {
		e, err := NewEngine(p)
		if err != nil {
			t.Fatal(err)
		}
		bind := func(k ir.Kind, level int, complex bool) backend.Operand {
			ty := ir.Type{Kind: k, Level: level, Scale: ir.ScaleTwo(40), Complex: complex}
			o, err := e.Bind(ty, conformance.Slabs(e, ty))
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		x, y := bind(ir.CipherKind, 0, false), bind(ir.CipherKind, 1, true)
		z, _ := Slots(x)
		for i := range z {
			z[i] = value
		}
		keys := []backend.Operand{x, bind(ir.SparseKeyKind, 0, false), bind(ir.KeyKind, 1, false)}
		if err := e.Exec(&plan.Step{Op: ir.OpHERaise, Out: out}, keys, y); err != nil {
			t.Fatal(err)
		}
		re, _ := Slots(y)
		im, _ := Imaginary(y)
		all := slices.Concat(re, im)
		for i := range re {
			all[i] -= value
		}
		return all
	}
	first := raise(1, 0.5)
	if !slices.Equal(first, raise(1, 0.5)) {
		t.Error("equal steps and inputs, other multiples")
	}
	if slices.Equal(first, raise(2, 0.5)) || slices.Equal(first, raise(1, 0.25)) {
		t.Error("other steps or inputs, equal multiples")
	}
}
