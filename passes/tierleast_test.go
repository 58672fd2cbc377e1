package passes

import (
	"math/rand/v2"
	"testing"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// What a line keeps is worth as much as the best choice that trying all finds.
func TestTierLineIsExact(t *testing.T) {
	type gap struct {
		from, to, size int32
		worth          int64
	}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 9))
		places, room := 3+r.IntN(6), int32(r.IntN(7))
		l := newTierLine(room, places)
		left := make([]int32, places)
		for i := range left {
			n := int32(r.IntN(3))
			l.take(int32(i), n)
			left[i] = max(0, room-n)
		}
		gaps := make([]gap, 1+r.IntN(7))
		for i := range gaps {
			from := r.IntN(places)
			g := gap{int32(from), int32(from + 1 + r.IntN(places-from)), int32(1 + r.IntN(3)), int64(r.IntN(6))}
			gaps[i] = g
			l.gap(g.from, g.to, g.worth, g.size)
		}
		var most func(i int) int64
		most = func(i int) int64 {
			if i == len(gaps) {
				return 0
			}
			g, best := gaps[i], int64(0)
			fits := g.size
			for p := g.from; p < g.to; p++ {
				fits = min(fits, left[p])
			}
			for n := range fits + 1 {
				for p := g.from; p < g.to; p++ {
					left[p] -= n
				}
				best = max(best, int64(n)*g.worth+most(i+1))
				for p := g.from; p < g.to; p++ {
					left[p] += n
				}
			}
			return best
		}
		if got, want := l.solve(), most(0); got != want {
			t.Errorf("seed %d: worth %d, the best is %d: room %v, gaps %+v", seed, got, want, left, gaps)
		}
	}
}

// No plan costs less than the bound, and where everything fits the bound is what it costs.
func TestLeastCost(t *testing.T) {
	for seed := range uint64(8) {
		p := plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2})
		slab := float64(p.Params.SlabBytes())
		for i, f := range tierForms {
			p.Tier = &plan.Tier{Forms: f}
			least := TierLeast(p, 1<<20)
			for _, extra := range []int64{0, 5, 20, 80, 5000} {
				o := tierOpts(p, least+extra*int64(slab))
				o.MakeSeconds = func(plan.ObjectID) float64 { return 0.3e-3 }
				o.Input = 0.2e-3 / slab
				tier, err := Tiering(p, o)
				if err != nil {
					t.Fatal(err)
				}
				cost := o.Input*float64(tier.BytesRead) + tier.MakeSeconds
				if tier.CostBound > cost*(1+1e-6) || tier.CostBound <= 0 {
					t.Errorf("seed %d, forms %d, least + %d: it costs %v s, %v at least", seed, i, extra, cost, tier.CostBound)
				}
				tr := newTierTrace(p, &tier.Forms)
				for _, window := range []int{1, 7, 64, tr.n, tr.n + 1} {
					b := tr.leastCost(&o.Machine, int64(tier.ArenaSlabs), window)
					if window > tr.n && b != tier.CostBound || b > tier.CostBound*(1+1e-9) || extra == 5000 && b < tier.CostBound*(1-1e-3) {
						t.Errorf("seed %d, forms %d, least + %d: %d steps at a time %v s at least, %v together", seed, i, extra, window, b, tier.CostBound)
					}
				}
				if extra == 5000 && f.Twice == plan.TwiceNone && tier.CostBound < cost*(1-1e-6) {
					t.Errorf("seed %d, forms %d, everything fits: it costs %v s, the bound says %v", seed, i, cost, tier.CostBound)
				}
			}
		}
	}
}
