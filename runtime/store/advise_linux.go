package store

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages. A kernel without them says no, which changes
// nothing but speed.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
