package store

import (
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
