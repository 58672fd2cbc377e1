package frontend

import (
	"slices"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// headRows are the operators that normally end a classifier. At the end of the
// graph they move to the client; elsewhere they stay, and only clear mode runs
// them.
var headRows = []row{
	{op: "Softmax", minIn: 1, maxIn: 1, arith: true, note: "encrypted only as last operator, where the client does it", emit: importSoftmax(ir.OpSoftmax),
		attrs: []attrRow{{name: "axis", kind: attrInt}}},
	{op: "LogSoftmax", minIn: 1, maxIn: 1, arith: true, note: "encrypted only as last operator, where the client does it", emit: importSoftmax(ir.OpLogSoftmax),
		attrs: []attrRow{{name: "axis", kind: attrInt}}},
	{op: "ArgMax", minIn: 1, maxIn: 1, arith: true, note: "encrypted only as last operator, where the client does it", emit: importArgMax, attrs: []attrRow{
		{name: "axis", kind: attrInt}, {name: "keepdims", kind: attrInt}, {name: "select_last_index", kind: attrInt, since: 12}}},
}

// importSoftmax reads the axis. Before opset 13 the operator flattens the
// tensor to a matrix at the axis, whose default is 1.
func importSoftmax(op ir.Op) func(*call) error {
	return func(c *call) error {
		rank, def := c.in[0].rank(), -1
		if c.opset < 13 {
			def = 1
		}
		axis, err := c.axis(c.integer("axis", def), rank, "axis")
		if err != nil {
			return err
		}
		attrs := ir.Attrs{"axis": axis}
		if c.opset < 13 && axis < rank-1 {
			attrs["flat"] = 1
		}
		return c.set(c.emit(op, attrs, c.in[0]))
	}
}

func importArgMax(c *call) error {
	axis, err := c.axis(c.integer("axis", 0), c.in[0].rank(), "axis")
	if err != nil {
		return err
	}
	attrs := ir.Attrs{"axis": axis, "keepdims": 0, "last": 0}
	for onnxName, name := range map[string]string{"keepdims": "keepdims", "select_last_index": "last"} {
		f, err := c.flag(onnxName, name == "keepdims")
		if err != nil {
			return err
		}
		if f {
			attrs[name] = 1
		}
	}
	y, err := c.emit(ir.OpArgMax, attrs, c.in[0])
	if err != nil {
		return err
	}
	c.out[0] = &value{c: y.c, v: y.v, elem: elemInt64}
	return nil
}

// clientOps are the operators that the client can do after decryption.
var clientOps = map[ir.Op]string{ir.OpSoftmax: "Softmax", ir.OpLogSoftmax: "LogSoftmax", ir.OpArgMax: "ArgMax"}

// moveToClient takes trailing operators off a graph with one output and returns
// them in order of execution; Graph.Prune then drops them. Graphs with several outputs keep them, because
// the list applies to the whole result.
func moveToClient(g *ir.Graph) []plan.ClientOp {
	if len(g.Outputs) != 1 {
		return nil
	}
	var ops []plan.ClientOp
	for {
		v := g.Outputs[0]
		name, ok := clientOps[v.Op]
		if !ok || v.Type.Elems() == 0 {
			slices.Reverse(ops)
			return ops
		}
		in := v.Args[0]
		op := plan.ClientOp{Op: name, Node: v.Name, Shape: v.Type.Shape, Input: in.Type.Shape,
			Axis: v.Attrs.Int("axis", 0), Flat: v.Attrs.Int("flat", 0) == 1,
			Keep: v.Attrs.Int("keepdims", 1) == 1, Last: v.Attrs.Int("last", 0) == 1}
		if name != "ArgMax" {
			op.Keep = false
		}
		ops = append(ops, op)
		g.Outputs[0] = in
	}
}
