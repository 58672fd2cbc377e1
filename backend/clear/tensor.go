package clear

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/home-fhe/home/ir"
)

// Options says how EvalTensor evaluates a network.
type Options struct {
	// Approx replaces an activation by its polynomial where it has one, and
	// counts the elements that lie outside the range of the polynomial.
	Approx bool
	// Batch is how many times the graph's own batch the inputs hold along
	// their first axis; 0 and 1 mean once. The parts are evaluated side by side
	// on all processors, and the outputs are put together along the first axis.
	Batch int
	// Observe sees the result of every value that is not a constant, inputs
	// included, in the order of the graph and part by part, never two at a time.
	// It must not change or keep out.
	Observe func(v *ir.Value, out *ir.Array)
}

// Violation counts the elements of an activation's argument that lay outside
// the range its polynomial was made for.
type Violation struct {
	Value *ir.Value // the activation
	Count int
	Worst float64 // largest distance from the centre in half widths of the range, > 1
}

// Stats is what an evaluation found on its way.
type Stats struct {
	Violations []Violation // in the order of the graph, activations with any
}

// Total returns the number of elements outside their ranges.
func (s Stats) Total() int {
	n := 0
	for _, v := range s.Violations {
		n += v.Count
	}
	return n
}

// Merge adds the counts of another evaluation of the same graph.
func (s *Stats) Merge(t Stats) {
	for _, v := range t.Violations {
		i := slices.IndexFunc(s.Violations, func(u Violation) bool { return u.Value.ID >= v.Value.ID })
		switch {
		case i < 0:
			s.Violations = append(s.Violations, v)
		case s.Violations[i].Value != v.Value:
			s.Violations = slices.Insert(s.Violations, i, v)
		default:
			u := &s.Violations[i]
			u.Count += v.Count
			u.Worst = math.Max(u.Worst, v.Worst)
		}
	}
}

// EvalTensor evaluates a graph of the tensor vocabulary in float64: the
// meaning of the network, against which everything else is held. There is one
// array per input, of the shape of the input (times Options.Batch along the first
// axis); arrays are only read. Outputs may share data with inputs. The error
// names the input or the node at fault.
func EvalTensor(g *ir.Graph, inputs []*ir.Array, o Options) ([]*ir.Array, Stats, error) {
	p, err := prepare(g)
	if err != nil {
		return nil, Stats{}, err
	}
	if len(inputs) != len(g.Inputs) {
		return nil, Stats{}, fmt.Errorf("network %q takes %d inputs, got %d", g.Name, len(g.Inputs), len(inputs))
	}
	batch := max(o.Batch, 1)
	for i, in := range g.Inputs {
		want := slices.Clone(in.Type.Shape)
		if batch > 1 {
			if len(want) == 0 {
				return nil, Stats{}, fmt.Errorf("input %q is a scalar and has no batch axis", in.Name)
			}
			want[0] *= batch
		}
		a := inputs[i]
		switch {
		case a == nil:
			return nil, Stats{}, fmt.Errorf("input %q is missing, want shape %v", in.Name, want)
		case !slices.Equal(a.Shape, want) || len(a.Data) != ir.NumElems(want):
			return nil, Stats{}, fmt.Errorf("input %q has shape %v, want %v", in.Name, a.Shape, want)
		}
	}
	if batch == 1 {
		return p.run(inputs, o.Approx, o.Observe)
	}
	return p.batch(inputs, batch, o)
}

// program is a graph with what every evaluation of it needs to know.
type program struct {
	g    *ir.Graph
	last []int // position of the last use; len(Values) for outputs
}

func prepare(g *ir.Graph) (*program, error) {
	p := &program{g: g, last: make([]int, len(g.Values))}
	at := func(v *ir.Value) bool { return v.ID >= 0 && v.ID < len(g.Values) && g.Values[v.ID] == v }
	for i, v := range g.Values {
		if v.ID != i || v.Op.Info().Vocab != ir.Tensor {
			return nil, fmt.Errorf("BUG: value %d (%s %q) is out of order or of another vocabulary", i, v.Op, v.Name)
		}
		p.last[i] = i
		for _, a := range v.Args {
			if !at(a) || a.ID >= i {
				return nil, fmt.Errorf("BUG: an argument of value %d (%s %q) does not come before it", i, v.Op, v.Name)
			}
			p.last[a.ID] = i
		}
	}
	for _, v := range slices.Concat(g.Inputs, g.Outputs) {
		if !at(v) {
			return nil, fmt.Errorf("BUG: input or output %q is not in the graph", v.Name)
		}
	}
	for _, v := range g.Outputs {
		p.last[v.ID] = len(g.Values)
	}
	return p, nil
}

// run evaluates the graph once. Results are dropped after their last use.
func (p *program) run(inputs []*ir.Array, approx bool, observe func(*ir.Value, *ir.Array)) ([]*ir.Array, Stats, error) {
	vals := make([]*ir.Array, len(p.g.Values))
	for i, v := range p.g.Inputs {
		vals[v.ID] = inputs[i]
	}
	stats, err := p.advance(vals, 0, len(vals), approx, observe)
	if err != nil {
		return nil, stats, err
	}
	outs := make([]*ir.Array, len(p.g.Outputs))
	for i, v := range p.g.Outputs {
		outs[i] = vals[v.ID]
	}
	return outs, stats, nil
}

// advance evaluates the values from one position up to another, given what was
// evaluated before, and drops what nobody needs any more.
func (p *program) advance(vals []*ir.Array, from, to int, approx bool, observe func(*ir.Value, *ir.Array)) (stats Stats, err error) {
	var args []*ir.Array
	for i := from; i < to; i++ {
		v := p.g.Values[i]
		args = args[:0]
		for _, a := range v.Args {
			args = append(args, vals[a.ID])
		}
		switch {
		case v.Op == ir.OpInput:
			if vals[i] == nil {
				return stats, fmt.Errorf("BUG: input %q is not among the inputs of the graph", v.Name)
			}
		case v.Op == ir.OpAct && approx && v.Approx != nil:
			out, worst, n := polynomial(v.Approx, args[0])
			if n > 0 {
				stats.Violations = append(stats.Violations, Violation{v, n, worst})
			}
			vals[i] = out
		default:
			info := v.Op.Info()
			out, err := info.Eval(v, args)
			if err != nil {
				return stats, &ir.NodeError{Node: v.Name, Op: info.Name, Err: err}
			}
			vals[i] = out
		}
		if observe != nil && v.Op != ir.OpConst {
			observe(v, vals[i])
		}
		for _, a := range v.Args {
			if p.last[a.ID] == i {
				vals[a.ID] = nil
			}
		}
		if p.last[i] == i {
			vals[i] = nil // nobody wants it
		}
	}
	return stats, nil
}

// polynomial evaluates an approximation and counts what lies outside its range.
func polynomial(a *ir.Approx, x *ir.Array) (out *ir.Array, worst float64, n int) {
	out = ir.NewArray(x.Shape...)
	runs, per := 1, len(x.Data) // elements of one channel lie side by side
	if a.Channels != nil {
		runs = x.Shape[0] * x.Shape[1]
		per = len(x.Data) / max(1, runs)
	}
	for r := range runs {
		h := a.Channel(r % max(1, len(a.Channels)))
		src, dst := x.Data[r*per:(r+1)*per], out.Data[r*per:(r+1)*per]
		for i, v := range src {
			dst[i] = (v - h.Center) / h.Bound
			if h.Outside(v) || math.IsNaN(v) {
				n++
				worst = math.Max(worst, math.Abs(dst[i]))
			}
		}
		for _, c := range a.Inner {
			ir.ClenshawAll(dst, c)
		}
		ir.ClenshawAll(dst, a.Coef)
		for i := range dst {
			if a.Inner != nil {
				dst[i] *= (src[i] - h.Center) / h.Bound
			}
			dst[i] *= h.Gain
		}
	}
	return out, worst, n
}

// batch evaluates the parts of a batch side by side.
func (p *program) batch(inputs []*ir.Array, batch int, o Options) ([]*ir.Array, Stats, error) {
	type seen struct {
		v *ir.Value
		a *ir.Array
	}
	type result struct {
		outs  []*ir.Array
		stats Stats
		err   error
	}
	results := make([]result, batch)
	turn := make([]chan struct{}, batch+1) // turn[i] closes when part i may observe
	for i := range turn {
		turn[i] = make(chan struct{})
	}
	close(turn[0])
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range min(batch, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= batch {
					return
				}
				var list []seen
				if !failed.Load() {
					part := make([]*ir.Array, len(inputs))
					for k, in := range p.g.Inputs {
						n := in.Type.Elems()
						part[k] = ir.ArrayOf(inputs[k].Data[i*n:(i+1)*n], in.Type.Shape...)
					}
					var observe func(*ir.Value, *ir.Array)
					if o.Observe != nil {
						observe = func(v *ir.Value, a *ir.Array) { list = append(list, seen{v, a}) }
					}
					r := &results[i]
					if r.outs, r.stats, r.err = p.run(part, o.Approx, observe); r.err != nil {
						failed.Store(true)
					}
				}
				<-turn[i]
				for _, s := range list {
					o.Observe(s.v, s.a)
				}
				close(turn[i+1])
			}
		})
	}
	wg.Wait()
	var stats Stats
	outs := make([]*ir.Array, len(p.g.Outputs))
	for k, v := range p.g.Outputs {
		shape := slices.Clone(v.Type.Shape)
		if len(shape) == 0 {
			shape = []int{1}
		}
		shape[0] *= batch
		outs[k] = ir.NewArray(shape...)
	}
	for i, r := range results {
		if r.err != nil {
			return nil, stats, fmt.Errorf("sample %d: %w", i, r.err)
		}
		stats.Merge(r.stats)
		for k, a := range r.outs {
			if a != nil {
				copy(outs[k].Data[i*len(a.Data):], a.Data)
			}
		}
	}
	return outs, stats, nil
}
