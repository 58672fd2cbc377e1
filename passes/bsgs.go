package passes

import (
	"math"
	"slices"
	"sort"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// A linear layer on packed data is a set of diagonals: y[s] += D_d[s]*x[s+d].
// diagonal names one by argument, input and output ciphertext and rotation.
type diagKey struct{ arg, in, out, rot int }

// eachEntry visits the nonzeros of one matrix as places: a product of the slot
// from of input ciphertext in with val lands, before folding, in slot to of
// output ciphertext out, and rot = from - to modulo the slots, as small in
// magnitude as the copies of the input element allow. rows limits the visit to
// some rows (nil: all).
func (p *placement) eachEntry(a *packed, m *ir.Sparse, rows []int32, f func(in, out, to, rot int, val float64)) {
	l, o := a.layout, p.out.layout
	period := commonPeriod(a, p)
	reps := replicas(l, m.Cols, period)
	copies := period // of the result: those that a fold does not make
	if p.count > 1 {
		if copies = p.unit; p.blocks {
			copies = o.Slots
		}
	}
	where := replicas(o, m.Rows, copies)
	visit := func(i int32) {
		cols, vals := m.Row(int(i))
		if len(cols) == 0 {
			return
		}
		for _, w := range where[i] {
			oct, os := int(w)/o.Slots, int(w)%o.Slots
			for e, c := range cols {
				best, bestTo, bestIn := math.MaxInt, 0, 0
				for _, r := range reps[c] {
					ict, s := int(r)/l.Slots, int(r)%l.Slots
					d, to := p.reach(s, os, period)
					if abs(d) < abs(best) || abs(d) == abs(best) && d > best {
						best, bestTo, bestIn = d, to, ict
					}
				}
				if best == math.MaxInt {
					panic("BUG: element without a slot")
				}
				f(bestIn, oct, bestTo, best, vals[e])
			}
		}
	}
	if rows == nil {
		for i := range m.Rows {
			visit(int32(i))
		}
		return
	}
	for _, i := range rows {
		visit(i)
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

func mod(a, n int) int { return ((a % n) + n) % n }

// centred returns a modulo n in (-n/2, n/2].
func centred(a, n int) int {
	a = mod(a, n)
	if a > n/2 {
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

// plan of rotations of one layer.
type rotations struct {
	split  split
	babies []map[int]bool // per (argument, input ciphertext), flattened
	giants []map[int]bool // per output ciphertext
	diags  int
	cost   float64 // seconds
}

// chooseSplit finds the cheapest baby-step giant-step split for a set of
// diagonals at the level of the products.
func chooseSplit(diags []diagKey, inBase []int, ins, outs int, widths []int, par *ir.Params, prof *backend.Profile, level int) *rotations {
	hoist := prof.Seconds(par, ir.OpHEHoistRot, level)
	giant := prof.Seconds(par, ir.OpHEGiant, level) + prof.Seconds(par, ir.OpHEAddQP, level)
	dec := prof.Seconds(par, ir.OpHEDecompose, level)
	mac := prof.Seconds(par, ir.OpHEMacQP, level)
	down := prof.Seconds(par, ir.OpHEModDown, level) + prof.Seconds(par, ir.OpHERescale, level)
	var best *rotations
	for _, w := range widths {
		for _, off := range []int{0, w / 2} {
			r := &rotations{split: split{w, off}, babies: make([]map[int]bool, ins), giants: make([]map[int]bool, outs), diags: len(diags)}
			for i := range r.babies {
				r.babies[i] = map[int]bool{}
			}
			for i := range r.giants {
				r.giants[i] = map[int]bool{}
			}
			for _, d := range diags {
				b, g := r.split.of(d.rot)
				r.babies[inBase[d.arg]+d.in][b] = true
				r.giants[d.out][g] = true
			}
			for _, b := range r.babies {
				n := len(b)
				if b[0] {
					n--
				}
				if n > 0 {
					r.cost += dec + float64(n)*hoist
				}
			}
			for _, g := range r.giants {
				n := len(g)
				if g[0] {
					n--
				}
				r.cost += float64(n)*giant + down
			}
			r.cost += float64(len(diags)) * mac
			if best == nil || r.cost < best.cost {
				best = r
			}
		}
	}
	return best
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

// diagonals collects the distinct diagonals of a layer, from some rows or all.
func diagonals(n *fusedNode, args []*packed, p *placement, sample bool) []diagKey {
	seen := map[diagKey]bool{}
	var rows []int32
	if sample {
		rows = sampleRows(n.shape)
	}
	for k, m := range n.mats {
		p.eachEntry(args[k], m, rows, func(in, out, to, rot int, _ float64) {
			seen[diagKey{k, in, out, rot}] = true
		})
	}
	keys := make([]diagKey, 0, len(seen))
	for d := range seen {
		keys = append(keys, d)
	}
	slices.SortFunc(keys, compareDiag)
	return keys
}

func compareDiag(a, b diagKey) int {
	for _, c := range [][2]int{{a.out, b.out}, {a.arg, b.arg}, {a.in, b.in}, {a.rot, b.rot}} {
		if c[0] != c[1] {
			return c[0] - c[1]
		}
	}
	return 0
}

// sampleRows picks rows that show every rotation of a convolution: all channels
// at the corners and the middle of the plane.
func sampleRows(shape []int) []int32 {
	c, h, w, ok := spatial(shape)
	if !ok || h*w < 16 {
		return nil
	}
	var rows []int32
	for ch := range c {
		for _, yx := range [][2]int{{0, 0}, {h / 2, w / 2}, {h - 1, w - 1}, {0, w - 1}, {h - 1, 0}} {
			rows = append(rows, int32((ch*h+yx[0])*w+yx[1]))
		}
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}
