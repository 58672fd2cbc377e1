package passes

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/ir/plan"
)

// tierMIN is Belady's rule written down: after each point it keeps those slabs that
// are needed again soonest. It returns the misses.
func tierMIN(trace [][]tierID, mapping bool, capacity func(point int) int) (misses int64) {
	uses := map[tierID][]int{}
	for at, point := range trace {
		for _, id := range point {
			uses[id] = append(uses[id], at)
		}
	}
	next := func(id tierID, at int) int {
		k, _ := slices.BinarySearch(uses[id], at+1)
		if k == len(uses[id]) {
			return len(trace)
		}
		return uses[id][k]
	}
	soonest := func(cache []tierID, at, room int) []tierID {
		cache = slices.DeleteFunc(cache, func(id tierID) bool { return next(id, at) == len(trace) })
		slices.SortFunc(cache, func(a, b tierID) int { return next(a, at) - next(b, at) })
		return cache[:min(len(cache), max(room, 0))]
	}
	var cache []tierID
	for at, point := range trace {
		room := capacity(at)
		if mapping {
			cache = soonest(cache, at-1, room)
		}
		var rest []tierID
		hits := 0
		for _, id := range cache {
			if slices.Contains(point, id) {
				hits++
			} else {
				rest = append(rest, id)
			}
		}
		misses += int64(len(point) - hits)
		if !mapping {
			rest = soonest(rest, at, room-len(point))
			room = max(room, len(point))
		}
		cache = soonest(append(rest, point...), at, room)
	}
	return misses
}

// gapsOf puts a trace of slabs of object 0 into the form that the bound is computed
// from.
func gapsOf(trace [][]tierID, slabs int) *tierGaps {
	var t tierTouches
	t.init(len(trace), slabs, 0)
	for _, point := range trace {
		for _, id := range point {
			t.touch(id.slab, 1)
		}
		t.closePoint(0)
	}
	return t.between(slabs)
}

// randomTrace returns a trace of slabs of object 0.
func randomTrace(rng *rand.Rand, points, slabs, most int) [][]tierID {
	trace := make([][]tierID, points)
	for at := range trace {
		for _, slab := range rng.Perm(slabs)[:rng.IntN(most+1)] {
			trace[at] = append(trace[at], tierID{0, slab})
		}
		slices.SortFunc(trace[at], func(a, b tierID) int { return a.slab - b.slab })
	}
	return trace
}

// exhaustive returns the least number of reads over all that a tier plan can do:
// at each point any set of slabs within the capacity may be there.
func exhaustive(trace [][]tierID, slabs int, mapping bool, capacity func(point int) int) int64 {
	const never = 1 << 30
	cost := make([]int, 1<<slabs)
	for set := range cost {
		cost[set] = never
	}
	cost[0] = 0
	for at, point := range trace {
		need := 0
		for _, id := range point {
			need |= 1 << id.slab
		}
		after := make([]int, len(cost))
		for to := range after {
			after[to] = never
			if bits.OnesCount(uint(to)) > capacity(at) || !mapping && to&need != need {
				continue
			}
			for from, c := range cost {
				after[to] = min(after[to], c+bits.OnesCount(uint(to&^from))+bits.OnesCount(uint(need&^to)))
			}
		}
		cost = after
	}
	return int64(slices.Min(cost))
}

// On tiny traces no plan whatever reads less than the bound, and where nothing is
// mapped one reads as little.
func TestTierBoundIsTheLeast(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	above := 0
	for range 600 {
		slabs := 2 + rng.IntN(4)
		trace := randomTrace(rng, 3+rng.IntN(8), slabs, min(slabs, 3))
		low := 0
		for _, point := range trace {
			low = max(low, len(point))
		}
		room := make([]int, len(trace)) // differs from point to point
		for at := range room {
			room[at] = low + rng.IntN(slabs-low+1)
		}
		capacity := func(at int) int { return room[at] }
		for _, mapping := range []bool{false, true} {
			gaps := gapsOf(trace, slabs)
			got := gaps.misses(room, mapping)
			least := exhaustive(trace, slabs, mapping, capacity)
			if got > least || !mapping && got != least {
				t.Fatalf("trace %v, capacities %v, mapping %v: the bound is %d, the least %d", trace, room, mapping, got, least)
			}
			if got > gaps.distinct {
				above++
			}
		}
	}
	if above < 100 {
		t.Errorf("only %d bounds are above the cold misses", above)
	}
}

// The bound by groups of slabs is the one of Belady's rule slab by slab.
func TestTierBoundIsBelady(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		slabs := 1 + rng.IntN(30)
		trace := randomTrace(rng, 1+rng.IntN(60), slabs, slabs)
		room := make([]int, len(trace))
		for at := range room {
			room[at] = len(trace[at]) + rng.IntN(slabs)
		}
		for _, mapping := range []bool{false, true} {
			got, want := gapsOf(trace, slabs).misses(room, mapping), tierMIN(trace, mapping, func(at int) int { return room[at] })
			if got != want {
				t.Fatalf("trace %v, capacities %v, mapping %v: %d misses, Belady %d", trace, room, mapping, got, want)
			}
		}
	}
	// On plans, with all that the replay groups: touched ranges, sources, forms.
	tierPlans(t, 10, 25, func(t *testing.T, _ *rand.Rand, p *plan.Plan, tier *plan.Tier) {
		w := tierTwin(p, tier)
		for _, less := range []int{0, 3, 40} {
			small := *tier
			small.ArenaSlabs = tier.ArenaSlabs - less
			b, err := TierBound(p, &small)
			if err != nil {
				return // the arena is too small for it
			}
			slab := int64(p.Params.SlabBytes())
			if want := tierMIN(w.trace, w.maps, func(int) int { return small.ArenaSlabs }) * slab; b.Belady != want {
				t.Errorf("arena of %d: the bound is %d, Belady %d", small.ArenaSlabs, b.Belady, want)
			}
			// What is made and what the step's ciphertexts take is not for the rest; and
			// ciphertexts compete with the rest, their first touch apart.
			made := make([]int, len(w.trace))
			for _, x := range w.stays {
				for at := x[0]; at <= x[1]; at++ {
					made[at]++
				}
			}
			if want := tierMIN(w.trace, w.maps, func(at int) int { return small.ArenaSlabs - made[at] - len(w.ciphers[at]) }) * slab; b.Pinned != want {
				t.Errorf("arena of %d: the bound with steps pinned is %d, Belady %d", small.ArenaSlabs, b.Pinned, want)
			}
			all, inputs, first := make([][]tierID, len(w.trace)), make([]int, len(w.trace)), map[tierID]bool{}
			for at := range all {
				all[at] = slices.Clone(w.trace[at])
				for _, id := range w.ciphers[at] {
					if p.Objects[id.obj].Role == plan.RoleInput {
						inputs[at]++
					} else {
						all[at], first[id] = append(all[at], id), true
					}
				}
				if w.maps {
					inputs[at] = 0
				}
			}
			want := tierMIN(all, w.maps, func(at int) int { return small.ArenaSlabs - made[at] - inputs[at] }) - int64(len(first))
			if want = max(want*slab, b.Pinned); b.All != want {
				t.Errorf("arena of %d: the bound with ciphertexts is %d, Belady %d", small.ArenaSlabs, b.All, want)
			}
			distinct, touches := map[tierID]bool{}, int64(0)
			for _, point := range w.trace {
				touches += int64(len(point))
				for _, id := range point {
					distinct[id] = true
				}
			}
			if b.Cold != int64(len(distinct))*slab || b.Distinct != int64(len(distinct)) || b.Touches != touches || b.Points != len(w.trace) {
				t.Errorf("%+v, but %d touches of %d slabs at %d points", b, touches, len(distinct), len(w.trace))
			}
		}
	})
}
