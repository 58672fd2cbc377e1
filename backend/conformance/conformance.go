// Package conformance is the suite every backend passes: each scheme step alone,
// at several levels and with operands and keys above the level of the result, in
// both rings; in-place updates; exact scales through a small program; a
// double-hoisted matrix-vector product; the same bytes from any number of
// goroutines.
package conformance

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Client plays the roles that hold the secret, on operands bound by the engine.
type Client interface {
	// Encrypt writes a fresh ciphertext of one value per slot.
	Encrypt(values []float64, out backend.Operand) error
	// Decrypt returns one value per slot.
	Decrypt(in backend.Operand) ([]float64, error)
	// MakeKey writes the evaluation key for a rotation; 0 is relinearisation.
	MakeKey(rot int, out backend.Operand) error
}

// Tolerance is the largest slot error the suite accepts from any of its
// programs: values lie in [-1, 1] and scales are near 2^40.
const Tolerance = 1.0 / (1 << 20)

// Run runs the suite. open returns an engine and its client for insecure test
// parameters; the suite closes the engine.
func Run(t *testing.T, name string, open func(p *ir.Params) (backend.Engine, Client)) {
	for _, c := range []struct {
		logN    int
		ring    ir.Ring
		special int // primes of P
		secret  ir.Secret
	}{
		{4, ir.RingStandard, 1, ir.SecretTernary},
		{4, ir.RingReal, 2, ir.SecretTernary},
		{6, ir.RingStandard, 2, ir.SecretTernary},
		{7, ir.RingReal, 1, ir.SecretTernary},
		{10, ir.RingStandard, 3, ir.SecretH192},
		{9, ir.RingReal, 3, ir.SecretTernary},
	} {
		q, s := []int{50, 40, 40, 40, 40}, []int{51, 51, 51}
		p, err := ir.NewParams("conformance", c.logN, c.ring, c.secret, q, s[:c.special], 40)
		if err != nil {
			t.Fatal(err)
		}
		p.Insecure = true
		t.Run(fmt.Sprintf("%s/N%d/%s/P%d", name, c.logN, c.ring, c.special), func(t *testing.T) {
			e, client := open(p)
			defer e.Close()
			r := &runner{t: t, e: e, c: client, p: p, rng: rand.New(rand.NewPCG(1, uint64(c.logN))), keys: map[[2]int]backend.Operand{}}
			t.Run("steps", func(t *testing.T) { r.with(t).steps() })
			t.Run("in-place", func(t *testing.T) { r.with(t).inPlace() })
			t.Run("scales", func(t *testing.T) { r.with(t).scales() })
			t.Run("matrix", func(t *testing.T) { r.with(t).matrix() })
			t.Run("goroutines", func(t *testing.T) { r.with(t).goroutines() })
			t.Run("refusals", func(t *testing.T) { r.with(t).refusals() })
		})
	}
}

// runner holds what the programs of one parameter set share.
type runner struct {
	t    *testing.T
	e    backend.Engine
	c    Client
	p    *ir.Params
	rng  *rand.Rand
	keys map[[2]int]backend.Operand
}

func (r *runner) with(t *testing.T) *runner {
	s := *r
	s.t = t
	return &s
}

// Slabs allocates aligned slabs for an object, filled with a pattern that no
// engine may rely on.
func Slabs(e backend.Engine, t ir.Type) [][]byte {
	n := e.Slabs(t)
	size := e.SlabBytes()
	buf := make([]byte, n*size+64)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(buf))) & 63)
	s := make([][]byte, n)
	for i := range s {
		s[i] = buf[off+i*size : off+(i+1)*size : off+(i+1)*size]
		for j := range s[i] {
			s[i][j] = 0xa5
		}
	}
	return s
}

func (r *runner) bind(t ir.Type) (backend.Operand, [][]byte) {
	r.t.Helper()
	s := Slabs(r.e, t)
	o, err := r.e.Bind(t, s)
	if err != nil {
		r.t.Fatal(err)
	}
	return o, s
}

func (r *runner) vector() []float64 {
	v := make([]float64, r.p.Slots())
	for i := range v {
		v[i] = 2*r.rng.Float64() - 1
	}
	return v
}

func ct(level int, s ir.Scale) ir.Type {
	return ir.Type{Kind: ir.CipherKind, Encrypted: true, Level: level, Scale: s}
}

func kind(k ir.Kind, level int, s ir.Scale) ir.Type {
	t := ct(level, s)
	t.Kind = k
	t.Encrypted = k != ir.PlainKind && k != ir.PlainQPKind
	return t
}

func (r *runner) delta() ir.Scale { return ir.ScaleTwo(r.p.LogScale) }

func (r *runner) encrypt(v []float64, level int) backend.Operand {
	r.t.Helper()
	o, _ := r.bind(ct(level, r.delta()))
	if err := r.c.Encrypt(v, o); err != nil {
		r.t.Fatal(err)
	}
	return o
}

func (r *runner) encode(v []float64, k ir.Kind, level int, s ir.Scale) backend.Operand {
	r.t.Helper()
	o, _ := r.bind(kind(k, level, s))
	d := &ir.SlotData{Period: len(v)}
	for i, x := range v {
		d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, x)
	}
	if err := r.e.Encode(d, o); err != nil {
		r.t.Fatal(err)
	}
	return o
}

func (r *runner) key(rot, level int) backend.Operand {
	r.t.Helper()
	id := [2]int{rot, level}
	if r.keys[id] == nil {
		o, _ := r.bind(kind(ir.KeyKind, level, ir.Scale{}))
		if err := r.c.MakeKey(rot, o); err != nil {
			r.t.Fatal(err)
		}
		r.keys[id] = o
	}
	return r.keys[id]
}

func (r *runner) do(s plan.Step, t ir.Type, args ...backend.Operand) backend.Operand {
	r.t.Helper()
	o, _ := r.bind(t)
	if err := r.e.Exec(&s, args, o); err != nil {
		r.t.Fatal(err)
	}
	return o
}

func (r *runner) check(what string, o backend.Operand, want []float64) {
	r.t.Helper()
	if o.Type().Kind == ir.CipherQPKind {
		o = r.do(plan.Step{Op: ir.OpHEModDown}, ct(o.Type().Level, o.Type().Scale), o)
	}
	got, err := r.c.Decrypt(o)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(got) != len(want) {
		r.t.Fatalf("%s: %d slots, want %d", what, len(got), len(want))
	}
	for i := range want {
		if d := math.Abs(got[i] - want[i]); !(d <= Tolerance) {
			r.t.Errorf("%s: slot %d is %.9f, want %.9f (error %g above %g)", what, i, got[i], want[i], d, Tolerance)
			return
		}
	}
}

func rotated(v []float64, k int) []float64 {
	k = ((k % len(v)) + len(v)) % len(v)
	return append(append([]float64{}, v[k:]...), v[:k]...)
}

func zip(a, b []float64, f func(x, y float64) float64) []float64 {
	z := make([]float64, len(a))
	for i := range z {
		z[i] = f(a[i], b[i])
	}
	return z
}

func add(x, y float64) float64 { return x + y }
func sub(x, y float64) float64 { return x - y }
func mul(x, y float64) float64 { return x * y }

// steps runs every step at several levels, with operands and keys at the level
// of the result and above.
func (r *runner) steps() {
	top := r.p.MaxLevel()
	d := r.delta()
	d2 := d.Mul(d)
	for _, c := range []struct{ arg, key, out int }{
		{top, top, top}, {top, top, 2}, {2, 3, 2}, {3, 3, 1}, {1, top, 1}, {2, 2, 1},
	} {
		a, b := r.vector(), r.vector()
		x, y := r.encrypt(a, c.arg), r.encrypt(b, c.arg)
		at := func(op ir.Op) string {
			return fmt.Sprintf("%v from level %d to %d with keys at %d", op, c.arg, c.out, c.key)
		}
		out, out2 := ct(c.out, d), ct(c.out, d2)
		qp := func(s ir.Scale) ir.Type { return kind(ir.CipherQPKind, c.out, s) }
		one := func(op ir.Op, t ir.Type, want []float64, args ...backend.Operand) backend.Operand {
			r.t.Helper()
			o := r.do(plan.Step{Op: op}, t, args...)
			if want != nil {
				r.check(at(op), o, want)
			}
			return o
		}
		one(ir.OpHEOutput, out, a, x)
		one(ir.OpHEAdd, out, zip(a, b, add), x, y)
		one(ir.OpHESub, out, zip(a, b, sub), x, y)
		one(ir.OpHEAddPlain, out, zip(a, b, add), x, r.encode(b, ir.PlainKind, c.arg, d))
		one(ir.OpHEMulPlain, out2, zip(a, b, mul), x, r.encode(b, ir.PlainKind, c.arg, d))
		for _, k := range []float64{0.75, -1.5, 0} {
			shift := zip(a, a, func(v, _ float64) float64 { return v + k })
			r.check(at(ir.OpHEAddConst), r.do(plan.Step{Op: ir.OpHEAddConst, Const: k}, out, x), shift)
			scaled := zip(a, a, func(v, _ float64) float64 { return v * k })
			r.check(at(ir.OpHEMulConst), r.do(plan.Step{Op: ir.OpHEMulConst, Const: k, Scale: d}, out2, x), scaled)
			if c.out >= 2 { // lower moduli cannot hold the product
				wide := ir.ScalePrime(1).Mul(ir.ScaleTwo(30)) // an integer beyond 64 bits
				r.check(at(ir.OpHEMulConst), r.do(plan.Step{Op: ir.OpHEMulConst, Const: k, Scale: wide}, ct(c.out, d.Mul(wide)), x), scaled)
			}
			acc := r.do(plan.Step{Op: ir.OpHEMulConst, Const: 1, Scale: d}, ct(c.arg, d2), y)
			r.check(at(ir.OpHEMacConst), r.do(plan.Step{Op: ir.OpHEMacConst, Const: k, Scale: d}, out2, acc, x), zip(b, scaled, add))
		}
		relin := r.key(0, c.key)
		one(ir.OpHEMul, out2, zip(a, b, mul), x, y, relin)
		one(ir.OpHEMul, out2, zip(a, a, mul), x, x, relin)
		if c.out < c.arg {
			p := one(ir.OpHEMul, ct(c.out+1, d2), nil, x, y, r.key(0, top))
			one(ir.OpHERescale, ct(c.out, d2.Div(ir.ScalePrime(c.out+1))), zip(a, b, mul), p)
		}
		digits := one(ir.OpHEDecompose, kind(ir.DigitsKind, c.out, ir.Scale{}), nil, x)
		high := one(ir.OpHEDecompose, kind(ir.DigitsKind, c.arg, ir.Scale{}), nil, x)
		lift := one(ir.OpHELift, qp(d), a, x)
		liftHigh := one(ir.OpHELift, kind(ir.CipherQPKind, c.arg, d), nil, x)
		one(ir.OpHEModDown, out, a, liftHigh)
		w := r.vector()
		pt := r.encode(w, ir.PlainQPKind, c.arg, d)
		prod := one(ir.OpHEMulQP, qp(d2), zip(a, w, mul), liftHigh, pt)
		one(ir.OpHEMacQP, qp(d2), zip(a, w, func(v, u float64) float64 { return 2 * v * u }), prod, lift, pt)
		one(ir.OpHEAddQP, qp(d), zip(a, a, add), lift, liftHigh)
		for _, rot := range []int{1, 3, -2, r.p.Slots() / 2} {
			key := r.key(rot, c.key)
			r.check(at(ir.OpHERotate), r.do(plan.Step{Op: ir.OpHERotate, Rot: rot}, out, x, key), rotated(a, rot))
			r.check(at(ir.OpHEHoistRot), r.do(plan.Step{Op: ir.OpHEHoistRot, Rot: rot}, qp(d), x, digits, key), rotated(a, rot))
			r.check(at(ir.OpHEHoistRot), r.do(plan.Step{Op: ir.OpHEHoistRot, Rot: rot}, qp(d), x, high, key), rotated(a, rot))
			r.check(at(ir.OpHEGiant), r.do(plan.Step{Op: ir.OpHEGiant, Rot: rot}, qp(d), liftHigh, key), rotated(a, rot))
			r.check(at(ir.OpHEGiant), r.do(plan.Step{Op: ir.OpHEGiant, Rot: rot}, qp(d2), prod, key), rotated(zip(a, w, mul), rot))
		}
	}
}

// inPlace runs the accumulating steps with the result over the first operand.
func (r *runner) inPlace() {
	l := r.p.MaxLevel() - 1
	d := r.delta()
	d2 := d.Mul(d)
	a, b, w := r.vector(), r.vector(), r.vector()
	x, y := r.encrypt(a, l), r.encrypt(b, l+1)
	self := func(s plan.Step, o backend.Operand, args ...backend.Operand) {
		r.t.Helper()
		if err := r.e.Exec(&s, append([]backend.Operand{o}, args...), o); err != nil {
			r.t.Fatal(err)
		}
	}
	self(plan.Step{Op: ir.OpHEAdd}, x, y)
	r.check("add in place", x, zip(a, b, add))
	self(plan.Step{Op: ir.OpHESub}, x, y)
	self(plan.Step{Op: ir.OpHEAddConst, Const: 0.5}, x)
	r.check("subtract and add a constant in place", x, zip(a, a, func(v, _ float64) float64 { return v + 0.5 }))
	z := r.do(plan.Step{Op: ir.OpHEMulConst, Const: 0.5, Scale: d}, ct(l, d2), y)
	self(plan.Step{Op: ir.OpHEMacConst, Const: -0.25, Scale: d}, z, y)
	r.check("multiply by a constant and add in place", z, zip(b, b, func(v, _ float64) float64 { return v / 4 }))
	lift := r.do(plan.Step{Op: ir.OpHELift}, kind(ir.CipherQPKind, l, d), y)
	pt := r.encode(w, ir.PlainQPKind, l+1, d)
	acc := r.do(plan.Step{Op: ir.OpHEMulQP}, kind(ir.CipherQPKind, l, d2), lift, pt)
	self(plan.Step{Op: ir.OpHEMacQP}, acc, lift, pt)
	self(plan.Step{Op: ir.OpHEAddQP}, acc, acc)
	r.check("accumulate modulo QP in place", acc, zip(b, w, func(v, u float64) float64 { return 4 * v * u }))
}

// scales runs x^4 + x^2/2 + x and brings the scale back to 2^LogScale exactly.
func (r *runner) scales() {
	top := r.p.MaxLevel()
	d := r.delta()
	a := r.vector()
	x := r.encrypt(a, top)
	q := ir.ScalePrime
	relin := r.key(0, top)
	square := func(v backend.Operand) backend.Operand {
		s, l := v.Type().Scale, v.Type().Level
		m := r.do(plan.Step{Op: ir.OpHEMul}, ct(l, s.Mul(s)), v, v, relin)
		return r.do(plan.Step{Op: ir.OpHERescale}, ct(l-1, s.Mul(s).Div(q(l))), m)
	}
	// to brings v to a scale at a level, times c: the constant is encoded at the
	// quotient, so that the rescale lands on the scale exactly.
	to := func(v backend.Operand, c float64, s ir.Scale, l int) backend.Operand {
		f := s.Mul(q(l + 1)).Div(v.Type().Scale)
		m := r.do(plan.Step{Op: ir.OpHEMulConst, Const: c, Scale: f}, ct(l+1, s.Mul(q(l+1))), v)
		return r.do(plan.Step{Op: ir.OpHERescale}, ct(l, s), m)
	}
	x2 := square(x)
	x4 := square(x2)
	l := x4.Type().Level - 1
	sum := r.do(plan.Step{Op: ir.OpHEAdd}, ct(l, d), to(x4, 1, d, l), to(x2, 0.5, d, l))
	sum = r.do(plan.Step{Op: ir.OpHEAdd}, ct(l, d), sum, x)
	if s := sum.Type().Scale; !s.Equal(ir.ScaleTwo(r.p.LogScale)) {
		r.t.Fatalf("scale %v", s)
	}
	r.check("polynomial", sum, zip(a, a, func(v, _ float64) float64 { return v*v*v*v + v*v/2 + v }))
}

// matrix multiplies by a random matrix of up to 32 diagonals with baby-step
// giant-step and double hoisting: one decomposition, hoisted baby steps modulo
// QP, one ModDown and one rescale at the end (Bossuat et al., EUROCRYPT 2021).
func (r *runner) matrix() {
	n := r.p.Slots()
	l := r.p.MaxLevel() - 1
	baby, giant := 4, min(8, n/4)
	d := r.delta()
	a := r.vector()
	x := r.encrypt(a, l+1)
	w := ir.ScalePrime(l)
	qp, qpw := kind(ir.CipherQPKind, l, d), kind(ir.CipherQPKind, l, d.Mul(w))

	diag := make([][]float64, baby*giant) // diag[k][i] = M[i][i+k]
	want := make([]float64, n)
	for k := range diag {
		diag[k] = r.vector()
		for i := range diag[k] {
			diag[k][i] /= float64(len(diag))
		}
		for i := range want {
			want[i] += diag[k][i] * a[(i+k)%n]
		}
	}
	digits := r.do(plan.Step{Op: ir.OpHEDecompose}, kind(ir.DigitsKind, l, ir.Scale{}), x)
	steps := []backend.Operand{r.do(plan.Step{Op: ir.OpHELift}, qp, x)}
	for b := 1; b < baby; b++ {
		steps = append(steps, r.do(plan.Step{Op: ir.OpHEHoistRot, Rot: b}, qp, x, digits, r.key(b, l)))
	}
	var total backend.Operand
	for g := range giant {
		var inner backend.Operand
		for b, s := range steps {
			pt := r.encode(rotated(diag[g*baby+b], -g*baby), ir.PlainQPKind, l, w)
			if b == 0 {
				inner = r.do(plan.Step{Op: ir.OpHEMulQP}, qpw, s, pt)
				continue
			}
			if err := r.e.Exec(&plan.Step{Op: ir.OpHEMacQP}, []backend.Operand{inner, s, pt}, inner); err != nil {
				r.t.Fatal(err)
			}
		}
		if g == 0 {
			total = inner
			continue
		}
		turned := r.do(plan.Step{Op: ir.OpHEGiant, Rot: g * baby}, qpw, inner, r.key(g*baby, l+1))
		if err := r.e.Exec(&plan.Step{Op: ir.OpHEAddQP}, []backend.Operand{total, turned}, total); err != nil {
			r.t.Fatal(err)
		}
	}
	y := r.do(plan.Step{Op: ir.OpHEModDown}, ct(l, d.Mul(w)), total)
	y = r.do(plan.Step{Op: ir.OpHERescale}, ct(l-1, d), y)
	r.check("matrix-vector product", y, want)
}

// goroutines runs the same steps from one and from several goroutines at once;
// the bytes of the results must be the same.
func (r *runner) goroutines() {
	l := r.p.MaxLevel()
	d := r.delta()
	x, y := r.encrypt(r.vector(), l), r.encrypt(r.vector(), l)
	relin, rot := r.key(0, l), r.key(1, l)
	program := func() ([]byte, error) {
		var out bytes.Buffer
		for _, s := range []struct {
			plan.Step
			t    ir.Type
			args []backend.Operand
		}{
			{plan.Step{Op: ir.OpHEMul}, ct(l, d.Mul(d)), []backend.Operand{x, y, relin}},
			{plan.Step{Op: ir.OpHERotate, Rot: 1}, ct(l, d), []backend.Operand{x, rot}},
			{plan.Step{Op: ir.OpHEDecompose}, kind(ir.DigitsKind, l, ir.Scale{}), []backend.Operand{x}},
			{plan.Step{Op: ir.OpHERescale}, ct(l-1, d.Div(ir.ScalePrime(l))), []backend.Operand{x}},
		} {
			slabs := Slabs(r.e, s.t)
			o, err := r.e.Bind(s.t, slabs)
			if err != nil {
				return nil, err
			}
			if err := r.e.Exec(&s.Step, s.args, o); err != nil {
				return nil, err
			}
			for _, b := range slabs {
				out.Write(b)
			}
		}
		return out.Bytes(), nil
	}
	want, err := program()
	if err != nil {
		r.t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			got, err := program()
			if err != nil || !bytes.Equal(got, want) {
				r.t.Errorf("goroutine %d: other bytes than alone (error %v)", g, err)
			}
		}()
	}
	wg.Wait()
}

// refusals feeds what no engine may accept: it must return an error.
func (r *runner) refusals() {
	l, d := r.p.MaxLevel(), r.delta()
	pt, _ := r.bind(kind(ir.PlainKind, 0, d))
	for _, v := range []float64{math.NaN(), math.Inf(1), 1e30} {
		if err := r.e.Encode(&ir.SlotData{Period: 1, Index: []int32{0}, Value: []float64{v}}, pt); err == nil {
			r.t.Errorf("encoded %v at scale %v and level 0", v, d)
		}
	}
	if err := r.e.Encode(&ir.SlotData{Period: 3, Index: []int32{0}, Value: []float64{1}}, pt); err == nil {
		r.t.Error("encoded a period of 3")
	}
	slabs := Slabs(r.e, ct(l, d))
	if _, err := r.e.Bind(ct(l, d), append(slabs, slabs[0])); err == nil {
		r.t.Error("bound one slab too many")
	}
	slabs[0] = slabs[0][:8]
	if _, err := r.e.Bind(ct(l, d), slabs); err == nil {
		r.t.Error("bound a short slab")
	}
	if _, err := r.e.Bind(ir.TensorType(1), nil); err == nil {
		r.t.Error("bound a tensor")
	}
	x := r.encrypt(r.vector(), l)
	out, _ := r.bind(ct(l, d))
	if err := r.e.Exec(&plan.Step{Op: ir.OpConv}, []backend.Operand{x}, out); err == nil {
		r.t.Error("executed a convolution")
	}
	if err := r.e.Exec(&plan.Step{Op: ir.OpHEAdd}, []backend.Operand{x}, out); err == nil {
		r.t.Error("added one operand")
	}
}
