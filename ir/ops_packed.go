package ir

import (
	"errors"
	"fmt"
	"slices"
)

// The packed vocabulary says where the numbers sit. Every value is a tensor
// laid out over the slots of one or more ciphertexts.
var _ = register([]Info{
	{Op: OpPackInput, Name: "packed.input", Vocab: Packed, Result: SlotsKind,
		Attrs: []AttrSpec{{"shape", AttrInts, true}},
		Doc:   "encrypted input of the network, in the layout the client packs",
		Infer: func(v *Value) (Type, error) { return slotsType(v, v.Attrs.Ints("shape")) }},
	{Op: OpPackLinear, Name: "packed.linear", Vocab: Packed, MinArgs: 1, MaxArgs: -1, Depth: 1, Result: SlotsKind,
		Attrs: []AttrSpec{{"shape", AttrInts, true}},
		Doc:   "sum of sparse matrices times the arguments, plus a bias",
		Infer: inferPackLinear},
	{Op: OpPackPoly, Name: "packed.poly", Vocab: Packed, MinArgs: 1, MaxArgs: 1, Result: SlotsKind,
		Doc: "one polynomial in Chebyshev form, applied in every slot; the argument lies in [-1,1]",
		Infer: func(v *Value) (Type, error) {
			if v.Approx == nil || len(v.Approx.Coef) < 2 {
				return Type{}, errors.New("no polynomial of degree 1 or more")
			}
			if a := v.Approx; a.Center != 0 || a.Bound != 1 || a.Channels != nil || a.Inner != nil {
				return Type{}, errors.New("ranges and inner polynomials are not folded into the layers before")
			}
			return slotsType(v, v.Args[0].Type.Shape)
		}},
	{Op: OpPackMul, Name: "packed.mul", Vocab: Packed, MinArgs: 2, MaxArgs: 2, Depth: 1, Result: SlotsKind,
		Doc: "slotwise product of two values in one layout",
		Infer: func(v *Value) (Type, error) {
			a, b := v.Args[0].Type, v.Args[1].Type
			if a.Kind != SlotsKind || b.Kind != SlotsKind || !slices.Equal(a.Shape, b.Shape) || !a.Layout.SamePlaces(b.Layout) {
				return Type{}, fmt.Errorf("product of %v and %v in different layouts", a.Shape, b.Shape)
			}
			return slotsType(v, a.Shape)
		}},
	{Op: OpPackView, Name: "packed.view", Vocab: Packed, MinArgs: 1, MaxArgs: 1, Result: SlotsKind,
		Attrs: []AttrSpec{{"shape", AttrInts, true}},
		Doc:   "the same slots read as another tensor",
		Infer: func(v *Value) (Type, error) {
			t, err := slotsType(v, v.Attrs.Ints("shape"))
			if a := v.Args[0].Type.Layout; err == nil && (a == nil || a.Slots != t.Layout.Slots || a.Cts != t.Layout.Cts || a.Lanes != t.Layout.Lanes) {
				err = errors.New("view over other ciphertexts")
			}
			return t, err
		}},
	{Op: OpPackRefresh, Name: "packed.refresh", Vocab: Packed, MinArgs: 1, MaxArgs: 1, Result: SlotsKind,
		Doc: "the same slots, bootstrapped to a higher level; every slot, gaps included, lies in [-1,1]",
		Infer: func(v *Value) (Type, error) {
			if v.Args[0].Type.Kind != SlotsKind {
				return Type{}, fmt.Errorf("argument of kind %s", v.Args[0].Type.Kind)
			}
			return v.Args[0].Type, nil
		}},
	{Op: OpPackOutput, Name: "packed.output", Vocab: Packed, MinArgs: 1, MaxArgs: 1, Result: SlotsKind,
		Doc:   "result that the client decrypts",
		Infer: func(v *Value) (Type, error) { return v.Args[0].Type, nil }},
})

func slotsType(v *Value, shape []int) (Type, error) {
	if v.Layout == nil {
		return Type{}, errors.New("no layout")
	}
	for _, a := range v.Args {
		if a.Type.Kind != SlotsKind {
			return Type{}, fmt.Errorf("argument of kind %s", a.Type.Kind)
		}
	}
	if err := CheckDims(shape); err != nil {
		return Type{}, err
	}
	if slices.Contains(shape, 0) {
		return Type{}, fmt.Errorf("shape %v", shape)
	}
	if err := v.Layout.Check(NumElems(shape)); err != nil {
		return Type{}, err
	}
	return Type{Kind: SlotsKind, Encrypted: true, Shape: slices.Clone(shape), Layout: v.Layout}, nil
}

func inferPackLinear(v *Value) (Type, error) {
	shape := v.Attrs.Ints("shape")
	t, err := slotsType(v, shape)
	if err != nil {
		return t, err
	}
	if v.Linear == nil || len(v.Linear.Mats) != len(v.Args) {
		return t, errors.New("not one matrix for each argument")
	}
	n := NumElems(shape)
	for i, m := range v.Linear.Mats {
		if in := v.Args[i].Type.Elems(); m.Rows != n || m.Cols != in {
			return t, fmt.Errorf("matrix %d is %dx%d, want %dx%d", i, m.Rows, m.Cols, n, in)
		}
	}
	if b := v.Linear.Bias; b != nil && len(b) != n {
		return t, fmt.Errorf("bias of %d elements, want %d", len(b), n)
	}
	return t, nil
}
