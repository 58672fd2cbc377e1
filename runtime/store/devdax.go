package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Device is byte-addressable persistent memory that is mapped whole.
type Device interface {
	// Bytes is the memory. What is stored there may become durable at any time, in
	// any order, word by word.
	Bytes() []byte
	// Persist returns when what was stored in a range is durable.
	Persist(off, n int64) error
	// Lock takes a lock by number, for the process and all others, and waits for it
	// or returns ErrLocked. It ends with Unlock, Close and the process.
	Lock(number int64, exclusive, wait bool) error
	Unlock(number int64) error
	Close() error
}

// DevDAX is the technology of persistent memory without a file system: a device such
// as /dev/dax0.0, mapped whole and written by flushing cache lines. A path is that of
// the device followed by a name, as if the device were a folder. On an empty device a
// directory is made; one that holds something else is refused. It has never met real
// modules: untested on hardware.
//
//	page 0     magic "HOMEDDAX", version u64, bytes of the device u64, bytes of a
//	           directory u64, CRC-32C of these three as u64; zeros
//	directory  twice, of which the valid one with the higher number counts: magic
//	           "HDIR", bytes u32, number u64, next identity u64, files u32, per file:
//	           identity u64, bytes of name u32 and name, extents u32, per extent first
//	           byte and bytes u64; CRC-32C
//	pages      of the files
//
// A change writes the directory that does not count, and so happens whole or not at
// all. An extent is handed out with its first page cleared, so that a file never
// begins, and never goes on, with what an older one left there. A file without a name
// is temporary: it is gone when nobody holds its lock.
type DevDAX struct {
	// Attach maps a device; nil means a character device of Linux.
	Attach func(path string, write bool) (Device, error)
}

const (
	devMagic   = "HOMEDDAX"
	devVersion = 1
	dirMagic   = "HDIR"
	dirBytes   = 64 << 10
	dirFixed   = 4 + 4 + 8 + 8 + 4
	devData    = PageBytes + 2*dirBytes // where files begin
	dirLock    = 0                      // number of the directory's lock; files have their identity
)

// piece is an extent of a device, in whole pages.
type piece struct{ off, n int64 }

type devFile struct {
	id     int64
	name   string // empty: temporary
	pieces []piece
}

func (f *devFile) size() int64 {
	n := int64(0)
	for _, p := range f.pieces {
		n += p.n
	}
	return n
}

type devDir struct {
	seq   uint64
	next  int64 // identity
	files []devFile
}

func (d *devDir) find(id int64) *devFile {
	for i := range d.files {
		if d.files[i].id == id {
			return &d.files[i]
		}
	}
	return nil
}

// Name is "devdax".
func (DevDAX) Name() string { return "devdax" }

func (t DevDAX) attach(path string, write bool) (Device, error) {
	attach := t.Attach
	if attach == nil {
		attach = attachDevice
	}
	d, err := attach(path, write)
	if err != nil {
		return nil, err
	}
	if int64(len(d.Bytes())) < devData+PageBytes {
		return nil, errors.Join(fmt.Errorf("%s: a device of %d bytes is too small", path, len(d.Bytes())), d.Close())
	}
	return d, nil
}

// Open opens a file of a device.
func (t DevDAX) Open(path string, write bool) (Medium, error) {
	return t.open(filepath.Dir(path), filepath.Base(path), write)
}

// Temp makes a file without a name on a device.
func (t DevDAX) Temp(device string) (Medium, error) { return t.open(device, "", true) }

func (t DevDAX) open(path, name string, write bool) (_ Medium, err error) {
	dev, err := t.attach(path, write)
	if err != nil {
		return nil, err
	}
	m := &devMedium{path: path, dev: dev, write: write}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", filepath.Join(path, name), err), dev.Close())
		}
	}()
	err = m.locked(write, func() error {
		d, err := m.load(write)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(d.files, func(f devFile) bool { return name != "" && f.name == name })
		switch {
		case at >= 0:
			m.id, m.pieces = d.files[at].id, d.files[at].pieces
		case !write:
			return fs.ErrNotExist
		default:
			m.id, m.temp = d.next, name == ""
		}
		if err := dev.Lock(m.id, write, false); err != nil {
			return err
		}
		if at >= 0 {
			return nil
		}
		d.next++
		d.files = append(d.files, devFile{id: m.id, name: name})
		return m.store(d)
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Format empties a device, whatever it holds. It fails where a file of it is in use.
func (t DevDAX) Format(path string) error {
	dev, err := t.attach(path, true)
	if err != nil {
		return err
	}
	m := &devMedium{path: path, dev: dev, write: true}
	err = m.locked(true, func() error {
		if d, err := m.load(false); err == nil {
			for _, f := range d.files {
				if err := dev.Lock(f.id, true, false); err != nil {
					return err
				}
			}
		}
		if err := touching(func() { clear(dev.Bytes()[:PageBytes]) }); err != nil {
			return err
		}
		if err := dev.Persist(0, PageBytes); err != nil {
			return err
		}
		return m.begin()
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return errors.Join(err, dev.Close())
}

// devMedium is one open file of a device.
type devMedium struct {
	path  string
	dev   Device
	id    int64
	write bool
	temp  bool

	mu     sync.RWMutex
	pieces []piece
}

// locked runs f with the directory locked.
func (m *devMedium) locked(exclusive bool, f func() error) error {
	if err := m.dev.Lock(dirLock, exclusive, true); err != nil {
		return err
	}
	return errors.Join(f(), m.dev.Unlock(dirLock))
}

// super is the first page of the device, all of which follows from its size.
func (m *devMedium) super() []byte {
	page := make([]byte, PageBytes)
	le := binary.LittleEndian
	copy(page, devMagic)
	le.PutUint64(page[8:], devVersion)
	le.PutUint64(page[16:], uint64(len(m.dev.Bytes())))
	le.PutUint64(page[24:], dirBytes)
	le.PutUint64(page[32:], uint64(checksum(page[8:32])))
	return page
}

// load reads the directory. An empty device is begun where make says so.
func (m *devMedium) load(make bool) (*devDir, error) {
	var d *devDir
	var bad error
	err := touching(func() {
		page, want := m.dev.Bytes()[:PageBytes], m.super()
		if !bytes.Equal(page, want) {
			bad = m.noDirectory(page, want, make)
			return
		}
		for slot := range int64(2) {
			if x := m.parse(slot); x != nil && (d == nil || x.seq > d.seq) {
				d = x
			}
		}
		if d == nil {
			bad = fmt.Errorf("%w: neither copy of its directory is valid; home install --format empties it", ErrDamaged)
		}
	})
	if err != nil {
		return nil, err
	}
	if errors.Is(bad, errEmptyDevice) {
		if err := m.begin(); err != nil {
			return nil, err
		}
		return m.load(false)
	}
	return d, bad
}

var errEmptyDevice = errors.New("the device is empty")

// noDirectory says what a first page is that is not that of a device in use.
func (m *devMedium) noDirectory(page, want []byte, make bool) error {
	// A page that was begun and not completed has words of it and zeros; its magic
	// is written last.
	begun := allZero(page[:8])
	for i := 8; i < len(page); i += 8 {
		begun = begun && (allZero(page[i:i+8]) || bytes.Equal(page[i:i+8], want[i:i+8]))
	}
	switch {
	case begun && make:
		return errEmptyDevice
	case begun:
		return fs.ErrNotExist
	case string(page[:8]) == devMagic && binary.LittleEndian.Uint64(page[8:]) != devVersion:
		return fmt.Errorf("%w: format version %d, this build has %d; home install --format empties the device", ErrForeign, binary.LittleEndian.Uint64(page[8:]), devVersion)
	}
	return fmt.Errorf("%w: the device holds something else, or is of another size than it was; home install --format empties it", ErrForeign)
}

// begin makes an empty directory.
func (m *devMedium) begin() error {
	mem := m.dev.Bytes()
	if err := touching(func() { clear(mem[PageBytes:devData]) }); err != nil {
		return err
	}
	if err := m.dev.Persist(PageBytes, 2*dirBytes); err != nil {
		return err
	}
	if err := m.store(&devDir{next: dirLock + 1}); err != nil {
		return err
	}
	page := m.super()
	if err := touching(func() { copy(mem[8:PageBytes], page[8:]) }); err != nil {
		return err
	}
	if err := m.dev.Persist(8, PageBytes-8); err != nil {
		return err
	}
	if err := touching(func() { copy(mem[:8], page[:8]) }); err != nil {
		return err
	}
	return m.dev.Persist(0, 8)
}

// parse reads one copy of the directory, nil where it is not valid.
func (m *devMedium) parse(slot int64) *devDir {
	mem := m.dev.Bytes()
	b := bytes.Clone(mem[PageBytes+slot*dirBytes:][:dirBytes])
	le := binary.LittleEndian
	n := int(le.Uint32(b[4:]))
	if string(b[:4]) != dirMagic || n < dirFixed || n > dirBytes-4 || checksum(b[:n]) != le.Uint32(b[n:]) {
		return nil
	}
	// The checksum holds: what follows was written by this program.
	d := &devDir{seq: le.Uint64(b[8:]), next: int64(le.Uint64(b[16:]))}
	at := dirFixed
	u32 := func() int { at += 4; return int(le.Uint32(b[at-4:])) }
	u64 := func() int64 { at += 8; return int64(le.Uint64(b[at-8:])) }
	for range le.Uint32(b[24:]) {
		f := devFile{id: u64()}
		k := u32()
		f.name = string(b[at : at+k])
		at += k
		for range u32() {
			f.pieces = append(f.pieces, piece{u64(), u64()})
		}
		d.files = append(d.files, f)
	}
	return d
}

// store writes a changed directory over the copy that does not count.
func (m *devMedium) store(d *devDir) error {
	d.seq++
	le := binary.LittleEndian
	b := append(make([]byte, 0, dirBytes), dirMagic...)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, d.seq)
	b = le.AppendUint64(b, uint64(d.next))
	b = le.AppendUint32(b, uint32(len(d.files)))
	for _, f := range d.files {
		b = le.AppendUint64(b, uint64(f.id))
		b = le.AppendUint32(b, uint32(len(f.name)))
		b = append(b, f.name...)
		b = le.AppendUint32(b, uint32(len(f.pieces)))
		for _, p := range f.pieces {
			b = le.AppendUint64(b, uint64(p.off))
			b = le.AppendUint64(b, uint64(p.n))
		}
	}
	if len(b) > dirBytes-4 {
		return fmt.Errorf("%w: the directory of the device has no room for more files and pieces; home install --format empties it", syscall.ENOSPC)
	}
	le.PutUint32(b[4:], uint32(len(b)))
	b = le.AppendUint32(b, checksum(b))
	at := PageBytes + int64(d.seq%2)*dirBytes
	if err := touching(func() { copy(m.dev.Bytes()[at:], b) }); err != nil {
		return err
	}
	return m.dev.Persist(at, int64(len(b)))
}

// change updates the directory entry of this file. f sees the directory without
// temporary files of processes that are gone. m.mu is held.
func (m *devMedium) change(f func(d *devDir, own *devFile) error) error {
	return m.locked(true, func() error {
		d, err := m.load(false)
		if err != nil {
			return err
		}
		d.files = slices.DeleteFunc(d.files, func(x devFile) bool {
			if x.name != "" || x.id == m.id || m.dev.Lock(x.id, true, false) != nil {
				return false
			}
			_ = m.dev.Unlock(x.id)
			return true
		})
		own := d.find(m.id)
		if own == nil {
			return fmt.Errorf("%w: the file is not in the directory any more", ErrDamaged)
		}
		if err := f(d, own); err != nil {
			return err
		}
		pieces := slices.Clone(own.pieces)
		if err := m.store(d); err != nil {
			return err
		}
		m.pieces = pieces
		return nil
	})
}

func (m *devMedium) Reserve(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := (&devFile{pieces: m.pieces}).size()
	need := pages(size) - have
	if need <= 0 {
		return nil
	}
	return m.change(func(d *devDir, own *devFile) error {
		off, err := m.room(d, own, need)
		if err != nil {
			return err
		}
		if err := touching(func() { clear(m.dev.Bytes()[off:][:PageBytes]) }); err != nil {
			return err
		}
		if err := m.dev.Persist(off, PageBytes); err != nil {
			return err
		}
		if k := len(own.pieces); k > 0 && own.pieces[k-1].off+own.pieces[k-1].n == off {
			own.pieces[k-1].n += need
			return nil
		}
		own.pieces = append(own.pieces, piece{off, need})
		return nil
	})
}

// room finds need bytes in one piece, so that what is reserved together lies
// together: behind the file's last piece, else in the first gap.
func (m *devMedium) room(d *devDir, own *devFile, need int64) (int64, error) {
	var used []piece
	for _, f := range d.files {
		used = append(used, f.pieces...)
	}
	used = append(used, piece{int64(len(m.dev.Bytes())) &^ (PageBytes - 1), 0})
	slices.SortFunc(used, func(a, b piece) int { return int(min(max(a.off-b.off, -1), 1)) })
	last := int64(-1)
	if k := len(own.pieces); k > 0 {
		last = own.pieces[k-1].off + own.pieces[k-1].n
	}
	at, first, free := int64(devData), int64(-1), int64(0)
	for _, p := range used {
		gap := p.off - at
		if free += gap; gap >= need {
			if at == last {
				return at, nil
			}
			if first < 0 {
				first = at
			}
		}
		at = p.off + p.n
	}
	if first < 0 {
		return 0, fmt.Errorf("%w: %d bytes are free, and no piece of %d", syscall.ENOSPC, free, need)
	}
	return first, nil
}

func (m *devMedium) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	size = pages(size)
	if size >= (&devFile{pieces: m.pieces}).size() {
		return nil
	}
	return m.change(func(_ *devDir, own *devFile) error {
		left := size
		for i := range own.pieces {
			own.pieces[i].n = min(own.pieces[i].n, left)
			left -= own.pieces[i].n
		}
		own.pieces = slices.DeleteFunc(own.pieces, func(p piece) bool { return p.n == 0 })
		return nil
	})
}

// each calls f with the parts of the device under a range of the file. m.mu is held.
func (m *devMedium) each(off, n int64, f func(at, n int64) error) error {
	if off < 0 || n < 0 {
		return io.ErrUnexpectedEOF
	}
	for _, p := range m.pieces {
		if off >= p.n {
			off -= p.n
			continue
		}
		part := min(n, p.n-off)
		if part > 0 {
			if err := f(p.off+off, part); err != nil {
				return err
			}
		}
		off, n = 0, n-part
		if n == 0 {
			return nil
		}
	}
	if n > 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (m *devMedium) ReadAt(slabs [][]byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	mem := m.dev.Bytes()
	for _, s := range slabs {
		to := s
		if err := m.each(off, int64(len(s)), func(at, n int64) error {
			return touching(func() { to = to[copy(to, mem[at:at+n]):] })
		}); err != nil {
			return err
		}
		off += int64(len(s))
	}
	return nil
}

func (m *devMedium) WriteAt(slabs [][]byte, off int64) error {
	if !m.write {
		return fs.ErrPermission
	}
	if err := m.Reserve(off + total(slabs)); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	mem := m.dev.Bytes()
	for _, s := range slabs {
		from := s
		if err := m.each(off, int64(len(s)), func(at, n int64) error {
			if err := touching(func() { from = from[copy(mem[at:at+n], from):] }); err != nil {
				return err
			}
			return m.dev.Persist(at, n)
		}); err != nil {
			return err
		}
		off += int64(len(s))
	}
	return nil
}

// Map implements Mapper, for files that are open for reading and for ranges that were
// reserved together.
func (m *devMedium) Map(off, n int64) ([]byte, error) {
	if m.write {
		return nil, errMapWriter
	}
	var out []byte
	parts := 0
	m.mu.RLock()
	defer m.mu.RUnlock()
	err := m.each(off, n, func(at, k int64) error {
		parts++
		out = m.dev.Bytes()[at : at+k : at+k]
		return nil
	})
	if err == nil && parts > 1 {
		err = fmt.Errorf("%w in one piece", ErrNotAddressable)
	}
	return out, err
}

func (m *devMedium) Size() (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return (&devFile{pieces: m.pieces}).size(), nil
}

// Sync has nothing to do: what is written is durable when WriteAt returns.
func (m *devMedium) Sync() error { return nil }

func (m *devMedium) Describe() string {
	return "device " + m.path + ", mapped whole, cache lines flushed (untested on hardware)"
}

func (m *devMedium) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.temp {
		err = m.change(func(d *devDir, own *devFile) error {
			d.files = slices.DeleteFunc(d.files, func(f devFile) bool { return f.id == m.id })
			return nil
		})
	}
	return errors.Join(err, m.dev.Close())
}
