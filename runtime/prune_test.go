package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/runtime/store"
)

// someKeys is a key set with another identity.
type someKeys struct {
	fakeKeys
	id string
}

func (k someKeys) ID() string { return k.id }

// pruned is a folder with the weights of three plans and the keys of two key sets.
type pruned struct {
	t      *testing.T
	dir    string
	plans  []*plan.Plan
	prints []string
}

func newPruned(t *testing.T) *pruned {
	d := &pruned{t: t, dir: t.TempDir()}
	for i := range uint64(3) {
		p := plantest.Random(i, plantest.Config{LogN: 9, Steps: 40, Keys: 5})
		p.Params = plantest.Random(0, plantest.Config{LogN: 9, Steps: 40, Keys: 5}).Params
		print, err := p.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		d.plans, d.prints = append(d.plans, p), append(d.prints, print)
		d.install(i, "one")
		d.install(i, "two")
	}
	return d
}

func (d *pruned) install(i uint64, keys string) {
	d.t.Helper()
	p := d.plans[i]
	if _, err := Install(d.t.Context(), p, &fakeEngine{params: &p.Params}, someKeys{id: keys}, d.dir, InstallOptions{}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *pruned) open(i int, keys string) (*Store, error) {
	p := d.plans[i]
	return OpenStore(p, &fakeEngine{params: &p.Params}, keys, d.dir, nil)
}

// prune returns how many files have which fate.
func (d *pruned) prune(ctx context.Context, remove bool, plans, keys []string) (map[store.Fate]int, error) {
	found, err := Prune(ctx, d.dir, Needs{Engine: "fake", Plans: plans, Keys: keys}, remove)
	got := map[store.Fate]int{}
	for _, f := range found {
		got[f.Fate]++
		if _, err := os.Lstat(f.Path); (f.Fate == store.FateRemoved) != os.IsNotExist(err) {
			d.t.Errorf("%+v: %v", f, err)
		}
	}
	return got, err
}

func (d *pruned) want(what string, remove bool, plans, keys []string, want map[store.Fate]int) {
	d.t.Helper()
	got, err := d.prune(d.t.Context(), remove, plans, keys)
	if err != nil || !cmp.Equal(got, want) {
		d.t.Errorf("%s: %v, %v, want %v", what, got, err, want)
	}
}

// content is every file of the folder.
func (d *pruned) content() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		if b, err := os.ReadFile(filepath.Join(d.dir, e.Name())); err == nil {
			all[e.Name()] = string(b)
		}
	}
	return all
}

// What no plan and no key set needs goes when it is told to, what is needed stays
// and works, and what has gone is installed again.
func TestPrune(t *testing.T) {
	d := newPruned(t)
	all := d.content()
	first, one := d.prints[:1], []string{"one"}
	d.want("all is needed", true, d.prints, []string{"one", "two"}, map[store.Fate]int{store.FateKept: 5})
	d.want("nothing is said of either", true, nil, nil, map[store.Fate]int{store.FateKept: 5})
	d.want("said only", false, first, one, map[store.Fate]int{store.FateKept: 2, store.FateStale: 3})
	d.want("keys only", false, nil, one, map[store.Fate]int{store.FateKept: 4, store.FateStale: 1})
	d.want("plans only", false, first, nil, map[store.Fate]int{store.FateKept: 3, store.FateStale: 2})
	d.want("the start of an id", false, nil, []string{"on"}, map[store.Fate]int{store.FateKept: 3, store.FateStale: 2})
	if !cmp.Equal(d.content(), all) {
		t.Fatal("files have changed before any was to go")
	}
	d.want("removed", true, first, one, map[store.Fate]int{store.FateKept: 2, store.FateRemoved: 3})
	left := d.content()
	for name, b := range left {
		if all[name] != b {
			t.Errorf("%s has changed", name)
		}
	}
	for i := range d.plans {
		for _, keys := range []string{"one", "two"} {
			s, err := d.open(i, keys)
			if want := i == 0 && keys == "one"; (err == nil) != want || err != nil && !errors.Is(err, ErrNotInstalled) {
				t.Errorf("plan %d with keys %s: %v", i, keys, err)
			}
			if err == nil {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	d.install(1, "two")
	if n := len(d.content()); n != 4 {
		t.Errorf("%d files after another install, want 4", n)
	}
}

// Nothing but tier files under their own names goes.
func TestPruneLeavesForeignFiles(t *testing.T) {
	d := newPruned(t)
	own := d.content()
	put := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("notes.txt", "mine")
	put("letter.htier", "mine as well, and longer than a page: "+fmt.Sprintf("%5000d", 0))
	put("keys-0123456789abcdef.htier", "")
	put("weights-0123456789abcdef.htier", fmt.Sprintf("%70000d", 0))
	for name, b := range own {
		put("copy-of-"+name, b)
		put("backup.htier", b)
		damaged := []byte(b)
		damaged[100]++
		put("weights-00000000000000aa.htier", string(damaged))
	}
	if err := os.Mkdir(filepath.Join(d.dir, "folder.htier"), 0o755); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	links := 0
	if os.Symlink(elsewhere, filepath.Join(d.dir, "link.htier")) == nil {
		links++
	}
	with := d.content()
	none := []string{"none"}
	d.want("all go", true, none, none, map[store.Fate]int{store.FateRemoved: 5, store.FateUnknown: 5 + len(own) + 1 + links})
	for name := range own {
		delete(with, name)
	}
	if got := d.content(); !cmp.Equal(got, with) {
		t.Errorf("%d files are left, want %d unchanged", len(got), len(with))
	}
}

// What a run or an install has open stays, and the run does not notice.
func TestPruneBesideARun(t *testing.T) {
	d := newPruned(t)
	p := d.plans[1]
	tiered(t, p, 2)
	s, err := d.open(1, "one")
	if err != nil {
		t.Fatal(err)
	}
	none := []string{"none"}
	pruned := false
	e := &fakeEngine{params: &p.Params, before: func(*plan.Step) error {
		if !pruned {
			pruned = true
			d.want("in the middle of a run", true, none, none, map[store.Fate]int{store.FateRemoved: 3, store.FateInUse: 2})
		}
		return nil
	}}
	out, _, err := Run(t.Context(), p, e, fakeInputs, Options{Slow: s})
	if err := errors.Join(err, s.Close()); err != nil || !sameOutputs(out, reference(t, p)) {
		t.Errorf("another result, or %v", err)
	}
	l, err := newLayout(p, e, "one", d.dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := store.Create(store.File{}, l.path[store.KeyFile], l.header[store.KeyFile])
	if err != nil {
		t.Fatal(err)
	}
	d.want("beside an install", true, none, none, map[store.Fate]int{store.FateRemoved: 1, store.FateInUse: 1})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d.want("afterwards", true, none, none, map[store.Fate]int{store.FateRemoved: 1})
	d.want("again", true, none, none, map[store.Fate]int{})
}

// expiring is a context that ends when it has been asked a number of times.
type expiring struct {
	context.Context
	left int
}

func (c *expiring) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// A prune that is interrupted leaves whole files, and the next goes on.
func TestPruneInterrupted(t *testing.T) {
	for after := range 5 {
		d := newPruned(t)
		all := d.content()
		none := []string{"none"}
		got, err := d.prune(&expiring{t.Context(), after}, true, none, none)
		if !errors.Is(err, context.Canceled) || got[store.FateRemoved] != after || got[store.FateStale] != 5-after {
			t.Errorf("after %d: %v, %v", after, got, err)
		}
		for name, b := range d.content() {
			if all[name] != b {
				t.Errorf("after %d: %s has changed", after, name)
			}
		}
		d.want("the next", true, none, none, map[store.Fate]int{store.FateRemoved: 5 - after})
		d.install(0, "one")
	}
}

// A folder that is none, and a device, are refused.
func TestPruneRefuses(t *testing.T) {
	for _, dir := range []string{filepath.Join(t.TempDir(), "missing"), os.DevNull} {
		if _, err := Prune(t.Context(), dir, Needs{Engine: "fake"}, true); err == nil {
			t.Errorf("%s: no error", dir)
		}
	}
}
