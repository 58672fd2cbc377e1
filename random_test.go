package home_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/backend/sim"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
)

// netGen grows a random network op by op. Weights are scaled so that values
// stay of magnitude about one.
type netGen struct {
	r     *rand.Rand
	g     *ir.Graph
	live  []*ir.Value // encrypted values that later ops may read
	names int
}

func (n *netGen) normal(scale float64, shape ...int) *ir.Value {
	a := ir.NewArray(shape...)
	for i := range a.Data {
		a.Data[i] = scale * n.r.NormFloat64()
	}
	v, err := n.g.Const(n.name("w"), a, ir.Real)
	if err != nil {
		panic(err)
	}
	return v
}

func (n *netGen) name(kind string) string {
	n.names++
	return fmt.Sprintf("%s%d", kind, n.names)
}

// add appends an op; ops whose random attributes do not fit their argument are
// left out.
func (n *netGen) add(op ir.Op, attrs ir.Attrs, args ...*ir.Value) *ir.Value {
	v, err := n.g.Add(op, n.name(op.String()[len("tensor."):]), attrs, args...)
	if err != nil || v.Type.Elems() == 0 || v.Type.Elems() > 1500 {
		if err == nil {
			n.g.Values = n.g.Values[:len(n.g.Values)-1]
		}
		return nil
	}
	n.live = append(n.live, v)
	return v
}

// pick prefers the newest value.
func (n *netGen) pick() *ir.Value {
	if n.r.IntN(3) > 0 {
		return n.live[len(n.live)-1]
	}
	return n.live[n.r.IntN(len(n.live))]
}

// pair picks two values that broadcast together.
func (n *netGen) pair() (a, b *ir.Value) {
	a = n.pick()
	for range 8 {
		b = n.live[n.r.IntN(len(n.live))]
		if _, err := ir.Broadcast(a.Type.Shape, b.Type.Shape); err == nil {
			return a, b
		}
	}
	return a, a
}

// lessOf drops some axes of a shape to one, or leaves leading ones out: what
// numpy broadcasting accepts beside it.
func (n *netGen) lessOf(shape []int) []int {
	s := slices.Clone(shape)
	for d := range s {
		if n.r.IntN(2) == 0 {
			s[d] = 1
		}
	}
	if n.r.IntN(3) == 0 {
		s = s[n.r.IntN(len(s)+1):]
	}
	return s
}

// linear appends one random op that is linear in its encrypted arguments.
func (n *netGen) linear() *ir.Value {
	x := n.pick()
	s := x.Type.Shape
	rank := len(s)
	ints := func(k, lo, hi int) []int {
		v := make([]int, k)
		for i := range v {
			v[i] = lo + n.r.IntN(hi-lo+1)
		}
		return v
	}
	switch n.r.IntN(16) {
	case 0, 1, 2:
		if rank < 3 {
			break
		}
		group := 1
		if n.r.IntN(3) == 0 {
			group = s[1]
		}
		kernel := ints(rank-2, 1, 3)
		out := group * (1 + n.r.IntN(4))
		if group > 4 {
			out = group
		}
		w := n.normal(1/math.Sqrt(float64(s[1]/group*ir.NumElems(kernel))), append([]int{out, s[1] / group}, kernel...)...)
		a := ir.Attrs{"group": group, "strides": ints(rank-2, 1, 2), "pads": ints(2*(rank-2), 0, 1)}
		if n.r.IntN(2) == 0 {
			return n.add(ir.OpConv, a, x, w, n.normal(0.3, out))
		}
		return n.add(ir.OpConv, a, x, w)
	case 3, 4, 5:
		if rank < 1 {
			break
		}
		k := s[rank-1]
		y := n.add(ir.OpMatMul, nil, x, n.normal(1/math.Sqrt(float64(k)), k, 1+n.r.IntN(24)))
		if y != nil && n.r.IntN(2) == 0 {
			return n.add(ir.OpAdd, nil, y, n.normal(0.3, y.Type.Shape[len(y.Type.Shape)-1]))
		}
		return y
	case 6:
		if rank < 2 {
			break
		}
		k := s[rank-2]
		return n.add(ir.OpMatMul, nil, n.normal(1/math.Sqrt(float64(k)), 1+n.r.IntN(6), k), x)
	case 7:
		op := []ir.Op{ir.OpAdd, ir.OpSub, ir.OpMul}[n.r.IntN(3)]
		c := n.normal(1, n.lessOf(s)...)
		if n.r.IntN(2) == 0 {
			return n.add(op, nil, c, x)
		}
		return n.add(op, nil, x, c)
	case 8:
		a, b := n.pair()
		return n.add([]ir.Op{ir.OpAdd, ir.OpSub}[n.r.IntN(2)], nil, a, b)
	case 9:
		if rank < 3 {
			break
		}
		return n.add(ir.OpAvgPool, ir.Attrs{"kernel": ints(rank-2, 1, 3), "strides": ints(rank-2, 1, 2), "pads": ints(2*(rank-2), 0, 1), "count_include_pad": n.r.IntN(2)}, x)
	case 10:
		axes := []int{}
		for d := range rank {
			if n.r.IntN(2) == 0 {
				axes = append(axes, d)
			}
		}
		if len(axes) == 0 {
			break
		}
		return n.add(ir.OpReduceMean, ir.Attrs{"axes": axes, "keepdims": n.r.IntN(2)}, x)
	case 11:
		return n.add(ir.OpTranspose, ir.Attrs{"perm": n.r.Perm(rank)}, x)
	case 12:
		e := x.Type.Elems()
		d := 1 + n.r.IntN(e)
		for e%d != 0 {
			d--
		}
		return n.add(ir.OpReshape, ir.Attrs{"shape": [][]int{{e}, {1, e}, {d, e / d}, {1, d, e / d, 1}, {1, 1, d, e / d}}[n.r.IntN(5)]}, x)
	case 13:
		if rank == 0 {
			break
		}
		axis := n.r.IntN(rank)
		for range 8 {
			y := n.live[n.r.IntN(len(n.live))]
			if len(y.Type.Shape) == rank {
				t := slices.Clone(y.Type.Shape)
				t[axis] = s[axis]
				if slices.Equal(t, s) {
					if n.r.IntN(3) == 0 {
						return n.add(ir.OpConcat, ir.Attrs{"axis": axis}, x, n.normal(1, s...), y)
					}
					return n.add(ir.OpConcat, ir.Attrs{"axis": axis}, x, y)
				}
			}
		}
	case 14:
		if rank == 0 {
			break
		}
		axis := n.r.IntN(rank)
		from := n.r.IntN(s[axis])
		return n.add(ir.OpSlice, ir.Attrs{"axes": []int{axis}, "starts": []int{from}, "ends": []int{from + 1 + n.r.IntN(s[axis]-from)}, "steps": []int{1 + n.r.IntN(2)}}, x)
	case 15:
		if rank == 0 {
			break
		}
		return n.add(ir.OpPad, ir.Attrs{"pads": ints(2*rank, 0, 1), "value": n.r.Float64()}, x)
	}
	return nil
}

// nonlinear appends an activation or a product of encrypted values.
func (n *netGen) nonlinear() *ir.Value {
	switch n.r.IntN(8) {
	case 0, 1, 2, 3:
		fn := []string{"relu", "sigmoid", "silu", "tanh", "relu", "gelu"}[n.r.IntN(6)]
		return n.add(ir.OpAct, ir.Attrs{"fn": fn}, n.pick())
	case 4:
		x := n.pick()
		return n.add(ir.OpMul, nil, x, x)
	case 5:
		return n.add(ir.OpPow, ir.Attrs{"k": 2.0}, n.pick())
	default:
		a, b := n.pair()
		return n.add(ir.OpMul, nil, a, b)
	}
}

// randomNetwork returns a small network that depends only on the seed.
func randomNetwork(seed uint64) *ir.Graph {
	r := rand.New(rand.NewPCG(seed, 0x6e6574))
	n := &netGen{r: r, g: &ir.Graph{Name: fmt.Sprintf("random-%d", seed)}}
	shape := [][]int{
		{1, 1 + r.IntN(40)}, {1, 1 + r.IntN(3), 1 + r.IntN(8), 1 + r.IntN(8)}, {1, 1 + r.IntN(4), 1 + r.IntN(20)},
		{1 + r.IntN(4), 1 + r.IntN(12)}, {1, 2, 8, 8}, {1, 3, 7, 6}, {1, 4, 12, 12},
	}[r.IntN(7)]
	in, err := n.g.Add(ir.OpInput, "input", ir.Attrs{"shape": shape})
	if err != nil {
		panic(err)
	}
	n.g.Inputs, n.live = []*ir.Value{in}, []*ir.Value{in}
	for range r.IntN(4) { // rounds of linear ops, then a nonlinear one
		for range 1 + r.IntN(3) {
			n.linear()
		}
		n.nonlinear()
	}
	for range r.IntN(4) {
		n.linear()
	}
	n.g.Outputs = append(n.g.Outputs, n.live[len(n.live)-1])
	for r.IntN(4) == 0 { // more outputs, also the input itself or the same again
		n.g.Outputs = append(n.g.Outputs, n.live[r.IntN(len(n.live))])
	}
	n.g.Prune()
	return n.g
}

func randomSample(r *rand.Rand, shape []int) *ir.Array {
	a := ir.NewArray(shape...)
	for i := range a.Data {
		a.Data[i] = 2*r.Float64() - 1
	}
	return a
}

// inputStyle returns a map from [-1,1] to what an input element may hold: alike
// for all elements, far from zero, on one side of it, or in units of its own for
// each element.
func inputStyle(r *rand.Rand, elems int) func(i int, u float64) float64 {
	center, width := make([]float64, elems), make([]float64, elems)
	style := r.IntN(5)
	for i := range center {
		switch width[i] = 1; style {
		case 1:
			center[i] = 1
		case 2:
			center[i], width[i] = 1, 0.1
		case 3:
			center[i], width[i] = r.NormFloat64(), math.Exp2(4*r.Float64()-3)
		}
	}
	return func(i int, u float64) float64 { return center[i] + width[i]*u }
}

// tinyParams returns insecure parameters with the given number of levels.
func tinyParams(t testing.TB, logN int, ring ir.Ring, levels int) *ir.Params {
	t.Helper()
	q := []int{55}
	for range levels {
		q = append(q, 45)
	}
	p, err := ir.NewParams("tiny", logN, ring, ir.SecretTernary, q, []int{56, 56, 56}[:1+min(2, levels/4)], 45)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// runSlots runs a plan on an engine whose ciphertexts are slots in the clear.
func runSlots(p *plan.Plan, e backend.Engine, encrypt func([]float64, backend.Operand) error, x *ir.Array, batch int) ([]*ir.Array, error) {
	in := &p.Inputs[0]
	packed, err := runtime.Pack(in, x)
	if err != nil {
		return nil, err
	}
	result := map[plan.ObjectID][]float64{}
	err = backend.Interpret(p, e, func(id plan.ObjectID, o backend.Operand) error {
		return encrypt(packed[slices.Index(in.Objects, id)], o)
	}, nil, func(id plan.ObjectID, o backend.Operand) error {
		z, _ := clear.Slots(o)
		result[id] = slices.Clone(z)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []*ir.Array
	for i := range p.Outputs {
		port := &p.Outputs[i]
		var cts [][]float64
		for _, id := range port.Objects {
			cts = append(cts, result[id])
		}
		a, err := runtime.Unpack(port, cts, batch)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// largestError compares outputs element by element.
func largestError(got []*ir.Array, want [][]float64) (float64, error) {
	if len(got) != len(want) {
		return 0, fmt.Errorf("%d outputs, want %d", len(got), len(want))
	}
	worst := 0.0
	for o := range want {
		if len(got[o].Data) != len(want[o]) {
			return 0, fmt.Errorf("output %d has %d elements, want %d", o, len(got[o].Data), len(want[o]))
		}
		for i, w := range want[o] {
			if d := math.Abs(got[o].Data[i] - w); !(d <= worst) {
				worst = d
			}
		}
	}
	return worst, nil
}

// TestRandomNetworks pushes random small networks through the compiler and all
// three machines. The plan on exact slots must give the approximated network to
// rounding. Simulated and encrypted runs stay within eight times the precision
// that the plan claims from a few samples. A run under the least budget of DRAM
// gives the same bytes.
func TestRandomNetworks(t *testing.T) {
	cases, encrypted := 60, 20
	if longTests() {
		cases, encrypted = 3000, 600
	}
	batches := map[int]int{}
	for seed := range uint64(cases) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { batches[randomCase(t, seed, seed < uint64(encrypted))]++ })
	}
	if batches[2] == 0 || batches[4] == 0 {
		t.Errorf("samples a run, and how often: %v; some should lie side by side", batches)
	}
}

// randomCase returns the number of samples that a run takes.
func randomCase(t *testing.T, seed uint64, encrypted bool) int {
	g := randomNetwork(seed)
	if err := ir.Verify(g, ir.Tensor); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, g)
		}
	}()
	r := rand.New(rand.NewPCG(seed, 0x73616d70))
	shape := g.Inputs[0].Type.Shape
	var calib []*ir.Array
	style := inputStyle(r, ir.NumElems(shape))
	for range 40 {
		x := randomSample(r, shape)
		for i, u := range x.Data {
			x.Data[i] = style(i, u)
		}
		calib = append(calib, x)
	}
	logN := 6 + r.IntN(3)
	lanes := r.IntN(5) == 0 && ir.NumElems(shape) < 50
	ring := []ir.Ring{ir.RingReal, ir.RingStandard}[r.IntN(2)]
	opt := passes.Options{Skip: []string{"unbatch"}, Calibrate: calib, AccuracyDrop: 0.3, Margin: 0.5, AllowInsecure: true, Params: tinyParams(t, logN, ring, 40)}
	if lanes { // more samples at once than packing one by one is cheaper for
		opt.Batch = 1 << 20
	} else if seed%3 == 1 { // side by side
		opt.Batch = 2 + int(seed/3%3)
	}
	p, err := passes.Compile(passes.Source{Graph: g}, opt)
	if errors.Is(err, passes.ErrAccuracy) {
		t.Skipf("seed %d: %v", seed, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	opt.Params = tinyParams(t, logN, ring, p.Depth)
	if p, err = passes.Compile(passes.Source{Graph: g}, opt); err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	samples := make([]*ir.Array, min(3, p.Batch))
	for i := range samples {
		samples[i] = calib[r.IntN(6)] // one of those the plan predicts its precision on
	}
	q, inputs, res := machines(t, p, seed+2, samples, 1e-9, 8*math.Exp2(-p.OutputBits), encrypted)
	if encrypted && seed%4 == 0 {
		tieredRun(t, q, inputs, res)
	}
	return p.Batch
}

// machines runs samples side by side through a plan, on exact slots, simulated and,
// where encrypt is set, encrypted, and holds the outputs against the approximated
// network: on exact slots to a share of the largest output, on the other two to
// noise. It returns the encrypted run.
func machines(t *testing.T, p *plan.Plan, seed uint64, samples []*ir.Array, exactly, noise float64, encrypt bool) (*party, runtime.Inputs, runtime.Outputs) {
	t.Helper()
	x := &ir.Array{Shape: slices.Clone(samples[0].Shape)}
	x.Shape[0] *= len(samples)
	top, want := 1.0, make([][]float64, len(p.Outputs))
	for _, sample := range samples {
		x.Data = append(x.Data, sample.Data...)
		out, _, err := clear.EvalTensor(p.Network, []*ir.Array{sample}, clear.Options{Approx: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range out {
			if !slices.Equal(a.Shape, p.Outputs[i].Shape) {
				t.Fatalf("output %d has shape %v, the plan says %v", i, a.Shape, p.Outputs[i].Shape)
			}
			top, want[i] = max(top, a.MaxAbs()), append(want[i], a.Data...)
		}
	}
	noise += 1e-12 * top // rounding of the double precision that all three compute in at the ends
	check := func(machine string, got []*ir.Array, err error, tolerance float64) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", machine, err)
		}
		e, err := largestError(got, want)
		if err != nil {
			t.Fatalf("%s: %v", machine, err)
		}
		if !(e <= tolerance) {
			t.Errorf("%s: error %.3g exceeds %.3g (outputs up to %.3g)", machine, e, tolerance, top)
		}
	}
	exact, err := clear.NewEngine(&p.Params)
	if err != nil {
		t.Fatal(err)
	}
	got, err := runSlots(p, exact, func(v []float64, o backend.Operand) error {
		z, _ := clear.Slots(o)
		copy(z, v)
		return nil
	}, x, len(samples))
	check("clear", got, err, exactly*top)
	noisy, err := sim.New(&p.Params, backend.DefaultProfile(), seed)
	if err != nil {
		t.Fatal(err)
	}
	defer noisy.Close()
	got, err = runSlots(p, noisy, noisy.Encrypt, x, len(samples))
	check("simulate", got, err, noise)
	if !encrypt {
		return nil, nil, nil
	}
	q := newParty(t, p, 1, lattigo.AllowInsecure())
	ct, inputs := q.encrypt(t, x, len(samples))
	res, rep, err := q.exec.Run(t.Context(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	check("encrypted", q.decrypt(t, ct, res, len(samples)), nil, noise)
	if rep.Counts != p.Counts {
		t.Errorf("executed %+v, planned %+v", rep.Counts, p.Counts)
	}
	return q, inputs, res
}

// tieredRun repeats an encrypted run with the least budget of DRAM that works,
// keys and weights in a slow tier, on two threads: the same bytes come out.
func tieredRun(t *testing.T, q *party, inputs runtime.Inputs, want runtime.Outputs) {
	t.Helper()
	p := *q.plan
	var small *plan.BudgetError
	if err := passes.Retier(&p, 1, backend.DefaultProfile(), 2); !errors.As(err, &small) {
		t.Fatalf("a budget of one byte: %v", err)
	}
	if err := passes.Retier(&p, small.Least, backend.DefaultProfile(), 2); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := runtime.Install(t.Context(), &p, q.e, keySource{q.keys}, dir, runtime.InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	slow, err := runtime.OpenStore(&p, q.e, q.keys.SecretID(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	x, err := runtime.NewExecutor(t.Context(), &p, q.e, runtime.Options{Threads: 2, Slow: slow})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	got, rep, err := x.Run(t.Context(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d output objects, want %d", len(got), len(want))
	}
	for id, slabs := range want {
		if !slices.EqualFunc(slabs, got[id], bytes.Equal) {
			t.Errorf("object %d: other bytes under the least budget", id)
		}
	}
	if most := int64(p.Tier.ArenaSlabs) * int64(p.Params.SlabBytes()); rep.ArenaPeak > most {
		t.Errorf("the arena held %d bytes, the tier plan allows %d", rep.ArenaPeak, most)
	}
}

// TestPartialBatch runs one sample where a run takes a whole ciphertext of them,
// on a network whose answer to zeros lies far outside the range of its
// polynomial: the empty lanes must not spoil the sample.
func TestPartialBatch(t *testing.T) {
	g, err := ir.ParseString(`graph "offset"
%0 = tensor.input() {shape=[1,3]} "x"
%1 = tensor.const() data=[5,-3,4,2,2,-6] : f[3,2] "w"
%2 = tensor.matmul(%0, %1) "fc"
%3 = tensor.const() data=[-11,7] : f[2] "b"
%4 = tensor.add(%2, %3) "bias"
%5 = tensor.act(%4) {fn="relu"} "relu"
inputs(%0)
outputs(%5)
`)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 8))
	var calib []*ir.Array
	for range 100 {
		x := randomSample(r, []int{1, 3})
		for i, u := range x.Data {
			x.Data[i] = 1 + u/10
		}
		calib = append(calib, x)
	}
	par := tinyParams(t, 6, ir.RingReal, 12)
	p, err := passes.Compile(passes.Source{Graph: g}, passes.Options{Calibrate: calib, AccuracyDrop: 0.1, Batch: 1 << 20, Params: par, AllowInsecure: true})
	if err != nil {
		t.Fatal(err)
	}
	if p.Batch != par.Slots() {
		t.Fatalf("%d samples a run, want %d", p.Batch, par.Slots())
	}
	act := p.Network.Values[len(p.Network.Values)-1]
	if a := act.Approx; a == nil || !a.Channel(0).Outside(-11) || a.Degree() < 4 {
		t.Fatalf("the polynomial %v is harmless at the bias, so the test shows nothing", a)
	}
	q := newParty(t, p, 1, lattigo.AllowInsecure())
	for _, x := range calib[:3] {
		want, _, err := clear.EvalTensor(p.Network, []*ir.Array{x}, clear.Options{Approx: true})
		if err != nil {
			t.Fatal(err)
		}
		got, _ := q.runAll(t, x, 1)
		if e, err := largestError(got, [][]float64{want[0].Data}); err != nil || !(e < 1e-4) {
			t.Errorf("error %g (%v)", e, err)
		}
	}
}
