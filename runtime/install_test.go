package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime/store"
)

const reserve = 1 << 20

// tiered gives a plan the tier plan for its least budget and some slabs.
func tiered(t *testing.T, p *plan.Plan, extra int) { t.Helper(); tieredWith(t, p, extra, nil, 0) }

// tieredWith is tiered for an engine that expands a slab of a weight or a key in a
// number of seconds.
func tieredWith(t *testing.T, p *plan.Plan, extra int, expand func(int) float64, uniform float64) {
	t.Helper()
	slab := int64(p.Params.SlabBytes())
	var makes func(plan.ObjectID) float64
	if expand != nil {
		makes = func(obj plan.ObjectID) float64 {
			if p.Objects[obj].Role == plan.RoleKey {
				return uniform
			}
			return expand(1)
		}
	}
	tier, err := passes.Tiering(p, passes.TierOptions{
		DRAM: passes.TierLeast(p, reserve) + int64(extra)*slab, Reserve: reserve,
		Machine: passes.Machine{
			StepSeconds: func(_ int, f *plan.Forms) float64 {
				if f.Streams || f.Fused > 0 {
					return 1 // slabs are made, not in steps
				}
				return 1e-4
			},
			MakeSeconds: makes,
			Tier:        backend.TierProfile{ReadBps: 1e9, WritBps: 5e8, Latency: 1e-4},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := passes.CheckTier(p, tier); err != nil {
		t.Fatal(err)
	}
	p.Tier = tier
}

// The result is the same bit for bit under every budget and number of threads,
// the arena stays within the plan's, and the bytes moved are those predicted.
func TestBudgetSweep(t *testing.T) {
	for _, c := range []struct {
		logN  int
		seeds uint64
	}{{4, 8}, {9, 1}} { // slabs below a page, and of one
		logN := c.logN
		for seed := range c.seeds {
			p := plantest.Random(seed, plantest.Config{LogN: logN, Steps: 120, Keys: 10, Terms: 1 + int(seed%4)})
			e := &fakeEngine{params: &p.Params}
			want := reference(t, p)
			dir := t.TempDir()
			if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 2}); err != nil {
				t.Fatal(err)
			}
			for _, extra := range []int{0, 4, 30, 1 << 20} {
				tiered(t, p, extra)
				for _, threads := range []int{1, 3} {
					s, err := OpenStore(p, e, fakeKeys{}.ID(), dir, nil)
					if err != nil {
						t.Fatal(err)
					}
					got, rep, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: threads, Slow: s})
					if err != nil {
						t.Fatalf("N=2^%d, seed %d, +%d slabs, %d threads: %v", logN, seed, extra, threads, err)
					}
					if !sameOutputs(got, want) {
						t.Errorf("N=2^%d, seed %d, +%d slabs, %d threads: another result", logN, seed, extra, threads)
					}
					if most := int64(p.Tier.ArenaSlabs * p.Params.SlabBytes()); rep.ArenaPeak > most {
						t.Errorf("arena of %d bytes where %d are planned", rep.ArenaPeak, most)
					}
					slow := rep.Tiers[1]
					if slow.BytesRead != p.Tier.BytesRead || slow.BytesWritten != p.Tier.BytesWritten {
						t.Errorf("+%d slabs: %d bytes read and %d written, planned %d and %d", extra, slow.BytesRead, slow.BytesWritten, p.Tier.BytesRead, p.Tier.BytesWritten)
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

// Weights and keys in compact form give the same result from a fraction of the
// bytes, at every budget and number of threads; an engine that cannot make them
// says so.
func TestCompactForms(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		p := plantest.Random(seed, plantest.Config{LogN: 6, Steps: 120, Keys: 10})
		slab := float64(p.Params.SlabBytes())
		plain := &fakeEngine{params: &p.Params}
		want := reference(t, p)
		dir := t.TempDir()
		for i, extra := range []int{0, 10, 1 << 20} {
			for _, threads := range []int{1, 3} {
				e := &compactEngine{fakeEngine: plain}
				tieredWith(t, p, extra, func(int) float64 { return slab / 2e9 }, 1e-12) // half as long as reading
				if p.Tier.Forms.Compact != 3 || !p.Tier.Forms.Seeds {
					t.Fatalf("compact from %d slabs on, want 3; keys as seeds: %v", p.Tier.Forms.Compact, p.Tier.Forms.Seeds)
				}
				before, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 2})
				if err != nil {
					t.Fatal(err)
				}
				if first := i == 0 && threads == 1; (before.BytesWritten > 0) != first {
					t.Errorf("+%d slabs: %d bytes are installed again", extra, before.BytesWritten)
				}
				s, err := OpenStore(p, e, fakeKeys{}.ID(), dir, nil)
				if err != nil {
					t.Fatal(err)
				}
				got, rep, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: threads, Slow: s})
				if err != nil {
					t.Fatal(err)
				}
				if !sameOutputs(got, want) {
					t.Errorf("seed %d, +%d slabs, %d threads: another result", seed, extra, threads)
				}
				slow := rep.Tiers[1]
				if slow.BytesRead != p.Tier.BytesRead || slow.Expanded != int(e.made.Load()) || slow.Expanded == 0 {
					t.Errorf("+%d slabs: %d bytes read, planned %d; %d of %d slabs made are reported", extra, slow.BytesRead, p.Tier.BytesRead, slow.Expanded, e.made.Load())
				}
				boom := errors.New("boom")
				e.fail.Store(boom)
				if _, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: threads, Slow: s}); !errors.Is(err, boom) || !strings.Contains(err.Error(), "level") {
					t.Errorf("a make that fails: %v", err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := Install(t.Context(), p, plain, fakeKeys{}, t.TempDir(), InstallOptions{}); err == nil || !strings.Contains(err.Error(), "cannot") {
			t.Errorf("installing sources for an engine without: %v", err)
		}
		if _, err := NewExecutor(t.Context(), p, plain, Options{Slow: &faulty{}}); err == nil || !strings.Contains(err.Error(), "cannot") {
			t.Errorf("a plan that makes slabs on an engine that cannot: %v", err)
		}
	}
}

// An executor that runs again keeps what fits: with room for everything the
// second run reads nothing, and with less it reads no more than planned. The
// result never changes, not even after a run that failed.
func TestReuse(t *testing.T) {
	for seed := range uint64(4) {
		p := plantest.Random(seed, plantest.Config{LogN: 4, Steps: 120, Keys: 10})
		boom := errors.New("boom")
		fail := false
		e := &fakeEngine{params: &p.Params, before: func(s *plan.Step) error {
			if fail && s == &p.Steps[50] {
				return boom
			}
			return nil
		}}
		want := reference(t, p)
		dir := t.TempDir()
		if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, extra := range []int{0, 10, 40, 150, 1 << 20} {
			tiered(t, p, extra)
			s, err := OpenStore(p, e, fakeKeys{}.ID(), dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			x, err := NewExecutor(t.Context(), p, e, Options{Threads: 2, Slow: s, Reuse: true})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 4 {
				fail = i == 2
				got, rep, err := x.Run(t.Context(), fakeInputs)
				if fail {
					if !errors.Is(err, boom) {
						t.Fatal(err)
					}
					continue
				}
				if err != nil || !sameOutputs(got, want) {
					t.Fatalf("seed %d, +%d slabs, run %d: another result, or %v", seed, extra, i, err)
				}
				read := rep.Tiers[1].BytesRead
				if read > p.Tier.BytesRead || extra == 1<<20 && i == 1 && read != 0 {
					t.Errorf("seed %d, +%d slabs, run %d reads %d bytes, planned %d", seed, extra, i, read, p.Tier.BytesRead)
				}
				if peak := x.arena.Usage().Peak; peak > p.Tier.ArenaSlabs {
					t.Errorf("arena of %d slabs where %d are planned", peak, p.Tier.ArenaSlabs)
				}
			}
			if err := errors.Join(x.Close(), s.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Without a tier plan, or with an engine of other sizes, a store is of no use.
func TestStoreNeedsTierPlan(t *testing.T) {
	p := plantest.Random(1, plantest.Config{})
	e := &fakeEngine{params: &p.Params}
	dir := t.TempDir()
	if _, err := OpenStore(p, e, "fake-key-set", dir, nil); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(p, e, "another-key-set", dir, nil); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("another key set: %v", err)
	}
	s, err := OpenStore(p, e, "fake-key-set", dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, _, err := Run(t.Context(), p, e, fakeInputs, Options{Slow: s}); err == nil || !strings.Contains(err.Error(), "no tier plan") {
		t.Errorf("no tier plan: %v", err)
	}
	tiered(t, p, 0)
	other := p.Params
	other.LogN++
	if _, _, err := Run(t.Context(), p, &fakeEngine{params: &other}, fakeInputs, Options{Slow: s}); err == nil || !strings.Contains(err.Error(), "slabs of") {
		t.Errorf("other slabs: %v", err)
	}
}

// A tier plan that is wrong must fail, not deadlock or compute nonsense.
func TestExecutorRefusesBrokenTierPlans(t *testing.T) {
	p := plantest.Random(9, plantest.Config{Steps: 100, Keys: 10})
	e := &fakeEngine{params: &p.Params}
	dir := t.TempDir()
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	want := reference(t, p)
	tiered(t, p, 3)
	good := *p.Tier
	rng := rand.New(rand.NewPCG(1, 1))
	refused := 0
	for i := range 60 {
		bad := good
		bad.Actions = append([]plan.Action(nil), good.Actions...)
		k := rng.IntN(len(bad.Actions))
		switch i % 5 {
		case 0:
			bad.Actions = append(bad.Actions[:k], bad.Actions[k+1:]...)
		case 1:
			bad.ArenaSlabs -= 1 + rng.IntN(5)
		case 2:
			bad.Actions[k].Kind = plan.ActionKind(rng.IntN(4))
		case 3:
			bad.Actions[k].Obj = plan.ObjectID(rng.IntN(len(p.Objects)+4) - 2)
		case 4:
			bad.Actions[k].Step += int32(rng.IntN(40)) - 20
		}
		p.Tier = &bad
		s, err := OpenStore(p, e, "fake-key-set", dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: s})
		if err == nil && !sameOutputs(got, want) {
			t.Errorf("round %d: a broken tier plan gave another result", i)
		}
		if err != nil {
			refused++
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused < 20 {
		t.Errorf("only %d of 60 broken plans were refused", refused)
	}
}

// faulty wraps a slow tier and misbehaves at one transfer.
type faulty struct {
	Slow
	mu   sync.Mutex
	left int
	read func(dst [][]byte) error // instead of the transfer number left
	slow time.Duration
}

func (f *faulty) turn() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	return f.left == 0
}

func (f *faulty) Read(obj plan.ObjectID, first int, dst [][]byte) error {
	time.Sleep(f.slow)
	if f.turn() {
		return f.read(dst)
	}
	return f.Slow.Read(obj, first, dst)
}

func (f *faulty) Write(obj plan.ObjectID, first int, src [][]byte) error {
	time.Sleep(f.slow)
	if f.turn() {
		return f.read(nil)
	}
	return f.Slow.Write(obj, first, src)
}

// An I/O error in the middle ends the run with a message that names the object,
// and everything is released (the executor's Close would report a leak).
func TestSlowTierFails(t *testing.T) {
	p := plantest.Random(9, plantest.Config{Steps: 100, Keys: 10})
	e := &fakeEngine{params: &p.Params}
	dir := t.TempDir()
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	tiered(t, p, 2)
	broken := errors.New("I/O error")
	for _, at := range []int{1, 2, 7, 30, 60} {
		s, err := OpenStore(p, e, "fake-key-set", dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		f := &faulty{Slow: s, left: at, read: func([][]byte) error { return broken }}
		_, _, err = Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: f})
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "level") {
			t.Errorf("transfer %d: %v", at, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Stalls are measured where the slow tier is slow, and a cancellation does not
// wait for the whole queue. The clock is simulated, and steps take no time on it: what
// passes is the time of reads.
func TestSlowTierIsSlow(t *testing.T) {
	p := plantest.Random(9, plantest.Config{Steps: 60, Keys: 10})
	e := &fakeEngine{params: &p.Params}
	dir := t.TempDir()
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	tiered(t, p, 2)
	s, err := OpenStore(p, e, "fake-key-set", dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const slow = 2 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		var trace bytes.Buffer
		tr := NewTrace(&trace, p)
		f := &faulty{Slow: s, slow: slow}
		_, rep, err := Run(t.Context(), p, e, fakeInputs, Options{Slow: f, QueueDepth: 1, Events: tr})
		if err := errors.Join(err, tr.Close()); err != nil {
			t.Fatal(err)
		}
		var doc struct{ TraceEvents []traceEvent }
		if err := json.Unmarshal(trace.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		moved, stalled := int64(0), 0.0
		for _, e := range doc.TraceEvents {
			switch {
			case e.Cat == "io" && e.Tid == trackIO && !strings.Contains(e.Name, "input"):
				moved += int64(e.Args["bytes"].(float64))
			case e.Cat == "stall":
				stalled += e.Dur / 1e6
			}
		}
		same := func(a, b float64) bool { return math.Abs(a-b) < 1e-6 }
		tier := rep.Tiers[1]
		if moved != tier.BytesRead+tier.BytesWritten || !same(stalled, tier.StallSeconds) {
			t.Errorf("the trace shows %d bytes and %.6f s of stalls, the report %+v", moved, stalled, tier)
		}
		// All of that is stalls, but for what is written while nothing is waited for.
		if n := -f.left; !same(rep.Seconds, float64(n)*slow.Seconds()) || n < 50 || tier.StallSeconds > rep.Seconds || tier.StallSeconds < 0.9*rep.Seconds {
			t.Errorf("stalled %.6f s of %.6f s, in %d transfers of %v one after the other", tier.StallSeconds, rep.Seconds, n, slow)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 31*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, _, err := Run(ctx, p, e, fakeInputs, Options{Slow: &faulty{Slow: s, slow: 10 * time.Millisecond}})
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 40*time.Millisecond {
			t.Errorf("cancelled after 31 ms, it ended after %v: %v", took, err)
		}
	})
}

// Bytes flipped on the disk are found when they are read.
func TestFlippedByteIsFound(t *testing.T) {
	p := plantest.Random(3, plantest.Config{LogN: 9, Steps: 60})
	e := &fakeEngine{params: &p.Params}
	dir := t.TempDir()
	rep, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tiered(t, p, 5)
	for _, path := range []string{rep.KeyFile, rep.WeightFile} {
		img, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// One bit in every object-sized stretch, headers spared.
		bad := append([]byte(nil), img...)
		for at := 2*store.PageBytes + 5; at < len(bad); at += store.PageBytes {
			if string(bad[at-5:at-1]) != "HSEG" {
				bad[at] ^= 4
			}
		}
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStore(p, e, "fake-key-set", dir, nil)
		if err == nil {
			_, _, err = Run(t.Context(), p, e, fakeInputs, Options{Slow: s})
			if e := s.Close(); e != nil {
				t.Fatal(e)
			}
		}
		if !errors.Is(err, store.ErrDamaged) && !errors.Is(err, ErrNotInstalled) {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
		if err := os.WriteFile(path, img, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Nothing is stored twice: not by installing again, not by a second plan of the
// same client.
func TestInstallSharesKeys(t *testing.T) {
	p := plantest.Random(1, plantest.Config{})
	q := plantest.Random(1, plantest.Config{Plains: 12})
	q.Params = p.Params
	e := &fakeEngine{params: &p.Params}
	dir := t.TempDir()
	one, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 2})
	if err != nil || one.Present != 0 || one.BytesWritten == 0 {
		t.Fatal(one, err)
	}
	again, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 2})
	if err != nil || again.Present != again.Objects || again.BytesWritten != 0 {
		t.Fatalf("installing again: %+v, %v", again, err)
	}
	two, err := Install(t.Context(), q, e, fakeKeys{}, dir, InstallOptions{Threads: 2})
	if err != nil || two.KeyFile != one.KeyFile || two.WeightFile == one.WeightFile || two.Present == 0 {
		t.Fatalf("a second plan: %+v, %v", two, err)
	}
}

// An install that stops for whatever reason goes on where it stopped.
func TestInstallGoesOn(t *testing.T) {
	p := plantest.Random(2, plantest.Config{LogN: 13, Levels: 6, Steps: 150, Keys: 8, OneShot: 100})
	e := &fakeEngine{params: &p.Params}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	var mu sync.Mutex
	stop := ListenerFunc(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == SetupDone {
			if n++; n == 40 {
				cancel()
			}
		}
	})
	first, err := Install(ctx, p, e, fakeKeys{}, dir, InstallOptions{Threads: 2, Events: stop})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled install: %v", err)
	}
	if _, err := OpenStore(p, e, "fake-key-set", dir, nil); !errors.Is(err, ErrNotInstalled) {
		t.Fatalf("half a tier: %v", err)
	}
	second, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	if second.Present == 0 || second.Present == second.Objects || first.BytesWritten+second.BytesWritten == second.BytesWritten {
		t.Errorf("first %+v, then %+v", first, second)
	}
	broken, err := Install(t.Context(), p, e, fakeKeys{broken: 5}, t.TempDir(), InstallOptions{})
	if !errors.Is(err, errBrokenKey) {
		t.Errorf("a key that cannot be made: %+v %v", broken, err)
	}
}

// killing is a technology of files that ends its own process in the middle of a
// write, as kill -9 does.
type killing struct {
	store.File
	left *atomic.Int64 // writes until then
}

func (k killing) Open(path string, write bool) (store.Medium, error) {
	m, err := k.File.Open(path, write)
	return &killingMedium{m, k.left}, err
}

type killingMedium struct {
	store.Medium
	left *atomic.Int64
}

func (m *killingMedium) WriteAt(slabs [][]byte, off int64) error {
	if m.left.Add(-1) != 0 {
		return m.Medium.WriteAt(slabs, off)
	}
	err := m.Medium.WriteAt(slabs[:len(slabs)/2], off)
	if self, bad := os.FindProcess(os.Getpid()); err == nil && bad == nil {
		err = self.Kill()
	}
	if err != nil {
		return err
	}
	select {}
}

// An install that is killed goes on: the process is ended at random writes.
func TestInstallSurvivesKill(t *testing.T) {
	p := killPlan()
	e := &fakeEngine{params: &p.Params}
	install := func(dir string, writes int64) (made int64, err error) {
		tech := killing{left: new(atomic.Int64)}
		tech.left.Store(writes)
		_, err = Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 2, Technology: tech})
		return writes - tech.left.Load(), err
	}
	if dir := os.Getenv("HOME_TEST_INSTALL"); dir != "" {
		at, err := strconv.ParseInt(os.Getenv("HOME_TEST_KILL"), 10, 64)
		if err == nil {
			_, err = install(dir, at)
		}
		t.Fatal("it was not killed: ", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Skip("cannot run this test in a second process: ", err)
	}
	writes, err := install(t.TempDir(), math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 9))
	for _, at := range []int64{1, 2, 1 + rng.Int64N(writes/2), writes / 2, 1 + rng.Int64N(writes/2)} { // a complete segment stays
		cmd := exec.Command(self, "-test.run=^TestInstallSurvivesKill$")
		cmd.Env = append(os.Environ(), "HOME_TEST_INSTALL="+dir, fmt.Sprint("HOME_TEST_KILL=", at))
		if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.Exited() {
			t.Fatalf("at write %d of %d: %v\n%s", at, writes, err, out)
		}
	}
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	tiered(t, p, 10)
	s, err := OpenStore(p, e, "fake-key-set", dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: s})
	if err != nil || !sameOutputs(got, reference(t, p)) {
		t.Errorf("another result, or %v", err)
	}
}

func killPlan() *plan.Plan {
	return plantest.Random(4, plantest.Config{LogN: 10, Levels: 5, Steps: 400, Keys: 10, OneShot: 100})
}

// Two processes cannot install into one directory at once; runs can share it.
func TestTwoProcesses(t *testing.T) {
	p := plantest.Random(1, plantest.Config{})
	e := &fakeEngine{params: &p.Params}
	if dir := os.Getenv("HOME_TEST_SECOND"); dir != "" {
		_, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{})
		fmt.Println("second:", err)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Skip("cannot run this test in a second process: ", err)
	}
	dir := t.TempDir()
	l, err := newLayout(p, e, "fake-key-set", dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := store.Create(store.File{}, l.path[store.KeyFile], l.header[store.KeyFile])
	if err != nil {
		t.Fatal(err)
	}
	second := func() string {
		cmd := exec.Command(self, "-test.run=^TestTwoProcesses$")
		cmd.Env = append(os.Environ(), "HOME_TEST_SECOND="+dir)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if out := second(); !strings.Contains(out, "in use by another process") {
		t.Errorf("a second writer says %q", out)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(p, e, "fake-key-set", dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if out := second(); !strings.Contains(out, "second: <nil>") {
		t.Errorf("installing again beside a run says %q", out)
	}
}

// A budget below one object is refused with the least that works, and that
// least works.
func TestInstallBudget(t *testing.T) {
	p := plantest.Random(1, plantest.Config{})
	e := &fakeEngine{params: &p.Params}
	dir := t.TempDir()
	_, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Budget: reserve + 1, Reserve: reserve})
	var be *plan.BudgetError
	if !errors.As(err, &be) {
		t.Fatalf("got %v", err)
	}
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 8, Budget: be.Least, Reserve: reserve}); err != nil {
		t.Fatal(err)
	}
	// With what computes them as well, objects take one slab more, and no more memory
	// is asked for than without.
	p.Tier = &plan.Tier{Forms: plan.Forms{Compact: 1, Seeds: true, Twice: plan.TwiceAll}}
	if _, err := Install(t.Context(), p, &compactEngine{fakeEngine: e}, fakeKeys{}, t.TempDir(), InstallOptions{Threads: 8, Budget: be.Least, Reserve: reserve}); err != nil {
		t.Fatal(err)
	}
}
