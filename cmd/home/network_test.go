package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/runtime/dataset"
)

// Never more runs are in progress than the network allows, and results come in
// the order of the samples whatever finishes first.
func TestFeed(t *testing.T) {
	in := ir.NewArray(11, 2)
	for i := range in.Data {
		in.Data[i] = float64(i)
	}
	path := filepath.Join(t.TempDir(), "x.npy")
	if err := dataset.WriteNpy(path, in); err != nil {
		t.Fatal(err)
	}
	for _, parallel := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(parallel), func(t *testing.T) {
			s, err := dataset.Open(path, dataset.Options{Shape: []int{2}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var running, most atomic.Int64
			n := &network{batch: 2, own: 2, sample: []int{2}, parallel: parallel, run: func(_ context.Context, a *ir.Array) (result, error) {
				now := running.Add(1)
				defer running.Add(-1)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				time.Sleep(time.Duration(5-int(a.Data[0])%5) * time.Millisecond)
				return result{out: a}, nil
			}}
			var all gather
			if err := n.feed(context.Background(), s, func(c chunk) error {
				if c.first != all.n {
					t.Errorf("samples from %d after %d", c.first, all.n)
				}
				if parallel == 1 && running.Load() != 0 {
					t.Error("the next run began before this one was done with")
				}
				return all.add(c.out)
			}); err != nil {
				t.Fatal(err)
			}
			if d := maxDiff(all.array().Data, in.Data); all.n != 11 || d != 0 {
				t.Errorf("%d samples, difference %g", all.n, d)
			}
			if got := int(most.Load()); got > parallel {
				t.Errorf("%d runs at once, want at most %d", got, parallel)
			}
		})
	}
}
