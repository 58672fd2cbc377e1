package lattigo

import (
	"errors"
	"fmt"
	"math"
	"math/big"

	"github.com/home-fhe/home/ir"
)

// encoder maps slot values to polynomial coefficients and back by the canonical
// embedding (ir.Embedding). The standard ring has n = N/2 points, whose complex
// coefficients are two real ones each; the conjugate-invariant ring has n = N
// points and real coefficients. (Cheon et al., ASIACRYPT 2017; Kim and Song, ICISC
// 2018.)
type encoder struct {
	*ir.Embedding
	n    int
	real bool // conjugate-invariant
}

func newEncoder(p *ir.Params) *encoder {
	return &encoder{ir.NewEmbedding(p.Slots()), p.Slots(), p.Ring == ir.RingReal}
}

// coefs computes the real coefficients of values*scale into c, N long, using
// work, n long. It returns the largest magnitude, which is not finite if any is not.
func (e *encoder) coefs(values *ir.SlotData, scale float64, work []complex128, c []float64) (float64, error) {
	if err := values.Check(); err != nil {
		return 0, err
	}
	if values.Period > e.n {
		return 0, fmt.Errorf("slot values with period %d do not fit %d slots", values.Period, e.n)
	}
	if e.real && values.Complex() {
		return 0, errors.New("complex slot values need the standard ring")
	}
	// Values of a period n/k make a polynomial in X^k: a transform of n/k points
	// gives its coefficients.
	work = work[:values.Period]
	values.Fill(work)
	work = work[:values.Repeats()]
	for i, z := range work {
		if s := real(z) + imag(z); s-s != 0 { // infinite or not a number
			return 0, fmt.Errorf("slot %d: %v cannot be encoded", i, s)
		}
	}
	e.ToCoefs(work)
	gap := e.n / len(work)
	if gap > 1 {
		clear(c)
	}
	big := 0.0
	put := func(i int, x float64) {
		c[i] = x
		if x = math.Abs(x); !(x <= big) && big-big == 0 {
			big = x
		}
	}
	for i, z := range work {
		put(i*gap, real(z)*scale)
	}
	if !e.real {
		for i, z := range work {
			put(e.n+i*gap, imag(z)*scale)
		}
	}
	return big, nil
}

// slots turns real coefficients, already divided by the scale, into slot values,
// real parts only, using work, n long, where whole slots are left.
func (e *encoder) slots(c []float64, work []complex128) []float64 {
	if e.real {
		// The other half of the coefficients is c[2n-k] = -c[k]; as complex
		// numbers the upper half is the imaginary part.
		work[0] = complex(c[0], 0)
		for i := 1; i < e.n; i++ {
			work[i] = complex(c[i], -c[e.n-i])
		}
	} else {
		for i := range work {
			work[i] = complex(c[i], c[e.n+i])
		}
	}
	e.ToSlots(work)
	out := make([]float64, e.n)
	for i, z := range work {
		out[i] = real(z)
	}
	return out
}

// residue rounds x to an integer and reduces it modulo m.
func (m *modulus) residue(x float64) uint64 {
	neg := x < 0
	if neg {
		x = -x
	}
	var r uint64
	if x < 1<<53 {
		r = m.Reduce(uint64(int64(x + 0.5)))
	} else {
		f, exp := math.Frexp(x) // x = f*2^exp, f in [0.5, 1)
		r = m.Reduce(uint64(int64(f * (1 << 53))))
		r = m.Times(r, m.Pow(2, uint64(exp-53)))
	}
	if neg && r != 0 {
		r = m.Q - r
	}
	return r
}

// Coefficients below fixedMax in magnitude are rounded once, to two's complement
// of 51 bits, and reduced from there.
const (
	fixedMod = 1 << 51
	fixedMax = fixedMod/2 - 1
)

// fixed rounds coefficients, half away from zero, to x modulo fixedMod.
func fixed(x []uint64, c []float64) {
	x = x[:len(c)]
	for i, v := range c {
		x[i] = uint64(int64(v+math.Copysign(0.5, v))) & (fixedMod - 1)
	}
}

// residues writes the rounded coefficients modulo m.
func (m *modulus) residues(z []uint64, c []float64) {
	q := m.Q
	for i, x := range c {
		if x < 1<<52 && x > -(1<<52) {
			// int64 truncates towards zero, and so this rounds half away from it.
			v := int64(x + math.Copysign(0.5, x))
			s := v >> 63 // all ones if negative
			r := m.Reduce(uint64((v ^ s) - s))
			if s != 0 && r != 0 {
				r = q - r
			}
			z[i] = r
			continue
		}
		z[i] = m.residue(x)
	}
}

// centred reconstructs the coefficients, given modulo the moduli, as their
// representatives nearest zero, times 1/scale.
func centred(mods []*modulus, rows [][]uint64, scale *big.Float, c []float64) {
	n := len(c)
	if len(mods) == 1 {
		s, _ := scale.Float64()
		for i := range c {
			x := rows[0][i]
			if x > mods[0].Q>>1 {
				c[i] = -float64(mods[0].Q-x) / s
			} else {
				c[i] = float64(x) / s
			}
		}
		return
	}
	prod := big.NewInt(1)
	for _, m := range mods {
		prod.Mul(prod, new(big.Int).SetUint64(m.Q))
	}
	half := new(big.Int).Rsh(prod, 1)
	parts := make([]*big.Int, len(mods))
	inv := make([]uint64, len(mods))
	for j, m := range mods {
		parts[j] = new(big.Int).Quo(prod, new(big.Int).SetUint64(m.Q))
		inv[j] = m.Invert(m.bigMod(parts[j]))
	}
	sum, t := new(big.Int), new(big.Int)
	f := new(big.Float).SetPrec(128)
	for i := 0; i < n; i++ {
		sum.SetUint64(0)
		for j, m := range mods {
			t.SetUint64(m.Times(rows[j][i], inv[j]))
			sum.Add(sum, t.Mul(t, parts[j]))
		}
		sum.Mod(sum, prod)
		if sum.Cmp(half) > 0 {
			sum.Sub(sum, prod)
		}
		f.SetInt(sum)
		c[i], _ = f.Quo(f, scale).Float64()
	}
}
