package ir

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"
)

// Array is a dense row-major array of float64, the value domain of the tensor
// vocabulary. A nil or empty shape is a scalar with one element. Integers and
// booleans of shape computations are held exactly (|v| < 2^53).
type Array struct {
	Shape []int
	Data  []float64
}

// NewArray allocates a zero array.
func NewArray(shape ...int) *Array {
	return &Array{Shape: slices.Clone(shape), Data: make([]float64, NumElems(shape))}
}

// ArrayOf wraps data without copying. It panics if the lengths disagree,
// which is a caller's bug: sizes of outside data are checked by the importers.
func ArrayOf(data []float64, shape ...int) *Array {
	if NumElems(shape) != len(data) {
		panic(fmt.Sprintf("BUG: %d values for shape %v", len(data), shape))
	}
	return &Array{Shape: slices.Clone(shape), Data: data}
}

// Scalar returns a zero-dimensional array.
func Scalar(v float64) *Array { return &Array{Data: []float64{v}} }

// Reshape returns a view of the same data under another shape.
func (a *Array) Reshape(shape ...int) *Array { return ArrayOf(a.Data, shape...) }

// Clone returns a deep copy.
func (a *Array) Clone() *Array {
	return &Array{Shape: slices.Clone(a.Shape), Data: slices.Clone(a.Data)}
}

// Dense returns a gorgonia tensor over the same backing, for the operations
// that gorgonia does well on contiguous matrices.
func (a *Array) Dense() *tensor.Dense {
	return tensor.New(tensor.WithShape(a.Shape...), tensor.WithBacking(a.Data))
}

// MaxAbs returns the largest magnitude; 0 for an empty array.
func (a *Array) MaxAbs() float64 {
	m := 0.0
	for _, v := range a.Data {
		if w := math.Abs(v); w > m || math.IsNaN(w) {
			m = w
		}
	}
	return m
}

// Strides returns the row-major strides of a shape, in elements.
func Strides(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}

// MatMul multiplies contiguous matrices a [m,k] and b [k,n]. It and MatMulInto
// are the only gorgonia products the project uses: products over sliced views
// are wrong in gorgonia v0.9.24, and arrays here are always contiguous.
func MatMul(a, b *Array) (*Array, error) {
	if len(a.Shape) != 2 || len(b.Shape) != 2 {
		return nil, fmt.Errorf("matrix product of shapes %v and %v", a.Shape, b.Shape)
	}
	out := NewArray(a.Shape[0], b.Shape[1])
	if err := MatMulInto(out, a, b); err != nil {
		return nil, err
	}
	return out, nil
}

// MatMulInto writes the product of contiguous matrices a [m,k] and b [k,n] into
// out [m,n], which must not overlap them.
func MatMulInto(out, a, b *Array) error {
	if len(a.Shape) != 2 || len(b.Shape) != 2 || a.Shape[1] != b.Shape[0] ||
		!slices.Equal(out.Shape, []int{a.Shape[0], b.Shape[1]}) {
		return fmt.Errorf("matrix product of shapes %v and %v into %v", a.Shape, b.Shape, out.Shape)
	}
	if len(a.Data) == 0 || len(b.Data) == 0 {
		clear(out.Data)
		return nil
	}
	if fma && b.Shape[1] >= gemmTile {
		gemm(out.Data, a.Data, b.Data, a.Shape[0], a.Shape[1], b.Shape[1])
		return nil
	}
	if _, err := tensor.MatMul(a.Dense(), b.Dense(), tensor.WithReuse(out.Dense())); err != nil {
		return fmt.Errorf("matrix product: %w", err)
	}
	return nil
}
