package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/runtime/store"
	badmem "github.com/home-fhe/home/runtime/store/faulty"
)

// durable opens a folder for runs of a plan. Every step of its list is taken, or
// with nil every one that is considered, whatever it costs.
func durable(t *testing.T, p *plan.Plan, dir string, resume bool, at []int32) *Durable {
	t.Helper()
	d, err := OpenDurable(p, p.Params.SlabBytes(), DurableOptions{Dir: dir, Plan: "plan", Keys: fakeKeys{}.ID(), Input: "input", Resume: resume,
		Warn: func(err error) { t.Error("warning:", err) }})
	if err != nil {
		t.Fatal(err)
	}
	always(d, at)
	return d
}

// always has every snapshot of a list taken.
func always(d *Durable, at []int32) {
	if d.all = true; at != nil {
		d.at = at
	}
}

var errStop = errors.New("stopped here")

// stopAt fails the run at the step from which on nothing may run: what a process
// leaves that dies there.
func stopAt(p *plan.Plan, step int32) func(*plan.Step) error {
	first := &p.Steps[step]
	return func(s *plan.Step) error {
		if s == first {
			return errStop
		}
		return nil
	}
}

// diskFolder is a folder of a simulated disk.
type diskFolder struct {
	*badmem.Disk
	dir string
}

func (d diskFolder) Names() ([]string, error) {
	var out []string
	for _, f := range d.Files() {
		if name, ok := strings.CutPrefix(f, d.dir+"/"); ok {
			out = append(out, name)
		}
	}
	return out, nil
}
func (d diskFolder) Rename(from, to string) error {
	return d.Disk.Rename(d.dir+"/"+from, d.dir+"/"+to)
}
func (d diskFolder) Remove(name string) error { return d.Disk.Remove(d.dir + "/" + name) }
func (d diskFolder) Sync() error              { return d.SyncNames() }

// onDisk is durable for a folder of a simulated disk.
func onDisk(t *testing.T, p *plan.Plan, disk *badmem.Disk, resume bool, at []int32) *Durable {
	t.Helper()
	d, err := newDurable(p, DurableOptions{Plan: "plan", Keys: fakeKeys{}.ID(), Input: "input", Resume: resume, Warn: func(err error) { t.Error("warning:", err) }},
		func(m []store.Mark) (*store.Snapshots, error) {
			return store.SnapshotsOn(disk, diskFolder{disk, "snap"}, "snap", p.Params.SlabBytes(), m)
		})
	if err != nil {
		t.Fatal(err)
	}
	always(d, at)
	return d
}

// A run that stops anywhere goes on under the same residency, under another, with
// another number of threads, or without a slow tier, and gives the same result bit
// for bit within the arena of the plan.
func TestResumeAnywhere(t *testing.T) {
	seeds, every := uint64(3), 9
	if os.Getenv("HOME_LONG") != "" {
		seeds, every = 30, 1
	}
	type residency struct {
		tier *plan.Tier
		maps bool
	}
	before := map[*plan.Plan]residency{} // another of the same plan
	n, resumed := 0, 0
	residencies(t, seeds, func(t *testing.T, name string, p *plan.Plan, maps bool, _ int) {
		if before[p].tier == nil {
			before[p] = residency{p.Tier, maps}
		}
		want := reference(t, p)
		run := func(d *Durable, r residency, threads int, stop func(*plan.Step) error) (Outputs, error) {
			t.Helper()
			mine := *p
			mine.Tier = r.tier
			o := Options{Threads: threads, Keys: fakeKeys{}}
			if r.tier != nil {
				o.Slow, o.Keys, o.Reuse = newMemory(&mine, r.maps), nil, n%3 == 0
			}
			x, err := NewExecutor(t.Context(), &mine, &compactEngine{fakeEngine: &fakeEngine{params: &p.Params, before: stop, alone: stop != nil}}, o)
			if err != nil {
				t.Fatal(err)
			}
			out, _, err := d.Run(t.Context(), x, 0, fakeInputs)
			if r.tier != nil && x.arena.Usage().Peak > r.tier.ArenaSlabs {
				t.Errorf("%s: arena of %d slabs where %d are planned", name, x.arena.Usage().Peak, r.tier.ArenaSlabs)
			}
			if left := x.Close(); left != nil {
				t.Errorf("%s: %v", name, left)
			}
			return out, err
		}
		this := residency{p.Tier, maps}
		steps := int32(len(p.Steps))
		for step := 1 + int32(n%every); step < steps; step += int32(every) {
			n++
			disk := &badmem.Disk{}
			again := min(step+7, steps-1)
			d := onDisk(t, p, disk, false, []int32{step})
			stop := stopAt(p, again)
			if _, err := run(d, this, 2+n%2, func(s *plan.Step) error {
				err := stop(s)
				for until := time.Now().Add(5 * time.Minute); err != nil && d.Report().Written == 0 && time.Now().Before(until); {
					time.Sleep(100 * time.Microsecond) // the steps before the snapshot are executed by others: it is alone
				}
				return err
			}); !errors.Is(err, errStop) {
				t.Fatalf("%s, step %d: %v", name, step, err)
			}
			if r := d.Report(); r.Written != 1 || r.Bytes == 0 || r.ResumedFrom != nil {
				t.Fatalf("%s, step %d: %+v", name, step, r)
			}
			// It goes on from there, and is stopped again.
			d = onDisk(t, p, disk, true, []int32{again - 1, again})
			if _, err := run(d, before[p], 1+n%2, stopAt(p, again)); !errors.Is(err, errStop) {
				t.Fatalf("%s, step %d: %v", name, step, err)
			}
			if r := d.Report(); r.ResumedFrom == nil || *r.ResumedFrom != int(step) {
				t.Fatalf("%s, step %d: goes on as %+v", name, step, r)
			}
			for way, r := range []residency{this, before[p], {}} {
				d := onDisk(t, p, disk, true, []int32{})
				out, err := run(d, r, 1+way, nil)
				if err != nil || !sameOutputs(out, want) {
					t.Fatalf("%s, step %d, way %d: another result, or %v", name, step, way, err)
				}
				if r := d.Report(); *r.ResumedFrom < int(step) || *r.ResumedFrom > int(again) {
					t.Fatalf("%s: goes on from step %d, and stopped at %d", name, *r.ResumedFrom, again)
				}
				resumed++
			}
		}
		before[p] = this
	})
	t.Logf("%d runs went on", resumed)
}

// Snapshots at every step, of a run with as little memory as possible, disturb
// nothing, and the last two stay.
func TestCheckpointEverywhere(t *testing.T) {
	p := plantest.Random(9, plantest.Config{LogN: 9, Steps: 200, Keys: 10})
	want := reference(t, p)
	dir, folder := t.TempDir(), t.TempDir()
	e := &fakeEngine{params: &p.Params}
	if _, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 2}); err != nil {
		t.Fatal(err)
	}
	tiered(t, p, 0)
	s, err := OpenStore(p, e, fakeKeys{}.ID(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x, err := NewExecutor(t.Context(), p, e, Options{Threads: 3, Slow: s})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	all := make([]int32, len(p.Steps)-1)
	for i := range all {
		all[i] = int32(i + 1)
	}
	d := durable(t, p, folder, false, all)
	defer d.Close()
	out, rep, err := d.Run(t.Context(), x, 0, fakeInputs)
	if err != nil || !sameOutputs(out, want) {
		t.Fatalf("another result, or %v", err)
	}
	if r := d.Report(); r.Written < 3 || r.Failed > 0 {
		t.Errorf("%+v", r)
	}
	if most := int64(p.Tier.ArenaSlabs * p.Params.SlabBytes()); rep.ArenaPeak > most {
		t.Errorf("arena of %d bytes where %d are planned", rep.ArenaPeak, most)
	}
	if places, err := d.s.Places(); err != nil || len(places) != keptSnapshots {
		t.Errorf("%v stay, %v", places, err)
	}
	if err := d.Clear(); err != nil {
		t.Error(err)
	}
	if left, err := d.s.Places(); len(left) > 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Of several runs, those that are done are not done again, and the one in progress
// goes on.
func TestResumeSeveralRuns(t *testing.T) {
	p := plantest.Random(4, plantest.Config{LogN: 4, Steps: 80})
	folder := t.TempDir()
	input := func(run int) Inputs {
		return func(obj plan.ObjectID, dst [][]byte) error { fill(dst, uint64(obj)<<8|uint64(run)); return nil }
	}
	exec := func(e *fakeEngine) *Executor {
		x, err := NewExecutor(t.Context(), p, e, Options{Threads: 2, Keys: fakeKeys{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close() })
		return x
	}
	plain := exec(&fakeEngine{params: &p.Params})
	var want []Outputs
	for i := range 3 {
		out, _, err := plain.Run(t.Context(), input(i))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, out)
	}
	result := func(out Outputs) []byte { // any form will do
		var b []byte
		for _, obj := range slices.Sorted(maps.Keys(out)) {
			b = append(b, slices.Concat(out[obj]...)[:11]...)
		}
		return b
	}
	var results []byte
	for _, out := range want {
		results = append(results, result(out)...)
	}
	size := len(results) / len(want)
	d := durable(t, p, folder, false, []int32{20, 40})
	for i := range 2 {
		e := &fakeEngine{params: &p.Params}
		if i == 1 {
			e.before = stopAt(p, 60)
		}
		out, _, err := d.Run(t.Context(), exec(e), i, input(i))
		if i == 1 && !errors.Is(err, errStop) || i == 0 && (err != nil || !sameOutputs(out, want[0])) {
			t.Fatalf("run %d: %v", i, err)
		}
		if i == 0 {
			d.Finished(1, result(out))
		}
	}
	if places, err := d.s.Places(); err != nil || !slices.Equal(places, []store.Place{{Run: 0, Step: 80}, {Run: 1, Step: 20}, {Run: 1, Step: 40}}) {
		t.Errorf("%v, %v", places, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = durable(t, p, folder, true, []int32{})
	var from []string
	d.o.Resumed = func(run, step, _ int) { from = append(from, fmt.Sprint(run, ":", step)) }
	done, got, err := d.Results(size)
	if done != 1 || !bytes.Equal(got, results[:size]) || err != nil {
		t.Fatalf("%d runs are done, %v", done, err)
	}
	if _, _, err := d.Results(size + p.Params.SlabBytes()); !errors.Is(err, store.ErrForeign) {
		t.Errorf("results of another size: %v", err)
	}
	x := exec(&fakeEngine{params: &p.Params})
	for i := done; i < 3; i++ {
		out, _, err := d.Run(t.Context(), x, i, input(i))
		if err != nil || !sameOutputs(out, want[i]) {
			t.Errorf("run %d: another result, or %v", i, err)
		}
		d.Finished(i+1, results[:(i+1)*size])
	}
	if got := strings.Join(from, " "); got != "1:40" {
		t.Errorf("runs go on at %s", got)
	}
	if r := d.Report(); r.RunsDone != 1 || *r.ResumedFrom != 40 {
		t.Errorf("%+v", r)
	}
	// What is done is not done again, and of what led there only the last stays, and
	// the one before.
	if places, err := d.s.Places(); err != nil || !slices.Equal(places, []store.Place{{Run: 1, Step: 80}, {Run: 2, Step: 80}}) {
		t.Errorf("%v, %v", places, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = durable(t, p, folder, true, nil)
	defer d.Close()
	if done, got, err := d.Results(size); done != 3 || !bytes.Equal(got, results) || err != nil {
		t.Errorf("%d runs are done, %v", done, err)
	}
}

// A folder of something else is refused and says of what; a damaged snapshot is
// passed over for the one before, and without any the run begins at its start.
func TestResumeRefusals(t *testing.T) {
	p := plantest.Random(6, plantest.Config{LogN: 4, Steps: 80})
	want := reference(t, p)
	folder := t.TempDir()
	e := &fakeEngine{params: &p.Params}
	x, err := NewExecutor(t.Context(), p, e, Options{Threads: 2, Keys: fakeKeys{}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	d := durable(t, p, folder, false, []int32{20, 40})
	if _, _, err := d.Run(t.Context(), x, 0, fakeInputs); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDurable(p, p.Params.SlabBytes(), DurableOptions{Dir: folder}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("two processes in one folder: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(names) != 2 {
		t.Fatalf("%v, %v", names, err)
	}
	good := make([][]byte, len(names))
	for i, n := range names {
		if good[i], err = os.ReadFile(n); err != nil {
			t.Fatal(err)
		}
	}
	o := DurableOptions{Dir: folder, Plan: "plan", Keys: fakeKeys{}.ID(), Input: "input", Resume: true}
	other := plantest.Random(7, plantest.Config{LogN: 4, Steps: 80})
	for _, c := range []struct {
		name string
		p    *plan.Plan
		edit func(o *DurableOptions)
		want string
	}{
		{"plan", p, func(o *DurableOptions) { o.Plan = "another" }, "another plan"},
		{"keys", p, func(o *DurableOptions) { o.Keys = "another" }, "another key set"},
		{"input", p, func(o *DurableOptions) { o.Input = "another" }, "another input"},
		{"order of steps", other, func(*DurableOptions) {}, "another order of steps"},
	} {
		o := o
		c.edit(&o)
		if _, err := OpenDurable(c.p, p.Params.SlabBytes(), o); !errors.Is(err, store.ErrForeign) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range []struct {
		name string
		hurt []int // snapshots that are damaged, the last is 1
		how  func(b []byte) []byte
		from int
	}{
		{"whole", nil, nil, 40},
		{"bit of a ciphertext", []int{1}, func(b []byte) []byte { b[store.PageBytes+9] ^= 4; return b }, 20},
		{"bit of the head", []int{1}, func(b []byte) []byte { b[60] ^= 4; return b }, 20},
		{"cut", []int{1}, func(b []byte) []byte { return b[:len(b)/2] }, 20},
		{"grown", []int{1}, func(b []byte) []byte { return append(b, make([]byte, 100)...) }, 20},
		{"empty", []int{1}, func(b []byte) []byte { return nil }, 20},
		{"both", []int{0, 1}, func(b []byte) []byte { b[store.PageBytes+9] ^= 4; return b }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o755)); err != nil {
				t.Fatal(err)
			}
			for i, n := range names {
				b := slices.Clone(good[i])
				if slices.Contains(c.hurt, i) {
					b = c.how(b)
				}
				if err := os.WriteFile(n, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			o := o
			var warnings []error
			o.Warn = func(err error) { warnings = append(warnings, err) }
			d, err := OpenDurable(p, p.Params.SlabBytes(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			always(d, []int32{50})
			out, _, err := d.Run(t.Context(), x, 0, fakeInputs)
			if err != nil || !sameOutputs(out, want) {
				t.Fatalf("another result, or %v", err)
			}
			from := 0
			if r := d.Report(); r.ResumedFrom != nil {
				from = *r.ResumedFrom
			}
			if from != c.from || len(warnings) != len(c.hurt) {
				t.Errorf("goes on from %d with %v", from, warnings)
			}
			// What is damaged does not count among those that stay.
			if snap, bad, err := d.s.Last(func(store.Place) bool { return true }); err != nil || snap == nil || snap.Step != 50 || len(bad) > 0 {
				t.Errorf("then: %v, %v, %v", snap, bad, err)
			} else {
				snap.Close()
			}
		})
	}
}

// A snapshot that cannot be written is a warning; the run goes on, its result is
// right, and the last good snapshot stays.
func TestCheckpointFails(t *testing.T) {
	p := plantest.Random(8, plantest.Config{LogN: 4, Steps: 80})
	want := reference(t, p)
	full := &fullDisk{left: 1 << 30}
	var warnings []error
	d, err := newDurable(p, DurableOptions{Warn: func(err error) { warnings = append(warnings, err) }, Resume: true}, func(m []store.Mark) (*store.Snapshots, error) {
		dir := t.TempDir()
		full.Technology = store.File{}
		return store.SnapshotsOn(full, folderOf(dir), dir, p.Params.SlabBytes(), m)
	})
	if err != nil {
		t.Fatal(err)
	}
	var at []int32
	for s := range len(p.Steps) - 1 {
		at = append(at, int32(s+1))
	}
	always(d, at)
	e := &fakeEngine{params: &p.Params, before: func(s *plan.Step) error {
		if s == &p.Steps[40] {
			full.mu.Lock()
			full.left = 0
			full.mu.Unlock()
		}
		return nil
	}, delay: time.Millisecond}
	x, err := NewExecutor(t.Context(), p, e, Options{Keys: fakeKeys{}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	out, _, err := d.Run(t.Context(), x, 0, fakeInputs)
	if err != nil || !sameOutputs(out, want) {
		t.Fatalf("another result, or %v", err)
	}
	r := d.Report()
	if r.Written == 0 || r.Failed == 0 || len(warnings) != r.Failed || !errors.Is(warnings[0], errFull) {
		t.Errorf("%+v with %v", r, warnings)
	}
	snap, bad, err := d.s.Last(func(store.Place) bool { return true })
	if err != nil || snap == nil || len(bad) > 0 || snap.Step > 60 {
		t.Fatalf("the last good snapshot: %v, %v, %v", snap, bad, err)
	}
	snap.Close()
	e.before = nil
	if out, _, err := d.Run(t.Context(), x, 0, fakeInputs); err != nil || !sameOutputs(out, want) {
		t.Errorf("from there: another result, or %v", err)
	}
}

var errFull = errors.New("no room")

// fullDisk is a technology with room for some bytes.
type fullDisk struct {
	store.Technology
	mu   sync.Mutex
	left int64
}

func (f *fullDisk) Open(path string, write bool) (store.Medium, error) {
	m, err := f.Technology.Open(path, write)
	return &fullMedium{m, f}, err
}

type fullMedium struct {
	store.Medium
	f *fullDisk
}

func (m *fullMedium) WriteAt(slabs [][]byte, off int64) error {
	m.f.mu.Lock()
	for _, s := range slabs {
		m.f.left -= int64(len(s))
	}
	left := m.f.left
	m.f.mu.Unlock()
	if left < 0 {
		return errFull
	}
	return m.Medium.WriteAt(slabs, off)
}

// folderOf is a directory as store.Folder, without syncing.
type folderOf string

func (d folderOf) Names() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, err
}
func (d folderOf) Rename(from, to string) error {
	return os.Rename(filepath.Join(string(d), from), filepath.Join(string(d), to))
}
func (d folderOf) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }
func (d folderOf) Sync() error              { return nil }

// A cancelled run leaves its last snapshot, and nothing half written.
func TestCancelLeavesSnapshot(t *testing.T) {
	p := plantest.Random(3, plantest.Config{LogN: 4, Steps: 300})
	folder := t.TempDir()
	d := durable(t, p, folder, false, nil)
	ctx, cancel := context.WithCancel(t.Context())
	stop := ListenerFunc(func(e Event) {
		if e.Kind == CheckpointEnd && e.Step > 100 {
			cancel()
		}
	})
	x, err := NewExecutor(t.Context(), p, &fakeEngine{params: &p.Params, delay: 200 * time.Microsecond}, Options{Threads: 2, Keys: fakeKeys{}, Events: stop})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, _, err := d.Run(ctx, x, 0, fakeInputs); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := fs.Glob(os.DirFS(folder), "*.tmp"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	d = durable(t, p, folder, true, []int32{})
	defer d.Close()
	out, _, err := d.Run(t.Context(), x, 0, fakeInputs)
	if err != nil || !sameOutputs(out, reference(t, p)) {
		t.Errorf("another result, or %v", err)
	}
	if r := d.Report(); r.ResumedFrom == nil || *r.ResumedFrom <= 100 {
		t.Errorf("%+v", r)
	}
}

// Places for snapshots are where less is alive than around them, and what is said
// to be alive there is.
func TestCheckpointSteps(t *testing.T) {
	p := plantest.Random(1, plantest.Config{Steps: 3000, Live: 12})
	l := newLives(p)
	at, slabs, work := checkpointSteps(p, l)
	if len(at) < checkpointBins/2 || len(at) > checkpointBins {
		t.Errorf("%d places", len(at))
	}
	live := func(step int32) int {
		n := 0
		for _, o := range l.at(step) {
			n += p.Slabs(o)
		}
		return n
	}
	sum := 0
	for s := 1; s < len(p.Steps); s++ {
		sum += live(int32(s))
	}
	mean, places := float64(sum)/float64(len(p.Steps)-1), 0
	for i, s := range at {
		if got := live(s); got != slabs[i] {
			t.Fatalf("step %d: %d slabs are alive, %d are said to be", s, got, slabs[i])
		}
		if i > 0 && (s <= at[i-1] || work[i] <= work[i-1]) {
			t.Fatalf("steps %v are out of order", at[:i+1])
		}
		places += slabs[i]
	}
	if got := float64(places) / float64(len(at)); got > mean {
		t.Errorf("%.1f slabs are alive at the places chosen, %.1f anywhere", got, mean)
	}
}

// The pace keeps to its share of the time, whatever the device.
func TestPace(t *testing.T) {
	for _, bps := range []float64{5e6, 500e6, 5e9} {
		const share, bytes = 0.01, 30 << 20
		a := newPace(share)
		now := time.Unix(0, 0)
		a.last = now
		saving, n := 0.0, 0
		const total = 40000
		for range total * 10 { // tenths of seconds
			now = now.Add(100 * time.Millisecond)
			if a.due(bytes, now) {
				took := time.Duration(float64(bytes) / bps * 1e9)
				now = now.Add(took)
				a.saved(bytes, took, now, true)
				saving += took.Seconds()
				n++
			}
		}
		if n == 0 || saving > 1.2*share*total {
			t.Errorf("%.3g bytes/s: %d snapshots take %.1f s of %d", bps, n, saving, total)
		}
	}
}
