package store

import "unsafe"

// address returns where a non-empty slice starts. It is only ever used to
// compute alignment.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// aligned reports whether a buffer may be handed to direct I/O.
func aligned(b []byte) bool { return address(b)%PageBytes == 0 && len(b)%PageBytes == 0 }

// PageBytes is the alignment of objects in tier files and of direct I/O.
const PageBytes = 4096
