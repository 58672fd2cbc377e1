package passes

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// Where values are refreshed. A refresh takes a value at a low level and returns
// it at any level up to the most that bootstrapping leaves; all users that need
// more than the value had share one. The program is walked backwards, and a
// state says which level every value must have that has been used but not yet
// been made. At each step its result either has that level or is refreshed to
// it. Since no cost falls with the level, nothing else can be cheaper; of states
// that need no less and cost no less than another, nothing is lost by dropping
// them, so that the cheapest placement of all is found.

// placer finds the placement of least cost for one chain of moduli. Steps are in
// topological order.
type placer struct {
	args     [][]int
	depth    []int  // levels a step consumes
	mutable  []bool // its result may be refreshed
	in, most int    // levels a refresh takes, and returns at most
	top      int    // level at which inputs may enter
	// Seconds to compute step i at a level of its result, and to refresh that
	// result to a level. Neither falls with the level.
	cost, refresh func(i, level int) float64
}

// placed is what a placer found.
type placed struct {
	level   []int // by step: to which its result is refreshed, 0 where it is not
	seconds float64
	// loss is the share of seconds that a search without a limit on states could
	// at most save.
	loss float64
}

// mostStates is how many states are kept at a step of a network so wide that
// there are more.
const mostStates = 2000

// reach returns the highest level the result of each step can have, negative
// where it cannot be computed.
func (p *placer) reach() []int {
	out := make([]int, len(p.args))
	for i, args := range p.args {
		out[i] = p.top - p.depth[i]
		for _, a := range args {
			h := out[a]
			if p.mutable[a] && h >= p.in {
				h = max(h, p.most)
			}
			out[i] = min(out[i], h-p.depth[i])
		}
	}
	return out
}

// placeState is a choice for all steps from some step on.
type placeState struct {
	needs     string // a byte for each open value: the level it must have
	cost      float64
	from      int32 // the state before
	refreshed int   // level to which the step just taken is refreshed, 0 for not
}

func (s *placeState) dominates(t *placeState) bool {
	if s.cost > t.cost {
		return false
	}
	for k := range len(s.needs) {
		if s.needs[k] > t.needs[k] {
			return false
		}
	}
	return true
}

func comparePlaceStates(a, b placeState) int {
	return cmp.Or(cmp.Compare(a.cost, b.cost), strings.Compare(a.needs, b.needs))
}

// solve returns the cheapest placement, and false where there is none. Beyond
// limit states at a step those are dropped whose least cost is largest.
func (p *placer) solve(limit int) (*placed, bool) {
	n := len(p.args)
	reach := p.reach()
	for _, r := range reach {
		if r < 0 {
			return nil, false
		}
	}
	open := []int{} // values used and not yet made
	states := []placeState{{}}
	history := make([][]placeState, n)
	dropped := math.Inf(1)
	for i := n - 1; i >= 0; i-- {
		at := slices.Index(open, i)
		next := slices.Clone(open)
		if at >= 0 {
			next = slices.Delete(next, at, at+1)
		}
		for _, a := range p.args[i] {
			if !slices.Contains(next, a) {
				next = append(next, a)
			}
		}
		argAt := make([]int, len(p.args[i]))
		for k, a := range p.args[i] {
			argAt[k] = slices.Index(next, a)
		}
		byNeeds := make(map[string]int, 2*len(states))
		var out []placeState
		buf := make([]byte, len(next))
		add := func(from int, level, refreshed int, cost float64) {
			s := &states[from]
			clear(buf)
			if at >= 0 {
				copy(buf, s.needs[:at])
				copy(buf[at:], s.needs[at+1:])
			} else {
				copy(buf, s.needs)
			}
			for _, k := range argAt {
				buf[k] = max(buf[k], byte(level+p.depth[i]))
			}
			t := placeState{needs: string(buf), cost: s.cost + cost, from: int32(from), refreshed: refreshed}
			if k, ok := byNeeds[t.needs]; !ok {
				byNeeds[t.needs] = len(out)
				out = append(out, t)
			} else if t.cost < out[k].cost {
				out[k] = t
			}
		}
		for k := range states {
			need := 0
			if at >= 0 {
				need = int(states[k].needs[at])
			}
			if need <= reach[i] {
				add(k, need, 0, p.cost(i, need))
			}
			if need > p.in && need <= p.most && p.mutable[i] && p.in <= reach[i] {
				add(k, p.in, need, p.cost(i, p.in)+p.refresh(i, need))
			}
		}
		slices.SortFunc(out, comparePlaceStates)
		kept := out[:0]
		for k := range out {
			if !slices.ContainsFunc(kept, func(s placeState) bool { return s.dominates(&out[k]) }) {
				kept = append(kept, out[k])
			}
		}
		if len(kept) > limit {
			var least float64
			kept, least = p.cheapest(kept, next, i, limit)
			dropped = min(dropped, least)
		}
		history[i], states, open = states, kept, next
		// The state before the step taken at i is history[i][from].
	}
	best := &placed{level: make([]int, n), seconds: states[0].cost}
	best.loss = max(0, (best.seconds-dropped)/best.seconds)
	for i, s := 0, states[0]; i < n; i++ {
		best.level[i] = s.refreshed
		s = history[i][s.from]
	}
	return best, true
}

// cheapest keeps the states that may come cheapest once the steps before i are
// made, and returns the least cost that any other can come to.
func (p *placer) cheapest(states []placeState, open []int, i, limit int) ([]placeState, float64) {
	up := make([]int, i) // levels from the inputs to a result
	rest, once := 0.0, math.Inf(1)
	for k := range i {
		for _, a := range p.args[k] {
			up[k] = max(up[k], up[a])
		}
		up[k] += p.depth[k]
		rest += p.cost(k, 0)
		if p.mutable[k] && p.most > p.in {
			once = min(once, p.refresh(k, p.in+1))
		}
	}
	// The longest way back to an input has to be bridged: a refresh brings most-in
	// levels.
	bounds := make(map[string]float64, len(states))
	for _, s := range states {
		lack := 0
		for k, v := range open {
			lack = max(lack, int(s.needs[k])+up[v]-p.top)
		}
		b := s.cost + rest
		if lack > 0 {
			b += once * float64(lack) / float64(p.most-p.in)
		}
		bounds[s.needs] = b
	}
	slices.SortStableFunc(states, func(a, b placeState) int { return cmp.Compare(bounds[a.needs], bounds[b.needs]) })
	return states[:limit], bounds[states[limit].needs]
}

// networkPlacer prices a fused network before it is packed, on one core.
type networkPlacer struct {
	placer
	nodes []*fusedNode
	sizes []stepSize
	par   *ir.Params
	prof  *backend.Profile
	boot  *bootstrap
	costs []map[int]float64  // of each step, by depth and level
	again map[[3]int]float64 // of refreshes, by points, ciphertexts and level
}

// compositePart is about how many levels each polynomial of a composite sign takes.
const compositePart = 5

// stepSize is what the cost of a step depends on before it is packed.
type stepSize struct {
	kind     fusedKind
	elems    int
	cts, ins int // ciphertexts of the result, of the arguments
	diags    int // as few as the entries of its matrices fill
}

func sizeOf(n *fusedNode, par *ir.Params) stepSize {
	s := stepSize{kind: n.kind, elems: n.elems(), cts: ciphertexts(n.elems(), par)}
	for _, a := range n.args {
		s.ins += ciphertexts(a.elems(), par)
	}
	for _, m := range n.mats {
		s.diags += ciphertexts(m.NNZ(), par)
	}
	return s
}

// newPlacer returns the placer of a network for one choice of parameters; without
// bootstrapping where boot is nil.
func newPlacer(nodes []*fusedNode, par *ir.Params, prof *backend.Profile, boot *bootstrap) *networkPlacer {
	p := &networkPlacer{nodes: nodes, par: par, prof: prof, boot: boot, costs: make([]map[int]float64, len(nodes)), again: map[[3]int]float64{}}
	p.top = par.MaxLevel()
	if boot != nil {
		p.in, p.most = boot.levelsIn(), p.top-boot.levelsOver()
	}
	p.placer.cost, p.placer.refresh = p.stepSeconds, p.refreshSeconds
	index := map[*fusedNode]int{}
	for i, n := range nodes {
		index[n] = i
		var args []int
		for _, a := range n.args {
			args = append(args, index[a])
		}
		p.args = append(p.args, args)
		p.sizes = append(p.sizes, sizeOf(n, par))
		p.depth = append(p.depth, n.depth())
		p.mutable = append(p.mutable, boot != nil && n.kind != fusedInput && n.kind != fusedOutput)
		p.costs[i] = map[int]float64{}
	}
	return p
}

func (p *networkPlacer) stepSeconds(i, level int) float64 {
	key := p.depth[i]<<8 | level
	c, ok := p.costs[i][key]
	if !ok {
		c = p.sizes[i].seconds(p.depth[i], level, p.par, p.prof)
		p.costs[i][key] = c
	}
	return c
}

func (p *networkPlacer) refreshSeconds(i, level int) float64 {
	s := p.sizes[i]
	key := [3]int{min(nextPow2(s.elems), p.par.Slots()), s.cts, level}
	c, ok := p.again[key]
	if !ok {
		c = p.boot.seconds(p.par, p.prof, level, key[0], key[1])
		p.again[key] = c
	}
	return c
}

// ciphertexts is how many hold n elements.
func ciphertexts(n int, par *ir.Params) int { return (n + par.Slots() - 1) / par.Slots() }

// seconds estimates a step that consumes depth levels. The keys and weights that
// a matrix needs are read from the slow tier.
func (s stepSize) seconds(depth, level int, par *ir.Params, prof *backend.Profile) float64 {
	cts, top := float64(s.cts), level+depth
	switch s.kind {
	case fusedPoly:
		t := 0.0
		for d := 0; top > level; top -= d {
			if d = top - level; d > maxPolyLevels { // a composite sign, not yet taken apart
				d = compositePart
			}
			t += polyCost(1<<d-1, par, prof, top-d/2)
		}
		return cts * t
	case fusedMul:
		return cts * prof.Seconds(par, ir.OpHEMulRescale, top)
	case fusedLinear:
		diags := float64(s.diags)
		half := math.Sqrt(max(1, diags)) // baby steps, giant steps
		read := func(k ir.Kind) float64 { return float64(par.Slabs(k, top)*par.SlabBytes()) / prof.Slow().ReadBps }
		return float64(s.ins)*prof.Seconds(par, ir.OpHEDecompose, top) +
			(half-1)*(prof.Seconds(par, ir.OpHEHoistRot, top)+prof.Seconds(par, ir.OpHEGiant, top)+2*read(ir.KeyKind)) +
			diags*(prof.Seconds(par, ir.OpHEMacQP, top)+read(ir.PlainQPKind)) +
			cts*prof.Seconds(par, ir.OpHEModDownRescale, top)
	}
	return 0
}

// refreshed returns the network with refreshes where a placement has them.
// Users that can do with the level a value had before it was refreshed read it
// from there, where it is more precise.
func (p *networkPlacer) refreshed(at *placed) []*fusedNode {
	need := make([]int, len(p.nodes)) // level of each result before a refresh
	for i := len(p.nodes) - 1; i >= 0; i-- {
		if at.level[i] > 0 {
			need[i] = p.in
		}
		for _, a := range p.args[i] {
			need[a] = max(need[a], need[i]+p.depth[i])
		}
	}
	var out []*fusedNode
	plain, fresh := make([]*fusedNode, len(p.nodes)), make([]*fusedNode, len(p.nodes))
	for i, n := range p.nodes {
		c := *n
		c.args = nil
		for _, a := range p.args[i] {
			x := plain[a]
			if fresh[a] != nil && need[i]+p.depth[i] > p.in {
				x = fresh[a]
			}
			c.args = append(c.args, x)
		}
		plain[i] = &c
		out = append(out, &c)
		if at.level[i] > 0 {
			fresh[i] = &fusedNode{kind: fusedRefresh, name: n.name, shape: n.shape, args: []*fusedNode{&c}, norm: n.norm, center: n.center, boot: p.boot}
			out = append(out, fresh[i])
		}
	}
	return out
}

// bootstraps counts the ciphertexts that a placement refreshes.
func (p *networkPlacer) bootstraps(at *placed) int {
	n := 0
	for i, l := range at.level {
		if l > 0 {
			n += p.sizes[i].cts
		}
	}
	return n
}

// placementPass writes the refreshes that the choice of parameters has found into
// the program, and gives every step its level.
func placementPass(u *unit) error {
	u.nodes = u.fused
	if u.placer != nil {
		u.nodes = u.placer.refreshed(u.placed)
		u.note("placement: %s", u.placer.describe(u.placed))
	}
	u.depth = assignLevels(u.nodes)
	if u.depth > u.par.MaxLevel() {
		panic(fmt.Sprintf("BUG: placed at %d levels, %q has %d", u.depth, u.par.Name, u.par.MaxLevel()))
	}
	return nil
}

// describe says in a line what was placed.
func (p *networkPlacer) describe(at *placed) string {
	const few = 4
	var names []string
	all, seen := 0, map[*ir.Approx]bool{}
	for i, n := range p.nodes {
		if at.level[i] > 0 {
			names = append(names, n.name)
		}
		if n.kind == fusedPoly && !seen[n.orig] {
			all += p.sizes[i].cts
			seen[n.orig] = true // several polynomials may make one activation
		}
	}
	if len(names) > few {
		names = append(names[:few-1:few-1], fmt.Sprintf("%d more", len(names)-few+1))
	}
	s := fmt.Sprintf("bootstraps: %d (%s), to at most %d levels, %.3g s predicted; one for every activation would be %d", p.bootstraps(at), strings.Join(names, ", "), p.most, at.seconds, all)
	if at.loss > 0 {
		s += fmt.Sprintf("; the best placement may cost %.2g %% less", 100*at.loss)
	}
	return s
}

// pricer predicts what a network costs for a choice of levels of its activations,
// before their polynomials are known. It is for one goroutine at a time.
type pricer struct {
	steps []int            // of the activations, in the order of the graph
	tries []*networkPlacer // without bootstrapping, then with it
}

// newPricer fuses the network with placeholders for its polynomials. Ranges must
// be known.
func (u *unit) newPricer() (*pricer, error) {
	acts := encryptedActs(u.graph)
	kept := make([]*ir.Approx, len(acts))
	for i, v := range acts {
		kept[i] = v.Approx
		v.Approx = &ir.Approx{Coef: []float64{0, 1}, Bound: 1}
	}
	nodes, err := fuse(u.graph, u.ranges, u.inputNorm)
	p := &pricer{}
	for i, v := range acts {
		p.steps = append(p.steps, slices.IndexFunc(nodes, func(n *fusedNode) bool { return n.orig == v.Approx }))
		v.Approx = kept[i]
	}
	if err != nil {
		return nil, err
	}
	prof := u.opt.profile()
	if par := u.opt.Params; par != nil {
		p.tries = append(p.tries, newPlacer(nodes, par, prof, nil))
		if par.Ring == ir.RingStandard {
			p.tries = append(p.tries, givenPlacers(nodes, par, prof)...)
		}
	} else {
		all, err := Catalogue()
		if err != nil {
			return nil, err
		}
		boots, err := bootPlacers(nodes, prof, 0)
		if err != nil {
			return nil, err
		}
		for _, par := range all {
			p.tries = append(p.tries, newPlacer(nodes, par, prof, nil))
		}
		p.tries = append(p.tries, boots...)
	}
	for _, t := range p.tries {
		t.nodes = nil // matrices take memory, sizes will do
	}
	return p, nil
}

// unplaced is the price of a level where no parameters serve, in seconds.
const unplaced = 1e6

// price returns the predicted seconds for levels of the activations in the order
// of the graph, the parameters chosen as the pass of that name does, and the
// number of bootstraps.
func (p *pricer) price(levels []int) (seconds float64, bootstraps int) {
	for _, l := range levels {
		seconds += unplaced * float64(l)
	}
	for _, t := range p.tries {
		for k, i := range p.steps {
			if i >= 0 { // an activation nothing uses is no step
				t.depth[i] = levels[k]
			}
		}
		at, ok := t.solve(mostStates)
		if ok && at.seconds < seconds {
			seconds, bootstraps = at.seconds, t.bootstraps(at)
		}
		if ok && t.boot == nil && t.par.LogN < bootEntries[0].logN {
			break
		}
	}
	return seconds, bootstraps
}
