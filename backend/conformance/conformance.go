// Package conformance is the suite every backend passes: each scheme step alone,
// at several levels and with operands and keys above the level of the result, in
// both rings; in-place updates; sums of several products; divisions by P and a prime at once; exact scales through a small program; a
// double-hoisted matrix-vector product; what a step touches of a key; in the standard ring complex slots and the
// steps of bootstrapping; the same bytes from any number of goroutines.
package conformance

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"math/cmplx"
	"math/rand/v2"
	"slices"
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
	// Decrypt returns the real part of each slot.
	Decrypt(in backend.Operand) ([]float64, error)
	// DecryptComplex returns the slots of a complex value (standard ring only).
	DecryptComplex(in backend.Operand) ([]complex128, error)
	// MakeKey writes the evaluation key for a rotation, or the one that rot names
	// (ir.KeyRelin and on), and returns the seed of its uniform halves, if it has one.
	MakeKey(rot int, out backend.Operand) ([]byte, error)
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
			t.Run("sums", func(t *testing.T) { r.with(t).sums() })
			t.Run("divisions", func(t *testing.T) { r.with(t).divisions() })
			t.Run("scales", func(t *testing.T) { r.with(t).scales() })
			t.Run("matrix", func(t *testing.T) { r.with(t).matrix() })
			if c.ring == ir.RingStandard {
				t.Run("complex", func(t *testing.T) { r.with(t).complex() })
				t.Run("transform", func(t *testing.T) { r.with(t).transform() })
				t.Run("raise", func(t *testing.T) { r.with(t).raise() })
			}
			t.Run("touched", func(t *testing.T) { r.with(t).touched() })
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
	return r.encodeLanes(v, 0, k, level, s)
}

// encodeLanes encodes a vector in which 2^log neighbours are alike.
func (r *runner) encodeLanes(v []float64, log int, k ir.Kind, level int, s ir.Scale) backend.Operand {
	r.t.Helper()
	o, _ := r.bind(kind(k, level, s))
	d := &ir.SlotData{Period: len(v), LogLanes: log}
	for i := range d.Positions() {
		d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, v[i<<log])
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
		k := ir.KeyKind
		if rot == ir.KeySparse {
			k = ir.SparseKeyKind
		}
		o, _ := r.bind(kind(k, level, ir.Scale{}))
		if _, err := r.c.MakeKey(rot, o); err != nil {
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
	got, err := r.c.Decrypt(r.down(o))
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

// checkComplex is check for complex slots.
func (r *runner) checkComplex(what string, o backend.Operand, want []complex128) {
	r.t.Helper()
	got, err := r.c.DecryptComplex(r.down(o))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(got) != len(want) {
		r.t.Fatalf("%s: %d slots, want %d", what, len(got), len(want))
	}
	for i := range want {
		if d := cmplx.Abs(got[i] - want[i]); !(d <= Tolerance) {
			r.t.Errorf("%s: slot %d is %.9f, want %.9f (error %g above %g)", what, i, got[i], want[i], d, Tolerance)
			return
		}
	}
}

// down returns a ciphertext modulo Q for one modulo QP.
func (r *runner) down(o backend.Operand) backend.Operand {
	r.t.Helper()
	t := o.Type()
	if t.Kind != ir.CipherQPKind {
		return o
	}
	t.Kind = ir.CipherKind
	return r.do(plan.Step{Op: ir.OpHEModDown}, t, o)
}

func rotated[T any](v []T, k int) []T {
	k = ((k % len(v)) + len(v)) % len(v)
	return append(append([]T{}, v[k:]...), v[:k]...)
}

func zip[T any](a, b []T, f func(x, y T) T) []T {
	z := make([]T, len(a))
	for i := range z {
		z[i] = f(a[i], b[i])
	}
	return z
}

type number interface{ float64 | complex128 }

func add[T number](x, y T) T { return x + y }
func sub[T number](x, y T) T { return x - y }
func mul[T number](x, y T) T { return x * y }

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
		wide := make([]float64, len(b))
		for i := range wide {
			wide[i] = b[i&^3]
		}
		one(ir.OpHEMulPlain, out2, zip(a, wide, mul), x, r.encodeLanes(wide, 2, ir.PlainKind, c.arg, d))
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
		flat := r.encode(w, ir.PlainKind, c.arg, d)
		flatProd := one(ir.OpHEMulPlain, ct(c.out, d2), zip(a, w, mul), x, flat)
		one(ir.OpHEMacPlain, ct(c.out, d2), zip(a, w, func(v, u float64) float64 { return 2 * v * u }), flatProd, x, flat)
		for _, rot := range []int{1, 3, r.p.Slots() - 2, r.p.Slots() / 2} {
			key := r.key(rot, c.key)
			r.check(at(ir.OpHERotate), r.do(plan.Step{Op: ir.OpHERotate, Rot: rot}, out, x, key), rotated(a, rot))
			r.check(at(ir.OpHEHoistRot), r.do(plan.Step{Op: ir.OpHEHoistRot, Rot: rot}, qp(d), x, digits, key), rotated(a, rot))
			r.check(at(ir.OpHEHoistRot), r.do(plan.Step{Op: ir.OpHEHoistRot, Rot: rot}, qp(d), x, high, key), rotated(a, rot))
			r.check(at(ir.OpHEGiant), r.do(plan.Step{Op: ir.OpHEGiant, Rot: rot}, qp(d), liftHigh, key), rotated(a, rot))
			r.check(at(ir.OpHEGiant), r.do(plan.Step{Op: ir.OpHEGiant, Rot: rot}, qp(d2), prod, key), rotated(zip(a, w, mul), rot))
		}
	}
}

// sums holds steps of several terms against one step for each: the results are the
// same bit for bit, whatever lies above the level of the result.
func (r *runner) sums() {
	top := r.p.MaxLevel()
	d := r.delta()
	d2 := d.Mul(d)
	for _, c := range []struct {
		mul, mac      ir.Op
		cipher, plain ir.Kind
	}{
		{ir.OpHEMulPlain, ir.OpHEMacPlain, ir.CipherKind, ir.PlainKind},
		{ir.OpHEMulQP, ir.OpHEMacQP, ir.CipherQPKind, ir.PlainQPKind},
	} {
		for _, level := range []int{0, top} {
			var pairs []backend.Operand
			for i := range ir.MostTerms {
				l := top - i%2*(top-level)
				x := r.encrypt(r.vector(), l)
				if c.cipher == ir.CipherQPKind {
					x = r.do(plan.Step{Op: ir.OpHELift}, kind(c.cipher, l, d), x)
				}
				pairs = append(pairs, x, r.encode(r.vector(), c.plain, top-i%3/2*(top-level), d))
			}
			out := kind(c.cipher, level, d2)
			exec := func(op ir.Op, z backend.Operand, args ...backend.Operand) {
				r.t.Helper()
				if err := r.e.Exec(&plan.Step{Op: op}, args, z); err != nil {
					r.t.Fatalf("%s of %d arguments: %v", op, len(args), err)
				}
			}
			first, start := r.bind(out)
			exec(c.mul, first, pairs[:2]...)
			one, want := r.bind(out)
			exec(c.mul, one, pairs[:2]...)
			for n := 1; n <= ir.MostTerms; n++ {
				if n > 1 {
					exec(c.mac, one, one, pairs[2*n-2], pairs[2*n-1])
				}
				many, got := r.bind(out)
				same := func(what string) {
					r.t.Helper()
					if !bytes.Equal(bytes.Join(got, nil), bytes.Join(want, nil)) {
						r.t.Errorf("%s at level %d: %d terms at once give another result than one after the other", what, level, n)
					}
				}
				exec(c.mul, many, pairs[:2*n]...)
				same(c.mul.String())
				if n > 1 {
					more := append([]backend.Operand{first}, pairs[2:2*n]...)
					exec(c.mac, many, more...)
					same(c.mac.String())
					for i := range got {
						copy(got[i], start[i])
					}
					more[0] = many
					exec(c.mac, many, more...)
					same(c.mac.String() + " in place")
				}
			}
			for _, args := range [][]backend.Operand{nil, pairs[:1], pairs[:3], append(slices.Clone(pairs), pairs[:2]...)} {
				z, _ := r.bind(out)
				if err := r.e.Exec(&plan.Step{Op: c.mul}, args, z); err == nil {
					r.t.Errorf("%s of %d arguments is accepted", c.mul, len(args))
				}
				if err := r.e.Exec(&plan.Step{Op: c.mac}, append([]backend.Operand{first}, args...), z); err == nil {
					r.t.Errorf("%s of an accumulator and %d arguments is accepted", c.mac, len(args))
				}
			}
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
	flat := r.do(plan.Step{Op: ir.OpHEMulPlain}, ct(l, d2), y, r.encode(w, ir.PlainKind, l+1, d))
	self(plan.Step{Op: ir.OpHEMacPlain}, flat, y, r.encode(w, ir.PlainKind, l+1, d))
	r.check("accumulate in place", flat, zip(b, w, func(v, u float64) float64 { return 2 * v * u }))
	r.check("accumulate modulo QP in place", acc, zip(b, w, func(v, u float64) float64 { return 4 * v * u }))
}

// divisions runs the steps that divide by P and by the last prime at once, down to level
// 0, with operands and keys just as high as that takes and higher.
func (r *runner) divisions() {
	top, d := r.p.MaxLevel(), r.delta()
	d2 := d.Mul(d)
	for out := range top {
		for _, at := range [][2]int{{out + 1, out + 1}, {top, out + 1}, {out + 1, top}, {top, top}} { // of operands and keys
			a, b, c := r.vector(), r.vector(), r.vector()
			x, y, z := r.encrypt(a, at[0]), r.encrypt(b, at[0]), r.encrypt(c, at[0])
			acc := r.do(plan.Step{Op: ir.OpHEMulConst, Const: 1, Scale: d}, ct(at[0], d2), z)
			result := ct(out, d2.Div(ir.ScalePrime(out+1)))
			relin := r.key(ir.KeyRelin, at[1])
			for _, twice := range []bool{false, true} {
				for _, k := range []float64{0, -0.75} {
					s := plan.Step{Op: ir.OpHEMulRescale, Twice: twice, Const: k}
					product := zip(a, b, func(v, u float64) float64 {
						if twice {
							v *= 2
						}
						return v*u + k
					})
					what := func() string {
						return fmt.Sprintf("%v to level %d of operands at %d with a key at %d, twice %v, constant %v", s.Op, out, at[0], at[1], twice, k)
					}
					r.check(what(), r.do(s, result, x, y, relin), product)
					s.Op = ir.OpHEMacRescale
					r.check(what(), r.do(s, result, acc, x, y, relin), zip(product, c, add))
				}
			}
			r.check("a square", r.do(plan.Step{Op: ir.OpHEMulRescale}, result, x, x, relin), zip(a, a, mul))
			var factors []backend.Operand
			total := make([]float64, len(a))
			for n := 1; n <= ir.MostProducts; n++ {
				u, v := r.vector(), r.vector()
				for i := range u {
					u[i] /= ir.MostProducts
				}
				factors, total = append(factors, r.encrypt(u, at[0]), r.encrypt(v, at[0])), zip(total, zip(u, v, mul), add)
				args := append(slices.Clone(factors), relin)
				r.check(fmt.Sprintf("%d products", n), r.do(plan.Step{Op: ir.OpHEMulRescale}, result, args...), total)
				want := zip(c, total, func(v, u float64) float64 { return v + 2*u + 0.5 })
				r.check(fmt.Sprintf("%d products and an accumulator", n), r.do(plan.Step{Op: ir.OpHEMacRescale, Twice: true, Const: 0.5}, result, append([]backend.Operand{acc}, args...)...), want)
				o, _ := r.bind(result)
				for _, op := range []ir.Op{ir.OpHEMulRescale, ir.OpHEMacRescale} {
					odd := slices.Clone(factors)
					if op == ir.OpHEMulRescale {
						odd = append(odd, acc)
					}
					if err := r.e.Exec(&plan.Step{Op: op}, append(odd, relin), o); err == nil {
						r.t.Errorf("%s of %d operands is accepted", op, len(odd)+1)
					}
				}
			}
			o, _ := r.bind(result)
			if r.e.Exec(&plan.Step{Op: ir.OpHEMulRescale}, append(slices.Clone(factors), x, y, relin), o) == nil {
				r.t.Errorf("%d products at once are accepted", ir.MostProducts+1)
			}
			if r.e.Exec(&plan.Step{Op: ir.OpHEMul}, []backend.Operand{x, y, x, y, relin}, o) == nil {
				r.t.Errorf("%s of several products is accepted", ir.OpHEMul)
			}
			qp := kind(ir.CipherQPKind, at[0], d)
			lift := r.do(plan.Step{Op: ir.OpHELift}, qp, x)
			qp.Scale = d2
			prod := r.do(plan.Step{Op: ir.OpHEMulQP}, qp, lift, r.encode(c, ir.PlainQPKind, at[0], d))
			r.check(fmt.Sprintf("%v from level %d to %d", ir.OpHEModDownRescale, at[0], out), r.do(plan.Step{Op: ir.OpHEModDownRescale}, result, prod), zip(a, c, mul))
		}
	}
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

// asComplex returns the type with complex slots.
func asComplex(t ir.Type) ir.Type {
	t.Complex = true
	return t
}

// complexOf joins real and imaginary parts; im may be nil.
func complexOf(re, im []float64) []complex128 {
	z := make([]complex128, len(re))
	for i := range z {
		z[i] = complex(re[i], 0)
		if im != nil {
			z[i] = complex(re[i], im[i])
		}
	}
	return z
}

// encryptComplex encrypts a vector of complex slots: x + i*y.
func (r *runner) encryptComplex(level int) (backend.Operand, []complex128) {
	r.t.Helper()
	a, b := r.vector(), r.vector()
	t := asComplex(ct(level, r.delta()))
	iy := r.do(plan.Step{Op: ir.OpHEMulI}, t, r.encrypt(b, level))
	return r.do(plan.Step{Op: ir.OpHEAdd}, t, r.encrypt(a, level), iy), complexOf(a, b)
}

// diagonal encodes a diagonal of a transform and returns its slots.
func (r *runner) diagonal(d ir.Diagonal, period int, k ir.Kind, level int, s ir.Scale) (backend.Operand, []complex128) {
	r.t.Helper()
	o, _ := r.bind(asComplex(kind(k, level, s)))
	v := &ir.SlotData{Period: period, DFT: &d}
	if err := r.e.Encode(v, o); err != nil {
		r.t.Fatal(err)
	}
	z := make([]complex128, period)
	v.Fill(z)
	for len(z) < r.p.Slots() {
		z = append(z, z...)
	}
	return o, z
}

// complex runs every step whose slots may be complex, with operands of both sorts.
func (r *runner) complex() {
	top, n := r.p.MaxLevel(), r.p.Slots()
	d := r.delta()
	d2 := d.Mul(d)
	for _, c := range []struct{ arg, key, out, period int }{
		{top, top, top, n}, {top, top, 2, n / 2}, {2, 3, 1, n},
	} {
		x, z := r.encryptComplex(c.arg)
		y, w := r.encryptComplex(c.arg)
		b := r.vector()
		re, v := r.encrypt(b, c.arg), complexOf(b, nil)
		pt := r.encode(b, ir.PlainKind, c.arg, d)
		ptqp := r.encode(b, ir.PlainQPKind, c.arg, d)
		diag := ir.Diagonal{From: 0, To: 2, Offset: 1, Shift: 1, Factor: 0.5}
		cpt, u := r.diagonal(diag, c.period, ir.PlainKind, c.arg, d)
		diag.Inverse = true
		cptqp, uqp := r.diagonal(diag, c.period, ir.PlainQPKind, c.arg, d)
		at := func(s plan.Step, what string) string {
			return fmt.Sprintf("%v of %s from level %d to %d with keys at %d", s.Op, what, c.arg, c.out, c.key)
		}
		one := func(s plan.Step, what string, t ir.Type, want []complex128, args ...backend.Operand) backend.Operand {
			r.t.Helper()
			o := r.do(s, asComplex(t), args...)
			if want != nil {
				r.checkComplex(at(s, what), o, want)
			}
			return o
		}
		op := func(o ir.Op) plan.Step { return plan.Step{Op: o} }
		out, out2 := ct(c.out, d), ct(c.out, d2)
		qp := func(s ir.Scale) ir.Type { return kind(ir.CipherQPKind, c.out, s) }
		times := func(z []complex128, k complex128) []complex128 {
			return zip(z, z, func(v, _ complex128) complex128 { return v * k })
		}
		one(op(ir.OpHEMulI), "a complex value", out, times(z, 1i), x)
		one(op(ir.OpHEMulI), "a real value", out, times(v, 1i), re)
		one(op(ir.OpHEAdd), "complex values", out, zip(z, w, add), x, y)
		one(op(ir.OpHEAdd), "a complex and a real value", out, zip(z, v, add), x, re)
		one(op(ir.OpHESub), "complex values", out, zip(z, w, sub), x, y)
		one(op(ir.OpHESub), "a real and a complex value", out, zip(v, z, sub), re, x)
		one(op(ir.OpHEAddPlain), "a complex value and a real plaintext", out, zip(z, v, add), x, pt)
		one(op(ir.OpHEAddPlain), "a real value and a complex plaintext", out, zip(v, u, add), re, cpt)
		one(op(ir.OpHEMulPlain), "a complex value and a real plaintext", out2, zip(z, v, mul), x, pt)
		one(op(ir.OpHEMulPlain), "a real value and a complex plaintext", out2, zip(v, u, mul), re, cpt)
		one(op(ir.OpHEMulPlain), "complex values", out2, zip(z, u, mul), x, cpt)
		one(plan.Step{Op: ir.OpHEAddConst, Const: 0.75}, "a complex value", out, zip(z, z, func(v, _ complex128) complex128 { return v + 0.75 }), x)
		acc := one(plan.Step{Op: ir.OpHEMulConst, Const: -1.5, Scale: d}, "a complex value", out2, times(z, -1.5), x)
		one(plan.Step{Op: ir.OpHEMacConst, Const: 0.5, Scale: d}, "complex values", out2, zip(times(z, -1.5), times(w, 0.5), add), acc, y)
		one(plan.Step{Op: ir.OpHEMacConst, Const: 0.5, Scale: d}, "a complex and a real value", out2, zip(times(z, -1.5), times(v, 0.5), add), acc, re)
		relin, conj := r.key(ir.KeyRelin, c.key), r.key(ir.KeyConj, c.key)
		prod := one(op(ir.OpHEMul), "complex values", out2, zip(z, w, mul), x, y, relin)
		one(op(ir.OpHEMul), "a complex and a real value", out2, zip(z, v, mul), x, re, relin)
		for _, m := range []struct {
			what string
			o    backend.Operand
			w    []complex128
		}{{"complex values", y, w}, {"a complex and a real value", re, v}} {
			low := ct(c.out-1, d2.Div(ir.ScalePrime(c.out)))
			s := plan.Step{Op: ir.OpHEMulRescale, Twice: true, Const: 0.5}
			want := zip(z, m.w, func(v, w complex128) complex128 { return 2*v*w + 0.5 })
			one(s, m.what, low, want, x, m.o, relin)
			s.Op = ir.OpHEMacRescale
			one(s, m.what, low, zip(want, times(z, -1.5), add), acc, x, m.o, relin)
			if m.o == re {
				one(s, "a complex value added to a product of real ones", low, zip(times(z, -1.5), zip(v, v, mul), func(a, b complex128) complex128 { return a + 2*b + 0.5 }), acc, re, re, relin)
			}
		}
		one(op(ir.OpHERescale), "a complex value", ct(c.out-1, d2.Div(ir.ScalePrime(c.out))), zip(z, w, mul), prod)
		for _, p := range []struct {
			what string
			o    backend.Operand
			z    []complex128
		}{{"a complex value", x, z}, {"a real value", re, v}} {
			want := make([]float64, n)
			for i := range want {
				want[i] = 2 * real(p.z[i])
			}
			o := r.do(op(ir.OpHERealPart), out, p.o, conj)
			r.check(at(op(ir.OpHERealPart), p.what), o, want)
			r.checkComplex(at(op(ir.OpHERealPart), p.what), o, complexOf(want, nil))
		}
		digits := r.do(op(ir.OpHEDecompose), kind(ir.DigitsKind, c.out, ir.Scale{}), x)
		lift := one(op(ir.OpHELift), "a complex value", qp(d), z, x)
		liftRe := r.do(op(ir.OpHELift), qp(d), re)
		one(op(ir.OpHEMulQP), "a complex value and a real plaintext", qp(d2), zip(z, v, mul), lift, ptqp)
		sum := one(op(ir.OpHEMulQP), "a real value and a complex plaintext", qp(d2), zip(v, uqp, mul), liftRe, cptqp)
		zu := zip(z, uqp, mul)
		one(op(ir.OpHEMacQP), "a complex value and a complex plaintext", qp(d2), zip(zip(v, uqp, mul), zu, add), sum, lift, cptqp)
		one(op(ir.OpHEMacQP), "a complex value and a real plaintext", qp(d2), zip(zip(v, uqp, mul), zip(z, v, mul), add), sum, lift, ptqp)
		one(op(ir.OpHEMacQP), "a real value and a complex plaintext", qp(d2), times(zip(v, uqp, mul), 2), sum, liftRe, cptqp)
		one(op(ir.OpHEAddQP), "complex values", qp(d), times(z, 2), lift, lift)
		if err := r.e.Exec(&plan.Step{Op: ir.OpHEMacQP}, []backend.Operand{sum, lift, cptqp}, sum); err != nil {
			r.t.Fatal(err)
		}
		r.checkComplex("accumulation of complex values in place", sum, zip(zip(v, uqp, mul), zu, add))
		for _, rot := range []int{1, n / 2} {
			key := r.key(rot, c.key)
			one(plan.Step{Op: ir.OpHERotate, Rot: rot}, "a complex value", out, rotated(z, rot), x, key)
			one(plan.Step{Op: ir.OpHEHoistRot, Rot: rot}, "a complex value", qp(d), rotated(z, rot), x, digits, key)
			one(plan.Step{Op: ir.OpHEGiant, Rot: rot}, "a complex value", qp(d), rotated(z, rot), lift, key)
		}
	}
}

// transform applies layers of the canonical embedding by their diagonals and then
// their inverse, which gives back what went in.
func (r *runner) transform() {
	n, l, d := r.p.Slots(), r.p.MaxLevel(), r.delta()
	layers := min(3, bits.Len(uint(n))-1)
	x, start := r.encryptComplex(l)
	z := start
	for _, inverse := range []bool{false, true} {
		w := ir.ScalePrime(l)
		qp := func(s ir.Scale) ir.Type { return asComplex(kind(ir.CipherQPKind, l, s)) }
		digits := r.do(plan.Step{Op: ir.OpHEDecompose}, kind(ir.DigitsKind, l, ir.Scale{}), x)
		var sum backend.Operand
		next := make([]complex128, n)
		for _, o := range ir.Offsets(n, 0, layers) {
			pt, u := r.diagonal(ir.Diagonal{Inverse: inverse, To: layers, Offset: o, Factor: 1}, n, ir.PlainQPKind, l, w)
			for i, v := range u {
				next[i] += v * z[(i+o)%n]
			}
			if o == 0 {
				sum = r.do(plan.Step{Op: ir.OpHEMulQP}, qp(d.Mul(w)), r.do(plan.Step{Op: ir.OpHELift}, qp(d), x), pt)
				continue
			}
			turned := r.do(plan.Step{Op: ir.OpHEHoistRot, Rot: o}, qp(d), x, digits, r.key(o, r.p.MaxLevel()))
			if err := r.e.Exec(&plan.Step{Op: ir.OpHEMacQP}, []backend.Operand{sum, turned, pt}, sum); err != nil {
				r.t.Fatal(err)
			}
		}
		x = r.do(plan.Step{Op: ir.OpHERescale}, asComplex(ct(l-1, d)), r.down(sum))
		z = next
		l--
		r.checkComplex("transform", x, z)
	}
	r.checkComplex("transform and its inverse", x, start)
}

// raise raises ciphertexts of level 0: coefficients gain multiples of q_0, as
// random and as small as the ephemeral secret makes them, and nothing else.
func (r *runner) raise() {
	n, top, d := r.p.Slots(), r.p.MaxLevel(), r.delta()
	if r.p.N() < 2*ir.EphemeralWeight {
		r.t.Skip("too small for an ephemeral secret")
	}
	step := float64(r.p.Q[0]) / d.Float64(r.p.Q)
	emb := ir.NewEmbedding(n)
	square, count := 0.0, 0
	for _, c := range []struct{ key, out int }{{top, top}, {top, 2}, {1, 1}} {
		x, z := r.encryptComplex(0)
		a := r.vector()
		for _, p := range []struct {
			o backend.Operand
			z []complex128
		}{{x, z}, {r.encrypt(a, 0), complexOf(a, nil)}} {
			o := r.do(plan.Step{Op: ir.OpHERaise}, asComplex(ct(c.out, d)), p.o, r.key(ir.KeySparse, 0), r.key(ir.KeyDense, c.key))
			got, err := r.c.DecryptComplex(o)
			if err != nil {
				r.t.Fatal(err)
			}
			diff := zip(got, p.z, sub)
			emb.ToCoefs(diff)
			for k, v := range diff {
				for _, v := range [2]float64{real(v), imag(v)} {
					i := math.Round(v / step)
					square, count = square+i*i, count+1
					if e := math.Abs(v - i*step); !(e <= Tolerance) {
						r.t.Fatalf("raised to level %d: coefficient %d gains %.9f, which is %g from a multiple of q_0 (%g allowed)", c.out, k, v, e, Tolerance)
					}
					if math.Abs(i) > (ir.EphemeralWeight+1)/2.0 {
						r.t.Fatalf("raised to level %d: coefficient %d gains %v times q_0", c.out, k, i)
					}
				}
			}
		}
	}
	want := (ir.EphemeralWeight + 1) / 12.0
	if v := square / float64(count) / want; !(v > 0.7 && v < 1.4) {
		r.t.Errorf("multiples of q_0 have %.2f times the variance of %.3g over %d coefficients", v, want, count)
	}
}

// goroutines runs the same steps from one and from several goroutines at once;
// the bytes of the results must be the same.
func (r *runner) goroutines() {
	l := r.p.MaxLevel()
	d := r.delta()
	x, y := r.encrypt(r.vector(), l), r.encrypt(r.vector(), l)
	relin, rot := r.key(0, l), r.key(1, l)
	type task struct {
		plan.Step
		t    ir.Type
		args []backend.Operand
	}
	tasks := []task{
		{plan.Step{Op: ir.OpHEMul}, ct(l, d.Mul(d)), []backend.Operand{x, y, relin}},
		{plan.Step{Op: ir.OpHEMulRescale, Twice: true, Const: 0.5}, ct(l-1, d.Mul(d).Div(ir.ScalePrime(l))), []backend.Operand{x, y, relin}},
		{plan.Step{Op: ir.OpHERotate, Rot: 1}, ct(l, d), []backend.Operand{x, rot}},
		{plan.Step{Op: ir.OpHEDecompose}, kind(ir.DigitsKind, l, ir.Scale{}), []backend.Operand{x}},
		{plan.Step{Op: ir.OpHERescale}, ct(l-1, d.Div(ir.ScalePrime(l))), []backend.Operand{x}},
	}
	if r.p.Ring == ir.RingStandard {
		tasks = append(tasks, task{plan.Step{Op: ir.OpHERealPart}, ct(l, d), []backend.Operand{x, r.key(ir.KeyConj, l)}})
		if r.p.N() >= 2*ir.EphemeralWeight {
			low := r.encrypt(r.vector(), 0)
			tasks = append(tasks, task{plan.Step{Op: ir.OpHERaise}, asComplex(ct(l, d)), []backend.Operand{low, r.key(ir.KeySparse, 0), r.key(ir.KeyDense, l)}})
		}
	}
	// Results have operands of their own, or where the engine can one by turns.
	program := func(again bool) ([]byte, error) {
		var out bytes.Buffer
		var o backend.Operand
		for _, s := range tasks {
			slabs := Slabs(r.e, s.t)
			e, ok := r.e.(backend.Rebinder)
			var err error
			if ok && again && o != nil {
				err = e.Rebind(o, s.t, slabs)
			} else {
				o, err = r.e.Bind(s.t, slabs)
			}
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
	want, err := program(false)
	if err != nil {
		r.t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			got, err := program(true)
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
	if r.p.Ring == ir.RingReal {
		dft := &ir.SlotData{Period: 4, DFT: &ir.Diagonal{To: 1, Factor: 1}}
		if err := r.e.Encode(dft, pt); err == nil {
			r.t.Error("encoded complex slots in a ring of real ones")
		}
		x, out := r.encrypt(r.vector(), l), ct(l, d)
		o, _ := r.bind(out)
		if err := r.e.Exec(&plan.Step{Op: ir.OpHEMulI}, []backend.Operand{x}, o); err == nil {
			r.t.Error("multiplied real slots by the imaginary unit")
		}
	}
	slabs := Slabs(r.e, ct(l, d))
	if _, err := r.e.Bind(ct(l, d), append(slabs, slabs[0])); err == nil {
		r.t.Error("bound one slab too many")
	}
	if e, ok := r.e.(backend.Rebinder); ok {
		o, _ := r.bind(ct(l, d))
		if err := e.Rebind(o, ct(l, d), slabs[1:]); err == nil {
			r.t.Error("bound one slab too few to an operand")
		}
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
