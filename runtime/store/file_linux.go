package store

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// directFile is a second descriptor of a file, opened with O_DIRECT.
type directFile struct{ fd int }

// openDirect opens path past the page cache, if its file system can.
func openDirect(path string, write bool) (directFile, bool) {
	flag := unix.O_RDONLY
	if write {
		flag = unix.O_RDWR
	}
	fd, err := unix.Open(path, flag|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return directFile{-1}, false
	}
	return directFile{fd}, true
}

func (d directFile) close() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
	}
}

// iovMax is the most buffers that one system call takes (IOV_MAX).
const iovMax = 1024

func (d directFile) read(slabs [][]byte, off int64) (refused bool, err error) {
	return d.each(slabs, off, unix.Preadv, io.ErrUnexpectedEOF)
}

func (d directFile) write(slabs [][]byte, off int64) (refused bool, err error) {
	return d.each(slabs, off, unix.Pwritev, io.ErrShortWrite)
}

// each moves all slabs, however little one call moves. refused reports that
// the file system rejects direct I/O with page alignment.
func (d directFile) each(slabs [][]byte, off int64, call func(int, [][]byte, int64) (int, error), short error) (refused bool, err error) {
	for i, skip := 0, 0; i < len(slabs); {
		iov := slabs[i:min(i+iovMax, len(slabs))]
		if skip > 0 {
			iov = slices.Clone(iov)
			iov[0] = iov[0][skip:]
		}
		n, err := call(d.fd, iov, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL) && i == 0 && skip == 0:
			return true, nil
		case err != nil:
			return false, err
		case n == 0:
			return false, short
		}
		off += int64(n)
		for n += skip; i < len(slabs) && n >= len(slabs[i]); i++ {
			n -= len(slabs[i])
		}
		skip = n
	}
	return false, nil
}

// dropCache asks the kernel to forget clean pages of a file; length 0 means to
// its end.
func dropCache(f *os.File, off, length int64) {
	_ = unix.Fadvise(int(f.Fd()), off, length, unix.FADV_DONTNEED)
}

// reserve allocates blocks and extends the file over them. Where the file
// system cannot allocate, the file is extended all the same, and whether there
// is room shows while writing.
func reserve(f *os.File, size int64) error {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); {
		case err == nil:
			return nil
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return extend(f, size)
		case errors.Is(err, unix.EINTR):
		default:
			return os.NewSyscallError("fallocate "+strconv.FormatInt(size, 10)+" bytes", err)
		}
	}
}

// ignoreDirSync reports errors of file systems that cannot sync directories.
func ignoreDirSync(err error) bool { return errors.Is(err, unix.EINVAL) }
