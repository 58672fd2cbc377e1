package passes

import (
	"container/heap"
	"slices"

	"github.com/home-fhe/home/ir/plan"
)

// Bound says how many bytes of keys and plaintexts a run has to read from the slow
// tier. Each of its bounds concerns all tier plans with the same arena that take
// the same alternatives as the one at hand: they compute the slabs that it
// computes, from sources at the same moments, and read what it reads. What it
// reads is the trace: a point for every step, with the slabs that the step touches
// and that were fetched or are mapped then, and a point for every ActMake of a
// plaintext, with its source. Slabs that were computed cost nothing to touch.
// Inputs are never counted, ciphertexts that come back from the slow tier only in
// All. All figures are in bytes.
type Bound struct {
	// Cold counts every slab of the trace once: at first nothing is in DRAM.
	Cold int64
	// Belady is what is left of the trace by the optimal use of the whole arena,
	// cold misses included: the least number of misses, whatever the policy and
	// whatever is known of the future. Tier.BytesBound is this one.
	Belady int64
	// Pinned is the same with the arena less what the moment itself takes, whoever
	// plans: at a step, its ciphertexts and its result; at every point, the slabs
	// that were computed before it and are touched at it or later before they are
	// computed or read anew.
	Pinned int64
	// All is the bound on Tier.BytesRead: on all that is fetched or mapped,
	// ciphertexts that come back included. These compete for the arena with the
	// rest, and one that leaves it between two uses has to be read again.
	All int64
	// Held is Pinned for those tier plans that also send ciphertexts away as the one
	// at hand does: a ciphertext that is in DRAM from one of its uses to the next
	// takes room all the while, in all of them.
	Held int64

	Touches  int64 // slabs of the trace, each as often as it is touched
	Distinct int64 // different slabs among them
	Points   int   // moments at which slabs are touched
}

// TierBound returns the lower bounds on what a tier plan reads. It derives the
// trace by a replay of its own, which refuses what CheckTier refuses but for the
// totals that the tier plan states.
//
// That these are lower bounds: a slab that is touched at two points costs no read
// at the second only if it stays in DRAM in between. Take these intervals over the
// whole trace; a tier plan keeps some of them, and reads once for every touch whose
// interval it does not keep. At each point the slabs of that point are in DRAM, and
// so are the kept intervals that span it: together they fit into the capacity. So
// a tier plan reads at least touches less the largest number of intervals that can
// be kept within the capacity at every point. Whenever there is no room for all,
// the one that ends last goes: it can be exchanged for any other that was given up
// instead without loss, for from here on it takes room wherever the other does.
// That is the rule of L. A. Belady, "A study of replacement algorithms for a
// virtual-storage computer", IBM Systems Journal 5 (1966), proved optimal by
// R. L. Mattson, J. Gecsei, D. R. Slutz and I. L. Traiger, "Evaluation techniques
// for storage hierarchies", IBM Systems Journal 9 (1970); the exchange does not
// ask the capacity to be the same at every point.
//
// Where the tier plan maps slabs, so may the others: a touch may then read a slab
// without room for it, and only kept intervals count against the capacity.
//
// It takes time proportional to the touches, and the logarithm of the number of
// points for every group of slabs with the same past and future.
func TierBound(p *plan.Plan, t *plan.Tier) (Bound, error) {
	r, err := replayTier(p, t)
	if err != nil {
		return Bound{}, err
	}
	return r.bound(), nil
}

// tierTouches is the trace that a replay leaves.
type tierTouches struct {
	points []tierPoint
	runs   []tierRun
	maps   bool // the tier plan maps slabs
	// First and last touch of the stay of each slab that was computed, and of each
	// ciphertext; -1 while there is none.
	madeStay, cipherStay []touchRange
	// How many of these slabs stay, as differences from point to point.
	madeDiff, cipherDiff []int32
	// From one touch of a ciphertext to the next, inputs apart.
	cipherGaps []cipherGap
	cipherLast []int32 // last touch, -1 for none
}

type cipherGap struct {
	from int32
	tierGap
}

// tierPoint is a moment at which slabs are touched.
type tierPoint struct {
	end    int // of its runs
	cipher int // slabs of ciphertexts that the step touches
}

// tierRun is a run of slabs that are touched at one point.
type tierRun struct{ first, count int32 }

// touchRange is a range of points, both ends included.
type touchRange struct{ from, to int32 }

var noTouch = touchRange{-1, -1}

// init makes room for a trace of up to so many points.
func (t *tierTouches) init(points, slabs, objects int) {
	t.points = make([]tierPoint, 0, points)
	t.madeStay, t.cipherStay = slices.Repeat([]touchRange{noTouch}, slabs), slices.Repeat([]touchRange{noTouch}, objects)
	t.cipherLast = slices.Repeat([]int32{-1}, objects)
	t.madeDiff, t.cipherDiff = make([]int32, points+1), make([]int32, points+1)
}

// touch adds slabs to the point at hand, which closePoint ends.
func (t *tierTouches) touch(first, count int) {
	start := 0
	if n := len(t.points); n > 0 {
		start = t.points[n-1].end
	}
	if n := len(t.runs); n > start && int(t.runs[n-1].first+t.runs[n-1].count) == first {
		t.runs[n-1].count += int32(count)
		return
	}
	t.runs = append(t.runs, tierRun{int32(first), int32(count)})
}

func (t *tierTouches) closePoint(cipher int) {
	t.points = append(t.points, tierPoint{end: len(t.runs), cipher: cipher})
}

// madeNow begins stays of slabs that are computed at the point at hand.
func (t *tierTouches) madeNow(first, count int) {
	for i := range count {
		t.madeStay[first+i] = touchRange{int32(len(t.points)), -1}
	}
}

func (t *tierTouches) touchMade(first, count int) {
	for i := range count {
		t.madeStay[first+i].to = int32(len(t.points))
	}
}

// endMade ends the stay of a computed slab at its last touch.
func (t *tierTouches) endMade(slab int) {
	if s := t.madeStay[slab]; s.to >= 0 {
		t.madeDiff[s.from]++
		t.madeDiff[s.to+1]--
	}
	t.madeStay[slab] = noTouch
}

// touchCipher records that a ciphertext is touched at the point at hand. It is
// called once for each point.
func (t *tierTouches) touchCipher(o plan.ObjectID, slabs int32) {
	s, at := &t.cipherStay[o], int32(len(t.points))
	if s.from < 0 {
		s.from = at
	}
	s.to = at
	if p := t.cipherLast[o]; p >= 0 && slabs > 0 {
		t.cipherGaps = append(t.cipherGaps, cipherGap{p, tierGap{at, slabs}})
	}
	t.cipherLast[o] = at
}

// endCipher ends the stay of a ciphertext at its last touch.
func (t *tierTouches) endCipher(o plan.ObjectID, slabs int32) {
	if s := t.cipherStay[o]; s.from >= 0 {
		t.cipherDiff[s.from] += slabs
		t.cipherDiff[s.to+1] -= slabs
	}
	t.cipherStay[o] = noTouch
}

// tierGap is how many slabs that are touched at one point are touched next at
// another.
type tierGap struct{ next, slabs int32 }

// tierGaps is a trace by what lies between touches.
type tierGaps struct {
	need              []int // slabs touched at each point
	gaps              []tierGap
	from              []int // gaps[from[i]:from[i+1]] begin at the i-th point from the end
	touches, distinct int64
}

// between returns the gaps of a trace of so many slabs.
func (t *tierTouches) between(slabs int) *tierGaps {
	g := &tierGaps{need: make([]int, len(t.points)), from: make([]int, 1, len(t.points)+1)}
	next := make([]int32, slabs) // point of the next touch, going backwards; 0 for none, as no gap ends there
	for at := len(t.points) - 1; at >= 0; at-- {
		first := 0
		if at > 0 {
			first = t.points[at-1].end
		}
		for _, x := range t.runs[first:t.points[at].end] {
			g.need[at] += int(x.count)
			run := next[x.first:][:x.count]
			for i := 0; i < len(run); {
				end, to := run[i], i
				for ; to < len(run) && run[to] == end; to++ {
					run[to] = int32(at)
				}
				if end > 0 {
					g.gaps = append(g.gaps, tierGap{end, int32(to - i)})
				} else {
					g.distinct += int64(to - i)
				}
				i = to
			}
		}
		g.touches += int64(g.need[at])
		g.from = append(g.from, len(g.gaps))
	}
	return g
}

// ciphers returns the gaps with those of ciphertexts, for which a touch costs
// nothing unless the gap before it is lost.
func (g *tierGaps) ciphers(t *tierTouches) *tierGaps {
	n := len(t.points)
	all := &tierGaps{need: make([]int, n), from: make([]int, 1, n+1), touches: g.touches, distinct: g.distinct}
	slices.SortStableFunc(t.cipherGaps, func(a, b cipherGap) int { return int(b.from) - int(a.from) })
	rest := t.cipherGaps
	for i := range n {
		at := n - 1 - i
		all.need[at] = g.need[at] + t.points[at].cipher
		all.gaps = append(all.gaps, g.gaps[g.from[i]:g.from[i+1]]...)
		for ; len(rest) > 0 && int(rest[0].from) == at; rest = rest[1:] {
			all.gaps = append(all.gaps, rest[0].tierGap)
			all.touches += int64(rest[0].slabs)
		}
		all.from = append(all.from, len(all.gaps))
	}
	return all
}

// bound computes the bounds from the trace of a finished replay.
func (r *tierReplay) bound() Bound {
	g := r.between(len(r.place))
	n := len(r.points)
	whole, pinned, held, free := make([]int, n), make([]int, n), make([]int, n), make([]int, n)
	made, cipher := 0, 0
	for at := range n {
		made += int(r.madeDiff[at])
		cipher += int(r.cipherDiff[at])
		whole[at] = r.t.ArenaSlabs
		free[at] = whole[at] - made
		pinned[at] = free[at] - r.points[at].cipher
		held[at] = free[at] - cipher
	}
	slab := int64(r.p.Params.SlabBytes())
	b := Bound{
		Cold: slab * g.distinct, Belady: slab * g.misses(whole, r.maps), Pinned: slab * g.misses(pinned, r.maps), Held: slab * g.misses(held, r.maps),
		Touches: g.touches, Distinct: g.distinct, Points: n,
	}
	// Where slabs may be mapped, the room of a step's ciphertexts is not seen in All.
	b.All = max(b.Pinned, slab*g.ciphers(&r.tierTouches).misses(free, r.maps))
	return b
}

// misses returns the touches less the largest number of slabs that can be kept from
// one touch to the next, each gap counted, where at every point the slabs of that
// point and those of gaps that span it fit into the capacity. Where slabs may be
// mapped, only those that are kept have to fit.
func (g *tierGaps) misses(capacity []int, mapping bool) int64 {
	kept := make([]int, len(capacity)) // slabs that are kept for a point to come
	var ends farthest                  // points to come for which slabs are kept, and some that have none
	open, hits := 0, int64(0)
	limit := func(room int) {
		for room = max(room, 0); open > room; {
			end := ends[0]
			lost := min(kept[end], open-room)
			kept[end] -= lost
			if open -= lost; kept[end] == 0 {
				heap.Pop(&ends)
			}
		}
	}
	for at := range capacity {
		if mapping {
			limit(capacity[at])
		}
		open -= kept[at]
		hits += int64(kept[at])
		kept[at] = 0
		if !mapping {
			limit(capacity[at] - g.need[at])
		}
		i := len(capacity) - 1 - at
		for _, x := range g.gaps[g.from[i]:g.from[i+1]] {
			if kept[x.next] == 0 {
				heap.Push(&ends, x.next)
			}
			kept[x.next] += int(x.slabs)
			open += int(x.slabs)
		}
		if mapping {
			limit(capacity[at])
		}
	}
	return g.touches - hits
}

// farthest is a heap of points, the last one first.
type farthest []int32

func (h farthest) Len() int           { return len(h) }
func (h farthest) Less(i, j int) bool { return h[i] > h[j] }
func (h farthest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *farthest) Push(x any)        { *h = append(*h, x.(int32)) }
func (h *farthest) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
