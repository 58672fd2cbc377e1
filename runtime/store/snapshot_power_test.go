package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/home-fhe/home/runtime/store"
	"github.com/home-fhe/home/runtime/store/faulty"
)

// onDisk is the folder "snap" of a simulated disk.
type onDisk struct{ *faulty.Disk }

func (d onDisk) Names() ([]string, error) {
	var out []string
	for _, f := range d.Files() {
		if name, ok := strings.CutPrefix(f, "snap/"); ok {
			out = append(out, name)
		}
	}
	return out, nil
}
func (d onDisk) Rename(from, to string) error { return d.Disk.Rename("snap/"+from, "snap/"+to) }
func (d onDisk) Remove(name string) error     { return d.Disk.Remove("snap/" + name) }
func (d onDisk) Sync() error                  { return d.SyncNames() }

func onto(d *faulty.Disk) (*store.Snapshots, error) {
	return store.SnapshotsOn(d, onDisk{d}, "snap", store.PageBytes/2, []store.Mark{{Name: "plan", Value: "1"}})
}

// state is what is alive at a step.
func state(step int) []store.Saved {
	var out []store.Saved
	for i := range 3 {
		o := store.Saved{ID: int32(step + i)}
		for k := range 1 + (step+i)%3 {
			o.Memory = append(o.Memory, bytes.Repeat([]byte{byte(step), byte(i), byte(k), 1}, store.PageBytes/8))
		}
		out = append(out, o)
	}
	return out
}

func same(x *store.Snapshot) error {
	want := state(x.Step)
	if len(x.IDs) != len(want) {
		return fmt.Errorf("step %d: %d objects", x.Step, len(x.IDs))
	}
	for _, o := range want {
		if !x.Has(o.ID) || x.Slabs(o.ID) != len(o.Memory) {
			return fmt.Errorf("step %d: object %d has %d slabs", x.Step, o.ID, x.Slabs(o.ID))
		}
		for k, m := range o.Memory {
			got := make([]byte, len(m))
			if err := x.Read(o.ID, k, [][]byte{got}); err != nil || !bytes.Equal(got, m) {
				return fmt.Errorf("step %d: object %d differs, %v", x.Step, o.ID, err)
			}
		}
	}
	return nil
}

var steps = []int{3, 8, 9, 20}

// takeAll takes snapshots at the steps after the first; told hears of each that is
// said to be durable.
func takeAll(d *faulty.Disk, first int, told func(step int)) error {
	s, err := onto(d)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if step <= first {
			continue
		}
		if _, err := s.Put(store.Place{Run: 1, Step: step}, state(step), func() {}); err != nil {
			return err
		}
		told(step)
		n := 0
		if err := s.Prune(func(store.Place) bool { n++; return n <= 2 }); err != nil {
			return err
		}
	}
	return nil
}

// Wherever the power fails, the last snapshot that was said to be durable is there,
// or a later one, and it is whole; and from there it goes on.
func TestSnapshotsSurvivePowerFailure(t *testing.T) {
	limit := 12
	if os.Getenv("HOME_LONG") != "" {
		limit = 300
	}
	last := 0
	rng := rand.New(rand.NewPCG(5, 5))
	checked, err := faulty.PowerCuts(&faulty.Disk{}, limit, rng, func(d *faulty.Disk) error {
		last = 0
		return takeAll(d, 0, func(step int) { last = step })
	}, func(left *faulty.Disk, done bool) error {
		s, err := onto(left)
		if err != nil {
			return err
		}
		x, damaged, err := s.Last(func(store.Place) bool { return true })
		if err != nil || len(damaged) > 0 {
			return fmt.Errorf("%v, %v", damaged, err)
		}
		step := 0
		if x != nil {
			step = x.Step
			if err := errors.Join(same(x), x.Close()); err != nil {
				return err
			}
		}
		if step < last || done && step != steps[len(steps)-1] {
			return fmt.Errorf("step %d is there, %d was said to be durable", step, last)
		}
		if err := takeAll(left, step, func(int) {}); err != nil {
			return err
		}
		if x, _, err = s.Last(func(store.Place) bool { return true }); err != nil || x == nil || x.Step != steps[len(steps)-1] {
			return fmt.Errorf("going on: %v, %v", x, err)
		}
		return x.Close()
	})
	if err != nil || checked < 200 {
		t.Errorf("%d disks: %v", checked, err)
	}
}

// On a disk that is full, or that fails, the snapshots that are there stay, and
// nothing else.
func TestSnapshotsOnFullDisk(t *testing.T) {
	d := &faulty.Disk{}
	s, err := onto(d)
	if err != nil {
		t.Fatal(err)
	}
	put := func(step int) error {
		_, err := s.Put(store.Place{Run: 1, Step: step}, state(step), func() {})
		return err
	}
	if err := put(3); err != nil {
		t.Fatal(err)
	}
	d.Capacity = int64(len(d.Content(d.Files()[0]))) + 3*store.PageBytes
	if err := put(8); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "bytes are needed") {
		t.Errorf("a full disk: %v", err)
	}
	if f := d.Files(); len(f) != 1 {
		t.Errorf("%v", f)
	}
	d.Capacity = 0
	fails := 0
	for _, kind := range []faulty.Kind{faulty.Open, faulty.Truncate, faulty.Reserve, faulty.Write, faulty.Sync, faulty.Rename} {
		d.Before = func(op faulty.Op) error {
			if op.Kind == kind {
				return &fs.PathError{Op: string(kind), Path: op.File, Err: syscall.EIO}
			}
			return nil
		}
		if err := put(8); err != nil {
			fails++
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: %v", kind, err)
			}
		}
		d.Before = nil
		x, damaged, err := s.Last(func(store.Place) bool { return true })
		if err != nil || x == nil || len(damaged) > 0 || x.Step != 3 {
			t.Fatalf("%s: %v, %v, %v", kind, x, damaged, err)
		}
		if err := errors.Join(same(x), x.Close()); err != nil {
			t.Error(err)
		}
	}
	if fails != 6 {
		t.Errorf("%d of 6 failures were told", fails)
	}
	if err := put(8); err != nil {
		t.Errorf("and then: %v", err)
	}
}
