package frontend

import (
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
)

var constantRows = []row{
	{op: "Constant", minIn: 0, maxIn: 0, emit: importConstant, attrs: []attrRow{
		{name: "value", kind: attrTensor}, {name: "value_float", kind: attrFloat, since: 12}, {name: "value_floats", kind: attrFloats, since: 12},
		{name: "value_int", kind: attrInt, since: 12}, {name: "value_ints", kind: attrInts, since: 12}}},
	{op: "ConstantOfShape", since: 9, minIn: 1, maxIn: 1, emit: importConstantOfShape, attrs: []attrRow{{name: "value", kind: attrTensor}}},
	{op: "Range", since: 11, minIn: 3, maxIn: 3, note: "of constants", emit: importRange},
	{op: "Where", since: 9, minIn: 3, maxIn: 3, note: "condition constant", emit: importWhere},
	{op: "Equal", minIn: 2, maxIn: 2, note: "of constants", emit: compare(func(a, b float64) bool { return a == b })},
	{op: "Less", minIn: 2, maxIn: 2, note: "of constants", emit: compare(func(a, b float64) bool { return a < b })},
	{op: "LessOrEqual", since: 12, minIn: 2, maxIn: 2, note: "of constants", emit: compare(func(a, b float64) bool { return a <= b })},
	{op: "Greater", minIn: 2, maxIn: 2, note: "of constants", emit: compare(func(a, b float64) bool { return a > b })},
	{op: "GreaterOrEqual", since: 12, minIn: 2, maxIn: 2, note: "of constants", emit: compare(func(a, b float64) bool { return a >= b })},
	{op: "And", minIn: 2, maxIn: 2, note: "of constants", emit: compare(func(a, b float64) bool { return a != 0 && b != 0 })},
	{op: "Or", minIn: 2, maxIn: 2, note: "of constants", emit: compare(func(a, b float64) bool { return a != 0 || b != 0 })},
	{op: "Not", minIn: 1, maxIn: 1, note: "of constants", emit: foldUnary(func(a float64) float64 {
		if a == 0 {
			return 1
		}
		return 0
	})},
	{op: "Floor", minIn: 1, maxIn: 1, note: "of constants", emit: foldUnary(math.Floor)},
	{op: "Ceil", minIn: 1, maxIn: 1, note: "of constants", emit: foldUnary(math.Ceil)},
	{op: "Round", since: 11, minIn: 1, maxIn: 1, note: "of constants", emit: foldUnary(math.RoundToEven)},
}

func importConstant(c *call) error {
	if len(c.attrs) != 1 {
		return c.refuse("value", "", "%d attributes, want exactly one value", len(c.attrs))
	}
	switch {
	case c.has("value"):
		x, err := c.tensorAttr("value")
		return c.set(x, err)
	case c.has("value_float"):
		return c.set(c.finite(c.scalar(c.float("value_float", 0))))
	case c.has("value_int"):
		v, _ := c.attrs["value_int"].(int64)
		return c.set(&value{c: ir.Scalar(float64(v)), elem: elemInt64}, nil)
	case c.has("value_floats"):
		l, _ := c.attrs["value_floats"].([]float32)
		a := ir.NewArray(len(l))
		for i, f := range l {
			a.Data[i] = float64(f)
		}
		return c.set(c.finite(c.constant(a)))
	default:
		l, _ := c.attrs["value_ints"].([]int64)
		a := ir.NewArray(len(l))
		for i, f := range l {
			a.Data[i] = float64(f)
		}
		return c.set(&value{c: a, elem: elemInt64}, nil)
	}
}

// finite refuses NaN; infinities may serve as bounds.
func (c *call) finite(x *value) (*value, error) {
	if slices.ContainsFunc(x.c.Data, math.IsNaN) {
		return nil, c.refuse("value", "", "the constant holds NaN")
	}
	return x, nil
}

func importConstantOfShape(c *call) error {
	shape, err := c.intsArg(0, "shape")
	if err != nil {
		return err
	}
	if err := ir.CheckDims(shape); err != nil {
		return c.refuse("", "", "%w", err)
	}
	fill := &value{c: ir.Scalar(0), elem: elemFloat}
	if c.has("value") {
		if fill, err = c.tensorAttr("value"); err != nil {
			return err
		}
		if fill.elems() != 1 {
			return c.refuse("value", "", "shape %v, want one element", fill.shape())
		}
	}
	if err := c.afford(ir.NumElems(shape), 1); err != nil {
		return err
	}
	a := ir.NewArray(shape...)
	for i := range a.Data {
		a.Data[i] = fill.c.Data[0]
	}
	return c.set(&value{c: a, elem: fill.elem}, nil)
}

func importRange(c *call) error {
	var v [3]float64
	var err error
	for i, name := range []string{"start", "limit", "delta"} {
		if v[i], err = c.scalarArg(i, name); err != nil {
			return err
		}
		if math.IsInf(v[i], 0) {
			return c.refuse("", "", "%s is %v", name, v[i])
		}
	}
	if err := c.sameType(); err != nil {
		return err
	}
	if v[2] == 0 {
		return c.refuse("", "", "delta is 0")
	}
	f := max(0, math.Ceil((v[1]-v[0])/v[2]))
	if f > ir.MaxElems {
		return c.refuse("", "", "%v elements", f)
	}
	n := int(f)
	if err := c.afford(n, 1); err != nil {
		return err
	}
	a := ir.NewArray(n)
	for i := range a.Data {
		a.Data[i] = v[0] + float64(i)*v[2]
	}
	return c.set(&value{c: a, elem: c.in[0].elem}, nil)
}

// importWhere selects by a constant condition: of constants it folds, of
// encrypted values it is a*mask + b*(1-mask).
func importWhere(c *call) error {
	cond, err := c.constArg(0, "condition")
	if err != nil {
		return err
	}
	a, b := c.in[1], c.in[2]
	mask := &value{c: cond, elem: a.elem, name: c.n.name}
	if a.elem != b.elem {
		return c.refuse("", "", "operands of types %s and %s", a.elem, b.elem)
	}
	if a.c != nil && b.c != nil {
		shape, err := ir.Broadcast(a.c.Shape, b.c.Shape)
		if err == nil {
			shape, err = ir.Broadcast(shape, cond.Shape)
		}
		if err == nil {
			err = ir.CheckDims(shape)
		}
		if err != nil {
			return c.refuse("", "", "%w", err)
		}
		if err := c.afford(ir.NumElems(shape), 4); err != nil {
			return err
		}
		out := ir.NewArray(shape...)
		ic, ia, ib := broadcastIndex(cond.Shape, shape), broadcastIndex(a.c.Shape, shape), broadcastIndex(b.c.Shape, shape)
		for i := range out.Data {
			if cond.Data[ic[i]] != 0 {
				out.Data[i] = a.c.Data[ia[i]]
			} else {
				out.Data[i] = b.c.Data[ib[i]]
			}
		}
		return c.set(&value{c: out, elem: a.elem}, nil)
	}
	if !a.elem.real() {
		return c.refuse("", "cast it to float first", "selection between encrypted %s is not supported", a.elem)
	}
	inverse := ir.NewArray(cond.Shape...)
	for i, f := range cond.Data {
		inverse.Data[i] = 1 - f
	}
	if a, err = c.emit(ir.OpMul, nil, a, mask); err != nil {
		return err
	}
	if b, err = c.emit(ir.OpMul, nil, b, c.constant(inverse)); err != nil {
		return err
	}
	return c.set(c.emit(ir.OpAdd, nil, a, b))
}

// compare folds a comparison of constants.
func compare(f func(a, b float64) bool) func(*call) error {
	return func(c *call) error {
		for k := range c.in {
			if _, err := c.constArg(k, "operand"); err != nil {
				return err
			}
		}
		return c.set(c.zip(c.in[0], c.in[1], elemBool, func(a, b float64) float64 {
			if f(a, b) {
				return 1
			}
			return 0
		}))
	}
}

// foldUnary folds an elementwise function of a constant.
func foldUnary(f func(float64) float64) func(*call) error {
	return func(c *call) error {
		x, err := c.constArg(0, "operand")
		if err != nil {
			return err
		}
		if err := c.afford(len(x.Data), 1); err != nil {
			return err
		}
		a := ir.NewArray(x.Shape...)
		for i, v := range x.Data {
			a.Data[i] = f(v)
		}
		return c.set(&value{c: a, elem: c.in[0].elem}, nil)
	}
}
