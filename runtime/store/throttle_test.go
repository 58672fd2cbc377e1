package store

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// timed is a technology that holds nothing, and whose transfers take a time of their
// own.
type timed time.Duration

func (timed) Name() string                        { return "timed" }
func (d timed) Open(string, bool) (Medium, error) { return &timedMedium{own: time.Duration(d)}, nil }
func (d timed) Temp(string) (Medium, error)       { return &timedMedium{own: time.Duration(d)}, nil }

type timedMedium struct {
	heapMedium
	own time.Duration
}

func (m *timedMedium) ReadAt([][]byte, int64) error  { time.Sleep(m.own); return nil }
func (m *timedMedium) WriteAt([][]byte, int64) error { time.Sleep(m.own); return nil }
func (*timedMedium) Close() error                    { return nil }

// simulated makes a throttle for the simulated clock of a bubble of package synctest,
// which counts the transfers' time exactly, whatever the machine is doing. Its sleeps
// end too late by what late says.
func simulated(base Technology, i Imitation, late func() time.Duration) *Throttle {
	t := NewThrottle(base, i)
	t.sleepUntil = func(due time.Time) { time.Sleep(time.Until(due) + late()) }
	return t
}

func punctual() time.Duration { return 0 }

// A number of transfers takes the time that bandwidth, latency and depth make of
// them, whatever their size, and although sleeps end too late.
func TestThrottlePaces(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		bps     float64
		latency time.Duration
		depth   int
		piece   int64
		workers int
		n       int64         // transfers, of all workers
		want    time.Duration // of all of them
	}{
		{100e6, 0, 0, 1e6, 1, 20, 200 * ms},
		{100e6, 300 * us, 4, 5e5, 4, 40, 300*us + 200*ms}, // the first latency shows, the others pass meanwhile
		{1e9, 0, 1, 64e3, 4, 2000, 128 * ms},
		{1e9, 100 * us, 8, 1e6, 4, 200, 100*us + 200*ms},
		{1e9, 1 * ms, 1, 1e6, 4, 100, 100 * 2 * ms}, // one at once: latency after latency
		{1e9, 1 * ms, 2, 1e6, 4, 100, 1*ms + 100*ms},
		{1e9, 3 * ms, 2, 1e6, 2, 100, 50*4*ms + 1*ms}, // two at once cannot hide it: one waits for the other's first transfer
		{10e9, 0, 0, 64e3, 2, 20000, 128 * ms},        // each too short to sleep for
		{10e9, 0, 4, 2e6, 4, 800, 160 * ms},
		{0, 2 * ms, 2, 4096, 2, 100, 100 * ms},
		{0, 2 * ms, 2, 4096, 6, 300, 300 * ms}, // four wait for a place
		{0, 0, 0, 1e6, 3, 300, 0},
	} {
		for _, late := range []time.Duration{0, 70 * us, 1100 * us} {
			for direction, name := range []string{reading: "read", writing: "write"} {
				synctest.Test(t, func(t *testing.T) {
					i := Imitation{ReadBps: c.bps, WriteBps: 77e6, Latency: c.latency, Depth: c.depth}
					if direction == writing {
						i.ReadBps, i.WriteBps = i.WriteBps, i.ReadBps
					}
					th := simulated(timed(0), i, func() time.Duration { return late })
					m, err := th.Temp("")
					if err != nil {
						t.Fatal(err)
					}
					transfer := m.ReadAt
					if direction == writing {
						transfer = m.WriteAt
					}
					slabs := [][]byte{make([]byte, c.piece)}
					began := time.Now()
					var wg sync.WaitGroup
					var taken atomic.Int64
					for range c.workers {
						wg.Go(func() {
							for taken.Add(1) <= c.n {
								if err := transfer(slabs, 0); err != nil {
									t.Error(err)
								}
							}
						})
					}
					wg.Wait()
					got := time.Since(began)
					if got < c.want-shortWait-time.Duration(c.n) || got > c.want+late { // durations are rounded down to 1 ns
						t.Errorf("%d %ss of %d bytes, %d workers, sleeps late by %v, %v: took %v, want %v", c.n, name, c.piece, c.workers, late, i, got, c.want)
					}
					if behind, n := th.Behind(); behind != 0 || n != c.n {
						t.Errorf("%v: %d of %d transfers behind, want none of %d", i, behind, n, c.n)
					}
				})
			}
		}
	}
}

// A sleep that is very late, as on a machine that was suspended, is not made up for.
func TestThrottleForgivesLongSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := time.Second
		th := simulated(timed(0), Imitation{ReadBps: 1e9}, func() time.Duration { defer func() { late = 0 }(); return late })
		m, _ := th.Temp("")
		began := time.Now()
		for range 100 {
			_ = m.ReadAt([][]byte{make([]byte, 1e6)}, 0)
		}
		if got, want := time.Since(began), 100*time.Millisecond+time.Second-longestDebt; got < want-shortWait || got > want {
			t.Errorf("100 reads of a millisecond after a sleep that was a second late took %v, want %v", got, want)
		}
	})
}

// Two files of one device share its bandwidth; reads and writes do not.
func TestThrottleShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := simulated(timed(0), Imitation{ReadBps: 100e6, WriteBps: 50e6}, punctual)
		slabs := [][]byte{make([]byte, 1e6)}
		began := time.Now()
		var took [3]time.Duration
		var wg sync.WaitGroup
		for i := range took {
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
				took[i] = time.Since(began)
			})
		}
		wg.Wait()
		if reads, writes := max(took[0], took[1]), took[2]; reads != 100*time.Millisecond || writes != 100*time.Millisecond {
			t.Errorf("10 MB of reads at 100 MB/s took %v, 5 MB of writes beside them at 50 MB/s %v, want 100 ms for both", reads, writes)
		}
	})
}

// A base that is slower than what it imitates is counted as behind, and its own time
// is what a transfer takes.
func TestThrottleBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := simulated(timed(3*time.Millisecond), Imitation{ReadBps: 1e9}, punctual)
		m, _ := th.Temp("")
		began := time.Now()
		for _, size := range []int{1e6, 4e6, 2e6, 5e6} { // 1, 4, 2 and 5 ms as imitated
			_ = m.ReadAt([][]byte{make([]byte, size)}, 0)
		}
		if got, want := time.Since(began), 15*time.Millisecond; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
		if late, all := th.Behind(); late != 2 || all != 4 {
			t.Errorf("%d of %d transfers behind, want 2 of 4", late, all)
		}
	})
}

// A throttle whose clock is the real one waits.
func TestThrottleRealClock(t *testing.T) {
	th := NewThrottle(timed(0), Imitation{ReadBps: 1e9})
	m, _ := th.Temp("")
	began := time.Now()
	for range 10 {
		_ = m.ReadAt([][]byte{make([]byte, 1e6)}, 0)
	}
	if got := time.Since(began); got < 10*time.Millisecond-shortWait {
		t.Errorf("ten reads of a millisecond took %v", got)
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
