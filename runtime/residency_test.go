package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime/store"
)

// memory is a slow tier on the Go heap that holds what the fake engine and the fake
// keys make, and nothing that the forms do not say.
type memory struct {
	p           *plan.Plan
	addressable bool

	mu      sync.Mutex
	mapped  map[plan.ObjectID][][]byte
	spilled map[plan.ObjectID][][]byte
	ops     int
	failAt  int // operation that fails, from 1; 0 for none
	onOp    func(n int)
}

var errMedium = errors.New("medium fails")

func newMemory(p *plan.Plan, addressable bool) *memory {
	return &memory{p: p, addressable: addressable, mapped: map[plan.ObjectID][][]byte{}, spilled: map[plan.ObjectID][][]byte{}}
}

func (m *memory) Technology() string { return "test" }
func (m *memory) Addressable() bool  { return m.addressable }

func (m *memory) op() error {
	m.mu.Lock()
	m.ops++
	n := m.ops
	m.mu.Unlock()
	if m.onOp != nil {
		m.onOp(n)
	}
	if n == m.failAt {
		return errMedium
	}
	return nil
}

// slab writes slab i of a key or weight.
func (m *memory) slab(obj plan.ObjectID, i int, dst []byte) error {
	if _, ok := m.p.Tier.Forms.StoredAt(m.p, obj, i); !ok {
		return fmt.Errorf("slab %d of object %d is not stored", i, obj)
	}
	o := &m.p.Objects[obj]
	from := uint64(o.Rot)<<8 | uint64(o.Type.Level) | 1<<60
	if o.Role == plan.RolePlain {
		from = seedOf(&m.p.Plains[o.Plain])
	}
	if i == m.p.Slabs(obj) {
		clear(dst)
		binary.LittleEndian.PutUint64(dst, from)
		return nil
	}
	fillSlab(dst, from, i)
	return nil
}

func (m *memory) Read(obj plan.ObjectID, first int, dst [][]byte) error {
	if err := m.op(); err != nil {
		return err
	}
	if r := m.p.Objects[obj].Role; r == plan.RoleKey || r == plan.RolePlain {
		for i, d := range dst {
			if err := m.slab(obj, first+i, d); err != nil {
				return err
			}
		}
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, d := range dst {
		copy(d, m.spilled[obj][first+i])
	}
	return nil
}

func (m *memory) Write(obj plan.ObjectID, first int, src [][]byte) error {
	if err := m.op(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spilled[obj] == nil {
		m.spilled[obj] = make([][]byte, m.p.Slabs(obj))
	}
	for i, s := range src {
		m.spilled[obj][first+i] = slices.Clone(s)
	}
	return nil
}

func (m *memory) Map(obj plan.ObjectID, first, count int) ([][]byte, func() error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mapped[obj] == nil {
		m.mapped[obj] = make([][]byte, m.p.Slabs(obj)+1)
	}
	fresh := false
	for i := first; i < first+count; i++ {
		if m.mapped[obj][i] == nil {
			fresh = true
			m.mapped[obj][i] = make([]byte, m.p.Params.SlabBytes())
			if err := m.slab(obj, i, m.mapped[obj][i]); err != nil {
				return nil, nil, err
			}
		}
	}
	if !fresh {
		return m.mapped[obj][first : first+count], nil, nil
	}
	return m.mapped[obj][first : first+count], m.op, nil
}

// residencies calls f with random plans and random tier plans for them.
func residencies(t *testing.T, seeds uint64, f func(t *testing.T, name string, p *plan.Plan, maps bool, made int)) {
	t.Helper()
	for seed := range seeds {
		p := plantest.Random(seed, plantest.Config{LogN: 4, Levels: 6, Special: 2, Steps: 60, Keys: 6, Terms: 1 + int(seed%4)})
		for i := range p.Objects { // some steps use only the lower limbs of a key
			if o := &p.Objects[i]; o.Type.Kind == ir.KeyKind && i%2 == 0 {
				o.Type.Level = 5
			}
		}
		p.Layers[1].Kind = plan.LayerRefresh
		for i := range p.Objects {
			if p.Objects[i].Role == plan.RolePlain {
				p.Objects[i].Layer = int32(i % 3)
			}
		}
		for k, forms := range []plan.Forms{{}, {Compact: 3, Seeds: true}, {Compact: 3, Seeds: true, Twice: plan.TwiceReused}, {Compact: 1, Twice: plan.TwiceAll}, {Compact: 3, Seeds: true, Streams: true, Fused: plan.FusedOnce}, {Compact: 1, Fused: plan.FusedAll}} {
			maps := (int(seed)+k)%2 == 0
			for _, soft := range []int{0, 300, 1 << 20} {
				made := 0
				p.Tier, made = plantest.Tier(p, seed, forms, maps, soft)
				bound, err := passes.TierBound(p, p.Tier)
				if err != nil {
					t.Fatal(err)
				}
				p.Tier.BytesBound = bound.Belady
				if err := passes.CheckTier(p, p.Tier); err != nil {
					t.Fatal(err)
				}
				f(t, fmt.Sprintf("seed %d, forms %+v, maps %v, %d slabs", seed, forms, maps, p.Tier.ArenaSlabs), p, maps, made)
			}
		}
	}
}

// Whatever the residency, the result is the same bit for bit, what moves is what was
// planned, and the arena, which is as small as the plan allows, is left empty.
func TestRandomResidency(t *testing.T) {
	residencies(t, 6, func(t *testing.T, name string, p *plan.Plan, maps bool, made int) {
		want := reference(t, p)
		for _, threads := range []int{1, 3} {
			e := &compactEngine{fakeEngine: &fakeEngine{params: &p.Params}}
			got, rep, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: threads, Slow: newMemory(p, maps), Synchronous: threads == 1 && p.Tier.ArenaSlabs%2 == 0})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !sameOutputs(got, want) {
				t.Errorf("%s: another result", name)
			}
			slow := rep.Tiers[1]
			if slow.BytesRead+slow.BytesMapped != p.Tier.BytesRead || slow.BytesWritten != p.Tier.BytesWritten || slow.Expanded != made || made != int(e.made.Load()) {
				t.Errorf("%s: %+v, planned %d bytes to read and %d to write, %d slabs to make", name, slow, p.Tier.BytesRead, p.Tier.BytesWritten, made)
			}
			if most := int64(p.Tier.ArenaSlabs * p.Params.SlabBytes()); rep.ArenaPeak > most || maps == (slow.BytesMapped == 0) {
				t.Errorf("%s: arena of %d bytes where %d are planned, %d bytes mapped", name, rep.ArenaPeak, most, slow.BytesMapped)
			}
		}
		// Again and again, with what was dropped kept.
		e := &compactEngine{fakeEngine: &fakeEngine{params: &p.Params}}
		x, err := NewExecutor(t.Context(), p, e, Options{Threads: 2, Slow: newMemory(p, maps), Reuse: true})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			got, rep, err := x.Run(t.Context(), fakeInputs)
			if err != nil || !sameOutputs(got, want) {
				t.Fatalf("%s, run %d: another result, or %v", name, i, err)
			}
			if slow := rep.Tiers[1]; slow.BytesRead+slow.BytesMapped > p.Tier.BytesRead || slow.Expanded > made || x.arena.Usage().Peak > p.Tier.ArenaSlabs {
				t.Errorf("%s, run %d: %+v, planned %d bytes and %d slabs to make", name, i, slow, p.Tier.BytesRead, made)
			}
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// seedless is a slow tier that has lost the seed of a key.
type seedless struct {
	*memory
	key  plan.ObjectID
	slab int
}

func (s *seedless) Read(obj plan.ObjectID, first int, dst [][]byte) error {
	if obj == s.key && first+len(dst) > s.slab {
		return errMedium
	}
	return s.memory.Read(obj, first, dst)
}

// A plan whose steps make halves of keys needs an engine that can, and the seed of every
// key, whether or not it has other slabs made: without, nothing runs, and the error says
// which key. Without a slow tier it is a plan like any other.
func TestStreamsNeedSeeds(t *testing.T) {
	p := plantest.Random(2, plantest.Config{LogN: 4, Levels: 6, Special: 2, Steps: 60, Keys: 6})
	want := reference(t, p)
	made := 0
	p.Tier, made = plantest.Tier(p, 1, plan.Forms{Seeds: true, Streams: true}, false, 0)
	if made > 0 {
		t.Fatalf("%d slabs are made beside those that are streamed", made)
	}
	plain := &fakeEngine{params: &p.Params}
	e := &compactEngine{fakeEngine: plain}
	if _, err := NewExecutor(t.Context(), p, plain, Options{Slow: newMemory(p, false)}); err == nil || !strings.Contains(err.Error(), "cannot: make one for it that does not") {
		t.Errorf("an engine that makes nothing: %v", err)
	}
	if got, _, err := Run(t.Context(), p, plain, fakeInputs, Options{Keys: fakeKeys{}}); err != nil || !sameOutputs(got, want) {
		t.Errorf("without a slow tier: another result, or %v", err)
	}
	keys := 0
	for i := range p.Objects {
		if p.Objects[i].Role != plan.RoleKey {
			continue
		}
		keys++
		key := plan.ObjectID(i)
		_, err := NewExecutor(t.Context(), p, e, Options{Slow: &seedless{newMemory(p, false), key, p.Slabs(key)}})
		if !errors.Is(err, errMedium) || !strings.Contains(err.Error(), describe(p, key)) {
			t.Errorf("without the seed of %s: %v", describe(p, key), err)
		}
	}
	if keys == 0 {
		t.Fatal("the plan has no keys")
	}
	// What was installed for a plan that reads keys whole has no seeds.
	dir, tier := t.TempDir(), p.Tier
	p.Tier = &plan.Tier{}
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	p.Tier = tier
	if s, err := OpenStore(p, e, fakeKeys{}.ID(), dir, nil); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("a tier without seeds serves a plan that streams: %v, %v", s, err)
	}
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(p, e, fakeKeys{}.ID(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := Run(t.Context(), p, e, fakeInputs, Options{Slow: s})
	if err := errors.Join(err, s.Close()); err != nil || !sameOutputs(got, want) {
		t.Errorf("with seeds: another result, or %v", err)
	}
}

// straggling is a slow tier whose transfers take random times of the simulated clock,
// some a thousand times as long as others. It fails where a ciphertext is read while
// it is written.
type straggling struct {
	*memory
	nap     func()
	mu      sync.Mutex
	reading map[plan.ObjectID]int
	writing map[plan.ObjectID]int
}

func (s *straggling) use(obj plan.ObjectID, mine, others map[plan.ObjectID]int, transfer func() error) error {
	s.mu.Lock()
	mine[obj]++
	torn := others[obj] > 0
	s.mu.Unlock()
	if torn {
		return fmt.Errorf("object %d is read while it is written", obj)
	}
	s.nap()
	err := transfer()
	s.nap()
	s.mu.Lock()
	mine[obj]--
	s.mu.Unlock()
	return err
}

func (s *straggling) Read(obj plan.ObjectID, first int, dst [][]byte) error {
	return s.use(obj, s.reading, s.writing, func() error { return s.memory.Read(obj, first, dst) })
}

func (s *straggling) Write(obj plan.ObjectID, first int, src [][]byte) error {
	return s.use(obj, s.writing, s.reading, func() error { return s.memory.Write(obj, first, src) })
}

// However long each step and each transfer takes, the result is the same, and no
// ciphertext is read while it is written.
func TestResidencySchedules(t *testing.T) {
	residencies(t, 4, func(t *testing.T, name string, p *plan.Plan, maps bool, _ int) {
		want := reference(t, p)
		for seed := range uint64(4) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				rng := rand.New(rand.NewPCG(seed, 5))
				nap := func() {
					mu.Lock()
					d := time.Duration(1e3 * math.Exp(7*rng.Float64()))
					mu.Unlock()
					time.Sleep(d)
				}
				e := &compactEngine{fakeEngine: &fakeEngine{params: &p.Params, before: func(*plan.Step) error { nap(); return nil }}}
				slow := &straggling{memory: newMemory(p, maps), nap: nap, reading: map[plan.ObjectID]int{}, writing: map[plan.ObjectID]int{}}
				got, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 1 + int(seed), Slow: slow, QueueDepth: 8, Reuse: seed%2 == 1})
				if err != nil {
					t.Fatalf("%s, times %d: %v", name, seed, err)
				}
				if !sameOutputs(got, want) {
					t.Fatalf("%s, times %d: another result", name, seed)
				}
			})
		}
	})
}

// The same through tier files, read or used where they lie. What one plan has
// installed serves another whose forms ask for less.
func TestResidencyInstalled(t *testing.T) {
	for _, tech := range []store.Technology{store.File{}, store.Mmap{}} {
		if tech == (store.Mmap{}) && goruntime.GOOS != "linux" {
			continue
		}
		seen := map[string]string{}
		residencies(t, 2, func(t *testing.T, name string, p *plan.Plan, maps bool, _ int) {
			e := &compactEngine{fakeEngine: &fakeEngine{params: &p.Params}}
			print, err := p.Fingerprint()
			if err != nil {
				t.Fatal(err)
			}
			dir, again := seen[print]
			if !again {
				dir = t.TempDir()
				seen[print] = dir
				// First in both ways, which offers all that the others want.
				forms := p.Tier.Forms
				p.Tier.Forms = plan.Forms{Compact: 1, Seeds: true, Twice: plan.TwiceAll}
				if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Technology: tech}); err != nil {
					t.Fatal(err)
				}
				p.Tier.Forms = forms
			}
			if rep, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Technology: tech}); err != nil || rep.BytesWritten != 0 || rep.Present != rep.Objects {
				t.Fatalf("%s: installs again: %+v, %v", name, rep, err)
			}
			if p.Tier.Forms.Compact == 3 { // and by itself
				dir = t.TempDir()
				if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Technology: tech}); err != nil {
					t.Fatal(err)
				}
			}
			s, err := OpenStore(p, e, fakeKeys{}.ID(), dir, tech)
			if err != nil {
				t.Fatal(err)
			}
			got, rep, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: s})
			if err := errors.Join(err, s.Close()); err != nil {
				if maps && tech == (store.File{}) && strings.Contains(err.Error(), "not byte-addressable") {
					return
				}
				t.Fatalf("%s: %v", name, err)
			}
			if maps && tech == (store.File{}) {
				t.Errorf("%s: slabs of a file are used in place", name)
			}
			if slow := rep.Tiers[1]; !sameOutputs(got, reference(t, p)) || slow.BytesRead+slow.BytesMapped != p.Tier.BytesRead || maps == (slow.BytesMapped == 0) {
				t.Errorf("%s: another result, or %+v where %d bytes are planned", name, slow, p.Tier.BytesRead)
			}
		})
	}
}

// A medium that fails, at whatever operation, ends the run with an error that names
// an object, and a cancelled run stops; nothing is left behind (Close would say so).
func TestResidencyFails(t *testing.T) {
	n := 0
	residencies(t, 2, func(t *testing.T, name string, p *plan.Plan, maps bool, _ int) {
		if n++; testing.Short() && n%5 > 0 {
			return
		}
		e := &compactEngine{fakeEngine: &fakeEngine{params: &p.Params}}
		m := newMemory(p, maps)
		if _, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: m}); err != nil {
			t.Fatal(err)
		}
		for at := 1; at <= m.ops; at += 1 + m.ops/20 {
			bad := newMemory(p, maps)
			bad.failAt = at
			_, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: bad, Reuse: at%2 == 0})
			if bad.ops < at && err == nil {
				continue // what was kept was not read again
			}
			if !errors.Is(err, errMedium) || !strings.Contains(err.Error(), "level") && !strings.Contains(err.Error(), "ciphertext") {
				t.Errorf("%s: operation %d fails with %v", name, at, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			slow := newMemory(p, maps)
			slow.onOp = func(n int) {
				if n == at {
					cancel()
				}
			}
			if _, _, err := Run(ctx, p, e, fakeInputs, Options{Threads: 2, Slow: slow}); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: cancelled at operation %d: %v", name, at, err)
			}
			cancel()
		}
		var made atomic.Int64
		boom := errors.New("boom")
		fails := &failingMake{e, &made, 5, boom}
		if _, _, err := Run(t.Context(), p, fails, fakeInputs, Options{Threads: 2, Slow: newMemory(p, maps)}); made.Load() >= 5 && (!errors.Is(err, boom) || !strings.Contains(err.Error(), "level")) {
			t.Errorf("%s: a make that fails: %v", name, err)
		}
	})
}

// A tier plan that lies is refused, or makes no difference.
func TestResidencyLies(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	refused, rounds := 0, 0
	residencies(t, 3, func(t *testing.T, name string, p *plan.Plan, maps bool, _ int) {
		want := reference(t, p)
		good := *p.Tier
		for i := range 12 {
			bad := good
			bad.Actions = slices.Clone(good.Actions)
			k := rng.IntN(len(bad.Actions))
			a := &bad.Actions[k]
			switch i % 6 {
			case 0:
				bad.Actions = slices.Delete(bad.Actions, k, k+1)
			case 1:
				bad.ArenaSlabs -= 1 + rng.IntN(4)
			case 2:
				a.Kind = plan.ActionKind(rng.IntN(6))
			case 3:
				a.First += int32(rng.IntN(7)) - 3
			case 4:
				a.Count += int32(rng.IntN(7)) - 3
			case 5:
				a.Obj = plan.ObjectID(rng.IntN(len(p.Objects)+2) - 1)
			}
			p.Tier = &bad
			e := &compactEngine{fakeEngine: &fakeEngine{params: &p.Params}}
			got, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: newMemory(p, maps)})
			if err == nil && !sameOutputs(got, want) {
				t.Errorf("%s, round %d: a tier plan that lies gives another result", name, i)
			}
			if rounds++; err != nil {
				refused++
			}
		}
		p.Tier = &good
	})
	if refused < rounds/2 {
		t.Errorf("only %d of %d lies were refused", refused, rounds)
	}
}

// failingMake fails at one of its makes.
type failingMake struct {
	*compactEngine
	n  *atomic.Int64
	at int64
	is error
}

func (e *failingMake) Make(out backend.Operand, source []byte, slabs []int32) error {
	if e.n.Add(1) == e.at {
		return e.is
	}
	return e.compactEngine.Make(out, source, slabs)
}
