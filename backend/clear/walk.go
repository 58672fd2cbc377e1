package clear

import (
	"fmt"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// Walk evaluates a graph for many samples side by side and stops where it is
// told to, so that what is found there can change what comes later. It holds the
// values still needed of every sample. Not for use by several goroutines.
type Walk struct {
	p      *program
	approx bool
	next   int           // values before it have been evaluated
	vals   [][]*ir.Array // per sample and value
	stats  Stats
}

// NewWalk stands before the first value of g. Each sample is the network's one
// input. With approx, activations that have a polynomial when the walk comes to
// them are evaluated by it.
func NewWalk(g *ir.Graph, samples []*ir.Array, approx bool) (*Walk, error) {
	p, err := prepare(g)
	if err != nil {
		return nil, err
	}
	if len(g.Inputs) != 1 {
		return nil, fmt.Errorf("network %q takes %d inputs, want one", g.Name, len(g.Inputs))
	}
	in := g.Inputs[0]
	w := &Walk{p: p, approx: approx, vals: make([][]*ir.Array, len(samples))}
	for i, s := range samples {
		if s == nil || !slices.Equal(s.Shape, in.Type.Shape) {
			return nil, fmt.Errorf("sample %d does not have the shape %v of input %q", i, in.Type.Shape, in.Name)
		}
		w.vals[i] = make([]*ir.Array, len(g.Values))
		w.vals[i][in.ID] = s
	}
	return w, nil
}

// Clone returns a walk at the same place. What was evaluated is shared.
func (w *Walk) Clone() *Walk {
	c := *w
	c.stats.Violations = slices.Clone(w.stats.Violations)
	c.vals = make([][]*ir.Array, len(w.vals))
	for i, v := range w.vals {
		c.vals[i] = slices.Clone(v)
	}
	return &c
}

// Until evaluates what comes before v, on all processors, or everything where v
// is nil.
func (w *Walk) Until(v *ir.Value) error {
	to := len(w.p.g.Values)
	if v != nil {
		to = v.ID
	}
	if to <= w.next {
		return nil
	}
	stats := make([]Stats, len(w.vals))
	err := backend.Each(len(w.vals), func(i int) (err error) {
		stats[i], err = w.p.advance(w.vals[i], w.next, to, w.approx, nil)
		return err
	})
	for _, s := range stats {
		w.stats.Merge(s)
	}
	w.next = to
	return err
}

// Value returns what v is for a sample, if v was evaluated and is still needed.
func (w *Walk) Value(sample int, v *ir.Value) *ir.Array { return w.vals[sample][v.ID] }

// Outputs evaluates what is left and returns the outputs of a sample.
func (w *Walk) Outputs(sample int) ([]*ir.Array, error) {
	if err := w.Until(nil); err != nil {
		return nil, err
	}
	outs := make([]*ir.Array, len(w.p.g.Outputs))
	for i, v := range w.p.g.Outputs {
		outs[i] = w.vals[sample][v.ID]
	}
	return outs, nil
}

// Stats returns what was found on the way so far.
func (w *Walk) Stats() Stats { return w.stats }
