package home_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/backend/sim"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
)

// handPlan turns a graph of the scheme vocabulary, keys in front, into a plan
// with one input and one output.
func handPlan(t *testing.T, g *ir.Graph, par *ir.Params) *plan.Plan {
	t.Helper()
	if err := ir.Verify(g, ir.Scheme); err != nil {
		t.Fatal(err)
	}
	l := ir.NewLayout(par.Slots(), 1, 1)
	for i := range l.Map {
		l.Map[i] = int32(i)
	}
	p := &plan.Plan{Model: g.Name, Params: *par, Batch: 1, Layers: []plan.Layer{{Name: g.Name}}}
	id := map[*ir.Value]plan.ObjectID{}
	port := func(name string, v *ir.Value) []plan.Port {
		return []plan.Port{{Name: name, Shape: []int{par.Slots()}, Layout: l, Objects: []plan.ObjectID{id[v]}, Level: v.Type.Level, Scale: v.Type.Scale}}
	}
	for _, v := range g.Values {
		o := plan.Object{Role: plan.RoleTemp, Type: v.Type, Layer: -1}
		switch v.Op {
		case ir.OpHEInput:
			o.Role = plan.RoleInput
		case ir.OpHEKey:
			o.Role, o.Rot = plan.RoleKey, v.Attrs.Int("rot", 0)
		case ir.OpHEPlain:
			o.Role, o.Plain = plan.RolePlain, int32(len(p.Plains))
			p.Plains = append(p.Plains, *v.Slots)
		case ir.OpHEOutput:
			id[v] = id[v.Args[0]]
			p.Objects[id[v]].Role = plan.RoleOutput
			continue
		default:
			s := plan.Step{Op: v.Op, Out: plan.ObjectID(len(p.Objects)), Rot: v.Attrs.Int("rot", 0), Const: v.Attrs.Float("c", 0), Twice: v.Attrs.Int("twice", 0) != 0}
			if text := v.Attrs.Str("scale", ""); text != "" {
				var err error
				if s.Scale, err = ir.ParseScale(text); err != nil {
					t.Fatal(err)
				}
			}
			for _, a := range v.Args {
				s.Args = append(s.Args, id[a])
			}
			p.Steps = append(p.Steps, s)
		}
		id[v] = plan.ObjectID(len(p.Objects))
		p.Objects = append(p.Objects, o)
	}
	p.Inputs, p.Outputs = port("x", g.Inputs[0]), port("y", g.Outputs[0])
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	if err := passes.Retier(p, 0, backend.DefaultProfile(), 1); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSimulatedNoise runs single steps encrypted and simulated, and compares the
// standard deviation of the error over all slots: the simulator predicts it
// within a third, for both rings, both secrets, and special primes on
// both sides of where key switching dominates.
//
// What raising the modulus adds to the coefficients, multiples of q_0, differs
// from run to run and is taken off before.
func TestSimulatedNoise(t *testing.T) {
	programs := []struct {
		name, text string
		ring       ir.Ring // the only one it runs in, if not empty
	}{
		{"fresh", `%1 = he.addconst(%0) {c=0.0}
%2 = he.output(%1)`, ""},
		{"rescale", `%1 = he.mulconst(%0) {c=0.7, scale="q2"}
%2 = he.rescale(%1)
%3 = he.output(%2)`, ""},
		{"rotate", `%1 = he.key() {level=2, rot=3}
%2 = he.rotate(%0, %1) {rot=3}
%3 = he.output(%2)`, ""},
		{"hoisted product", `%1 = he.key() {level=2, rot=3}
%2 = he.decompose(%0)
%3 = he.hoistrot(%0, %2, %1) {rot=3}
%4 = he.plain() {level=2, qp=1, scale="q2"} values=(period=2, index=[0,1], value=[0.75,-0.5])
%5 = he.mulqp(%3, %4)
%6 = he.moddown(%5)
%7 = he.rescale(%6)
%8 = he.output(%7)`, ""},
		{"hoisted product divided at once", `%1 = he.key() {level=2, rot=3}
%2 = he.decompose(%0)
%3 = he.hoistrot(%0, %2, %1) {rot=3}
%4 = he.plain() {level=2, qp=1, scale="q2"} values=(period=2, index=[0,1], value=[0.75,-0.5])
%5 = he.mulqp(%3, %4)
%6 = he.moddownrescale(%5)
%7 = he.output(%6)`, ""},
		{"product divided at once", `%1 = he.key() {level=2, rot=0}
%2 = he.mulrescale(%0, %0, %1) {c=-0.25, level=1, twice=1}
%3 = he.output(%2)`, ""},
		{"sum divided at once", `%1 = he.key() {level=2, rot=0}
%2 = he.mulconst(%0) {c=0.25, scale="2^34"}
%3 = he.macrescale(%2, %0, %0, %1) {level=1}
%4 = he.output(%3)`, ""},
		{"giant step", `%1 = he.key() {level=2, rot=3}
%2 = he.lift(%0)
%3 = he.plain() {level=2, qp=1, scale="q2"} values=(period=2, index=[0,1], value=[0.75,-0.5])
%4 = he.mulqp(%2, %3)
%5 = he.giant(%4, %1) {rot=3}
%6 = he.moddown(%5)
%7 = he.rescale(%6)
%8 = he.output(%7)`, ""},
		{"product", `%1 = he.key() {level=2, rot=0}
%2 = he.mul(%0, %0, %1)
%3 = he.rescale(%2)
%4 = he.output(%3)`, ""},
		{"real part", `%1 = he.key() {level=2, rot=-1}
%2 = he.muli(%0)
%3 = he.muli(%2)
%4 = he.realpart(%3, %1)
%5 = he.output(%4)`, ir.RingStandard},
		{"complex product", `%1 = he.key() {level=2, rot=-1}
%2 = he.key() {level=2, rot=0}
%3 = he.muli(%0)
%4 = he.add(%0, %3)
%5 = he.mul(%4, %4, %2)
%6 = he.muli(%5)
%7 = he.rescale(%6)
%8 = he.realpart(%7, %1)
%9 = he.output(%8)`, ir.RingStandard},
		{"transform", `%1 = he.key() {level=2, rot=3}
%2 = he.key() {level=2, rot=-1}
%3 = he.muli(%0)
%4 = he.add(%0, %3)
%5 = he.decompose(%4)
%6 = he.hoistrot(%4, %5, %1) {rot=3}
%7 = he.plain() {level=2, qp=1, scale="q2"} dft=(points=64, inverse=0, from=0, to=2, offset=1, shift=0, factor=0.5)
%8 = he.mulqp(%6, %7)
%9 = he.moddown(%8)
%10 = he.rescale(%9)
%11 = he.realpart(%10, %2)
%12 = he.output(%11)`, ir.RingStandard},
		{"raise", `%1 = he.key() {level=0, rot=-3}
%2 = he.key() {level=2, rot=-2}
%3 = he.key() {level=2, rot=-1}
%4 = he.addconst(%0) {c=0.0, level=0}
%5 = he.raise(%4, %1, %2) {level=2}
%6 = he.realpart(%5, %3)
%7 = he.output(%6)`, ir.RingStandard},
	}
	for _, c := range []struct {
		logN   int
		ring   ir.Ring
		secret ir.Secret
		p      []int
	}{
		{9, ir.RingReal, ir.SecretTernary, []int{41}},
		{9, ir.RingReal, ir.SecretTernary, []int{34}}, // key switching dominates
		{10, ir.RingStandard, ir.SecretTernary, []int{41}},
		{10, ir.RingStandard, ir.SecretTernary, []int{34}},
		{10, ir.RingStandard, ir.SecretH192, []int{41, 41}},
		{10, ir.RingStandard, ir.SecretH192, []int{48}}, // rounding dominates, in raising too
	} {
		par, err := ir.NewParams("noise", c.logN, c.ring, c.secret, []int{44, 39, 39}, c.p, 34)
		if err != nil {
			t.Fatal(err)
		}
		par.Insecure = true
		for _, prog := range programs {
			if prog.ring != "" && prog.ring != c.ring {
				continue
			}
			t.Run(fmt.Sprintf("%s/N%d/%s/%s/P%v", prog.name, c.logN, c.ring, c.secret, c.p), func(t *testing.T) {
				text := prog.text
				last := text[lastLine(text):]
				var out int
				fmt.Sscanf(last, "%%%d", &out)
				g, err := ir.ParseString(fmt.Sprintf("graph %q\n%%0 = he.input() {level=2, scale=\"2^34\"} \"x\"\n%s\ninputs(%%0)\noutputs(%%%d)\n", prog.name, text, out))
				if err != nil {
					t.Fatal(err)
				}
				p := handPlan(t, g, par)
				exact, err := clear.NewEngine(par)
				if err != nil {
					t.Fatal(err)
				}
				q := newParty(t, p, 1, lattigo.AllowInsecure())
				r := rand.New(rand.NewPCG(1, 1))
				var encrypted, simulated, mean float64
				const runs = 6
				for run := range uint64(runs) {
					x := randomSample(r, []int{par.Slots()})
					s, err := sim.New(par, backend.DefaultProfile(), run)
					if err != nil {
						t.Fatal(err)
					}
					want, err := runSlots(p, exact, func(v []float64, o backend.Operand) error {
						z, _ := clear.Slots(o)
						copy(z, v)
						return nil
					}, x, 1)
					if err != nil {
						t.Fatal(err)
					}
					predicted, err := runSlots(p, s, s.Encrypt, x, 1)
					if err != nil {
						t.Fatal(err)
					}
					got, _ := q.run(t, x)
					off := func(y []float64) []float64 {
						d := make([]float64, len(y))
						for i, w := range want[0].Data {
							d[i] = y[i] - w
						}
						if strings.Contains(text, "he.raise") {
							takeMultiples(d, float64(par.Q[0])/p.Outputs[0].Scale.Float64(par.Q))
						}
						return d
					}
					for _, d := range off(got.Data) {
						encrypted, mean = encrypted+d*d, mean+d
					}
					for _, d := range off(predicted[0].Data) {
						simulated += d * d
					}
				}
				n := float64(runs * par.Slots())
				encrypted, simulated = math.Sqrt(encrypted/n), math.Sqrt(simulated/n)
				t.Logf("encrypted %.3g, simulated %.3g, ratio %.2f", encrypted, simulated, encrypted/simulated)
				if ratio := encrypted / simulated; !(ratio > 0.75 && ratio < 1.35) {
					t.Errorf("error %.3g encrypted, %.3g simulated", encrypted, simulated)
				}
				if math.Abs(mean/n) > 6*encrypted/math.Sqrt(n) {
					t.Errorf("error has mean %.3g at deviation %.3g over %v values", mean/n, encrypted, n)
				}
			})
		}
	}
}

// takeMultiples takes off real slots what multiples of q in the coefficients put
// there.
func takeMultiples(d []float64, q float64) {
	z := make([]complex128, len(d))
	for i, x := range d {
		z[i] = complex(x, 0)
	}
	e := ir.NewEmbedding(len(d))
	e.ToCoefs(z)
	for i, c := range z {
		z[i] = complex(math.Remainder(real(c), q), math.Remainder(imag(c), q))
	}
	e.ToSlots(z)
	for i, c := range z {
		d[i] = real(c)
	}
}

// lastLine returns where the last line begins.
func lastLine(s string) int {
	for i := len(s) - 1; i > 0; i-- {
		if s[i-1] == '\n' {
			return i
		}
	}
	return 0
}
