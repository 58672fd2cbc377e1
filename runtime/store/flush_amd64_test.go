package store

import (
	"bytes"
	"testing"
	"unsafe"
)

// Every way to write lines back leaves the content alone and touches no line
// outside of the range.
func TestFlush(t *testing.T) {
	for _, f := range flushers() {
		b := bytes.Repeat([]byte{7}, 3*flushPiece+1000)
		for _, r := range [][2]int{{0, 0}, {0, 1}, {63, 65}, {1, len(b)}, {100, flushPiece + 100}, {64, 64 + flushPiece}} {
			persistWith(f, b[r[0]:r[1]])
		}
		if bytes.Count(b, []byte{7}) != len(b) {
			t.Errorf("%s changed the content", f.name)
		}
		first, lines := uintptr(0), uintptr(0)
		count := flusher{f.name, func(p unsafe.Pointer, n uintptr) {
			if lines == 0 {
				first = uintptr(p)
			} else if uintptr(p) != first+lines*lineBytes {
				t.Errorf("a gap after %d lines", lines)
			}
			lines += n
		}}
		for _, r := range [][2]int{{0, 1}, {63, 65}, {1, len(b)}, {100, flushPiece + 100}, {5, 5 + 2*flushPiece}} {
			first, lines = 0, 0
			s := b[r[0]:r[1]]
			persistWith(count, s)
			lo := address(s) / lineBytes
			hi := (address(s) + uintptr(len(s)) - 1) / lineBytes
			if first != lo*lineBytes || lines != hi-lo+1 {
				t.Errorf("%v: %d lines from %x on, want %d from %x on", r, lines, first, hi-lo+1, lo*lineBytes)
			}
		}
	}
	t.Logf("this processor uses %s", flush.name)
}
