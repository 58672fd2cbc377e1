package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

// How tiers are measured. tierPiece is the size of the runtime's transfers and
// tierDepth the number of them that it keeps in flight.
const (
	tierProbe  = 1 << 30
	tierPiece  = 2 << 20
	tierDepth  = 4
	tierTime   = 300 * time.Millisecond // per point of the table
	dramProbe  = 256 << 20
	tierSpread = 16 // most transfers in flight
)

// tierThreads lists the numbers of transfers in flight that are tried.
var tierThreads = []int{1, tierDepth, tierSpread}

// timeDRAM times all cores reading, writing and copying memory that no cache
// holds.
func timeDRAM(e *env) (backend.TierProfile, error) {
	p := backend.TierProfile{Name: "dram", Latency: 1e-7, Addressable: true, Source: "measured by home characterize; latency assumed"}
	cores := goruntime.NumCPU()
	a, b := make([]byte, dramProbe), make([]byte, dramProbe)
	for i := range a {
		a[i] = 1 + byte(i)&1
	}
	clear(b)
	parts := func(threads, i int) (int, int) { return dramProbe / threads * i, dramProbe / threads * (i + 1) }
	threads := []int{1}
	for n := 2; n < cores; n *= 2 {
		threads = append(threads, n)
	}
	if cores > 1 {
		threads = append(threads, cores)
	}
	for _, n := range threads {
		if err := e.ctx.Err(); err != nil {
			return p, err
		}
		for _, x := range []struct {
			reads float64
			f     func(lo, hi int)
		}{
			{1, func(lo, hi int) { bytes.IndexByte(a[lo:hi], 0) }},
			{0, func(lo, hi int) { clear(b[lo:hi]) }},
			{0.5, func(lo, hi int) { copy(b[lo:hi], a[lo:hi]) }},
		} {
			s, err := repeat(func() error {
				var wg sync.WaitGroup
				for i := range n {
					wg.Add(1)
					go func() {
						defer wg.Done()
						lo, hi := parts(n, i)
						x.f(lo, hi)
					}()
				}
				wg.Wait()
				return nil
			})
			if err != nil {
				return p, err
			}
			moved := float64(dramProbe)
			if x.reads == 0.5 {
				moved *= 2
			}
			p.Table = append(p.Table, backend.TierPoint{Bytes: dramProbe / n, Threads: n, Reads: x.reads, Bps: math.Round(moved / s), Seconds: s})
			switch x.reads {
			case 1:
				p.ReadBps = max(p.ReadBps, math.Round(moved/s))
			case 0:
				p.WritBps = max(p.WritBps, math.Round(moved/s))
			}
		}
	}
	return p, nil
}

// timeTier times the slow tier in dir: without the page cache, by size, number
// and mix of transfers. The bandwidths of the profile are those of transfers as the
// runtime makes them, with checksums that another goroutine verifies.
func timeTier(e *env, dir string) (p backend.TierProfile, err error) {
	tech, err := store.Detect(dir)
	if err != nil {
		return p, err
	}
	m, err := tech.Temp(dir)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Reserve(tierProbe); err != nil {
		return p, err
	}
	arena, err := store.NewArena(tierPiece, 0, nil)
	if err != nil {
		return p, err
	}
	block, err := arena.Alloc(tierSpread, store.Ciphertexts, "characterize")
	if err != nil {
		return p, errors.Join(err, arena.Close())
	}
	defer func() {
		block.Free()
		err = errors.Join(err, arena.Close())
	}()
	fillRandom(block.Slabs)
	x := &tierProber{m: m, slabs: block.Slabs}
	p = backend.TierProfile{Name: tech.Name(), Depth: tierDepth, Source: "measured by home characterize"}
	bar := e.bar("slow tier", 2+3*len(tierThreads)+len(tierThreads)+1)
	defer bar.stop()

	// All of the file once in order: the bandwidths of long runs.
	began := time.Now()
	if err := x.sweep(m.WriteAt); err != nil {
		return p, err
	}
	if err := m.Sync(); err != nil {
		return p, err
	}
	p.WritBps = math.Round(tierProbe / time.Since(began).Seconds())
	bar.add(1)
	cpu := runtime.CPUSeconds()
	began = time.Now()
	if err := x.sweep(m.ReadAt); err != nil {
		return p, err
	}
	p.ReadBps = math.Round(tierProbe / time.Since(began).Seconds())
	p.CPU = math.Max(0, runtime.CPUSeconds()-cpu) / tierProbe
	p.CPU = math.Round(p.CPU*1e14) / 1e14
	bar.add(1)
	for _, c := range []struct {
		bytes int
		reads []float64
	}{{store.PageBytes, []float64{1}}, {64 << 10, []float64{1}}, {512 << 10, []float64{1}}, {tierPiece, []float64{0.9, 0}}} {
		for _, threads := range tierThreads {
			if c.bytes == tierPiece && threads == 1 {
				continue
			}
			for _, reads := range c.reads {
				if err := e.ctx.Err(); err != nil {
					return p, err
				}
				point, err := x.point(c.bytes, threads, reads)
				if err != nil {
					return p, err
				}
				p.Table = append(p.Table, point)
				if c.bytes == store.PageBytes && threads == 1 {
					p.Latency = point.Seconds
				}
			}
			bar.add(1)
		}
	}
	for _, threads := range tierThreads {
		point, err := x.point(tierPiece, threads, 1)
		if err != nil {
			return p, err
		}
		p.Table = append(p.Table, point)
	}
	return p, nil
}

// fillRandom fills slabs with bytes that a device cannot compress away.
func fillRandom(slabs [][]byte) {
	for k, s := range slabs {
		r := rand.New(rand.NewPCG(3, uint64(k)))
		for i := 0; i < len(s); i += 8 {
			binary.LittleEndian.PutUint64(s[i:], r.Uint64())
		}
	}
}

// tierProber reads and writes a file of tierProbe bytes.
type tierProber struct {
	m     store.Medium
	slabs [][]byte // of tierPiece bytes, one per transfer in flight
}

// sweep goes through the whole file in order, as the runtime would.
func (x *tierProber) sweep(f func(slabs [][]byte, off int64) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, tierDepth)
	for k := range tierDepth {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for errs[k] == nil {
				off := next.Add(tierPiece) - tierPiece
				if off >= tierProbe {
					return
				}
				errs[k] = f(x.slabs[k:k+1], off)
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// point measures transfers of one size at random places.
func (x *tierProber) point(size, threads int, reads float64) (backend.TierPoint, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var times []float64
	errs := make([]error, threads)
	moved := int64(0)
	began := time.Now()
	for k := range threads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(5, uint64(k)))
			piece := [][]byte{x.slabs[k][:size]}
			for errs[k] == nil && time.Since(began) < tierTime {
				off := r.Int64N(tierProbe/int64(size)) * int64(size)
				f := x.m.ReadAt
				if r.Float64() >= reads {
					f = x.m.WriteAt
				}
				start := time.Now()
				errs[k] = f(piece, off)
				took := time.Since(start).Seconds()
				mu.Lock()
				times, moved = append(times, took), moved+int64(size)
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	err := errors.Join(errs...)
	if reads < 1 {
		err = errors.Join(err, x.m.Sync())
	}
	bps := math.Round(float64(moved) / time.Since(began).Seconds())
	slices.Sort(times)
	return backend.TierPoint{Bytes: size, Threads: threads, Reads: reads, Bps: bps, Seconds: math.Round(times[len(times)/2]*1e7) / 1e7}, err
}

// reportTiers shows what was measured of the tiers.
func reportTiers(w io.Writer, prof *backend.Profile) error {
	t := newTable(1, 2, 3, 4, 5)
	t.row("tier", "transfer", "in flight", "reads", "bandwidth", "one takes")
	for _, x := range prof.Tiers {
		t.row(x.Name, "", "", "all", byteSize(x.ReadBps).String()+"/s", "")
		t.row("", "", "", "none", byteSize(x.WritBps).String()+"/s", "")
		for _, p := range x.Table {
			t.row("", byteSize(p.Bytes).String(), fmt.Sprint(p.Threads), fmt.Sprintf("%.0f %%", 100*p.Reads), byteSize(p.Bps).String()+"/s", seconds(p.Seconds))
		}
		if x.CPU > 0 {
			t.row("", "", "", "", fmt.Sprintf("%.2f CPU s/GB", 1e9*x.CPU), "")
		}
		if x.Beside > 0 {
			t.row("", "", "", "", fmt.Sprintf("%.2f s/GB lost by steps beside", 1e9*x.Beside), "")
		}
	}
	return t.write(w, "")
}
