package lattigo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// joinedTest makes random programs of steps that work limb by limb.
type joinedTest struct {
	t   *testing.T
	e   *engine
	rng *rand.Rand
}

func (j *joinedTest) object(k ir.Kind, level int) *operand {
	return randomObject(j.t, j.rng, j.e, ir.Type{Kind: k, Encrypted: true, Level: level, Scale: ir.ScaleTwo(40)})
}

// plain returns a plaintext, made in steps or not, whose coefficients have gaps or not.
func (j *joinedTest) plain(k ir.Kind, level int) *operand {
	ty := ir.Type{Kind: k, Level: level, Scale: ir.ScaleTwo(40)}
	period := j.e.p.Slots() >> j.rng.IntN(4)
	v := dense(make([]float64, max(1, period)))
	for i := range v.Value {
		v.Value[i] = j.rng.NormFloat64()
	}
	o := must[*operand](j.t)(j.e.bind(ty, conformance.Slabs(j.e, ty)))
	if j.rng.IntN(2) == 0 {
		if err := j.e.Encode(v, o); err != nil {
			j.t.Fatal(err)
		}
		return o
	}
	source := conformance.Slabs(j.e, ir.Type{Kind: ir.PlainKind})[0]
	if err := j.e.EncodeCompact(v, ty, source); err != nil {
		j.t.Fatal(err)
	}
	if err := j.e.Stream(o, source); err != nil {
		j.t.Fatal(err)
	}
	return o
}

// random returns a program of as many steps as are done together at most, on values of
// several levels: it reads and updates what it computed. The second result is all that it
// works on.
func (j *joinedTest) random(seed uint64, streams bool) ([]backend.Call, []*operand) {
	j.rng = rand.New(rand.NewPCG(seed, 7))
	top := j.e.p.MaxLevel()
	var cts, qps, all []*operand
	digits, key := j.object(ir.DigitsKind, top), j.object(ir.KeyKind, top)
	if streams {
		s := Seed{byte(seed), keyBytes: byte(kernels.DrawWide)}
		if err := j.e.Stream(key, s[:]); err != nil {
			j.t.Fatal(err)
		}
	}
	for k := range 3 {
		cts, qps = append(cts, j.object(ir.CipherKind, top-k)), append(qps, j.object(ir.CipherQPKind, top-k))
	}
	all = append(slices.Clone(cts), qps...)
	pick := func(from []*operand) *operand { return from[j.rng.IntN(len(from))] }
	var ops []ir.Op
	for op := range limbwise {
		ops = append(ops, op)
	}
	slices.Sort(ops)
	var calls []backend.Call
	for len(calls) < backend.MostJoined {
		op := ops[j.rng.IntN(len(ops))]
		s := &plan.Step{Op: op, Rot: 1 + j.rng.IntN(5), Const: j.rng.NormFloat64(), Scale: ir.ScaleTwo(30)}
		var in []*operand
		level := top
		kinds := argKinds[op]
		if sum, _ := op.Accumulates(); sum {
			for range j.rng.IntN(ir.MostTerms) {
				kinds = append(slices.Clone(kinds), kinds[len(kinds)-2:]...)
			}
		}
		for _, k := range kinds {
			var o *operand
			switch k {
			case ir.CipherKind:
				o = pick(cts)
			case ir.CipherQPKind:
				o = pick(qps)
			case ir.DigitsKind:
				o = digits
			case ir.KeyKind:
				o = key
			default:
				o = j.plain(k, top)
			}
			in, level = append(in, o), min(level, o.t.Level)
		}
		want, ok := outKinds[op]
		if !ok {
			want = ir.CipherKind
		}
		out := in[0]
		if !plan.InPlace(op) || out.t.Kind != want || out.t.Level != level || slices.Contains(in[1:], out) || j.rng.IntN(2) == 0 {
			out = j.object(want, level-j.rng.IntN(2)*min(1, level))
			if all = append(all, out); want == ir.CipherKind {
				cts = append(cts, out)
			} else {
				qps = append(qps, out)
			}
		}
		var args []backend.Operand
		for _, o := range in {
			args = append(args, o)
		}
		calls = append(calls, backend.Call{Step: s, Args: args, Out: out})
	}
	return calls, all
}

// TestJoined performs random programs one step after another, and together on one to
// three threads, with all kernels: the same bits come out.
func TestJoined(t *testing.T) {
	for _, c := range []struct {
		logN    int
		special []int
	}{{9, []int{46, 46, 46}}, {5, []int{46}}} {
		p, err := ir.NewParams("joined", c.logN, ir.RingStandard, ir.SecretTernary, sizes(47, 44, 7), c.special, 44)
		if err != nil {
			t.Fatal(err)
		}
		p.Insecure = true
		for _, form := range kernels.Supported() {
			r := must[*rings](t)(newRingsWith(p, form))
			for seed := range uint64(6) {
				program := func(threads int) ([]backend.Call, []*operand, *engine) {
					j := joinedTest{t: t, e: newEngine(r, threads)}
					calls, all := j.random(seed, seed%2 == 1)
					return calls, all, j.e
				}
				calls, want, e := program(1)
				for _, c := range calls {
					if err := e.Exec(c.Step, c.Args, c.Out); err != nil {
						t.Fatal(err)
					}
				}
				for threads := 1; threads <= 3; threads++ {
					calls, got, e := program(threads)
					if err := e.ExecJoined(calls); err != nil {
						t.Fatal(err)
					}
					for k := range want {
						if !slices.EqualFunc(got[k].rows, want[k].rows, slices.Equal[[]uint64]) {
							t.Fatalf("N=2^%d, %s, program %d on %d threads: %s %d has other bits", c.logN, form, seed, threads, want[k].t.Kind, k)
						}
					}
				}
			}
		}
	}
}

// TestJoinedRefuses gives steps that do not work limb by limb, or do not fit.
func TestJoinedRefuses(t *testing.T) {
	p, err := ir.NewParams("joined", 9, ir.RingStandard, ir.SecretTernary, sizes(47, 44, 3), []int{46}, 44)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	j := joinedTest{t: t, e: newEngine(must[*rings](t)(newRings(p)), 2), rng: rand.New(rand.NewPCG(1, 1))}
	x, y, z := j.object(ir.CipherKind, 2), j.object(ir.CipherKind, 1), j.object(ir.CipherKind, 2)
	good := backend.Call{Step: &plan.Step{Op: ir.OpHEAdd}, Args: []backend.Operand{x, x}, Out: z}
	for _, bad := range []backend.Call{
		{Step: &plan.Step{Op: ir.OpHERescale}, Args: []backend.Operand{x}, Out: y},
		{Step: &plan.Step{Op: ir.OpHEAdd}, Args: []backend.Operand{x, y}, Out: z},
		{Step: &plan.Step{Op: ir.OpHEMulQP}, Args: []backend.Operand{x, y}, Out: z},
	} {
		before := fmt.Sprint(z.rows)
		if err := j.e.ExecJoined([]backend.Call{good, bad}); err == nil {
			t.Errorf("%s was done together with others", bad.Step.Op)
		}
		if fmt.Sprint(z.rows) != before {
			t.Errorf("%s was refused after others had begun", bad.Step.Op)
		}
	}
}
