package main

import (
	"math"
	"sync/atomic"
	"testing"
)

// What input costs is the time that the steps lose, over the bytes of that time;
// calls that something else disturbed do not count.
func TestBesideCost(t *testing.T) {
	alone, together := newMixTimes(), newMixTimes()
	together.moved = new(atomic.Int64)
	for i, x := range referenceMix {
		for k := range 8 {
			disturbed := 0.0
			if k > 4 {
				disturbed = 7
			}
			s := float64(i + 1)
			alone.each[i] = append(alone.each[i], s+disturbed)
			together.each[i] = append(together.each[i], 1.25*s+disturbed)
			together.total += 1.25*s + disturbed
		}
		if x.count <= 0 {
			t.Errorf("%s does not occur in the mix", x.op)
		}
	}
	const bps = 2e9
	together.bytes = int64(bps * together.total)
	// A fifth of the time is lost to input: 0.1 s for every 1e9 bytes.
	if got := besideCost(alone, together); math.Abs(got-1e-10) > 1e-13 {
		t.Errorf("a byte costs %v s, want 1e-10", got)
	}
	alone.total, alone.bytes = 1, bps
	if got := besideCost(together, alone); got != 0 {
		t.Errorf("steps that are faster beside input lose %v s for a byte", got)
	}
}
