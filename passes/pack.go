package passes

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// beam is how many partial packings are kept while layers are placed in order,
// and perLayout how many of them may agree in the newest layout.
const (
	beam      = 6
	perLayout = 2
)

// packState is a partial packing: a layout for each step so far.
type packState struct {
	places []placement  // by node index
	sums   []*rotations // of linear layers, by node index; nil: each takes its cheapest
	cost   float64      // seconds on one core
	// logLanes is the logarithm of the samples that lie side by side. Layouts,
	// rotations and periods here count positions of so many slots: what is done to
	// one sample is done to all.
	logLanes int
}

// layout is the layout of step i in slots.
func (s *packState) layout(i int) *ir.Layout {
	l := *s.places[i].out.layout
	l.Slots <<= s.logLanes
	l.Lanes <<= s.logLanes
	return &l
}

// packer searches for a packing. Layouts and sparsity patterns are numbered, so
// that what repeats in a network, such as the layers of a residual stage, is
// priced once.
type packer struct {
	nodes    []*fusedNode
	index    map[*fusedNode]int
	par      *ir.Params
	prof     *backend.Profile
	logLanes int
	slots    int // positions, where lanes lie side by side
	polyNext []bool
	partner  map[*fusedNode]*fusedNode // the factor whose layout a factor must take
	until    []int                     // by node, the last that reads its layout
	tier     backend.TierProfile       // that weights and keys come from
	deep     bool                      // the network is refreshed

	layouts  map[uint64][]*packed
	number   map[*packed]int
	patterns map[*fusedNode]string
	offers   map[string][]placement
	prices   map[string]float64
}

// packing places every step of the fused network for the given parameters, with
// 2^logLanes samples side by side, and returns the cheapest packing found.
func packing(nodes []*fusedNode, par *ir.Params, prof *backend.Profile, logLanes int) (*packState, error) {
	pk := newPacker(nodes, par, prof, logLanes)
	states := []*packState{{logLanes: logLanes}}
	for i, n := range nodes {
		var err error
		if states, err = pk.step(i, states); err != nil {
			return nil, err
		}
		if len(states) == 0 {
			return nil, &ir.NodeError{Node: n.name, Op: n.kind.String(), Err: fmt.Errorf("no packing of shape %v into %d slots was found", n.shape, pk.slots), Hint: "run it with --mode clear"}
		}
	}
	pk.shareKeys(states[0])
	return states[0], nil
}

func newPacker(nodes []*fusedNode, par *ir.Params, prof *backend.Profile, logLanes int) *packer {
	pk := &packer{nodes: nodes, index: map[*fusedNode]int{}, par: par, prof: prof, logLanes: logLanes, slots: par.Slots() >> logLanes, polyNext: make([]bool, len(nodes)),
		partner: map[*fusedNode]*fusedNode{}, until: make([]int, len(nodes)), layouts: map[uint64][]*packed{}, number: map[*packed]int{},
		patterns: patternNames(nodes), offers: map[string][]placement{}, prices: map[string]float64{}}
	for i, n := range nodes {
		pk.index[n] = i
	}
	// A network that is refreshed has more weights and keys than memory holds.
	pk.tier = prof.Tiers[0]
	if pk.deep = slices.ContainsFunc(nodes, func(n *fusedNode) bool { return n.kind == fusedRefresh }); pk.deep {
		pk.tier = prof.Slow()
	}
	placed := func(n *fusedNode) *fusedNode { // the step that decides on n's layout
		for n.kind == fusedRefresh {
			n = n.args[0]
		}
		return n
	}
	for i, n := range nodes {
		for _, a := range n.args {
			pk.until[pk.index[a]] = i
		}
		switch n.kind {
		case fusedPoly, fusedRefresh: // what is refreshed must be bounded as well
			pk.polyNext[pk.index[placed(n.args[0])]] = true
		case fusedMul:
			if a, b := placed(n.args[0]), placed(n.args[1]); a != b {
				if pk.index[a] > pk.index[b] {
					a, b = b, a
				}
				pk.partner[b] = a
				pk.until[pk.index[a]] = i
			}
		}
	}
	return pk
}

// patternNames names the places of the nonzeros of every linear layer.
func patternNames(nodes []*fusedNode) map[*fusedNode]string {
	known := map[uint64][]*ir.Sparse{}
	number := map[*ir.Sparse]int{}
	names := map[*fusedNode]string{}
	for _, n := range nodes {
		name := fmt.Sprint(n.shape)
		for _, m := range n.mats {
			h := hash32(hash32(uint64(m.Cols), m.Ptr), m.Col)
			at := slices.IndexFunc(known[h], func(k *ir.Sparse) bool {
				return k.Cols == m.Cols && slices.Equal(k.Ptr, m.Ptr) && slices.Equal(k.Col, m.Col)
			})
			if at < 0 {
				at = len(known[h])
				number[m] = len(number)
				known[h] = append(known[h], m)
			}
			name += fmt.Sprint(" ", number[known[h][at]])
		}
		names[n] = name
	}
	return names
}

func hash32(h uint64, x []int32) uint64 {
	for _, v := range x {
		h = mix(h, uint64(uint32(v)))
	}
	return h
}

// canon returns the first layout met that equals p.
func (pk *packer) canon(p *packed) *packed {
	if _, ok := pk.number[p]; ok {
		return p
	}
	h := hash32(uint64(p.period)<<1^uint64(p.layout.Cts)<<32, p.layout.Map)
	for _, k := range pk.layouts[h] {
		if k.period == p.period && k.bounded == p.bounded && (k.grid == nil) == (p.grid == nil) && (k.grid == nil || *k.grid == *p.grid) && k.layout.Equal(p.layout) {
			return k
		}
	}
	pk.number[p] = len(pk.number)
	pk.layouts[h] = append(pk.layouts[h], p)
	return p
}

// trial is a state with one more step placed.
type trial struct {
	from  *packState
	place placement
	cost  float64 // of the whole
	key   string  // of the step's price
}

// step places node i in every way that each state allows and returns the
// cheapest new states, cheapest first. Of states that later steps cannot tell
// apart it keeps one.
func (pk *packer) step(i int, states []*packState) ([]*packState, error) {
	var open []*trial
	for _, s := range states {
		for _, p := range pk.candidates(i, s) {
			open = append(open, &trial{from: s, place: p, key: pk.priceKey(i, s, p)})
		}
	}
	var keys []string
	var todo []*trial
	for _, t := range open {
		if _, ok := pk.prices[t.key]; !ok {
			pk.prices[t.key] = 0
			keys, todo = append(keys, t.key), append(todo, t)
		}
	}
	costs := make([]float64, len(todo))
	err := backend.Each(len(todo), func(k int) error {
		costs[k] = pk.price(i, todo[k].from, todo[k].place)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for k := range keys {
		pk.prices[keys[k]] = costs[k]
	}
	for _, t := range open {
		t.cost = t.from.cost + pk.prices[t.key]
	}
	slices.SortStableFunc(open, func(a, b *trial) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.place.out.period, b.place.out.period))
	})
	var out []*packState
	known := map[string]bool{}
	count := map[*packed]int{}
	for _, t := range open {
		if live := pk.live(i, t); math.IsInf(t.cost, 1) || len(out) == beam || count[t.place.out] == perLayout || known[live] {
			continue
		} else {
			known[live] = true
		}
		count[t.place.out]++
		out = append(out, &packState{places: append(slices.Clip(t.from.places), t.place), cost: t.cost, logLanes: pk.logLanes})
	}
	return out, nil
}

// live names the layouts that steps after i read.
func (pk *packer) live(i int, t *trial) string {
	b := binary.AppendUvarint(nil, uint64(pk.number[t.place.out]))
	for j, p := range t.from.places {
		if pk.until[j] > i {
			b = binary.AppendUvarint(b, uint64(pk.number[p.out]))
		}
	}
	return string(b)
}

func (pk *packer) args(i int, s *packState) []*packed {
	var args []*packed
	for _, a := range pk.nodes[i].args {
		args = append(args, s.places[pk.index[a]].out)
	}
	return args
}

func (pk *packer) priceKey(i int, s *packState, p placement) string {
	n := pk.nodes[i]
	if n.kind != fusedLinear {
		return fmt.Sprint(i, " ", pk.number[p.out])
	}
	k := fmt.Sprint(pk.patterns[n], " ", n.level, p.unit, p.count, p.blocks, pk.number[p.out])
	for _, a := range pk.args(i, s) {
		k += fmt.Sprint(" ", pk.number[a])
	}
	return k
}

// candidates returns the ways to place node i, with canonical layouts.
func (pk *packer) candidates(i int, s *packState) []placement {
	n, slots := pk.nodes[i], pk.slots
	args := pk.args(i, s)
	key := fmt.Sprint(i)
	for _, a := range args {
		key += fmt.Sprint(" ", pk.number[a])
	}
	if p := pk.partner[n]; p != nil {
		// The other factor's layout, and only where no element is garbage.
		return []placement{{s.places[pk.index[p]].out, slots, 1, false}}
	}
	out, ok := pk.offers[key]
	if ok {
		return out
	}
	switch n.kind {
	case fusedInput:
		var rows []int
		for _, u := range pk.nodes {
			if u.kind == fusedLinear && slices.Contains(u.args, n) {
				rows = append(rows, u.elems())
			}
		}
		for _, l := range inputLayouts(slots, n.shape, rows) {
			out = append(out, placement{l, slots, 1, false})
		}
	case fusedPoly:
		out = []placement{{gapsUnknown(args[0]), slots, 1, false}}
	case fusedMul:
		if args[0] == args[1] || args[0].layout.SamePlaces(args[1].layout) {
			out = []placement{{gapsUnknown(args[0]), slots, 1, false}}
		}
	case fusedOutput, fusedRefresh:
		out = []placement{{args[0], slots, 1, false}}
	default:
		out = placements(slots, args, n.shape, pk.polyNext[i])
	}
	for k := range out {
		out[k].out = pk.canon(out[k].out)
	}
	pk.offers[key] = out
	return out
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

// price is the time of one step on one core, or infinite where the placement is
// impossible or unsafe.
func (pk *packer) price(i int, s *packState, p placement) float64 {
	n, par, prof := pk.nodes[i], pk.par, pk.prof
	cts := float64(p.out.layout.Cts)
	level := n.level + 1
	switch n.kind {
	case fusedPoly:
		return cts * polyCost(n.approx.Degree(), par, prof, level)
	case fusedRefresh:
		return n.boot.seconds(par, prof, n.level, p.out.period<<pk.logLanes, p.out.layout.Cts)
	case fusedMul:
		return cts * prof.Seconds(par, ir.OpHEMul, level)
	case fusedInput, fusedOutput:
		return 0
	}
	args := pk.args(i, s)
	if !p.out.bounded && rowSum(n) > 1<<14 {
		return math.Inf(1)
	}
	// A fold over less than a whole ciphertext needs an argument that repeats as
	// often.
	if p.count > 1 && p.unit*p.count < pk.slots && (len(args) != 1 || args[0].layout.Cts != 1) {
		return math.Inf(1)
	}
	diags := diagonals(n, args, &p, true)
	if len(diags) == 0 {
		return 0
	}
	if diags[len(diags)-1].rot == math.MaxInt {
		return math.Inf(1)
	}
	l := pk.layerSum(n, diags, args, &p)
	fold := prof.Seconds(par, ir.OpHERotate, level) + prof.Seconds(par, ir.OpHEAdd, level)
	cost := cheapest(l.ways(par, prof)).cost + cts*float64(bits.Len(uint(p.count))-1)*fold
	if pk.deep {
		for k, m := range n.mats {
			cost += entrySeconds * float64(m.NNZ()*p.copies(args[k]))
		}
	}
	return cost
}

// entrySeconds is what an entry of a diagonal costs when a plan is made, read
// and installed, of which every run bears a share; and there is memory to hold
// only so many.
const entrySeconds = 1e-8

// layerSum returns the sum of products that a layer consists of, with the time
// to have an encoded diagonal at hand: to read it, or its coefficients to make
// it from.
func (pk *packer) layerSum(n *fusedNode, diags []diagKey, args []*packed, p *placement) *layerSum {
	level := n.level + 1
	l := newLayerSum(diags, args, p, pk.par, level)
	read := float64(pk.par.SlabBytes()) / pk.tier.ReadBps
	l.fetch = func(arg int, k ir.Kind) float64 {
		slabs := float64(pk.par.Slabs(k, level))
		return min(slabs*read, read+slabs*pk.prof.ExpandSeconds(pk.par, commonPeriod(args[arg], p)<<pk.logLanes, false))
	}
	return l
}

// exposed is the share of the time to fetch a key that no step hides.
const exposed = 0.25

// shareKeys chooses the splits of all layers together: a rotation that no other
// layer uses costs the time to fetch its key once.
func (pk *packer) shareKeys(s *packState) {
	type layer struct {
		node    int
		price   float64 // of a key
		sum     *layerSum
		options []*rotations
	}
	var layers []layer
	used := map[int]int{}
	s.sums = make([]*rotations, len(pk.nodes))
	for i, n := range pk.nodes {
		if n.kind != fusedLinear {
			continue
		}
		p := s.places[i]
		for k := p.unit; k < p.unit*p.count; k *= 2 {
			used[k]++
		}
		args, level := pk.args(i, s), n.level+1
		l := layer{node: i, sum: pk.layerSum(n, diagonals(n, args, &p, false), args, &p),
			price: float64(pk.par.Slabs(ir.KeyKind, level)*pk.par.SlabBytes()) / pk.tier.ReadBps * exposed}
		l.options = l.sum.ways(pk.par, pk.prof)
		s.sums[i] = cheapest(l.options)
		for _, k := range s.sums[i].keys {
			used[k]++
		}
		layers = append(layers, l)
	}
	for changed, round := true, 0; changed && round < 8; round++ {
		changed = false
		for _, l := range layers {
			now := s.sums[l.node]
			for _, k := range now.keys {
				used[k]--
			}
			best, least := now, math.Inf(1)
			for _, o := range l.options {
				c := o.cost
				for _, k := range o.keys {
					if used[k] == 0 {
						c += l.price
					}
				}
				if c < least || c == least && o == now {
					best, least = o, c
				}
			}
			changed = changed || best != now
			s.sums[l.node] = best
			for _, k := range best.keys {
				used[k]++
			}
		}
	}
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

// packedGraph writes a packing as a graph in the packed vocabulary.
func packedGraph(name string, nodes []*fusedNode, st *packState) (*ir.Graph, error) {
	g := &ir.Graph{Name: name}
	vals := map[*fusedNode]*ir.Value{}
	for i, n := range nodes {
		v := &ir.Value{Name: n.name, Layout: st.layout(i)}
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
		case fusedRefresh:
			v.Op = ir.OpPackRefresh
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
