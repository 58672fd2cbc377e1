package ir

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// arithmetic returns the element type of arithmetic on the arguments: integer
// where none is real, as booleans count as integers.
func arithmetic(args []*Value) DType {
	for _, a := range args {
		if a.Type.DType == Real {
			return Real
		}
	}
	return Int
}

// Broadcast returns the common shape of two shapes by the rules of numpy.
func Broadcast(a, b []int) ([]int, error) {
	if len(a) < len(b) {
		a, b = b, a
	}
	s := append([]int(nil), a...)
	off := len(a) - len(b)
	for i, d := range b {
		switch {
		case s[off+i] == d || d == 1:
		case s[off+i] == 1:
			s[off+i] = d
		default:
			return nil, fmt.Errorf("shapes %v and %v do not broadcast", a, b)
		}
	}
	return s, nil
}

// broadcastStrides returns the strides, in elements, with which an operand of
// the given shape is read to fill out: 0 along axes it is repeated on.
func broadcastStrides(shape, out []int) []int {
	s := make([]int, len(out))
	off := len(out) - len(shape)
	for i, st := range Strides(shape) {
		if shape[i] != 1 {
			s[off+i] = st
		}
	}
	return s
}

// strideIndex returns, for every element of shape in row-major order, the sum
// of its coordinates times the strides.
func strideIndex(shape, strides []int) []int {
	idx := make([]int, NumElems(shape))
	if len(idx) == 0 {
		return idx
	}
	n := 1 // filled so far: the block of the inner axes
	for d := len(shape) - 1; d >= 0; d-- {
		for c := 1; c < shape[d]; c++ {
			off := c * strides[d]
			for i, x := range idx[:n] {
				idx[c*n+i] = x + off
			}
		}
		n *= shape[d]
	}
	return idx
}

func inferBinary(v *Value) ([]int, DType, error) {
	s, err := Broadcast(v.Args[0].Type.Shape, v.Args[1].Type.Shape)
	return s, arithmetic(v.Args), err
}

func evalBinary(f func(a, b float64) float64) func(v *Value, args []*Array) (*Array, error) {
	return func(v *Value, args []*Array) (*Array, error) {
		return broadcast(v.Type.Shape, args[0], args[1], f), nil
	}
}

// broadcast applies f to the elements of two arrays that broadcast to shape.
func broadcast(shape []int, a, b *Array, f func(a, b float64) float64) *Array {
	out := NewArray(shape...)
	n := len(out.Data)
	switch {
	case n == 0:
	case len(a.Data) == n && len(b.Data) == n:
		for i, x := range a.Data {
			out.Data[i] = f(x, b.Data[i])
		}
	case len(a.Data) == n && len(b.Data) == 1:
		y := b.Data[0]
		for i, x := range a.Data {
			out.Data[i] = f(x, y)
		}
	default:
		last := len(shape) - 1 // n > 1 operands of different sizes have an axis
		sa, sb := broadcastStrides(a.Shape, shape), broadcastStrides(b.Shape, shape)
		ia, ib := strideIndex(shape[:last], sa[:last]), strideIndex(shape[:last], sb[:last])
		row, da, db := shape[last], sa[last], sb[last]
		for r := range ia {
			o, pa, pb := out.Data[r*row:(r+1)*row], ia[r], ib[r]
			for i := range o {
				o[i] = f(a.Data[pa], b.Data[pb])
				pa += da
				pb += db
			}
		}
	}
	return out
}

// linearAdd is a + sign*b.
func linearAdd(sign float64) linearFn {
	return func(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
		shape := v.Type.Shape
		a, b := v.Args[0], v.Args[1]
		ia := strideIndex(shape, broadcastStrides(a.Type.Shape, shape))
		ib := strideIndex(shape, broadcastStrides(b.Type.Shape, shape))
		for o := range ia {
			if a.Type.Encrypted {
				emit(o, 0, ia[o], 1)
			} else {
				bias(o, a.Array.Data[ia[o]])
			}
			if b.Type.Encrypted {
				emit(o, 1, ib[o], sign)
			} else {
				bias(o, sign*b.Array.Data[ib[o]])
			}
		}
		return nil
	}
}

func linearMul(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
	shape := v.Type.Shape
	x := 0
	switch {
	case v.Args[0].Type.Encrypted && v.Args[1].Type.Encrypted:
		return fmt.Errorf("the product of two encrypted tensors is not linear")
	case v.Args[1].Type.Encrypted:
		x = 1
	}
	c := v.Args[1-x]
	ix := strideIndex(shape, broadcastStrides(v.Args[x].Type.Shape, shape))
	ic := strideIndex(shape, broadcastStrides(c.Type.Shape, shape))
	for o := range ix {
		if v.Args[x].Type.Encrypted {
			emit(o, x, ix[o], c.Array.Data[ic[o]])
		} else {
			bias(o, v.Args[x].Array.Data[ix[o]]*c.Array.Data[ic[o]])
		}
	}
	return nil
}

func evalDiv(v *Value, args []*Array) (*Array, error) {
	f := func(a, b float64) float64 { return a / b }
	if arithmetic(v.Args) == Int {
		for _, b := range args[1].Data {
			if b == 0 {
				return nil, fmt.Errorf("integer division by zero")
			}
		}
		f = func(a, b float64) float64 { return math.Trunc(a / b) }
	}
	return broadcast(v.Type.Shape, args[0], args[1], f), nil
}

func linearDiv(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
	a, b := v.Args[0], v.Args[1]
	if b.Type.Encrypted {
		return fmt.Errorf("a quotient by an encrypted tensor is not linear")
	}
	if !a.Type.Encrypted {
		return fmt.Errorf("quotient of constants is not folded")
	}
	shape := v.Type.Shape
	ia := strideIndex(shape, broadcastStrides(a.Type.Shape, shape))
	ib := strideIndex(shape, broadcastStrides(b.Type.Shape, shape))
	for o := range ia {
		d := b.Array.Data[ib[o]]
		if d == 0 {
			return fmt.Errorf("division by a constant that is zero at element %d", ib[o])
		}
		emit(o, 0, ia[o], 1/d)
	}
	return nil
}

func inferPow(v *Value) ([]int, DType, error) {
	k := v.Attrs.Float("k", 0)
	if math.IsNaN(k) || math.IsInf(k, 0) {
		return nil, 0, fmt.Errorf("attribute k is %v", k)
	}
	d := Real
	if k >= 0 && k == math.Trunc(k) {
		d = arithmetic(v.Args)
	}
	return v.Args[0].Type.Shape, d, nil
}

func evalPow(v *Value, args []*Array) (*Array, error) {
	k := v.Attrs.Float("k", 0)
	if k == 2 {
		return mapArray(args[0], func(x float64) float64 { return x * x }), nil
	}
	return mapArray(args[0], func(x float64) float64 { return math.Pow(x, k) }), nil
}

func mapArray(a *Array, f func(float64) float64) *Array {
	out := NewArray(a.Shape...)
	for i, x := range a.Data {
		out.Data[i] = f(x)
	}
	return out
}

func inferAct(v *Value) ([]int, DType, error) {
	if _, _, err := v.activation(); err != nil {
		return nil, 0, err
	}
	if a := v.Approx; a != nil {
		if len(a.Coef) == 0 || slices.ContainsFunc(a.Inner, func(c []float64) bool { return len(c) == 0 }) {
			return nil, 0, errors.New("polynomial without coefficients is malformed")
		}
		if n := len(a.Channels); n > 0 && (len(v.Args[0].Type.Shape) < 2 || v.Args[0].Type.Shape[1] != n) {
			return nil, 0, fmt.Errorf("ranges of %d channels for shape %v", n, v.Args[0].Type.Shape)
		}
		for _, h := range append(slices.Clone(a.Channels), Channel{a.Center, a.Bound, 1}) {
			if !(h.Bound > 0) || finite("range", []float64{h.Center, h.Bound, h.Gain}) != nil {
				return nil, 0, fmt.Errorf("range of a polynomial around %v with bound %v and factor %v is malformed", h.Center, h.Bound, h.Gain)
			}
		}
	}
	return v.Args[0].Type.Shape, Real, nil
}

func evalAct(v *Value, args []*Array) (*Array, error) {
	f, err := v.Activation()
	if err != nil {
		return nil, err
	}
	return mapArray(args[0], f), nil
}
