package dataset

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// The .npy format is described in numpy/lib/format.py: magic, version, header
// length (u16 in version 1, u32 in 2 and 3), a Python dict literal, data.
const (
	npyMagic     = "\x93NUMPY"
	npyMaxHeader = 1 << 16
)

// npyHeader is the description of the data that follows it.
type npyHeader struct {
	kind    byte // 'f', 'i', 'u' or 'b'
	size    int  // bytes per element
	order   binary.ByteOrder
	fortran bool
	shape   []int
}

func (h *npyHeader) elems() int { return ir.NumElems(h.shape) }

// ReadNpy reads a whole .npy array of floats, integers or booleans; path "-" is
// standard input. The length of the file must be what the header says.
func ReadNpy(path string) (*ir.Array, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if _, err := f.kind(Npy); err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	a, err := f.npyArray()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return a, nil
}

func (f *file) npyArray() (*ir.Array, error) {
	h, err := f.npyHeader()
	if err != nil {
		return nil, err
	}
	return f.npyBody(h)
}

// npyBody reads the elements into row-major order.
func (f *file) npyBody(h *npyHeader) (*ir.Array, error) {
	raw, err := readN(f.r, int64(h.elems())*int64(h.size))
	if err != nil {
		return nil, cut(err)
	}
	if err := atEnd(f.r); err != nil {
		return nil, err
	}
	a := ir.NewArray(h.shape...)
	get := h.decoder()
	for i := range a.Data {
		if a.Data[i], err = get(raw[i*h.size:]); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
	}
	if h.fortran && len(h.shape) > 1 {
		a.Data = fromFortran(a.Data, h.shape)
	}
	return a, nil
}

// fromFortran reorders column-major data of the given shape to row-major.
func fromFortran(src []float64, shape []int) []float64 {
	dst := make([]float64, len(src))
	strides := ir.Strides(shape)
	idx := make([]int, len(shape))
	at := 0
	for _, v := range src {
		dst[at] = v
		for k := range idx { // the first index runs fastest
			idx[k]++
			at += strides[k]
			if idx[k] < shape[k] {
				break
			}
			at -= shape[k] * strides[k]
			idx[k] = 0
		}
	}
	return dst
}

// npySamples opens an array as samples along its first axis, or as one sample
// where its shape is already that of a sample.
func (f *file) npySamples(want []int, pre *plan.Preprocess) (*Samples, error) {
	h, err := f.npyHeader()
	if err != nil {
		return nil, err
	}
	if h.kind == 'u' && h.size == 1 && pre != nil && (pre.Scale != 1 || len(pre.Mean)+len(pre.Std) > 0) {
		return nil, errors.New("holds bytes, and preprocessing never applies to .npy: scale pixels as the model was trained and save them as float32, or give pictures or an idx file")
	}
	s := &Samples{Kind: Npy}
	switch {
	case len(h.shape) > 0 && (want == nil || sameOrder(h.shape[1:], want)):
		s.len, s.Shape = h.shape[0], h.shape[1:]
	case want != nil && sameOrder(h.shape, want):
		s.len, s.Shape = 1, h.shape
	case want == nil:
		s.len = 1
	default:
		return nil, fmt.Errorf("array of shape %v holds no samples of shape %v", h.shape, want)
	}
	if want != nil {
		s.Shape = slices.Clone(want)
	}
	if h.elems() == 0 {
		return nil, fmt.Errorf("array of shape %v holds no samples", h.shape)
	}
	n := ir.NumElems(s.Shape)
	if n > maxElems {
		return nil, fmt.Errorf("one sample of %d elements is more than the limit of %d", n, maxElems)
	}
	if h.fortran && len(h.shape) > 1 {
		a, err := f.npyBody(h)
		if err != nil {
			return nil, err
		}
		rest := a.Data
		s.read = func() error { return nil }
		s.fill = func(dst []float64) error {
			rest = rest[copy(dst, rest):]
			return nil
		}
		return s, nil
	}
	var raw []byte
	next, get := f.records(s.len, int64(n)*int64(h.size)), h.decoder()
	s.read = func() (err error) {
		raw, err = next()
		return err
	}
	s.fill = func(dst []float64) (err error) {
		for i := range dst {
			if dst[i], err = get(raw[i*h.size:]); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
		}
		return nil
	}
	return s, nil
}

// npyHeader reads and checks the header; the reader then stands at the data.
func (f *file) npyHeader() (*npyHeader, error) {
	fixed, err := readN(f.r, 8)
	if err != nil {
		return nil, cut(err)
	}
	lenBytes := 2
	switch major := fixed[6]; major {
	case 1:
	case 2, 3:
		lenBytes = 4
	default:
		return nil, fmt.Errorf(".npy version %d.%d is not known (1 to 3 are)", major, fixed[7])
	}
	var word [4]byte
	if _, err := io.ReadFull(f.r, word[:lenBytes]); err != nil {
		return nil, cut(err)
	}
	length := binary.LittleEndian.Uint32(word[:])
	if length > npyMaxHeader {
		return nil, fmt.Errorf(".npy header of %d bytes is longer than %d", length, npyMaxHeader)
	}
	text, err := readN(f.r, int64(length))
	if err != nil {
		return nil, cut(err)
	}
	h, err := parseNpyHeader(string(text))
	if err != nil {
		return nil, fmt.Errorf(".npy header: %w", err)
	}
	if f.size >= 0 {
		have := f.size - int64(8+lenBytes) - int64(length)
		if want := int64(h.elems()) * int64(h.size); have != want {
			return nil, fmt.Errorf("header announces shape %v, %d bytes, but %d follow: the file is cut or damaged", h.shape, want, have)
		}
	}
	return h, nil
}

// parseNpyHeader reads the dict literal, of which numpy writes exactly the keys
// descr, fortran_order and shape.
func parseNpyHeader(text string) (*npyHeader, error) {
	h := &npyHeader{}
	p := &literal{rest: text}
	seen := map[string]bool{}
	p.want("{")
	for p.err == nil && !p.take("}") {
		key := p.str()
		p.want(":")
		if p.err == nil && seen[key] {
			return nil, fmt.Errorf("key %q occurs twice", key)
		}
		seen[key] = true
		switch key {
		case "descr":
			if p.peek("[") {
				return nil, errors.New("structured element types are not supported; save plain numbers")
			}
			descr := p.str()
			if p.err == nil {
				p.err = h.setType(descr)
			}
		case "fortran_order":
			h.fortran = p.boolean()
		case "shape":
			h.shape = p.tuple()
		default:
			p.fail("key %q is not known", key)
		}
		if !p.take(",") && !p.peek("}") {
			p.fail("expected , or }")
		}
	}
	if p.err == nil && strings.TrimSpace(p.rest) != "" {
		p.fail("text follows the description")
	}
	if p.err == nil && len(seen) != 3 {
		p.fail("descr, fortran_order and shape are required")
	}
	if p.err != nil {
		return nil, p.err
	}
	elems := int64(1)
	for _, d := range h.shape {
		if d != 0 && elems > (1<<53)/int64(d) {
			return nil, fmt.Errorf("shape %v has too many elements", h.shape)
		}
		elems *= int64(d)
	}
	return h, nil
}

// setType parses a numpy type string such as "<f4", "|u1" or ">i8".
func (h *npyHeader) setType(descr string) error {
	bad := func() error {
		return fmt.Errorf("element type %q is not supported: use float16, float32, float64, bool or an integer type", descr)
	}
	if len(descr) < 3 {
		return bad()
	}
	size, err := strconv.Atoi(descr[2:])
	if err != nil {
		return bad()
	}
	h.kind, h.size = descr[1], size
	ok := false
	switch h.kind {
	case 'f':
		ok = size == 2 || size == 4 || size == 8
	case 'i', 'u':
		ok = size == 1 || size == 2 || size == 4 || size == 8
	case 'b':
		ok = size == 1
	}
	switch descr[0] {
	case '<':
		h.order = binary.LittleEndian
	case '>':
		h.order = binary.BigEndian
	case '|':
		h.order = binary.LittleEndian
		ok = ok && size == 1
	default:
		ok = false
	}
	if !ok {
		return bad()
	}
	return nil
}

// decoder returns the function that reads one element.
func (h *npyHeader) decoder() func([]byte) (float64, error) {
	word := func(b []byte) uint64 {
		switch h.size {
		case 1:
			return uint64(b[0])
		case 2:
			return uint64(h.order.Uint16(b))
		case 4:
			return uint64(h.order.Uint32(b))
		}
		return h.order.Uint64(b)
	}
	const exact = 1 << 53
	switch h.kind {
	case 'f':
		switch h.size {
		case 2:
			return func(b []byte) (float64, error) { return float16(h.order.Uint16(b)), nil }
		case 4:
			return func(b []byte) (float64, error) { return float64(math.Float32frombits(h.order.Uint32(b))), nil }
		}
		return func(b []byte) (float64, error) { return math.Float64frombits(h.order.Uint64(b)), nil }
	case 'i':
		return func(b []byte) (float64, error) {
			shift := 64 - 8*h.size
			v := int64(word(b)<<shift) >> shift
			if v > exact || v < -exact {
				return 0, fmt.Errorf("integer %d is too large to be held exactly", v)
			}
			return float64(v), nil
		}
	case 'u':
		return func(b []byte) (float64, error) {
			v := word(b)
			if v > exact {
				return 0, fmt.Errorf("integer %d is too large to be held exactly", v)
			}
			return float64(v), nil
		}
	}
	return func(b []byte) (float64, error) { // bool
		if b[0] > 1 {
			return 0, fmt.Errorf("byte %d is not a boolean", b[0])
		}
		return float64(b[0]), nil
	}
}

// float16 widens an IEEE 754 half-precision number.
func float16(h uint16) float64 {
	sign, exp, frac := 1.0, int(h>>10&0x1f), float64(h&0x3ff)
	if h>>15 == 1 {
		sign = -1
	}
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 31:
		if frac != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

// literal is a cursor over a Python literal. After the first error it only
// fails.
type literal struct {
	rest string
	err  error
}

func (p *literal) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func (p *literal) peek(tok string) bool {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	return p.err == nil && strings.HasPrefix(p.rest, tok)
}

func (p *literal) take(tok string) bool {
	if !p.peek(tok) {
		return false
	}
	p.rest = p.rest[len(tok):]
	return true
}

func (p *literal) want(tok string) {
	if !p.take(tok) {
		p.fail("expected %s", tok)
	}
}

func (p *literal) str() string {
	for _, quote := range []string{"'", `"`} {
		if p.take(quote) {
			s, rest, ok := strings.Cut(p.rest, quote)
			if !ok || strings.Contains(s, `\`) {
				p.fail("bad string")
			}
			p.rest = rest
			return s
		}
	}
	p.fail("expected a string")
	return ""
}

func (p *literal) boolean() bool {
	switch {
	case p.take("True"):
		return true
	case p.take("False"):
		return false
	}
	p.fail("expected True or False")
	return false
}

func (p *literal) tuple() []int {
	shape := []int{}
	p.want("(")
	for p.err == nil && !p.take(")") {
		p.peek("")
		n := 0
		for n < len(p.rest) && p.rest[n] >= '0' && p.rest[n] <= '9' {
			n++
		}
		d, err := strconv.ParseInt(p.rest[:n], 10, 64)
		if err != nil || d > 1<<53 {
			p.fail("bad dimension")
			break
		}
		p.rest = strings.TrimPrefix(p.rest[n:], "L") // Python 2 wrote long integers
		if shape = append(shape, int(d)); len(shape) > 32 {
			p.fail("more than 32 dimensions")
		}
		if !p.take(",") && !p.peek(")") {
			p.fail("expected , or )")
		}
	}
	return shape
}

// WriteNpy writes an array as .npy version 1, little-endian float64, row-major;
// path "-" is standard output. A file appears whole or not at all.
func WriteNpy(path string, a *ir.Array) error {
	if path == "-" {
		return EncodeNpy(os.Stdout, a)
	}
	return plan.ReplaceFile(path, 0o644, func(f *os.File) error { return EncodeNpy(f, a) })
}

// EncodeNpy writes what WriteNpy puts into a file.
func EncodeNpy(w io.Writer, a *ir.Array) error {
	var dims strings.Builder
	for i, d := range a.Shape {
		if i > 0 {
			dims.WriteString(", ")
		}
		dims.WriteString(strconv.Itoa(d))
	}
	if len(a.Shape) == 1 {
		dims.WriteByte(',')
	}
	head := fmt.Sprintf("{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }", dims.String())
	head += strings.Repeat(" ", (64-(10+len(head)+1)%64)%64) + "\n"
	b := bufio.NewWriter(w)
	b.WriteString(npyMagic)
	b.Write([]byte{1, 0, byte(len(head)), byte(len(head) >> 8)})
	b.WriteString(head)
	var word [8]byte
	for _, v := range a.Data {
		binary.LittleEndian.PutUint64(word[:], math.Float64bits(v))
		b.Write(word[:])
	}
	return b.Flush()
}
