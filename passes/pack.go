package passes

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// beam is how many partial packings are kept while layers are placed in order.
const beam = 8

// packState is a partial packing: a layout for each step so far.
type packState struct {
	places []placement // by node index
	cost   float64     // seconds on one core
}

// packing places every step of the fused network for the given parameters and
// returns the cheapest packing found.
func packing(nodes []*fusedNode, par *ir.Params, prof *backend.Profile) (*packState, error) {
	slots := par.Slots()
	index := map[*fusedNode]int{}
	for i, n := range nodes {
		index[n] = i
	}
	polyNext := make([]bool, len(nodes))
	partner := map[*fusedNode]*fusedNode{}
	for _, n := range nodes {
		switch n.kind {
		case fusedPoly:
			polyNext[index[n.args[0]]] = true
		case fusedMul:
			if n.args[0] != n.args[1] {
				a, b := n.args[0], n.args[1]
				if index[a] > index[b] {
					a, b = b, a
				}
				partner[b] = a
			}
		}
	}
	states := []*packState{{}}
	for i, n := range nodes {
		var next []*packState
		for _, s := range states {
			for _, c := range candidates(n, i, s, nodes, index, partner, polyNext[i], slots) {
				next = append(next, &packState{places: append(slices.Clip(s.places), c), cost: s.cost})
			}
		}
		err := eachParallel(len(next), func(k int) error {
			s := next[k]
			cost, ok := placeCost(n, s.places[i], s, index, par, prof)
			if !ok {
				cost = math.Inf(1)
			}
			s.cost += cost
			return nil
		})
		if err != nil {
			return nil, err
		}
		next = slices.DeleteFunc(next, func(s *packState) bool { return math.IsInf(s.cost, 1) })
		if len(next) == 0 {
			return nil, &ir.NodeError{Node: n.name, Op: n.kind.String(), Err: fmt.Errorf("no packing of shape %v into %d slots was found", n.shape, slots), Hint: "run it with --mode clear"}
		}
		slices.SortStableFunc(next, func(a, b *packState) int { return cmp.Compare(a.cost, b.cost) })
		states = diverse(next, i)
	}
	return states[0], nil
}

// diverse keeps the cheapest state of each distinct last layout.
func diverse(s []*packState, last int) []*packState {
	var out []*packState
	for _, x := range s {
		if len(out) == beam {
			break
		}
		if !slices.ContainsFunc(out, func(y *packState) bool {
			return y.places[last].out.layout.Equal(x.places[last].out.layout)
		}) {
			out = append(out, x)
		}
	}
	return out
}

func candidates(n *fusedNode, i int, s *packState, nodes []*fusedNode, index map[*fusedNode]int, partner map[*fusedNode]*fusedNode, polyNext bool, slots int) []placement {
	arg := func(k int) *packed { return s.places[index[n.args[k]]].out }
	switch n.kind {
	case fusedInput:
		var rows []int
		for _, u := range nodes {
			if u.kind == fusedLinear && slices.Contains(u.args, n) {
				rows = append(rows, u.elems())
			}
		}
		var out []placement
		for _, l := range inputLayouts(slots, n.shape, rows) {
			out = append(out, placement{l, slots, 1, false})
		}
		return out
	case fusedPoly:
		return []placement{{gapsUnknown(arg(0)), slots, 1, false}}
	case fusedMul:
		a, b := arg(0), arg(1)
		if a != b && !a.layout.SamePlaces(b.layout) {
			return nil
		}
		return []placement{{gapsUnknown(a), slots, 1, false}}
	case fusedOutput:
		return []placement{{arg(0), slots, 1, false}}
	}
	var args []*packed
	for k := range n.args {
		args = append(args, arg(k))
	}
	if p := partner[n]; p != nil {
		// The other factor's layout, and only where no element is garbage.
		return []placement{{s.places[index[p]].out, slots, 1, false}}
	}
	return placements(slots, args, n.shape, polyNext)
}

// gapsUnknown marks zero gaps unknown: f(0) need not be zero.
func gapsUnknown(p *packed) *packed {
	if !slices.Contains(p.layout.Map, ir.SlotZero) {
		return p
	}
	l := *p.layout
	l.Map = slices.Clone(l.Map)
	for i, e := range l.Map {
		if e == ir.SlotZero {
			l.Map[i] = ir.SlotUnknown
		}
	}
	q := *p
	q.layout = &l
	return &q
}

// placeCost prices one step on one core; ok is false where the placement is
// impossible or unsafe.
func placeCost(n *fusedNode, p placement, s *packState, index map[*fusedNode]int, par *ir.Params, prof *backend.Profile) (float64, bool) {
	cts := float64(p.out.layout.Cts)
	level := n.level + 1
	switch n.kind {
	case fusedPoly:
		return cts * polyCost(n.approx.Degree(), par, prof, level), true
	case fusedMul:
		return cts * prof.Seconds(par, ir.OpHEMul, level), true
	case fusedInput, fusedOutput:
		return 0, true
	}
	var args []*packed
	for _, a := range n.args {
		args = append(args, s.places[index[a]].out)
	}
	if !p.out.bounded && rowSum(n) > 1<<14 {
		return 0, false
	}
	// A fold over less than a whole ciphertext needs an argument that repeats as
	// often.
	if p.count > 1 && p.unit*p.count < par.Slots() && (len(args) != 1 || args[0].layout.Cts != 1) {
		return 0, false
	}
	diags := diagonals(n, args, &p, true)
	if len(diags) == 0 {
		return 0, true
	}
	if diags[len(diags)-1].rot == math.MaxInt {
		return 0, false
	}
	base, ins := inBases(args)
	r := chooseSplit(diags, base, ins, p.out.layout.Cts, splitWidths(par.Slots(), args), par, prof, level)
	cost := r.cost + cts*float64(bits.Len(uint(p.count))-1)*(prof.Seconds(par, ir.OpHERotate, level)+prof.Seconds(par, ir.OpHEAdd, level))
	// Weights have to be read once: at memory speed.
	cost += float64(len(diags)) * float64(par.Slabs(ir.PlainQPKind, level)*par.SlabBytes()) / prof.Tiers[0].ReadBps
	return cost, true
}

// polyCost estimates one polynomial: its products grow with the square root of
// the degree.
func polyCost(degree int, par *ir.Params, prof *backend.Profile, level int) float64 {
	return 2 * math.Sqrt(float64(degree+1)) * prof.Seconds(par, ir.OpHEMul, level)
}

// rowSum is the largest sum of magnitudes of a row: a bound on what partial sums
// in garbage slots can reach.
func rowSum(n *fusedNode) float64 {
	m := 0.0
	for i := range n.elems() {
		s := 0.0
		for _, a := range n.mats {
			_, vals := a.Row(i)
			for _, v := range vals {
				s += math.Abs(v)
			}
		}
		m = max(m, s)
	}
	return 2 * m
}

func inBases(args []*packed) ([]int, int) {
	var base []int
	n := 0
	for _, a := range args {
		base = append(base, n)
		n += a.layout.Cts
	}
	return base, n
}

// packedGraph writes a packing as a graph in the packed vocabulary.
func packedGraph(name string, nodes []*fusedNode, st *packState) (*ir.Graph, error) {
	g := &ir.Graph{Name: name}
	vals := map[*fusedNode]*ir.Value{}
	for i, n := range nodes {
		v := &ir.Value{Name: n.name, Layout: st.places[i].out.layout}
		for _, a := range n.args {
			x := vals[a]
			if n.kind == fusedMul && !slices.Equal(a.shape, n.shape) {
				var err error
				if x, err = g.Append(&ir.Value{Op: ir.OpPackView, Name: n.name, Attrs: ir.Attrs{"shape": n.shape}, Args: []*ir.Value{x}, Layout: x.Layout}); err != nil {
					return nil, err
				}
			}
			v.Args = append(v.Args, x)
		}
		switch n.kind {
		case fusedInput:
			v.Op, v.Attrs = ir.OpPackInput, ir.Attrs{"shape": n.shape}
		case fusedLinear:
			v.Op, v.Attrs = ir.OpPackLinear, ir.Attrs{"shape": n.shape}
			v.Linear = &ir.Linear{Mats: n.mats, Bias: n.bias}
		case fusedPoly:
			v.Op, v.Approx = ir.OpPackPoly, n.approx
		case fusedMul:
			v.Op = ir.OpPackMul
		case fusedOutput:
			v.Op = ir.OpPackOutput
		}
		v, err := g.Append(v)
		if err != nil {
			return nil, err
		}
		vals[n] = v
		switch n.kind {
		case fusedInput:
			g.Inputs = append(g.Inputs, v)
		case fusedOutput:
			g.Outputs = append(g.Outputs, v)
		}
	}
	return g, nil
}
