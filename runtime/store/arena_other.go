//go:build !(linux || darwin || freebsd)

package store

// chunk is a piece of the Go heap: the portable twin of a mapping. It is
// accounted the same way, but the collector's limit has to leave room for it.
type chunk struct {
	mem []byte
}

func mapChunk(n int) (chunk, error) {
	full := make([]byte, n+4096)
	skip := int(-address(full) & 4095)
	return chunk{mem: full[skip : skip+n : skip+n]}, nil
}

func (c chunk) unmap() error { return nil }
