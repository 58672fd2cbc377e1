package ir

import (
	"fmt"
	"math"
	"slices"
)

// MaxElems is the largest number of elements a tensor may have. It bounds what
// a hostile model can make the compiler allocate from a few bytes of text.
const MaxElems = 1 << 31

// The rows of the tensor vocabulary. Attribute conventions, shared by all rows:
//
//   - axes may be negative and then count from the last one;
//   - pads holds the pads before every axis, then those after every axis;
//   - strides and dilations default to ones, pads to zeros;
//   - shape is complete: the importer has resolved 0 and -1;
//   - flags (ceil, flat, keepdims, last, ...) are the integers 0 and 1.
var _ = register([]Info{
	{Op: OpInput, Name: "tensor.input", Vocab: Tensor, MinArgs: 0, MaxArgs: 0,
		Attrs:  []AttrSpec{{"shape", AttrInts, true}},
		Result: TensorKind, Doc: "encrypted input of the network; shape is static",
		Infer: inferInput, Eval: evalInput},
	{Op: OpConst, Name: "tensor.const", Vocab: Tensor, MinArgs: 0, MaxArgs: 0,
		Attrs:  []AttrSpec{{"dtype", AttrString, false}},
		Result: TensorKind, Doc: "constant Value.Array; dtype is f (default), i or b",
		Infer: inferConst, Eval: evalConst},
	{Op: OpConv, Name: "tensor.conv", Vocab: Tensor, MinArgs: 2, MaxArgs: 3,
		Attrs:  []AttrSpec{{"strides", AttrInts, false}, {"pads", AttrInts, false}, {"dilations", AttrInts, false}, {"group", AttrInt, false}},
		Result: TensorKind, Depth: 1, Doc: "cross-correlation of x [n,c,...] with w [m,c/group,...], plus bias [m]",
		Infer: rule(inferConv), Eval: checked(evalConv), Linear: affine(linearConv)},
	{Op: OpMatMul, Name: "tensor.matmul", Vocab: Tensor, MinArgs: 2, MaxArgs: 2,
		Result: TensorKind, Depth: 1, Doc: "matrix product over the last two axes, numpy rules for the others",
		Infer: rule(inferMatMul), Eval: checked(evalMatMul), Linear: affine(linearMatMul)},
	{Op: OpAdd, Name: "tensor.add", Vocab: Tensor, MinArgs: 2, MaxArgs: 2,
		Result: TensorKind, Doc: "a + b, broadcast",
		Infer: rule(inferBinary), Eval: checked(evalBinary(func(a, b float64) float64 { return a + b })), Linear: affine(linearAdd(1))},
	{Op: OpSub, Name: "tensor.sub", Vocab: Tensor, MinArgs: 2, MaxArgs: 2,
		Result: TensorKind, Doc: "a - b, broadcast",
		Infer: rule(inferBinary), Eval: checked(evalBinary(func(a, b float64) float64 { return a - b })), Linear: affine(linearAdd(-1))},
	{Op: OpMul, Name: "tensor.mul", Vocab: Tensor, MinArgs: 2, MaxArgs: 2,
		Result: TensorKind, Depth: 1, Doc: "a * b, broadcast",
		Infer: rule(inferBinary), Eval: checked(evalBinary(func(a, b float64) float64 { return a * b })), Linear: affine(linearMul)},
	{Op: OpDiv, Name: "tensor.div", Vocab: Tensor, MinArgs: 2, MaxArgs: 2,
		Result: TensorKind, Depth: 1, Doc: "a / b, broadcast; of integers, truncated towards zero",
		Infer: rule(inferBinary), Eval: checked(evalDiv), Linear: affine(linearDiv)},
	{Op: OpPow, Name: "tensor.pow", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"k", AttrFloat, true}},
		Result: TensorKind, Depth: 1, Doc: "x^k for a constant k; the depth is that of a square",
		Infer: rule(inferPow), Eval: checked(evalPow)},
	{Op: OpAvgPool, Name: "tensor.avgpool", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs: []AttrSpec{{"kernel", AttrInts, true}, {"strides", AttrInts, false}, {"pads", AttrInts, false},
			{"dilations", AttrInts, false}, {"ceil", AttrInt, false}, {"count_include_pad", AttrInt, false}},
		Result: TensorKind, Depth: 1, Doc: "mean of a sliding window over the axes after the second",
		Infer: rule(inferPool), Eval: checked(evalAvgPool), Linear: affine(linearAvgPool)},
	{Op: OpMaxPool, Name: "tensor.maxpool", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs: []AttrSpec{{"kernel", AttrInts, true}, {"strides", AttrInts, false}, {"pads", AttrInts, false},
			{"dilations", AttrInts, false}, {"ceil", AttrInt, false}},
		Result: TensorKind, Doc: "maximum of a sliding window over the axes after the second",
		Infer: rule(inferPool), Eval: checked(evalMaxPool)},
	{Op: OpReduceMean, Name: "tensor.reducemean", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"axes", AttrInts, false}, {"keepdims", AttrInt, false}},
		Result: TensorKind, Depth: 1, Doc: "mean over axes (all where absent); keepdims defaults to 1",
		Infer: rule(inferReduce), Eval: checked(evalReduce), Linear: affine(linearReduce)},
	{Op: OpReduceSum, Name: "tensor.reducesum", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"axes", AttrInts, false}, {"keepdims", AttrInt, false}},
		Result: TensorKind, Doc: "sum over axes (all where absent); keepdims defaults to 1",
		Infer: rule(inferReduce), Eval: checked(evalReduce), Linear: affine(linearReduce)},
	{Op: OpReduceMax, Name: "tensor.reducemax", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"axes", AttrInts, false}, {"keepdims", AttrInt, false}},
		Result: TensorKind, Doc: "maximum over axes (all where absent); keepdims defaults to 1",
		Infer: rule(inferReduce), Eval: checked(evalReduce)},
	{Op: OpPad, Name: "tensor.pad", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"pads", AttrInts, true}, {"mode", AttrString, false}, {"value", AttrFloat, false}},
		Result: TensorKind, Doc: "pad every axis: mode constant (default, with value), reflect, edge or wrap; negative pads crop",
		Infer: rule(inferPad), Eval: checked(evalMove(padTables)), Linear: affine(linearMove(padTables))},
	{Op: OpReshape, Name: "tensor.reshape", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"shape", AttrInts, true}},
		Result: TensorKind, Doc: "the same elements in row-major order under another shape",
		Infer: rule(inferReshape), Eval: checked(evalReshape), Linear: affine(linearMove(reshapeTables))},
	{Op: OpTranspose, Name: "tensor.transpose", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"perm", AttrInts, false}},
		Result: TensorKind, Doc: "axis i of the result is axis perm[i]; absent, the axes are reversed",
		Infer: rule(inferTranspose), Eval: checked(evalMove(transposeTables)), Linear: affine(linearMove(transposeTables))},
	{Op: OpConcat, Name: "tensor.concat", Vocab: Tensor, MinArgs: 1, MaxArgs: -1,
		Attrs:  []AttrSpec{{"axis", AttrInt, true}},
		Result: TensorKind, Doc: "join along axis",
		Infer: rule(inferConcat), Eval: checked(evalConcat), Linear: affine(linearConcat)},
	{Op: OpSlice, Name: "tensor.slice", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"starts", AttrInts, true}, {"ends", AttrInts, true}, {"axes", AttrInts, false}, {"steps", AttrInts, false}},
		Result: TensorKind, Doc: "starts to ends by steps along axes, negative bounds count from the end, all are clamped",
		Infer: rule(inferSlice), Eval: checked(evalMove(sliceTables)), Linear: affine(linearMove(sliceTables))},
	{Op: OpGather, Name: "tensor.gather", Vocab: Tensor, MinArgs: 2, MaxArgs: 2,
		Attrs:  []AttrSpec{{"axis", AttrInt, false}},
		Result: TensorKind, Doc: "slices of x along axis at constant indices; negative indices count from the end",
		Infer: rule(inferGather), Eval: checked(evalGather), Linear: affine(linearGather)},
	{Op: OpExpand, Name: "tensor.expand", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"shape", AttrInts, true}},
		Result: TensorKind, Doc: "broadcast x and shape to a common shape",
		Infer: rule(inferExpand), Eval: checked(evalMove(expandTables)), Linear: affine(linearMove(expandTables))},
	{Op: OpAct, Name: "tensor.act", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs: []AttrSpec{{"fn", AttrString, true}, {"alpha", AttrFloat, false}, {"beta", AttrFloat, false},
			{"gamma", AttrFloat, false}, {"min", AttrFloat, false}, {"max", AttrFloat, false}},
		Result: TensorKind, Doc: "the real function fn of the activation table in every element",
		Infer: rule(inferAct), Eval: checked(evalAct)},
	{Op: OpSoftmax, Name: "tensor.softmax", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"axis", AttrInt, false}, {"flat", AttrInt, false}},
		Result: TensorKind, Doc: "softmax along axis (default -1); flat joins all axes from axis on",
		Infer: rule(inferSoftmax), Eval: checked(evalSoftmax)},
	{Op: OpLogSoftmax, Name: "tensor.logsoftmax", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"axis", AttrInt, false}, {"flat", AttrInt, false}},
		Result: TensorKind, Doc: "logarithm of softmax along axis (default -1); flat joins all axes from axis on",
		Infer: rule(inferSoftmax), Eval: checked(evalSoftmax)},
	{Op: OpArgMax, Name: "tensor.argmax", Vocab: Tensor, MinArgs: 1, MaxArgs: 1,
		Attrs:  []AttrSpec{{"axis", AttrInt, false}, {"keepdims", AttrInt, false}, {"last", AttrInt, false}},
		Result: TensorKind, Doc: "index of the maximum along axis (default 0); of equal ones the first, or the last; keepdims defaults to 1",
		Infer: rule(inferArgMax), Eval: checked(evalArgMax)},
})

// linearFn is the Linear cell of the op table.
type linearFn = func(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error

// rule turns a shape rule into the Infer cell of a tensor op: it checks that
// the arguments are tensors, bounds the size of the result, and sets
// Encrypted where any argument is encrypted. Encrypted values are Real.
func rule(f func(v *Value) (shape []int, d DType, err error)) func(v *Value) (Type, error) {
	return func(v *Value) (Type, error) {
		t := Type{Kind: TensorKind}
		for i, a := range v.Args {
			if a.Type.Kind != TensorKind {
				return Type{}, fmt.Errorf("argument %d is a %s, want a tensor", i, a.Type.Kind)
			}
			t.Encrypted = t.Encrypted || a.Type.Encrypted
		}
		shape, d, err := f(v)
		if err != nil {
			return Type{}, err
		}
		if err := CheckDims(shape); err != nil {
			return Type{}, err
		}
		t.Shape = slices.Clone(shape)
		if !t.Encrypted {
			t.DType = d
		}
		return t, nil
	}
}

// checked turns an evaluator into the Eval cell of a tensor op: arrays that do
// not have the shapes of the arguments are an error.
func checked(f func(v *Value, args []*Array) (*Array, error)) func(v *Value, args []*Array) (*Array, error) {
	return func(v *Value, args []*Array) (*Array, error) {
		if len(args) != len(v.Args) {
			return nil, fmt.Errorf("%d arrays for %d arguments", len(args), len(v.Args))
		}
		for i, a := range args {
			want := v.Args[i].Type.Shape
			if a == nil || !slices.Equal(a.Shape, want) || len(a.Data) != NumElems(want) {
				return nil, fmt.Errorf("array for argument %d does not have shape %v", i, want)
			}
		}
		if v.Type.Kind != TensorKind {
			return nil, fmt.Errorf("result type %s is not a tensor", v.Type.Kind)
		}
		return f(v, args)
	}
}

// affine turns an affine map into the Linear cell of a tensor op. The map is
// over encrypted arguments; every other argument must be a constant. Entries
// come in ascending order of out, and exact zeros are left out.
func affine(f linearFn) linearFn {
	return func(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
		for i, a := range v.Args {
			if a.Type.Encrypted {
				continue
			}
			if a.Op != OpConst || a.Array == nil {
				return fmt.Errorf("argument %d (%s) is neither encrypted nor a folded constant", i, a.Name)
			}
		}
		return f(v,
			func(out, arg, in int, coef float64) {
				if coef != 0 {
					emit(out, arg, in, coef)
				}
			},
			func(out int, c float64) {
				if c != 0 {
					bias(out, c)
				}
			})
	}
}

// CheckDims rejects shapes with negative dimensions, more than 16 axes, or more
// than MaxElems elements.
func CheckDims(shape []int) error {
	if len(shape) > 16 {
		return fmt.Errorf("shape has %d axes, at most 16 are supported", len(shape))
	}
	n := 1
	for _, d := range shape {
		switch {
		case d < 0:
			return fmt.Errorf("shape %v has a negative dimension", shape)
		case d == 0:
			// no elements; the other dimensions are bounded all the same
		case d > MaxElems/n:
			return fmt.Errorf("shape %v has more than %d elements", shape, MaxElems)
		default:
			n *= d
		}
	}
	return nil
}

// Const appends a constant of the given element type. The array is not copied
// and must not change afterwards.
func (g *Graph) Const(name string, a *Array, d DType) (*Value, error) {
	v := &Value{Op: OpConst, Name: name, Array: a}
	if d != Real {
		v.Attrs = Attrs{"dtype": d.String()}
	}
	return g.Append(v)
}

// foldElems is how many elements Fold makes of any constants, however small;
// larger results must not be larger than the constants together. foldWork bounds
// the multiply-adds.
const (
	foldElems = 1 << 24
	foldWork  = 1 << 32
)

// Fold evaluates a tensor value whose arguments are all constants. The second
// result is false where v is an input, a constant, or depends on something that
// is not a constant. A result that is large and larger than the constants it comes
// from, or far too costly, is an error: no sane model folds to it. The result may
// share data with an argument.
func Fold(v *Value) (*Array, bool, error) {
	info := v.Op.Info()
	if info.Vocab != Tensor || v.Op == OpInput || v.Op == OpConst || info.Eval == nil {
		return nil, false, nil
	}
	args := make([]*Array, len(v.Args))
	total := 0
	for i, a := range v.Args {
		if a.Op != OpConst || a.Array == nil {
			return nil, false, nil
		}
		args[i] = a.Array
		total += len(a.Array.Data)
	}
	n := v.Type.Elems()
	if n > max(foldElems, total) {
		return nil, true, &NodeError{Node: v.Name, Op: info.Name,
			Err: fmt.Errorf("constant of shape %v made from %d elements is too large to fold", v.Type.Shape, total)}
	}
	per, work := 1, foldWork
	switch v.Op {
	case OpConv: // its patch matrix holds that many elements
		per, work = innerProduct(v), foldWork>>6
	case OpMatMul:
		per = innerProduct(v)
	case OpAvgPool, OpMaxPool: // axis by axis, so each is as long as before or after
		for d, k := range v.Args[0].Type.Shape {
			per *= max(k, v.Type.Shape[d])
		}
		per, work = per/max(n, 1)+1, foldWork>>6
	case OpReduceMean, OpReduceSum, OpReduceMax:
		per = total/max(n, 1) + 1
	}
	if n > work/max(per, 1) {
		return nil, true, &NodeError{Node: v.Name, Op: info.Name,
			Err: fmt.Errorf("folding %d elements of %d products each costs too much", n, per)}
	}
	r, err := info.Eval(v, args)
	if err != nil {
		return nil, true, &NodeError{Node: v.Name, Op: info.Name, Err: err}
	}
	return r, true, nil
}

// axis resolves an axis of a tensor of the given rank.
func axis(a, rank int) (int, error) {
	r := a
	if r < 0 {
		r += rank
	}
	if r < 0 || r >= rank {
		return 0, fmt.Errorf("axis %d of a tensor with %d axes", a, rank)
	}
	return r, nil
}

// boolAttr reads an attribute that must be 0 or 1.
func boolAttr(v *Value, name string, def int) (bool, error) {
	switch x := v.Attrs.Int(name, def); x {
	case 0:
		return false, nil
	case 1:
		return true, nil
	default:
		return false, fmt.Errorf("attribute %s is %d, want 0 or 1", name, x)
	}
}

func inferInput(v *Value) (Type, error) {
	shape := v.Attrs.Ints("shape")
	if err := CheckDims(shape); err != nil {
		return Type{}, err
	}
	if slices.Contains(shape, 0) {
		return Type{}, fmt.Errorf("input of shape %v has no elements", shape)
	}
	return TensorType(slices.Clone(shape)...), nil
}

func evalInput(v *Value, _ []*Array) (*Array, error) {
	return nil, fmt.Errorf("input %s has no value of its own: the evaluator binds it", v.Name)
}

func inferConst(v *Value) (Type, error) {
	if v.Array == nil {
		return Type{}, fmt.Errorf("constant without data")
	}
	if err := CheckDims(v.Array.Shape); err != nil {
		return Type{}, err
	}
	if n := NumElems(v.Array.Shape); n != len(v.Array.Data) {
		return Type{}, fmt.Errorf("constant of shape %v has %d elements", v.Array.Shape, len(v.Array.Data))
	}
	t := Type{Kind: TensorKind, Shape: slices.Clone(v.Array.Shape)}
	switch s := v.Attrs.Str("dtype", "f"); s {
	case "f":
		return t, nil
	case "i":
		t.DType = Int
	case "b":
		t.DType = Bool
	default:
		return Type{}, fmt.Errorf("attribute dtype is %q, want f, i or b", s)
	}
	for i, x := range v.Array.Data {
		if x != math.Trunc(x) || t.DType == Bool && x != 0 && x != 1 {
			return Type{}, fmt.Errorf("element %d of the constant is %v, which is not of dtype %s", i, x, t.DType)
		}
	}
	return t, nil
}

func evalConst(v *Value, _ []*Array) (*Array, error) {
	if v.Array == nil {
		return nil, fmt.Errorf("constant without data")
	}
	return v.Array, nil
}
