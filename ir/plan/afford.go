package plan

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// A CBOR array of one-byte elements may decode to structs of more than a hundred
// bytes each, all allocated before the first is found wanting. What a section may
// take in memory is therefore bounded by its length. Sections in use take less
// than four times their length.
const (
	memoryBase  = 1 << 20
	memoryRatio = 8
)

// affordable reports an error if data, decoded into a value of type t, would take
// more memory than its length justifies. Data that is not well formed passes: the
// decoder refuses it before it allocates.
func affordable(data []byte, t reflect.Type) error {
	m := &meter{rest: data, left: memoryBase + memoryRatio*uint64(len(data))}
	m.value(t, 0)
	if m.over {
		return fmt.Errorf("%w: %d bytes would take more than %d MiB of memory", ErrCorrupt, len(data), (memoryBase+memoryRatio*uint64(len(data)))>>20)
	}
	return nil
}

// meter walks CBOR beside the type that it is to be decoded into.
type meter struct {
	rest []byte
	left uint64 // bytes of memory that may still be taken
	over bool
	bad  bool // not well formed
}

// head reads the head of an item: its major type and argument.
func (m *meter) head() (major byte, n uint64) {
	if len(m.rest) == 0 {
		m.bad = true
		return 0, 0
	}
	major, n = m.rest[0]>>5, uint64(m.rest[0]&31)
	m.rest = m.rest[1:]
	if n < 24 {
		return major, n
	}
	width := 1 << (n - 24)
	if n > 27 || len(m.rest) < width {
		m.bad = true
		return 0, 0
	}
	var b [8]byte
	copy(b[8-width:], m.rest)
	m.rest = m.rest[width:]
	return major, binary.BigEndian.Uint64(b[:])
}

// text skips n bytes and returns them.
func (m *meter) text(n uint64) string {
	if n > uint64(len(m.rest)) {
		m.bad = true
		return ""
	}
	s := m.rest[:n]
	m.rest = m.rest[n:]
	return string(s)
}

// skip passes over n whole items.
func (m *meter) skip(n uint64) {
	for ; n > 0 && !m.bad; n-- {
		major, k := m.head()
		switch major {
		case 2, 3:
			m.text(k)
			continue
		case 4:
		case 5:
			k *= 2
		case 6:
			k = 1
		default:
			continue
		}
		if k > uint64(len(m.rest)) {
			m.bad = true
		}
		n += k
	}
}

func (m *meter) take(n, size uint64) {
	if size > 0 && n > m.left/size {
		m.over = true
		return
	}
	m.left -= n * size
}

func (m *meter) value(t reflect.Type, depth int) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
		m.take(1, uint64(t.Size()))
	}
	if m.bad || m.over || depth > 32 {
		m.bad = true
		return
	}
	if t.Kind() != reflect.Slice && t.Kind() != reflect.Struct {
		m.skip(1)
		return
	}
	major, n := m.head()
	switch {
	case major == 4 && n > uint64(len(m.rest)), major == 5 && n > uint64(len(m.rest))/2:
		m.bad = true
	case major == 4 && t.Kind() == reflect.Slice:
		m.take(n, uint64(t.Elem().Size()))
		for ; n > 0 && !m.bad && !m.over; n-- {
			m.value(t.Elem(), depth+1)
		}
	case major == 5 && t.Kind() == reflect.Struct:
		for ; n > 0 && !m.bad && !m.over; n-- {
			major, k := m.head()
			name := strconv.FormatUint(k, 10)
			if major == 3 {
				name = m.text(k)
			} else if major != 0 {
				m.bad = true
			}
			if f, ok := field(t, name); ok {
				m.value(f, depth+1)
			} else {
				m.skip(1)
			}
		}
	case major == 2 || major == 3:
		m.text(n)
	case major == 4:
		m.skip(n)
	case major == 5:
		m.skip(2 * n)
	case major == 6:
		m.bad = true // the decoder forbids tags
	}
}

// field returns the type of the field that the decoder fills from a key: the tag,
// or else the name, in any case.
func field(t reflect.Type, key string) (reflect.Type, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("cbor"), ",")
		if name == "" {
			name = f.Name
		}
		if strings.EqualFold(name, key) {
			return f.Type, true
		}
	}
	return nil, false
}
