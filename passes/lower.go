package passes

import (
	"math/bits"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// outputBits is how far below q_0 the scale of an output lies: outputs are
// normalised to half, so they may grow fourfold beyond their range.
const outputBits = 2

// lowering turns a packed program into scheme operations. Every linear layer
// ends at scale exactly 2^LogScale: its weights are encoded at
// target*q/scale(argument), which undoes whatever drift products before it left.
type lowering struct {
	b       *builder
	par     *ir.Params
	prof    *backend.Profile
	target  ir.Scale
	state   *packState
	index   map[*fusedNode]int
	cts     map[*fusedNode][]*ir.Value
	exposed map[*fusedNode]bool // layers that a polynomial, a product or a refresh follows
	// points of the transforms of all refreshes: of the value that repeats least.
	// Those that repeat more could do with fewer, which saves little time, but one
	// set of keys and matrices for all saves much memory.
	points int
	// What takes long is done on all cores: gathering the diagonals of the layers
	// before they are lowered, sorting the slots of each afterwards.
	diags map[*fusedNode][]*diagData
	late  []func()
}

func lowerScheme(name string, nodes []*fusedNode, st *packState, par *ir.Params, prof *backend.Profile) *lowering {
	lw := &lowering{b: newBuilder(&ir.Graph{Name: name}), par: par, prof: prof, target: ir.ScaleTwo(par.LogScale),
		state: st, index: map[*fusedNode]int{}, cts: map[*fusedNode][]*ir.Value{}, exposed: map[*fusedNode]bool{}}
	for _, n := range nodes {
		if n.kind == fusedPoly || n.kind == fusedMul || n.kind == fusedRefresh {
			for _, a := range n.args {
				lw.exposed[a] = true
			}
		}
	}
	var layers []*fusedNode
	for i, n := range nodes {
		lw.index[n] = i
		if n.kind == fusedRefresh {
			lw.points = max(lw.points, repeats(lw.place(n).out)<<st.logLanes)
		}
		if n.kind == fusedLinear && !lw.batchAxis() {
			layers = append(layers, n)
		}
	}
	found := make([][]*diagData, len(layers))
	all := func(n int, f func(i int)) {
		if err := backend.Each(n, func(i int) error { f(i); return nil }); err != nil {
			panic(err)
		}
	}
	all(len(layers), func(i int) { found[i] = lw.gather(layers[i]) })
	lw.diags = map[*fusedNode][]*diagData{}
	for i, n := range layers {
		lw.diags[n] = found[i]
	}
	for i, n := range nodes {
		lw.b.cur, lw.b.name = i, n.name
		lw.cts[n] = lw.node(n)
		delete(lw.diags, n)
	}
	all(len(lw.late), func(i int) { lw.late[i](); lw.late[i] = nil })
	lw.b.finish()
	return lw
}

func (lw *lowering) place(n *fusedNode) *placement { return &lw.state.places[lw.index[n]] }

// batchAxis reports whether every slot belongs to another sample.
func (lw *lowering) batchAxis() bool { return lw.par.Slots()>>lw.state.logLanes == 1 }

func (lw *lowering) node(n *fusedNode) []*ir.Value {
	b := lw.b
	var out []*ir.Value
	switch n.kind {
	case fusedInput:
		for range lw.place(n).out.layout.Cts {
			v := b.emit(ir.OpHEInput, ir.Attrs{"level": n.level, "scale": lw.target.String()})
			b.g.Inputs = append(b.g.Inputs, v)
			out = append(out, v)
		}
	case fusedLinear:
		return lw.linear(n)
	case fusedPoly:
		for _, x := range lw.cts[n.args[0]] {
			out = append(out, b.polynomial(x, n.approx.Coef, n.level+n.depth(), lw.target))
		}
	case fusedMul:
		x, y := lw.cts[n.args[0]], lw.cts[n.args[1]]
		for i := range x {
			out = append(out, b.rescale(b.mulAt(x[i], y[i], n.level+1)))
		}
	case fusedRefresh:
		for _, x := range lw.cts[n.args[0]] {
			out = append(out, lw.refresh(n.boot, x, lw.points, n.level))
		}
	case fusedOutput:
		for _, x := range lw.cts[n.args[0]] {
			v := b.emit(ir.OpHEOutput, nil, x)
			b.g.Outputs = append(b.g.Outputs, v)
			out = append(out, v)
		}
	}
	return out
}

// diagData gathers the entries of one diagonal.
type diagData struct {
	key diagKey
	to  []int32
	val []float64
}

func (lw *lowering) packedArgs(n *fusedNode) []*packed {
	var args []*packed
	for _, a := range n.args {
		args = append(args, lw.place(a).out)
	}
	return args
}

// gather returns the diagonals of a layer in order.
func (lw *lowering) gather(n *fusedNode) []*diagData {
	p, args := lw.place(n), lw.packedArgs(n)
	// Entries of one diagonal tend to follow each other, those of one pair of
	// ciphertexts always do.
	type pair struct{ arg, in, out int }
	known := map[pair]map[int]*diagData{}
	var diags []*diagData
	for k, m := range n.mats {
		var last *diagData
		p.eachEntry(args[k], m, func(in, out, to, rot int, val float64) {
			key := diagKey{k, in, out, rot}
			if last == nil || last.key != key {
				at := pair{k, in, out}
				if known[at] == nil {
					known[at] = map[int]*diagData{}
				}
				if last = known[at][rot]; last == nil {
					last = &diagData{key: key}
					known[at][rot] = last
					diags = append(diags, last)
				}
			}
			last.to = append(last.to, int32(to))
			last.val = append(last.val, val)
		})
	}
	slices.SortFunc(diags, func(x, y *diagData) int { return compareDiag(x.key, y.key) })
	return diags
}

func (lw *lowering) linear(n *fusedNode) []*ir.Value {
	b, p, lanes := lw.b, lw.place(n), lw.state.logLanes
	slots := lw.par.Slots()
	level := n.level + 1
	target := ir.ScaleTwo(lw.par.LogScale + n.boost)
	if n.final { // all of q_0 that the range of an output leaves
		target = ir.ScaleTwo(bits.Len64(lw.par.Q[0]) - outputBits)
	}
	product := target.Mul(ir.ScalePrime(level))
	if lw.batchAxis() {
		return lw.lanesLinear(n, level, product)
	}

	args := lw.packedArgs(n)
	period := make([]int, len(args))
	for k := range n.mats {
		period[k] = commonPeriod(args[k], p)
	}
	diags := lw.diags[n]

	acc := make([]*ir.Value, p.out.layout.Cts) // modulo Q, at scale product
	join := func(j int, v *ir.Value) {
		if acc[j] == nil {
			acc[j] = v
		} else {
			acc[j] = b.add(acc[j], v)
		}
	}
	// Arguments that are only scaled, all slots alike, need no plaintext.
	var rest []*diagData
	for _, d := range diags {
		if c, ok := lw.uniform(n, d, args[d.key.arg], p, diags); ok {
			x := lw.cts[n.args[d.key.arg]][d.key.in]
			join(d.key.out, b.mulConst(x, c, product.Div(x.Type.Scale), level))
			continue
		}
		rest = append(rest, d)
	}
	lw.products(n, rest, args, period, p, level, product, join)

	for j := range acc {
		if acc[j] == nil { // an output ciphertext that depends on nothing
			x := lw.cts[n.args[0]][0]
			acc[j] = b.mulConst(x, 0, product.Div(x.Type.Scale), level)
		}
		for k := p.unit; k < p.unit*p.count; k *= 2 {
			acc[j] = b.add(acc[j], b.rotate(acc[j], mod(k<<lanes, slots)))
		}
		acc[j] = b.rescale(acc[j])
	}
	if n.bias != nil {
		lw.addBias(n, p, acc)
	}
	return acc
}

// uniform reports whether a diagonal multiplies every element of an argument in
// place by one constant. It would multiply gaps too and shift them by the bias,
// which must not happen to garbage before a polynomial or a product.
func (lw *lowering) uniform(n *fusedNode, d *diagData, a *packed, p *placement, all []*diagData) (float64, bool) {
	if d.key.rot != 0 || d.key.in != d.key.out || p.count != 1 || !a.layout.Equal(p.out.layout) || lw.exposed[n] && a.layout.Unknown() {
		return 0, false
	}
	for _, v := range d.val {
		if v != d.val[0] {
			return 0, false
		}
	}
	m := n.mats[d.key.arg]
	if m.Rows != m.Cols || m.NNZ() != m.Rows { // covers all elements, nothing else
		return 0, false
	}
	for _, e := range all {
		if e.key.arg == d.key.arg && (e.key.rot != 0 || e.key.in != e.key.out) {
			return 0, false
		}
	}
	return d.val[0], true
}

// products emits the baby-step giant-step sum of diagonals with double hoisting
// (Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, EUROCRYPT 2021): each
// argument is decomposed once, baby steps and inner sums stay modulo QP, and one
// ModDown per output ciphertext ends the layer.
func (lw *lowering) products(n *fusedNode, diags []*diagData, args []*packed, period []int, p *placement, level int, product ir.Scale, join func(int, *ir.Value)) {
	if len(diags) == 0 {
		return
	}
	b, lanes := lw.b, lw.state.logLanes
	keys := make([]diagKey, len(diags))
	rotates := false
	for i, d := range diags {
		keys[i] = d.key
		rotates = rotates || d.key.rot != 0
	}
	if !rotates {
		for _, d := range diags {
			x := lw.cts[n.args[d.key.arg]][d.key.in]
			pt := b.plain(lw.slots(d, nil, period[d.key.arg], 0, 1), level, product.Div(x.Type.Scale), false)
			join(d.key.out, b.emit(ir.OpHEMulPlain, ir.Attrs{"level": level}, x, pt))
		}
		return
	}
	sum := newLayerSum(keys, args, p, lw.par, level)
	var by *rotations
	if s := lw.state.sums; s != nil {
		by = s[lw.index[n]]
	} else {
		by = cheapest(sum.ways(lw.par, lw.prof))
	}
	joined := sum.pairs(by.half)
	factor := 1.0
	if len(joined) < len(diags) {
		factor = 0.5 // taking the real part doubles it
	}
	// From positions to slots.
	by = by.spread(lanes)
	var terms []term
	for _, x := range joined {
		a, b := diags[x[0]], (*diagData)(nil)
		if x[1] >= 0 {
			b = diags[x[1]]
		}
		k := a.key
		k.rot <<= lanes
		terms = append(terms, term{k, func(giant int) *ir.SlotData { return lw.slots(a, b, period[k.arg], giant>>lanes, factor) }})
	}
	twice := map[diagKey]*ir.Value{} // x + i*rot(x, half)
	source := func(k diagKey) *ir.Value {
		x := lw.cts[n.args[k.arg]][k.in]
		if factor == 1 || by.half[k.arg] == 0 {
			return x
		}
		at := diagKey{arg: k.arg, in: k.in}
		if twice[at] == nil {
			h := by.half[k.arg]
			y := b.emit(ir.OpHERotate, ir.Attrs{"rot": h, "level": level}, x, b.key(h, level))
			twice[at] = b.emit(ir.OpHEAdd, ir.Attrs{"level": level}, b.emit(ir.OpHEMulI, nil, y), x)
		}
		return twice[at]
	}
	for j, y := range lw.bsgs(terms, by, source, p.out.layout.Cts, level, product) {
		if y == nil {
			continue
		}
		if factor < 1 {
			y = b.emit(ir.OpHERealPart, nil, y, b.key(ir.KeyConj, level))
		}
		join(j, y)
	}
}

// term is one diagonal of a linear layer. slots gives it rotated to the right by
// the giant step that brings it back.
type term struct {
	key   diagKey
	slots func(giant int) *ir.SlotData
}

// bsgs emits the sum of diagonals for each output ciphertext, at scale product; nil
// where there are none.
func (lw *lowering) bsgs(terms []term, by *rotations, source func(diagKey) *ir.Value, outs, level int, product ir.Scale) []*ir.Value {
	b, slots := lw.b, lw.par.Slots()
	type babyKey struct{ arg, in, rot int }
	babies := map[babyKey]*ir.Value{}
	digits := map[[2]int]*ir.Value{}
	hoisted := func(x, digits *ir.Value, rot int) *ir.Value {
		rot = mod(rot, slots)
		return b.emit(ir.OpHEHoistRot, ir.Attrs{"rot": rot}, x, digits, b.key(rot, level))
	}
	baby := func(d diagKey, rot int) *ir.Value {
		k := babyKey{d.arg, d.in, rot}
		if v := babies[k]; v != nil {
			return v
		}
		v := source(d)
		switch {
		case rot != 0:
			at := [2]int{k.arg, k.in}
			if digits[at] == nil {
				digits[at] = b.emit(ir.OpHEDecompose, ir.Attrs{"level": level}, v)
			}
			if v = hoisted(v, digits[at], rot); by.flat {
				v = b.emit(ir.OpHEModDown, nil, v)
			}
		case !by.flat:
			v = b.emit(ir.OpHELift, ir.Attrs{"level": level}, v)
		}
		babies[k] = v
		return v
	}
	// Group by output ciphertext and giant step, in order.
	type group struct{ out, giant int }
	groups := map[group][]term{}
	var order []group
	for _, t := range terms {
		_, g := by.split.of(t.key.rot)
		k := group{t.key.out, g}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], t)
	}
	slices.SortFunc(order, func(x, y group) int {
		if x.out != y.out {
			return x.out - y.out
		}
		return x.giant - y.giant
	})
	// What is summed modulo QP, and modulo Q.
	high, low := make([]*ir.Value, outs), make([]*ir.Value, outs)
	join := func(sum **ir.Value, x *ir.Value) {
		if *sum == nil {
			*sum = x
		} else {
			*sum = b.add(*sum, x)
		}
	}
	for _, gr := range order {
		var inner *ir.Value
		for _, t := range groups[gr] {
			rot, _ := by.split.of(t.key.rot)
			x := baby(t.key, rot)
			pt := b.plain(t.slots(gr.giant), level, product.Div(x.Type.Scale), !by.flat)
			switch {
			case inner == nil && by.flat:
				inner = b.emit(ir.OpHEMulPlain, ir.Attrs{"level": level}, x, pt)
			case inner == nil:
				inner = b.emit(ir.OpHEMulQP, nil, x, pt)
			case by.flat:
				inner = b.emit(ir.OpHEMacPlain, nil, inner, x, pt)
			default:
				inner = b.emit(ir.OpHEMacQP, nil, inner, x, pt)
			}
		}
		rot := mod(gr.giant, slots)
		switch {
		case rot != 0 && by.flat:
			inner = hoisted(inner, b.emit(ir.OpHEDecompose, nil, inner), rot)
		case rot != 0:
			inner = b.emit(ir.OpHEGiant, ir.Attrs{"rot": rot}, inner, b.key(rot, level))
		case by.flat:
			join(&low[gr.out], inner)
			continue
		}
		join(&high[gr.out], inner)
	}
	for j, s := range high {
		if s != nil {
			join(&low[j], b.emit(ir.OpHEModDown, nil, s))
		}
	}
	return low
}

// slots returns the diagonal a - i*b, or a where there is no b, times factor, as
// slot values rotated to the right by giant so that the giant step brings them
// back. Period and giant count positions. They are filled in at the end.
func (lw *lowering) slots(a, b *diagData, period, giant int, factor float64) *ir.SlotData {
	out := &ir.SlotData{Period: period << lw.state.logLanes, LogLanes: lw.state.logLanes, Imag: b != nil}
	fill := func(d *diagData, base int, factor float64) {
		perm := make([]int64, len(d.to)) // slot and entry in one word, to be sorted
		for i, t := range d.to {
			perm[i] = int64(base+mod(int(t)+giant, period))<<32 | int64(i)
		}
		slices.Sort(perm)
		for _, k := range perm {
			out.Index, out.Value = append(out.Index, int32(k>>32)), append(out.Value, factor*d.val[int32(k)])
		}
		d.to, d.val = nil, nil
	}
	lw.late = append(lw.late, func() {
		n := len(a.to)
		if b != nil {
			n += len(b.to)
		}
		out.Index, out.Value = make([]int32, 0, n), make([]float64, 0, n)
		fill(a, 0, factor)
		if b != nil {
			fill(b, period, -factor)
		}
		out.Pack()
	})
	return out
}

func (lw *lowering) addBias(n *fusedNode, p *placement, acc []*ir.Value) {
	l := p.out.layout
	uniform := !slices.Contains(l.Map, ir.SlotZero)
	for _, x := range n.bias {
		uniform = uniform && x == n.bias[0]
	}
	for j := range acc {
		if uniform {
			acc[j] = lw.b.addConst(acc[j], n.bias[0])
			continue
		}
		d := &ir.SlotData{Period: repeats(p.out) << lw.state.logLanes, LogLanes: lw.state.logLanes}
		for s := range d.Positions() {
			if e := l.Map[j*l.Slots+s]; e >= 0 && n.bias[e] != 0 {
				d.Index = append(d.Index, int32(s))
				d.Value = append(d.Value, n.bias[e])
			}
		}
		if len(d.Index) > 0 {
			acc[j] = lw.b.addPlain(acc[j], lw.b.plain(d, acc[j].Type.Level, acc[j].Type.Scale, false))
		}
	}
}
