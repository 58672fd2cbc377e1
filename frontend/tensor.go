package frontend

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/home-fhe/home/ir"
)

// maxRank bounds the number of dimensions of a tensor.
const maxRank = 16

// canonTensor is a tensor in one of the three encodings that the canonical
// model uses: elem is float32, float64 or int64 and raw is little-endian.
type canonTensor struct {
	shape []int
	elem  elemType // canonical
	orig  elemType // as the model declared it
	raw   []byte
}

func (t *canonTensor) elems() int { return ir.NumElems(t.shape) }

// canonical converts the tensor, checks that its shape and its data agree in
// length before anything is allocated. owner is the node or initialiser to
// blame.
func (x *external) canonical(t *tensorProto, owner, op string) (*canonTensor, error) {
	refuse := func(format string, args ...any) error {
		return &ir.NodeError{Node: owner, Op: op, Err: fmt.Errorf(format, args...)}
	}
	if t.segment {
		return nil, refuse("segmented tensors are not supported")
	}
	if t.elem == elemUndefined {
		return nil, malformed("%s %q: tensor without an element type", op, owner)
	}
	if !t.elem.known() {
		return nil, refuse("element type %s is not supported", t.elem)
	}
	if len(t.dims) > maxRank {
		return nil, refuse("tensor of %d dimensions; the limit is %d", len(t.dims), maxRank)
	}
	c := &canonTensor{orig: t.elem, shape: make([]int, len(t.dims))}
	n := 1
	for i, d := range t.dims {
		if d < 0 || d > math.MaxInt32 {
			return nil, malformed("%s %q: dimension %d is %d", op, owner, i, d)
		}
		c.shape[i] = int(d)
		if n > 0 && d > 0 && n > math.MaxInt/8/int(d) {
			return nil, malformed("%s %q: shape %v overflows", op, owner, t.dims)
		}
		n *= int(d)
	}
	raw, hasRaw := t.raw, t.hasRaw
	if t.isExt {
		if hasRaw {
			return nil, malformed("%s %q: both raw and external data", op, owner)
		}
		b, err := x.read(t, owner, n*rawSize(t.elem))
		if err != nil {
			return nil, err
		}
		raw, hasRaw = b, true
	}
	switch t.elem {
	case elemFloat, elemFloat16, elemBfloat16:
		c.elem = elemFloat
	case elemDouble:
		c.elem = elemDouble
	default:
		c.elem = elemInt64
	}
	var err error
	if hasRaw {
		if len(t.floats)+len(t.doubles)+len(t.int32s)+len(t.int64s)+len(t.uint64s) > 0 {
			return nil, malformed("%s %q: both raw and typed data", op, owner)
		}
		if len(raw) != n*rawSize(t.elem) {
			return nil, malformed("%s %q: shape %v of %s needs %d bytes, the model has %d", op, owner, t.dims, t.elem, n*rawSize(t.elem), len(raw))
		}
		c.raw = fromRaw(raw, t.elem)
		if t.elem == elemUint64 {
			for b := raw; len(b) > 0; b = b[8:] {
				t.uint64s = append(t.uint64s, binary.LittleEndian.Uint64(b))
			}
		}
	} else {
		c.raw, err = fromTyped(t, n, op, owner)
		if err != nil {
			return nil, err
		}
	}
	for i, v := range t.uint64s {
		if v > math.MaxInt64 {
			return nil, refuse("element %d is %d; integers of 2^63 and more are not supported", i, v)
		}
	}
	return c, nil
}

// rawSize is the number of bytes of an element in raw_data.
func rawSize(e elemType) int {
	switch e {
	case elemUint8, elemInt8, elemBool:
		return 1
	case elemUint16, elemInt16, elemFloat16, elemBfloat16:
		return 2
	case elemFloat, elemInt32, elemUint32:
		return 4
	}
	return 8
}

// fromRaw converts raw_data to canonical little-endian bytes. Types that are
// canonical already are not copied.
func fromRaw(b []byte, e elemType) []byte {
	le := binary.LittleEndian
	switch e {
	case elemFloat, elemDouble, elemInt64:
		return b
	case elemFloat16, elemBfloat16:
		out := make([]byte, 0, 2*len(b))
		for ; len(b) > 0; b = b[2:] {
			out = le.AppendUint32(out, half(le.Uint16(b), e))
		}
		return out
	}
	size := rawSize(e)
	out := make([]byte, 0, len(b)/size*8)
	for ; len(b) > 0; b = b[size:] {
		var v int64
		switch e {
		case elemUint8:
			v = int64(b[0])
		case elemInt8:
			v = int64(int8(b[0]))
		case elemBool:
			if b[0] != 0 {
				v = 1
			}
		case elemUint16:
			v = int64(le.Uint16(b))
		case elemInt16:
			v = int64(int16(le.Uint16(b)))
		case elemInt32:
			v = int64(int32(le.Uint32(b)))
		case elemUint32:
			v = int64(le.Uint32(b))
		case elemUint64:
			v = int64(le.Uint64(b))
		}
		out = le.AppendUint64(out, uint64(v))
	}
	return out
}

// fromTyped converts the typed data fields. onnx.proto lists which field holds
// which element type.
func fromTyped(t *tensorProto, n int, op, owner string) ([]byte, error) {
	le := binary.LittleEndian
	have := 0
	switch t.elem {
	case elemFloat:
		have = len(t.floats)
	case elemDouble:
		have = len(t.doubles)
	case elemInt64:
		have = len(t.int64s)
	case elemUint32, elemUint64:
		have = len(t.uint64s)
	default:
		have = len(t.int32s)
	}
	if total := len(t.floats) + len(t.doubles) + len(t.int32s) + len(t.int64s) + len(t.uint64s); total != have || have != n {
		return nil, malformed("%s %q: shape %v of %s needs %d elements, the model has %d", op, owner, t.dims, t.elem, n, have)
	}
	var out []byte
	switch t.elem {
	case elemFloat:
		for _, v := range t.floats {
			out = le.AppendUint32(out, math.Float32bits(v))
		}
	case elemFloat16, elemBfloat16:
		for _, v := range t.int32s {
			out = le.AppendUint32(out, half(uint16(v), t.elem))
		}
	case elemDouble:
		for _, v := range t.doubles {
			out = le.AppendUint64(out, math.Float64bits(v))
		}
	case elemInt64:
		for _, v := range t.int64s {
			out = le.AppendUint64(out, uint64(v))
		}
	case elemUint32, elemUint64:
		for _, v := range t.uint64s {
			out = le.AppendUint64(out, v)
		}
	case elemBool:
		for _, v := range t.int32s {
			b := uint64(0)
			if v != 0 {
				b = 1
			}
			out = le.AppendUint64(out, b)
		}
	default:
		for _, v := range t.int32s {
			out = le.AppendUint64(out, uint64(int64(v)))
		}
	}
	return out, nil
}

// half converts an IEEE 754 binary16 or a bfloat16 to the bits of a float32.
func half(h uint16, e elemType) uint32 {
	if e == elemBfloat16 {
		return uint32(h) << 16
	}
	sign, exp, frac := uint32(h>>15)<<31, int(h>>10)&31, uint32(h)&1023
	switch {
	case exp == 31:
		return sign | 0xff<<23 | frac<<13
	case exp > 0:
		return sign | uint32(exp-15+127)<<23 | frac<<13
	}
	v := float32(frac) / (1 << 24) // zero or subnormal: frac * 2^-24
	return sign | math.Float32bits(v)
}

// refuseNaN refuses a damaged weight by the name of its owner.
func (t *canonTensor) refuseNaN(owner, op string) error {
	i := t.firstNaN()
	if i < 0 {
		return nil
	}
	return &ir.NodeError{Node: owner, Op: op, Err: fmt.Errorf("element %d of %d is NaN", i, t.elems()),
		Hint: "the network's weights are damaged; train or export it again"}
}

// firstNaN returns the index of the first NaN, or -1.
func (t *canonTensor) firstNaN() int {
	switch t.elem {
	case elemFloat:
		for i := 0; i+4 <= len(t.raw); i += 4 {
			if v := binary.LittleEndian.Uint32(t.raw[i:]); v&0x7f800000 == 0x7f800000 && v&0x7fffff != 0 {
				return i / 4
			}
		}
	case elemDouble:
		for i := 0; i+8 <= len(t.raw); i += 8 {
			if math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(t.raw[i:]))) {
				return i / 8
			}
		}
	}
	return -1
}

// external resolves external data files below one directory, and nowhere else.
type external struct {
	dir    string
	digest hash.Hash
	root   *os.Root
	sizes  map[string]int64 // of the files seen
	files  int64            // sum of sizes
	taken  int64            // bytes read so far
}

// close releases the directory.
func (x *external) close() {
	if x.root != nil {
		x.root.Close()
	}
}

// read returns the want bytes that an externally stored tensor refers to.
func (x *external) read(t *tensorProto, owner string, want int) ([]byte, error) {
	location := t.external["location"]
	fail := func(format string, args ...any) error {
		return malformed("initialiser %q: external data %q: %w", owner, location, fmt.Errorf(format, args...))
	}
	number := func(key string, def int64) (int64, error) {
		s, ok := t.external[key]
		if !ok {
			return def, nil
		}
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v < 0 {
			return 0, fail("%s is %q, not a byte count", key, s)
		}
		return v, nil
	}
	offset, err := number("offset", 0)
	if err != nil {
		return nil, err
	}
	if location == "" {
		return nil, fail("no location")
	}
	if !filepath.IsLocal(filepath.FromSlash(location)) || strings.ContainsRune(location, '\\') {
		return nil, fail("the location leaves the model's directory, which is not allowed")
	}
	if x.dir == "" {
		return nil, fail("the model was given as bytes without a directory to find the file in")
	}
	if x.root == nil {
		if x.root, err = os.OpenRoot(x.dir); err != nil {
			return nil, fail("%w", err)
		}
	}
	f, err := x.root.OpenFile(filepath.FromSlash(location), os.O_RDONLY|openNonblock, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail("the file is missing; it belongs beside the model, in %s", x.dir)
	}
	if err != nil {
		return nil, fail("%w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fail("%w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fail("not a regular file")
	}
	length, err := number("length", st.Size()-offset)
	if err != nil {
		return nil, err
	}
	if offset > st.Size() || length > st.Size()-offset {
		return nil, fail("bytes %d to %d lie beyond its end at %d", offset, offset+length, st.Size())
	}
	if length != int64(want) {
		return nil, fail("it gives %d bytes, shape %v of %s needs %d", length, t.dims, t.elem, want)
	}
	if _, ok := x.sizes[location]; !ok {
		if x.sizes == nil {
			x.sizes = map[string]int64{}
		}
		x.sizes[location] = st.Size()
		x.files += st.Size()
	}
	if x.taken += length; x.taken > 2*x.files+1<<20 {
		return nil, fail("the model refers to the same bytes over and over: %d of %d", x.taken, x.files)
	}
	if sum := t.external["checksum"]; sum != "" {
		h := sha1.New()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, st.Size())); err != nil {
			return nil, fail("%w", err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, sum) {
			return nil, fail("SHA-1 is %s, the model expects %s", got, sum)
		}
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, length), b); err != nil {
		return nil, fail("%w", err)
	}
	x.digest.Write(b)
	return b, nil
}

// emptyArray is the array of a tensor without elements.
func (t *canonTensor) emptyArray() *ir.Array { return ir.NewArray(t.shape...) }
