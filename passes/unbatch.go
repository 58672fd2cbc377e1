package passes

import (
	"slices"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// unbatch rewrites a network that takes a fixed number of samples at once as one
// that takes a single sample, where every op treats samples alike and apart.
// Packing finds places for one sample, and for several by itself.
func unbatch(u *unit) error {
	in := u.graph.Inputs[0]
	shape := in.Type.Shape
	if len(shape) < 2 || shape[0] < 2 {
		return nil
	}
	batch := shape[0]
	client := make([]plan.ClientOp, len(u.client))
	for i, c := range u.client {
		if c.Axis == 0 || c.Axis == -len(c.Input) || len(c.Shape) == 0 || len(c.Input) == 0 || c.Shape[0] != batch || c.Input[0] != batch {
			return nil
		}
		c.Shape, c.Input = single(c.Shape), single(c.Input)
		client[i] = c
	}
	g := oneSample(u.graph, batch)
	if g == nil {
		return nil
	}
	var samples []*ir.Array
	for _, s := range u.opt.Calibrate {
		if !slices.Equal(s.Shape, shape) {
			return nil // refused by calibration, in the words of the model
		}
		n := len(s.Data) / batch
		for i := range batch {
			samples = append(samples, ir.ArrayOf(s.Data[i*n:(i+1)*n], single(shape)...))
		}
	}
	u.graph, u.client, u.opt.Calibrate = g, client, samples
	u.note("unbatch: the model takes %d samples at once, the plan takes them one by one", batch)
	return nil
}

// single is a shape with one sample.
func single(shape []int) []int {
	s := slices.Clone(shape)
	s[0] = 1
	return s
}

// oneSample returns a network of batches as one of single samples, nil where an op
// stands in the way.
func oneSample(g *ir.Graph, batch int) *ir.Graph {
	out := &ir.Graph{Name: g.Name}
	twin := map[*ir.Value]*ir.Value{}
	for _, v := range g.Values {
		c := *v
		c.Args = make([]*ir.Value, len(v.Args))
		for i, a := range v.Args {
			c.Args[i] = twin[a]
		}
		if v.Type.Encrypted {
			if len(v.Type.Shape) == 0 || v.Type.Shape[0] != batch || !apart(v, batch) {
				return nil
			}
			if s := v.Attrs.Ints("shape"); s != nil {
				c.Attrs = ir.Attrs{"shape": single(s)}
			}
		}
		w, err := out.Append(&c)
		if err != nil || v.Type.Encrypted && !slices.Equal(w.Type.Shape, single(v.Type.Shape)) {
			return nil
		}
		if twin[v] = w; v.Op == ir.OpInput {
			out.Inputs = append(out.Inputs, w)
		}
	}
	for _, o := range g.Outputs {
		if !o.Type.Encrypted {
			return nil
		}
		out.Outputs = append(out.Outputs, twin[o])
	}
	return out
}

// apart reports whether every sample of an encrypted result depends on the sample
// of the same number of encrypted arguments only, and in the same way.
func apart(v *ir.Value, batch int) bool {
	inner := func(axes ...int) bool { // none is the first
		return !slices.ContainsFunc(axes, func(a int) bool { return a == 0 || a == -len(v.Args[0].Type.Shape) })
	}
	encrypted := func(args ...*ir.Value) bool {
		return !slices.ContainsFunc(args, func(a *ir.Value) bool { return !a.Type.Encrypted })
	}
	switch v.Op {
	case ir.OpInput, ir.OpAct, ir.OpPow, ir.OpAvgPool, ir.OpMaxPool, ir.OpReshape:
		return true // that the first axis stays is known from the shapes
	case ir.OpConv:
		return encrypted(v.Args[0]) && !slices.ContainsFunc(v.Args[1:], func(a *ir.Value) bool { return a.Type.Encrypted })
	case ir.OpMatMul:
		return encrypted(v.Args[0]) && !v.Args[1].Type.Encrypted && len(v.Args[1].Type.Shape) == 2
	case ir.OpAdd, ir.OpSub, ir.OpMul, ir.OpDiv:
		return !slices.ContainsFunc(v.Args, func(a *ir.Value) bool {
			s := a.Type.Shape
			if a.Type.Encrypted {
				return len(s) != len(v.Type.Shape) || s[0] != batch
			}
			return len(s) == len(v.Type.Shape) && s[0] != 1
		})
	case ir.OpReduceMean, ir.OpReduceSum, ir.OpReduceMax, ir.OpSlice:
		axes, given := v.Attrs["axes"].([]int)
		return given && inner(axes...)
	case ir.OpPad:
		pads := v.Attrs.Ints("pads")
		return pads[0] == 0 && pads[len(pads)/2] == 0
	case ir.OpTranspose:
		perm, given := v.Attrs["perm"].([]int)
		return given && perm[0] == 0
	case ir.OpConcat:
		return encrypted(v.Args...) && inner(v.Attrs.Int("axis", 0))
	case ir.OpGather:
		return encrypted(v.Args[0]) && inner(v.Attrs.Int("axis", 0))
	}
	return false
}
