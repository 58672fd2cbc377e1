package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var testMarks = []Mark{{"plan", "0123"}, {"input", "4567"}}

// savedAt is what the tests save at a place: the numbers of slabs differ, and some
// objects are read piece by piece.
func savedAt(p Place, size int) []Saved {
	var out []Saved
	for i := range 4 {
		o := Saved{ID: int32(3*i + p.Step%3), Memory: content(Addr{A: int64(p.Step), B: uint64(p.Run), Level: uint32(i)}, (i*p.Step)%7, size)}
		if i%2 == 1 {
			mem := o.Memory
			o = Saved{ID: o.ID, Count: len(mem), Read: func(first int, dst [][]byte) error {
				for k := range dst {
					copy(dst[k], mem[first+k])
				}
				return nil
			}}
		}
		out = append(out, o)
	}
	return out
}

func ofRun(run int) func(Place) bool { return func(p Place) bool { return p.Run == run } }

// lastOf keeps the last n of a run, and all of others.
func lastOf(run, n int) func(Place) bool {
	return func(p Place) bool {
		if p.Run == run {
			n--
		}
		return p.Run != run || n >= 0
	}
}

// sameAs compares a snapshot with what was saved at its place.
func sameAs(x *Snapshot, size int) error {
	objects := savedAt(x.Place, size)
	if len(objects) != len(x.IDs) {
		return fmt.Errorf("%d objects, want %d", len(x.IDs), len(objects))
	}
	for i := range objects {
		o := &objects[i]
		if !x.Has(o.ID) || x.Slabs(o.ID) != o.Slabs() || x.IDs[i] != o.ID {
			return fmt.Errorf("object %d has %d slabs, want %d", o.ID, x.Slabs(o.ID), o.Slabs())
		}
		want := o.Memory
		if o.Read != nil {
			want = content(Addr{A: int64(x.Step), B: uint64(x.Run), Level: uint32(i)}, o.Count, size)
		}
		for first := range want {
			got := make([][]byte, len(want)-first)
			for k := range got {
				got[k] = pageBuffer(int64(size))
			}
			if err := x.Read(o.ID, first, got); err != nil {
				return err
			}
			if !slices.EqualFunc(got, want[first:], bytes.Equal) {
				return fmt.Errorf("object %d differs", o.ID)
			}
		}
	}
	return nil
}

func TestSnapshots(t *testing.T) {
	for _, size := range []int{64, PageBytes, 3 * PageBytes} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			if has, err := SnapshotsIn(dir); has || err != nil {
				t.Fatalf("a folder that is not there holds snapshots: %v, %v", has, err)
			}
			s, err := OpenSnapshots(dir, size, testMarks)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := OpenSnapshots(dir, size, testMarks); !errors.Is(err, ErrLocked) {
				t.Errorf("opened twice: %v", err)
			}
			for _, p := range []Place{{0, 5}, {0, 17}, {0, 100}, {1, 3}, {12, 2}} {
				copied := 0
				n, err := s.Put(p, savedAt(p, size), func() { copied++ })
				if err != nil || copied != 1 {
					t.Fatalf("copied %d times, %v", copied, err)
				}
				if fi, err := os.Stat(filepath.Join(dir, p.name())); err != nil || fi.Size() != n {
					t.Errorf("said to have %d bytes: %v, %v", n, fi, err)
				}
			}
			if err := s.Prune(lastOf(0, 2)); err != nil {
				t.Fatal(err)
			}
			places, err := s.Places()
			if err != nil || !slices.Equal(places, []Place{{0, 17}, {0, 100}, {1, 3}, {12, 2}}) {
				t.Errorf("%v, %v", places, err)
			}
			if err := errors.Join(s.Close(), os.WriteFile(filepath.Join(dir, snapTemp), []byte("cut"), 0o644)); err != nil {
				t.Fatal(err)
			}
			if s, err = OpenSnapshots(dir, size, testMarks); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := os.Stat(filepath.Join(dir, snapTemp)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what was being written stays: %v", err)
			}
			for run, step := range map[int]int{0: 100, 1: 3, 12: 2} {
				x, damaged, err := s.Last(ofRun(run))
				if err != nil || len(damaged) > 0 || x == nil || x.Step != step {
					t.Fatalf("run %d: %v, %v, %v", run, x, damaged, err)
				}
				if err := s.Prune(lastOf(run, 0)); err != nil { // an open one stays readable
					t.Fatal(err)
				}
				if err := errors.Join(sameAs(x, size), x.Close()); err != nil {
					t.Errorf("run %d: %v", run, err)
				}
			}
			if x, damaged, err := s.Last(ofRun(0)); x != nil || len(damaged) > 0 || err != nil {
				t.Errorf("nothing is left: %v, %v, %v", x, damaged, err)
			}
			if _, err := s.Put(Place{0, 9}, savedAt(Place{0, 9}, size), func() {}); err != nil {
				t.Fatal(err)
			}
			if err := s.Clear(); err != nil {
				t.Fatal(err)
			}
			if has, err := SnapshotsIn(dir); has || err != nil {
				t.Errorf("cleared, and has snapshots: %v, %v", has, err)
			}
		})
	}
}

// Whatever byte of a snapshot is hurt, or wherever it is cut, the one before is
// used, and what is said names the file.
func TestSnapshotDamaged(t *testing.T) {
	const size = 64
	dir := t.TempDir()
	s, err := OpenSnapshots(dir, size, testMarks)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	old, last := Place{0, 4}, Place{0, 9}
	for _, p := range []Place{old, last} {
		if _, err := s.Put(p, savedAt(p, size), func() {}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, last.name())
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	payload := 0
	for _, o := range savedAt(last, size) {
		payload += o.Slabs() * size
	}
	used := PageBytes + payload // what follows are zeros that nobody reads
	try := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		x, damaged, err := s.Last(ofRun(0))
		if err != nil || x == nil || x.Place != old || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), path) {
			t.Fatalf("%s: %v, %v, %v", name, x, damaged, err)
		}
		x.Close()
	}
	for i := 0; i < used; i += 5 {
		b := slices.Clone(good)
		b[i] ^= 1 << (i % 8)
		if i >= 8 && i < 12 { // the version
			continue
		}
		try(fmt.Sprint("byte ", i), b)
	}
	for n := 0; n < len(good); n += 101 {
		try(fmt.Sprint("cut to ", n), good[:n])
	}
	try("grown", append(slices.Clone(good), 0))
	other, err := os.ReadFile(filepath.Join(dir, old.name()))
	if err != nil {
		t.Fatal(err)
	}
	try("of another step", other)
	// What is damaged goes first.
	if err := s.Prune(lastOf(0, 1)); err != nil {
		t.Fatal(err)
	}
	if places, err := s.Places(); err != nil || !slices.Equal(places, []Place{old}) {
		t.Errorf("%v, %v", places, err)
	}
}

func TestSnapshotForeign(t *testing.T) {
	const size = 64
	dir := t.TempDir()
	s, err := OpenSnapshots(dir, size, testMarks)
	if err != nil {
		t.Fatal(err)
	}
	at := Place{0, 4}
	if _, err := s.Put(at, savedAt(at, size), func() {}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused := func(size int, marks []Mark, want string) {
		t.Helper()
		s, err := OpenSnapshots(dir, size, marks)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, _, err := s.Last(ofRun(0)); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), at.name()) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	refused(size, []Mark{{"plan", "0123"}, {"input", "9999"}}, "another input (4567, not 9999)")
	refused(size, []Mark{{"plan", ""}, {"input", "4567"}}, "another plan")
	refused(size, append([]Mark{{"key set", "1"}}, testMarks...), "which key set")
	refused(128, testMarks, "slabs of 64 bytes")
	b, err := os.ReadFile(filepath.Join(dir, at.name()))
	if err != nil {
		t.Fatal(err)
	}
	b[8] = 9
	if err := os.WriteFile(filepath.Join(dir, at.name()), b, 0o644); err != nil {
		t.Fatal(err)
	}
	refused(size, testMarks, "format version 9")
}

// What cannot be written leaves the snapshots that are there, and no other file.
func TestSnapshotFails(t *testing.T) {
	const size = PageBytes
	boom := errors.New("boom")
	old, next := Place{0, 4}, Place{0, 9}
	fails := 0
	for at := range 20 {
		dir := t.TempDir()
		f := &failing{Technology: File{}, folder: dirFolder(dir), left: 1 << 30, err: boom}
		s, err := SnapshotsOn(f, f, dir, size, testMarks)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(old, savedAt(old, size), func() {}); err != nil {
			t.Fatal(err)
		}
		f.left = at
		copied := 0
		_, err = s.Put(next, savedAt(next, size), func() { copied++ })
		f.left = 1 << 30
		if copied != 1 {
			t.Errorf("failure %d: copied %d times", at, copied)
		}
		x, damaged, lasting := s.Last(ofRun(0))
		if lasting != nil || x == nil || len(damaged) > 0 {
			t.Fatalf("failure %d: %v, %v, %v", at, x, damaged, lasting)
		}
		// After a rename that could not be made durable either may be there.
		if err == nil && x.Place != next || err != nil && x.Place != old && !f.renamed {
			t.Errorf("failure %d (%v): the last snapshot is %v", at, err, x.Place)
		}
		if err := errors.Join(sameAs(x, size), x.Close()); err != nil {
			t.Error(err)
		}
		if err != nil {
			fails++
			if !errors.Is(err, boom) || !strings.Contains(err.Error(), dir) {
				t.Errorf("failure %d: %v", at, err)
			}
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || len(left) > 0 {
			t.Errorf("failure %d leaves %v, %v", at, left, err)
		}
	}
	if fails < 7 || fails == 20 {
		t.Errorf("%d of 20 failed", fails)
	}
	// Reading an object may fail as well.
	s, err := OpenSnapshots(t.TempDir(), size, testMarks)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Put(old, []Saved{{ID: 1, Count: 3, Read: func(int, [][]byte) error { return boom }}}, func() {}); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

// failing does a number of operations, and then none but reads and removals.
type failing struct {
	Technology
	folder  Folder
	left    int
	err     error
	renamed bool
}

func (f *failing) step() error {
	if f.left--; f.left < 0 {
		return f.err
	}
	return nil
}

func (f *failing) Open(path string, write bool) (Medium, error) {
	if write {
		if err := f.step(); err != nil {
			return nil, err
		}
	}
	m, err := f.Technology.Open(path, write)
	if err != nil {
		return nil, err
	}
	return &failingMedium{m, f}, nil
}

func (f *failing) Names() ([]string, error) { return f.folder.Names() }
func (f *failing) Remove(name string) error { return f.folder.Remove(name) }
func (f *failing) Sync() error              { return errors.Join(f.step(), f.folder.Sync()) }
func (f *failing) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	f.renamed = to != (Place{0, 4}).name()
	return f.folder.Rename(from, to)
}

type failingMedium struct {
	Medium
	f *failing
}

func (m *failingMedium) WriteAt(slabs [][]byte, off int64) error {
	if err := m.f.step(); err != nil {
		return err
	}
	return m.Medium.WriteAt(slabs, off)
}
func (m *failingMedium) Reserve(n int64) error {
	if err := m.f.step(); err != nil {
		return err
	}
	return m.Medium.Reserve(n)
}
func (m *failingMedium) Truncate(n int64) error {
	if err := m.f.step(); err != nil {
		return err
	}
	return m.Medium.Truncate(n)
}
func (m *failingMedium) Sync() error {
	if err := m.f.step(); err != nil {
		return err
	}
	return m.Medium.Sync()
}

// FuzzSnapshot gives the reader any bytes, with a checksum that fits: it refuses
// them or reads what they describe, and takes no more memory than they have.
func FuzzSnapshot(f *testing.F) {
	const size = 64
	h := &Heap{}
	s, err := SnapshotsOn(h, nowhere{}, "", size, testMarks)
	if err != nil {
		f.Fatal(err)
	}
	at := Place{1, 8}
	if _, err := s.Put(at, savedAt(at, size), func() {}); err != nil {
		f.Fatal(err)
	}
	good := h.files[snapTemp].data
	f.Add(good)
	f.Add(good[:PageBytes])
	for _, i := range []int{12, 16, 24, 32, 40, 44, 48, 60, 80, 90} {
		b := slices.Clone(good)
		b[i] ^= 0x81
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Clone(b)
		if len(b) >= PageBytes {
			if n := int64(binary.LittleEndian.Uint32(b[12:])) * PageBytes; n >= PageBytes && n <= int64(len(b)) {
				binary.LittleEndian.PutUint32(b[n-4:], crc32.Checksum(b[:n-4], castagnoli))
			}
		}
		x, err := readSnapshot(&heapMedium{f: &heapFile{data: b}})
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		for _, id := range x.IDs {
			for i := range x.Slabs(id) {
				if err := x.Read(id, i, [][]byte{make([]byte, x.slab)}); err != nil && !errors.Is(err, ErrDamaged) {
					t.Fatal(err)
				}
			}
		}
	})
}

// nowhere is a folder that forgets names.
type nowhere struct{}

func (nowhere) Names() ([]string, error)    { return nil, nil }
func (nowhere) Rename(string, string) error { return nil }
func (nowhere) Remove(string) error         { return nil }
func (nowhere) Sync() error                 { return nil }
