package passes

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/home-fhe/home/backend"
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

// params makes parameters of the rows of a catalogue and holds each against what
// it has to keep.
func params[E any](rows []E, row func(*E) *entry, ring ir.Ring, secret ir.Secret, checks ...func(*ir.Params) error) ([]*ir.Params, error) {
	var all []*ir.Params
	for i := range rows {
		e := row(&rows[i])
		logQ := append([]int{e.logQ0}, repeatSize(e.logS, e.levels)...)
		p, err := ir.NewParams(e.name, e.logN, ring, secret, logQ, e.logP, e.logS)
		if err != nil {
			return nil, err
		}
		for _, check := range checks {
			if err := check(p); err != nil {
				return nil, err
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// made caches the primes of catalogue entries; finding them takes milliseconds.
var made = sync.OnceValues(func() ([]*ir.Params, error) {
	return params(catalogue, func(e *entry) *entry { return e }, ir.RingReal, ir.SecretTernary, (*ir.Params).CheckSecurity)
})

// Catalogue returns the parameter sets the compiler chooses from, cheapest
// first.
func Catalogue() ([]*ir.Params, error) { return made() }

// BootCatalogue returns the parameters that bootstrap, from many levels to much
// precision.
func BootCatalogue() ([]*ir.Params, error) { return bootMade() }

// bootMade caches the primes of bootEntries.
var bootMade = sync.OnceValues(func() ([]*ir.Params, error) {
	return params(bootEntries, func(e *bootEntry) *entry { return &e.entry }, ir.RingStandard, ir.SecretH192, (*ir.Params).CheckSecurity, (*ir.Params).CheckBootstrap)
})

// ErrTooDeep marks a network that needs more levels than any chain has.
var ErrTooDeep = errors.New("network too deep for one modulus chain")

// parameters takes the next catalogue entry that is deep enough, or the one on
// which the network is refreshed at the least cost where none is, or that is
// cheaper.
func parameters(u *unit) error {
	u.placer, u.placed = nil, nil
	if p := u.opt.Params; p != nil {
		if u.attempt > 0 {
			return u.imprecise()
		}
		return u.given(p)
	}
	all, err := Catalogue()
	if err != nil {
		return err
	}
	fits := slices.IndexFunc(all[min(u.next, len(all)):], func(p *ir.Params) bool { return p.MaxLevel() >= u.straight })
	straight := func() error {
		u.placer, u.placed = nil, nil
		u.next += fits + 1
		u.par = all[u.next-1]
		return nil
	}
	// In a smaller ring nothing is cheaper; nor with a ciphertext for every element.
	if fits >= 0 && (all[u.next+fits].LogN < bootEntries[0].logN || u.opt.Throughput) {
		return straight()
	}
	from := max(0, u.next-len(all))
	tries, err := bootPlacers(u.fused, u.opt.profile(), from)
	if err != nil {
		return err
	}
	if len(tries) == 0 {
		return u.imprecise()
	}
	best, err := u.place(tries)
	if fits >= 0 {
		par := all[u.next+fits]
		alone, ok := newPlacer(u.fused, par, u.opt.profile(), nil).solve(mostStates)
		runs := float64((u.opt.Batch + par.Slots() - 1) / par.Slots())
		if err != nil || ok && alone.seconds <= near*u.placed.seconds ||
			u.opt.Batch > 1 && runs*laneState(u.fused, par, u.opt.profile()).cost <= float64(u.opt.Batch)*u.placed.seconds {
			return straight()
		}
	}
	if err != nil && u.lastMiss != nil { // parameters left have fewer levels
		return u.imprecise()
	}
	u.next = len(all) + from + best + 1
	return err
}

// bootPlacers returns a placer for each of bootEntries from some index on.
func bootPlacers(nodes []*fusedNode, prof *backend.Profile, from int) ([]*networkPlacer, error) {
	par, err := bootMade()
	if err != nil {
		return nil, err
	}
	var out []*networkPlacer
	for i := from; i < len(par); i++ {
		out = append(out, newPlacer(nodes, par[i], prof, &bootEntries[i].boot))
	}
	return out, nil
}

// given takes parameters that the user chose, and bootstraps where they have too
// few levels for the network but enough for that.
func (u *unit) given(p *ir.Params) error {
	if err := p.Check(); err != nil {
		return err
	}
	stamp := func(err error) error {
		if err != nil && u.opt.AllowInsecure {
			q := *p
			q.Insecure = true
			p, err = &q, nil
		}
		return err
	}
	if err := stamp(p.CheckSecurity()); err != nil {
		return err
	}
	u.par = p
	if p.MaxLevel() >= u.straight {
		return nil
	}
	if p.Ring != ir.RingStandard {
		return u.tooDeep(p)
	}
	if err := stamp(p.CheckBootstrap()); err != nil {
		return err
	}
	u.par = p
	_, err := u.place(givenPlacers(u.fused, p, u.opt.profile()))
	return err
}

// givenPlacers returns a placer for each circuit of the catalogue, under
// parameters that the user gave.
func givenPlacers(nodes []*fusedNode, par *ir.Params, prof *backend.Profile) []*networkPlacer {
	var out []*networkPlacer
	for i := range bootEntries {
		b := &bootEntries[i].boot
		if !slices.ContainsFunc(out, func(p *networkPlacer) bool { return *p.boot == *b }) {
			out = append(out, newPlacer(nodes, par, prof, b))
		}
	}
	return out
}

// near is how much more seconds may be predicted where that takes fewer
// bootstraps, or none, or is more precise: predictions are no better.
const near = 1.03

// place takes the cheapest placement of refreshes under several parameters, the
// more precise last, and returns the index of those.
func (u *unit) place(tries []*networkPlacer) (int, error) {
	found := make([]*placed, len(tries))
	if err := backend.Each(len(tries), func(i int) error {
		found[i], _ = tries[i].solve(mostStates)
		return nil
	}); err != nil {
		return 0, err
	}
	least := math.Inf(1)
	for _, f := range found {
		if f != nil {
			least = min(least, f.seconds)
		}
	}
	best := -1
	for i, f := range found {
		if f != nil && f.seconds <= near*least && (best < 0 || tries[i].bootstraps(f) <= tries[best].bootstraps(found[best])) {
			best = i
		}
	}
	if best < 0 {
		return 0, u.unplaceable(tries)
	}
	u.placer, u.placed = tries[best], found[best]
	u.par = u.placer.par
	return best, nil
}

// unplaceable names the step that no refresh helps: the deepest.
func (u *unit) unplaceable(tries []*networkPlacer) error {
	p := slices.MaxFunc(tries, func(a, b *networkPlacer) int { return a.most - a.in - (b.most - b.in) })
	if p.most <= p.in {
		return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: fmt.Errorf("%w: needs %d levels, parameters %q have %d and bootstrapping takes %d of them", ErrTooDeep, u.straight, p.par.Name, p.top, p.top-p.most+p.in), Hint: fmt.Sprintf("give parameters of at least %d levels", p.top-p.most+p.in+1)}
	}
	d := slices.Max(p.depth)
	n := u.fused[slices.Index(p.depth, d)]
	hint := "run it with --mode clear"
	if n.kind == fusedPoly {
		hint = "allow a polynomial of lower degree with --accuracy-drop, or " + hint
	}
	return &ir.NodeError{Node: n.name, Op: n.kind.String(), Err: fmt.Errorf("%w: this step alone takes %d levels; with %q, bootstrapping leaves %d, %d of which the next one takes", ErrTooDeep, d, p.par.Name, p.most, p.in), Hint: hint}
}

// ErrPrecision marks a network whose noise is too large under all parameters.
var ErrPrecision = errors.New("parameters are not precise enough")

// imprecise refuses a network for which no parameters were precise enough.
func (u *unit) imprecise() error {
	hint := "run it with --mode clear"
	if len(u.opt.Calibrate) == 0 {
		hint = "give --calibrate, so that ranges are tighter than their bounds, or " + hint
	}
	return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: fmt.Errorf("%w%s", ErrPrecision, strings.TrimPrefix(u.lastMiss.Error(), errImprecise.Error())), Hint: hint}
}

// tooDeep refuses a network under parameters that cannot bootstrap.
func (u *unit) tooDeep(p *ir.Params) error {
	where := ""
	if d := describeDepth(u.fused); d != "" {
		where = " (" + d + ")"
	}
	return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: fmt.Errorf("%w: needs %d levels%s, %q has %d, and bootstrapping needs the standard ring", ErrTooDeep, u.straight, where, p.Name, p.MaxLevel()), Hint: "leave the choice of parameters to the compiler, allow polynomials of lower degree with --accuracy-drop, or run it with --mode clear"}
}
