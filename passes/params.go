package passes

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/home-fhe/home/ir"
)

// entry is a row of the parameter catalogue. The catalogue is small so that
// plans of one client share keys. All entries hold real slots in the
// conjugate-invariant ring and reach 128 bits with a ternary secret.
type entry struct {
	name   string
	logN   int
	logQ0  int
	logS   int // size of the scale and of the primes that rescale by it
	levels int
	logP   []int
}

// catalogue goes from cheap to dear; the first entry that is deep and precise
// enough is taken. Sizes keep log2(QP) just below the bound for each N.
var catalogue = []entry{
	{"real-13-3", 13, 45, 36, 3, []int{50}},
	{"real-13-5", 13, 35, 28, 5, []int{37}},
	{"real-14-6", 14, 50, 40, 6, []int{60, 60}},
	{"real-14-9", 14, 43, 34, 9, []int{40, 40}},
	{"real-14-12", 14, 38, 29, 12, []int{40}},
	{"real-15-16", 15, 50, 40, 16, []int{57, 57, 57}},
	{"real-15-20", 15, 45, 34, 20, []int{47, 47, 47}},
	{"real-15-25", 15, 40, 28, 25, []int{42, 42, 42}},
	{"real-16-32", 16, 55, 42, 32, []int{57, 57, 57, 57, 57, 57}},
	{"real-16-40", 16, 50, 36, 40, []int{50, 50, 50, 50, 50}},
}

func (e *entry) params() (*ir.Params, error) {
	logQ := []int{e.logQ0}
	for range e.levels {
		logQ = append(logQ, e.logS)
	}
	return ir.NewParams(e.name, e.logN, ir.RingReal, ir.SecretTernary, logQ, e.logP, e.logS)
}

// made caches the primes of catalogue entries; finding them takes milliseconds.
var made = sync.OnceValues(func() ([]*ir.Params, error) {
	var all []*ir.Params
	for i := range catalogue {
		p, err := catalogue[i].params()
		if err != nil {
			return nil, err
		}
		if err := p.CheckSecurity(); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
})

// Catalogue returns the parameter sets the compiler chooses from, cheapest
// first.
func Catalogue() ([]*ir.Params, error) { return made() }

// ErrTooDeep marks a network that needs more levels than any chain has.
var ErrTooDeep = errors.New("network too deep for one modulus chain")

// parameters takes the next catalogue entry that is deep enough.
func parameters(u *unit) error {
	if p := u.opt.Params; p != nil {
		if u.attempt > 0 {
			return fmt.Errorf("parameters %q: %w", p.Name, u.lastMiss)
		}
		if err := p.Check(); err != nil {
			return err
		}
		if err := p.CheckSecurity(); err != nil {
			if !u.opt.AllowInsecure {
				return err
			}
			q := *p
			q.Insecure = true
			p = &q
		}
		if p.MaxLevel() < u.depth {
			return u.tooDeep(p.MaxLevel())
		}
		u.par = p
		return nil
	}
	all, err := Catalogue()
	if err != nil {
		return err
	}
	most := 0
	for i, p := range all {
		most = max(most, p.MaxLevel())
		if i >= u.next && p.MaxLevel() >= u.depth {
			u.par, u.next = p, i+1
			return nil
		}
	}
	if u.depth > most {
		return u.tooDeep(most)
	}
	return u.lastMiss
}

func (u *unit) tooDeep(have int) error {
	hint := "lower the accuracy with --accuracy-drop, or run it with --mode clear"
	return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: fmt.Errorf("%w: needs %d levels, the longest chain has %d (%s)", ErrTooDeep, u.depth, have, describeDepth(u.nodes)), Hint: hint}
}

// slotNoise returns the standard deviation, in a slot at scale 1, of the rounding
// error of a rescale: coefficients get a uniform error from both polynomials,
// the second one times the secret.
func slotNoise(p *ir.Params) float64 {
	n := float64(p.N())
	h := 2 * n / 3
	if p.Secret == ir.SecretH192 {
		h = 192
	}
	return math.Sqrt(n * (1 + h) / 12)
}
