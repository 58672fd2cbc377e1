package store

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func panics(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		if r := recover(); r == nil || !strings.Contains(r.(string), want) {
			t.Errorf("got panic %v, want one with %q", r, want)
		}
	}()
	f()
}

func TestArenaAccounts(t *testing.T) {
	for _, slab := range []int{64, 512, 4096, 32 << 10, 512 << 10} {
		a, err := NewArena(slab, 100, nil)
		if err != nil {
			t.Fatal(err)
		}
		k, err := a.Alloc(30, Keys, "one")
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.Alloc(70, Ciphertexts, "two")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Alloc(1, Scratch, "two"); !errors.Is(err, ErrFull) {
			t.Fatalf("slab %d: one slab beyond the limit: %v", slab, err)
		}
		seen := map[uintptr]bool{}
		for _, b := range []*Block{k, c} {
			for _, s := range b.Slabs {
				at := address(s)
				if len(s) != slab || cap(s) != slab || at%64 != 0 || slab >= 4096 && at%4096 != 0 || seen[at] {
					t.Fatalf("slab %d: bad slab of %d bytes at %x", slab, len(s), at)
				}
				seen[at] = true
				for i := range s {
					s[i] = 0xff
				}
			}
		}
		u := a.Usage()
		if u.InUse != 100 || u.Mapped != 100 || u.ByPurpose != [numPurposes]int{30, 0, 70, 0} || a.OwnedBy("one") != 30 || a.OwnedBy("two") != 70 {
			t.Fatalf("slab %d: usage %+v", slab, u)
		}
		k.Free()
		c.Free()
		u = a.Usage()
		if u.InUse != 0 || u.Peak != 100 || u.PeakBy[Keys] != 30 || a.OwnedBy("one") != 0 {
			t.Fatalf("slab %d: usage after all is free: %+v", slab, u)
		}
		panics(t, "freed twice", func() { c.Free() })
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		panics(t, "closed arena", func() { _, _ = a.Alloc(1, Keys, "") })
	}
}

func TestArenaLeak(t *testing.T) {
	a, err := NewArena(64, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Alloc(3, Weights, "")
	if err != nil {
		t.Fatal(err)
	}
	if invariants {
		panics(t, "weights 3", func() { _ = a.Close() })
	} else if err := a.Close(); err == nil || !strings.Contains(err.Error(), "weights 3") {
		t.Errorf("a leak of three slabs closes with %v", err)
	}
	b.Free()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestArenaRefusesOddSlabs(t *testing.T) {
	for _, slab := range []int{0, -64, 63, 100} {
		if _, err := NewArena(slab, 1, nil); err == nil {
			t.Errorf("a slab of %d bytes was accepted", slab)
		}
	}
	if _, err := NewArena(64, -1, nil); err == nil {
		t.Error("a negative limit was accepted")
	}
}

// Freed memory is poisoned in check builds, and a late write is found when the
// slab is handed out again.
func TestArenaPoison(t *testing.T) {
	if !invariants {
		t.Skip("needs -tags invariants")
	}
	a, err := NewArena(4096, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Alloc(1, Keys, "")
	if err != nil {
		t.Fatal(err)
	}
	s := b.Slabs[0]
	b.Free()
	if s[17] != poisonByte {
		t.Fatalf("freed memory holds %x", s[17])
	}
	s[17] = 1
	panics(t, "byte 17", func() { _, _ = a.Alloc(1, Keys, "") })
}

type quota map[Owner]int

func (q quota) Admit(o Owner, n int) bool {
	if q[o] < n {
		return false
	}
	q[o] -= n
	return true
}

func (q quota) Release(o Owner, n int) { q[o] += n }

func TestArenaAdmission(t *testing.T) {
	q := quota{"small": 2, "large": 50}
	a, err := NewArena(64, 0, q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Alloc(3, Keys, "small"); !errors.Is(err, ErrFull) {
		t.Fatalf("an owner took more than it may: %v", err)
	}
	b, err := a.Alloc(40, Keys, "large")
	if err != nil {
		t.Fatal(err)
	}
	b.Free()
	if q["large"] != 50 || q["small"] != 2 {
		t.Errorf("quotas afterwards: %v", q)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// Random allocation against a model: no slab is out twice, contents stay.
func TestArenaRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	a, err := NewArena(128, 500, nil)
	if err != nil {
		t.Fatal(err)
	}
	type held struct {
		b    *Block
		mark byte
	}
	var out []held
	used := 0
	for i := range 5000 {
		if n := rng.IntN(40); rng.IntN(2) == 0 {
			b, err := a.Alloc(n, Purpose(n%int(numPurposes)), "")
			if (err == nil) != (used+n <= 500) {
				t.Fatalf("%d in use, %d asked: %v", used, n, err)
			}
			if err != nil {
				continue
			}
			used += n
			for _, s := range b.Slabs {
				for j := range s {
					s[j] = byte(i)
				}
			}
			out = append(out, held{b, byte(i)})
		} else if len(out) > 0 {
			k := rng.IntN(len(out))
			h := out[k]
			for _, s := range h.b.Slabs {
				if slices.ContainsFunc(s, func(x byte) bool { return x != h.mark }) {
					t.Fatal("a block was overwritten")
				}
			}
			used -= len(h.b.Slabs)
			h.b.Free()
			out = slices.Delete(out, k, k+1)
		}
		if a.Usage().InUse != used {
			t.Fatalf("%d in use, the arena says %d", used, a.Usage().InUse)
		}
	}
	for _, h := range out {
		h.b.Free()
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// Memory that is backed beforehand is handed out like any other, and never more
// than the limit.
func TestPopulate(t *testing.T) {
	for _, c := range []struct{ limit, n, mapped int }{{100, 30, 100}, {100, 1000, 100}, {0, 10, chunkBytes / 4096}, {100, 0, 0}} {
		a, err := NewArena(4096, c.limit, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Populate(c.n, 3); err != nil {
			t.Fatal(err)
		}
		if u := a.Usage(); u.Mapped != c.mapped || u.InUse != 0 {
			t.Errorf("limit %d, %d slabs populated: %+v, want %d mapped", c.limit, c.n, u, c.mapped)
		}
		b, err := a.Alloc(60, Keys, "one")
		if err != nil {
			t.Fatal(err)
		}
		b.Free()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
