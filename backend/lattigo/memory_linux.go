package lattigo

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// adviseHuge asks for huge pages behind x, where it covers any: with small ones, the
// machine looks addresses up and foresees reads page by page. A kernel without them says
// no, which changes nothing but speed.
func adviseHuge(x []uint64) {
	const huge = 2 << 20
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 8*len(x))
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (huge - 1))
	if n := (len(b) - skip) &^ (huge - 1); n > 0 {
		_ = unix.Madvise(b[skip:skip+n], unix.MADV_HUGEPAGE)
	}
}
