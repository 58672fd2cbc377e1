// Package sim is the simulated backend: the clear engine plus the noise that
// CKKS would add at each step, the rounding of constants and plaintexts to
// their scales, and a check that nothing outgrows its modulus. It predicts what
// an encrypted run returns without paying for one.
package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Sigma is the standard deviation of the error of fresh RLWE samples.
const Sigma = 3.2

// ErrOverflow marks a value that outgrew the modulus of its level: the encrypted
// run would return nonsense.
var ErrOverflow = errors.New("value outgrows the modulus")

// Engine simulates encrypted execution.
type Engine struct {
	backend.Engine // the clear engine, which holds the slots
	par            *ir.Params
	prof           *backend.Profile
	seed           uint64
	noise          float64              // slot standard deviation of rounding both polynomials of a ciphertext
	fresh          float64              // of the error of a fresh ciphertext
	round          float64              // of rounding a plaintext
	gadget         []float64            // of a key switch by level, divided by P
	raise          []float64            // of raising the modulus by level
	logQ           []float64            // log2 of the modulus by level
	table          []float64            // standard normal samples
	embedding      func() *ir.Embedding // of as many points as there are slots
	nanos          atomic.Int64
}

// New returns a simulated engine. Equal seeds and inputs give equal noise.
//
// The noise model works in the canonical embedding. A polynomial whose
// coefficients have variance v has slots of variance v*d, where d is 2N in the
// conjugate-invariant ring and N/2 in the standard ring (real parts); products
// of polynomials are products of slots. Rounding to integers has variance 1/12,
// a uniform ternary secret 2/3 per coefficient. (Costache et al., "On the
// precision loss in approximate homomorphic encryption", SAC 2023.) Imaginary
// parts have the same noise as real ones. It is followed where the type is
// complex; in a real value, bootstrapping drops it with the real part it ends with.
func New(p *ir.Params, prof *backend.Profile, seed uint64) (*Engine, error) {
	c, err := clear.NewEngine(p)
	if err != nil {
		return nil, err
	}
	n := float64(p.N())
	secret := 2.0 / 3
	if p.Secret == ir.SecretH192 {
		secret = 192 / n
	}
	// emb is the slot variance per unit coefficient variance; a product of two
	// polynomials has complex slots in the standard ring, of which half the
	// variance is real.
	emb, prod := 2*n, 4*n*n
	if p.Ring == ir.RingStandard {
		emb, prod = n/2, n*n/2
	}
	e := &Engine{Engine: c, par: p, prof: prof, seed: seed,
		noise:     math.Sqrt(emb/12 + prod*secret/12),
		fresh:     Sigma * math.Sqrt(emb),
		round:     math.Sqrt(emb / 12),
		table:     gaussians(seed),
		embedding: sync.OnceValue(func() *ir.Embedding { return ir.NewEmbedding(p.Slots()) }),
	}
	logP := 0.0
	for _, q := range p.P {
		logP += math.Log2(float64(q))
	}
	sum := 0.0
	for l, q := range p.Q {
		sum += math.Log2(float64(q))
		e.logQ = append(e.logQ, sum)
		v := 0.0
		for d := 0; d <= l; d += len(p.P) {
			b := 0.0
			for i := d; i <= l && i < d+len(p.P); i++ {
				b += math.Log2(float64(p.Q[i]))
			}
			v += math.Exp2(2*(b-logP)) / 12 * Sigma * Sigma * prod
		}
		e.gadget = append(e.gadget, math.Sqrt(v))
		// Raising switches modulo q_0*p_0 to the ephemeral secret and modulo QP back,
		// where all digits are a polynomial below q_0/2; it rounds after both.
		q0 := math.Log2(float64(p.Q[0]))
		v = math.Exp2(2*(q0-math.Log2(float64(p.P[0])))) + float64(p.Digits(l))*math.Exp2(2*(q0-logP))
		v = v/12*Sigma*Sigma*prod + emb/12 + prod*ir.EphemeralWeight/n/12
		e.raise = append(e.raise, math.Hypot(e.noise, math.Sqrt(v)))
	}
	return e, nil
}

// NewLane returns an engine that simulates only the first few slots of each
// ciphertext, with the noise of the full ring. It runs plans that never rotate
// (batch-axis packing), where slots do not meet.
func NewLane(p *ir.Params, prof *backend.Profile, seed uint64) (*Engine, error) {
	e, err := New(p, prof, seed)
	if err != nil {
		return nil, err
	}
	few := *p
	few.LogN = 4
	e.Engine, err = clear.NewEngine(&few)
	return e, err
}

// Name returns "simulate".
func (e *Engine) Name() string { return "simulate" }

// Seconds returns the predicted CPU time, on one core, of the steps executed so
// far.
func (e *Engine) Seconds() float64 { return float64(e.nanos.Load()) * 1e-9 }

// Encrypt writes slot values with the noise of a fresh ciphertext into out.
func (e *Engine) Encrypt(values []float64, out backend.Operand) error {
	z, ok := clear.Slots(out)
	if !ok {
		return errors.New("operand cannot hold slots")
	}
	copy(z, values)
	e.add(out, math.Hypot(e.fresh, e.round), e.key(0, values))
	return e.fits(out)
}

// Encode rounds the values the way a plaintext does.
func (e *Engine) Encode(values *ir.SlotData, out backend.Operand) error {
	if err := e.Engine.Encode(values, out); err != nil {
		return err
	}
	var head []float64
	for _, v := range values.Entries() {
		if head = append(head, v); len(head) == keyed {
			break
		}
	}
	key := e.key(1, head)
	if d := values.DFT; d != nil {
		side := 0.0
		if d.Inverse {
			side = 1
		}
		key = e.key(3, []float64{float64(values.Period), side, float64(d.From), float64(d.To), float64(d.Offset), float64(d.Shift), d.Factor})
	}
	e.add(out, e.round, key)
	return nil
}

// Exec performs one step and adds its noise.
func (e *Engine) Exec(s *plan.Step, args []backend.Operand, out backend.Operand) error {
	t := out.Type()
	level := t.Level + s.Op.Drops()
	switch s.Op {
	case ir.OpHEMulConst, ir.OpHEMacConst:
		r := *s
		f := s.Scale.Float64(e.par.Q)
		r.Const = math.Round(s.Const*f) / f
		s = &r
	case ir.OpHEAddConst, ir.OpHEMulRescale, ir.OpHEMacRescale:
		r := *s
		f := t.Scale.Float64(e.par.Q) * e.dropped(s.Op, t.Level)
		r.Const = math.Round(s.Const*f) / f
		s = &r
	}
	if err := e.Engine.Exec(s, args, out); err != nil {
		return err
	}
	e.nanos.Add(int64(1e9 * e.prof.StepSeconds(e.par, s.Op, level, len(args), false)))
	var std float64
	switch s.Op {
	case ir.OpHERescale, ir.OpHEModDown, ir.OpHEModDownRescale:
		std = e.noise
	case ir.OpHEMulRescale, ir.OpHEMacRescale:
		// The error of the key switch is divided with the product.
		gadget := e.gadget[level] / e.dropped(s.Op, t.Level)
		if s.Twice {
			gadget *= 2
		}
		std = math.Hypot(e.noise, gadget)
	case ir.OpHERotate, ir.OpHEMul, ir.OpHERealPart:
		std = math.Hypot(e.noise, e.gadget[t.Level])
	case ir.OpHEHoistRot:
		std = e.gadget[t.Level]
	case ir.OpHEGiant:
		// Only c1 is rounded before the key switch.
		std = math.Hypot(e.noise, e.gadget[t.Level])
	case ir.OpHERaise:
		std = e.raise[t.Level]
	default:
		return nil
	}
	z, ok := clear.Slots(out)
	if !ok {
		return nil
	}
	e.add(out, std, e.key(uint64(s.Out)<<16^uint64(s.Op)<<8^uint64(s.Rot)^2, z[:min(len(z), 8)]))
	// Sums may wrap around as long as what they add up to does not, so they are
	// judged by the rescale that ends them.
	if s.Op.Drops() > 0 || s.Op == ir.OpHEMul {
		return e.fits(out)
	}
	return nil
}

// dropped returns the product of the primes that a step divides by, whose result has
// the given level.
func (e *Engine) dropped(op ir.Op, level int) float64 {
	f := 1.0
	for range op.Drops() {
		level++
		f *= float64(e.par.Q[level])
	}
	return f
}

// fits reports an error if a slot times its scale exceeds half the modulus. The
// slots of a complex value are the values of a polynomial whose coefficients are
// what counts, and may well exceed it while the coefficients do not.
func (e *Engine) fits(o backend.Operand) error {
	t := o.Type()
	limit := math.Exp2(e.logQ[t.Level] - 1 - math.Log2(t.Scale.Float64(e.par.Q)))
	re, _ := clear.Slots(o)
	im, _ := clear.Imaginary(o)
	what, m := "slot", max(largest(re), largest(im))
	if im != nil && m >= limit {
		z := make([]complex128, len(re))
		for i := range z {
			z[i] = complex(re[i], im[i])
		}
		e.embedding().ToCoefs(z)
		what, m = "coefficient", 0
		for _, c := range z {
			m = max(m, math.Abs(real(c)), math.Abs(imag(c)))
		}
	}
	if !(m < limit) {
		return fmt.Errorf("%w: %.4g in a %s at level %d, where %.4g fits", ErrOverflow, m, what, t.Level, limit)
	}
	return nil
}

// largest returns the largest magnitude, NaN if there is one.
func largest(z []float64) float64 {
	m := 0.0
	for _, x := range z {
		if a := math.Abs(x); !(a <= m) {
			if m = a; m != m {
				break
			}
		}
	}
	return m
}

// keyed is how many numbers of a vector decide on its noise.
const keyed = 64

// key derives the seed of one noise vector from what it is added to, so that
// noise does not depend on the order of execution.
func (e *Engine) key(salt uint64, z []float64) uint64 {
	h := e.seed ^ 0x9e3779b97f4a7c15 ^ salt*0xbf58476d1ce4e5b9
	for _, x := range z[:min(len(z), keyed)] {
		h ^= math.Float64bits(x)
		h *= 0x94d049bb133111eb
		h ^= h >> 29
	}
	return h
}

// normals is the size of the table that noise is read from: longer than a
// vector of slots, so that no vector holds the same sample twice.
const normals = 1 << 17

// add adds Gaussian noise of standard deviation std, in units of the last place
// of the scale, to both parts: consecutive samples of the table, from places and
// with signs that key decides.
func (e *Engine) add(o backend.Operand, std float64, key uint64) {
	std /= o.Type().Scale.Float64(e.par.Q)
	r := rand.NewPCG(key, e.seed)
	part := func(z []float64) {
		at, std := r.Uint64()%normals, std
		if r.Uint64()&1 == 1 {
			std = -std
		}
		for len(z) > 0 {
			t := e.table[at:]
			n := min(len(t), len(z))
			for i, x := range t[:n] {
				z[i] += std * x
			}
			z, at = z[n:], 0
		}
	}
	re, _ := clear.Slots(o)
	part(re)
	if im, ok := clear.Imaginary(o); ok {
		part(im)
	}
}

// gaussians makes the table of standard normal samples.
func gaussians(seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, normals))
	t := make([]float64, normals)
	for i := range t {
		t[i] = r.NormFloat64()
	}
	return t
}
