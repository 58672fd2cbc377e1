package clear

import (
	"errors"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
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

func (client) MakeKey(int, backend.Operand) error { return nil }

func TestConformance(t *testing.T) {
	conformance.Run(t, "clear", func(p *ir.Params) (backend.Engine, conformance.Client) {
		e, err := NewEngine(p)
		if err != nil {
			t.Fatal(err)
		}
		return e, client{}
	})
}
