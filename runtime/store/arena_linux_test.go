package store

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Memory that is backed beforehand lies in huge pages where the kernel has them, and
// the count is of this arena alone.
func TestHugeBytes(t *testing.T) {
	const slab, slabs = 512 << 10, 128
	a, err := NewArena(slab, slabs, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewArena(4096, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Populate(slabs, 2); err != nil {
		t.Fatal(err)
	}
	if err := other.Populate(4, 1); err != nil {
		t.Fatal(err)
	}
	n, err := a.HugeBytes()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d bytes in huge pages", n, slab*slabs)
	if n < 0 || n > slab*slabs || n%hugeBytes != 0 {
		t.Errorf("%d bytes of %d in huge pages", n, slab*slabs)
	}
	if m, err := other.HugeBytes(); err != nil || m != 0 {
		t.Errorf("an arena of four pages has %d bytes in huge ones: %v", m, err)
	}
	for _, x := range []*Arena{a, other} {
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Pages that are set aside are used where there are any.
func TestMapHugeTLB(t *testing.T) {
	b := mapHugeTLB(hugeBytes + 1)
	if b == nil {
		t.Skip("no huge pages are set aside (vm.nr_hugepages)")
	}
	defer unix.Munmap(b)
	b[hugeBytes] = 1
	if n, err := hugeIn([][2]uintptr{{address(b), address(b) + uintptr(len(b))}}); err != nil || n == 0 {
		t.Errorf("%d bytes in huge pages: %v", n, err)
	}
}

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
