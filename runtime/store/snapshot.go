package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A snapshot holds the objects of a computation that are alive between two of
// its steps, so that it can go on from there after the process has died.
//
//	head      magic "HOMESNAP", version u32, pages of the head u32, slab bytes u64,
//	          run u64, step u64, names u32, objects u32; per name: length u16 and
//	          text of the name and of its value; per object: id u32, slabs u32 and
//	          the CRC-32C of each slab; CRC-32C of the head in its last 4 bytes
//	payload   the slabs of the objects, one after the other, from a page boundary,
//	          and zeros to the end of the last page
//
// It is written under another name, made durable, and then renamed: a file of
// the right name is whole, unless the device lost what it had promised to keep.
// Against that there are the checksums, and the snapshot before the last.

// SnapshotVersion is the format version of snapshots.
const SnapshotVersion = 1

const (
	snapMagic   = "HOMESNAP"
	snapSuffix  = ".hsnap"
	snapTemp    = "next" + snapSuffix + ".tmp"
	snapFixed   = 8 + 4 + 4 + 8 + 8 + 8 + 4 + 4
	snapObjects = 1 << 20 // most objects of a snapshot
	snapSlab    = 1 << 30 // most bytes of a slab
	snapPiece   = 2 << 20 // bytes that are written or read at a time
)

// Place is where in a computation a snapshot was taken: all steps of run Run
// before Step are done and no other. Runs are numbered from 0.
type Place struct{ Run, Step int }

func (p Place) name() string { return fmt.Sprintf("%08d-%010d%s", p.Run, p.Step, snapSuffix) }

// parsePlace is the inverse of name.
func parsePlace(name string) (Place, bool) {
	var p Place
	if n, err := fmt.Sscanf(name, "%d-%d"+snapSuffix, &p.Run, &p.Step); n != 2 || err != nil || p.Run < 0 || p.Step < 0 || p.name() != name {
		return Place{}, false
	}
	return p, true
}

// Mark is one of the things that a snapshot belongs to, such as a plan or an
// input, and what identifies it. Both have at most 1024 bytes.
type Mark struct{ Name, Value string }

// Folder is what snapshots need of a directory beside files.
type Folder interface {
	// Names lists the files.
	Names() ([]string, error)
	// Rename gives a file another name, which is taken from whatever has it.
	Rename(from, to string) error
	Remove(name string) error
	// Sync returns when the names are durable.
	Sync() error
}

type dirFolder string

func (d dirFolder) Names() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (d dirFolder) Rename(from, to string) error {
	return os.Rename(filepath.Join(string(d), from), filepath.Join(string(d), to))
}

func (d dirFolder) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }
func (d dirFolder) Sync() error              { return syncDir(string(d)) }

// Snapshots is a folder of snapshots of one computation. Its methods may be
// called by one goroutine at a time.
type Snapshots struct {
	dir    string
	t      Technology
	folder Folder
	slab   int
	marks  []Mark
	lock   *os.File
	bad    map[string]bool // files that were found damaged
	buf    []byte
}

// OpenSnapshots opens a folder for the snapshots of the computation that marks
// identify, and makes it where it is missing. One process at a time may have it
// open: others get ErrLocked. What a process that died was writing is removed.
func OpenSnapshots(dir string, slabBytes int, marks []Mark) (_ *Snapshots, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := lockFile(lock, true); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	t, err := Detect(dir)
	if err != nil {
		return nil, err
	}
	s, err := SnapshotsOn(t, dirFolder(dir), dir, slabBytes, marks)
	if err != nil {
		return nil, err
	}
	s.lock = lock
	return s, nil
}

// SnapshotsOn is OpenSnapshots for a folder of any technology, which nothing else
// uses at the same time.
func SnapshotsOn(t Technology, f Folder, dir string, slabBytes int, marks []Mark) (*Snapshots, error) {
	if slabBytes <= 0 || slabBytes > snapSlab {
		panic(fmt.Sprintf("BUG: snapshots of slabs of %d bytes", slabBytes))
	}
	for _, m := range marks {
		if len(m.Name) > maxID || len(m.Value) > maxID {
			panic(fmt.Sprintf("BUG: snapshot mark %q of %d bytes", m.Name, len(m.Value)))
		}
	}
	if err := folderRemove(f, snapTemp); err != nil {
		return nil, err
	}
	return &Snapshots{dir: dir, t: t, folder: f, slab: slabBytes, marks: marks, bad: map[string]bool{}}, nil
}

// folderRemove removes a file if it is there.
func folderRemove(f Folder, name string) error {
	if err := f.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Dir returns the folder.
func (s *Snapshots) Dir() string { return s.dir }

// Places lists the snapshots that the folder holds, whole or not, in order.
func (s *Snapshots) Places() ([]Place, error) {
	names, err := s.folder.Names()
	if err != nil {
		return nil, err
	}
	var out []Place
	for _, n := range names {
		if p, ok := parsePlace(n); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Place) int {
		if a.Run != b.Run {
			return a.Run - b.Run
		}
		return a.Step - b.Step
	})
	return out, nil
}

// Saved is an object that goes into a snapshot: its slabs where they are in memory,
// else Count slabs that Read brings, some at a time.
type Saved struct {
	ID     int32
	Memory [][]byte
	Count  int
	Read   func(first int, dst [][]byte) error
}

// Slabs returns the number of slabs.
func (o *Saved) Slabs() int {
	if o.Read == nil {
		return len(o.Memory)
	}
	return o.Count
}

// Put writes a snapshot and returns its size when it is durable. copied is
// called once, as soon as the objects are not needed any more, on failure as
// well. After a failure the folder holds the snapshots that it held before.
func (s *Snapshots) Put(at Place, objects []Saved, copied func()) (bytes int64, err error) {
	m, bytes, err := s.write(at, objects)
	copied()
	if err == nil {
		err = m.Sync()
	}
	if m != nil {
		err = errors.Join(err, m.Close())
	}
	if err == nil {
		err = s.folder.Rename(snapTemp, at.name())
	}
	if err == nil {
		err = s.folder.Sync()
	}
	if err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w: %d bytes are needed", err, bytes)
		}
		_ = folderRemove(s.folder, snapTemp) // gives the room back; the next Put would overwrite it
		return bytes, fmt.Errorf("%s: %w", s.dir, err)
	}
	delete(s.bad, at.name())
	return bytes, nil
}

// write writes the file under its temporary name. The medium is nil where it
// could not be opened.
func (s *Snapshots) write(at Place, objects []Saved) (Medium, int64, error) {
	slabs := 0
	for i := range objects {
		slabs += objects[i].Slabs()
	}
	head := pageBuffer(s.headBytes(len(objects), slabs))
	size := int64(len(head)) + pages(int64(slabs)*int64(s.slab))
	m, err := s.t.Open(filepath.Join(s.dir, snapTemp), true)
	if err != nil {
		return nil, size, err
	}
	if err := errors.Join(m.Truncate(0), m.Reserve(size)); err != nil {
		return m, size, err
	}
	le := binary.LittleEndian
	copy(head, snapMagic)
	le.PutUint32(head[8:], SnapshotVersion)
	le.PutUint32(head[12:], uint32(len(head)/PageBytes))
	le.PutUint64(head[16:], uint64(s.slab))
	le.PutUint64(head[24:], uint64(at.Run))
	le.PutUint64(head[32:], uint64(at.Step))
	le.PutUint32(head[40:], uint32(len(s.marks)))
	le.PutUint32(head[44:], uint32(len(objects)))
	pos := snapFixed
	for _, k := range s.marks {
		for _, t := range []string{k.Name, k.Value} {
			le.PutUint16(head[pos:], uint16(len(t)))
			pos += 2 + copy(head[pos+2:], t)
		}
	}
	off := int64(len(head))
	for i := range objects {
		o := &objects[i]
		n := o.Slabs()
		le.PutUint32(head[pos:], uint32(o.ID))
		le.PutUint32(head[pos+4:], uint32(n))
		pos += 8
		for first := 0; first < n; {
			part, err := s.piece(o, first)
			if err != nil {
				return m, size, err
			}
			for _, b := range part {
				le.PutUint32(head[pos:], checksum(b))
				pos += 4
			}
			if err := m.WriteAt(part, off); err != nil {
				return m, size, err
			}
			off += total(part)
			first += len(part)
		}
	}
	le.PutUint32(head[len(head)-4:], checksum(head[:len(head)-4]))
	return m, size, m.WriteAt([][]byte{head}, 0)
}

// headBytes returns the size of a head.
func (s *Snapshots) headBytes(objects, slabs int) int64 {
	n := int64(snapFixed) + 8*int64(objects) + 4*int64(slabs) + 4
	for _, k := range s.marks {
		n += int64(4 + len(k.Name) + len(k.Value))
	}
	return pages(n)
}

// perPiece is how many slabs are moved at a time.
func (s *Snapshots) perPiece() int { return max(1, snapPiece/s.slab) }

// piece returns the next slabs of an object, in the folder's buffer where they
// are not in memory.
func (s *Snapshots) piece(o *Saved, first int) ([][]byte, error) {
	n := min(s.perPiece(), o.Slabs()-first)
	if o.Read == nil {
		return o.Memory[first : first+n], nil
	}
	part := s.buffer(n)
	return part, o.Read(first, part)
}

// buffer returns n slabs of memory that the next call hands out again.
func (s *Snapshots) buffer(n int) [][]byte {
	if s.buf == nil {
		s.buf = pageBuffer(int64(s.perPiece()) * int64(s.slab))
	}
	out := make([][]byte, n)
	for i := range out {
		out[i] = s.buf[i*s.slab : (i+1)*s.slab : (i+1)*s.slab]
	}
	return out
}

// Prune removes snapshots that were found damaged, and of the others those that keep
// denies; it is asked about the last first.
func (s *Snapshots) Prune(keep func(Place) bool) error {
	places, err := s.Places()
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(places) {
		if !s.bad[p.name()] && keep(p) {
			continue
		}
		if err := folderRemove(s.folder, p.name()); err != nil {
			return err
		}
		delete(s.bad, p.name())
	}
	return nil
}

// Clear removes all snapshots.
func (s *Snapshots) Clear() error {
	places, err := s.Places()
	if err != nil {
		return err
	}
	for _, p := range places {
		if err := folderRemove(s.folder, p.name()); err != nil {
			return err
		}
	}
	return s.folder.Sync()
}

// Close lets others open the folder. Snapshots stay.
func (s *Snapshots) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Snapshot is an open snapshot. Read may be called from several goroutines at
// once. It stays readable when Put or Prune replace the file.
type Snapshot struct {
	Place
	IDs   []int32 // of its objects, in the order in which they lie
	name  string
	slab  int
	m     Medium
	index map[int32]extent
	marks []Mark
}

// Last opens the last whole snapshot of those that are wanted; nil where there is
// none. Those that are damaged are passed over and told in damaged. One that belongs
// to another computation is refused with ErrForeign, and its mark named.
func (s *Snapshots) Last(wanted func(Place) bool) (snap *Snapshot, damaged []error, err error) {
	places, err := s.Places()
	if err != nil {
		return nil, nil, err
	}
	for _, p := range slices.Backward(places) {
		if !wanted(p) {
			continue
		}
		x, err := s.open(p, s.verify)
		if errors.Is(err, ErrForeign) {
			return nil, damaged, err
		}
		if err != nil {
			s.bad[p.name()] = true
			damaged = append(damaged, err)
			continue
		}
		return x, damaged, nil
	}
	return nil, damaged, nil
}

// Check fails with ErrForeign where the folder holds a snapshot of another
// computation.
func (s *Snapshots) Check() error {
	places, err := s.Places()
	if err != nil {
		return err
	}
	for _, p := range places {
		x, err := s.open(p, func(*Snapshot) error { return nil })
		if errors.Is(err, ErrForeign) {
			return err
		}
		if err == nil {
			if err := x.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// open opens one snapshot, reads its head and verifies what follows.
func (s *Snapshots) open(p Place, verify func(*Snapshot) error) (*Snapshot, error) {
	path := filepath.Join(s.dir, p.name())
	m, err := s.t.Open(path, false)
	if err != nil {
		return nil, err
	}
	x, err := readSnapshot(m)
	if err == nil {
		err = s.check(x, p)
	}
	if err == nil {
		err = verify(x)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), m.Close())
	}
	x.name = path
	return x, nil
}

// check refuses snapshots of other computations.
func (s *Snapshots) check(x *Snapshot, p Place) error {
	for _, want := range s.marks {
		i := slices.IndexFunc(x.marks, func(m Mark) bool { return m.Name == want.Name })
		switch {
		case i < 0:
			return fmt.Errorf("%w: it does not say which %s it belongs to", ErrForeign, want.Name)
		case x.marks[i].Value != want.Value:
			return fmt.Errorf("%w: it belongs to another %s (%s, not %s)", ErrForeign, want.Name, x.marks[i].Value, want.Value)
		}
	}
	switch {
	case x.slab != s.slab:
		return fmt.Errorf("%w: slabs of %d bytes, not %d", ErrForeign, x.slab, s.slab)
	case x.Place != p:
		return fmt.Errorf("%w: it says that it is step %d of run %d", ErrDamaged, x.Step, x.Run)
	}
	return nil
}

// verify reads all of a snapshot.
func (s *Snapshots) verify(x *Snapshot) error {
	for _, id := range x.IDs {
		n := len(x.index[id].crc)
		for first := 0; first < n; first += s.perPiece() {
			if err := x.Read(id, first, s.buffer(min(s.perPiece(), n-first))); err != nil {
				return err
			}
		}
	}
	return nil
}

// readSnapshot reads the head of a snapshot. It trusts nothing of it.
func readSnapshot(m Medium) (*Snapshot, error) {
	bad := func(format string, args ...any) (*Snapshot, error) {
		return nil, fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
	}
	size, err := m.Size()
	if err != nil {
		return nil, err
	}
	if size < PageBytes {
		return bad("%d bytes are too few", size)
	}
	head := pageBuffer(PageBytes)
	if err := m.ReadAt([][]byte{head}, 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if string(head[:8]) != snapMagic {
		return bad("it is no snapshot")
	}
	if v := le.Uint32(head[8:]); v != SnapshotVersion {
		return nil, fmt.Errorf("%w: format version %d, this build has %d", ErrForeign, v, SnapshotVersion)
	}
	n := int64(le.Uint32(head[12:])) * PageBytes
	if n < PageBytes || n > min(size, maxHeader) {
		return bad("a head of %d bytes in a file of %d", n, size)
	}
	if n > PageBytes {
		head = pageBuffer(n)
		if err := m.ReadAt([][]byte{head}, 0); err != nil {
			return nil, err
		}
	}
	if checksum(head[:n-4]) != le.Uint32(head[n-4:]) {
		return bad("checksum of its head")
	}
	slab, run, step, marks, objects := le.Uint64(head[16:]), le.Uint64(head[24:]), le.Uint64(head[32:]), le.Uint32(head[40:]), le.Uint32(head[44:])
	if slab == 0 || slab > snapSlab || run > 1<<31 || step > 1<<31 || objects > snapObjects {
		return bad("%d objects in slabs of %d bytes at step %d of run %d", objects, slab, step, run)
	}
	x := &Snapshot{Place: Place{int(run), int(step)}, slab: int(slab), m: m, index: map[int32]extent{}}
	rest := head[snapFixed : n-4]
	take := func(n int) []byte {
		if n > len(rest) {
			return nil
		}
		b := rest[:n]
		rest = rest[n:]
		return b
	}
	text := func() (string, bool) {
		b := take(2)
		if b == nil {
			return "", false
		}
		n := int(le.Uint16(b))
		b = take(n)
		return string(b), len(b) == n
	}
	for range marks {
		name, ok := text()
		value, ok2 := text()
		if !ok || !ok2 {
			return bad("its marks go beyond its head")
		}
		x.marks = append(x.marks, Mark{name, value})
	}
	pos := n
	for range objects {
		b := take(8)
		if b == nil {
			return bad("its objects go beyond its head")
		}
		id, count := int32(le.Uint32(b)), int(le.Uint32(b[4:]))
		sums := rest
		if count > len(rest)/4 {
			return bad("its objects go beyond its head")
		}
		rest = rest[4*count:]
		if _, twice := x.index[id]; twice || id < 0 {
			return bad("object %d", id)
		}
		e := extent{off: pos, crc: make([]uint32, count)}
		for i := range e.crc {
			e.crc[i] = le.Uint32(sums[4*i:])
		}
		x.IDs, x.index[id] = append(x.IDs, id), e
		pos += int64(count) * int64(slab)
	}
	if pos = pages(pos); pos != size {
		return bad("%d bytes, %d expected: it is cut or has grown", size, pos)
	}
	return x, nil
}

// Slabs returns the number of slabs of an object, 0 where it is not in the
// snapshot.
func (x *Snapshot) Slabs(id int32) int { return len(x.index[id].crc) }

// Has reports whether an object is in the snapshot.
func (x *Snapshot) Has(id int32) bool { _, ok := x.index[id]; return ok }

// SlabBytes returns the size of a slab.
func (x *Snapshot) SlabBytes() int { return x.slab }

// Read fills dst with slabs of an object from slab first on and verifies them.
func (x *Snapshot) Read(id int32, first int, dst [][]byte) error {
	e, ok := x.index[id]
	if !ok || first < 0 || first+len(dst) > len(e.crc) {
		panic(fmt.Sprintf("BUG: slabs %d to %d of object %d of a snapshot", first, first+len(dst)-1, id))
	}
	if err := x.m.ReadAt(dst, e.off+int64(first)*int64(x.slab)); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it is cut", ErrDamaged)
		}
		return x.named(err)
	}
	for i, b := range dst {
		if checksum(b) != e.crc[first+i] {
			return x.named(fmt.Errorf("%w: checksum of slab %d of object %d", ErrDamaged, first+i, id))
		}
	}
	return nil
}

// named says which file an error is about, once it is open.
func (x *Snapshot) named(err error) error {
	if x.name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", x.name, err)
}

// Close closes the file.
func (x *Snapshot) Close() error { return x.m.Close() }

// SnapshotsIn reports whether a folder holds snapshots, whatever they belong to.
func SnapshotsIn(dir string) (bool, error) {
	names, err := dirFolder(dir).Names()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return slices.ContainsFunc(names, func(n string) bool {
		_, ok := parsePlace(n)
		return ok && strings.HasSuffix(n, snapSuffix)
	}), err
}
