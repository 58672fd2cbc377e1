package store

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"
)

// instant is a medium that takes no time and holds nothing.
type instant struct{ heapMedium }

func (*instant) ReadAt([][]byte, int64) error  { return nil }
func (*instant) WriteAt([][]byte, int64) error { return nil }
func (*instant) Describe() string              { return "nothing" }
func (*instant) Close() error                  { return nil }

type instantly struct{}

func (instantly) Name() string                      { return "instant" }
func (instantly) Open(string, bool) (Medium, error) { return &instant{}, nil }
func (instantly) Temp(string) (Medium, error)       { return &instant{}, nil }

// The bandwidth is that asked for, whatever the size and number of transfers; with
// few at once it is what latency leaves.
func TestThrottlePaces(t *testing.T) {
	for _, c := range []struct {
		bps     float64
		latency time.Duration
		depth   int
		piece   int64
		workers int
		want    float64 // bytes per second
	}{
		{100e6, 0, 0, 1 << 20, 1, 100e6},
		{100e6, 300 * time.Microsecond, 4, 512 << 10, 4, 100e6},
		{1e9, 0, 1, 64 << 10, 4, 1e9},
		{1e9, 100 * time.Microsecond, 8, 1 << 20, 4, 1e9},
		{1e9, time.Millisecond, 1, 1 << 20, 4, (1 << 20) / (1e-3 + (1<<20)/1e9)},
		{10e9, 0, 0, 64 << 10, 2, 10e9},
		{10e9, 0, 4, 2 << 20, 4, 10e9},
		{0, 2 * time.Millisecond, 2, 4096, 2, 2 * 4096 / 2e-3},
	} {
		name := fmt.Sprintf("%.0f MB/s, %v, depth %d, %d bytes, %d at once", c.bps/1e6, c.latency, c.depth, c.piece, c.workers)
		off := math.Inf(1)
		for range 8 { // a busy machine may spoil some of them
			th := NewThrottle(instantly{}, Imitation{ReadBps: c.bps, WriteBps: c.bps, Latency: c.latency, Depth: c.depth})
			m, err := th.Temp("")
			if err != nil {
				t.Fatal(err)
			}
			const seconds = 0.15
			each := int(c.want*seconds/float64(c.piece))/c.workers + 1
			slabs := [][]byte{make([]byte, c.piece)}
			var wg sync.WaitGroup
			began := time.Now()
			for w := range c.workers {
				wg.Go(func() {
					for range each {
						if w%2 == 0 || c.bps > 0 {
							_ = m.ReadAt(slabs, 0)
						} else {
							_ = m.WriteAt(slabs, 0)
						}
					}
				})
			}
			wg.Wait()
			got := float64(each*c.workers) * float64(c.piece) / time.Since(began).Seconds()
			if _, all := th.Behind(); all != int64(each*c.workers) {
				t.Fatalf("%d transfers of %d", all, each*c.workers)
			}
			if d := got/c.want - 1; math.Abs(d) < math.Abs(off) {
				off = d
			}
			if math.Abs(off) < 0.03 {
				break
			}
		}
		t.Logf("%s: %+.1f %%", name, 100*off)
		if math.Abs(off) > 0.1 {
			t.Errorf("%s: off by %.1f %%", name, 100*off)
		}
	}
}

// Two files of one device share its bandwidth; reads and writes do not.
func TestThrottleShares(t *testing.T) {
	th := NewThrottle(instantly{}, Imitation{ReadBps: 100e6, WriteBps: 100e6})
	slabs := [][]byte{make([]byte, 1<<20)}
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 3 {
		m, err := th.Open("", true)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range 5 {
				if i < 2 {
					_ = m.ReadAt(slabs, 0)
				} else {
					_ = m.WriteAt(slabs, 0)
				}
			}
		})
	}
	wg.Wait()
	if s := time.Since(began).Seconds(); s < 0.1 || s > 0.2 {
		t.Errorf("10 MiB of reads beside 5 MiB of writes at 100 MB/s take %.3f s, want 0.105", s)
	}
}

// An imitation says that it is one, counts what its base was too slow for, and
// cannot be used in place.
func TestThrottleSaysSo(t *testing.T) {
	heap := &Heap{}
	th := NewThrottle(heap, Imitation{Name: "optane-1dimm", ReadBps: 1e15})
	h := Header{KeyFile, 4096, "set"}
	f, err := Create(th, "x", h)
	if err != nil {
		t.Fatal(err)
	}
	all := specs(5)
	if _, err := install(f, all, 4096); err != nil {
		t.Fatal(err)
	}
	if n := verify(t, f, all, 4096); n != 5 {
		t.Errorf("%d objects", n)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = Open(th, "x", h); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if d := f.Describe(); !strings.HasPrefix(d, "imitation of optane-1dimm (") || !strings.Contains(d, "DRAM") || f.Addressable() {
		t.Errorf("it calls itself %q, in place %v", d, f.Addressable())
	}
	if late, all := th.Behind(); late == 0 || late > all {
		t.Errorf("%d of %d transfers were late", late, all)
	}
}

func TestParseImitation(t *testing.T) {
	named := map[string]Imitation{"nvme": {ReadBps: 3e9, WriteBps: 1e9, Latency: 100 * time.Microsecond, Depth: 8}}
	for spec, want := range map[string]Imitation{
		"nvme":                            {"nvme", 3e9, 1e9, 100 * time.Microsecond, 8},
		"nvme,read=2GB/s":                 {"nvme, changed", 2e9, 1e9, 100 * time.Microsecond, 8},
		"read=500MB/s,write=200MB/s":      {"", 5e8, 2e8, 0, 0},
		"read=2GiB, latency=300us":        {"", 2 << 30, 0, 300 * time.Microsecond, 0},
		"latency=1.5ms,depth=4,read=1000": {"", 1000, 0, 1500 * time.Microsecond, 4},
	} {
		if got, err := ParseImitation(spec, named); err != nil || got != want {
			t.Errorf("%s: %+v, %v", spec, got, err)
		}
	}
	for _, spec := range []string{"", "optane", "read=1GB/s,nvme", "read=fast", "read=0", "depth=0", "depth=x", "latency=-1s", "latency=3", "color=red", "read=1GB/s,read=2GB/s", "read=NaN"} {
		if _, err := ParseImitation(spec, named); err == nil {
			t.Errorf("%q was accepted", spec)
		}
	}
}
