package ir

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLayout packs samples by random layouts: every lane gives back the sample
// it was given, lanes without one hold a sample again, gaps are zero, and the
// text form is read back to the same layout.
func TestLayout(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	for range 300 {
		slots := 4 << r.IntN(4)
		lanes := 1 << r.IntN(3)
		l := NewLayout(slots, 1+r.IntN(3), lanes)
		n := 1 + r.IntN(len(l.Map))
		perm := r.Perm(len(l.Map))
		for p, at := range perm {
			switch {
			case p < n:
				l.Map[at] = int32(p)
			case r.IntN(3) == 0:
				l.Map[at] = SlotUnknown
			case r.IntN(3) == 0:
				l.Map[at] = int32(r.IntN(n))
			}
		}
		if err := l.Check(n); err != nil {
			t.Fatal(err)
		}
		back, err := ParseLayout(l.String())
		if err != nil || !back.Equal(l) {
			t.Fatalf("%s is read back as %v (%v)", l, back, err)
		}
		samples := make([][]float64, 1+r.IntN(lanes))
		for k := range samples {
			samples[k] = make([]float64, n)
			for i := range samples[k] {
				samples[k][i] = 1 + r.Float64()
			}
		}
		cts := l.Pack(samples...)
		for lane := range lanes {
			if got := l.Unpack(cts, lane, n); !slices.Equal(got, samples[lane%len(samples)]) {
				t.Fatalf("%s: lane %d of %d samples holds %v", l, lane, len(samples), got)
			}
		}
		for p, e := range l.Map {
			for lane := range lanes {
				if z := cts[p/l.Positions()][p%l.Positions()*lanes+lane]; e < 0 && z != 0 {
					t.Fatalf("%s: gap %d holds %g", l, p, z)
				}
			}
		}
		l.Map[perm[0]] = SlotZero // element 0 is gone, unless it was replicated
		if !slices.Contains(l.Map, 0) && l.Check(n) == nil {
			t.Fatalf("%s passes although it lacks element 0 of %d", l, n)
		}
	}
}
