package passes

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"sort"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// A linear layer on packed data is a set of diagonals: y[s] += D_d[s]*x[s+d].
// diagonal names one by argument, input and output ciphertext and rotation.
type diagKey struct{ arg, in, out, rot int }

// walk visits the nonzeros of one matrix as places: a product of the slot from of
// input ciphertext in with val lands, before folding, in slot to of output
// ciphertext out, and rot = from - to modulo the slots, as small in magnitude as
// the copies of the input element allow.
type walk struct {
	p      *placement
	m      *ir.Sparse
	reps   [][]int32 // of each column
	where  [][]int32 // of each row
	first  []int32   // where no column has several copies and nothing is folded: its only one
	period int
	size   int // log2 of the slots
}

func (p *placement) walk(a *packed, m *ir.Sparse) *walk {
	l, o := a.layout, p.out.layout
	w := &walk{p: p, m: m, period: commonPeriod(a, p), size: bits.Len(uint(l.Slots)) - 1}
	w.reps = replicas(l, m.Cols, w.period)
	w.where = replicas(o, m.Rows, p.written(w.period))
	if p.count == 1 && !slices.ContainsFunc(w.reps, func(r []int32) bool { return len(r) != 1 }) {
		w.first = make([]int32, m.Cols)
		for c, r := range w.reps {
			w.first[c] = r[0]
		}
	}
	return w
}

// row visits the nonzeros of one row.
func (w *walk) row(i int, f func(in, out, to, rot int, val float64)) {
	cols, vals := w.m.Row(i)
	mask := 1<<w.size - 1
	for _, at := range w.where[i] {
		out, o := int(at)>>w.size, int(at)&mask
		if w.first != nil {
			for e, c := range cols {
				r := int(w.first[c])
				f(r>>w.size, out, o, centred(r&mask-o, w.period), vals[e])
			}
			continue
		}
		for e, c := range cols {
			best, bestTo, bestIn := math.MaxInt, 0, 0
			for _, r := range w.reps[c] {
				d, to := w.p.reach(int(r)&mask, o, w.period)
				if abs(d) < abs(best) || abs(d) == abs(best) && d > best {
					best, bestTo, bestIn = d, to, int(r)>>w.size
				}
			}
			if best == math.MaxInt {
				panic("BUG: element without a slot")
			}
			f(bestIn, out, bestTo, best, vals[e])
		}
	}
}

// eachEntry visits the nonzeros of one matrix.
func (p *placement) eachEntry(a *packed, m *ir.Sparse, f func(in, out, to, rot int, val float64)) {
	w := p.walk(a, m)
	for i := range m.Rows {
		w.row(i, f)
	}
}

// reach returns the rotation and the partial-sum slot through which input slot s
// contributes to the result in slot o, both modulo period.
func (p *placement) reach(s, o, period int) (rot, to int) {
	if p.count == 1 {
		return centred(s-o, period), o
	}
	if !p.blocks { // cyclic: every class of slots modulo unit
		d := centred(s-o, p.unit)
		return d, mod(s-d, period)
	}
	k := (s - o) / p.unit // blocks: the partial sums of o lie at o+k*unit
	if s < o || k >= p.count {
		return math.MaxInt, 0
	}
	return s - o - k*p.unit, o + k*p.unit
}

// commonPeriod is the number of slots after which both the argument and the
// diagonals of a placement repeat.
func commonPeriod(a *packed, p *placement) int {
	if a.layout.Cts > 1 || p.out.layout.Cts > 1 {
		return p.out.layout.Slots
	}
	if p.blocks {
		return a.layout.Slots
	}
	if p.count > 1 {
		return p.unit * p.count
	}
	return max(a.period, p.out.period)
}

// written is the number of slots of the result that products are written to; a
// fold or the period makes the others.
func (p *placement) written(period int) int {
	switch {
	case p.count == 1:
		return period
	case p.blocks:
		return p.out.layout.Slots
	}
	return p.unit
}

// copies is how many entries the diagonals have for each entry of a matrix.
func (p *placement) copies(a *packed) int {
	n, limit := 0, p.written(commonPeriod(a, p))
	for i, e := range p.out.layout.Map {
		if e == 0 && (p.out.layout.Cts > 1 || i < limit) {
			n++
		}
	}
	return n
}

// replicas lists, for each element, the addresses below the period that hold it
// (all addresses for more than one ciphertext).
func replicas(l *ir.Layout, n, period int) [][]int32 {
	limit := len(l.Map)
	if l.Cts == 1 {
		limit = min(limit, period)
	}
	count := make([]int32, n)
	for _, e := range l.Map[:limit] {
		if e >= 0 {
			count[e]++
		}
	}
	flat := make([]int32, 0, limit)
	out := make([][]int32, n)
	for i, c := range count {
		out[i] = flat[len(flat) : len(flat) : len(flat)+int(c)]
		flat = flat[:len(flat)+int(c)]
	}
	for a, e := range l.Map[:limit] {
		if e >= 0 {
			out[e] = append(out[e], int32(a))
		}
	}
	return out
}

func mod(a, n int) int {
	if n&(n-1) == 0 {
		return a & (n - 1)
	}
	return ((a % n) + n) % n
}

// centred returns a modulo n in (-n/2, n/2].
func centred(a, n int) int {
	if a = mod(a, n); a > n/2 {
		a -= n
	}
	return a
}

func abs(a int) int {
	if a < 0 {
		return -a
	}
	return a
}

// split is a choice of baby and giant steps: every rotation d is written b+g
// with b = (d+offset) mod width - offset.
type split struct{ width, offset int }

func (s split) of(d int) (baby, giant int) {
	b := mod(d+s.offset, s.width) - s.offset
	return b, d - b
}

// rotations is a way to sum up the diagonals of a layer.
type rotations struct {
	split split
	// flat says that products are summed modulo Q: every baby step is divided by
	// P, so that plaintexts need no limbs modulo P. Else one division ends the sum
	// (double hoisting).
	flat bool
	half []int   // by argument, see pairs; nil: no pairs
	keys []int   // of all rotations, ascending, each once
	cost float64 // seconds
}

// spread is the same on positions of 2^logLanes slots.
func (r *rotations) spread(logLanes int) *rotations {
	s := *r
	s.split = split{r.split.width << logLanes, r.split.offset << logLanes}
	s.half, s.keys = shifted(r.half, logLanes), shifted(r.keys, logLanes)
	return &s
}

func shifted(x []int, by int) []int {
	out := slices.Clone(x)
	for i := range out {
		out[i] <<= by
	}
	return out
}

// pairs joins diagonals two by two: of an argument x and a rotation half,
//
//	A*rot(x, d) + B*rot(x, d+half) = Re((A - i*B) * rot(x + i*rot(x, half), d))
//
// for real A, B and x, so that one complex diagonal does the work of two. half is
// given by argument, 0 where nothing is joined; nil joins nothing at all. The
// result holds the indices of A and B, -1 for no B.
func (l *layerSum) pairs(half []int) [][2]int { return pairs(l.diags, half, l.period) }

func pairs(diags []diagKey, half, period []int) [][2]int {
	var out [][2]int
	if half == nil {
		half = make([]int, len(period))
	}
	var at marks
	for from := 0; from < len(diags); {
		k, to := diags[from], from+1
		for to < len(diags) && diags[to].arg == k.arg && diags[to].in == k.in && diags[to].out == k.out {
			to++
		}
		h, n := half[k.arg], period[k.arg]
		if h == 0 {
			for i := from; i < to; i++ {
				out = append(out, [2]int{i, -1})
			}
			from = to
			continue
		}
		at.reset(n)
		index := make(map[int]int, to-from)
		for i := from; i < to; i++ {
			at.add(mod(diags[i].rot, n))
			index[mod(diags[i].rot, n)] = i
		}
		start := out
		take := func(i int) { // the chain i, i+half, ...
			for r := mod(diags[i].rot, n); at.remove(r); r = mod(r+2*h, n) {
				j := -1
				if at.remove(mod(r+h, n)) {
					j = index[mod(r+h, n)]
				}
				out = append(out, [2]int{index[r], j})
				if j < 0 {
					break
				}
			}
		}
		for i := from; i < to; i++ {
			if !at.has(mod(diags[i].rot-h, n)) {
				take(i)
			}
		}
		// What remains are cycles. Those of two are cut where no rotation is near,
		// so that neighbours stay together.
		cut := widestGap(diags[from:to], h)
		for i := from; i < to; i++ {
			if mod(diags[i].rot-cut, n) < h {
				take(i)
			}
		}
		for i := from; i < to; i++ {
			take(i)
		}
		slices.SortFunc(out[len(start):], func(a, b [2]int) int { return a[0] - b[0] })
		from = to
	}
	return out
}

// widestGap returns the middle of the widest gap between rotations modulo h, the
// one nearest below -h/2.
func widestGap(diags []diagKey, h int) int {
	r := make([]int, len(diags))
	for i, d := range diags {
		r[i] = mod(d.rot, h)
	}
	slices.Sort(r)
	best, cut := r[0]+h-r[len(r)-1], (r[0]+h+r[len(r)-1]+1)/2
	for i := 1; i < len(r); i++ {
		if g := r[i] - r[i-1]; g > best {
			best, cut = g, (r[i]+r[i-1]+1)/2
		}
	}
	return mod(cut+h/2, h) - h - h/2
}

// halves chooses for each argument the rotation that joins most diagonals.
func halves(diags []diagKey, period []int) []int {
	out := make([]int, len(period))
	for k := range out {
		var of []diagKey
		for _, d := range diags {
			if d.arg == k {
				of = append(of, d)
			}
		}
		least := len(of) * 3 / 4 // an argument has to be rotated for it
		try := make([]int, len(period))
		for h := period[k] / 2; h > 0; h /= 2 {
			try[k] = h
			if n := len(pairs(of, try, period)); n < least {
				least, out[k] = n, h
			}
		}
	}
	return out
}

// layerSum is the sum of products that a layer consists of.
type layerSum struct {
	diags     []diagKey // sorted
	base      []int     // by argument, the number of its first ciphertext
	ins, outs int       // ciphertexts
	slots     int       // of a ciphertext
	period    []int     // by argument, slots after which it repeats
	widths    []int     // of baby steps
	level     int       // of the products
	flat      bool      // may be summed modulo Q
	// fetch is the seconds to have an encoded diagonal of an argument at hand; nil:
	// not counted.
	fetch func(arg int, k ir.Kind) float64
}

// flatScale is the least scale, as a power of two, at which the rounding of every
// baby step does not matter.
const flatScale = 40

func newLayerSum(diags []diagKey, args []*packed, p *placement, par *ir.Params, level int) *layerSum {
	slots := p.out.layout.Slots
	l := &layerSum{diags: diags, outs: p.out.layout.Cts, slots: slots, widths: splitWidths(slots, args), level: level, flat: par.LogScale >= flatScale}
	for _, a := range args {
		l.base = append(l.base, l.ins)
		l.ins += a.layout.Cts
		l.period = append(l.period, repeats(a))
	}
	return l
}

// repeats is the number of slots after which an argument repeats.
func repeats(a *packed) int {
	if a.layout.Cts > 1 {
		return a.layout.Slots
	}
	return a.period
}

// chooseSplit finds the cheapest baby-step giant-step split for the diagonals of
// one ciphertext at the level of the products.
func chooseSplit(diags []diagKey, widths []int, par *ir.Params, prof *backend.Profile, level int) *rotations {
	l := &layerSum{diags: diags, base: []int{0}, ins: 1, outs: 1, slots: par.Slots(), widths: widths, level: level}
	return cheapest(l.splits(nil, par, prof))
}

// ways prices every way to sum up the diagonals.
func (l *layerSum) ways(par *ir.Params, prof *backend.Profile) []*rotations {
	out := l.splits(nil, par, prof)
	if par.Ring != ir.RingStandard {
		return out
	}
	if half := halves(l.diags, l.period); slices.Max(half) > 0 {
		out = append(out, l.splits(half, par, prof)...)
	}
	return out
}

func cheapest(rs []*rotations) *rotations {
	return slices.MinFunc(rs, func(a, b *rotations) int { return cmp.Compare(a.cost, b.cost) })
}

// splits prices every split of the given widths.
func (l *layerSum) splits(half []int, par *ir.Params, prof *backend.Profile) []*rotations {
	hoist := prof.Seconds(par, ir.OpHEHoistRot, l.level)
	giant := prof.Seconds(par, ir.OpHEGiant, l.level) + prof.Seconds(par, ir.OpHEAddQP, l.level)
	dec := prof.Seconds(par, ir.OpHEDecompose, l.level)
	mac := prof.Seconds(par, ir.OpHEMacQP, l.level)
	down := prof.Seconds(par, ir.OpHEModDownRescale, l.level)
	modDown := prof.Seconds(par, ir.OpHEModDown, l.level)
	macFlat := prof.Seconds(par, ir.OpHEMacPlain, l.level)
	slots, diags, fixed := l.slots, l.diags, float64(l.outs)*down
	var fixedKeys []int
	if half != nil {
		diags = nil
		seen := map[int]bool{}
		for _, p := range l.pairs(half) {
			d := l.diags[p[0]]
			diags = append(diags, d)
			if in := l.base[d.arg] + d.in; half[d.arg] > 0 && !seen[in] {
				seen[in] = true
				fixed += prof.Seconds(par, ir.OpHERotate, l.level) + prof.Seconds(par, ir.OpHEMulI, l.level) + prof.Seconds(par, ir.OpHEAdd, l.level)
				fixedKeys = append(fixedKeys, half[d.arg])
			}
		}
		fixed += float64(l.outs) * prof.Seconds(par, ir.OpHERealPart, l.level)
	}
	fixedFlat := fixed + float64(len(diags))*macFlat
	fixed += float64(len(diags)) * mac
	if l.fetch != nil {
		for k := range l.base {
			n := 0
			for _, d := range diags {
				if d.arg == k {
					n++
				}
			}
			fixed += float64(n) * l.fetch(k, ir.PlainQPKind)
			fixedFlat += float64(n) * l.fetch(k, ir.PlainKind)
		}
	}
	far := max(slots, slices.Max(l.widths)) // generated transforms may be longer than the slots
	var out []*rotations
	var babies, giants, decomposed, keys marks
	for _, w := range l.widths {
		offsets := []int{0, w / 2}
		if w < 2 {
			offsets = offsets[:1]
		}
		for _, off := range offsets {
			r := &rotations{split: split{w, off}, half: half, cost: fixed}
			babies.reset(l.ins * w)
			giants.reset(l.outs * 4 * far)
			decomposed.reset(l.ins)
			keys.reset(slots)
			key := func(rot int) {
				if keys.add(mod(rot, slots)) {
					r.keys = append(r.keys, mod(rot, slots))
				}
			}
			for _, k := range fixedKeys {
				key(k)
			}
			flat := fixedFlat
			for _, d := range diags {
				b, g := r.split.of(d.rot)
				in := l.base[d.arg] + d.in
				if b != 0 && babies.add(in*w+b+off) {
					r.cost += hoist
					flat += hoist + modDown
					if decomposed.add(in) {
						r.cost += dec
						flat += dec
					}
					key(b)
				}
				if g != 0 && giants.add((4*d.out+2)*far+g) {
					r.cost += giant
					flat += dec + hoist
					key(g)
				}
			}
			slices.Sort(r.keys)
			out = append(out, r)
			if l.flat {
				f := *r
				f.flat, f.cost = true, flat
				out = append(out, &f)
			}
		}
	}
	return out
}

// marks is a set of small numbers that is emptied in no time.
type marks struct {
	at  []int32
	now int32
}

func (m *marks) reset(n int) {
	if m.now++; len(m.at) < n {
		m.at, m.now = make([]int32, n), 1
	}
}

func (m *marks) has(i int) bool { return m.at[i] == m.now }

// add reports whether i was not in the set before.
func (m *marks) add(i int) bool {
	if m.at[i] == m.now {
		return false
	}
	m.at[i] = m.now
	return true
}

// remove reports whether i was in the set before.
func (m *marks) remove(i int) bool {
	had := m.at[i] == m.now
	if had {
		m.at[i] = 0
	}
	return had
}

// splitWidths lists the candidate widths: powers of two, and rows of the grid.
func splitWidths(slots int, args []*packed) []int {
	var w []int
	for k := 1; k <= slots; k *= 2 {
		w = append(w, k)
	}
	for _, a := range args {
		if a.grid != nil {
			for k := a.grid.row; k <= a.grid.plane; k *= 2 {
				w = append(w, k)
			}
		}
	}
	sort.Ints(w)
	return slices.Compact(w)
}

// diagonals collects the distinct diagonals of a layer. With sample, of the rows
// of a [C,H,W] result it visits all channels of some pixels only: one of each set
// of pixels whose rotations agree in the middle channel. Where layouts are
// products of channels and pixels and channels of the matrix are alike, as in
// convolutions, nothing is lost.
func diagonals(n *fusedNode, args []*packed, p *placement, sample bool) []diagKey {
	slots := p.out.layout.Slots
	walks := make([]*walk, len(n.mats))
	for k, m := range n.mats {
		walks[k] = p.walk(args[k], m)
	}
	m, c, h, w, ok := spatial(n.shape)
	c *= m
	sample = sample && ok && c >= 4 && h*w >= 16
	var pixels []int
	if sample {
		known := map[uint64]bool{}
		for x := range h * w {
			sum := uint64(0)
			for k, walk := range walks {
				walk.row(c/2*h*w+x, func(in, out, to, rot int, _ float64) {
					sum = mix(mix(sum, uint64(k)<<40^uint64(in)<<20^uint64(out)), uint64(rot))
				})
			}
			if !known[sum] {
				known[sum] = true
				pixels = append(pixels, x)
			}
		}
	}
	var keys []diagKey
	for k, walk := range walks {
		type pair struct{ in, out int }
		seen := map[pair]*marks{}
		last := pair{-1, -1}
		var set *marks
		visit := func(in, out, to, rot int, _ float64) {
			if at := (pair{in, out}); at != last {
				if set, last = seen[at], at; set == nil {
					set = new(marks)
					set.reset(2 * slots)
					seen[at] = set
				}
			}
			if set.add(slots + rot) {
				keys = append(keys, diagKey{k, in, out, rot})
			}
		}
		if !sample {
			for i := range n.mats[k].Rows {
				walk.row(i, visit)
			}
		}
		for _, x := range pixels {
			for ch := range c {
				walk.row(ch*h*w+x, visit)
			}
		}
	}
	slices.SortFunc(keys, compareDiag)
	return keys
}

// mix adds a word to a hash.
func mix(h, x uint64) uint64 {
	h = (h ^ x) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func compareDiag(a, b diagKey) int {
	for _, c := range [][2]int{{a.out, b.out}, {a.arg, b.arg}, {a.in, b.in}, {a.rot, b.rot}} {
		if c[0] != c[1] {
			return c[0] - c[1]
		}
	}
	return 0
}
