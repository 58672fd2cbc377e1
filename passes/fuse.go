package passes

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
)

// The fused form of a network: affine maps between nonlinear steps. Every
// tensor op that is linear in its encrypted arguments (convolution, product
// with a constant, normalisation, pooling, reshape, concatenation, sums of
// branches) becomes a sparse matrix, and chains of them one matrix, so that
// whatever lies between two nonlinear steps costs one level.

type fusedKind uint8

const (
	fusedInput fusedKind = iota
	fusedLinear
	fusedPoly
	fusedMul
	fusedRefresh // the argument at a higher level
	fusedOutput
)

func (k fusedKind) String() string {
	return [...]string{"input", "linear", "poly", "mul", "refresh", "output"}[k]
}

// fusedNode is one step. Values are normalised: what the slots hold is
// (true - center)/norm, of magnitude about one.
type fusedNode struct {
	kind   fusedKind
	name   string
	shape  []int
	args   []*fusedNode
	mats   []*ir.Sparse // linear: one for each argument, normalisation folded in
	bias   []float64    // linear
	approx *ir.Approx   // poly: on [-1,1], output normalised
	orig   *ir.Approx   // poly: as chosen, for the report
	norm   []float64    // per element; one entry means uniform
	center []float64    // input only, like norm
	level  int          // of the result, set by assignLevels
	boost  int          // linear: bits by which the result's scale exceeds 2^LogScale
	final  bool         // linear: the result is an output
	boot   *bootstrap   // refresh: how
}

func (n *fusedNode) elems() int { return ir.NumElems(n.shape) }

// affine is a tensor value as a sum of matrices times roots, plus a constant.
type affine struct {
	roots []*fusedNode
	mats  []*ir.Sparse
	bias  []float64
}

type fuser struct {
	ranges  map[*ir.Value]Range
	uses    map[*ir.Value]int
	nodes   []*fusedNode
	roots   map[*ir.Value]*fusedNode
	affines map[*ir.Value]*affine
	heavy   map[*ir.Value]bool // heavyPath of values seen
	row     map[*fusedNode]int // products in a row that end at one
	input   func(v *ir.Value) (center, norm []float64)
}

// outputHeadroom is the factor between the calibrated range of an output and
// the largest value that survives decryption.
const outputHeadroom = 2

// productBoost is by how many bits the factors of a product exceed the scale of
// other values. Where products happen the modulus has room for it, and rounding
// weighs less by as much.
const productBoost = 3

// fuse turns a tensor graph into its fused form. Errors name the ONNX node that
// cannot be computed on ciphertexts.
func fuse(g *ir.Graph, ranges map[*ir.Value]Range, input func(v *ir.Value) (center, norm []float64)) ([]*fusedNode, error) {
	f := &fuser{ranges: ranges, uses: g.Uses(), roots: map[*ir.Value]*fusedNode{}, affines: map[*ir.Value]*affine{}, heavy: map[*ir.Value]bool{}, row: map[*fusedNode]int{}, input: input}
	for _, v := range g.Values {
		if err := f.visit(v); err != nil {
			return nil, err
		}
	}
	for i, o := range g.Outputs {
		if !o.Type.Encrypted {
			return nil, &ir.NodeError{Node: o.Name, Op: o.Op.String(), Err: errors.New("this output does not depend on the input"), Hint: "remove the constant output from the model"}
		}
		a, err := f.affineOf(o)
		if err != nil {
			return nil, err
		}
		norm := f.norm(o) * outputHeadroom
		lin := f.linear(fmt.Sprintf("output %d %s", i, o.Name), o, a, 0, norm)
		lin.name, lin.final = o.Name, true
		f.nodes = append(f.nodes, &fusedNode{kind: fusedOutput, name: o.Name, shape: o.Type.Shape, args: []*fusedNode{lin}, norm: lin.norm})
	}
	nodes := f.live()
	limitBoosts(nodes)
	return nodes, nil
}

// mostBoost is how far the scale of products of products may drift from that of
// other values: each product doubles what its factors have too much, until the
// next layer brings it back.
const mostBoost = 12

// limitBoosts lowers the boosts of layers that several products in a row follow.
func limitBoosts(nodes []*fusedNode) {
	row := map[*fusedNode]int{} // products in a row that follow a node
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		if n.kind == fusedMul {
			for _, a := range n.args {
				row[a] = max(row[a], row[n]+1)
			}
		}
		n.boost = min(n.boost, mostBoost>>row[n])
	}
}

// live drops nodes nothing uses (a root whose consumers were all folded away).
func (f *fuser) live() []*fusedNode {
	need := map[*fusedNode]bool{}
	for i := len(f.nodes) - 1; i >= 0; i-- {
		n := f.nodes[i]
		if n.kind == fusedOutput || n.kind == fusedInput {
			need[n] = true
		}
		if need[n] {
			for _, a := range n.args {
				need[a] = true
			}
		}
	}
	return slices.DeleteFunc(f.nodes, func(n *fusedNode) bool { return !need[n] })
}

// norm returns the magnitude a value reaches, at least a tiny positive number.
func (f *fuser) norm(v *ir.Value) float64 {
	r, ok := f.ranges[v]
	if !ok {
		panic("BUG: no range for " + v.Name)
	}
	m := max(math.Abs(r.Lo), math.Abs(r.Hi))
	if m < 1e-9 {
		return 1
	}
	return m
}

func (f *fuser) visit(v *ir.Value) error {
	if !v.Type.Encrypted {
		return nil
	}
	refuse := func(why, hint string) error {
		return &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: errors.New(why), Hint: hint}
	}
	switch v.Op {
	case ir.OpInput:
		c, n := f.input(v)
		f.root(v, &fusedNode{kind: fusedInput, name: v.Name, shape: v.Type.Shape, center: c, norm: n})
		return nil
	case ir.OpAct:
		if v.Approx == nil {
			panic("BUG: activation " + v.Name + " reached packing without a polynomial")
		}
		a, err := f.affineOf(v.Args[0])
		if err != nil {
			return err
		}
		f.root(v, f.activation(v, a))
		return nil
	case ir.OpPow:
		k := v.Attrs.Float("k", 0)
		if k == 1 {
			return nil
		}
		if k != 2 {
			return refuse("only powers 1 and 2 of an encrypted value are supported", "write higher powers as products")
		}
		return f.product(v, v.Args[0], v.Args[0])
	case ir.OpMul:
		if v.Args[0].Type.Encrypted && v.Args[1].Type.Encrypted {
			return f.product(v, v.Args[0], v.Args[1])
		}
	case ir.OpMatMul, ir.OpConv, ir.OpDiv:
		enc := 0
		for _, a := range v.Args {
			if a.Type.Encrypted {
				enc++
			}
		}
		if enc > 1 || v.Op == ir.OpDiv && v.Args[1].Type.Encrypted {
			return refuse("both operands are encrypted", "only products with a constant side can be computed here; run it with --mode clear")
		}
	case ir.OpSoftmax, ir.OpLogSoftmax, ir.OpArgMax:
		return refuse("available on the client only, as the last step of the network", "end the exported network before it, or run it with --mode clear")
	}
	if v.Op.Info().Linear == nil {
		return refuse("cannot be computed on ciphertexts", "run it with --mode clear")
	}
	// A value that several others build upon is computed once where composing
	// it again would be heavy.
	if f.uses[v] > 1 && f.heavyPath(v) {
		a, err := f.affineOf(v)
		if err != nil {
			return err
		}
		if !a.isView() {
			f.setRoot(v, f.linear(v.Name, v, a, 0, f.norm(v)))
		}
	}
	return nil
}

// activation appends the steps of an approximated activation of a, all but the
// last, which it returns.
func (f *fuser) activation(v *ir.Value, a *affine) *fusedNode {
	p, n := v.Approx, v.Type.Elems()
	center, bound, gain := []float64{p.Center}, []float64{p.Bound}, []float64{1}
	if p.Channels != nil {
		center, bound, gain = make([]float64, n), make([]float64, n), make([]float64, n)
		per := ir.NumElems(v.Type.Shape[2:])
		for i := range n {
			h := p.Channel(i / per % len(p.Channels))
			center[i], bound[i], gain[i] = h.Center, h.Bound, h.Gain
		}
	}
	u := f.linearEach(v.Args[0].Name, v.Args[0], a, center, bound)
	poly := func(name string, arg *fusedNode, coef []float64, err float64, last bool) *fusedNode {
		q := &ir.Approx{Coef: slices.Clone(coef), Bound: 1, Err: err}
		norm := 1.0
		if last {
			norm = polyMax(q)
		}
		for i := range q.Coef {
			q.Coef[i] /= norm
		}
		out := &fusedNode{kind: fusedPoly, name: name, shape: v.Type.Shape, args: []*fusedNode{arg}, approx: q, orig: p, norm: make([]float64, len(gain))}
		for i, g := range gain {
			out.norm[i] = norm * g
		}
		return out
	}
	if p.Inner == nil {
		return poly(v.Name, u, p.Coef, p.Err, true)
	}
	s := u
	for i, c := range p.Inner {
		s = poly(fmt.Sprintf("%s sign %d", v.Name, i+1), s, c, 0, false)
		f.nodes = append(f.nodes, s)
	}
	s = poly(v.Name+" sign", s, p.Coef, p.Err, true)
	f.nodes = append(f.nodes, s)
	return &fusedNode{kind: fusedMul, name: v.Name, shape: v.Type.Shape, args: []*fusedNode{u, s}, norm: s.norm}
}

// heavyPath reports whether a product with weights lies between v and its roots.
func (f *fuser) heavyPath(v *ir.Value) bool {
	if f.roots[v] != nil || !v.Type.Encrypted {
		return false
	}
	h, known := f.heavy[v]
	if !known {
		h = v.Op == ir.OpConv || v.Op == ir.OpMatMul || slices.ContainsFunc(v.Args, f.heavyPath)
		f.heavy[v] = h
	}
	return h
}

func (f *fuser) product(v, a, b *ir.Value) error {
	if !slices.Equal(v.Type.Shape, a.Type.Shape) || !slices.Equal(v.Type.Shape, b.Type.Shape) {
		return f.broadcastProduct(v, a, b)
	}
	x, err := f.operand(a)
	if err != nil {
		return err
	}
	y := x
	if a != b {
		if y, err = f.operand(b); err != nil {
			return err
		}
	}
	n := &fusedNode{kind: fusedMul, name: v.Name, shape: v.Type.Shape, args: []*fusedNode{x, y}, norm: []float64{x.norm[0] * y.norm[0]}}
	f.row[n] = 1 + max(f.row[x], f.row[y])
	f.root(v, n)
	return nil
}

// broadcastProduct expands the smaller operand by a 0/1 matrix first.
func (f *fuser) broadcastProduct(v, a, b *ir.Value) error {
	var nodes [2]*fusedNode
	for i, x := range []*ir.Value{a, b} {
		af, err := f.affineOf(x)
		if err != nil {
			return err
		}
		if !slices.Equal(x.Type.Shape, v.Type.Shape) {
			idx := broadcastIndex(x.Type.Shape, v.Type.Shape)
			af = af.rows(idx)
		}
		nodes[i] = f.linear(x.Name, &ir.Value{Name: x.Name, Type: v.Type}, af, 0, f.norm(x))
		nodes[i].boost = productBoost
	}
	f.root(v, &fusedNode{kind: fusedMul, name: v.Name, shape: v.Type.Shape, args: nodes[:], norm: []float64{nodes[0].norm[0] * nodes[1].norm[0]}})
	return nil
}

// broadcastIndex maps each element of shape out to the element of shape in it
// reads under numpy broadcasting.
func broadcastIndex(in, out []int) []int32 {
	st := ir.Strides(in)
	idx := make([]int32, ir.NumElems(out))
	os := ir.Strides(out)
	for i := range idx {
		e := 0
		for d := range out {
			k := d - (len(out) - len(in))
			if k >= 0 && in[k] > 1 {
				e += (i / os[d] % out[d]) * st[k]
			}
		}
		idx[i] = int32(e)
	}
	return idx
}

// How many products may follow each other without a layer in between, which
// brings back the scale, whose exponents each product doubles; and how much
// smaller than the slots allow products may become before one does: each squares
// what a range has too much.
const (
	mostProducts = 8
	mostWaste    = 1 << 12
)

// operand returns a normalised node for a factor of a product: the root itself
// where it is one with uniform norm and no product too many, else a linear step.
func (f *fuser) operand(v *ir.Value) (*fusedNode, error) {
	a, err := f.affineOf(v)
	if err != nil {
		return nil, err
	}
	if r := a.plainRoot(); r != nil && len(r.norm) == 1 && (r.center == nil || r.center[0] == 0) && f.row[r] < mostProducts && (f.row[r] == 0 || r.norm[0] <= mostWaste*f.norm(v)) {
		return r, nil
	}
	n := f.linear(v.Name, v, a, 0, f.norm(v))
	n.boost = productBoost
	return n, nil
}

func (f *fuser) root(v *ir.Value, n *fusedNode) {
	f.nodes = append(f.nodes, n)
	f.setRoot(v, n)
}

// setRoot makes a node the root of what is built on v. What was known of paths
// to roots is out of date then.
func (f *fuser) setRoot(v *ir.Value, n *fusedNode) {
	f.roots[v] = n
	clear(f.heavy)
}

// linear appends the step (a - center)/norm.
func (f *fuser) linear(name string, v *ir.Value, a *affine, center, norm float64) *fusedNode {
	return f.linearEach(name, v, a, []float64{center}, []float64{norm})
}

// linearEach is linear with one centre and norm for each element, or for all.
func (f *fuser) linearEach(name string, v *ir.Value, a *affine, centers, norms []float64) *fusedNode {
	n := &fusedNode{kind: fusedLinear, name: name, shape: v.Type.Shape, args: a.roots, norm: norms}
	rows := n.elems()
	n.bias = make([]float64, rows)
	for i := range n.bias {
		n.bias[i] = (a.biasAt(i) - at(centers, int32(i))) / at(norms, int32(i))
	}
	for k, m := range a.mats {
		r := a.roots[k]
		s := &ir.Sparse{Rows: m.Rows, Cols: m.Cols, Ptr: m.Ptr, Col: m.Col, Val: make([]float64, len(m.Val))}
		for i := range rows {
			norm := at(norms, int32(i))
			for e := m.Ptr[i]; e < m.Ptr[i+1]; e++ {
				c := m.Col[e]
				s.Val[e] = m.Val[e] * at(r.norm, c) / norm
				if r.center != nil {
					n.bias[i] += m.Val[e] * at(r.center, c) / norm
				}
			}
		}
		n.mats = append(n.mats, s)
	}
	if !slices.ContainsFunc(n.bias, func(b float64) bool { return b != 0 }) {
		n.bias = nil
	}
	f.nodes = append(f.nodes, n)
	return n
}

func at(v []float64, i int32) float64 {
	if len(v) == 1 {
		return v[0]
	}
	return v[i]
}

// affineOf returns the map from roots to v.
func (f *fuser) affineOf(v *ir.Value) (*affine, error) {
	if a := f.affines[v]; a != nil {
		return a, nil
	}
	var a *affine
	if r := f.roots[v]; r != nil {
		a = &affine{roots: []*fusedNode{r}, mats: []*ir.Sparse{identity(r.elems())}}
	} else if v.Op == ir.OpPow { // exponent 1
		var err error
		if a, err = f.affineOf(v.Args[0]); err != nil {
			return nil, err
		}
	} else {
		var err error
		if a, err = f.compose(v); err != nil {
			return nil, err
		}
	}
	f.affines[v] = a
	return a, nil
}

// wide is the number of entries up to which a composed matrix is always kept.
const wide = 1 << 17

func (f *fuser) compose(v *ir.Value) (*affine, error) {
	own, bias, err := linearMap(v)
	if err != nil {
		return nil, err
	}
	out := &affine{bias: bias}
	for k, arg := range v.Args {
		if !arg.Type.Encrypted || own[k] == nil {
			continue
		}
		in, err := f.affineOf(arg)
		if err != nil {
			return nil, err
		}
		if (v.Op == ir.OpConv || v.Op == ir.OpMatMul) && f.heavyPath(arg) {
			// Two products with weights in a row: one matrix saves a level, but only
			// where it stays small.
			if est := estimate(own[k], in); est > wide && est > 2*(own[k].NNZ()+in.nnz()) {
				n := f.linear(arg.Name, arg, in, 0, f.norm(arg))
				f.setRoot(arg, n)
				in = &affine{roots: []*fusedNode{n}, mats: []*ir.Sparse{identity(n.elems())}}
				f.affines[arg] = in
			}
		}
		out.add(own[k], in)
	}
	if len(out.roots) == 0 { // multiplied by zero, or only the padding is read: constant
		arg := v.Args[slices.IndexFunc(v.Args, func(a *ir.Value) bool { return a.Type.Encrypted })]
		in, err := f.affineOf(arg)
		if err != nil {
			return nil, err
		}
		out.add(&ir.Sparse{Rows: v.Type.Elems(), Cols: arg.Type.Elems(), Ptr: make([]int32, v.Type.Elems()+1)}, in)
	}
	return out, nil
}

func estimate(m *ir.Sparse, in *affine) int {
	n := 0
	for _, s := range in.mats {
		n += int(float64(m.NNZ()) * float64(s.NNZ()) / float64(max(1, s.Rows)))
	}
	return n
}

// linearMap reads the affine map of one op from its table row.
func linearMap(v *ir.Value) ([]*ir.Sparse, []float64, error) {
	type entry struct {
		row, col int32
		val      float64
	}
	entries := make([][]entry, len(v.Args))
	bias := make([]float64, v.Type.Elems())
	err := v.Op.Info().Linear(v, func(out, arg, in int, coef float64) {
		entries[arg] = append(entries[arg], entry{int32(out), int32(in), coef})
	}, func(out int, c float64) { bias[out] += c })
	if err != nil {
		return nil, nil, &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: err}
	}
	mats := make([]*ir.Sparse, len(v.Args))
	for k, es := range entries {
		if !v.Args[k].Type.Encrypted || es == nil {
			continue
		}
		less := func(a, b entry) int {
			if a.row != b.row {
				return int(a.row) - int(b.row)
			}
			return int(a.col) - int(b.col)
		}
		if !slices.IsSortedFunc(es, less) {
			slices.SortStableFunc(es, less)
		}
		m := &ir.Sparse{Rows: len(bias), Cols: v.Args[k].Type.Elems(), Ptr: make([]int32, len(bias)+1)}
		for i, e := range es {
			if n := len(m.Col); i > 0 && es[i-1].row == e.row && es[i-1].col == e.col {
				m.Val[n-1] += e.val
				continue
			}
			m.Col = append(m.Col, e.col)
			m.Val = append(m.Val, e.val)
			m.Ptr[e.row+1]++
		}
		for i := range bias {
			m.Ptr[i+1] += m.Ptr[i]
		}
		mats[k] = m
	}
	return mats, bias, nil
}

func identity(n int) *ir.Sparse {
	m := &ir.Sparse{Rows: n, Cols: n, Ptr: make([]int32, n+1), Col: make([]int32, n), Val: make([]float64, n)}
	for i := range n {
		m.Ptr[i+1], m.Col[i], m.Val[i] = int32(i+1), int32(i), 1
	}
	return m
}

func (a *affine) biasAt(i int) float64 {
	if a.bias == nil {
		return 0
	}
	return a.bias[i]
}

func (a *affine) nnz() int {
	n := 0
	for _, m := range a.mats {
		n += m.NNZ()
	}
	return n
}

// plainRoot returns the root if the map is its identity.
func (a *affine) plainRoot() *fusedNode {
	if len(a.roots) != 1 || slices.ContainsFunc(a.bias, func(b float64) bool { return b != 0 }) {
		return nil
	}
	m := a.mats[0]
	if m.Rows != m.Cols || m.NNZ() != m.Rows {
		return nil
	}
	for i := range m.Rows {
		if int(m.Ptr[i+1]) != i+1 || int(m.Col[i]) != i || m.Val[i] != 1 {
			return nil
		}
	}
	return a.roots[0]
}

// isView reports whether the map only selects elements of one root.
func (a *affine) isView() bool { return a.plainRoot() != nil }

// add accumulates m applied to in.
func (a *affine) add(m *ir.Sparse, in *affine) {
	for k, r := range in.roots {
		p := product(m, in.mats[k])
		if i := slices.Index(a.roots, r); i >= 0 {
			a.mats[i] = sum(a.mats[i], p)
		} else {
			a.roots = append(a.roots, r)
			a.mats = append(a.mats, p)
		}
	}
	if in.bias != nil {
		if a.bias == nil {
			a.bias = make([]float64, m.Rows)
		}
		for i := range m.Rows {
			cols, vals := m.Row(i)
			for e, c := range cols {
				a.bias[i] += vals[e] * in.bias[c]
			}
		}
	}
}

// rows returns the map whose row i is row idx[i] of a.
func (a *affine) rows(idx []int32) *affine {
	sel := &ir.Sparse{Rows: len(idx), Cols: a.mats[0].Rows, Ptr: make([]int32, len(idx)+1), Col: idx, Val: make([]float64, len(idx))}
	for i := range idx {
		sel.Ptr[i+1], sel.Val[i] = int32(i+1), 1
	}
	out := &affine{}
	out.add(sel, a)
	return out
}

// product returns a*b by Gustavson's row algorithm (ACM TOMS 4(3), 1978).
func product(a, b *ir.Sparse) *ir.Sparse {
	if isIdentity(b) {
		return a
	}
	if isIdentity(a) {
		return b
	}
	out := &ir.Sparse{Rows: a.Rows, Cols: b.Cols, Ptr: make([]int32, a.Rows+1)}
	acc := make([]float64, b.Cols)
	mark := make([]int32, b.Cols)
	var touched []int32
	for i := range a.Rows {
		touched = touched[:0]
		cols, vals := a.Row(i)
		for e, c := range cols {
			bc, bv := b.Row(int(c))
			for x, j := range bc {
				if mark[j] != int32(i+1) {
					mark[j] = int32(i + 1)
					acc[j] = 0
					touched = append(touched, j)
				}
				acc[j] += vals[e] * bv[x]
			}
		}
		slices.Sort(touched)
		for _, j := range touched {
			if acc[j] != 0 {
				out.Col = append(out.Col, j)
				out.Val = append(out.Val, acc[j])
			}
		}
		out.Ptr[i+1] = int32(len(out.Col))
	}
	return out
}

func isIdentity(m *ir.Sparse) bool {
	if m.Rows != m.Cols || m.NNZ() != m.Rows {
		return false
	}
	for i := range m.Rows {
		if m.Ptr[i+1] != int32(i+1) || m.Col[i] != int32(i) || m.Val[i] != 1 {
			return false
		}
	}
	return true
}

func sum(a, b *ir.Sparse) *ir.Sparse {
	out := &ir.Sparse{Rows: a.Rows, Cols: a.Cols, Ptr: make([]int32, a.Rows+1)}
	for i := range a.Rows {
		ac, av := a.Row(i)
		bc, bv := b.Row(i)
		for x, y := 0, 0; x < len(ac) || y < len(bc); {
			switch {
			case y == len(bc) || x < len(ac) && ac[x] < bc[y]:
				out.Col, out.Val = append(out.Col, ac[x]), append(out.Val, av[x])
				x++
			case x == len(ac) || bc[y] < ac[x]:
				out.Col, out.Val = append(out.Col, bc[y]), append(out.Val, bv[y])
				y++
			default:
				out.Col, out.Val = append(out.Col, ac[x]), append(out.Val, av[x]+bv[y])
				x, y = x+1, y+1
			}
		}
		out.Ptr[i+1] = int32(len(out.Col))
	}
	return out
}

// polyMax returns the largest magnitude of a polynomial on [-1,1], from a grid
// finer than its oscillations.
func polyMax(a *ir.Approx) float64 {
	m, n := 0.0, 32*len(a.Coef)+64
	for i := range n + 1 {
		m = max(m, math.Abs(ir.Clenshaw(a.Coef, -math.Cos(math.Pi*float64(i)/float64(n)))))
	}
	if m < 1e-12 {
		return 1
	}
	return m
}

// depthOf returns the levels a step consumes.
func (n *fusedNode) depth() int {
	switch n.kind {
	case fusedLinear, fusedMul:
		return 1
	case fusedPoly:
		return polyDepth(n.approx.Degree())
	}
	return 0
}
