package passes

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// BudgetError says that a plan cannot run within a budget, and which one would
// do.
type BudgetError = plan.BudgetError

// TierOptions are the budget and the costs that Tiering plans with.
type TierOptions struct {
	// DRAM bounds the whole process in bytes; 0 means no bound.
	DRAM int64
	// Reserve is the part of DRAM that the runtime needs for itself; 0 means
	// TierReserve for one thread.
	Reserve int64
	// Profile is the digest of the cost profile, recorded in the result.
	Profile string
	// Machine is what the plan is made for. Without MakeSeconds nothing is made:
	// the slow tier holds everything as it is.
	Machine
}

// tierReserveMost is the most DRAM that is kept from objects.
const tierReserveMost = 512 << 20

// TierReserve returns the bytes of a budget that are left to the runtime
// itself: 64 MiB for code, stacks, plan and ciphertexts in transit; the tables
// of the transforms, 10 limbs for every prime; the scratch of one step per
// thread, 6 limbs for every prime and a few more; and a quarter of these two
// for the collector to work in. Measured on the LeNet plan at N = 2^15 with 26
// primes and one thread, where it gives 180 MiB: tables of 50 MB, scratch of 41
// MB, 111 MB of live Go heap in all.
func TierReserve(p *ir.Params, threads int) int64 {
	primes := len(p.Q) + len(p.P)
	limbs := int64(10*primes + max(threads, 1)*(6*primes+8))
	return min(tierReserveMost, 64<<20+limbs*int64(p.SlabBytes())*5/4)
}

// TierLeast returns the smallest budget in bytes with which the plan can run,
// given the reserve: what the neediest step touches at once, or all outputs. Where
// the slow tier holds plaintexts as coefficients, as the plan's tier plan says, there
// must be room for these too.
func TierLeast(p *plan.Plan, reserve int64) int64 { return tierLeast(p, p.Forms(), reserve) }

func tierLeast(p *plan.Plan, f plan.Forms, reserve int64) int64 {
	return reserve + newTierTrace(p, &f).least*int64(p.Params.SlabBytes())
}

// leastForms are the forms with which a plan needs least DRAM to run.
var leastForms = plan.Forms{Seeds: true, Streams: true}

// makeMost returns forms with which the same is installed and steps make all that they
// can themselves, so that they need least.
func makeMost(f plan.Forms) plan.Forms {
	if f.Streams = f.Seeds; f.Compact > 0 {
		f.Fused = plan.FusedAll
	}
	return f
}

// leastBudget returns the smallest budget in bytes with which keys and weights can be
// installed and the plan can run, in its forms, or in the best where it has none yet.
func leastBudget(p *plan.Plan, reserve int64) int64 {
	f := leastForms
	if p.Tier != nil {
		f = makeMost(p.Tier.Forms)
	}
	return max(tierLeast(p, f, reserve), InstallLeast(p, reserve))
}

// Tiering decides for one budget which slabs are in DRAM when, and returns the plan
// for it together with the predicted time and traffic.
//
// Residency is decided slab by slab over the exact trace: what is needed furthest in
// the future leaves, and of what costs less to bring back the more. Keys, weights
// and inputs are dropped, for they can be had again: read from the slow tier, or made
// of what it holds. Ciphertexts are written back only where nothing else can go, or
// where that saves several times what it costs. Fetches are ordered by time,
// backwards from their deadlines, as far as free slabs allow; what is made is made
// just before the step that needs it. What slabs are still free then keep what would
// have been dropped. How much of the budget is kept free for fetches, what time of the
// channel is worth, how much is fetched that could be made, and whether
// slabs that one step uses are used where they lie, is chosen by the time that
// Predict gives for the whole. Then, in plans that are not too long for it, all stays are
// weighed at once, with as much room for fetches before each step as the best plan so far
// shows that the channel needs there.
//
// The form in which the slow tier holds keys, weights and matrices is the smallest
// that does not cost much time; a plan that has a tier plan keeps its form, so that
// what is installed serves every budget.
//
// What a slab costs to bring back is the time that its input or its making takes from
// the cores, and what the channel is worth: nothing while it has little to do, and what
// the variant says when bytes are what is short. Where bytes are cheap the plan may read
// more than it must, which saves the core the time of making slabs.
//
// The error is a *BudgetError where the budget is below the least possible.
func Tiering(p *plan.Plan, o TierOptions) (*plan.Tier, error) {
	if x := &o.Tier; !(x.ReadBps > 0) || !(x.WritBps > 0) || !(x.Latency >= 0) {
		return nil, fmt.Errorf("tiering: the profile gives the slow tier %v B/s reading, %v B/s writing and %v s latency", x.ReadBps, x.WritBps, x.Latency)
	}
	if o.Reserve == 0 {
		o.Reserve = TierReserve(&p.Params, max(1, o.Cores))
	}
	f := p.Forms()
	t := newTierTrace(p, &f)
	if p.Tier == nil {
		t, f = chooseForms(t, &o)
	}
	searches, err := chooseMaking(t, &o, f)
	if err != nil {
		return nil, err
	}
	for _, s := range searches {
		s.all()
	}
	return chosenTier(searches)
}

// arena returns the slabs that objects may occupy.
func (t *tierTrace) arena(o *TierOptions) (int64, error) {
	slab := int64(t.p.Params.SlabBytes())
	room := max(t.total, 1)
	if o.DRAM > 0 {
		room = min(room, (o.DRAM-o.Reserve)/slab)
		if room < t.least {
			return 0, &BudgetError{Budget: o.DRAM, Least: o.Reserve + t.least*slab}
		}
	}
	if room > 1<<31-1 {
		return 0, fmt.Errorf("tiering: %d slabs are more than a plan can address", room)
	}
	return room, nil
}

// compact returns the least number of slabs from which it takes less time to read
// one slab of coefficients and transform it than to read the plaintext; 0 for none.
func (o *TierOptions) compact(p *plan.Plan) int {
	if o.MakeSeconds == nil {
		return 0
	}
	read, make := float64(p.Params.SlabBytes())/o.Tier.ReadBps, 0.0
	for i := range p.Objects {
		if p.Objects[i].Role == plan.RolePlain {
			make = max(make, o.MakeSeconds(plan.ObjectID(i)))
		}
	}
	if make >= read {
		return 0
	}
	n := read/(read-make) + 1 // read + n*make < n*read
	if n > 1<<20 {
		return 0
	}
	return int(n)
}

// What the slow tier holds is chosen once, for all budgets.
const (
	// tierWorth is how many times longer than with other forms a run may be predicted
	// to take, for a smaller slow tier: it takes time to make and is large.
	tierWorth = 1.1
	// tierShare is the part of the plan's footprint that forms have to serve besides
	// the budget that is asked for, in per cent.
	tierShare = 15
)

// chooseForms returns the forms that the slow tier is to hold, and the trace with
// them: the smallest with which a run takes at most tierWorth times as long as with
// any, at every budget considered; where there are none, those that lose least. Where
// nothing fits the budget it returns those that need least.
func chooseForms(whole *tierTrace, o *TierOptions) (*tierTrace, plan.Forms) {
	p := whole.p
	forms := []plan.Forms{{}}
	if o.MakeSeconds != nil {
		c := o.compact(p)
		if c > 0 {
			forms = append(forms, plan.Forms{Compact: c}, leastForms)
		}
		forms = append(forms, plan.Forms{Compact: c, Seeds: true, Streams: true}, plan.Forms{Compact: c, Seeds: true}, plan.Forms{Compact: c, Seeds: true, Twice: plan.TwiceReused}, plan.Forms{Compact: c, Seeds: true, Twice: plan.TwiceAll})
	}
	type choice struct {
		f       plan.Forms
		t       *tierTrace
		room    int64
		bytes   int64
		seconds []float64
		loss    float64
	}
	var all []*choice
	modest := &choice{t: whole}
	share, least := whole.footprint()*tierShare/100, int64(0)
	for _, f := range forms {
		c := &choice{f: f, t: whole, loss: 1}
		if f != (plan.Forms{}) {
			c.t = newTierTrace(p, &f)
		}
		if c.t.least < modest.t.least {
			modest = c
		}
		room, err := c.t.arena(o)
		if err != nil {
			continue
		}
		c.room, least = room, max(least, c.t.least)
		for i := range p.Objects {
			c.bytes += int64(f.Stored(p, plan.ObjectID(i)))
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return modest.t, modest.f
	}
	for _, c := range all {
		rooms := []int64{c.room}
		if o.DRAM == 0 || share < (o.DRAM-o.Reserve)/int64(p.Params.SlabBytes()) {
			rooms = append(rooms, min(c.room, max(share, least))) // the same for all, or all that it needs
		}
		for _, r := range rooms {
			s := newTierSearch(c.t, o, c.f, r)
			s.try(s.first())
			if v := s.first(); s.best().evictions > 0 {
				v.share = 4
				for _, v.worth = range []float64{1, 0} {
					s.try(v)
				}
			}
			c.seconds = append(c.seconds, s.best().tier.Seconds)
		}
	}
	for i := range all[0].seconds {
		quickest := math.Inf(1)
		for _, c := range all {
			quickest = min(quickest, c.seconds[i])
		}
		for _, c := range all {
			if quickest > 0 {
				c.loss = max(c.loss, c.seconds[i]/quickest)
			}
		}
	}
	best := slices.MinFunc(all, func(a, b *choice) int {
		switch fits := a.loss <= tierWorth; {
		case fits != (b.loss <= tierWorth):
			if fits {
				return -1
			}
			return 1
		case fits:
			return cmp.Or(cmp.Compare(a.bytes, b.bytes), cmp.Compare(a.loss, b.loss))
		}
		return cmp.Compare(a.loss, b.loss)
	})
	return best.t, best.f
}

// Forms in which steps make more or less themselves are compared by a first variant each,
// and those that come within tierClose of the best, at most tierFormsMost of them, by all.
const (
	tierClose     = 1.05
	tierFormsMost = 2
)

// chooseMaking returns searches for the forms with which the same is installed as with f
// and that may be quickest within the budget: whether steps make the uniform halves of keys,
// and which plaintexts. The error is a *BudgetError where not even those that need least
// fit.
func chooseMaking(t *tierTrace, o *TierOptions, f plan.Forms) ([]*tierSearch, error) {
	tries, least := []plan.Forms{f}, f
	if o.MakeSeconds != nil {
		tries, least = tries[:0], makeMost(f)
		for _, fused := range []plan.Fused{plan.FusedNone, plan.FusedOnce, plan.FusedAll} {
			for _, streams := range []bool{false, true} {
				x := f
				if x.Fused, x.Streams = fused, streams; x.Check() == nil {
					tries = append(tries, x)
				}
			}
		}
	}
	var searches []*tierSearch
	var tooLittle error
	for _, x := range tries {
		u := t
		if x != f {
			u = newTierTrace(t.p, &x)
		}
		room, err := u.arena(o)
		if err != nil {
			if x == least {
				tooLittle = err
			}
			continue
		}
		s := newTierSearch(u, o, x, room)
		searches = append(searches, s)
		if len(tries) > 1 {
			s.try(s.first())
		}
	}
	if len(searches) == 0 {
		return nil, tooLittle
	}
	if len(tries) > 1 {
		slices.SortStableFunc(searches, func(a, b *tierSearch) int { return cmp.Compare(a.best().cost(), b.best().cost()) })
		limit := searches[0].best().cost() * tierClose
		searches = slices.DeleteFunc(searches, func(s *tierSearch) bool { return s.best().cost() > limit })
		searches = searches[:min(len(searches), tierFormsMost)]
	}
	return searches, nil
}

// footprint returns the slabs of what is read only, and of the ciphertexts that
// are alive at most.
func (t *tierTrace) footprint() int64 {
	fixed, live, most := int64(0), int64(0), int64(0)
	born := make([]bool, len(t.segs))
	for s := 0; s <= t.n; s++ {
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			if g := t.seg[i]; !born[g] {
				born[g] = true
				if t.segs[g].way == tierStep {
					live += int64(t.segs[g].size)
				} else {
					fixed += int64(t.segs[g].size)
				}
			}
		}
		most = max(most, live)
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			if g := t.seg[i]; t.segs[g].way == tierStep && int(t.next[i]) > t.n {
				live -= int64(t.segs[g].size)
			}
		}
	}
	return fixed + most
}

// tierVariant is a way to plan, of which the predicted time picks one.
type tierVariant struct {
	share  int64   // 1/share of the room beyond the least is kept free for fetches; 0: nothing
	worth  float64 // seconds of the run that a second of the channel costs, beside what input costs the core
	spill  bool    // ciphertexts may go before other things
	mapped bool    // what one step uses is used where it lies
	lead   float64 // seconds that the channel may run ahead with what could be made
	local  float64 // how many times more the channel is worth when it is short than when it is used, and then than when it is idle; 0: it is worth the same at all times
	load   []tierLoad
	after  *tierPace // all stays are weighed at once, after a plan with this pace; nil: as the walk goes
	ahead  float64   // then room is kept free for what is fetched for so many times the backlog of the channel
}

func (v *tierVariant) same(x *tierVariant) bool {
	return v.share == x.share && v.worth == x.worth && v.spill == x.spill && v.mapped == x.mapped && v.lead == x.lead &&
		v.after == x.after && v.ahead == x.ahead && v.local == x.local && (v.local == 0 || slices.Equal(v.load, x.load))
}

// tierTried is a variant with its outcome.
type tierTried struct {
	v         tierVariant
	tier      *plan.Tier
	start     []float64 // when each step starts
	pace      *tierPace
	evictions int
}

// tierSearch looks for the best variant for one room.
type tierSearch struct {
	t     *tierTrace
	o     *TierOptions
	forms plan.Forms
	room  int64
	at    []float64 // when each step starts if nothing else takes time
	tried []tierTried
	kept  int // of tierKeepEffort, what was spent
}

func newTierSearch(t *tierTrace, o *TierOptions, f plan.Forms, room int64) *tierSearch {
	s := &tierSearch{t: t, o: o, forms: f, room: room, at: make([]float64, t.n+2)}
	for i := range t.n + 1 {
		d := 0.0
		if o.StepSeconds != nil && i < t.n {
			d = o.StepSeconds(i, &f) / float64(max(1, o.Cores))
		}
		s.at[i+1] = s.at[i] + max(d, 1e-9)
	}
	return s
}

// first returns the variant to begin with.
func (s *tierSearch) first() tierVariant {
	return tierVariant{share: 16, worth: 1, mapped: s.o.Tier.Addressable}
}

// tierWear is what writing a byte to the slow tier counts for, in seconds beside the
// time that it takes: it wears the tier out.
const tierWear = 4e-10

// tierThrift is what reading a byte from the slow tier counts for, in seconds beside the
// time that it is predicted to take: the tier has other users, and what input costs the
// steps is not known better than that.
const tierThrift = 5e-11

// best returns the best of what was tried.
func (s *tierSearch) best() *tierTried { return pickTier(s.tried) }

// tierEqual is how many times longer a run may be predicted to take, and still be taken
// for as quick: no prediction is as good as that. Validated, they were 1.1 % off in the
// median.
const tierEqual = 1.015

// tierExcess is how many times the least that its choices make it read a tier plan may
// read and still be taken for thrifty.
const tierExcess = 1.05

// chosenTier returns the best tier plan of those that are thrifty, if it is as quick as
// the best of all; where none is, that of the quick ones which reads least for its choices.
// It sets the bounds on what it reads and costs, and notes what reading least of all would
// cost.
func chosenTier(searches []*tierSearch) (*plan.Tier, error) {
	type outcome struct {
		*tierTried
		s *tierSearch
	}
	var all []outcome
	for _, s := range searches {
		for i := range s.tried {
			all = append(all, outcome{&s.tried[i], s})
		}
	}
	slices.SortStableFunc(all, func(a, b outcome) int {
		return cmp.Or(cmp.Compare(a.cost(), b.cost()), cmp.Compare(a.tier.BytesRead, b.tier.BytesRead))
	})
	chosen, least := all[0], math.Inf(1)
	for _, x := range all {
		if x.cost() > all[0].cost()*tierEqual {
			break
		}
		b, err := TierBound(x.s.t.p, x.tier)
		if err != nil {
			return nil, fmt.Errorf("BUG: the tier plan fails its check: %w", err)
		}
		excess := float64(x.tier.BytesRead) / float64(max(b.All, 1))
		if excess < least {
			chosen, least = x, excess
			x.tier.BytesBound = b.Belady
		}
		if excess <= tierExcess {
			break
		}
	}
	thrifty := slices.MinFunc(all, func(a, b outcome) int {
		return cmp.Or(cmp.Compare(a.tier.BytesRead, b.tier.BytesRead), cmp.Compare(a.cost(), b.cost()))
	}).tier
	t := chosen.tier
	t.CostBound = chosen.s.t.leastCost(&chosen.s.o.Machine, chosen.s.room, tierLeastWindow)
	if loss := thrifty.Seconds - t.Seconds; loss > 0 && thrifty.BytesRead < t.BytesRead {
		t.BytesBought, t.BoughtSeconds = t.BytesRead-thrifty.BytesRead, loss
	}
	return t, nil
}

func pickTier(tried []tierTried) *tierTried {
	best := &tried[0]
	for i := range tried {
		if x := &tried[i]; x.cost() < best.cost() {
			best = x
		}
	}
	return best
}

// cost is the predicted time, what input costs the steps included, and what bytes count for.
func (x *tierTried) cost() float64 {
	return x.tier.Seconds + tierThrift*float64(x.tier.BytesRead) + tierWear*float64(x.tier.BytesWritten)
}

// all tries variants, one choice after the other.
func (s *tierSearch) all() {
	s.from(s.first())
	if s.o.Tier.Addressable {
		v := s.first()
		v.mapped = false
		s.from(v)
	}
	if s.best().evictions > 0 {
		s.weigh()
	}
}

// from tries variants that a first one leads to, which may have been tried before.
func (s *tierSearch) from(v tierVariant) {
	begin := len(s.tried)
	if !s.try(v) {
		begin = slices.IndexFunc(s.tried, func(x tierTried) bool { return x.v.same(&v) })
		if begin < 0 {
			return
		}
	}
	best := func() *tierTried { return pickTier(s.tried[begin:]) }
	if s.tried[begin].evictions > 0 {
		for _, v.share = range []int64{0, 4} {
			s.try(v)
		}
		if s.t.makes {
			for _, v.share = range []int64{16, 4} {
				for _, v.worth = range []float64{0, 0.1, 10} {
					s.try(v)
				}
			}
			for _, v.worth = range []float64{0.03, 0.3, 3} {
				v.share = best().v.share
				s.try(v)
			}
			v.load = loadOf(best().pace.backlog)
			for _, v.share = range []int64{16, 4} {
				for _, v.worth = range []float64{0.1, 0.3, 1} {
					for _, v.local = range []float64{3, 10} {
						s.try(v)
					}
				}
			}
		}
		v = best().v
		for _, share := range []int64{0, 8, 2} {
			v.share = share
			s.try(v)
		}
		v = best().v
		v.spill = true
		s.try(v)
	}
	if s.t.either {
		v = best().v
		for _, v.lead = range []float64{0.1, 0.4, 1.6} {
			s.try(v)
		}
	}
}

// tierRounds is how often stays are weighed with one price, each time after the plans
// before.
const tierRounds = 4

// weigh tries variants that weigh all stays at once, beginning with the best: with room
// for all that has to be fetched ahead, and with less of it, which waits for some of that
// and keeps more.
func (s *tierSearch) weigh() {
	v := s.best().v
	v.local = 0
	for _, v.ahead = range []float64{1, 0.75, 0.5, 0.4} {
		begin := len(s.tried)
		for _, v.worth = range []float64{0.05, 0.1, 0} {
			v.after = s.best().pace
			for range tierRounds {
				if !s.try(v) {
					return
				}
				v.after = s.tried[len(s.tried)-1].pace
			}
		}
		if pickTier(s.tried[begin:]).cost() > s.best().cost()*tierEqual {
			return // with less room for fetches it would wait for longer
		}
	}
}

// tierSpill is how many times what it costs the spill of a ciphertext has to save.
const tierSpill = 4

// prices returns what slabs cost in a variant.
func (s *tierSearch) prices(v tierVariant) *tierPrices {
	t, slab := s.t, float64(s.t.p.Params.SlabBytes())
	pr := &tierPrices{at: s.at, class: make([]int8, len(t.segs)), load: v.load, spill: v.spill}
	local := v.local
	if local == 0 {
		local, pr.load = 1, slices.Repeat([]tierLoad{channelUsed}, t.n+1)
	}
	channel, write := slab/s.o.Tier.ReadBps, slab/s.o.Tier.WritBps
	least := channel * 1e-3
	type kind struct {
		way  tierWay
		cost int // of making, rounded
	}
	class := map[kind]int8{}
	for i := range t.segs {
		g := &t.segs[i]
		k, cost := kind{way: g.way}, 0.0
		if g.way == tierMake || g.way == tierEither {
			if s.o.MakeSeconds != nil {
				cost = s.o.MakeSeconds(g.obj) / float64(max(1, s.o.Cores))
			}
			cost = min(max(cost, least), channel*1e3)
			k.cost = int(math.Round(4 * math.Log2(cost/channel))) // within a tenth
		}
		c, ok := class[k]
		if !ok {
			c = int8(len(pr.cost))
			class[k] = c
			var costs [3]float64
			for l := range costs {
				r := max(slab*(s.o.Input+tierThrift)+channel*v.worth*math.Pow(local, float64(l)-1), least)
				switch g.way {
				case tierFetch:
					costs[l] = r
				case tierMake:
					costs[l] = cost
				case tierEither:
					costs[l] = cost
					if v.lead > 0 {
						costs[l] = min(r, cost)
					}
				case tierCaller:
					costs[l] = least * 0.1
				case tierStep:
					costs[l] = tierSpill * (r + write)
				}
			}
			pr.cost = append(pr.cost, costs)
			pr.temps = append(pr.temps, g.way == tierStep)
		}
		pr.class[i] = c
	}
	return pr
}

// Variants are tried until this many touches of segments were looked at, but no
// fewer than so many variants: long plans take no more than seconds.
const (
	tierEffort = 8 << 20
	tierTries  = 8
)

// try plans with a variant, unless that was done before. It reports whether it did.
func (s *tierSearch) try(v tierVariant) bool {
	for i := range s.tried {
		if s.tried[i].v.same(&v) {
			return false
		}
	}
	if len(s.tried) >= max(tierTries, tierEffort/len(s.t.seg)) {
		return false
	}
	soft := s.room
	if v.share > 0 {
		soft -= (s.room - s.t.least) / v.share
	}
	pr := s.prices(v)
	var w *tierWalk
	var cost []float64 // of a slab of room from each step on
	if v.after == nil {
		w = s.t.belady(soft, s.room, pr)
	} else if w, cost = s.keep(&v, pr); w == nil {
		return false
	}
	f := s.t.flow(w, pr, s.room, v.mapped)
	f.prefetch()
	// When steps start: as in the best plan so far, which is closer to the outcome
	// than this one before fetches are put off.
	var when []float64
	if len(s.tried) > 0 {
		when = s.best().start
	} else {
		when = s.predict(f).Start
	}
	if v.lead > 0 {
		f.exchange(when, &s.o.Machine, v.lead)
	}
	f.postpone(when, &s.o.Machine)
	f.linger()
	x := tierTried{v: v, evictions: w.evictions}
	x.tier, x.start = s.tier(f)
	// Time without waiting: that of the steps, with what is made spread over them.
	start := slices.Clone(s.at[:s.t.n+1])
	for i := range start {
		start[i] *= (x.tier.Seconds - x.tier.StallSeconds) / s.at[s.t.n]
	}
	x.pace = &tierPace{start: start, backlog: f.backlog(start, &s.o.Machine), away: w.away()}
	if v.after != nil {
		x.pace.crowd = x.pace.crowded(cost)
		x.pace = v.after.toward(x.pace)
	}
	s.tried = append(s.tried, x)
	return true
}

// tier returns the tier plan for what stays and comes, with its prediction.
func (s *tierSearch) tier(f *tierFlow) (*plan.Tier, []float64) {
	t := &plan.Tier{Budget: s.o.DRAM, Reserve: s.o.Reserve, ArenaSlabs: int(s.room), PeakSlabs: f.peak(), Profile: s.o.Profile, Forms: s.forms, Actions: f.actions()}
	p := Predict(s.t.p, t, &s.o.Machine)
	t.Seconds, t.StallSeconds, t.MakeSeconds, t.InputSeconds = p.Seconds, p.StallSeconds, p.MakeSeconds, p.InputSeconds
	t.BytesRead, t.BytesWritten = tierMoved(s.t.p, t)
	return t, p.Start
}

// tierMoved returns the bytes that a tier plan made here reads and writes. What it
// maps one step uses, a source each ActMake that is for this step.
func tierMoved(p *plan.Plan, t *plan.Tier) (read, written int64) {
	lies := map[plan.ObjectID]bool{} // its source is mapped
	for i := range t.Actions {
		switch a := &t.Actions[i]; a.Kind {
		case plan.ActFetch:
			if p.Objects[a.Obj].Role != plan.RoleInput {
				read += int64(a.Count)
			}
		case plan.ActMap:
			if int(a.First) == p.Slabs(a.Obj) && !t.Forms.InSteps(p, a.Obj) {
				lies[a.Obj] = true
			} else {
				read += int64(a.Count)
			}
		case plan.ActMake:
			if lies[a.Obj] {
				read++
			}
		case plan.ActDrop:
			if int(a.First) == p.Slabs(a.Obj) {
				delete(lies, a.Obj)
			}
		case plan.ActSpill:
			written += int64(a.Count)
		}
	}
	slab := int64(p.Params.SlabBytes())
	return read * slab, written * slab
}

func (s *tierSearch) predict(f *tierFlow) *Prediction {
	return Predict(s.t.p, &plan.Tier{ArenaSlabs: int(s.room), Forms: s.forms, Actions: f.actions()}, &s.o.Machine)
}
