package frontend

import (
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
)

var linearRows = []row{
	{op: "Conv", minIn: 2, maxIn: 3, arith: true, note: "weights and bias constant", emit: importConv, attrs: []attrRow{
		{name: "auto_pad", kind: attrString}, {name: "dilations", kind: attrInts}, {name: "group", kind: attrInt},
		{name: "kernel_shape", kind: attrInts}, {name: "pads", kind: attrInts}, {name: "strides", kind: attrInts}}},
	{op: "Gemm", minIn: 2, maxIn: 3, arith: true, emit: importGemm, attrs: []attrRow{
		{name: "alpha", kind: attrFloat}, {name: "beta", kind: attrFloat}, {name: "broadcast", kind: attrInt, until: 6}, {name: "transA", kind: attrInt}, {name: "transB", kind: attrInt}}},
	{op: "MatMul", minIn: 2, maxIn: 2, arith: true, emit: func(c *call) error { return c.set(c.emit(ir.OpMatMul, nil, c.in[0], c.in[1])) }},
	{op: "Add", minIn: 2, maxIn: 2, arith: true, emit: elementwise(ir.OpAdd)},
	{op: "Sub", minIn: 2, maxIn: 2, arith: true, emit: elementwise(ir.OpSub)},
	{op: "Mul", minIn: 2, maxIn: 2, arith: true, emit: elementwise(ir.OpMul)},
	{op: "Div", minIn: 2, maxIn: 2, arith: true, emit: importDiv},
	{op: "Sum", minIn: 1, maxIn: -1, arith: true, emit: importSum},
	{op: "Mean", minIn: 1, maxIn: -1, arith: true, emit: importMean},
	{op: "Neg", minIn: 1, maxIn: 1, arith: true, emit: func(c *call) error {
		minus := &value{c: ir.Scalar(-1), elem: c.in[0].elem, name: c.n.name}
		return c.set(c.emit(ir.OpMul, nil, c.in[0], minus))
	}},
	{op: "Pow", minIn: 2, maxIn: 2, arith: true, note: "exponent constant, the same for all elements", emit: importPow},
	{op: "BatchNormalization", minIn: 5, maxIn: 5, arith: true, note: "inference only", emit: importBatchNorm, attrs: []attrRow{
		{name: "epsilon", kind: attrFloat}, {name: "is_test", kind: attrInt, until: 6}, {name: "momentum", kind: attrFloat}, {name: "spatial", kind: attrInt, until: 8},
		{name: "training_mode", kind: attrInt, since: 14}}},
	{op: "ReduceMean", minIn: 1, maxIn: 2, arith: true, emit: importReduce(ir.OpReduceMean, 18), attrs: reduceAttrs(18)},
	{op: "ReduceSum", minIn: 1, maxIn: 2, arith: true, emit: importReduce(ir.OpReduceSum, 13), attrs: reduceAttrs(13)},
	{op: "ReduceMax", minIn: 1, maxIn: 2, arith: true, emit: importReduce(ir.OpReduceMax, 18), attrs: reduceAttrs(18)},
	{op: "ReduceSumSquare", minIn: 1, maxIn: 2, arith: true, emit: importReduceSquare, attrs: reduceAttrs(18)},
}

// elementwise imports an operator of two operands with numpy broadcasting.
func elementwise(op ir.Op) func(*call) error {
	return func(c *call) error {
		if err := c.sameType(); err != nil {
			return err
		}
		return c.set(c.emit(op, nil, c.in[0], c.in[1]))
	}
}

// sameType refuses operands of different element types, which ONNX forbids, and
// before opset 7 operands of different shapes, which then needed an attribute
// to broadcast.
func (c *call) sameType() error {
	for _, x := range c.in[1:] {
		if c.opset < 7 && c.n.op != "Concat" && !slices.Equal(x.shape(), c.in[0].shape()) {
			return c.refuse("broadcast", "convert the model to opset 7 or later", "operands of shapes %v and %v before opset 7", c.in[0].shape(), x.shape())
		}
		if x.elem != c.in[0].elem && !(x.elem.real() && c.in[0].elem.real()) {
			return c.refuse("", "", "operands of types %s and %s", c.in[0].elem, x.elem)
		}
	}
	return nil
}

func importDiv(c *call) error {
	if err := c.sameType(); err != nil {
		return err
	}
	if d := c.in[1].c; d != nil && slices.Contains(d.Data, 0) {
		return c.refuse("", "", "division by a constant that holds 0")
	}
	return c.set(c.emit(ir.OpDiv, nil, c.in[0], c.in[1]))
}

func importSum(c *call) error {
	if err := c.sameType(); err != nil {
		return err
	}
	x := c.in[0]
	var err error
	for _, y := range c.in[1:] {
		if x, err = c.emit(ir.OpAdd, nil, x, y); err != nil {
			return err
		}
	}
	return c.set(x, nil)
}

func importMean(c *call) error {
	if err := importSum(c); err != nil || len(c.in) == 1 {
		return err
	}
	return c.set(c.emit(ir.OpMul, nil, c.out[0], c.scalar(1/float64(len(c.in)))))
}

func importPow(c *call) error {
	e := c.in[1].c
	if e == nil || len(e.Data) == 0 {
		return c.refuse("", "", "the exponent must be a constant")
	}
	x := c.in[0]
	if x.c != nil { // both constant: fold elementwise
		return c.set(c.zip(x, c.in[1], x.elem, math.Pow))
	}
	k := e.Data[0]
	for _, f := range e.Data {
		if f != k {
			return c.refuse("", "", "exponents that differ from element to element are not supported")
		}
	}
	if math.IsInf(k, 0) || math.IsNaN(k) {
		return c.refuse("", "", "exponent %v", k)
	}
	out, err := ir.Broadcast(x.shape(), e.Shape)
	if err != nil {
		return c.refuse("", "", "%w", err)
	}
	if !slices.Equal(out, x.shape()) {
		if x, err = c.emit(ir.OpExpand, ir.Attrs{"shape": out}, x); err != nil {
			return err
		}
	}
	switch k {
	case 1:
		return c.set(x, nil)
	case 0.5:
		return c.set(c.act("sqrt", nil, x))
	case -1:
		return c.set(c.act("reciprocal", nil, x))
	}
	if k <= 0 || k != math.Trunc(k) {
		return c.refuse("", "", "x^%v of encrypted data is not supported; powers are 0.5, -1 and whole numbers from 1", k)
	}
	return c.set(c.emit(ir.OpPow, ir.Attrs{"k": k}, x))
}

// zip folds an elementwise function of two constants.
func (c *call) zip(a, b *value, elem elemType, f func(a, b float64) float64) (*value, error) {
	shape, err := ir.Broadcast(a.c.Shape, b.c.Shape)
	if err == nil {
		err = ir.CheckDims(shape)
	}
	if err != nil {
		return nil, c.refuse("", "", "%w", err)
	}
	if err := c.afford(ir.NumElems(shape), 1); err != nil {
		return nil, err
	}
	ia, ib := broadcastIndex(a.c.Shape, shape), broadcastIndex(b.c.Shape, shape)
	for _, x := range []*value{a, b} {
		for _, v := range x.c.Data {
			if x.elem.integer() && math.Abs(v) > 1<<53 {
				return nil, c.refuse("", "", "integer constant %v is beyond the exact range", v)
			}
		}
	}
	out := ir.NewArray(shape...)
	for i := range out.Data {
		v := f(a.c.Data[ia[i]], b.c.Data[ib[i]])
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, c.refuse("", "", "element %d of the constant result is %v", i, v)
		}
		if !elem.real() {
			v = math.Trunc(v)
		}
		out.Data[i] = v
	}
	if err := c.wrap(out, elem); err != nil {
		return nil, err
	}
	return &value{c: out, elem: elem}, nil
}

// broadcastIndex returns, for each element of the shape out, the element of an
// operand of shape in that it reads.
func broadcastIndex(in, out []int) []int {
	idx := make([]int, ir.NumElems(out))
	st := ir.Strides(in)
	off := len(out) - len(in)
	pos := make([]int, len(out))
	for i := range idx {
		at := 0
		for d, s := range st {
			if in[d] != 1 {
				at += pos[off+d] * s
			}
		}
		idx[i] = at
		for d := len(out) - 1; d >= 0; d-- {
			if pos[d]++; pos[d] < out[d] {
				break
			}
			pos[d] = 0
		}
	}
	return idx
}

func importConv(c *call) error {
	if _, err := c.constArg(1, "weights"); err != nil {
		return err
	}
	x, w := c.in[0], c.in[1]
	kernel := w.shape()
	if len(kernel) < 3 || len(kernel) != x.rank() {
		return c.refuse("", "", "weights of shape %v for an input of shape %v", kernel, x.shape())
	}
	kernel = kernel[2:]
	if c.has("kernel_shape") && !slices.Equal(c.integers("kernel_shape"), kernel) {
		return c.refuse("kernel_shape", "", "%v does not match weights of shape %v", c.integers("kernel_shape"), w.shape())
	}
	win, err := c.window(x.shape(), kernel)
	if err != nil {
		return err
	}
	args := []*value{x, w}
	if len(c.in) == 3 {
		if _, err := c.constArg(2, "bias"); err != nil {
			return err
		}
		args = append(args, c.in[2])
	}
	return c.set(c.emit(ir.OpConv, ir.Attrs{"strides": win.strides, "pads": win.pads, "dilations": win.dilations,
		"group": c.integer("group", 1)}, args...))
}

func importGemm(c *call) error {
	a, b := c.in[0], c.in[1]
	if a.rank() != 2 || b.rank() != 2 {
		return c.refuse("", "", "operands of shapes %v and %v, want matrices", a.shape(), b.shape())
	}
	var err error
	for i, name := range []string{"transA", "transB"} {
		t, ferr := c.flag(name, false)
		if ferr != nil {
			return ferr
		}
		if !t {
			continue
		}
		dst := []**value{&a, &b}[i]
		if *dst, err = c.emit(ir.OpTranspose, ir.Attrs{"perm": []int{1, 0}}, *dst); err != nil {
			return err
		}
	}
	// alpha goes into the constant operand where there is one.
	if alpha := c.float("alpha", 1); alpha != 1 {
		dst := &a
		if b.c != nil {
			dst = &b
		}
		if *dst, err = c.emit(ir.OpMul, nil, *dst, c.scalar(alpha)); err != nil {
			return err
		}
	}
	y, err := c.emit(ir.OpMatMul, nil, a, b)
	if err != nil {
		return err
	}
	if bias := c.arg(2); bias != nil {
		if beta := c.float("beta", 1); beta != 1 {
			if bias, err = c.emit(ir.OpMul, nil, bias, c.scalar(beta)); err != nil {
				return err
			}
		}
		shape := y.shape()
		if free, err := c.flag("broadcast", c.opset >= 7); err != nil {
			return err
		} else if !free && !slices.Equal(shape, bias.shape()) {
			return c.refuse("broadcast", "", "C of shape %v for a result of shape %v", bias.shape(), shape)
		}
		if s, err := ir.Broadcast(shape, bias.shape()); err != nil || !slices.Equal(s, shape) {
			return c.refuse("", "", "C of shape %v does not broadcast to %v", bias.shape(), shape)
		}
		if y, err = c.emit(ir.OpAdd, nil, y, bias); err != nil {
			return err
		}
	}
	return c.set(y, nil)
}

// importBatchNorm turns y = scale*(x-mean)/sqrt(var+epsilon) + bias into one
// multiplication and one addition with constants.
func importBatchNorm(c *call) error {
	x := c.in[0]
	if x.rank() < 2 {
		return c.refuse("", "", "input of shape %v has no channel axis", x.shape())
	}
	if err := c.isTest(); err != nil {
		return err
	}
	if t, err := c.flag("training_mode", false); err != nil {
		return err
	} else if t {
		return c.refuse("training_mode", "export the model for inference", "training statistics are not supported")
	}
	if s, err := c.flag("spatial", true); err != nil {
		return err
	} else if !s {
		return c.refuse("spatial", "", "statistics per element instead of per channel are not supported")
	}
	channels := x.shape()[1]
	var p [4]*ir.Array
	for i, name := range []string{"scale", "bias", "mean", "variance"} {
		a, err := c.constArg(i+1, name)
		if err != nil {
			return err
		}
		if len(a.Shape) != 1 || a.Shape[0] != channels {
			return c.refuse("", "", "%s of shape %v for %d channels", name, a.Shape, channels)
		}
		for _, f := range a.Data {
			if math.IsInf(f, 0) {
				return c.refuse("", "", "%s (%s) holds %v", name, c.n.inputs[i+1], f)
			}
		}
		p[i] = a
	}
	eps := c.float("epsilon", 1e-5)
	shape := make([]int, x.rank()-1)
	for i := range shape {
		shape[i] = 1
	}
	shape[0] = channels
	mul, add := ir.NewArray(shape...), ir.NewArray(shape...)
	for i := range channels {
		v := p[3].Data[i] + eps
		if !(v > 0) {
			return c.refuse("", "", "variance plus epsilon of channel %d is %v, not positive", i, v)
		}
		mul.Data[i] = p[0].Data[i] / math.Sqrt(v)
		add.Data[i] = p[1].Data[i] - p[2].Data[i]*mul.Data[i]
	}
	y, err := c.emit(ir.OpMul, nil, x, c.constant(mul))
	if err != nil {
		return err
	}
	return c.set(c.emit(ir.OpAdd, nil, y, c.constant(add)))
}

// reduceAttrs are the attributes of reductions, whose axes become an input in
// opset moved.
func reduceAttrs(moved int) []attrRow {
	return []attrRow{{name: "axes", kind: attrInts, until: moved - 1}, {name: "keepdims", kind: attrInt},
		{name: "noop_with_empty_axes", kind: attrInt, since: moved}}
}

// reduceAxes returns the axes of a reduction, sorted; none says that the node
// passes its input through.
func (c *call) reduceAxes(moved int) (axes []int, none bool, err error) {
	rank := c.in[0].rank()
	var list []int
	if c.opset < moved {
		if c.arg(1) != nil {
			return nil, false, c.refuse("", "", "axes are an attribute before opset %d", moved)
		}
		list = c.integers("axes")
	} else if c.arg(1) != nil {
		if list, err = c.intsArg(1, "axes"); err != nil {
			return nil, false, err
		}
	}
	if len(list) == 0 {
		noop, err := c.flag("noop_with_empty_axes", false)
		if err != nil || noop {
			return nil, noop, err
		}
		for i := range rank {
			list = append(list, i)
		}
	}
	axes, err = c.axes(list, rank, "axes")
	return axes, false, err
}

func importReduce(op ir.Op, moved int) func(*call) error {
	return func(c *call) error {
		axes, none, err := c.reduceAxes(moved)
		if err != nil {
			return err
		}
		keep, err := c.flag("keepdims", true)
		if err != nil {
			return err
		}
		if none || len(axes) == 0 {
			return c.set(c.in[0], nil)
		}
		return c.set(c.reduce(op, c.in[0], axes, keep))
	}
}

func (c *call) reduce(op ir.Op, x *value, axes []int, keep bool) (*value, error) {
	if !x.elem.real() && op == ir.OpReduceMean {
		return nil, c.refuse("", "", "the mean of %s is not supported", x.elem)
	}
	k := 0
	if keep {
		k = 1
	}
	return c.emit(op, ir.Attrs{"axes": axes, "keepdims": k}, x)
}

func importReduceSquare(c *call) error {
	axes, none, err := c.reduceAxes(18)
	if err != nil {
		return err
	}
	keep, err := c.flag("keepdims", true)
	if err != nil {
		return err
	}
	y, err := c.emit(ir.OpMul, nil, c.in[0], c.in[0])
	if err != nil || none || len(axes) == 0 {
		return c.set(y, err)
	}
	return c.set(c.reduce(ir.OpReduceSum, y, axes, keep))
}
