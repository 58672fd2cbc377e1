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
	noise          float64   // slot standard deviation of rounding both polynomials of a ciphertext
	fresh          float64   // of the error of a fresh ciphertext
	round          float64   // of rounding a plaintext
	gadget         []float64 // of a key switch by level, divided by P
	logQ           []float64 // log2 of the modulus by level
	table          []float64 // standard normal samples
	nanos          atomic.Int64
}

// New returns a simulated engine. Equal seeds and inputs give equal noise.
//
// The noise model works in the canonical embedding. A polynomial whose
// coefficients have variance v has slots of variance v*d, where d is 2N in the
// conjugate-invariant ring and N/2 in the standard ring (real parts); products
// of polynomials are products of slots. Rounding to integers has variance 1/12,
// a uniform ternary secret 2/3 per coefficient. (Costache et al., "On the
// precision loss in approximate homomorphic encryption", SAC 2023.)
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
		noise: math.Sqrt(emb/12 + prod*secret/12),
		fresh: Sigma * math.Sqrt(emb),
		round: math.Sqrt(emb / 12),
		table: gaussians(seed),
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
	s := out.Type().Scale.Float64(e.par.Q)
	e.add(z, math.Hypot(e.fresh, e.round)/s, e.key(0, values))
	return e.fits(z, out.Type())
}

// Encode rounds the values the way a plaintext does.
func (e *Engine) Encode(values *ir.SlotData, out backend.Operand) error {
	if err := e.Engine.Encode(values, out); err != nil {
		return err
	}
	z, _ := clear.Slots(out)
	e.add(z, e.round/out.Type().Scale.Float64(e.par.Q), e.key(1, values.Value))
	return nil
}

// Exec performs one step and adds its noise.
func (e *Engine) Exec(s *plan.Step, args []backend.Operand, out backend.Operand) error {
	t := out.Type()
	level := t.Level
	if s.Op == ir.OpHERescale {
		level++
	}
	switch s.Op {
	case ir.OpHEMulConst, ir.OpHEMacConst:
		r := *s
		f := s.Scale.Float64(e.par.Q)
		r.Const = math.Round(s.Const*f) / f
		s = &r
	case ir.OpHEAddConst:
		r := *s
		f := t.Scale.Float64(e.par.Q)
		r.Const = math.Round(s.Const*f) / f
		s = &r
	}
	if err := e.Engine.Exec(s, args, out); err != nil {
		return err
	}
	e.nanos.Add(int64(1e9 * e.prof.Seconds(e.par, s.Op, level)))
	var std float64
	switch s.Op {
	case ir.OpHERescale, ir.OpHEModDown:
		std = e.noise
	case ir.OpHERotate, ir.OpHEMul:
		std = math.Hypot(e.noise, e.gadget[t.Level])
	case ir.OpHEHoistRot:
		std = e.gadget[t.Level]
	case ir.OpHEGiant:
		// Only c1 is rounded before the key switch.
		std = math.Hypot(e.noise, e.gadget[t.Level])
	default:
		return nil
	}
	z, ok := clear.Slots(out)
	if !ok {
		return nil
	}
	e.add(z, std/t.Scale.Float64(e.par.Q), e.key(uint64(s.Out)<<16^uint64(s.Op)<<8^uint64(s.Rot)^2, z[:min(len(z), 8)]))
	// Sums may wrap around as long as what they add up to does not, so they are
	// judged by the rescale that ends them.
	if s.Op == ir.OpHERescale || s.Op == ir.OpHEMul {
		return e.fits(z, t)
	}
	return nil
}

// fits reports an error if a slot times its scale exceeds half the modulus.
func (e *Engine) fits(z []float64, t ir.Type) error {
	m := 0.0
	for _, x := range z {
		if a := math.Abs(x); a > m || math.IsNaN(a) {
			m = a
		}
	}
	limit := e.logQ[t.Level] - 1 - math.Log2(t.Scale.Float64(e.par.Q))
	if !(math.Log2(m) < limit) && m != 0 {
		return fmt.Errorf("%w: %.4g in a slot at level %d, where %.4g fits", ErrOverflow, m, t.Level, math.Exp2(limit))
	}
	return nil
}

// key derives the seed of one noise vector from what it is added to, so that
// noise does not depend on the order of execution.
func (e *Engine) key(salt uint64, z []float64) uint64 {
	h := e.seed ^ 0x9e3779b97f4a7c15 ^ salt*0xbf58476d1ce4e5b9
	for _, x := range z[:min(len(z), 64)] {
		h ^= math.Float64bits(x)
		h *= 0x94d049bb133111eb
		h ^= h >> 29
	}
	return h
}

// normals is the size of the table that noise is read from: longer than a
// vector of slots, so that no vector holds the same sample twice.
const normals = 1 << 17

// add adds Gaussian noise: consecutive samples of the table, from a place and
// with a sign that key decides.
func (e *Engine) add(z []float64, std float64, key uint64) {
	r := rand.NewPCG(key, e.seed)
	at, sign := r.Uint64()%normals, r.Uint64()
	if sign&1 == 1 {
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

// gaussians makes the table of standard normal samples.
func gaussians(seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, normals))
	t := make([]float64, normals)
	for i := range t {
		t[i] = r.NormFloat64()
	}
	return t
}
