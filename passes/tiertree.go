package passes

// tierTree holds a number per step and answers range additions and searches in
// logarithmic time. Each node holds the maximum of its range, without what was
// added to the ranges above it.
type tierTree struct {
	width int
	max   []int32
	lazy  []int32 // added to the whole range of the node, contained in max
}

// newTierTree returns a tree that holds the given numbers.
func newTierTree(start []int32) *tierTree {
	w := 1
	for w < len(start) {
		w *= 2
	}
	t := &tierTree{width: w, max: make([]int32, 2*w), lazy: make([]int32, 2*w)}
	copy(t.max[w:], start)
	for i := w - 1; i > 0; i-- {
		t.max[i] = max(t.max[2*i], t.max[2*i+1])
	}
	return t
}

// add adds v to the steps lo..hi, none where hi < lo.
func (t *tierTree) add(lo, hi int, v int32) {
	if lo <= hi {
		t.addAt(1, 0, t.width-1, lo, hi, v)
	}
}

func (t *tierTree) addAt(node, l, r, lo, hi int, v int32) {
	if lo <= l && r <= hi {
		t.max[node] += v
		t.lazy[node] += v
		return
	}
	m := (l + r) / 2
	if lo <= m {
		t.addAt(2*node, l, m, lo, hi, v)
	}
	if hi > m {
		t.addAt(2*node+1, m+1, r, lo, hi, v)
	}
	t.max[node] = max(t.max[2*node], t.max[2*node+1]) + t.lazy[node]
}

// after returns the first step q in lo..hi+1 such that no step in q..hi holds
// more than limit.
func (t *tierTree) after(lo, hi int, limit int32) int {
	if hi < lo {
		return lo
	}
	if p := t.lastOver(1, 0, t.width-1, lo, hi, limit); p >= 0 {
		return p + 1
	}
	return lo
}

// lastOver returns the last step in lo..hi that holds more than limit, or -1.
func (t *tierTree) lastOver(node, l, r, lo, hi int, limit int32) int {
	if t.max[node] <= limit || r < lo || hi < l {
		return -1
	}
	if l == r {
		return l
	}
	limit -= t.lazy[node]
	m := (l + r) / 2
	if p := t.lastOver(2*node+1, m+1, r, lo, hi, limit); p >= 0 {
		return p
	}
	return t.lastOver(2*node, l, m, lo, hi, limit)
}
