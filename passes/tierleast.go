package passes

import "math"

// leastCost returns a lower bound on what residency costs the cores under any tier plan
// with the same forms and arena, whatever it reads, makes and keeps when: the time that
// input takes from the steps and that of making slabs, in seconds. Each slab has to come
// once, and again for each touch before which it did not stay; what stays fits beside
// what the steps touch. Where the source of a plaintext is needed again is not known before
// it is known what stays of its slabs: it counts for the slabs and on its own, which errs
// towards less. Memory that can be used in place has no such bound, and gives 0.
//
// Of long plans, so many steps at a time are weighed: what stays from one window to the
// next is worth its share in each, and may be kept in one and not in the other, which
// errs towards less again.
func (t *tierTrace) leastCost(m *Machine, room int64, window int) float64 {
	if m.Tier.Addressable {
		return 0
	}
	slab := float64(t.p.Params.SlabBytes())
	read := m.Input * slab
	come := make([]float64, len(t.segs)) // what it costs to have a slab of a segment again
	cold := 0.0
	for g := range t.segs {
		x := &t.segs[g]
		made := 0.0
		if m.MakeSeconds != nil && (x.way == tierMake || x.way == tierEither) {
			made = m.MakeSeconds(x.obj) / float64(max(1, m.Cores))
		}
		switch x.way {
		case tierFetch, tierStep:
			come[g] = read
		case tierMake:
			come[g] = made
		case tierEither:
			come[g] = min(read, made)
		}
		if x.way != tierStep && !(t.sourced(int32(g)) && t.segs[g-1].way == tierEither) {
			cold += come[g] * float64(x.size)
		}
	}
	lines := newTierWindows(int32(min(room, math.MaxInt32)), t.n+1, window)
	top := 0.0
	for _, c := range come {
		top = max(top, c)
	}
	if top == 0 {
		return cold
	}
	unit := top / (1 << 24)
	lost := int64(0)
	for s := int32(0); int(s) <= t.n; s++ {
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			g, next := t.seg[i], t.next[i]
			x := &t.segs[g]
			lines.take(s, x.size)
			if int(next) > t.n || next == s+1 {
				continue
			}
			worth, source := come[g], 0.0
			if x.source >= 0 {
				if source = read; x.way == tierEither {
					source = 0 // the slabs can be read as they are
				}
				worth += source / float64(x.size)
			}
			lines.gap(s+1, next, int64(worth/unit), x.size)
			if source > 0 {
				lines.gap(s+1, next, int64(source/unit), 1)
			}
			// What is gained twice is lost no more than once.
			lost += int64(come[g]/unit)*int64(x.size) + int64(source/unit)
		}
	}
	return cold + max(0, float64(lost-lines.solve())*unit)
}

// tierLeastWindow is how many steps leastCost weighs together: the time for that grows
// with its square.
const tierLeastWindow = 8192

// tierWindows is a line of places cut into lines that are solved one by one, which gives
// no less than the line itself is worth.
type tierWindows struct {
	window int32
	lines  []*tierLine
}

func newTierWindows(room int32, places, window int) *tierWindows {
	w := &tierWindows{window: int32(window)}
	for ; places > 0; places -= window {
		w.lines = append(w.lines, newTierLine(room, min(places, window)))
	}
	return w
}

func (w *tierWindows) take(place, slabs int32) {
	w.lines[place/w.window].take(place%w.window, slabs)
}

// gap adds a gap over the places from..to-1, to each line by its share of the places. What
// that is worth is rounded up.
func (w *tierWindows) gap(from, to int32, worth int64, size int32) {
	all := int64(to - from)
	for from < to {
		first := from / w.window * w.window
		end := min(to, first+w.window)
		w.lines[from/w.window].gap(from-first, end-first, (worth*int64(end-from)+all-1)/all, size)
		from = end
	}
}

// solve returns what the best of all lines is worth.
func (w *tierWindows) solve() int64 {
	worth := int64(0)
	for _, l := range w.lines {
		worth += l.solve()
	}
	return worth
}
