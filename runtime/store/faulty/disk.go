// Package faulty holds memories that misbehave, for tests of what must survive a
// power failure: a disk that loses, reorders and tears what was not synced, and
// fails on request; and persistent memory that keeps any subset of the words that
// were not flushed.
package faulty

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"github.com/home-fhe/home/runtime/store"
)

// ErrPower is what every operation returns after the power has failed.
var ErrPower = errors.New("the power failed")

// Kind of an operation on a Disk.
type Kind string

// Kinds of operations.
const (
	Open     Kind = "open"
	Read     Kind = "read"
	Write    Kind = "write"
	Reserve  Kind = "reserve"
	Truncate Kind = "truncate"
	Sync     Kind = "sync"
	Rename   Kind = "rename"
	Remove   Kind = "remove"
	SyncDir  Kind = "sync names"
)

// Op is one operation on a file of a Disk.
type Op struct {
	N        int // number of the operation on this disk, from 0
	Kind     Kind
	File     string
	Off, Len int64 // of reads and writes; of Reserve and Truncate Len is the size
}

// Partial is an error of Before that lets the first Bytes of a write happen.
type Partial struct {
	Bytes int64
	Err   error
}

func (p *Partial) Error() string { return fmt.Sprintf("%v after %d bytes", p.Err, p.Bytes) }
func (p *Partial) Unwrap() error { return p.Err }

// Sectors are the units that a disk writes at once; words those of persistent
// memory.
const (
	Sector = 512
	Word   = 8
)

// Disk is a store.Technology whose files lie in memory, and forget what was not
// synced when the power fails: then each unit of a file that was written since its
// last Sync holds what it held at that Sync or after any write since, each
// independently of the others, and the size of a file is any that it had since.
// Names of files that Open makes are durable when it returns, as they are in the
// technologies of package store; of what Rename and Remove did since the last
// SyncNames the first so many happened.
//
// Set the fields before use. All methods may be called from several goroutines.
type Disk struct {
	// Unit is what is written as a whole: Sector or Word. 0 means Sector.
	Unit int
	// Capacity is how many bytes fit on the disk; 0 means any number. What does not
	// fit is syscall.ENOSPC.
	Capacity int64
	// ReadOnly refuses to open files for writing with syscall.EROFS.
	ReadOnly bool
	// Before is called before each operation, without a lock, so that it may wait.
	// Its error is returned in place of doing the operation.
	Before func(Op) error

	mu    sync.Mutex
	files map[string]*file
	names []naming         // since the last SyncNames
	old   map[string]*file // the names then, where there are any since
	temps int
	n     int
	cut   int // the power fails before this operation, if cuts
	cuts  bool
	dead  bool
}

// naming is a change of names: to is empty where from was removed.
type naming struct{ from, to string }

func (n naming) apply(files map[string]*file) {
	if n.to != "" {
		files[n.to] = files[n.from]
	}
	delete(files, n.from)
}

type file struct {
	name    string
	cur     []byte
	durable []byte
	pending map[int64][][]byte // what a unit may hold, beginning with the durable content
	sizes   []int              // likewise
	readers int
	writer  bool
}

// CutAt lets the power fail before operation n.
func (d *Disk) CutAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut, d.cuts = n, true
}

// Ops returns how many operations there were.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

// Files returns the names of the files, sorted.
func (d *Disk) Files() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files))
}

// Content returns a copy of what a file holds at this moment, nil where there is
// none.
func (d *Disk) Content(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.files[name]; f != nil {
		return bytes.Clone(f.cur)
	}
	return nil
}

// Put replaces a file durably by content.
func (d *Disk) Put(name string, content []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put(name, bytes.Clone(content))
}

func (d *Disk) put(name string, content []byte) {
	if d.files == nil {
		d.files = map[string]*file{}
	}
	d.files[name] = &file{name: name, cur: content, durable: bytes.Clone(content)}
	if d.old != nil {
		d.old[name] = d.files[name]
	}
}

// Rename gives a file another name, in place of a file that has it.
func (d *Disk) Rename(from, to string) error { return d.name(Rename, from, to) }

// Remove takes the name of a file away.
func (d *Disk) Remove(name string) error { return d.name(Remove, name, "") }

func (d *Disk) name(kind Kind, from, to string) error {
	if err := d.start(kind, from, 0, 0); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.files[from] == nil:
		return &fs.PathError{Op: string(kind), Path: from, Err: fs.ErrNotExist}
	case from == to:
		return nil
	case d.ReadOnly:
		return &fs.PathError{Op: string(kind), Path: from, Err: syscall.EROFS}
	}
	if d.old == nil {
		d.old = maps.Clone(d.files)
	}
	n := naming{from, to}
	d.names = append(d.names, n)
	n.apply(d.files)
	return nil
}

// SyncNames makes the names of all files durable.
func (d *Disk) SyncNames() error {
	if err := d.start(SyncDir, "", 0, 0); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names, d.old = nil, nil
	return nil
}

func (d *Disk) unit() int64 {
	if d.Unit == 0 {
		return Sector
	}
	return int64(d.Unit)
}

// start counts an operation and asks whether it may happen.
func (d *Disk) start(kind Kind, name string, off, length int64) error {
	d.mu.Lock()
	op := Op{d.n, kind, name, off, length}
	d.n++
	if d.cuts && op.N >= d.cut {
		d.dead = true
	}
	dead, before := d.dead, d.Before
	d.mu.Unlock()
	if dead {
		return ErrPower
	}
	if before != nil {
		return before(op)
	}
	return nil
}

// Name is "faulty".
func (d *Disk) Name() string { return "faulty" }

// Open opens a file of this disk.
func (d *Disk) Open(path string, write bool) (store.Medium, error) {
	if err := d.start(Open, path, 0, 0); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[path]
	switch {
	case write && d.ReadOnly:
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EROFS}
	case f == nil && !write:
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	case f == nil:
		d.put(path, nil)
		f = d.files[path]
	}
	if f.writer || write && f.readers > 0 {
		return nil, fmt.Errorf("%s: %w", path, store.ErrLocked)
	}
	if write {
		f.writer = true
	} else {
		f.readers++
	}
	return &medium{d: d, f: f, write: write}, nil
}

// Temp makes a file without a name, which no power failure leaves behind.
func (d *Disk) Temp(dir string) (store.Medium, error) {
	if err := d.start(Open, dir, 0, 0); err != nil {
		return nil, err
	}
	if d.ReadOnly {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: syscall.EROFS}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.temps++
	return &medium{d: d, f: &file{name: fmt.Sprintf("%s/temp %d", dir, d.temps), writer: true}, write: true}, nil
}

// room refuses what does not fit. d.mu is held.
func (d *Disk) room(f *file, size int64) error {
	used := size - int64(len(f.cur))
	for _, g := range d.files {
		used += int64(len(g.cur))
	}
	if d.Capacity > 0 && used > d.Capacity {
		return syscall.ENOSPC
	}
	return nil
}

// note remembers what the units of a range of f hold after a change. A range that
// was cut off holds zeros when the file grows again.
func (d *Disk) note(f *file, from, to int64) {
	u := d.unit()
	if f.pending == nil {
		f.pending = map[int64][][]byte{}
	}
	for k := from / u; k*u < to; k++ {
		if f.pending[k] == nil {
			f.pending[k] = [][]byte{window(f.durable, k*u, u)}
		}
		now := window(f.cur, k*u, u)
		if !slices.ContainsFunc(f.pending[k], func(v []byte) bool { return bytes.Equal(v, now) }) {
			f.pending[k] = append(f.pending[k], now)
		}
	}
}

// window copies n bytes of b from off on; behind its end there are zeros.
func window(b []byte, off, n int64) []byte {
	out := make([]byte, n)
	if off < int64(len(b)) {
		copy(out, b[off:])
	}
	return out
}

// resize sets the length of f.
func (d *Disk) resize(f *file, size int64) {
	old := int64(len(f.cur))
	if size == old {
		return
	}
	if f.sizes == nil {
		f.sizes = []int{len(f.durable)}
	}
	if size < old {
		f.cur = f.cur[:size:size]
		d.note(f, size, old)
	} else {
		f.cur = append(f.cur, make([]byte, size-old)...)
	}
	if !slices.Contains(f.sizes, int(size)) {
		f.sizes = append(f.sizes, int(size))
	}
}

type medium struct {
	d     *Disk
	f     *file
	write bool
}

func total(slabs [][]byte) int64 {
	n := int64(0)
	for _, s := range slabs {
		n += int64(len(s))
	}
	return n
}

func (m *medium) ReadAt(slabs [][]byte, off int64) error {
	if err := m.d.start(Read, m.f.name, off, total(slabs)); err != nil {
		return err
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	for _, s := range slabs {
		if off < 0 || off+int64(len(s)) > int64(len(m.f.cur)) {
			return io.ErrUnexpectedEOF
		}
		copy(s, m.f.cur[off:])
		off += int64(len(s))
	}
	return nil
}

func (m *medium) WriteAt(slabs [][]byte, off int64) error {
	n := total(slabs)
	failed := m.d.start(Write, m.f.name, off, n)
	if failed != nil {
		var p *Partial
		if !errors.As(failed, &p) || p.Bytes <= 0 {
			return failed
		}
		n = min(n, p.Bytes)
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if !m.write {
		return &fs.PathError{Op: "write", Path: m.f.name, Err: syscall.EBADF}
	}
	if end := off + n; end > int64(len(m.f.cur)) {
		if err := m.d.room(m.f, end); err != nil {
			return err
		}
		m.d.resize(m.f, end)
	}
	at, left := off, n
	for _, s := range slabs {
		s = s[:min(int64(len(s)), left)]
		copy(m.f.cur[at:], s)
		at += int64(len(s))
		left -= int64(len(s))
	}
	m.d.note(m.f, off, at)
	return failed
}

func (m *medium) Reserve(size int64) error {
	if err := m.d.start(Reserve, m.f.name, 0, size); err != nil {
		return err
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if size <= int64(len(m.f.cur)) {
		return nil
	}
	if err := m.d.room(m.f, size); err != nil {
		return err
	}
	m.d.resize(m.f, size)
	return nil
}

func (m *medium) Truncate(size int64) error {
	if err := m.d.start(Truncate, m.f.name, 0, size); err != nil {
		return err
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if size < int64(len(m.f.cur)) {
		m.d.resize(m.f, size)
	}
	return nil
}

func (m *medium) Size() (int64, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if m.d.dead {
		return 0, ErrPower
	}
	return int64(len(m.f.cur)), nil
}

func (m *medium) Sync() error {
	if err := m.d.start(Sync, m.f.name, 0, 0); err != nil {
		return err
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	m.f.durable = bytes.Clone(m.f.cur)
	m.f.pending, m.f.sizes = nil, nil
	return nil
}

func (m *medium) Describe() string { return "simulated disk" }

func (m *medium) Close() error {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if m.write {
		m.f.writer = false
	} else {
		m.f.readers--
	}
	return nil
}

// choice is something that a power failure leaves to chance.
type choice struct {
	f    *file // nil for how many changes of names happened
	unit int64 // -1 for the size
	n    int   // possible outcomes
}

// choices lists what is open on this disk, in a fixed order. d.mu is held.
func (d *Disk) choices() []choice {
	var out []choice
	if len(d.names) > 0 {
		out = append(out, choice{nil, 0, len(d.names) + 1})
	}
	seen := map[*file]bool{}
	for _, files := range []map[string]*file{d.files, d.old} {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			f := files[name]
			if seen[f] {
				continue
			}
			seen[f] = true
			if len(f.sizes) > 1 {
				out = append(out, choice{f, -1, len(f.sizes)})
			}
			for _, k := range slices.Sorted(maps.Keys(f.pending)) {
				if n := len(f.pending[k]); n > 1 {
					out = append(out, choice{f, k, n})
				}
			}
		}
	}
	return out
}

// after builds the disk that one outcome of every choice leaves.
func (d *Disk) after(open []choice, pick []int) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &Disk{Unit: d.Unit, Capacity: d.Capacity}
	files, size := d.files, map[*file]int{}
	for i, c := range open {
		switch {
		case c.f == nil:
			files = maps.Clone(d.old)
			for _, n := range d.names[:pick[i]] {
				n.apply(files)
			}
		case c.unit < 0:
			size[c.f] = c.f.sizes[pick[i]]
		}
	}
	content := map[*file][]byte{}
	for _, f := range files {
		n, ok := size[f]
		if !ok {
			n = len(f.durable)
		}
		content[f] = window(f.durable, 0, int64(n))
	}
	for i, c := range open {
		if c.f == nil {
			continue
		}
		if b := content[c.f]; c.unit >= 0 && c.unit*d.unit() < int64(len(b)) {
			copy(b[c.unit*d.unit():], c.f.pending[c.unit][pick[i]])
		}
	}
	for name, f := range files {
		out.put(name, content[f])
	}
	return out
}

// AfterPowerFailure yields disks as a power failure at this moment may leave them,
// ready for use: all of them where there are at most limit, else limit of them
// chosen by rng, among them the one on which nothing that was not synced arrived
// and the one on which all of it did. The disk itself must not change meanwhile.
func (d *Disk) AfterPowerFailure(limit int, rng *rand.Rand) iter.Seq[*Disk] {
	return func(yield func(*Disk) bool) {
		d.mu.Lock()
		open := d.choices()
		d.mu.Unlock()
		sizes := make([]int, len(open))
		for i, c := range open {
			sizes[i] = c.n
		}
		outcomes(sizes, limit, rng, func(pick []int) bool { return yield(d.after(open, pick)) })
	}
}

// outcomes calls yield with one outcome of every choice, of which sizes has the
// numbers: with all combinations where there are at most limit, else with limit of
// them.
func outcomes(sizes []int, limit int, rng *rand.Rand, yield func(pick []int) bool) {
	all := 1
	for _, n := range sizes {
		if all *= n; all > limit {
			break
		}
	}
	pick := make([]int, len(sizes))
	if all <= limit {
		for range all {
			if !yield(pick) {
				return
			}
			for i := range pick { // count up
				if pick[i]++; pick[i] < sizes[i] {
					break
				}
				pick[i] = 0
			}
		}
		return
	}
	for k := range limit {
		// From nothing new to everything new, in even steps of likelihood; between
		// them single units that are old or new among others that are not.
		likely := float64(k) / float64(max(limit-1, 1))
		odd := -1
		if k%3 == 2 {
			likely, odd = float64(k%2), rng.IntN(len(sizes))
		}
		for i, n := range sizes {
			pick[i] = 0
			if fresh := rng.Float64() < likely; fresh != (i == odd) {
				pick[i] = n - 1
				if n > 2 && rng.IntN(2) == 0 {
					pick[i] = 1 + rng.IntN(n-1)
				}
			}
		}
		if k == limit-1 {
			for i, n := range sizes {
				pick[i] = n - 1
			}
		}
		if !yield(pick) {
			return
		}
	}
}

// memory is a Disk or a Memory.
type memory[T any] interface {
	CutAt(n int)
	AfterPowerFailure(limit int, rng *rand.Rand) iter.Seq[T]
	Copy() T
}

// PowerCuts runs work on copies of a disk or of memory, whose power fails before the first
// operation, the second and so on, until work gets to its end. After each failure
// and after the end it calls check with up to limit of those that a power
// failure at that moment may leave; done says whether work had ended. It returns
// the first error of check, or of work for another reason than ErrPower, with the
// number of the operation; and how many were checked.
func PowerCuts[T memory[T]](start T, limit int, rng *rand.Rand, work func(T) error, check func(left T, done bool) error) (checked int, err error) {
	for n := 0; ; n++ {
		d := start.Copy()
		d.CutAt(n)
		err := work(d)
		if err != nil && !errors.Is(err, ErrPower) {
			return checked, fmt.Errorf("operation %d: %w", n, err)
		}
		for left := range d.AfterPowerFailure(limit, rng) {
			checked++
			if err := check(left, err == nil); err != nil {
				return checked, fmt.Errorf("power failed at operation %d: %w", n, err)
			}
		}
		if err == nil {
			return checked, nil
		}
	}
}

// Copy returns a disk with the same files, all durable.
func (d *Disk) Copy() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &Disk{Unit: d.Unit, Capacity: d.Capacity, ReadOnly: d.ReadOnly, Before: d.Before}
	for name, f := range d.files {
		out.put(name, bytes.Clone(f.cur))
	}
	return out
}
