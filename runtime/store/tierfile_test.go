package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// buffered is the file technology on a file system without direct I/O.
type buffered struct{ File }

func (buffered) Open(path string, write bool) (Medium, error) {
	m, err := File{}.Open(path, write)
	if err == nil {
		m.(*fileMedium).useDirect.Store(false)
	}
	return m, err
}

// content is what the tests store under an address.
func content(a Addr, slabs, size int) [][]byte {
	rng := rand.New(rand.NewPCG(uint64(a.A)<<8|uint64(a.Level), a.B|uint64(a.Kind)<<32))
	out := make([][]byte, slabs)
	for i := range out {
		out[i] = pageBuffer(int64(size))
		for j := range out[i] {
			out[i][j] = byte(rng.Uint32())
		}
	}
	return out
}

func specs(n int) []Spec {
	var s []Spec
	for i := range n {
		s = append(s, Spec{Addr{Kind: 7, Level: uint32(i % 3), A: int64(i) - 2, B: uint64(i) << 40}, 1 + i%5})
	}
	return s
}

// install writes what is missing of the specs, in segments of a few objects.
func install(f *TierFile, all []Spec, size int) (written int, err error) {
	var missing []Spec
	for _, s := range all {
		if !f.Has(s.Addr, s.Slabs) {
			missing = append(missing, s)
		}
	}
	for len(missing) > 0 {
		part := missing[:min(3, len(missing))]
		missing = missing[len(part):]
		seg, err := f.Segment(part)
		if err != nil {
			return written, err
		}
		for i, s := range part {
			if err := seg.Write(i, content(s.Addr, s.Slabs, size)); err != nil {
				return written, seg.Abort(err)
			}
		}
		if err := seg.Commit(); err != nil {
			return written, err
		}
		written += len(part)
	}
	return written, nil
}

// verify reads every object that the file claims to have and compares it.
func verify(t *testing.T, f *TierFile, all []Spec, size int) (have int) {
	t.Helper()
	for _, s := range all {
		if !f.Has(s.Addr, s.Slabs) {
			continue
		}
		have++
		got := make([][]byte, s.Slabs)
		for i := range got {
			got[i] = pageBuffer(int64(size))
		}
		if err := f.Read(s.Addr, 0, got); err != nil {
			t.Fatal(err)
		}
		for i, w := range content(s.Addr, s.Slabs, size) {
			if !bytes.Equal(got[i], w) {
				t.Fatalf("%+v: slab %d differs", s, i)
			}
		}
		if err := f.Read(s.Addr, s.Slabs-1, got[:1]); err != nil || !bytes.Equal(got[0], content(s.Addr, s.Slabs, size)[s.Slabs-1]) {
			t.Fatalf("%+v: reading the last slab alone: %v", s, err)
		}
	}
	return have
}

func TestTierFileRoundTrip(t *testing.T) {
	for _, tech := range []Technology{&Heap{}, File{}, buffered{}} {
		for _, size := range []int{64, 512, 4096, 16384} {
			t.Run(fmt.Sprintf("%T/%d", tech, size), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "a.htier")
				h := Header{KeyFile, size, "set"}
				all := specs(11)
				f, err := Create(tech, path, h)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := install(f, all[:7], size); err != nil || n != 7 {
					t.Fatal(n, err)
				}
				if n := verify(t, f, all, size); n != 7 {
					t.Fatalf("%d objects of 7 before closing", n)
				}
				before := f.end
				if n, err := install(f, all[:7], size); err != nil || n != 0 || f.end != before {
					t.Fatalf("installing again wrote %d objects: %v", n, err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if f, err = Create(tech, path, h); err != nil { // go on
					t.Fatal(err)
				}
				if n, err := install(f, all, size); err != nil || n != 4 {
					t.Fatal(n, err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if f, err = Open(tech, path, h); err != nil {
					t.Fatal(err)
				}
				if n := verify(t, f, all, size); n != len(all) {
					t.Fatalf("%d objects of %d", n, len(all))
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// images returns what a crash may leave of a complete tier file: cut at any
// byte, or with a segment whose header never became durable while anything of
// what follows it did.
func images(t *testing.T, full []byte, rng *rand.Rand) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	cuts := []int{0, 1, PageBytes - 1, PageBytes, PageBytes + 1, len(full) - 1, len(full)}
	for range 25 {
		cuts = append(cuts, rng.IntN(len(full)))
	}
	for _, c := range cuts {
		out[fmt.Sprintf("cut at %d", c)] = full[:c]
	}
	segments := 0
	for at := PageBytes; at < len(full); at += PageBytes {
		if string(full[at:at+4]) != segMagic {
			continue
		}
		segments++
		img := append([]byte(nil), full...)
		clear(img[at : at+PageBytes])
		for p := at + PageBytes; p < len(img); p += PageBytes {
			if string(img[p:p+4]) == segMagic || rng.IntN(2) == 0 {
				for i := range img[p : p+PageBytes] { // never written, or torn
					img[p+i] *= byte(i % 2)
				}
			}
		}
		out[fmt.Sprintf("no segment at %d", at)] = img
		torn := append([]byte(nil), full...)
		for i := at + 100; i < at+PageBytes; i++ {
			torn[i] = byte(rng.Uint32())
		}
		out[fmt.Sprintf("torn segment at %d", at)] = torn
	}
	if segments < 3 {
		t.Fatalf("only %d segments", segments)
	}
	return out
}

// An install that dies at any moment leaves a file that the next one completes,
// and never an object that reads back wrong.
func TestTierFileKilledAnywhere(t *testing.T) {
	const size = 512
	dir := t.TempDir()
	h := Header{WeightFile, size, "plan"}
	all := specs(14)
	path := filepath.Join(dir, "full.htier")
	f, err := Create(File{}, path, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(f, all, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	full, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(dir, "killed.htier")
	for name, img := range images(t, full, rand.New(rand.NewPCG(5, 6))) {
		if err := os.WriteFile(p, img, 0o644); err != nil {
			t.Fatal(err)
		}
		if len(img) >= PageBytes {
			r, err := Open(File{}, p, h)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			verify(t, r, all, size)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		w, err := Create(File{}, p, h)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := install(w, all, size); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := verify(t, w, all, size); n != len(all) {
			t.Fatalf("%s: %d objects of %d after installing again", name, n, len(all))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(p); err != nil || fi.Size() != int64(len(full)) {
			t.Fatalf("%s: %d bytes after installing again, %d before (%v)", name, fi.Size(), len(full), err)
		}
	}
}

// A flipped byte anywhere is an error, a missing object or of no consequence;
// never wrong data.
func TestTierFileFlippedByte(t *testing.T) {
	const size = 512
	dir := t.TempDir()
	h := Header{KeyFile, size, "set"}
	all := specs(8)
	path := filepath.Join(dir, "full.htier")
	f, err := Create(File{}, path, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(f, all, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	full, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 8))
	noticed := 0
	for range 150 {
		img := append([]byte(nil), full...)
		img[rng.IntN(len(img))] ^= 1 << rng.IntN(8)
		p := filepath.Join(dir, "flip.htier")
		if err := os.WriteFile(p, img, 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := Open(File{}, p, h)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
				t.Fatal(err)
			}
			noticed++
			continue
		}
		for _, s := range all {
			got := make([][]byte, s.Slabs)
			for i := range got {
				got[i] = make([]byte, size)
			}
			if !r.Has(s.Addr, s.Slabs) {
				noticed++
				continue
			}
			if err := r.Read(s.Addr, 0, got); err != nil {
				if !errors.Is(err, ErrDamaged) {
					t.Fatal(err)
				}
				noticed++
				continue
			}
			for i, w := range content(s.Addr, s.Slabs, size) {
				if !bytes.Equal(got[i], w) {
					t.Fatal("a flipped byte went unnoticed")
				}
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if noticed < 20 {
		t.Errorf("only %d of 150 flips hit anything: the test is too gentle", noticed)
	}
}

func TestTierFileRefuses(t *testing.T) {
	dir := t.TempDir()
	h := Header{KeyFile, 4096, "set"}
	path := filepath.Join(dir, "a.htier")
	f, err := Create(File{}, path, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(File{}, path, h); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer: %v", err)
	}
	if _, err := Open(File{}, path, h); !errors.Is(err, ErrLocked) {
		t.Errorf("a reader beside a writer: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r1, err := Open(File{}, path, h)
	if err != nil {
		t.Fatal(err)
	}
	r2, err := Open(File{}, path, h)
	if err != nil {
		t.Fatalf("a second reader: %v", err)
	}
	if _, err := Create(File{}, path, h); !errors.Is(err, ErrLocked) {
		t.Errorf("a writer beside readers: %v", err)
	}
	for _, r := range []*TierFile{r1, r2} {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, other := range map[string]Header{
		"another key set": {KeyFile, 4096, "other"},
		"another kind":    {WeightFile, 4096, "set"},
		"another degree":  {KeyFile, 8192, "set"},
	} {
		for _, open := range []func(Technology, string, Header) (*TierFile, error){Open, Create} {
			if _, err := open(File{}, path, other); !errors.Is(err, ErrForeign) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := Open(File{}, filepath.Join(dir, "missing.htier"), h); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	foreign := filepath.Join(dir, "b.htier")
	if err := os.WriteFile(foreign, bytes.Repeat([]byte("letter to a friend "), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(File{}, foreign, h); !errors.Is(err, ErrDamaged) {
		t.Errorf("somebody's letter: %v", err)
	}
	img, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img[8] = 99
	fixHeader(img)
	if err := os.WriteFile(path, img, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(File{}, path, h); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("another version: %v", err)
	}
	if _, err := Open(File{}, dir, h); err == nil {
		t.Error("a directory was opened as a tier file")
	}
}

// fixHeader recomputes the checksum of the first page.
func fixHeader(img []byte) {
	binary.LittleEndian.PutUint32(img[PageBytes-4:], crc32.Checksum(img[:PageBytes-4], castagnoli))
}

// The objects of a segment are durable before the header that vouches for them
// is written.
func TestSegmentSyncsBeforeItVouches(t *testing.T) {
	rec := &recorder{Technology: &Heap{}}
	f, err := Create(rec, "x", Header{KeyFile, 64, "set"})
	if err != nil {
		t.Fatal(err)
	}
	rec.log = nil
	if _, err := install(f, specs(2), 64); err != nil {
		t.Fatal(err)
	}
	// Objects lie behind the header of their segment, at the old end.
	head := int64(PageBytes)
	state := "objects"
	for _, e := range rec.log {
		switch {
		case state == "objects" && e.op == "write" && e.off > head:
		case state == "objects" && e.op == "sync":
			state = "header"
		case state == "header" && e.op == "write" && e.off == head:
			state = "sync"
		case state == "sync" && e.op == "sync":
			state = "done"
		default:
			t.Fatalf("%s at %d while in state %q: %v", e.op, e.off, state, rec.log)
		}
	}
	if state != "done" {
		t.Fatalf("ended in state %q: %v", state, rec.log)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

type logged struct {
	op  string
	off int64
}

// recorder notes the order of writes and syncs, and can fail them.
type recorder struct {
	Technology
	log  []logged
	fail func(op string, off int64) error
}

type recording struct {
	Medium
	r *recorder
}

func (r *recorder) Open(path string, write bool) (Medium, error) {
	m, err := r.Technology.Open(path, write)
	if err != nil {
		return nil, err
	}
	return &recording{m, r}, nil
}

func (m *recording) note(op string, off int64) error {
	m.r.log = append(m.r.log, logged{op, off})
	if m.r.fail != nil {
		return m.r.fail(op, off)
	}
	return nil
}

func (m *recording) WriteAt(s [][]byte, off int64) error {
	if err := m.note("write", off); err != nil {
		return err
	}
	return m.Medium.WriteAt(s, off)
}

func (m *recording) Sync() error {
	if err := m.note("sync", 0); err != nil {
		return err
	}
	return m.Medium.Sync()
}

// An error at any write or sync is reported, and the file can be completed
// afterwards.
func TestSegmentFailsAnywhere(t *testing.T) {
	boom := errors.New("boom")
	all := specs(7)
	for k := 0; ; k++ {
		rec := &recorder{Technology: &Heap{}}
		n := 0
		rec.fail = func(string, int64) error {
			if n++; n > k {
				return boom
			}
			return nil
		}
		h := Header{WeightFile, 64, "plan"}
		f, err := Create(rec, "x", h)
		if err == nil {
			_, err = install(f, all, 64)
			verify(t, f, all, 64)
			if e := f.Close(); e != nil {
				t.Fatal(e)
			}
		}
		if err == nil {
			break // k is past the last operation
		}
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		rec.fail = nil
		if f, err = Create(rec, "x", h); err != nil {
			t.Fatalf("after failure %d: %v", k, err)
		}
		if _, err := install(f, all, 64); err != nil {
			t.Fatalf("after failure %d: %v", k, err)
		}
		if n := verify(t, f, all, 64); n != len(all) {
			t.Fatalf("after failure %d: %d objects", k, n)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSpill(t *testing.T) {
	for _, tech := range []Technology{&Heap{}, File{}, buffered{}} {
		for _, size := range []int{64, 4096} {
			dir := t.TempDir()
			s, err := NewSpill(tech, dir, size, []int{5, 3})
			if err != nil {
				t.Fatal(err)
			}
			a, b := content(Addr{A: 1}, 5, size), content(Addr{A: 2}, 3, size)
			for _, e := range []error{s.Write(1, 5, 0, a[:2]), s.Write(2, 3, 0, b), s.Write(1, 5, 2, a[2:]), s.Write(2, 3, 0, a[:3])} {
				if e != nil {
					t.Fatal(e)
				}
			}
			got := content(Addr{A: 9}, 5, size)
			if err := s.Read(1, 0, got); err != nil || !bytes.Equal(got[4], a[4]) || !bytes.Equal(got[0], a[0]) {
				t.Fatalf("%T: read back: %v", tech, err)
			}
			if err := s.Read(2, 1, got[:2]); err != nil || !bytes.Equal(got[0], a[1]) {
				t.Fatalf("%T: an object written twice: %v", tech, err)
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
				t.Errorf("%T: the spill area is visible: %v %v", tech, names, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestQueueStartsInOrder(t *testing.T) {
	q := NewQueue(1)
	var got []int
	for i := range 100 {
		q.Submit(func(int) { got = append(got, i) })
	}
	q.Close()
	for i, v := range got {
		if i != v {
			t.Fatalf("job %d ran at place %d", v, i)
		}
	}
	if len(got) != 100 {
		t.Errorf("%d jobs of 100 ran", len(got))
	}
}

// Slabs used where they lie are those that were written, are verified once, and a
// bad one is found by its check.
func TestMap(t *testing.T) {
	h := Header{KeyFile, 512, "set"}
	all := specs(9)
	heap := &Heap{}
	f, err := Create(heap, "x", h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(f, all, 512); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Map(all[0].Addr, 0, 1); err == nil || f.Addressable() {
		t.Error("a file that is being written was mapped")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = Open(heap, "x", h); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		for round := range 2 {
			slabs, check, err := f.Map(s.Addr, 0, s.Slabs)
			if err != nil || (check == nil) != (round == 1) {
				t.Fatalf("round %d: %v", round, err)
			}
			if check != nil {
				if err := check(); err != nil {
					t.Fatal(err)
				}
			}
			for i, w := range content(s.Addr, s.Slabs, 512) {
				if !bytes.Equal(slabs[i], w) {
					t.Fatalf("slab %d of %+v differs", i, s.Addr)
				}
			}
		}
	}
	big := all[4]
	if _, _, err := f.Map(big.Addr, big.Slabs-1, 2); err == nil {
		t.Error("a slab behind the last was mapped")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = Open(heap, "x", h); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	slabs, check, err := f.Map(big.Addr, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	slabs[1][5] ^= 1
	if err := check(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "slab 2") {
		t.Errorf("a flipped bit: %v", err)
	}
}

// A technology that copies only says so.
func TestMapRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.htier")
	h := Header{KeyFile, 512, "set"}
	f, err := Create(File{}, path, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(f, specs(2), 512); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = Open(File{}, path, h); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := f.Map(specs(1)[0].Addr, 0, 1); !errors.Is(err, ErrNotAddressable) || f.Addressable() {
		t.Errorf("got %v", err)
	}
}

// A slab that ends in zeros is read by its beginning, whatever became of the zeros; one
// that does not is refused.
func TestReadBeginnings(t *testing.T) {
	for _, size := range []int{128, PageBytes, 3*PageBytes + 8, 1 << 17} {
		path := filepath.Join(t.TempDir(), "a.htier")
		h := Header{KeyFile, size, "seeds"}
		f, err := Create(File{}, path, h)
		if err != nil {
			t.Fatal(err)
		}
		s := Spec{Addr{Kind: 1}, 3}
		data := content(s.Addr, s.Slabs, size)
		clear(data[2][32:])
		seg, err := f.Segment([]Spec{s})
		if err == nil {
			err = errors.Join(seg.Write(0, data), seg.Commit(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		read := func(slab, n int) ([]byte, error) {
			f, err := Open(File{}, path, h)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := pageBuffer(int64(n))
			return b, f.Read(s.Addr, slab, [][]byte{b})
		}
		for _, n := range []int{min(size, PageBytes), 64, 32} {
			if b, err := read(2, n); err != nil || !bytes.Equal(b, data[2][:n]) {
				t.Errorf("slabs of %d bytes: the first %d: %v", size, n, err)
			}
			if _, err := read(1, n); n < size && !errors.Is(err, ErrDamaged) {
				t.Errorf("slabs of %d bytes: the first %d of one that does not end in zeros: %v", size, n, err)
			}
		}
		img, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(img, data[2][:32])
		for _, c := range []struct {
			flip, n int
			ok      bool
		}{{5, 64, false}, {40, 64, false}, {40, size, false}, {80, 64, true}} {
			bad := bytes.Clone(img)
			bad[at+c.flip] ^= 1
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := read(2, c.n); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("slabs of %d bytes: byte %d is damaged, %d are read: %v", size, c.flip, c.n, err)
			}
		}
	}
}
