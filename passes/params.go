package passes

import (
	"errors"
	"fmt"
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
//
// A digit of the gadget groups as many primes of Q as there are special primes,
// and P exceeds the largest digit by two bits, so that the noise of hoisted
// rotations stays below that of rescaling. Within that, more special primes mean
// fewer digits, smaller keys and faster key switches, and fewer bits for the
// scale.
var catalogue = []entry{
	{"real-13-3", 13, 44, 38, 3, []int{47}},
	{"real-13-5", 13, 33, 29, 5, []int{35}},
	{"real-14-7", 14, 38, 34, 7, repeatSize(36, 4)},
	{"real-14-9", 14, 36, 32, 9, repeatSize(34, 3)},
	{"real-14-10", 14, 36, 32, 10, repeatSize(36, 2)},
	{"real-14-11", 14, 33, 30, 11, repeatSize(33, 2)},
	{"real-14-12", 14, 31, 28, 12, repeatSize(31, 2)},
	{"real-15-16", 15, 41, 37, 16, repeatSize(38, 6)},
	{"real-15-18", 15, 39, 35, 18, repeatSize(37, 5)},
	{"real-15-20", 15, 37, 33, 20, repeatSize(34, 5)},
	{"real-15-22", 15, 35, 31, 22, repeatSize(33, 4)},
	{"real-15-25", 15, 32, 28, 25, repeatSize(30, 4)},
	{"real-16-32", 16, 47, 42, 32, repeatSize(43, 8)},
	{"real-16-40", 16, 40, 36, 40, repeatSize(37, 6)},
}

func repeatSize(bits, n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = bits
	}
	return s
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
			return u.imprecise()
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
	return u.imprecise()
}

// imprecise refuses a network for which no parameters were precise enough.
func (u *unit) imprecise() error {
	hint := "run it with --mode clear"
	if len(u.opt.Calibrate) == 0 {
		hint = "give --calibrate, so that ranges are tighter than their bounds, or " + hint
	}
	return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: errors.New(u.lastMiss.Error()), Hint: hint}
}

func (u *unit) tooDeep(have int) error {
	hint := "lower the accuracy with --accuracy-drop, or run it with --mode clear"
	return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: fmt.Errorf("%w: needs %d levels, the longest chain has %d (%s)", ErrTooDeep, u.depth, have, describeDepth(u.nodes)), Hint: hint}
}
