package ir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Slot states other than "holds element i" (i >= 0) in Layout.Map.
const (
	SlotZero    int32 = -1 // provably zero
	SlotUnknown int32 = -2 // holds something; must be multiplied by zero or ignored
)

// Layout says where the elements of a tensor sit in the slots of a vector of
// ciphertexts, and what the other slots (the gaps) hold.
//
// Map[c*Slots+s] is the row-major index of the element in slot s of ciphertext
// c, or SlotZero or SlotUnknown. An element may sit in several slots
// (replicated); every slot of the map is a promise, so gap state is part of
// the type. With Lanes > 1 each ciphertext holds Lanes independent samples:
// Map has Slots/Lanes entries per ciphertext and entry p describes the slots
// p*Lanes .. p*Lanes+Lanes-1, one per sample (batch-axis packing has
// Lanes == Slots).
type Layout struct {
	Slots int // slots per ciphertext, a power of two
	Cts   int // number of ciphertexts
	Lanes int // samples side by side, a power of two dividing Slots
	Map   []int32
}

// NewLayout returns a layout of Cts ciphertexts with every position zero.
func NewLayout(slots, cts, lanes int) *Layout {
	m := make([]int32, cts*slots/lanes)
	for i := range m {
		m[i] = SlotZero
	}
	return &Layout{Slots: slots, Cts: cts, Lanes: lanes, Map: m}
}

// Positions returns the number of map entries per ciphertext.
func (l *Layout) Positions() int { return l.Slots / l.Lanes }

// Equal reports whether two layouts agree slot by slot.
func (l *Layout) Equal(m *Layout) bool {
	return l == m || l.Slots == m.Slots && l.Cts == m.Cts && l.Lanes == m.Lanes && slices.Equal(l.Map, m.Map)
}

// SamePlaces reports whether two layouts hold their elements in the same slots;
// gaps may differ.
func (l *Layout) SamePlaces(m *Layout) bool {
	if l == nil || m == nil || l.Slots != m.Slots || l.Cts != m.Cts || l.Lanes != m.Lanes {
		return false
	}
	for i, e := range l.Map {
		if e != m.Map[i] && (e >= 0 || m.Map[i] >= 0) {
			return false
		}
	}
	return true
}

// First returns, for each of n elements, the first address (ciphertext *
// positions + position) that holds it, or -1 where none does.
func (l *Layout) First(n int) []int32 {
	a := make([]int32, n)
	for i := range a {
		a[i] = -1
	}
	for p, e := range l.Map {
		if e >= 0 && int(e) < n && a[e] < 0 {
			a[e] = int32(p)
		}
	}
	return a
}

// Unknown reports whether any slot holds garbage.
func (l *Layout) Unknown() bool { return slices.Contains(l.Map, SlotUnknown) }

// Check verifies the layout against a tensor of n elements: sizes are powers
// of two that divide, entries are in range, and every element sits somewhere.
func (l *Layout) Check(n int) error {
	switch {
	case l.Slots <= 0 || l.Slots&(l.Slots-1) != 0:
		return fmt.Errorf("layout has %d slots, not a power of two", l.Slots)
	case l.Lanes <= 0 || l.Lanes&(l.Lanes-1) != 0 || l.Lanes > l.Slots:
		return fmt.Errorf("layout has %d lanes in %d slots", l.Lanes, l.Slots)
	case l.Cts <= 0 || len(l.Map) != l.Cts*l.Positions():
		return fmt.Errorf("layout of %d ciphertexts has %d positions", l.Cts, len(l.Map))
	case n > len(l.Map):
		return fmt.Errorf("layout of %d positions for %d elements", len(l.Map), n)
	}
	seen := make([]bool, n)
	for p, e := range l.Map {
		if e < SlotUnknown || int(e) >= n {
			return fmt.Errorf("layout position %d holds element %d of %d", p, e, n)
		}
		if e >= 0 {
			seen[e] = true
		}
	}
	if i := slices.Index(seen, false); i >= 0 {
		return fmt.Errorf("layout holds no element %d of %d", i, n)
	}
	return nil
}

// Pack places the elements of one array per lane into slot vectors, one
// []float64 of Slots values per ciphertext. Lanes beyond len(samples) hold the
// samples again: what an empty lane computed could lie far outside the range of
// a polynomial and spoil the others.
func (l *Layout) Pack(samples ...[]float64) [][]float64 {
	out := make([][]float64, l.Cts)
	pos := l.Positions()
	for c := range out {
		out[c] = make([]float64, l.Slots)
		for p := 0; p < pos && len(samples) > 0; p++ {
			if e := l.Map[c*pos+p]; e >= 0 {
				for k := range l.Lanes {
					out[c][p*l.Lanes+k] = samples[k%len(samples)][e]
				}
			}
		}
	}
	return out
}

// Unpack reads n elements of one lane back from slot vectors.
func (l *Layout) Unpack(cts [][]float64, lane, n int) []float64 {
	out := make([]float64, n)
	pos := l.Positions()
	for e, a := range l.First(n) {
		if a >= 0 {
			out[e] = cts[int(a)/pos][(int(a)%pos)*l.Lanes+lane]
		}
	}
	return out
}

// String prints the canonical text: "slots=16 cts=1 lanes=1 map=[0..7 _*4 ?*4]".
// The map is written as runs: "a..b" counts up by one, "a..b/s" by s, "x*k"
// repeats, "_" is zero, "?" unknown.
func (l *Layout) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "slots=%d cts=%d lanes=%d map=[", l.Slots, l.Cts, l.Lanes)
	name := func(e int32) string {
		switch e {
		case SlotZero:
			return "_"
		case SlotUnknown:
			return "?"
		}
		return strconv.Itoa(int(e))
	}
	for i := 0; i < len(l.Map); {
		if i > 0 {
			b.WriteByte(' ')
		}
		same := 1
		for i+same < len(l.Map) && l.Map[i+same] == l.Map[i] {
			same++
		}
		step, up := int32(0), 1
		if l.Map[i] >= 0 && i+1 < len(l.Map) && l.Map[i+1] > l.Map[i] {
			step = l.Map[i+1] - l.Map[i]
			for i+up < len(l.Map) && l.Map[i+up] == l.Map[i]+int32(up)*step {
				up++
			}
		}
		switch {
		case same > 1:
			fmt.Fprintf(&b, "%s*%d", name(l.Map[i]), same)
			i += same
		case up > 2 && step == 1:
			fmt.Fprintf(&b, "%d..%d", l.Map[i], l.Map[i+up-1])
			i += up
		case up > 2:
			fmt.Fprintf(&b, "%d..%d/%d", l.Map[i], l.Map[i+up-1], step)
			i += up
		default:
			b.WriteString(name(l.Map[i]))
			i++
		}
	}
	b.WriteByte(']')
	return b.String()
}

// ParseLayout is the inverse of String.
func ParseLayout(text string) (*Layout, error) {
	head, runs, ok := strings.Cut(text, " map=[")
	if !ok || !strings.HasSuffix(runs, "]") {
		return nil, fmt.Errorf("layout %q: no map", text)
	}
	l := new(Layout)
	if _, err := fmt.Sscanf(head, "slots=%d cts=%d lanes=%d", &l.Slots, &l.Cts, &l.Lanes); err != nil {
		return nil, fmt.Errorf("layout %q: %w", head, err)
	}
	const most = 1 << 28
	if l.Slots <= 0 || l.Cts <= 0 || l.Lanes <= 0 || l.Slots > most || l.Cts > most/l.Slots || l.Lanes > l.Slots {
		return nil, fmt.Errorf("layout %q: sizes out of range", head)
	}
	want := l.Cts * l.Slots / l.Lanes
	elem := func(s string) (int32, error) {
		switch s {
		case "_":
			return SlotZero, nil
		case "?":
			return SlotUnknown, nil
		}
		v, err := strconv.ParseInt(s, 10, 32)
		if err != nil || v < 0 {
			return 0, fmt.Errorf("layout run %q: bad element", s)
		}
		return int32(v), nil
	}
	for _, run := range strings.Fields(strings.TrimSuffix(runs, "]")) {
		if a, k, ok := strings.Cut(run, "*"); ok {
			v, err := elem(a)
			if err != nil {
				return nil, err
			}
			n, err := strconv.Atoi(k)
			if err != nil || n < 1 || n > want-len(l.Map) {
				return nil, fmt.Errorf("layout run %q: bad count", run)
			}
			for range n {
				l.Map = append(l.Map, v)
			}
			continue
		}
		if a, rest, ok := strings.Cut(run, ".."); ok {
			b, st, stepped := strings.Cut(rest, "/")
			lo, err := elem(a)
			if err != nil {
				return nil, err
			}
			hi, err := elem(b)
			if err != nil {
				return nil, err
			}
			step := int32(1)
			if stepped {
				if step, err = elem(st); err != nil || step < 1 {
					return nil, fmt.Errorf("layout run %q: bad step", run)
				}
			}
			if lo < 0 || hi < lo || int((hi-lo)/step)+1 > want-len(l.Map) {
				return nil, fmt.Errorf("layout run %q: too long", run)
			}
			for v := int(lo); v <= int(hi); v += int(step) {
				l.Map = append(l.Map, int32(v))
			}
			continue
		}
		v, err := elem(run)
		if err != nil {
			return nil, err
		}
		l.Map = append(l.Map, v)
	}
	if len(l.Map) != want {
		return nil, fmt.Errorf("layout %q: map has %d of %d positions", head, len(l.Map), want)
	}
	return l, nil
}
