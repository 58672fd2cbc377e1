package passes

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// price returns what all misses of a walk cost that are no first touches.
func (w *tierWalk) price(pr *tierPrices) float64 {
	sum := 0.0
	for i := range w.misses {
		if m := &w.misses[i]; m.prev >= 0 {
			sum += float64(w.t.segs[m.seg].size-m.kept) * pr.of(m.seg, m.cur)
		}
	}
	return sum
}

// Stays that are weighed all at once cost no more than those of a walk that takes one
// step after the other, where no room is kept for fetches.
func TestTierKeepIsBest(t *testing.T) {
	less := 0
	for seed := range uint64(30) {
		p := tierProgram(rand.New(rand.NewPCG(seed, 5)), 120)
		if seed%3 == 0 {
			p = plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2})
		}
		for _, extra := range []int64{0, 10, 40, 100} {
			o := tierOpts(p, TierLeast(p, 1<<20)+extra*int64(p.Params.SlabBytes()))
			f := plan.Forms{}
			tr := newTierTrace(p, &f)
			room, err := tr.arena(&o)
			if err != nil {
				t.Fatal(err)
			}
			s := newTierSearch(tr, &o, f, room)
			pr := s.prices(tierVariant{worth: 1})
			walk := tr.belady(room, room, pr)
			kept, _ := s.keep(&tierVariant{after: &tierPace{start: s.at[:tr.n+1], backlog: make([]float64, tr.n+1), away: walk.away()}}, pr)
			if kept == nil {
				t.Fatalf("seed %d, least + %d: no walk", seed, extra)
			}
			a, b := kept.price(pr), walk.price(pr)
			if a > b*(1+1e-6) {
				t.Errorf("seed %d, least + %d: misses cost %v, those of the walk step by step %v", seed, extra, a, b)
			}
			if a < b*(1-1e-6) {
				less++
			}
		}
	}
	if less == 0 {
		t.Error("no walk costs less than step by step")
	}
}

// Tier plans with stays that are weighed at once pass the check, whatever backlog they
// make room for and whatever fetches cost each other.
func TestTierKeepIsValid(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 6))
		p := tierProgram(r, 120)
		if seed%3 == 0 {
			p = plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2})
		}
		for _, f := range tierForms {
			p.Tier = &plan.Tier{Forms: f}
			for _, extra := range []int64{0, 5, 50} {
				o := tierOpts(p, TierLeast(p, 1<<20)+extra*int64(p.Params.SlabBytes()))
				o.MakeSeconds = func(plan.ObjectID) float64 { return 0.3e-3 }
				o.Tier.Addressable = seed%4 == 3
				tr := newTierTrace(p, &f)
				room, err := tr.arena(&o)
				if err != nil {
					t.Fatal(err)
				}
				s := newTierSearch(tr, &o, f, room)
				v := s.first()
				s.try(v)
				before := s.tried[0].pace
				v.after = &tierPace{start: before.start, backlog: make([]float64, tr.n+1), away: before.away, crowd: make([]float64, tr.n+1)}
				v.ahead = 3
				for i := range v.after.backlog {
					v.after.backlog[i] = before.backlog[i] * r.Float64()
					v.after.crowd[i] = r.Float64() * 1e-2
				}
				if !s.try(v) {
					if extra > 0 {
						t.Errorf("seed %d, forms %+v, least + %d: no walk", seed, f, extra)
					}
					continue
				}
				tier := s.tried[1].tier
				b, err := TierBound(p, tier)
				if err != nil {
					t.Fatalf("seed %d, forms %+v, least + %d: %v", seed, f, extra, err)
				}
				tier.BytesBound = b.Belady
				if err := CheckTier(p, tier); err != nil {
					t.Errorf("seed %d, forms %+v, least + %d: %v", seed, f, extra, err)
				}
			}
		}
	}
}

// What is fetched costs those before it the room that they take for longer, back to where
// the channel begins, and nothing where it pauses.
func TestTierCrowd(t *testing.T) {
	// Steps of a second. From 1.5 s on the channel brings without a pause what steps 3, 4
	// and 5 wait for, from 7.5 s on what step 8 waits for.
	a := &tierPace{start: []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, backlog: []float64{0, 0, 0.5, 1.5, 1.5, 2, 0, 0, 0.5, 0}}
	room := []float64{100, 60, 50, 30, 20, 10, 8, 4, 2, 1, 0} // of a slab from each step on
	want := []float64{0, 0, 0, 0, 60 - 50, 60 - 30, 0, 0, 0, 0}
	if got := a.crowded(room); !slices.Equal(got, want) {
		t.Errorf("a slab fetched for a step costs those before it %v, want %v", got, want)
	}
}
