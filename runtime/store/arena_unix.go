//go:build linux || darwin || freebsd

package store

import (
	"golang.org/x/sys/unix"
)

// chunk is a piece of anonymous memory outside the Go heap.
type chunk struct {
	mem  []byte
	full []byte // the whole mapping, of which mem is the aligned part
}

// mapChunk maps n bytes. Pieces of a huge page or more are aligned to it, and
// the kernel is asked to use huge pages; it is free not to. Where it never does by
// itself, pages are taken from those that are set aside, while there are any.
func mapChunk(n int) (chunk, error) {
	if n >= hugeBytes {
		if full := mapReserved(n); full != nil {
			return chunk{mem: full[:n:n], full: full}, nil
		}
	}
	extra := 0
	if n >= hugeBytes {
		extra = hugeBytes
	}
	full, err := unix.Mmap(-1, 0, n+extra, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return chunk{}, err
	}
	skip := 0
	if extra > 0 {
		skip = int(-address(full) & (hugeBytes - 1))
		adviseHuge(full[skip : skip+n])
	}
	return chunk{mem: full[skip : skip+n : skip+n], full: full}, nil
}

func (c chunk) unmap() error { return unix.Munmap(c.full) }
