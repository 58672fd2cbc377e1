package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Medium is one open file of a slow tier. Reads and writes may happen at once
// from several goroutines at different places.
type Medium interface {
	// ReadAt fills the slabs, in order, with the bytes from off on. A file that
	// ends early is io.ErrUnexpectedEOF. It leaves nothing in the page cache
	// where the system allows that.
	ReadAt(slabs [][]byte, off int64) error
	// WriteAt writes the slabs, in order, from off on. The bytes are durable
	// after the next Sync.
	WriteAt(slabs [][]byte, off int64) error
	// Reserve makes sure that size bytes from the start have room on the
	// device, so that writing there cannot fail for want of it.
	Reserve(size int64) error
	// Truncate cuts the file, and gives the room behind size back.
	Truncate(size int64) error
	// Size returns the present length.
	Size() (int64, error)
	// Sync returns when everything written is durable.
	Sync() error
	// Describe says what the medium is and how it is read, for people.
	Describe() string
	Close() error
}

// Mapper is a Medium that can be used where it lies.
type Mapper interface {
	// Map returns n bytes from off on, for reading. They are valid until Close;
	// nothing of them is brought in or verified yet, and an access may fault. It
	// fails on files that are open for writing.
	Map(off, n int64) ([]byte, error)
}

var errMapWriter = errors.New("a file that is being written cannot be used in place")

// Technology is one kind of slow tier. Each stands in a file of its own.
type Technology interface {
	// Name is what reports call it: heap, file, dax, devdax, mmap, imitation.
	Name() string
	// Open opens a file of the tier. For writing it is made if missing and
	// locked against every other opener; for reading it is locked against
	// writers. A lock that is held elsewhere is ErrLocked.
	Open(path string, write bool) (Medium, error)
	// Temp makes a file for writing and reading that disappears when it is
	// closed, also when the process is killed.
	Temp(dir string) (Medium, error)
}

// Errors that callers tell apart.
var (
	// ErrLocked says that another process writes the file, or uses it while
	// this one wants to write.
	ErrLocked = errors.New("in use by another process")
	// ErrNotAddressable says that a medium cannot be used in place.
	ErrNotAddressable = errors.New("not byte-addressable")
	// ErrDamaged says that a file or an object in it is not what was written.
	ErrDamaged = errors.New("damaged")
	// ErrForeign says that a file belongs to other keys, another plan or
	// another format version.
	ErrForeign = errors.New("foreign file")
)

// Detect returns the technology for a directory: DAX where a file of it can be
// mapped with MAP_SYNC, an ordinary file otherwise. It makes the directory if
// it is missing. A device in place of a directory is DevDAX.
func Detect(dir string) (Technology, error) {
	if IsDevice(dir) {
		return DevDAX{}, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if supportsDAX(dir) {
		return DAX{}, nil
	}
	return File{}, nil
}

// IsDevice reports whether a path is that of a character device, which the tier then
// takes as a whole.
func IsDevice(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

// Named returns a technology by the name that it has on the command line, for a
// directory as in Detect: file, dax, devdax, mmap, or auto for what Detect finds.
func Named(name, dir string) (Technology, error) {
	found, err := Detect(dir)
	if err != nil {
		return nil, err
	}
	switch {
	case name == "" || name == "auto" || name == found.Name():
		return found, nil
	case IsDevice(dir):
		return nil, fmt.Errorf("%s is a device: it is mapped whole, and no folder for %s", dir, name)
	}
	switch name {
	case "dax":
		return nil, fmt.Errorf("%s is on no DAX file system: a file in it cannot be mapped with MAP_SYNC", dir)
	case "devdax":
		return nil, fmt.Errorf("%s is not a device such as /dev/dax0.0", dir)
	case "file":
		return File{}, nil
	case "mmap":
		return Mmap{}, nil
	}
	return nil, fmt.Errorf("there is no technology %q: file, dax, devdax, mmap or auto", name)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !ignoreDirSync(err) {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// openLocked opens and locks a file of a tier the ordinary way.
func openLocked(path string, write bool) (*os.File, error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR | os.O_CREATE
	}
	f, fi, err := openLockedAs(path, flag, write)
	if err != nil {
		return nil, err
	}
	if write && fi.Size() == 0 {
		if err := syncDir(filepath.Dir(path)); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// openLockedAs opens and locks a file with the given flags. The file is the one that
// has the name then: not one that Prune removed while this process waited for it.
func openLockedAs(path string, flag int, exclusive bool) (*os.File, os.FileInfo, error) {
	for {
		f, err := os.OpenFile(path, flag, 0o644)
		if err != nil {
			return nil, nil, err
		}
		fi, err := f.Stat()
		switch {
		case err != nil:
		case !fi.Mode().IsRegular():
			err = fmt.Errorf("%s is not a regular file", path)
		default:
			if err = lockFile(f, exclusive); err != nil {
				err = fmt.Errorf("%s: %w", path, err)
			}
		}
		if err != nil {
			f.Close()
			return nil, nil, err
		}
		now, err := os.Stat(path)
		if err == nil && os.SameFile(fi, now) {
			return f, fi, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
}

// total returns the bytes in a vector of slabs.
func total(slabs [][]byte) int64 {
	n := int64(0)
	for _, s := range slabs {
		n += int64(len(s))
	}
	return n
}

// pages rounds up to whole pages.
func pages(n int64) int64 { return (n + PageBytes - 1) &^ (PageBytes - 1) }

// pageBuffer returns a buffer of n bytes that direct I/O accepts.
func pageBuffer(n int64) []byte {
	b := make([]byte, n+PageBytes)
	skip := int64(-address(b) & (PageBytes - 1))
	return b[skip : skip+n : skip+n]
}

// readPlain fills slabs through an io.ReaderAt.
func readPlain(r io.ReaderAt, slabs [][]byte, off int64) error {
	for _, s := range slabs {
		if n, err := r.ReadAt(s, off); n < len(s) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		off += int64(len(s))
	}
	return nil
}

// writePlain writes slabs through an io.WriterAt.
func writePlain(w io.WriterAt, slabs [][]byte, off int64) error {
	for _, s := range slabs {
		if _, err := w.WriteAt(s, off); err != nil {
			return err
		}
		off += int64(len(s))
	}
	return nil
}
