package plan

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// Every HomE file is a container: a prologue page, named sections that start on
// page boundaries, and a table of contents at the end. Prologue, table and each
// section carry a CRC-32C, so that a cut or flipped file is refused before
// anything of it is used.
//
//	offset 0   magic (8 bytes), version u32, flags u32,
//	           table offset u64, table length u64, file length u64,
//	           table CRC u32, CRC of these first 48 bytes minus itself u32
//	page 1..   sections, each zero-padded to a whole number of pages
//	last       table: deterministic CBOR of []sectionEntry

// PageBytes is the alignment of sections.
const PageBytes = 4096

// flagInsecure stamps files made under --insecure-test-parameters.
const flagInsecure = 1

// ErrCorrupt marks a file that is cut, flipped or not of the expected kind.
var ErrCorrupt = errors.New("damaged or foreign file")

// ErrVersion marks a file written by another format version.
var ErrVersion = errors.New("unsupported file version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type sectionEntry struct {
	Name   string `cbor:"1,keyasint"`
	Offset int64  `cbor:"2,keyasint"`
	Length int64  `cbor:"3,keyasint"`
	CRC    uint32 `cbor:"4,keyasint"`
}

var encMode, decMode = func() (cbor.EncMode, cbor.DecMode) {
	e, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	d, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 32,
		MaxArrayElements: 1 << 27, MaxMapPairs: 1 << 20, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return e, d
}()

// Marshal encodes v as deterministic CBOR.
func Marshal(v any) ([]byte, error) { return encMode.Marshal(v) }

// Unmarshal decodes CBOR written by Marshal, with limits on depth, size and
// memory.
func Unmarshal(data []byte, v any) error {
	if err := affordable(data, reflect.TypeOf(v)); err != nil {
		return err
	}
	if err := decMode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return nil
}

// Writer writes one container.
type Writer struct {
	w        *bufio.Writer
	off      int64
	sections []sectionEntry
	crc      hash.Hash32
}

// Write appends bytes to the section begun last.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.off += int64(n)
	w.crc.Write(p[:n])
	return n, err
}

// Begin starts a section. The bytes written next belong to it.
func (w *Writer) Begin(name string) error {
	if err := w.end(); err != nil {
		return err
	}
	w.sections = append(w.sections, sectionEntry{Name: name, Offset: w.off})
	w.crc = crc32.New(castagnoli)
	return nil
}

// Section writes a whole section.
func (w *Writer) Section(name string, data []byte) error {
	if err := w.Begin(name); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// Object writes v as a CBOR section.
func (w *Writer) Object(name string, v any) error {
	b, err := Marshal(v)
	if err != nil {
		return err
	}
	return w.Section(name, b)
}

func (w *Writer) end() error {
	if n := len(w.sections); n > 0 {
		s := &w.sections[n-1]
		if s.CRC == 0 && s.Length == 0 {
			s.Length, s.CRC = w.off-s.Offset, w.crc.Sum32()
		}
	}
	if pad := -w.off & (PageBytes - 1); pad > 0 {
		n, err := w.w.Write(make([]byte, pad))
		w.off += int64(n)
		return err
	}
	return nil
}

// Options of a container.
type Options struct {
	Magic    string // exactly 8 bytes
	Version  uint32
	Insecure bool
	Mode     os.FileMode // 0 means 0644
	New      bool        // never replace a file: fail with fs.ErrExist
	// Provisional, with New: the file is one that RemoveTemps removes from the
	// moment it is in place until the function stored here is called.
	Provisional *func()
}

// WriteFile writes a container: into a temporary file beside path that is
// synced and renamed over it, so that a reader sees the old file or the whole
// new one and an interrupted write leaves nothing. Path "-" writes to standard
// output; that, a pipe or a device gets the whole container when it is complete.
func WriteFile(path string, o Options, fill func(*Writer) error) error {
	if o.Mode == 0 {
		o.Mode = 0o644
	}
	whole := func(f *os.File) error { return writeContainer(f, o, fill) }
	if o.New {
		return writeBeside(path, o.Mode, func(from, to string) error {
			err := putNew(from, to)
			if err == nil && o.Provisional != nil {
				*o.Provisional = register(to)
			}
			return err
		}, whole)
	}
	if dst, err := streamed(path); err != nil {
		return err
	} else if dst != nil {
		if dst != os.Stdout {
			defer dst.Close()
		}
		f, release, err := CreateTemp("", "home-*.tmp")
		if err != nil {
			return err
		}
		defer release()
		defer discard(f)
		if err := whole(f); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err = io.Copy(dst, f)
		return err
	}
	return ReplaceFile(path, o.Mode, whole)
}

// streamed opens what can only be written from front to back: standard output,
// pipes and devices. It returns nil for ordinary files.
func streamed(path string) (*os.File, error) {
	if path == "-" {
		return os.Stdout, nil
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().IsRegular() || fi.IsDir() {
		return nil, nil
	}
	return os.OpenFile(path, os.O_WRONLY, 0)
}

// ReplaceFile writes a file of any format the same careful way: temporary file,
// sync, rename.
func ReplaceFile(path string, mode os.FileMode, fill func(*os.File) error) error {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		// A device or pipe cannot be renamed over: write into it.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(fill(f), f.Close())
	}
	return writeBeside(path, mode, os.Rename, fill)
}

// putNew gives the file from the name to, which must not be taken. Of several
// processes that do so at once, one succeeds.
func putNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err // the caller removes the other name
	}
	// A file system without links: reserve the name, then replace it.
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Rename(from, to))
}

// writeBeside writes a temporary file in the folder of path and has it put in
// place when it is complete.
func writeBeside(path string, mode os.FileMode, put func(from, to string) error, fill func(*os.File) error) error {
	f, release, err := CreateTemp(filepath.Dir(path), ".home-*.tmp")
	if err != nil {
		return err
	}
	defer release()
	defer discard(f)
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return publish(func() error { return put(f.Name(), path) })
}

// discard closes and removes a temporary file; after a rename both fail
// harmlessly.
func discard(f *os.File) {
	f.Close()
	os.Remove(f.Name())
}

func writeContainer(f *os.File, o Options, fill func(*Writer) error) error {
	if len(o.Magic) != 8 {
		panic("BUG: magic must have 8 bytes")
	}
	w := &Writer{w: bufio.NewWriterSize(f, 1<<20), off: PageBytes}
	if _, err := w.w.Write(make([]byte, PageBytes)); err != nil {
		return err
	}
	if err := fill(w); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	table, err := Marshal(w.sections)
	if err != nil {
		return err
	}
	if _, err := w.w.Write(table); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return err
	}
	var h [52]byte
	copy(h[:8], o.Magic)
	le := binary.LittleEndian
	le.PutUint32(h[8:], o.Version)
	if o.Insecure {
		le.PutUint32(h[12:], flagInsecure)
	}
	le.PutUint64(h[16:], uint64(w.off))
	le.PutUint64(h[24:], uint64(len(table)))
	le.PutUint64(h[32:], uint64(w.off)+uint64(len(table)))
	le.PutUint32(h[40:], crc32.Checksum(table, castagnoli))
	le.PutUint32(h[44:], crc32.Checksum(h[:44], castagnoli))
	_, err = f.WriteAt(h[:48], 0)
	return err
}

// Reader reads one container.
type Reader struct {
	Version  uint32
	Insecure bool

	name     string
	at       io.ReaderAt
	closer   io.Closer
	sections []sectionEntry
}

// OpenFile opens a container and checks prologue and table; sections are
// checked when they are read. Path "-" reads standard input whole. maxVersion
// is the newest version the caller reads; versions start at 1.
func OpenFile(path, magic string, maxVersion uint32) (*Reader, error) {
	if path == "-" {
		b, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, err
		}
		return NewReader("standard input", bytes.NewReader(b), int64(len(b)), magic, maxVersion)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	r, err := NewReader(path, f, fi.Size(), magic, maxVersion)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.closer = f
	return r, nil
}

// NewReader reads a container of size bytes from at; name is for messages.
func NewReader(name string, at io.ReaderAt, size int64, magic string, maxVersion uint32) (*Reader, error) {
	bad := func(format string, args ...any) (*Reader, error) {
		return nil, fmt.Errorf("%s: %w: %s", name, ErrCorrupt, fmt.Sprintf(format, args...))
	}
	var h [48]byte
	if _, err := at.ReadAt(h[:], 0); err != nil {
		return bad("too short for a %s file", magic)
	}
	le := binary.LittleEndian
	if string(h[:8]) != magic {
		return bad("magic %q, want %q", h[:8], magic)
	}
	if crc32.Checksum(h[:44], castagnoli) != le.Uint32(h[44:]) {
		return bad("prologue checksum")
	}
	r := &Reader{name: name, at: at, Version: le.Uint32(h[8:]), Insecure: le.Uint32(h[12:])&flagInsecure != 0}
	if r.Version == 0 || r.Version > maxVersion {
		return nil, fmt.Errorf("%s: %w %d (this build reads 1 to %d): make the file again with this build", name, ErrVersion, r.Version, maxVersion)
	}
	off, n, end := int64(le.Uint64(h[16:])), int64(le.Uint64(h[24:])), int64(le.Uint64(h[32:]))
	if end != size || off < PageBytes || n < 0 || n > 1<<26 || off+n != end {
		return bad("%d bytes, %d expected: the file is cut or has grown", size, end)
	}
	table := make([]byte, n)
	if _, err := at.ReadAt(table, off); err != nil {
		return bad("table unreadable")
	}
	if crc32.Checksum(table, castagnoli) != le.Uint32(h[40:]) {
		return bad("table checksum")
	}
	if err := Unmarshal(table, &r.sections); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// Sections that overlap would make a small file expand to many of its size.
	past, names := int64(PageBytes), make(map[string]bool, len(r.sections))
	for _, s := range r.sections {
		if s.Offset < past || s.Length < 0 || s.Offset > off || s.Length > off-s.Offset {
			return bad("section %q lies outside the file or in another section", s.Name)
		}
		if names[s.Name] {
			return bad("section %q occurs twice", s.Name)
		}
		past, names[s.Name] = s.Offset+s.Length, true
	}
	return r, nil
}

// Has reports whether a section exists.
func (r *Reader) Has(name string) bool { return r.find(name) != nil }

// Names returns the section names in file order.
func (r *Reader) Names() []string {
	var n []string
	for _, s := range r.sections {
		n = append(n, s.Name)
	}
	return n
}

func (r *Reader) find(name string) *sectionEntry {
	for i := range r.sections {
		if r.sections[i].Name == name {
			return &r.sections[i]
		}
	}
	return nil
}

// Section reads a whole section and checks it.
func (r *Reader) Section(name string) ([]byte, error) {
	s := r.find(name)
	if s == nil {
		return nil, fmt.Errorf("%s: %w: section %q is missing", r.name, ErrCorrupt, name)
	}
	b := make([]byte, s.Length)
	if _, err := r.at.ReadAt(b, s.Offset); err != nil {
		return nil, fmt.Errorf("%s: %w: section %q: %v", r.name, ErrCorrupt, name, err)
	}
	if f, ok := r.closer.(*os.File); ok && s.Length >= 1<<20 {
		dropBehind(f, s.Offset, s.Length)
	}
	if crc32.Checksum(b, castagnoli) != s.CRC {
		return nil, fmt.Errorf("%s: %w: section %q: checksum", r.name, ErrCorrupt, name)
	}
	return b, nil
}

// Object decodes a CBOR section into v.
func (r *Reader) Object(name string, v any) error {
	b, err := r.Section(name)
	if err != nil {
		return err
	}
	if err := Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: section %q: %w", r.name, name, err)
	}
	return nil
}

// Close closes the file.
func (r *Reader) Close() error {
	if r.closer == nil {
		return nil
	}
	return r.closer.Close()
}
