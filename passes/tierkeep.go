package passes

import "sort"

// tierPace is what is known of a tier plan that the next one goes by.
type tierPace struct {
	start   []float64 // when each step starts if none waits
	backlog []float64 // how many seconds before it the channel has to begin then
	away    []tierAway
}

// tierAway is a ciphertext that is not in DRAM between two touches.
type tierAway struct{ seg, prev, cur int32 }

// away returns the ciphertexts that leave and come back.
func (w *tierWalk) away() []tierAway {
	var away []tierAway
	for i := range w.misses {
		if m := &w.misses[i]; m.prev >= 0 && w.t.segs[m.seg].whole() {
			away = append(away, tierAway{m.seg, m.prev, m.cur})
		}
	}
	return away
}

// toward returns the pace with a backlog half way to that of another plan: what is
// fetched less before one step is fetched more before others, to and fro.
func (a *tierPace) toward(b *tierPace) *tierPace {
	c := &tierPace{start: b.start, backlog: make([]float64, len(b.backlog)), away: b.away}
	for i := range c.backlog {
		c.backlog[i] = (a.backlog[i] + b.backlog[i]) / 2
	}
	return c
}

// tierAhead is how many times the backlog room is kept free for what is fetched: the
// channel may fall behind a little.
const tierAhead = 1.25

// ahead returns for each step the one before which its fetches are ordered.
func (a *tierPace) ahead() []int32 {
	ahead := make([]int32, len(a.backlog))
	for s := range ahead {
		at := a.start[s] - tierAhead*a.backlog[s]
		k := sort.Search(len(a.start), func(k int) bool { return a.start[k] > at }) - 1
		ahead[s] = int32(min(max(k, 0), s))
	}
	return ahead
}

// tierStay is that slabs of a segment may stay after an entry of the trace until its next
// touch, or until they could be fetched for it: at the steps from..to-1.
type tierStay struct {
	entry, seg, from, to int32
}

// stays returns all stays between touches of what is read only, and how many slabs are
// taken at each step whichever of them are chosen: by what steps touch, by ciphertexts,
// and by fetches. For what comes from the slow tier there is room from when its fetch is
// ordered, before each step as the pace says: from there on it is there whether it stayed
// or is fetched. Where room is short the fetch is ordered later.
func (t *tierTrace) stays(after *tierPace, room int64) ([]tierStay, []int32) {
	last := make([]int32, len(t.segs)) // step of the touch before, -1 for none
	entry := make([]int32, len(t.segs))
	taken := make([]int32, t.n+2)
	add := func(from, to, v int32) { // at the steps from..to-1, as differences
		taken[from] += v
		taken[to] -= v
	}
	for i := range last {
		last[i] = -1
	}
	for s := int32(0); int(s) <= t.n; s++ {
		for _, g := range t.seg[t.ptr[s]:t.ptr[s+1]] {
			x := &t.segs[g]
			switch {
			case x.whole() && last[g] >= 0:
				add(last[g]+1, s+1, x.size)
			case x.source >= 0:
				add(s, s+1, x.size+1)
			default:
				add(s, s+1, x.size)
			}
			last[g] = s
		}
	}
	for _, x := range after.away {
		add(x.prev+1, x.cur, -t.segs[x.seg].size)
	}
	for s := range t.n + 1 {
		taken[s+1] += taken[s]
	}
	taken = taken[:t.n+1]
	used := newTierTree(taken)
	ahead := after.ahead()
	for i := range last {
		last[i] = -1
	}
	var stays []tierStay
	come := func(g, prev, s, entry int32) {
		from := s
		if size := t.segs[g].size; t.segs[g].way == tierFetch {
			if from = max(prev+1, ahead[s]); from < s {
				from = int32(used.after(int(from), int(s)-1, int32(room)-size))
			}
			used.add(int(from), int(s)-1, size)
			for k := from; k < s; k++ {
				taken[k] += size
			}
		}
		if prev >= 0 && prev+1 < from {
			stays = append(stays, tierStay{entry, g, prev + 1, from})
		}
	}
	for s := int32(0); int(s) <= t.n; s++ {
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			g := t.seg[i]
			x := &t.segs[g]
			if x.whole() {
				continue
			}
			come(g, last[g], s, entry[g])
			if x.source >= 0 {
				come(x.source, last[g], s, entry[g])
			}
			last[g], entry[g] = s, i
		}
	}
	return stays, taken
}

// tierKeepEffort bounds how often stays are weighed: steps times stays, of all variants
// together. It is a second or two.
const tierKeepEffort = 3 << 30

// keep walks the trace with the stays of read-only slabs that are worth most together, as
// tierLine finds them, beside ciphertexts that come and go as they did before. Unlike
// belady, which takes one step after the other, it knows what room is worth at each, and
// keeps it free for fetches only where they come in bursts. It returns nil where that
// would take too long.
func (s *tierSearch) keep(after *tierPace, pr *tierPrices) *tierWalk {
	t := s.t
	stays, taken := t.stays(after, s.room)
	if s.kept += (t.n + 1) * len(stays); s.kept > tierKeepEffort {
		return nil
	}
	line := newTierLine(int32(s.room), t.n+1)
	for k, slabs := range taken {
		line.take(int32(k), slabs)
	}
	unit := 0.0
	for _, c := range pr.cost {
		unit = max(unit, c[channelShort]/(1<<24))
	}
	for _, x := range stays {
		line.gap(x.from, x.to, int64(pr.of(x.seg, t.next[x.entry])/unit), t.segs[x.seg].size)
	}
	line.solve()
	type leaves struct {
		slabs  int32
		source bool
	}
	gone := make([]leaves, len(t.seg)) // after each entry
	for i, x := range stays {
		switch lost := t.segs[x.seg].size - line.kept(i); {
		case t.seg[x.entry] == x.seg:
			gone[x.entry].slabs = lost
		case lost > 0:
			gone[x.entry].source = true
		}
	}
	for _, x := range after.away {
		for i := t.ptr[x.prev]; i < t.ptr[x.prev+1]; i++ {
			if t.seg[i] == x.seg {
				gone[i].slabs = t.segs[x.seg].size
			}
		}
	}
	w := newTierWalk(t)
	for k := int32(0); int(k) <= t.n; k++ {
		for i := t.ptr[k]; i < t.ptr[k+1]; i++ {
			w.touch(i, k)
		}
		if w.used > s.room { // a step has to have all sources beside what stays for others
			return nil
		}
		for i := t.ptr[k]; i < t.ptr[k+1]; i++ {
			g := t.seg[i]
			w.leave(g, gone[i].slabs)
			if gone[i].source && w.resident[t.segs[g].source] > 0 {
				w.leave(t.segs[g].source, 1)
			}
		}
	}
	return w
}
