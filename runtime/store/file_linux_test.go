package store

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEach moves slabs by calls that move less than they are asked for, or are
// interrupted: everything arrives once and in order, and the list is left as it was.
func TestEach(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var slabs [][]byte
		var want []byte
		for range 1 + r.IntN(2*iovMax) {
			s := make([]byte, 1+r.IntN(9))
			for i := range s {
				s[i] = byte(r.Uint32())
			}
			slabs, want = append(slabs, s), append(want, s...)
		}
		const start = 4096
		var got []byte
		call := func(_ int, iov [][]byte, off int64) (int, error) {
			if len(iov) > iovMax || off != start+int64(len(got)) {
				t.Fatalf("%d buffers at %d after %d bytes", len(iov), off, len(got))
			}
			if r.IntN(4) == 0 {
				return -1, unix.EINTR
			}
			all := bytes.Join(iov, nil)
			n := len(all)
			if r.IntN(3) > 0 {
				n = 1 + r.IntN(n)
			}
			got = append(got, all[:n]...)
			return n, nil
		}
		refused, err := directFile{}.each(slabs, start, call, io.ErrShortWrite)
		if refused || err != nil || !bytes.Equal(got, want) || !bytes.Equal(bytes.Join(slabs, nil), want) {
			t.Fatalf("%d of %d bytes, refused %v, %v", len(got), len(want), refused, err)
		}
	}
	nothing := func(int, [][]byte, int64) (int, error) { return 0, nil }
	if _, err := (directFile{}).each([][]byte{{1}}, 0, nothing, io.ErrUnexpectedEOF); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a call that moves nothing: %v", err)
	}
	never := func(int, [][]byte, int64) (int, error) { return -1, unix.EINVAL }
	if refused, err := (directFile{}).each([][]byte{{1}}, 0, never, io.ErrUnexpectedEOF); !refused || err != nil {
		t.Errorf("a file system that rejects it: %v, %v", refused, err)
	}
}
