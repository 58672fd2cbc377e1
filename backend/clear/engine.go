// Package clear computes in the clear: the tensor semantics of a network, and the
// scheme engine on float64 slots that all other engines are held against.
package clear

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// engine executes scheme steps on float64 slots without noise: the reference
// that the simulated and the encrypted engine are held against. A ciphertext or
// plaintext is one slab of slots; digits and keys need no memory.
type engine struct{ p *ir.Params }

// NewEngine returns the clear engine for the parameters. It checks that they are
// well formed; security does not matter in the clear.
func NewEngine(p *ir.Params) (backend.Engine, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	c := *p
	return &engine{&c}, nil
}

// Name returns "clear".
func (e *engine) Name() string { return "clear" }

// Params returns the parameters; they must not be changed.
func (e *engine) Params() *ir.Params { return e.p }

// SlabBytes returns the bytes of one vector of slots.
func (e *engine) SlabBytes() int { return e.p.Slots() * 8 }

// Slabs returns 1 for ciphertexts and plaintexts, 0 for digits and keys.
func (e *engine) Slabs(t ir.Type) int {
	if t.Kind == ir.DigitsKind || t.Kind == ir.KeyKind {
		return 0
	}
	return 1
}

// Close does nothing: the engine holds nothing.
func (e *engine) Close() error { return nil }

// operand is a vector of slots in caller-owned memory; nil for digits and keys.
type operand struct {
	t     ir.Type
	slots []float64
}

// Type returns the type the operand was bound with.
func (o *operand) Type() ir.Type { return o.t }

// Space returns host memory.
func (o *operand) Space() backend.Space { return backend.SpaceHost }

// Bind makes an operand over a slab.
func (e *engine) Bind(t ir.Type, slabs [][]byte) (backend.Operand, error) {
	if t.Kind.Vocab() != ir.Scheme {
		return nil, fmt.Errorf("a value of kind %s is no object of the clear engine", t.Kind)
	}
	if want := e.Slabs(t); len(slabs) != want {
		return nil, fmt.Errorf("%s needs %d slabs, got %d", t.Kind, want, len(slabs))
	}
	o := &operand{t: t}
	for _, s := range slabs {
		if len(s) != e.SlabBytes() {
			return nil, fmt.Errorf("slab has %d bytes, want %d", len(s), e.SlabBytes())
		}
		at := unsafe.Pointer(unsafe.SliceData(s))
		if uintptr(at)&63 != 0 {
			return nil, errors.New("slab is not aligned to 64 bytes")
		}
		o.slots = unsafe.Slice((*float64)(at), e.p.Slots())
	}
	return o, nil
}

// Slots returns the slots of an operand of the clear engine, aliasing its
// memory: writing them is encryption in the clear, reading them decryption. It
// returns false for operands of other engines, digits and keys.
func Slots(o backend.Operand) ([]float64, bool) {
	x, ok := o.(*operand)
	if !ok || x.slots == nil {
		return nil, false
	}
	return x.slots, true
}

// Encode writes the values of all slots.
func (e *engine) Encode(values *ir.SlotData, out backend.Operand) error {
	z, ok := Slots(out)
	if !ok {
		return errors.New("operand cannot hold slots of the clear engine")
	}
	if values.Period <= 0 || len(z)%values.Period != 0 {
		return fmt.Errorf("slot values with period %d do not fit %d slots", values.Period, len(z))
	}
	bound := -1.0 - math.Log2(out.Type().Scale.Float64(e.p.Q))
	for _, q := range e.p.Q[:out.Type().Level+1] {
		bound += math.Log2(float64(q))
	}
	for i := range z {
		z[i] = 0
	}
	for i, s := range values.Index {
		v := values.Value[i]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("slot %d: %v cannot be encoded", s, v)
		}
		if v != 0 && math.Log2(math.Abs(v)) >= bound {
			return fmt.Errorf("slot %d: %g does not fit scale %s at level %d", s, v, out.Type().Scale, out.Type().Level)
		}
		if s < 0 || int(s) >= values.Period {
			return fmt.Errorf("slot %d lies outside the period of %d", s, values.Period)
		}
		for at := int(s); at < len(z); at += values.Period {
			z[at] = v
		}
	}
	return nil
}

// Exec performs one step on the slots. Levels and scales were verified when the
// program was typed; in the clear they have no effect.
func (e *engine) Exec(s *plan.Step, args []backend.Operand, out backend.Operand) error {
	o, ok := out.(*operand)
	if !ok {
		return fmt.Errorf("%s: result belongs to another engine", s.Op)
	}
	var in [3][]float64
	if len(args) > len(in) {
		return fmt.Errorf("%s: %d operands", s.Op, len(args))
	}
	vectors := 0
	for i, a := range args {
		x, ok := a.(*operand)
		if !ok {
			return fmt.Errorf("%s: operand %d belongs to another engine", s.Op, i)
		}
		if x.slots != nil {
			in[i] = x.slots
			vectors++
		}
	}
	if want, ok := vectorArgs[s.Op]; !ok || vectors != want || in[0] == nil {
		return fmt.Errorf("%s: %d vectors of slots among the operands, want %d", s.Op, vectors, vectorArgs[s.Op])
	}
	z, a, b, c := o.slots, in[0], in[1], in[2]
	if s.Op == ir.OpHEDecompose {
		return nil
	}
	if z == nil {
		return fmt.Errorf("%s: result holds no slots", s.Op)
	}
	switch s.Op {
	case ir.OpHEAdd, ir.OpHEAddPlain, ir.OpHEAddQP:
		for i := range z {
			z[i] = a[i] + b[i]
		}
	case ir.OpHESub:
		for i := range z {
			z[i] = a[i] - b[i]
		}
	case ir.OpHEMulPlain, ir.OpHEMul, ir.OpHEMulQP:
		for i := range z {
			z[i] = a[i] * b[i]
		}
	case ir.OpHEMacQP:
		for i := range z {
			z[i] = a[i] + b[i]*c[i]
		}
	case ir.OpHEAddConst:
		for i := range z {
			z[i] = a[i] + s.Const
		}
	case ir.OpHEMulConst:
		for i := range z {
			z[i] = a[i] * s.Const
		}
	case ir.OpHEMacConst:
		for i := range z {
			z[i] = a[i] + b[i]*s.Const
		}
	case ir.OpHERotate, ir.OpHEHoistRot, ir.OpHEGiant:
		k := ((s.Rot % len(z)) + len(z)) % len(z)
		copy(z, a[k:])
		copy(z[len(z)-k:], a[:k])
	case ir.OpHERescale, ir.OpHELift, ir.OpHEModDown, ir.OpHEOutput:
		copy(z, a)
	default:
		panic("BUG: " + s.Op.String() + " has operands but no semantics")
	}
	return nil
}

// vectorArgs is the number of operands of each step that hold slots.
var vectorArgs = map[ir.Op]int{
	ir.OpHEAdd: 2, ir.OpHESub: 2, ir.OpHEAddPlain: 2, ir.OpHEMulPlain: 2,
	ir.OpHEAddConst: 1, ir.OpHEMulConst: 1, ir.OpHEMacConst: 2, ir.OpHEMul: 2,
	ir.OpHERescale: 1, ir.OpHERotate: 1, ir.OpHEDecompose: 1, ir.OpHEHoistRot: 1,
	ir.OpHELift: 1, ir.OpHEMulQP: 2, ir.OpHEMacQP: 3, ir.OpHEGiant: 1,
	ir.OpHEAddQP: 2, ir.OpHEModDown: 1, ir.OpHEOutput: 1,
}
