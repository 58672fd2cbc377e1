package frontend

import (
	"slices"

	"github.com/home-fhe/home/ir"
)

// normRows are normalisations by statistics of the data itself. They become
// means, products, a square root and a reciprocal, of which clear mode is
// exact; encrypted, the root and the reciprocal are approximated like other
// activations.
var normRows = []row{
	{op: "LayerNormalization", since: 17, minIn: 2, maxIn: 3, arith: true, emit: importLayerNorm, attrs: []attrRow{
		{name: "axis", kind: attrInt}, {name: "epsilon", kind: attrFloat}, {name: "stash_type", kind: attrInt}}},
	{op: "RMSNormalization", since: 23, minIn: 2, maxIn: 2, arith: true, emit: importRMSNorm, attrs: []attrRow{
		{name: "axis", kind: attrInt}, {name: "epsilon", kind: attrFloat}, {name: "stash_type", kind: attrInt}}},
	{op: "InstanceNormalization", minIn: 3, maxIn: 3, arith: true, emit: importInstanceNorm, attrs: []attrRow{{name: "epsilon", kind: attrFloat}}},
}

// lastAxes returns the axes from the attribute axis (default -1) to the last.
// Statistics in another precision than float32 (stash_type) are refused.
func (c *call) lastAxes() ([]int, error) {
	if t := elemType(c.integer("stash_type", int(elemFloat))); t != elemFloat {
		return nil, c.refuse("stash_type", "", "statistics in %s are not supported", t)
	}
	rank := c.in[0].rank()
	first, err := c.axis(c.integer("axis", -1), rank, "axis")
	if err != nil {
		return nil, err
	}
	var axes []int
	for d := first; d < rank; d++ {
		axes = append(axes, d)
	}
	return axes, nil
}

// inverseRoot returns 1/sqrt(mean(x^2) + epsilon) over axes, which stay as ones.
func (c *call) inverseRoot(x *value, axes []int) (*value, error) {
	y, err := c.emit(ir.OpMul, nil, x, x)
	if err != nil {
		return nil, err
	}
	if y, err = c.reduce(ir.OpReduceMean, y, axes, true); err != nil {
		return nil, err
	}
	if y, err = c.emit(ir.OpAdd, nil, y, c.scalar(c.float("epsilon", 1e-5))); err != nil {
		return nil, err
	}
	if y, err = c.act("sqrt", nil, y); err != nil {
		return nil, err
	}
	return c.act("reciprocal", nil, y)
}

// scaled multiplies by a constant and adds another, nil for none. Neither may
// widen the shape.
func (c *call) scaled(x, scale, bias *value) (*value, error) {
	shape := x.shape()
	for i, k := range []*value{scale, bias} {
		if k == nil {
			continue
		}
		if k.c == nil {
			return nil, c.refuse("", "", "scale and bias must be constants")
		}
		if s, err := ir.Broadcast(shape, k.shape()); err != nil || !slices.Equal(s, shape) {
			return nil, c.refuse("", "", "scale or bias of shape %v for an input of shape %v", k.shape(), shape)
		}
		op := []ir.Op{ir.OpMul, ir.OpAdd}[i]
		var err error
		if x, err = c.emit(op, nil, x, k); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// centred returns the mean over axes and the deviation from it.
func (c *call) centred(x *value, axes []int) (mean, dev *value, err error) {
	if mean, err = c.reduce(ir.OpReduceMean, x, axes, true); err != nil {
		return nil, nil, err
	}
	dev, err = c.emit(ir.OpSub, nil, x, mean)
	return mean, dev, err
}

// importLayerNorm also yields the mean and the inverse deviation, the second
// and third output.
func importLayerNorm(c *call) error {
	axes, err := c.lastAxes()
	if err != nil {
		return err
	}
	mean, dev, err := c.centred(c.in[0], axes)
	if err != nil {
		return err
	}
	inv, err := c.inverseRoot(dev, axes)
	if err != nil {
		return err
	}
	y, err := c.emit(ir.OpMul, nil, dev, inv)
	if err != nil {
		return err
	}
	if y, err = c.scaled(y, c.in[1], c.arg(2)); err != nil {
		return err
	}
	copy(c.out, []*value{y, mean, inv})
	return nil
}

func importRMSNorm(c *call) error {
	axes, err := c.lastAxes()
	if err != nil {
		return err
	}
	inv, err := c.inverseRoot(c.in[0], axes)
	if err != nil {
		return err
	}
	y, err := c.emit(ir.OpMul, nil, c.in[0], inv)
	if err != nil {
		return err
	}
	return c.set(c.scaled(y, c.in[1], nil))
}

func importInstanceNorm(c *call) error {
	x := c.in[0]
	if x.rank() < 3 {
		return c.refuse("", "", "input of shape %v has no spatial axes, want [batch, channels, ...]", x.shape())
	}
	shape := slices.Repeat([]int{1}, x.rank()-1)
	shape[0] = x.shape()[1]
	var axes []int
	for d := 2; d < x.rank(); d++ {
		axes = append(axes, d)
	}
	var per [2]*value
	for i := range per {
		a, err := c.constArg(i+1, "scale or bias")
		if err != nil {
			return err
		}
		if len(a.Shape) != 1 || a.Shape[0] != shape[0] {
			return c.refuse("", "", "scale or bias of shape %v for %d channels", a.Shape, shape[0])
		}
		per[i] = c.constant(a.Reshape(shape...))
	}
	_, dev, err := c.centred(x, axes)
	if err != nil {
		return err
	}
	inv, err := c.inverseRoot(dev, axes)
	if err != nil {
		return err
	}
	y, err := c.emit(ir.OpMul, nil, dev, inv)
	if err != nil {
		return err
	}
	return c.set(c.scaled(y, per[0], per[1]))
}
