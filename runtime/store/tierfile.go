package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

// A tier file holds read-only objects for a slow tier: the keys of one key set,
// or the encoded weights of one plan.
//
//	page 0      magic "HOMETIER", version u32, kind u32, slab bytes u64,
//	            nonce [16], length u32 and text of the id, CRC-32C of the page
//	segments    one after the other, each on a page boundary:
//	  header    magic "HSEG", pages of header u32, nonce [16], own offset u64,
//	            objects u32, then per object: kind u32, level u32, a i64, b u64,
//	            slabs u32 and the CRC-32C of each slab; CRC-32C of the header in
//	            its last 4 bytes
//	  payload   the objects, each on a page boundary
//
// A segment is the unit of installation. Its payload is durable before its
// header is written, so a header that reads back valid vouches for objects that
// are whole. Whatever follows the last valid segment is the rest of an install
// that was cut short, and is overwritten by the next one. The nonce keeps what
// older files left on the device from being taken for a segment.

// Version is the format version of tier files. Version 2 has plaintexts whose coefficients
// that count stand in front.
const Version = 2

const (
	tierMagic = "HOMETIER"
	segMagic  = "HSEG"
	segFixed  = 4 + 4 + 16 + 8 + 4
	objFixed  = 4 + 4 + 8 + 8 + 4
	maxID     = 1024
	maxHeader = 64 << 20 // bytes of a segment header
)

// Kind says what a tier file holds.
type Kind uint32

// Kinds of tier files.
const (
	KeyFile    Kind = 1
	WeightFile Kind = 2
)

func (k Kind) String() string {
	switch k {
	case KeyFile:
		return "keys"
	case WeightFile:
		return "weights"
	}
	return fmt.Sprintf("kind %d", uint32(k))
}

// Header identifies a tier file. A file with another header is refused.
type Header struct {
	Kind      Kind
	SlabBytes int
	ID        string // what the content belongs to: key set or plan, at most 1024 bytes
}

// Addr names an object within a tier file. Keys: A is the rotation.
// Weights: A is the index of the plaintext, B a hash of its scale.
type Addr struct {
	Kind  uint32 // ir.Kind
	Level uint32
	A     int64
	B     uint64
}

// extent is where an object lies.
type extent struct {
	off int64
	crc []uint32 // per slab
}

// TierFile is an open tier file. Read may be called from several goroutines at
// once, also while a segment is being written.
type TierFile struct {
	path   string
	header Header
	nonce  [16]byte
	m      Medium
	write  bool

	mu      sync.RWMutex
	index   map[Addr]extent
	end     int64          // of the last valid segment
	checked map[int64]bool // offsets of slabs that were verified where they lie
}

// Create opens a tier file for writing, and makes it where it is missing. What
// follows its last valid segment is cut off. One process at a time may have it
// open for writing, and none for reading then: others get ErrLocked. A file
// that holds something else is refused with ErrForeign or ErrDamaged.
func Create(t Technology, path string, h Header) (*TierFile, error) {
	return openTier(t, path, h, true)
}

// Open opens a tier file for reading.
func Open(t Technology, path string, h Header) (*TierFile, error) { return openTier(t, path, h, false) }

func openTier(t Technology, path string, h Header, write bool) (*TierFile, error) {
	if h.SlabBytes <= 0 || len(h.ID) > maxID {
		panic(fmt.Sprintf("BUG: tier file header %+v", h))
	}
	m, err := t.Open(path, write)
	if err != nil {
		return nil, err
	}
	f := &TierFile{path: path, header: h, m: m, write: write, index: map[Addr]extent{}}
	if err := f.load(); err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w: %d more bytes are needed; free some and install again, it goes on from here", err, PageBytes)
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), m.Close())
	}
	return f, nil
}

// load reads the header and walks the segments, or starts an empty file.
func (f *TierFile) load() error {
	size, err := f.m.Size()
	if err != nil {
		return err
	}
	page := pageBuffer(PageBytes)
	if size >= PageBytes {
		if err := f.m.ReadAt([][]byte{page}, 0); err != nil {
			return err
		}
	}
	h, nonce, err := parseHeader(page)
	switch {
	case err == nil:
	case errors.Is(err, errNoHeader) && f.write && (size <= PageBytes || allZero(page)):
		return f.begin() // new, or cut short before its header was durable
	default:
		return fmt.Errorf("%w; %s and install again", err, f.discard())
	}
	if f.nonce = nonce; h != f.header {
		return fmt.Errorf("%w: it holds %v of %q with slabs of %d bytes, not %v of %q with %d; use another directory or %s",
			ErrForeign, h.Kind, h.ID, h.SlabBytes, f.header.Kind, f.header.ID, f.header.SlabBytes, f.discard())
	}
	f.end = PageBytes
	for {
		next, err := f.loadSegment(f.end, size)
		if err != nil {
			return err
		}
		if next == 0 {
			break
		}
		f.end = next
	}
	if f.write && size > f.end {
		if err := f.m.Truncate(f.end); err != nil {
			return err
		}
		return f.m.Sync()
	}
	return nil
}

var errNoHeader = fmt.Errorf("%w: it has no valid header", ErrDamaged)

// parseHeader reads the first page of a tier file.
func parseHeader(page []byte) (h Header, nonce [16]byte, err error) {
	le := binary.LittleEndian
	if string(page[:8]) != tierMagic || checksum(page[:PageBytes-4]) != le.Uint32(page[PageBytes-4:]) {
		return h, nonce, errNoHeader
	}
	if v := le.Uint32(page[8:]); v != Version {
		return h, nonce, fmt.Errorf("%w: format version %d, this build has %d", ErrForeign, v, Version)
	}
	n, slab := le.Uint32(page[40:]), le.Uint64(page[16:])
	if n > maxID || slab > math.MaxInt32 {
		return h, nonce, fmt.Errorf("%w: its identity has %d bytes, its slabs %d", ErrDamaged, n, slab)
	}
	copy(nonce[:], page[24:40])
	return Header{Kind: Kind(le.Uint32(page[12:])), SlabBytes: int(slab), ID: string(page[44 : 44+n])}, nonce, nil
}

// discard says how people get rid of this file.
func (f *TierFile) discard() string {
	if _, ok := f.m.(*devMedium); ok {
		return "empty the device (home install --format: all that is on it goes)"
	}
	return "delete it"
}

func allZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// begin writes the header of an empty file.
func (f *TierFile) begin() error {
	if err := f.m.Truncate(0); err != nil {
		return err
	}
	if _, err := rand.Read(f.nonce[:]); err != nil {
		return err
	}
	page := pageBuffer(PageBytes)
	le := binary.LittleEndian
	copy(page, tierMagic)
	le.PutUint32(page[8:], Version)
	le.PutUint32(page[12:], uint32(f.header.Kind))
	le.PutUint64(page[16:], uint64(f.header.SlabBytes))
	copy(page[24:], f.nonce[:])
	le.PutUint32(page[40:], uint32(len(f.header.ID)))
	copy(page[44:], f.header.ID)
	le.PutUint32(page[PageBytes-4:], checksum(page[:PageBytes-4]))
	if err := f.m.WriteAt([][]byte{page}, 0); err != nil {
		return err
	}
	f.end = PageBytes
	return f.m.Sync()
}

// loadSegment reads the segment header at off and returns where the segment
// ends, or 0 where there is no valid segment.
func (f *TierFile) loadSegment(off, size int64) (int64, error) {
	if off+PageBytes > size {
		return 0, nil
	}
	head := pageBuffer(PageBytes)
	if err := f.m.ReadAt([][]byte{head}, off); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(head[4:])) * PageBytes
	if string(head[:4]) != segMagic || !bytes.Equal(head[8:24], f.nonce[:]) || le.Uint64(head[24:]) != uint64(off) ||
		n < PageBytes || n > maxHeader || off+n > size {
		return 0, nil
	}
	if n > PageBytes {
		head = pageBuffer(n)
		if err := f.m.ReadAt([][]byte{head}, off); err != nil {
			return 0, err
		}
	}
	if checksum(head[:n-4]) != le.Uint32(head[n-4:]) {
		return 0, nil
	}
	// The checksum holds: what follows was written by this program.
	objects := int(le.Uint32(head[32:]))
	at, pos := segFixed, off+n
	type entry struct {
		a Addr
		e extent
	}
	var found []entry
	for range objects {
		a := Addr{Kind: le.Uint32(head[at:]), Level: le.Uint32(head[at+4:]), A: int64(le.Uint64(head[at+8:])), B: le.Uint64(head[at+16:])}
		e := extent{off: pos, crc: make([]uint32, le.Uint32(head[at+24:]))}
		at += objFixed
		for i := range e.crc {
			e.crc[i] = le.Uint32(head[at:])
			at += 4
		}
		pos += pages(int64(len(e.crc)) * int64(f.header.SlabBytes))
		found = append(found, entry{a, e})
	}
	if pos > size {
		return 0, nil // the file was cut inside this segment
	}
	for _, x := range found {
		f.index[x.a] = x.e
	}
	return pos, nil
}

// Describe says what the file is made of, for people.
func (f *TierFile) Describe() string { return f.m.Describe() }

// Has reports whether the object is in the file, with that many slabs.
func (f *TierFile) Has(a Addr, slabs int) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	e, ok := f.index[a]
	return ok && len(e.crc) == slabs
}

// Read fills dst with consecutive slabs of an object from slab first on, and
// verifies the checksum of each. It fails with ErrDamaged where the content is
// not what was written.
// The last slab of dst may be shorter than one of the file, if what it leaves out is
// zeros: that is not read, and the checksum proves the rest.
func (f *TierFile) Read(a Addr, first int, dst [][]byte) error {
	f.mu.RLock()
	e, ok := f.index[a]
	f.mu.RUnlock()
	if !ok || first < 0 || first+len(dst) > len(e.crc) {
		return fmt.Errorf("%s: it does not hold slabs %d to %d of %+v; install again", f.path, first, first+len(dst)-1, a)
	}
	if err := f.m.ReadAt(dst, e.off+int64(first)*int64(f.header.SlabBytes)); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: the file is cut; %s and install again", ErrDamaged, f.discard())
		}
		return fmt.Errorf("%s: %w", f.path, err)
	}
	for i, s := range dst {
		if padded(checksum(s), f.header.SlabBytes-len(s)) != e.crc[first+i] {
			return f.badSlab(first+i, e)
		}
	}
	return nil
}

// Addressable reports whether Map works.
func (f *TierFile) Addressable() bool {
	_, ok := f.m.(Mapper)
	return ok && !f.write
}

// Map returns count consecutive slabs of an object from slab first on where they
// lie, for reading until Close, without touching them; it fails with
// ErrNotAddressable where the technology copies only. The content is good once check
// has returned nil: it verifies the checksums of slabs that no check has verified
// before. check is nil where there are none, and may be called from any goroutine.
// Later accesses can fault all the same, where the memory goes bad: goroutines that
// touch the slabs call debug.SetPanicOnFault.
func (f *TierFile) Map(a Addr, first, count int) (slabs [][]byte, check func() error, err error) {
	m, ok := f.m.(Mapper)
	if !ok {
		return nil, nil, fmt.Errorf("%s: %w: %s", f.path, ErrNotAddressable, f.m.Describe())
	}
	f.mu.RLock()
	e, ok := f.index[a]
	f.mu.RUnlock()
	if !ok || first < 0 || count < 0 || first+count > len(e.crc) {
		return nil, nil, fmt.Errorf("%s: it does not hold slabs %d to %d of %+v; install again", f.path, first, first+count-1, a)
	}
	size := int64(f.header.SlabBytes)
	mem, err := m.Map(e.off+int64(first)*size, int64(count)*size)
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: the file is cut; %s and install again", ErrDamaged, f.discard())
		}
		return nil, nil, fmt.Errorf("%s: %w", f.path, err)
	}
	var fresh []int
	f.mu.RLock()
	for i := range count {
		slabs = append(slabs, mem[int64(i)*size:int64(i+1)*size:int64(i+1)*size])
		if !f.checked[e.off+int64(first+i)*size] {
			fresh = append(fresh, i)
		}
	}
	f.mu.RUnlock()
	if len(fresh) == 0 {
		return slabs, nil, nil
	}
	return slabs, func() error {
		for _, i := range fresh {
			var sum uint32
			if err := touching(func() { sum = checksum(slabs[i]) }); err != nil {
				return fmt.Errorf("%s: %w", f.path, err)
			}
			if sum != e.crc[first+i] {
				return f.badSlab(first+i, e)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.checked == nil {
			f.checked = map[int64]bool{}
		}
		for _, i := range fresh {
			f.checked[e.off+int64(first+i)*size] = true
		}
		return nil
	}, nil
}

func (f *TierFile) badSlab(slab int, e extent) error {
	return fmt.Errorf("%s: %w: checksum of slab %d of an object at offset %d; %s and install again", f.path, ErrDamaged, slab, e.off, f.discard())
}

// Close closes the file. A file that was open for writing keeps its valid
// segments only.
func (f *TierFile) Close() error {
	var err error
	if f.write {
		err = f.m.Truncate(f.end)
	}
	return errors.Join(err, f.m.Close())
}

// Spec announces an object of a segment.
type Spec struct {
	Addr  Addr
	Slabs int
}

// Segment is a group of objects being installed together. Write may be called
// from several goroutines for different objects; Commit after all of them.
// One segment of a file may be open at a time.
type Segment struct {
	f     *TierFile
	specs []Spec
	ext   []extent
	head  int64 // bytes of the header
	end   int64
	wrote []bool
	mu    sync.Mutex
}

// Segment starts a segment for the objects and reserves room for it. It fails
// where the device is full; the file then is as it was.
func (f *TierFile) Segment(specs []Spec) (*Segment, error) {
	if !f.write {
		panic("BUG: segment in a file that is open for reading")
	}
	bytes := int64(segFixed + 4)
	for _, s := range specs {
		bytes += objFixed + 4*int64(s.Slabs)
	}
	s := &Segment{f: f, specs: specs, head: pages(bytes), wrote: make([]bool, len(specs))}
	if s.head > maxHeader {
		return nil, fmt.Errorf("%s: %d objects are too many for one segment", f.path, len(specs))
	}
	pos := f.end + s.head
	for _, sp := range specs {
		s.ext = append(s.ext, extent{off: pos, crc: make([]uint32, sp.Slabs)})
		pos += pages(int64(sp.Slabs) * int64(f.header.SlabBytes))
	}
	s.end = pos
	if err := f.m.Reserve(pos); err != nil {
		return nil, s.giveUp(err)
	}
	return s, nil
}

// giveUp cuts the unfinished segment off and explains the error.
func (s *Segment) giveUp(err error) error {
	_ = s.f.m.Truncate(s.f.end) // the rest of an install that was cut short is harmless
	if isFull(err) {
		err = fmt.Errorf("%w: %d more bytes are needed; free some and install again, it goes on from here", err, s.end-s.f.end)
	}
	return fmt.Errorf("%s: %w", s.f.path, err)
}

// Write stores object i of the segment.
func (s *Segment) Write(i int, data [][]byte) error {
	e := &s.ext[i]
	if len(data) != len(e.crc) {
		panic(fmt.Sprintf("BUG: object %d of a segment has %d slabs, announced %d", i, len(data), len(e.crc)))
	}
	for k, d := range data {
		if len(d) != s.f.header.SlabBytes {
			panic(fmt.Sprintf("BUG: slab of %d bytes in a tier file of %d", len(d), s.f.header.SlabBytes))
		}
		e.crc[k] = checksum(d)
	}
	if err := s.f.m.WriteAt(data, e.off); err != nil {
		return fmt.Errorf("%s: %w", s.f.path, err)
	}
	s.mu.Lock()
	s.wrote[i] = true
	s.mu.Unlock()
	return nil
}

// Commit makes the segment's objects durable and valid, in that order.
func (s *Segment) Commit() error {
	for i, w := range s.wrote {
		if !w {
			panic(fmt.Sprintf("BUG: object %d of a segment was not written", i))
		}
	}
	le := binary.LittleEndian
	head := pageBuffer(s.head)
	copy(head, segMagic)
	le.PutUint32(head[4:], uint32(s.head/PageBytes))
	copy(head[8:], s.f.nonce[:])
	le.PutUint64(head[24:], uint64(s.f.end))
	le.PutUint32(head[32:], uint32(len(s.specs)))
	at := segFixed
	for i, sp := range s.specs {
		le.PutUint32(head[at:], sp.Addr.Kind)
		le.PutUint32(head[at+4:], sp.Addr.Level)
		le.PutUint64(head[at+8:], uint64(sp.Addr.A))
		le.PutUint64(head[at+16:], sp.Addr.B)
		le.PutUint32(head[at+24:], uint32(sp.Slabs))
		at += objFixed
		for _, c := range s.ext[i].crc {
			le.PutUint32(head[at:], c)
			at += 4
		}
	}
	le.PutUint32(head[s.head-4:], checksum(head[:s.head-4]))
	if err := s.f.m.Sync(); err != nil { // the objects, before what vouches for them
		return s.giveUp(err)
	}
	if err := s.f.m.WriteAt([][]byte{head}, s.f.end); err != nil {
		return s.giveUp(err)
	}
	if err := s.f.m.Sync(); err != nil {
		return s.giveUp(err)
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for i, sp := range s.specs {
		s.f.index[sp.Addr] = s.ext[i]
	}
	s.f.end = s.end
	return nil
}

// Abort forgets the segment; err says why and is returned with advice.
func (s *Segment) Abort(err error) error { return s.giveUp(err) }

// Spill is room in the slow tier for objects that leave DRAM and come back
// within one run. Different objects may be written and read at once.
type Spill struct {
	m    Medium
	slab int
	mu   sync.Mutex
	at   map[int64]extent
	end  int64
}

// NewSpill makes a spill area in dir with room reserved for objects of the
// given numbers of slabs. Nothing of it is left when it is closed or the
// process dies.
func NewSpill(t Technology, dir string, slabBytes int, objects []int) (*Spill, error) {
	m, err := t.Temp(dir)
	if err != nil {
		return nil, err
	}
	bytes := int64(0)
	for _, n := range objects {
		bytes += pages(int64(n) * int64(slabBytes))
	}
	if err := m.Reserve(bytes); err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w: %d bytes are needed for ciphertexts that leave DRAM", err, bytes)
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), m.Close())
	}
	return &Spill{m: m, slab: slabBytes, at: map[int64]extent{}}, nil
}

// Write stores slabs of an object of the given size from slab first on.
func (s *Spill) Write(id int64, slabs, first int, src [][]byte) error {
	s.mu.Lock()
	e, ok := s.at[id]
	if !ok {
		e = extent{off: s.end, crc: make([]uint32, slabs)}
		s.end += pages(int64(slabs) * int64(s.slab))
		s.at[id] = e
	}
	s.mu.Unlock()
	for i, b := range src {
		e.crc[first+i] = checksum(b)
	}
	return s.m.WriteAt(src, e.off+int64(first)*int64(s.slab))
}

// Read brings slabs back and verifies them.
func (s *Spill) Read(id int64, first int, dst [][]byte) error {
	s.mu.Lock()
	e, ok := s.at[id]
	s.mu.Unlock()
	if !ok {
		panic(fmt.Sprintf("BUG: object %d is read back and was never spilled", id))
	}
	if err := s.m.ReadAt(dst, e.off+int64(first)*int64(s.slab)); err != nil {
		return fmt.Errorf("spilled ciphertext: %w", err)
	}
	for i, b := range dst {
		if checksum(b) != e.crc[first+i] {
			return fmt.Errorf("spilled ciphertext: %w: checksum of slab %d", ErrDamaged, first+i)
		}
	}
	return nil
}

// Close gives the room back.
func (s *Spill) Close() error { return s.m.Close() }
