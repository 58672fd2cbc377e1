package ir

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// The text form has one value per line and is canonical: equal graphs print to
// equal text, and Parse is the inverse of Print.
//
//	graph "lenet"
//	%0 = tensor.input() {shape=[1,1,28,28]} : f[1,1,28,28] enc "image"
//	%1 = tensor.const() data=blob:9f86... : f[6,1,5,5] "conv1.weight"
//	%2 = tensor.conv(%0, %1) {pads=[2,2,2,2]} : f[1,6,28,28] enc "conv1"
//	%3 = tensor.act(%2) {fn="relu"} approx=(center=0, bound=8, err=0.1, coef=[1,2]) : f[1,6,28,28] enc "relu1"
//	inputs(%0)
//	outputs(%3)
//
// A layout stands in a line of its own before its first use, "layout @0 =
// slots=16 cts=1 lanes=1 map=[...]", and a packed type refers to it:
// "slots[1,6] @0 enc". Scheme types read "ct(level=5, scale=2^30) enc". Payloads
// of more than 64 numbers, and long layouts, are kept outside as blobs under
// their SHA-256. Floats are written with as few digits as bring back the same
// bits. Parse skips empty lines and lines that start with '#', and infers a
// type that is left out.

const (
	inlineNumbers = 64      // larger payloads become blobs
	inlineLayout  = 4096    // longer layout texts become blobs
	maxLine       = 1 << 26 // bytes
	maxValues     = 1 << 24
	maxPositions  = 1 << 26 // layout entries in all
)

// BlobSink takes the large payloads that the text only refers to. The same
// data may be put several times.
type BlobSink interface {
	PutBlob(sum string, data []byte) error
}

// BlobSource returns the data whose SHA-256 in hexadecimal is sum. Parse
// checks the sum, and keeps no reference to the data.
type BlobSource interface {
	GetBlob(sum string) ([]byte, error)
}

// Blobs is a BlobSink and BlobSource in memory.
type Blobs map[string][]byte

// PutBlob implements BlobSink.
func (b Blobs) PutBlob(sum string, data []byte) error { b[sum] = data; return nil }

// GetBlob implements BlobSource.
func (b Blobs) GetBlob(sum string) ([]byte, error) {
	d, ok := b[sum]
	if !ok {
		return nil, fmt.Errorf("blob %s is missing", sum)
	}
	return d, nil
}

// String returns the text form without the blobs it refers to.
func (g *Graph) String() string {
	var b strings.Builder
	if err := Print(&b, g, nil); err != nil {
		return "broken graph: " + err.Error()
	}
	return b.String()
}

// Print writes the canonical text of g and hands large payloads to blobs. With
// blobs nil they are dropped, and the text is for reading only. The error is
// that of w or blobs, or says which value refers to one that does not come
// before it.
func Print(w io.Writer, g *Graph, blobs BlobSink) error {
	p := &printer{w: bufio.NewWriter(w), blobs: blobs, ids: make(map[*Value]int, len(g.Values))}
	fmt.Fprintf(p.w, "graph %s\n", strconv.Quote(g.Name))
	for i, v := range g.Values {
		if err := p.value(i, v); err != nil {
			return fmt.Errorf("value %%%d (%s): %w", i, v.Name, err)
		}
		p.ids[v] = i
	}
	for _, l := range []struct {
		name string
		vals []*Value
	}{{"inputs", g.Inputs}, {"outputs", g.Outputs}} {
		refs, err := p.refs(l.vals)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		fmt.Fprintf(p.w, "%s(%s)\n", l.name, refs)
	}
	return p.w.Flush()
}

type printer struct {
	w       *bufio.Writer
	blobs   BlobSink
	ids     map[*Value]int
	layouts []*Layout
}

func (p *printer) refs(vals []*Value) (string, error) {
	s := make([]string, len(vals))
	for i, v := range vals {
		id, ok := p.ids[v]
		if !ok {
			return "", fmt.Errorf("operand %d does not come before its use", i)
		}
		s[i] = "%" + strconv.Itoa(id)
	}
	return strings.Join(s, ", "), nil
}

func (p *printer) value(id int, v *Value) error {
	args, err := p.refs(v.Args)
	if err != nil {
		return err
	}
	typ, err := p.typ(v.Type)
	if err != nil {
		return err
	}
	payload, err := p.payload(v)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.w, "%%%d = %s(%s)", id, v.Op, args)
	if len(v.Attrs) > 0 {
		s := make([]string, 0, len(v.Attrs))
		for _, n := range v.Attrs.Names() {
			s = append(s, n+"="+attrText(v.Attrs[n]))
		}
		fmt.Fprintf(p.w, " {%s}", strings.Join(s, ", "))
	}
	fmt.Fprintf(p.w, "%s : %s", payload, typ)
	if v.Name != "" {
		fmt.Fprintf(p.w, " %s", strconv.Quote(v.Name))
	}
	return p.w.WriteByte('\n')
}

func attrText(x any) string {
	switch x := x.(type) {
	case int:
		return strconv.Itoa(x)
	case []int:
		return intsText(x)
	case float64:
		return floatText(x)
	case string:
		return strconv.Quote(x)
	}
	return fmt.Sprintf("?%T", x) // not an attribute: the verifier rejects it, so does Parse
}

func floatText(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

func intsText[T int | int32](l []T) string {
	s := make([]string, len(l))
	for i, x := range l {
		s[i] = strconv.FormatInt(int64(x), 10)
	}
	return "[" + strings.Join(s, ",") + "]"
}

func floatsText(l []float64) string {
	s := make([]string, len(l))
	for i, x := range l {
		s[i] = floatText(x)
	}
	return "[" + strings.Join(s, ",") + "]"
}

func (p *printer) typ(t Type) (string, error) {
	var s string
	switch t.Kind {
	case TensorKind:
		s = t.DType.String() + intsText(t.Shape)
	case SlotsKind:
		if t.Layout == nil {
			return "", errors.New("packed type without layout")
		}
		i := slices.IndexFunc(p.layouts, t.Layout.Equal)
		if i < 0 {
			i = len(p.layouts)
			text := t.Layout.String()
			if len(text) > inlineLayout {
				ref, err := p.blob([]byte(text))
				if err != nil {
					return "", err
				}
				text = ref
			}
			p.layouts = append(p.layouts, t.Layout)
			fmt.Fprintf(p.w, "layout @%d = %s\n", i, text)
		}
		s = fmt.Sprintf("slots%s @%d", intsText(t.Shape), i)
	default:
		s = fmt.Sprintf("%s(level=%d", t.Kind, t.Level)
		if sc := t.Scale.String(); sc != "1" {
			s += ", scale=" + sc
		}
		if t.Complex {
			s += ", complex"
		}
		s += ")"
	}
	if t.Encrypted {
		s += " enc"
	}
	return s, nil
}

func (p *printer) blob(data []byte) (string, error) {
	h := sha256.Sum256(data)
	sum := hex.EncodeToString(h[:])
	if p.blobs != nil {
		if err := p.blobs.PutBlob(sum, data); err != nil {
			return "", fmt.Errorf("blob %s: %w", sum, err)
		}
	}
	return "blob:" + sum, nil
}

func (p *printer) payload(v *Value) (string, error) {
	var b strings.Builder
	put := func(name string, numbers int, text func() string, data func() []byte) error {
		ref := ""
		if numbers <= inlineNumbers {
			ref = text()
		} else {
			var err error
			if ref, err = p.blob(data()); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, " %s=%s", name, ref)
		return nil
	}
	if a := v.Array; a != nil {
		err := put("data", len(a.Data), func() string { return floatsText(a.Data) },
			func() []byte { return appendFloats(nil, a.Data) })
		if err != nil {
			return "", err
		}
	}
	if a := v.Approx; a != nil {
		fmt.Fprintf(&b, " approx=(center=%s, bound=%s, err=%s, coef=%s)",
			floatText(a.Center), floatText(a.Bound), floatText(a.Err), floatsText(a.Coef))
		for _, c := range a.Inner {
			fmt.Fprintf(&b, " inner=%s", floatsText(c))
		}
		if a.Channels != nil {
			flat := make([]float64, 0, 3*len(a.Channels))
			for _, h := range a.Channels {
				flat = append(flat, h.Center, h.Bound, h.Gain)
			}
			fmt.Fprintf(&b, " channels=%s", floatsText(flat))
		}
	}
	if l := v.Linear; l != nil {
		if err := put("linear", l.numbers(), l.text, l.encode); err != nil {
			return "", err
		}
	}
	if d := v.Slots; d != nil {
		if d.DFT != nil {
			fmt.Fprintf(&b, " dft=%s", d.dftText())
		} else if err := put("values", d.Len(), d.text, d.encode); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func (l *Linear) numbers() int {
	n := len(l.Bias)
	for _, m := range l.Mats {
		n += len(m.Ptr) + 2*len(m.Col)
	}
	return n
}

// text has one "mat(RxC, ptr=[...], col=[...], val=[...])" per matrix, and the bias.
func (l *Linear) text() string {
	var s []string
	for _, m := range l.Mats {
		s = append(s, fmt.Sprintf("mat(%dx%d, ptr=%s, col=%s, val=%s)", m.Rows, m.Cols, intsText(m.Ptr), intsText(m.Col), floatsText(m.Val)))
	}
	if l.Bias != nil {
		s = append(s, "bias="+floatsText(l.Bias))
	}
	return "(" + strings.Join(s, ", ") + ")"
}

// Blobs are little-endian: counts and indices in 4 bytes, values in 8.
func (l *Linear) encode() []byte {
	b := appendCounts(nil, len(l.Mats))
	for _, m := range l.Mats {
		b = appendCounts(b, m.Rows, m.Cols, len(m.Col))
		b = appendInts(b, m.Ptr)
		b = appendInts(b, m.Col)
		b = appendFloats(b, m.Val)
	}
	if l.Bias == nil {
		return appendCounts(b, 0)
	}
	return appendFloats(appendCounts(b, 1, len(l.Bias)), l.Bias)
}

func (d *SlotData) text() string {
	index, value := d.lists()
	lanes := ""
	if d.LogLanes > 0 {
		lanes = fmt.Sprintf("lanes=%d, ", 1<<d.LogLanes)
	}
	return fmt.Sprintf("(%speriod=%d, index=%s, value=%s)", lanes, d.Period, intsText(index), floatsText(value))
}

func (d *SlotData) dftText() string {
	inverse := 0
	if d.DFT.Inverse {
		inverse = 1
	}
	return fmt.Sprintf("(points=%d, inverse=%d, from=%d, to=%d, offset=%d, shift=%d, factor=%s)",
		d.Period, inverse, d.DFT.From, d.DFT.To, d.DFT.Offset, d.DFT.Shift, floatText(d.DFT.Factor))
}

func (d *SlotData) encode() []byte {
	index, value := d.lists()
	b := appendCounts(nil, d.Period, d.LogLanes, len(index))
	return appendFloats(appendInts(b, index), value)
}

func appendCounts(b []byte, n ...int) []byte {
	for _, x := range n {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	return b
}

func appendInts(b []byte, l []int32) []byte {
	b = slices.Grow(b, 4*len(l))
	for _, x := range l {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	return b
}

func appendFloats(b []byte, l []float64) []byte {
	b = slices.Grow(b, 8*len(l))
	for _, x := range l {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

// blobReader reads what the encoders write; the first failure sticks, and no
// count is believed beyond the bytes that are there.
type blobReader struct {
	b   []byte
	err error
}

func (r *blobReader) take(n int, size int) []byte {
	if r.err == nil && (n < 0 || n > len(r.b)/size) {
		r.err = fmt.Errorf("blob ends early: %d entries of %d bytes in %d bytes", n, size, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	d := r.b[:n*size]
	r.b = r.b[n*size:]
	return d
}

func (r *blobReader) count() int {
	if d := r.take(1, 4); d != nil {
		return int(int32(binary.LittleEndian.Uint32(d)))
	}
	return 0
}

func (r *blobReader) ints(n int) []int32 {
	d := r.take(n, 4)
	l := make([]int32, len(d)/4)
	for i := range l {
		l[i] = int32(binary.LittleEndian.Uint32(d[4*i:]))
	}
	return l
}

func (r *blobReader) floats(n int) []float64 {
	d := r.take(n, 8)
	l := make([]float64, len(d)/8)
	for i := range l {
		l[i] = math.Float64frombits(binary.LittleEndian.Uint64(d[8*i:]))
	}
	return l
}

func (r *blobReader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("blob has %d bytes too many", len(r.b))
	}
	return r.err
}

func decodeLinear(b []byte) (*Linear, error) {
	r := &blobReader{b: b}
	l := new(Linear)
	for n := r.count(); n > 0 && r.err == nil; n-- {
		m := &Sparse{Rows: r.count(), Cols: r.count()}
		nnz := r.count()
		m.Ptr = r.ints(m.Rows + 1)
		m.Col = r.ints(nnz)
		m.Val = r.floats(nnz)
		l.Mats = append(l.Mats, m)
	}
	if r.count() != 0 {
		l.Bias = r.floats(r.count())
	}
	return l, r.done()
}

func decodeSlots(b []byte) (*SlotData, error) {
	r := &blobReader{b: b}
	d := &SlotData{Period: r.count(), LogLanes: r.count()}
	n := r.count()
	d.Index = r.ints(n)
	d.Value = r.floats(n)
	if r.err == nil && (d.LogLanes < 0 || d.LogLanes > 31) {
		return nil, fmt.Errorf("entries of 2^%d slots", d.LogLanes)
	}
	d.SetImag()
	return d, r.done()
}

// Parse reads the text form of a graph. Types are inferred and compared with
// those in the text. Errors carry the number of the line. Text of any content
// is safe to parse: memory stays within a small multiple of text and blobs,
// layouts apart, which are bounded in all.
func Parse(r io.Reader, blobs BlobSource) (*Graph, error) {
	p := &parser{g: new(Graph), blobs: blobs}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 1<<16), maxLine)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		p.s, p.at = line, 0
		if err := p.line(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("graph text: %w", err)
	}
	if !p.named || !p.ins || !p.outs {
		return nil, errors.New("graph text ends without graph, inputs or outputs")
	}
	return p.g, nil
}

type parser struct {
	g                *Graph
	blobs            BlobSource
	s                string // the line
	at               int    // position in it
	layouts          []*Layout
	positions        int
	named, ins, outs bool
}

func (p *parser) line() error {
	switch {
	case !p.named:
		if !p.word("graph") {
			return p.want(`graph "name"`)
		}
		p.named = true
		var err error
		if p.g.Name, err = p.quoted(); err != nil {
			return err
		}
	case p.word("layout"):
		if err := p.layout(); err != nil {
			return err
		}
	case p.word("inputs"):
		if p.ins {
			return errors.New("inputs are given twice")
		}
		p.ins = true
		l, err := p.refs()
		if err != nil {
			return err
		}
		p.g.Inputs = l
	case p.word("outputs"):
		if p.outs {
			return errors.New("outputs are given twice")
		}
		p.outs = true
		l, err := p.refs()
		if err != nil {
			return err
		}
		p.g.Outputs = l
	default:
		if p.ins || p.outs {
			return errors.New("value after inputs or outputs")
		}
		if err := p.value(); err != nil {
			return err
		}
	}
	if p.space(); p.at < len(p.s) {
		return p.want("end of line")
	}
	return nil
}

// want says what should stand at the current position.
func (p *parser) want(what string) error {
	got := p.s[p.at:]
	if len(got) > 24 {
		got = got[:24] + "..."
	}
	return fmt.Errorf("column %d: found %q, want %s", p.at+1, got, what)
}

func (p *parser) space() {
	for p.at < len(p.s) && (p.s[p.at] == ' ' || p.s[p.at] == '\t') {
		p.at++
	}
}

// tok consumes a literal token after spaces.
func (p *parser) tok(t string) bool {
	p.space()
	if !strings.HasPrefix(p.s[p.at:], t) {
		return false
	}
	p.at += len(t)
	return true
}

// word consumes a literal that is not part of a longer word.
func (p *parser) word(t string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.s[p.at:], t)
	if !ok || rest != "" && wordByte(rest[0]) {
		return false
	}
	p.at += len(t)
	return true
}

func wordByte(c byte) bool {
	return c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (p *parser) expect(t string) error {
	if !p.tok(t) {
		return p.want(strconv.Quote(t))
	}
	return nil
}

// while consumes the longest run of bytes that satisfy ok, after spaces.
func (p *parser) while(ok func(byte) bool) string {
	p.space()
	from := p.at
	for p.at < len(p.s) && ok(p.s[p.at]) {
		p.at++
	}
	return p.s[from:p.at]
}

func numberByte(c byte) bool { return c == '+' || c == '-' || wordByte(c) }

func (p *parser) int() (int, error) {
	from := p.at
	n, err := strconv.Atoi(p.while(numberByte))
	if err != nil {
		p.at = from
		return 0, p.want("an integer")
	}
	return n, nil
}

func (p *parser) float() (float64, error) {
	from := p.at
	x, err := strconv.ParseFloat(p.while(numberByte), 64)
	if err != nil {
		p.at = from
		return 0, p.want("a number")
	}
	return x, nil
}

func (p *parser) quoted() (string, error) {
	p.space()
	q, err := strconv.QuotedPrefix(p.s[p.at:])
	if err != nil || q[0] != '"' {
		return "", p.want("a quoted string")
	}
	s, err := strconv.Unquote(q)
	if err != nil {
		return "", p.want("a quoted string")
	}
	p.at += len(q)
	return s, nil
}

// list parses open, elements separated by commas, close.
func (p *parser) list(open, end string, elem func() error) error {
	if err := p.expect(open); err != nil {
		return err
	}
	if p.tok(end) {
		return nil
	}
	for {
		if err := elem(); err != nil {
			return err
		}
		if p.tok(end) {
			return nil
		}
		if err := p.expect(","); err != nil {
			return err
		}
	}
}

func (p *parser) ints() ([]int, error) {
	l := []int{}
	err := p.list("[", "]", func() error {
		x, err := p.int()
		l = append(l, x)
		return err
	})
	return l, err
}

func (p *parser) int32s() ([]int32, error) {
	l := []int32{}
	err := p.list("[", "]", func() error {
		from := p.at
		x, err := p.int()
		if err == nil && x != int(int32(x)) {
			p.at = from
			err = p.want("an integer of 32 bits")
		}
		l = append(l, int32(x))
		return err
	})
	return l, err
}

func (p *parser) floats() ([]float64, error) {
	l := []float64{}
	err := p.list("[", "]", func() error {
		x, err := p.float()
		l = append(l, x)
		return err
	})
	return l, err
}

func (p *parser) refs() ([]*Value, error) {
	var l []*Value
	err := p.list("(", ")", func() error {
		if err := p.expect("%"); err != nil {
			return err
		}
		i, err := p.int()
		if err != nil {
			return err
		}
		if i < 0 || i >= len(p.g.Values) {
			return fmt.Errorf("value %%%d is not defined yet", i)
		}
		l = append(l, p.g.Values[i])
		return nil
	})
	return l, err
}

// blob consumes a reference to a blob, if there is one, and fetches it.
func (p *parser) blob() (data []byte, ok bool, err error) {
	if !p.tok("blob:") {
		return nil, false, nil
	}
	sum := p.while(wordByte)
	if p.blobs == nil {
		return nil, true, fmt.Errorf("blob %s: no blobs were given", sum)
	}
	if data, err = p.blobs.GetBlob(sum); err != nil {
		return nil, true, err
	}
	if h := sha256.Sum256(data); hex.EncodeToString(h[:]) != sum {
		return nil, true, fmt.Errorf("blob %s has another checksum", sum)
	}
	return data, true, nil
}

func (p *parser) layout() error {
	if err := p.expect("@"); err != nil {
		return err
	}
	id, err := p.int()
	if err != nil {
		return err
	}
	if id != len(p.layouts) {
		return fmt.Errorf("layout @%d, want @%d", id, len(p.layouts))
	}
	if err := p.expect("="); err != nil {
		return err
	}
	data, ok, err := p.blob()
	if err != nil {
		return err
	}
	text := string(data)
	if !ok {
		p.space()
		text, p.at = p.s[p.at:], len(p.s)
	}
	var slots, cts, lanes int
	if _, err := fmt.Sscanf(text, "slots=%d cts=%d lanes=%d", &slots, &cts, &lanes); err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	room := maxPositions - p.positions
	if slots < 1 || cts < 1 || lanes < 1 || slots/lanes > room/cts {
		return fmt.Errorf("layout of %d ciphertexts of %d slots is too large", cts, slots)
	}
	l, err := ParseLayout(text)
	if err != nil {
		return err
	}
	p.positions += len(l.Map)
	p.layouts = append(p.layouts, l)
	return nil
}

func (p *parser) value() error {
	if err := p.expect("%"); err != nil {
		return err
	}
	id, err := p.int()
	if err != nil {
		return err
	}
	if id != len(p.g.Values) || id >= maxValues {
		return fmt.Errorf("value %%%d, want %%%d", id, len(p.g.Values))
	}
	if err := p.expect("="); err != nil {
		return err
	}
	name := p.while(wordByte)
	op, ok := OpByName(name)
	if !ok {
		return fmt.Errorf("unknown op %q", name)
	}
	v := &Value{Op: op}
	if v.Args, err = p.refs(); err != nil {
		return err
	}
	if err := p.attrs(v); err != nil {
		return err
	}
	if err := p.payloads(v); err != nil {
		return err
	}
	var typ *Type
	if p.tok(":") {
		if typ, err = p.typ(); err != nil {
			return err
		}
		v.Layout = typ.Layout
	}
	if v.Array != nil {
		switch {
		case typ == nil || typ.Kind != TensorKind:
			return errors.New("data without the type of a tensor")
		case CheckDims(typ.Shape) != nil || NumElems(typ.Shape) != len(v.Array.Data):
			return fmt.Errorf("%d elements for shape %v", len(v.Array.Data), typ.Shape)
		}
		v.Array.Shape = slices.Clone(typ.Shape)
	}
	if p.space(); p.at < len(p.s) {
		if v.Name, err = p.quoted(); err != nil {
			return err
		}
	}
	if _, err := p.g.Append(v); err != nil {
		return err
	}
	if typ != nil && !v.Type.Equal(*typ) {
		return fmt.Errorf("value %%%d (%s) has another type than written", id, v.Name)
	}
	return nil
}

func (p *parser) attrs(v *Value) error {
	p.space()
	if p.at == len(p.s) || p.s[p.at] != '{' {
		return nil
	}
	v.Attrs = Attrs{}
	return p.list("{", "}", func() error {
		name := p.while(wordByte)
		specs := v.Op.Info().Attrs
		i := slices.IndexFunc(specs, func(s AttrSpec) bool { return s.Name == name })
		if i < 0 {
			return fmt.Errorf("%s has no attribute %q", v.Op, name)
		}
		if _, ok := v.Attrs[name]; ok {
			return fmt.Errorf("attribute %s is given twice", name)
		}
		if err := p.expect("="); err != nil {
			return err
		}
		var x any
		var err error
		switch specs[i].Kind {
		case AttrInt:
			x, err = p.int()
		case AttrInts:
			x, err = p.ints()
		case AttrFloat:
			x, err = p.float()
		case AttrString:
			x, err = p.quoted()
		}
		v.Attrs[name] = x
		return err
	})
}

func (p *parser) payloads(v *Value) error {
	var err error
	for {
		switch {
		case v.Array == nil && p.tok("data="):
			v.Array = new(Array)
			data, ok, err := p.blob()
			if err != nil {
				return err
			}
			if ok {
				r := &blobReader{b: data}
				v.Array.Data = r.floats(len(data) / 8)
				err = r.done()
			} else {
				v.Array.Data, err = p.floats()
			}
			if err != nil {
				return err
			}
		case v.Approx == nil && p.tok("approx="):
			if v.Approx, err = p.approx(); err != nil {
				return err
			}
		case v.Linear == nil && p.tok("linear="):
			data, ok, err := p.blob()
			if err != nil {
				return err
			}
			if ok {
				v.Linear, err = decodeLinear(data)
			} else {
				v.Linear, err = p.linear()
			}
			if err == nil {
				err = v.Linear.Check()
			}
			if err != nil {
				return err
			}
		case v.Slots == nil && p.tok("values="):
			data, ok, err := p.blob()
			if err != nil {
				return err
			}
			if ok {
				v.Slots, err = decodeSlots(data)
			} else {
				v.Slots, err = p.slots()
			}
			if err == nil {
				err = v.Slots.Check()
			}
			if err != nil {
				return err
			}
		case v.Slots == nil && p.tok("dft="):
			if v.Slots, err = p.dft(); err == nil {
				err = v.Slots.Check()
			}
			if err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// fields parses "(name=value, name=value, ...)" in the given order.
func (p *parser) fields(open string, names []string, values ...func() error) error {
	for i, n := range names {
		sep := ","
		if i == 0 {
			sep = open
		}
		if sep != "" {
			if err := p.expect(sep); err != nil {
				return err
			}
		}
		if err := p.expect(n + "="); err != nil {
			return err
		}
		if err := values[i](); err != nil {
			return err
		}
	}
	return p.expect(")")
}

// into adapts a parsing method to store its result.
func into[T any](dst *T, parse func() (T, error)) func() error {
	return func() (err error) {
		*dst, err = parse()
		return err
	}
}

func (p *parser) approx() (*Approx, error) {
	a := new(Approx)
	if err := p.fields("(", []string{"center", "bound", "err", "coef"},
		into(&a.Center, p.float), into(&a.Bound, p.float), into(&a.Err, p.float), into(&a.Coef, p.floats)); err != nil {
		return nil, err
	}
	for p.tok("inner=") {
		c, err := p.floats()
		if err != nil {
			return nil, err
		}
		a.Inner = append(a.Inner, c)
	}
	if p.tok("channels=") {
		flat, err := p.floats()
		if err != nil {
			return nil, err
		}
		if len(flat) == 0 || len(flat)%3 != 0 {
			return nil, fmt.Errorf("channels of %d numbers, want three for each", len(flat))
		}
		for i := 0; i < len(flat); i += 3 {
			a.Channels = append(a.Channels, Channel{flat[i], flat[i+1], flat[i+2]})
		}
	}
	return a, nil
}

func (p *parser) slots() (*SlotData, error) {
	d := new(SlotData)
	if err := p.expect("("); err != nil {
		return nil, err
	}
	if p.tok("lanes=") {
		n, err := p.int()
		if err != nil {
			return nil, err
		}
		if n < 2 || n&(n-1) != 0 {
			return nil, fmt.Errorf("lanes=%d, want a power of two above one", n)
		}
		d.LogLanes = bits.Len(uint(n)) - 1
		if err := p.expect(","); err != nil {
			return nil, err
		}
	}
	err := p.fields("", []string{"period", "index", "value"},
		into(&d.Period, p.int), into(&d.Index, p.int32s), into(&d.Value, p.floats))
	d.SetImag()
	return d, err
}

func (p *parser) dft() (*SlotData, error) {
	d := &SlotData{DFT: new(Diagonal)}
	inverse := 0
	err := p.fields("(", []string{"points", "inverse", "from", "to", "offset", "shift", "factor"},
		into(&d.Period, p.int), into(&inverse, p.int), into(&d.DFT.From, p.int), into(&d.DFT.To, p.int),
		into(&d.DFT.Offset, p.int), into(&d.DFT.Shift, p.int), into(&d.DFT.Factor, p.float))
	if inverse != 0 && inverse != 1 {
		return nil, fmt.Errorf("inverse=%d, want 0 or 1", inverse)
	}
	d.DFT.Inverse = inverse == 1
	return d, err
}

func (p *parser) linear() (*Linear, error) {
	l := new(Linear)
	err := p.list("(", ")", func() error {
		if l.Bias == nil && p.tok("bias=") {
			var err error
			l.Bias, err = p.floats()
			return err
		}
		if l.Bias != nil || !p.tok("mat(") {
			return p.want("mat(...) or bias=[...]")
		}
		m := new(Sparse)
		l.Mats = append(l.Mats, m)
		dims := p.while(wordByte)
		rows, cols, _ := strings.Cut(dims, "x")
		var err1, err2 error
		m.Rows, err1 = strconv.Atoi(rows)
		m.Cols, err2 = strconv.Atoi(cols)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("matrix of size %q, want ROWSxCOLUMNS", dims)
		}
		return p.fields(",", []string{"ptr", "col", "val"}, into(&m.Ptr, p.int32s), into(&m.Col, p.int32s), into(&m.Val, p.floats))
	})
	return l, err
}

func (p *parser) typ() (*Type, error) {
	t := new(Type)
	name := p.while(wordByte)
	var err error
	switch k := slices.Index(kindNames[:], name); {
	case name == "f" || name == "i" || name == "b":
		t.DType = DType(strings.Index("fib", name))
		if t.Shape, err = p.ints(); err != nil {
			return nil, err
		}
	case k == int(SlotsKind):
		t.Kind = SlotsKind
		if t.Shape, err = p.ints(); err != nil {
			return nil, err
		}
		if err := p.expect("@"); err != nil {
			return nil, err
		}
		i, err := p.int()
		if err != nil {
			return nil, err
		}
		if i < 0 || i >= len(p.layouts) {
			return nil, fmt.Errorf("layout @%d is not defined yet", i)
		}
		t.Layout = p.layouts[i]
	case k > int(SlotsKind):
		t.Kind = Kind(k)
		if err := p.expect("(level="); err != nil {
			return nil, err
		}
		if t.Level, err = p.int(); err != nil {
			return nil, err
		}
		if p.tok(", complex") {
			t.Complex = true
		} else if p.tok(",") {
			if err := p.expect("scale="); err != nil {
				return nil, err
			}
			text := p.while(func(c byte) bool { return wordByte(c) || strings.IndexByte("^*-", c) >= 0 })
			if t.Scale, err = ParseScale(text); err != nil {
				return nil, err
			}
			t.Complex = p.tok(", complex")
		}
		if err := p.expect(")"); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("unknown type %q", name)
	}
	t.Encrypted = p.word("enc")
	return t, nil
}

// ParseString is Parse of a text without blobs, the usual form in tests.
func ParseString(text string) (*Graph, error) {
	return Parse(bytes.NewReader([]byte(text)), nil)
}
