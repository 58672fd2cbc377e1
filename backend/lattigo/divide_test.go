package lattigo

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// TestDivideAtOnce holds divisions by P and a prime at once against large integers, and
// against the two steps that they stand for, with all kernels, at every level: quotients
// are rounded to nearest, and differ from quotients of rounded quotients by one at most.
// Products are held bit for bit against the division of what their definition says.
func TestDivideAtOnce(t *testing.T) {
	for _, special := range [][]int{{38}, {38, 40}, {61, 38, 40, 40, 38, 38}, {38, 40, 38, 40, 38, 40, 38, 40}} {
		for _, r := range []ir.Ring{ir.RingStandard, ir.RingReal} {
			p, err := ir.NewParams("divide", 7, r, ir.SecretTernary, []int{45, 38, 39, 52, 38, 38}, special, 30)
			if err != nil {
				t.Fatal(err)
			}
			for _, form := range kernels.Supported() {
				e := newEngine(must[*rings](t)(newRingsWith(p, form)), 2)
				for l := 1; l <= p.MaxLevel(); l++ {
					t.Run(fmt.Sprintf("%s/P%d/%s/L%d", r, len(special), form, l), func(t *testing.T) {
						d := &divideTest{t, e, rand.New(rand.NewPCG(5, uint64(l)))}
						d.quotients(l)
						d.products(l, 1)
						d.products(l, 1+l%ir.MostProducts)
					})
				}
			}
		}
	}
}

type divideTest struct {
	*testing.T
	e   *engine
	rng *rand.Rand
}

// object makes an object of random residues.
func (t *divideTest) object(k ir.Kind, level int, s ir.Scale) *operand {
	ty := ir.Type{Kind: k, Encrypted: true, Level: level, Scale: s}
	o := must[*operand](t)(t.e.bind(ty, conformance.Slabs(t.e, ty)))
	for i, row := range o.rows {
		copy(row, edgeRow(t.rng, t.e.n, t.e.mod(i%o.stride, level).Q))
	}
	return o
}

func (t *divideTest) do(s plan.Step, out *operand, in ...*operand) *operand {
	t.Helper()
	if err := t.e.exec(&s, in, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// modulus returns the product of the primes of limbs from..to-1 of QP_l.
func (t *divideTest) modulus(from, to, l int) *big.Int {
	prod := big.NewInt(1)
	for i := from; i < to; i++ {
		prod.Mul(prod, new(big.Int).SetUint64(t.e.mod(i, l).Q))
	}
	return prod
}

// quotients divides numbers modulo QP_l.
func (t *divideTest) quotients(l int) {
	e, limbs := t.e, l+1+len(t.e.p.P)
	all, by := t.modulus(0, limbs, l), t.modulus(l, limbs, l)
	half := new(big.Int).Rsh(by, 1)
	in := t.object(ir.CipherQPKind, l, ir.Scale{})
	values := [2][]*big.Int{}
	for k := range values {
		for range e.n {
			x := new(big.Int)
			for range limbs {
				x.Or(x.Lsh(x, 61), new(big.Int).SetUint64(t.rng.Uint64()>>3))
			}
			switch t.rng.IntN(4) {
			case 0: // a multiple of the divisor and about half of it
				x.Sub(x, new(big.Int).Mod(x, by)).Add(x, half).Add(x, big.NewInt(int64(t.rng.IntN(5))-2))
			case 1: // next to a multiple
				x.Sub(x, new(big.Int).Mod(x, by)).Add(x, big.NewInt(int64(t.rng.IntN(5))-2))
			}
			values[k] = append(values[k], x.Mod(x, all))
		}
		for i := range limbs {
			m := e.mod(i, l)
			for j, x := range values[k] {
				in.q(k, i)[j] = m.bigMod(x)
			}
			m.NTT(in.q(k, i), in.q(k, i))
		}
	}
	got := t.do(plan.Step{Op: ir.OpHEModDownRescale}, t.object(ir.CipherKind, l-1, ir.Scale{}), in)
	for k := range values {
		for i := range l {
			m, row := e.mods[i], slices.Clone(got.q(k, i))
			m.INTT(row, row)
			for j, x := range values[k] {
				near := new(big.Int).Add(x, half)
				down, rest := near.DivMod(near, by, new(big.Int))
				want := m.bigMod(down)
				// Next to halves the quotient from floating point may be off by one.
				far := new(big.Int).Sub(by, rest)
				switch edge := by.BitLen() - 44; {
				case row[j] == want:
				case rest.BitLen() < edge && row[j] == (want+m.Q-1)%m.Q:
				case far.BitLen() < edge && row[j] == (want+1)%m.Q:
				default:
					t.Fatalf("%v divided by %v is %d modulo %d, want %d", x, by, row[j], m.Q, want)
				}
			}
		}
	}
	steps := t.do(plan.Step{Op: ir.OpHERescale}, t.object(ir.CipherKind, l-1, ir.Scale{}),
		t.do(plan.Step{Op: ir.OpHEModDown}, t.object(ir.CipherKind, l, ir.Scale{}), in))
	t.close("moddown", got, steps)
}

// close fails where coefficients of two ciphertexts differ by more than one.
func (t *divideTest) close(what string, a, b *operand) {
	t.Helper()
	for k := range 2 {
		for i := range a.t.Level + 1 {
			m, z := t.e.mods[i], make([]uint64, t.e.n)
			m.Sub(z, a.q(k, i), b.q(k, i))
			m.INTT(z, z)
			for _, x := range z {
				if x > 1 && x != m.Q-1 {
					t.Fatalf("%s: modulo %d the step and the two that it stands for differ by %d", what, m.Q, x)
				}
			}
		}
	}
}

// products multiplies so many pairs of ciphertexts of random residues, with a key of random
// residues.
func (t *divideTest) products(l, terms int) {
	t.Helper()
	e, top := t.e, t.e.p.MaxLevel()
	s := ir.ScaleTwo(30)
	high := min(l+1, top)
	acc, key := t.object(ir.CipherKind, high, s.Mul(s)), t.object(ir.KeyKind, high, ir.Scale{})
	// P times the sum of products, the key switch added.
	d2, whole := t.object(ir.CipherKind, l, s), t.object(ir.CipherQPKind, l, s.Mul(s))
	var factors []*operand
	for n := range terms {
		a, b := t.object(ir.CipherKind, l, s), t.object(ir.CipherKind, high, s)
		factors = append(factors, a, b)
		for i := range l + 1 {
			m, z := e.mods[i], makeRows(3, e.n)
			m.Tensor(z[0], z[1], z[2], a.q(0, i), a.q(1, i), b.q(0, i), b.q(1, i))
			for k, row := range [][]uint64{whole.q(0, i), whole.q(1, i), d2.q(1, i)} {
				if n == 0 {
					clear(row)
				}
				m.Add(row, row, z[k])
			}
		}
	}
	digits := t.do(plan.Step{Op: ir.OpHEDecompose}, t.object(ir.DigitsKind, l, ir.Scale{}), d2)
	var x, y0, y1 [][]uint64
	z := [2][]uint64{make([]uint64, e.n), make([]uint64, e.n)}
	for i := range l + 1 + len(e.p.P) {
		x, y0, y1 = x[:0], y0[:0], y1[:0]
		for k := range e.p.Digits(l) {
			x, y0, y1 = append(x, digits.qp(k, i, l)), append(y0, key.qp(2*k, i, l)), append(y1, key.qp(2*k+1, i, l))
		}
		m := e.mod(i, l)
		m.Dot(z[0], z[1], x, y0, y1)
		for k := range 2 {
			if row := whole.q(k, i); i > l {
				copy(row, z[k])
			} else {
				m.MacConst(row, z[k], row, e.pModQ[i])
			}
		}
	}
	for _, c := range []plan.Step{
		{Op: ir.OpHEMulRescale}, {Op: ir.OpHEMulRescale, Twice: true}, {Op: ir.OpHEMulRescale, Const: -0.3}, {Op: ir.OpHEMulRescale, Const: 1e3, Twice: true},
		{Op: ir.OpHEMacRescale}, {Op: ir.OpHEMacRescale, Twice: true}, {Op: ir.OpHEMacRescale, Const: 0.7}, {Op: ir.OpHEMacRescale, Const: -0.7, Twice: true},
	} {
		what := fmt.Sprintf("%s, twice %v, constant %v", c.Op, c.Twice, c.Const)
		in := append(slices.Clone(factors), key)
		if c.Op == ir.OpHEMacRescale {
			in = append([]*operand{acc}, in...)
		}
		out := s.Mul(s).Div(ir.ScalePrime(l))
		got := t.do(c, t.object(ir.CipherKind, l-1, out), in...)

		defined := t.object(ir.CipherQPKind, l, s.Mul(s))
		for i, row := range whole.rows {
			copy(defined.rows[i], row)
		}
		product := t.do(plan.Step{Op: ir.OpHEMul}, t.object(ir.CipherKind, l, s.Mul(s)), factors[0], factors[1], key)
		if c.Twice {
			t.do(plan.Step{Op: ir.OpHEAdd}, product, product, product)
			t.do(plan.Step{Op: ir.OpHEAddQP}, defined, defined, defined)
		}
		if c.Op == ir.OpHEMacRescale {
			t.do(plan.Step{Op: ir.OpHEAdd}, product, product, acc)
			t.do(plan.Step{Op: ir.OpHEAddQP}, defined, defined, t.do(plan.Step{Op: ir.OpHELift}, t.object(ir.CipherQPKind, l, s), acc))
		}
		t.do(plan.Step{Op: ir.OpHEAddConst, Const: c.Const}, product, product)
		v := must[integer](t)(e.constant(c.Const, s.Mul(s)))
		for i := range l + 1 {
			m := e.mods[i]
			m.AddConst(defined.q(0, i), defined.q(0, i), m.Times(v.mod(m), e.pModQ[i]))
		}
		want := t.do(plan.Step{Op: ir.OpHEModDownRescale}, t.object(ir.CipherKind, l-1, out), defined)
		if !slices.EqualFunc(got.rows, want.rows, slices.Equal[[]uint64]) {
			t.Fatalf("%s: not the quotient of its definition", what)
		}
		if terms > 1 { // one key switch is no sum of several
			continue
		}
		t.close(what, got, t.do(plan.Step{Op: ir.OpHERescale}, t.object(ir.CipherKind, l-1, out), product))
	}
}
