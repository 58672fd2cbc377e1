package passes

import "math"

// tierLine chooses what to keep: of gaps on a line of places, each so many slabs wide
// and worth something per slab kept, those that are worth most together, where every
// place has room for so many slabs of the gaps that span it.
//
// That is a flow of least cost: a gap is an arc from its first place to the place after
// its last one, the room that is left at a place an arc to the next. Its linear program has
// whole solutions, so that the result is the best that there is. It is found by the
// network simplex method (G. B. Dantzig, 1951) with strongly feasible trees, which do
// not cycle (W. H. Cunningham, "A network simplex method", Mathematical Programming 11
// (1976)), beginning with nothing kept.
type tierLine struct {
	tail, head []int32
	cost       []int64
	size, flow []int32
	tree       []bool // the arc is part of the tree

	// The tree, with the last place as its root.
	parent, pred, depth   []int32 // pred is the arc to the parent
	child, sibling, older []int32 // first child, next and previous of the same parent; -1 for none
	price                 []int64 // of a slab of room from here on
	scan                  int
	work                  []int32
}

// newTierLine returns a line of so many places with the same room.
func newTierLine(room int32, places int) *tierLine {
	n := places + 1
	l := &tierLine{parent: make([]int32, n), pred: make([]int32, n), depth: make([]int32, n), child: make([]int32, n), sibling: make([]int32, n), older: make([]int32, n), price: make([]int64, n)}
	for i := range n {
		l.parent[i], l.pred[i], l.depth[i] = int32(i)+1, int32(i), int32(n-1-i)
		l.child[i], l.sibling[i], l.older[i] = int32(i)-1, -1, -1
	}
	l.parent[n-1], l.pred[n-1] = -1, -1
	for i := range places {
		l.arc(int32(i), int32(i)+1, 0, math.MaxInt32, room)
		l.tree[i] = true
	}
	return l
}

func (l *tierLine) arc(from, to int32, cost int64, size, flow int32) {
	l.tail, l.head = append(l.tail, from), append(l.head, to)
	l.cost = append(l.cost, cost)
	l.size, l.flow, l.tree = append(l.size, size), append(l.flow, flow), append(l.tree, false)
}

// take leaves so much less room at a place.
func (l *tierLine) take(place, slabs int32) { l.flow[place] = max(0, l.flow[place]-slabs) }

// gap adds a gap of size slabs over the places from..to-1, each worth something if it is
// kept.
func (l *tierLine) gap(from, to int32, worth int64, size int32) { l.arc(from, to, -worth, size, 0) }

// kept returns how many slabs of a gap the best keeps, by the order in which gaps were
// added.
func (l *tierLine) kept(gap int) int32 { return l.flow[len(l.parent)-1+gap] }

// enter returns an arc whose change saves something, the best of a block of arcs, and
// false where there is none.
func (l *tierLine) enter() (int, bool) {
	const block = 256
	best, at, arcs := int64(0), -1, len(l.tail)
	for i, left := 0, block; i < arcs; i++ {
		a := l.scan
		if l.scan++; l.scan == arcs {
			l.scan = 0
		}
		if !l.tree[a] {
			c := l.cost[a] + l.price[l.tail[a]] - l.price[l.head[a]]
			if l.flow[a] > 0 {
				c = -c
			}
			if c < best {
				best, at = c, a
			}
		}
		if left--; left == 0 {
			if at >= 0 {
				break
			}
			left = block
		}
	}
	return at, at >= 0
}

// solve returns what the best is worth. Gaps and room must be complete.
func (l *tierLine) solve() int64 {
	for {
		in, ok := l.enter()
		if !ok {
			break
		}
		l.exchange(in)
	}
	worth := int64(0)
	for i, c := range l.cost {
		worth -= c * int64(l.flow[i])
	}
	return worth
}

// exchange sends as much as there is room for around the cycle that an arc closes.
func (l *tierLine) exchange(in int) {
	first, second, step := l.tail[in], l.head[in], int32(1)
	if l.flow[in] > 0 {
		first, second, step = second, first, -1
	}
	// up is what can still flow from x to its parent, down what can flow back.
	up := func(x int32) int32 {
		if a := l.pred[x]; l.tail[a] == x {
			return l.size[a] - l.flow[a]
		} else {
			return l.flow[a]
		}
	}
	down := func(x int32) int32 {
		if a := l.pred[x]; l.tail[a] == x {
			return l.flow[a]
		} else {
			return l.size[a] - l.flow[a]
		}
	}
	most, out, side := l.size[in], int32(-1), 0
	x, y := first, second
	for x != y { // to where the paths meet
		if l.depth[x] >= l.depth[y] {
			if d := down(x); d < most {
				most, out, side = d, x, 1
			}
			x = l.parent[x]
			continue
		}
		y = l.parent[y]
	}
	join := x
	for y = second; y != join; y = l.parent[y] {
		if d := up(y); d <= most {
			most, out, side = d, y, 2
		}
	}
	if most > 0 {
		l.flow[in] += step * most
		for x := first; x != join; x = l.parent[x] {
			if a := l.pred[x]; l.tail[a] == x {
				l.flow[a] -= most
			} else {
				l.flow[a] += most
			}
		}
		for x := second; x != join; x = l.parent[x] {
			if a := l.pred[x]; l.tail[a] == x {
				l.flow[a] += most
			} else {
				l.flow[a] -= most
			}
		}
	}
	switch side {
	case 1:
		l.hang(first, second, out, int32(in))
	case 2:
		l.hang(second, first, out, int32(in))
	}
}

// hang takes the subtree below the arc of out away and hangs it by its place from to
// another one, by an arc that joins the two.
func (l *tierLine) hang(from, to, out, arc int32) {
	l.tree[l.pred[out]], l.tree[arc] = false, true
	for x, parent, pred := from, to, arc; ; {
		old, oldPred := l.parent[x], l.pred[x]
		l.cut(x)
		l.parent[x], l.pred[x] = parent, pred
		l.sibling[x], l.older[x] = l.child[parent], -1
		if c := l.child[parent]; c >= 0 {
			l.older[c] = x
		}
		l.child[parent] = x
		if x == out {
			break
		}
		x, parent, pred = old, x, oldPred
	}
	price := l.price[to] + l.cost[arc]
	if l.tail[arc] == from {
		price = l.price[to] - l.cost[arc]
	}
	change := price - l.price[from]
	l.work = append(l.work[:0], from)
	for len(l.work) > 0 {
		x := l.work[len(l.work)-1]
		l.work = l.work[:len(l.work)-1]
		l.price[x] += change
		l.depth[x] = l.depth[l.parent[x]] + 1
		for c := l.child[x]; c >= 0; c = l.sibling[c] {
			l.work = append(l.work, c)
		}
	}
}

// cut takes a place out of the children of its parent.
func (l *tierLine) cut(x int32) {
	if o := l.older[x]; o >= 0 {
		l.sibling[o] = l.sibling[x]
	} else {
		l.child[l.parent[x]] = l.sibling[x]
	}
	if s := l.sibling[x]; s >= 0 {
		l.older[s] = l.older[x]
	}
}
