package passes

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// drawPlacer makes a graph of n steps: a chain with branches that join it again
// later. Costs rise with the level, by steps that are often nothing.
func drawPlacer(r *rand.Rand, n, in, most, top int) *placer {
	p := &placer{in: in, most: most, top: top}
	rising := func(rows int, base, slope float64) [][]float64 {
		t := make([][]float64, rows)
		for i := range t {
			x := base * r.Float64()
			for range top + 1 {
				t[i] = append(t[i], x)
				if r.IntN(3) > 0 {
					x += slope * r.Float64()
				}
			}
		}
		return t
	}
	for i := range n {
		var args []int
		if i > 0 {
			args = []int{i - 1}
			for r.IntN(10) < 4 && len(args) < 3 {
				args = append(args, r.IntN(i))
			}
			if r.IntN(8) == 0 { // the chain ends here
				args = []int{r.IntN(i)}
			}
		}
		depth := 0
		if i > 0 {
			depth = r.IntN(most - in + 1)
			if r.IntN(30) == 0 { // may be too much
				depth = most - in + 1
			}
		}
		p.args = append(p.args, args)
		p.depth = append(p.depth, depth)
		p.mutable = append(p.mutable, i > 0 && r.IntN(6) > 0)
	}
	cost, refresh := rising(n, 3, 1), rising(n, 6, 1)
	p.cost = func(i, level int) float64 { return cost[i][level] }
	p.refresh = func(i, level int) float64 { return refresh[i][level] }
	return p
}

// price computes what a placement costs from its definition, with results as low
// as users allow; infinite where it is not possible. refreshed holds a bit for
// each step.
func (p *placer) price(refreshed uint64) float64 {
	need := make([]int, len(p.args))
	total := 0.0
	for i := len(p.args) - 1; i >= 0; i-- {
		level := need[i]
		if refreshed>>i&1 == 1 {
			if !p.mutable[i] || level > p.most {
				return math.Inf(1)
			}
			total += p.refresh(i, level)
			level = p.in
		}
		if len(p.args[i]) == 0 && level > p.top || level+p.depth[i] > p.top {
			return math.Inf(1)
		}
		total += p.cost(i, level)
		for _, a := range p.args[i] {
			need[a] = max(need[a], level+p.depth[i])
		}
	}
	return total
}

// free finds the least cost over all levels that results may have and be
// refreshed to, whether users need them or not.
func (p *placer) free() float64 {
	best := math.Inf(1)
	have := make([]int, len(p.args)) // the higher of the two levels
	var walk func(i int, cost float64)
	walk = func(i int, cost float64) {
		if cost >= best {
			return
		}
		if i == len(p.args) {
			best = cost
			return
		}
		most := p.top
		for _, a := range p.args[i] {
			most = min(most, have[a])
		}
		for level := 0; level <= most-p.depth[i]; level++ {
			have[i] = level
			walk(i+1, cost+p.cost(i, level))
			if p.mutable[i] && level >= p.in {
				for have[i] = 1; have[i] <= p.most; have[i]++ {
					walk(i+1, cost+p.cost(i, level)+p.refresh(i, have[i]))
				}
			}
		}
	}
	walk(0, 0)
	return best
}

func (at *placed) mask() uint64 {
	m := uint64(0)
	for i, l := range at.level {
		if l > 0 {
			m |= 1 << i
		}
	}
	return m
}

// TestPlacementOptimal compares the search with all subsets of values that can be
// refreshed, on random graphs, and with all choices of levels on small ones.
func TestPlacementOptimal(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 14))
	some, none, many := 0, 0, 0
	for k := range 1500 {
		n := 2 + r.IntN(11)
		in := 1 + r.IntN(3)
		most := in + 1 + r.IntN(4)
		p := drawPlacer(r, n, in, most, most+r.IntN(4))
		best := math.Inf(1)
		for m := range uint64(1) << n {
			best = min(best, p.price(m))
		}
		at, ok := p.solve(mostStates)
		if !ok {
			none++
			if !math.IsInf(best, 1) {
				t.Fatalf("graph %d: nothing found, %g is possible", k, best)
			}
			continue
		}
		if math.Abs(at.seconds-best) > 1e-9 || at.loss != 0 {
			t.Fatalf("graph %d: %g (loss %g), the best is %g", k, at.seconds, at.loss, best)
		}
		if got := p.price(at.mask()); math.Abs(got-best) > 1e-9 {
			t.Fatalf("graph %d: the placement costs %g, %g was promised", k, got, best)
		}
		if at.mask() != 0 {
			some++
		}
		if at.mask()&(at.mask()-1) != 0 {
			many++
		}
	}
	if some < 400 || many < 200 || none < 50 {
		t.Errorf("%d graphs refreshed, %d more than once, %d impossible: too few to tell", some, many, none)
	}
	for k := range 60 {
		p := drawPlacer(r, 2+r.IntN(4), 1+r.IntN(2), 3, 3+r.IntN(3))
		best := p.free()
		at, ok := p.solve(mostStates)
		if ok != !math.IsInf(best, 1) || ok && math.Abs(at.seconds-best) > 1e-9 {
			t.Fatalf("small graph %d: found %v %+v, the best is %g", k, ok, at, best)
		}
	}
}

// TestPlacementLimit searches graphs with few states kept: what is found is
// valid, no further from the best than stated, and the same each time.
func TestPlacementLimit(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 77))
	lossy := 0
	for k := range 100 {
		p := drawPlacer(r, 14, 2, 6, 9)
		for i := range p.args { // wide: many values wait for their users
			if i > 6 {
				p.args[i] = append(p.args[i], i-2, i-4, i-6)
			}
		}
		best, ok := p.solve(mostStates)
		if !ok {
			continue
		}
		for _, limit := range []int{1, 2, 5} {
			at, ok := p.solve(limit)
			if !ok || math.Abs(p.price(at.mask())-at.seconds) > 1e-9 {
				t.Fatalf("graph %d, %d states: %v %+v", k, limit, ok, at)
			}
			if at.seconds < best.seconds-1e-9 || at.seconds*(1-at.loss) > best.seconds+1e-9 {
				t.Errorf("graph %d, %d states: %g with a loss of at most %g, the best is %g", k, limit, at.seconds, at.loss, best.seconds)
			}
			if at.seconds > best.seconds+1e-9 {
				lossy++
			}
			if again, _ := p.solve(limit); !slices.Equal(again.level, at.level) {
				t.Errorf("graph %d, %d states: %v, then %v", k, limit, at.level, again.level)
			}
		}
	}
	if lossy == 0 {
		t.Error("nothing was ever lost: the limit does not bite")
	}
}

// deepNetwork is the fused form of a residual network of so many blocks, as
// ResNet has them, with polynomials of a degree.
func deepNetwork(blocks, degree int) []*fusedNode {
	shape := []int{1, 16, 32, 32}
	weights := &ir.Sparse{Rows: 16384, Cols: 16384, Col: make([]int32, 144*16384)}
	var nodes []*fusedNode
	add := func(n *fusedNode) *fusedNode {
		n.name, n.shape = fmt.Sprintf("%s%d", n.kind, len(nodes)), shape
		nodes = append(nodes, n)
		return n
	}
	conv := func(args ...*fusedNode) *fusedNode {
		n := &fusedNode{kind: fusedLinear, args: args}
		for range args {
			n.mats = append(n.mats, weights)
		}
		return add(n)
	}
	relu := func(x *fusedNode) *fusedNode {
		p := &ir.Approx{Coef: make([]float64, degree+1)}
		return add(&fusedNode{kind: fusedPoly, args: []*fusedNode{x}, approx: p, orig: p})
	}
	x := relu(conv(add(&fusedNode{kind: fusedInput})))
	for range blocks {
		x = relu(conv(relu(conv(x)), x))
	}
	add(&fusedNode{kind: fusedOutput, args: []*fusedNode{conv(x)}})
	return nodes
}

func deepUnit(nodes []*fusedNode, opt *Options) *unit {
	u := &unit{opt: opt, graph: &ir.Graph{Name: "deep"}, fused: nodes}
	if err := levelsPass(u); err != nil {
		panic(err)
	}
	return u
}

// TestPlacementResNet places refreshes in a network of the depth of ResNet-20
// with activations of 6 levels: with a chain for two blocks' layers between
// refreshes, one serves a block.
func TestPlacementResNet(t *testing.T) {
	u := deepUnit(deepNetwork(9, 63), &Options{})
	if u.straight != 19*7+1 {
		t.Fatalf("%d levels in one go", u.straight)
	}
	if err := errors.Join(parameters(u), placementPass(u)); err != nil {
		t.Fatal(err)
	}
	refreshes := 0
	for i, n := range u.nodes {
		if n.kind == fusedRefresh {
			refreshes++
			if n.args[0].level != n.boot.levelsIn() || n.level+n.boot.levelsOver() > u.par.MaxLevel() || n.level <= n.args[0].level {
				t.Errorf("%s is refreshed from level %d to %d of %d", n.name, n.args[0].level, n.level, u.par.MaxLevel())
			}
		}
		for _, a := range n.args {
			if slices.Index(u.nodes[:i], a) < 0 {
				t.Errorf("%s reads %s, which comes later", n.name, a.name)
			}
			if n.kind != fusedRefresh && a.level < n.level+n.depth() {
				t.Errorf("%s needs %s at level %d, it has %d", n.name, a.name, n.level+n.depth(), a.level)
			}
		}
	}
	if refreshes > 10 {
		t.Errorf("%d refreshes of 9 blocks", refreshes)
	}
	if len(u.notes) != 1 || !strings.Contains(u.notes[0], fmt.Sprintf("bootstraps: %d ", refreshes)) || !strings.Contains(u.notes[0], "would be 19") {
		t.Errorf("notes %q", u.notes)
	}
	if err := errors.Join(u.par.CheckSecurity(), u.par.CheckBootstrap()); err != nil {
		t.Error(err)
	}
	// Each time parameters are not precise enough, more precise ones are taken,
	// until there are none left.
	seen := []*ir.Params{u.par}
	for {
		u.attempt, u.lastMiss = u.attempt+1, errImprecise
		if err := parameters(u); err != nil {
			if !strings.Contains(err.Error(), errImprecise.Error()) {
				t.Error(err)
			}
			break
		}
		if last := seen[len(seen)-1]; u.par.LogScale <= last.LogScale {
			t.Errorf("%q after %q", u.par.Name, last.Name)
		}
		if err := placementPass(u); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, u.par)
	}
	if len(seen) < 2 {
		t.Errorf("only %d parameter sets were tried", len(seen))
	}
}

// TestStraight compares bootstrapping with chains long enough to do without.
func TestStraight(t *testing.T) {
	for _, c := range []struct {
		blocks, degree int
		opt            Options
		boot           bool
	}{
		{1, 63, Options{}, false},  // in a smaller ring
		{1, 255, Options{}, false}, // two bootstraps against 28 levels
		{2, 63, Options{}, true},   // three against 36
		{2, 63, Options{Batch: 1 << 15}, false},
		{2, 63, Options{Throughput: true}, false},
		{3, 31, Options{}, true}, // deeper than any chain
	} {
		u := deepUnit(deepNetwork(c.blocks, c.degree), &c.opt)
		if err := errors.Join(parameters(u), placementPass(u)); err != nil {
			t.Fatal(err)
		}
		if got := u.par.Ring == ir.RingStandard; got != c.boot || (u.placer != nil) != c.boot || u.depth > u.par.MaxLevel() {
			t.Errorf("%d blocks of degree %d, batch %d: %q, depth %d", c.blocks, c.degree, c.opt.Batch, u.par.Name, u.depth)
		}
	}
}

func BenchmarkPlacement(b *testing.B) {
	nodes := deepNetwork(9, 63)
	par, err := bootMade()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for i, p := range par {
			newPlacer(nodes, p, backend.DefaultProfile(), &bootEntries[i].boot).solve(mostStates)
		}
	}
}

// TestPlacementRefused gives networks and parameters that no placement fits: the
// error names the node and says what to do.
func TestPlacementRefused(t *testing.T) {
	deep := deepNetwork(2, 63)
	deep[10].approx = &ir.Approx{Coef: make([]float64, 1<<20)} // 20 levels, more than a refresh brings
	for _, c := range []struct {
		name  string
		nodes []*fusedNode
		par   *ir.Params
		want  []string
	}{
		{"activation", deep, nil, []string{"poly10", "20 levels", "leaves 19", "--accuracy-drop"}},
		{"ring", deepNetwork(2, 63), tiny(t, 6, ir.RingReal, 20), []string{"36 levels", "20", "standard ring"}},
		{"short", deepNetwork(2, 63), tiny(t, 6, ir.RingStandard, 15), []string{"36 levels", "have 15", "at least 16"}},
		{"barely", deepNetwork(2, 63), tiny(t, 6, ir.RingStandard, 17), []string{"poly2", "6 levels", "leaves 5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := parameters(deepUnit(c.nodes, &Options{Params: c.par, AllowInsecure: true}))
			var node *ir.NodeError
			if !errors.Is(err, ErrTooDeep) || !errors.As(err, &node) {
				t.Fatalf("error %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not mention %q", err, w)
				}
			}
		})
	}
	if err := parameters(deepUnit(deepNetwork(2, 63), &Options{Params: tiny(t, 6, ir.RingStandard, 24)})); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("weak parameters: %v", err)
	}
	u := deepUnit(deepNetwork(2, 63), &Options{Params: tiny(t, 6, ir.RingStandard, 24), AllowInsecure: true})
	if err := errors.Join(parameters(u), placementPass(u)); err != nil || u.depth > 24 || !u.par.Insecure {
		t.Errorf("24 levels: %v, depth %d, insecure %v", err, u.depth, u.par.Insecure)
	}
}

// TestPricer predicts a network before its polynomials are known, and compares
// with what the passes find once they are.
func TestPricer(t *testing.T) {
	text := "graph \"deep\"\n%0 = tensor.input() {shape=[1,8]} \"x\"\n"
	for i := range 6 {
		text += fmt.Sprintf("%%%d = tensor.act(%%%d) {fn=\"sigmoid\"} \"act%d\"\n%%%d = tensor.add(%%%d, %%%d) \"sum%d\"\n", 2*i+1, 2*i, i, 2*i+2, 2*i, 2*i+1, i)
	}
	g := parse(t, text+"inputs(%0)\noutputs(%12)\n")
	u := &unit{opt: &Options{}, graph: g, inputRanges: []Range{{-1, 1}}}
	var err error
	if u.ranges, err = intervals(g, u.inputRanges[0], nil); err != nil {
		t.Fatal(err)
	}
	p, err := u.newPricer()
	if err != nil {
		t.Fatal(err)
	}
	last, most := 0.0, 0
	for _, levels := range []int{2, 4, 6, 8} {
		var choice []int
		for _, v := range encryptedActs(g) {
			choice = append(choice, levels)
			v.Approx = &ir.Approx{Coef: make([]float64, 1<<levels), Bound: 1}
			v.Approx.Coef[1<<levels-1] = 1
		}
		seconds, bootstraps := p.price(choice)
		if err := errors.Join(fusePass(u), levelsPass(u)); err != nil {
			t.Fatal(err)
		}
		u.next = 0
		if err := parameters(u); err != nil {
			t.Fatal(err)
		}
		if u.placer == nil {
			if bootstraps != 0 {
				t.Errorf("%d levels each fit without bootstrapping, %d are predicted", levels, bootstraps)
			}
		} else if got := u.placed.seconds; seconds > got+1e-9 || got > near*seconds {
			t.Errorf("%d levels each: %g s predicted, %g s placed", levels, seconds, got)
		} else if bootstraps < 1 {
			t.Errorf("%d levels each: no bootstraps predicted", levels)
		}
		if seconds <= last || seconds >= unplaced {
			t.Errorf("%d levels each: %g s, fewer cost %g s", levels, seconds, last)
		}
		last, most = seconds, max(most, bootstraps)
	}
	if most == 0 {
		t.Error("nothing was bootstrapped: the network is not deep")
	}
	for _, v := range encryptedActs(g) {
		if v.Approx.Degree() != 255 {
			t.Errorf("the pricer left its placeholder in %s", v.Name)
		}
	}
}

// TestRefreshPacked packs layers whose results are refreshed: slots that a layer
// leaves unbounded would break a bootstrap, and the factors of a product lie in
// the same slots, refreshed or not.
func TestRefreshPacked(t *testing.T) {
	par := tiny(t, 8, ir.RingStandard, 20)
	dense := func(rows, cols int) *ir.Sparse {
		m := &ir.Sparse{Rows: rows, Cols: cols, Ptr: []int32{0}}
		for i := range rows {
			for j := range cols {
				m.Col, m.Val = append(m.Col, int32(j)), append(m.Val, 1/float64(cols+i+j))
			}
			m.Ptr = append(m.Ptr, int32(len(m.Col)))
		}
		return m
	}
	boot := &bootEntries[0].boot
	one := []float64{1}
	in := &fusedNode{kind: fusedInput, name: "x", shape: []int{8}, norm: one}
	linear := func(name string, rows int, x *fusedNode) *fusedNode {
		return &fusedNode{kind: fusedLinear, name: name, shape: []int{rows}, args: []*fusedNode{x}, mats: []*ir.Sparse{dense(rows, x.elems())}, norm: one}
	}
	refresh := func(x *fusedNode) *fusedNode {
		return &fusedNode{kind: fusedRefresh, name: x.name, shape: x.shape, args: []*fusedNode{x}, norm: one, boot: boot}
	}
	pack := func(nodes ...*fusedNode) []*packed {
		t.Helper()
		last := nodes[len(nodes)-1]
		nodes = append(nodes, &fusedNode{kind: fusedOutput, name: "y", shape: last.shape, args: []*fusedNode{last}, norm: one})
		if depth := assignLevels(nodes); depth > par.MaxLevel() {
			t.Fatalf("%d levels", depth)
		}
		st, err := packing(nodes, par, backend.DefaultProfile(), 0)
		if err != nil {
			t.Fatal(err)
		}
		g, err := packedGraph("refreshed", nodes, st)
		if err != nil {
			t.Fatal(err)
		}
		if err := ir.Verify(g, ir.Packed); err != nil {
			t.Fatal(err)
		}
		if got := g.Values[2].Op == ir.OpPackRefresh; got != (nodes[2].kind == fusedRefresh) {
			t.Errorf("refreshes are written as %v", g.Values[2].Op)
		}
		out := make([]*packed, len(nodes))
		for i := range nodes {
			out[i] = st.places[i].out
		}
		return out
	}
	a := linear("a", 12, in)
	if p := pack(in, a); p[1].bounded {
		t.Error("the layer is bounded unasked: the test shows nothing")
	}
	r := refresh(a)
	b := linear("b", 2, r)
	p := pack(in, a, r, b)
	if !p[1].bounded || p[2] != p[1] {
		t.Errorf("refreshed slots are bounded: %v, or moved", p[1].bounded)
	}
	c := linear("c", 12, in)
	mul := &fusedNode{kind: fusedMul, name: "mul", shape: []int{12}, args: []*fusedNode{r, c}, norm: one}
	p = pack(in, a, r, c, mul)
	if !p[3].layout.SamePlaces(p[1].layout) {
		t.Error("the factors of a product lie in different slots")
	}
	if lanes := laneState([]*fusedNode{in, a, r, b}, par, backend.DefaultProfile()); lanes.cost < boot.seconds(par, backend.DefaultProfile(), r.level, par.Slots(), 12) {
		t.Errorf("batch-axis packing costs %g, less than its bootstraps", lanes.cost)
	}
}
