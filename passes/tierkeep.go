package passes

import "sort"

// tierPace is what is known of a tier plan that the next one goes by.
type tierPace struct {
	start   []float64 // when each step starts if none waits
	backlog []float64 // how many seconds before it the channel has to begin then
	away    []tierAway
	crowd   []float64 // what a slab that is fetched for a step costs those that are fetched before it; nil: not known
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

// toward returns the pace with a backlog and with prices half way to those of another
// plan: what is fetched less before one step is fetched more before others, to and fro.
func (a *tierPace) toward(b *tierPace) *tierPace {
	c := &tierPace{start: b.start, backlog: make([]float64, len(b.backlog)), away: b.away, crowd: make([]float64, len(b.backlog))}
	for i := range c.backlog {
		c.backlog[i] = (a.backlog[i] + b.backlog[i]) / 2
		for _, x := range [][]float64{a.crowd, b.crowd} {
			if x != nil {
				c.crowd[i] += x[i] / 2
			}
		}
	}
	return c
}

// ahead returns for each step the one before which its fetches are ordered, where they
// are ordered so many times the backlog before it.
func (a *tierPace) ahead(times float64) []int32 {
	ahead := make([]int32, len(a.backlog))
	for s := range ahead {
		at := a.start[s] - times*a.backlog[s]
		k := sort.Search(len(a.start), func(k int) bool { return a.start[k] > at }) - 1
		ahead[s] = int32(min(max(k, 0), s))
	}
	return ahead
}

// crowded returns what one more slab that is fetched before each step costs, beside the
// room that it takes itself: what the channel brings before it without a pause has to come
// earlier by the time of a slab, and takes room for so much longer. room is what a slab
// of room costs from each step on.
func (a *tierPace) crowded(room []float64) []float64 {
	crowd, first := make([]float64, len(a.backlog)), make([]int32, len(a.backlog))
	for s, k := range a.ahead(1) {
		// The channel brings something without a pause up to step k, at which it begins
		// with what step s waits for, if some step after k and before s does not begin later.
		if first[s] = k; int(k)+1 < s {
			first[s] = min(k, first[k+1])
		}
		crowd[s] = room[first[s]] - room[k]
	}
	return crowd
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
func (t *tierTrace) stays(after *tierPace, times float64, room int64) ([]tierStay, []int32) {
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
	ahead := after.ahead(times)
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
const tierKeepEffort = 6 << 30

// keep walks the trace with the stays of read-only slabs that are worth most together, as
// tierLine finds them, beside ciphertexts that come and go as they did before. Unlike
// belady, which takes one step after the other, it knows what room is worth at each, and
// keeps it free for fetches only where they come in bursts. It also returns what a slab of
// room costs from each step on, or nil where all that would take too long.
func (s *tierSearch) keep(v *tierVariant, pr *tierPrices) (*tierWalk, []float64) {
	t, after := s.t, v.after
	stays, taken := t.stays(after, v.ahead, s.room)
	if s.kept += (t.n + 1) * len(stays); s.kept > tierKeepEffort {
		return nil, nil
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
		worth := pr.of(x.seg, t.next[x.entry])
		if after.crowd != nil && t.segs[x.seg].way == tierFetch {
			worth += after.crowd[t.next[x.entry]]
		}
		line.gap(x.from, x.to, int64(worth/unit), t.segs[x.seg].size)
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
			return nil, nil
		}
		for i := t.ptr[k]; i < t.ptr[k+1]; i++ {
			g := t.seg[i]
			w.leave(g, gone[i].slabs)
			if gone[i].source && w.resident[t.segs[g].source] > 0 {
				w.leave(t.segs[g].source, 1)
			}
		}
	}
	room := make([]float64, len(line.price))
	for i, p := range line.price {
		room[i] = float64(p) * unit
	}
	return w, room
}
