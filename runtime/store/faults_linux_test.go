//go:build !race

package store

// The race detector faults in the shadows that it keeps of all memory.

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// faults returns how many page faults the process has had.
func faults(t *testing.T) int64 {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Minflt + u.Majflt
}

// Reading objects into an arena that was populated, by the workers of a queue and
// with their checksums verified, causes no page faults.
func TestReadsDoNotFault(t *testing.T) {
	const slab, objects, each, rounds = 64 << 10, 32, 16, 4
	path := filepath.Join(t.TempDir(), "a.htier")
	h := Header{KeyFile, slab, "set"}
	var all []Spec
	for i := range objects {
		all = append(all, Spec{Addr{A: int64(i)}, each})
	}
	for _, tech := range []Technology{File{}, buffered{}} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		f, err := Create(tech, path, h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := install(f, all, slab); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if f, err = Open(tech, path, h); err != nil {
			t.Fatal(err)
		}
		a, err := NewArena(slab, objects*each, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Populate(objects*each, 2); err != nil {
			t.Fatal(err)
		}
		read := func() {
			q := NewQueue(4)
			errs := make([]error, objects)
			for i, s := range all {
				q.Submit(func(int) {
					b, err := a.Alloc(each, Weights, "test")
					if errs[i] = err; err == nil {
						errs[i] = f.Read(s.Addr, 0, b.Slabs)
						b.Free()
					}
				})
			}
			q.Close()
			for _, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		read() // stacks and the like
		before := faults(t)
		for range rounds {
			read()
		}
		n := faults(t) - before
		pages := int64(rounds * objects * each * slab / PageBytes)
		t.Logf("%T: %d faults while %d pages were read", tech, n, pages)
		if n > pages/100 {
			t.Errorf("%T: %d faults while %d pages were read", tech, n, pages)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
