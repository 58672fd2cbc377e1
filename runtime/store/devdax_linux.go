package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// attachDevice maps a device of the kernel's device-dax driver.
func attachDevice(path string, write bool) (Device, error) {
	flag, prot := os.O_RDONLY, unix.PROT_READ
	if write {
		flag, prot = os.O_RDWR, unix.PROT_READ|unix.PROT_WRITE
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	size, err := deviceSize(f)
	if err == nil && !canFlush {
		err = errors.New("this build has no instructions to flush cache lines with: use a DAX file system")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return mapDevice(f, size, prot)
}

// deviceSize returns the bytes of a device-dax device.
func deviceSize(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return 0, errors.New("not a character device")
	}
	sys := fmt.Sprintf("/sys/dev/char/%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	if kind, err := os.Readlink(filepath.Join(sys, "subsystem")); err != nil || filepath.Base(kind) != "dax" {
		return 0, errors.New("not persistent memory: its driver is not device-dax")
	}
	b, err := os.ReadFile(filepath.Join(sys, "size"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// mappedDevice is a device, mapped whole.
type mappedDevice struct {
	f   *os.File
	mem []byte
}

func mapDevice(f *os.File, size int64, prot int) (Device, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, int(size), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: cannot map %d bytes: %w", f.Name(), size, err), f.Close())
	}
	return &mappedDevice{f, mem}, nil
}

func (d *mappedDevice) Bytes() []byte { return d.mem }

func (d *mappedDevice) Persist(off, n int64) error {
	return touching(func() { persist(d.mem[off : off+n]) })
}

// Lock uses locks of the open file, on bytes by number: they belong to it and not to
// the process, so that two users in one process exclude each other as well.
func (d *mappedDevice) Lock(number int64, exclusive, wait bool) error {
	kind := int16(unix.F_RDLCK)
	if exclusive {
		kind = unix.F_WRLCK
	}
	return d.lock(number, kind, wait)
}

func (d *mappedDevice) Unlock(number int64) error { return d.lock(number, unix.F_UNLCK, false) }

func (d *mappedDevice) lock(number int64, kind int16, wait bool) error {
	cmd := unix.F_OFD_SETLK
	if wait {
		cmd = unix.F_OFD_SETLKW
	}
	for {
		switch err := unix.FcntlFlock(d.f.Fd(), cmd, &unix.Flock_t{Type: kind, Start: number, Len: 1}); {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return ErrLocked
		default:
			return os.NewSyscallError("fcntl", err)
		}
	}
}

func (d *mappedDevice) Close() error {
	return errors.Join(os.NewSyscallError("munmap", unix.Munmap(d.mem)), d.f.Close())
}
