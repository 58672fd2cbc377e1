package store

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Imitation says how another technology performs, for experiments on machines that
// lack it. Reads share one bandwidth and writes another; a transfer waits for one of
// Depth places, then for the latency, then for its turn at the bandwidth.
type Imitation struct {
	Name     string        // of what is imitated; empty: the figures themselves
	ReadBps  float64       // bytes per second; 0: no limit
	WriteBps float64       // likewise
	Latency  time.Duration // from the start of a transfer to its first byte
	Depth    int           // transfers at once; 0: any number
}

// String describes the imitation: its name, and the figures.
func (i Imitation) String() string {
	var parts []string
	rate := func(what string, bps float64) {
		if bps > 0 {
			parts = append(parts, fmt.Sprintf("%s %.4g MB/s", what, bps/1e6))
		}
	}
	rate("read", i.ReadBps)
	rate("write", i.WriteBps)
	if i.Latency > 0 {
		parts = append(parts, fmt.Sprintf("latency %v", i.Latency))
	}
	if i.Depth > 0 {
		parts = append(parts, fmt.Sprintf("depth %d", i.Depth))
	}
	figures := strings.Join(parts, ", ")
	switch {
	case i.Name == "" && figures == "":
		return "imitation without limits"
	case i.Name == "":
		return "imitation of " + figures
	case figures == "":
		return "imitation of " + i.Name
	}
	return fmt.Sprintf("imitation of %s (%s)", i.Name, figures)
}

// ParseImitation reads an imitation: a name out of named, or figures such as
// read=500MB/s,write=200MB/s,latency=300us,depth=4, or a name whose figures are
// changed by those that follow. Bandwidths are in bytes per second with the units
// kB, MB, GB (powers of ten) and KiB, MiB, GiB; "/s" may be left out.
func ParseImitation(spec string, named map[string]Imitation) (Imitation, error) {
	var out Imitation
	given := map[string]bool{}
	for k, part := range strings.Split(spec, ",") {
		part = strings.TrimSpace(part)
		key, value, figure := strings.Cut(part, "=")
		if !figure {
			i, ok := named[part]
			if k > 0 || !ok {
				names := append(slices.Sorted(maps.Keys(named)), "figures such as read=500MB/s,write=200MB/s,latency=300us,depth=4")
				return out, fmt.Errorf("%q is no technology to imitate: give %s", part, strings.Join(names, " or "))
			}
			if out = i; out.Name == "" {
				out.Name = part
			}
			continue
		}
		if given[key] {
			return out, fmt.Errorf("%s is given twice in %q", key, spec)
		}
		given[key] = true
		var err error
		switch key {
		case "read":
			out.ReadBps, err = parseRate(value)
		case "write":
			out.WriteBps, err = parseRate(value)
		case "latency":
			if out.Latency, err = time.ParseDuration(value); err == nil && (out.Latency < 0 || out.Latency > time.Minute) {
				err = fmt.Errorf("%v is not between 0 and a minute", out.Latency)
			}
		case "depth":
			if out.Depth, err = strconv.Atoi(value); err == nil && (out.Depth < 1 || out.Depth > 1<<16) {
				err = fmt.Errorf("%d is not between 1 and 65536", out.Depth)
			}
		default:
			err = fmt.Errorf("there are read, write, latency and depth")
		}
		if err != nil {
			return out, fmt.Errorf("%q in %q: %w", part, spec, err)
		}
		if out.Name != "" && !strings.HasSuffix(out.Name, ", changed") {
			out.Name += ", changed"
		}
	}
	return out, nil
}

// parseRate reads bytes per second.
func parseRate(s string) (float64, error) {
	number, unit := strings.TrimSuffix(s, "/s"), 1.0
	for _, u := range []struct {
		suffix string
		bytes  float64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}} {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = rest, u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v*unit >= 1) || v*unit > 1e15 {
		return 0, fmt.Errorf("%q is not a bandwidth; write 500MB/s or 2GiB/s", s)
	}
	return v * unit, nil
}

// Throttle is a technology that is slowed down to the figures of another. All files
// that are opened through one Throttle share its bandwidth, as files on one device
// do. It is no slower than its base, so that only slower technologies can be
// imitated: Behind says how often the base was too slow. What it opens cannot be
// used in place, because nothing slows loads down.
type Throttle struct {
	base       Technology
	i          Imitation
	sleepUntil func(due time.Time) // tests give the simulated clock's

	mu     sync.Mutex
	freed  *sync.Cond
	busy   int
	free   [2]time.Time    // when each direction's bandwidth is free
	places []time.Duration // free places: how much too late the last transfer in each was let go

	behind, all atomic.Int64
}

// NewThrottle slows a technology down.
func NewThrottle(base Technology, i Imitation) *Throttle {
	t := &Throttle{base: base, i: i, sleepUntil: sleepUntil}
	t.freed = sync.NewCond(&t.mu)
	return t
}

// Name is "imitation".
func (t *Throttle) Name() string { return "imitation" }

// Imitation returns what is imitated.
func (t *Throttle) Imitation() Imitation { return t.i }

// Behind returns how many transfers the base took longer for than the imitation
// says, and how many there were. Where the former are not few, times measured are
// those of the base.
func (t *Throttle) Behind() (late, all int64) { return t.behind.Load(), t.all.Load() }

// Open opens a file of the base.
func (t *Throttle) Open(path string, write bool) (Medium, error) {
	return t.wrap(t.base.Open(path, write))
}

// Temp makes a file of the base.
func (t *Throttle) Temp(dir string) (Medium, error) { return t.wrap(t.base.Temp(dir)) }

func (t *Throttle) wrap(m Medium, err error) (Medium, error) {
	if err != nil {
		return nil, err
	}
	return throttled{m: m, t: t}, nil
}

const (
	reading = iota
	writing
)

const (
	shortWait   = 30 * time.Microsecond // not worth a sleep
	longestDebt = 20 * time.Millisecond // what is made up for of a sleep that took too long
)

// pace does a transfer of n bytes and returns when the imitated device would have
// done it. Waits that are too short to sleep for, and how much too long a sleep
// took, are settled with the next transfer in the same place, so that times are
// right on average.
func (t *Throttle) pace(direction int, n int64, transfer func() error) error {
	bps := t.i.ReadBps
	if direction == writing {
		bps = t.i.WriteBps
	}
	t.mu.Lock()
	for t.i.Depth > 0 && t.busy == t.i.Depth {
		t.freed.Wait()
	}
	t.busy++
	owed := time.Duration(0)
	if n := len(t.places); n > 0 { // the last one first: whose transfer has just ended
		owed = t.places[n-1]
		t.places = t.places[:n-1]
	}
	began := time.Now()
	arrived := began.Add(-owed)
	due := arrived.Add(t.i.Latency)
	if f := t.free[direction]; f.After(due) {
		due = f
	}
	if bps > 0 {
		due = due.Add(time.Duration(float64(n) / bps * 1e9))
		t.free[direction] = due
	}
	t.mu.Unlock()
	err := transfer()
	t.all.Add(1)
	if own := arrived.Add(time.Since(began)); own.After(due) {
		t.behind.Add(1)
		due = own
	}
	if time.Until(due) > shortWait {
		t.sleepUntil(due)
	}
	t.mu.Lock()
	t.busy--
	t.places = append(t.places, min(time.Since(due), longestDebt))
	t.mu.Unlock()
	t.freed.Signal()
	return err
}

// throttled is a medium of a Throttle. It hides what else its base can do.
type throttled struct {
	m Medium
	t *Throttle
}

func (m throttled) ReadAt(slabs [][]byte, off int64) error {
	return m.t.pace(reading, total(slabs), func() error { return m.m.ReadAt(slabs, off) })
}

func (m throttled) WriteAt(slabs [][]byte, off int64) error {
	return m.t.pace(writing, total(slabs), func() error { return m.m.WriteAt(slabs, off) })
}

func (m throttled) Reserve(size int64) error  { return m.m.Reserve(size) }
func (m throttled) Truncate(size int64) error { return m.m.Truncate(size) }
func (m throttled) Size() (int64, error)      { return m.m.Size() }
func (m throttled) Sync() error               { return m.m.Sync() }
func (m throttled) Close() error              { return m.m.Close() }
func (m throttled) Describe() string          { return m.t.i.String() + " on " + m.m.Describe() }
