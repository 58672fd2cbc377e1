package main

import (
	"math"
	"sync/atomic"
	"testing"
)

// What input costs is the processor time that steps lose against their like just before
// or after, over the bytes of that time. Neither calls that something else disturbed
// count, nor a core that becomes slower meanwhile, nor waiting for one.
func TestBesideCost(t *testing.T) {
	const rounds, bps = 8, 2e9
	alone, together := newMixTimes(), newMixTimes()
	together.moved = new(atomic.Int64)
	for round := range rounds {
		for i, x := range referenceMix {
			for k := range x.count {
				s, disturbed := float64(i+1), 0.0
				if round >= rounds/2 {
					s *= 1.1
				}
				if (round+k)%4 == 3 {
					disturbed = 7
				}
				alone.core[i] = append(alone.core[i], s)
				together.core[i] = append(together.core[i], 1.25*s+disturbed)
				alone.each[i] = append(alone.each[i], 3*s)
				together.each[i] = append(together.each[i], 2*s)
				together.total += 2 * s
			}
			if x.count <= 0 {
				t.Errorf("%s does not occur in the mix", x.op)
			}
		}
	}
	together.bytes = int64(bps * together.total)
	// A fifth of the time is lost to input: 0.1 s for every 1e9 bytes.
	for _, half := range [][2]int{{0, rounds}, {0, rounds / 2}, {rounds / 2, rounds}} {
		if got := besideCost(alone, together, half[0], half[1]); math.Abs(got-1e-10) > 2e-12 {
			t.Errorf("rounds %d to %d: a byte costs %v s, want 1e-10", half[0], half[1], got)
		}
	}
	alone.total, alone.bytes = 1, bps
	if got := besideCost(together, alone, 0, rounds); got >= 0 {
		t.Errorf("steps that are faster beside input lose %v s for a byte", got)
	}
}
