package passes

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

func randomSparse(r *rand.Rand, rows, cols int, density float64) *ir.Sparse {
	m := &ir.Sparse{Rows: rows, Cols: cols, Ptr: make([]int32, rows+1)}
	for i := range rows {
		for j := range cols {
			if r.Float64() < density {
				m.Col, m.Val = append(m.Col, int32(j)), append(m.Val, r.NormFloat64())
			}
		}
		m.Ptr[i+1] = int32(len(m.Col))
	}
	return m
}

// dense expands a matrix.
func dense(m *ir.Sparse) [][]float64 {
	out := make([][]float64, m.Rows)
	for i := range out {
		out[i] = make([]float64, m.Cols)
		cols, vals := m.Row(i)
		for k, c := range cols {
			out[i][c] += vals[k]
		}
	}
	return out
}

func TestSparseArithmetic(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		n, k, m := 1+r.IntN(9), 1+r.IntN(9), 1+r.IntN(9)
		density := []float64{0, 0.2, 0.7, 1}[r.IntN(4)]
		a, b, c := randomSparse(r, n, k, density), randomSparse(r, k, m, density), randomSparse(r, n, m, 0.5)
		switch r.IntN(6) {
		case 0:
			a = identity(k)
			n, c = k, randomSparse(r, k, m, 0.5)
		case 1:
			b, m = identity(k), k
			c = randomSparse(r, n, m, 0.5)
		}
		got := sum(product(a, b), c)
		if err := got.Check(); err != nil {
			t.Fatal(err)
		}
		da, db, dc, dg := dense(a), dense(b), dense(c), dense(got)
		for i := range n {
			for j := range m {
				want := dc[i][j]
				for l := range k {
					want += da[i][l] * db[l][j]
				}
				if math.Abs(dg[i][j]-want) > 1e-12 {
					t.Fatalf("(%dx%d)(%dx%d)+c: entry %d,%d is %g, want %g", n, k, k, m, i, j, dg[i][j], want)
				}
			}
		}
	}
}

// fill packs x into slot vectors and puts garbage where the layout promises
// nothing.
func fill(r *rand.Rand, l *ir.Layout, x []float64) [][]float64 {
	cts := l.Pack(x)
	for i, e := range l.Map {
		if e == ir.SlotUnknown {
			cts[i/l.Slots][i%l.Slots] = 9 * r.NormFloat64()
		}
	}
	return cts
}

// TestPlacements lowers random sparse matrices in every layout and placement
// that packing may choose, for one sample and for several side by side, with
// garbage in all slots that are not promised, and runs them on exact slots. Every
// slot keeps the promise of the result's layout:
// elements wherever they are said to be, zeros where zeros are said to be, and
// nothing larger than the result where a polynomial may follow.
func TestPlacements(t *testing.T) {
	const slots = 64
	var rings [3][]*ir.Params // by lanes
	for log := range rings {
		rings[log] = []*ir.Params{tiny(t, 6+log, ir.RingReal, 2), tiny(t, 7+log, ir.RingStandard, 2)}
	}
	prof := backend.DefaultProfile()
	shapes := [][]int{{1}, {3}, {8}, {1, 10}, {1, 37}, {1, 64}, {1, 100}, {1, 1, 4, 4}, {1, 2, 4, 4}, {1, 3, 4, 4}, {1, 4, 4, 4}, {1, 8, 4, 4},
		{1, 5, 2, 2}, {1, 2, 3, 5}, {1, 7, 8}, {1, 2, 16}, {1, 4, 2, 2}, {1, 8, 2, 2}, {1, 2, 1, 1}, {2, 3, 2, 2}, {1, 16, 2, 2}, {1, 1, 8, 8}, {1, 2, 2, 2}, {1, 3, 2, 2}, {1, 2, 2, 2},
		{2, 1, 4, 4}, {2, 2, 4, 2}, {1, 4, 4, 2}, {1, 3, 2, 4}}
	checked := map[string]int{}
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 5))
		log := max(0, int(seed/2%5)-2)
		lanes, par := 1<<log, rings[log][seed%2]
		arg := func() (*packed, []int) {
			shape := shapes[r.IntN(len(shapes))]
			ls := inputLayouts(slots, shape, []int{1 + r.IntN(40)})
			p := ls[r.IntN(len(ls))]
			for range r.IntN(3) { // layouts that only results of layers have
				shape = shapes[r.IntN(len(shapes))]
				if ps := placements(slots, []*packed{p}, shape, false); len(ps) > 0 {
					p = ps[r.IntN(len(ps))].out
				} else {
					shape = nil
					break
				}
			}
			if shape != nil && r.IntN(2) == 0 {
				p = gapsUnknown(p)
			}
			return p, shape
		}
		var nodes []*fusedNode
		var args []*packed
		var inputs [][]float64
		var xs [][][]float64 // by argument and lane
		for range 1 + r.IntN(2) {
			p, shape := arg()
			if shape == nil {
				continue
			}
			if err := p.layout.Check(ir.NumElems(shape)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			n := &fusedNode{kind: fusedInput, name: fmt.Sprintf("x%d", len(nodes)), shape: shape, level: 2, norm: []float64{1}}
			var x [][]float64
			cts := make([][]float64, p.layout.Cts)
			for c := range cts {
				cts[c] = make([]float64, slots<<log)
			}
			for k := range lanes {
				x = append(x, make([]float64, n.elems()))
				for i := range x[k] {
					x[k][i] = r.NormFloat64()
				}
				for c, v := range fill(r, p.layout, x[k]) {
					for i, z := range v {
						cts[c][i<<log+k] = z
					}
				}
			}
			nodes, args, xs = append(nodes, n), append(args, p), append(xs, x)
			inputs = append(inputs, cts...)
		}
		if len(nodes) == 0 {
			continue
		}
		shape := shapes[r.IntN(len(shapes))]
		if r.IntN(4) == 0 {
			shape = nodes[0].shape
		}
		lin := &fusedNode{kind: fusedLinear, name: "layer", shape: shape, args: slices.Clone(nodes), norm: []float64{1}, level: 1}
		density := []float64{0.02, 0.15, 1}[r.IntN(3)]
		for _, a := range nodes {
			lin.mats = append(lin.mats, randomSparse(r, lin.elems(), a.elems(), density))
			if a.elems() == lin.elems() && r.IntN(3) == 0 {
				lin.mats[len(lin.mats)-1] = identity(a.elems())
			}
		}
		if r.IntN(2) == 0 {
			lin.bias = make([]float64, lin.elems())
			for i := range lin.bias {
				lin.bias[i] = r.NormFloat64()
				if r.IntN(2) == 0 {
					lin.bias[i] = lin.bias[0]
				}
			}
		}
		want, largest := make([][]float64, lanes), make([]float64, lanes)
		for lane := range want {
			want[lane] = make([]float64, lin.elems())
			for i := range want[lane] {
				y := 0.0
				if lin.bias != nil {
					y = lin.bias[i]
				}
				for k, m := range lin.mats {
					cols, vals := m.Row(i)
					for e, c := range cols {
						y += vals[e] * xs[k][lane][c]
					}
				}
				want[lane][i], largest[lane] = y, max(largest[lane], math.Abs(y))
			}
		}
		poly := r.IntN(2) == 0
		nodes = append(nodes, lin)
		if poly {
			nodes = append(nodes, &fusedNode{kind: fusedPoly, name: "f", shape: shape, args: []*fusedNode{lin}, approx: &ir.Approx{Coef: []float64{0, 1}, Bound: 1}, norm: []float64{1}})
		}
		nodes = append(nodes, &fusedNode{kind: fusedOutput, name: "y", shape: shape, args: []*fusedNode{lin}, level: 1, norm: []float64{1}})
		pk := newPacker(nodes, par, prof, log)
		for _, p := range placements(slots, args, shape, poly) {
			st := &packState{logLanes: log}
			for _, a := range args {
				st.places = append(st.places, placement{a, slots, 1, false})
			}
			if math.IsInf(pk.price(pk.index[lin], st, p), 1) {
				continue
			}
			st.places = append(st.places, p, p, p)
			if err := p.out.layout.Check(lin.elems()); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			lw := lowerScheme("layer", nodes, st, par, prof)
			got := schemeRun(t, lw.b.g, par, inputs)
			if slices.ContainsFunc(lw.b.g.Values, func(v *ir.Value) bool { return v.Op == ir.OpHERealPart }) {
				checked[fmt.Sprintf("pairs of diagonals, %d lanes", lanes)]++
			}
			if p.count > 1 {
				checked[fmt.Sprintf("fold, %d lanes", lanes)]++
			}
			checked[fmt.Sprintf("fold %v, blocks %v, %d ciphertexts to %d, grid %v", p.count > 1, p.blocks, min(2, args[0].layout.Cts), min(2, p.out.layout.Cts), p.out.grid != nil)]++
			if g := p.out.grid; g != nil {
				if g.image < g.plane {
					checked["several images"]++
				}
				if g.gapY != g.gapX {
					checked["unequal gaps"]++
				}
			}
			for i := range lanes * len(p.out.layout.Map) {
				e, lane := p.out.layout.Map[i/lanes], i%lanes
				z, want := got[i/(slots*lanes)][i%(slots*lanes)], want[lane]
				switch {
				case e >= 0 && math.Abs(z-want[e]) > 1e-9:
					t.Fatalf("seed %d: %v to %v in %+v: slot %d of %d lanes, element %d: %g, want %g\nin  %v\nout %v", seed, nodes[0].shape, shape, p, i, lanes, e, z, want[e], args[0].layout, p.out.layout)
				case e == ir.SlotZero && math.Abs(z) > 1e-9:
					t.Fatalf("seed %d: %v to %v in %+v: slot %d of %d lanes should be zero, is %g", seed, nodes[0].shape, shape, p, i, lanes, z)
				case poly && math.Abs(z) > largest[lane]+1e-9:
					t.Fatalf("seed %d: %v to %v in %+v: slot %d of %d lanes holds %g, the result only %g", seed, nodes[0].shape, shape, p, i, lanes, z, largest[lane])
				}
			}
		}
	}
	for _, kind := range []string{"pairs of diagonals, 1 lanes", "pairs of diagonals, 4 lanes", "fold, 2 lanes", "several images", "unequal gaps",
		"fold true, blocks true, 1 ciphertexts to 1, grid false", "fold true, blocks false, 1 ciphertexts to 1, grid false",
		"fold true, blocks false, 1 ciphertexts to 1, grid true", "fold true, blocks false, 2 ciphertexts to 1, grid false",
		"fold false, blocks false, 2 ciphertexts to 2, grid true", "fold false, blocks false, 1 ciphertexts to 1, grid true",
	} {
		if checked[kind] == 0 {
			t.Errorf("no case of: %s (had %v)", kind, checked)
		}
	}
}

// TestPairs joins random sets of rotations: each is in one pair, and those of a
// pair are the chosen distance apart.
func TestPairs(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 11))
		n := 1 << (1 + r.IntN(7))
		var diags []diagKey
		for arg := range 2 {
			for rot := range n {
				if r.IntN(3) > 0 {
					diags = append(diags, diagKey{arg: arg, rot: centred(rot, n)})
				}
			}
		}
		slices.SortFunc(diags, compareDiag)
		half := []int{[]int{0, n / 2, 1, 1 + r.IntN(n)}[r.IntN(4)], n / 2}
		seen := make([]int, len(diags))
		joined := pairs(diags, half, []int{n, n})
		for _, x := range joined {
			seen[x[0]]++
			if x[1] < 0 {
				continue
			}
			seen[x[1]]++
			a, b := diags[x[0]], diags[x[1]]
			if h := half[a.arg]; h == 0 || a.arg != b.arg || mod(b.rot-a.rot, n) != h%n {
				t.Fatalf("seed %d: %v joined with %v, %v apart", seed, a, b, half)
			}
		}
		if slices.ContainsFunc(seen, func(k int) bool { return k != 1 }) {
			t.Fatalf("seed %d: rotations taken %v times", seed, seen)
		}
	}
	var all []diagKey
	for rot := range 64 {
		all = append(all, diagKey{rot: centred(rot, 64)})
	}
	slices.SortFunc(all, compareDiag)
	if n := len(pairs(all, []int{32}, []int{64})); n != 32 {
		t.Errorf("64 rotations make %d pairs", n)
	}
}

// TestConvolutionPacking packs a residual network of two stages as wide as
// ciphertexts allow and counts what its layers rotate: a convolution of c channels
// of 3x3 needs 9*c diagonals, half as many joined in pairs, and a shortcut that
// adds its argument none.
func TestConvolutionPacking(t *testing.T) {
	conv := func(ci, co, n, stride int) *ir.Sparse {
		m := &ir.Sparse{Rows: co * n * n / stride / stride, Cols: ci * n * n, Ptr: []int32{0}}
		for o := range co {
			for y := 0; y < n; y += stride {
				for x := 0; x < n; x += stride {
					for i := range ci {
						for dy := y - 1; dy <= y+1; dy++ {
							for dx := x - 1; dx <= x+1; dx++ {
								if min(dx, dy) >= 0 && max(dx, dy) < n {
									m.Col, m.Val = append(m.Col, int32((i*n+dy)*n+dx)), append(m.Val, float64(1+o+dx-x+dy-y))
								}
							}
						}
					}
					m.Ptr = append(m.Ptr, int32(len(m.Col)))
				}
			}
		}
		return m
	}
	par := tiny(t, 11, ir.RingStandard, 9) // 1024 slots
	poly := &ir.Approx{Coef: []float64{0, 1, 1}, Bound: 1}
	node := func(kind fusedKind, level int, shape []int, args ...*fusedNode) *fusedNode {
		return &fusedNode{kind: kind, name: fmt.Sprint(kind, level), shape: shape, args: args, level: level, approx: poly, norm: []float64{1}}
	}
	one, two := []int{1, 8, 8, 8}, []int{1, 16, 4, 4}
	x := node(fusedInput, 9, one)
	a := node(fusedLinear, 8, one, x)
	b := node(fusedPoly, 6, one, a)
	c := node(fusedLinear, 5, one, b, x)
	d := node(fusedPoly, 3, one, c)
	e := node(fusedLinear, 2, two, d)
	y := node(fusedOutput, 2, two, e)
	a.mats = []*ir.Sparse{conv(8, 8, 8, 1)}
	c.mats = []*ir.Sparse{conv(8, 8, 8, 1), identity(512)}
	e.mats = []*ir.Sparse{conv(8, 16, 8, 2)}
	nodes := []*fusedNode{x, a, b, c, d, e, y}
	pk := newPacker(nodes, par, backend.DefaultProfile(), 0)
	st, err := packing(nodes, par, pk.prof, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		node  *fusedNode
		diags int
	}{{a, 72}, {c, 73}, {e, 16 * 9}} {
		i := pk.index[want.node]
		got := len(diagonals(want.node, pk.args(i, st), &st.places[i], false))
		if got > want.diags {
			t.Errorf("layer %d has %d diagonals, want at most %d", i, got, want.diags)
		}
		if cts := st.places[i].out.layout.Cts; cts != 1 {
			t.Errorf("layer %d takes %d ciphertexts", i, cts)
		}
	}
	if i := pk.index[c]; !st.places[i].out.layout.Equal(st.places[pk.index[x]].out.layout) {
		t.Error("the sum of two branches does not lie where its argument does")
	}
}
