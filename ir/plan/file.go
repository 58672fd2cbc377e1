package plan

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/home-fhe/home/ir"
)

// Format versions written by this build. A change of format takes the next
// number, a line in CHANGELOG.md and a fixture of the old one.
//
// Version 2 has plaintexts that are generated, and evaluation keys for
// bootstrapping. Version 3 plans tiers slab by slab; the tier plans of older files
// are ignored, and made again by whoever runs them. Version 4 has steps that add up
// several products, and that add to a ciphertext in place. Version 5 has tier plans in
// which steps make parts of keys themselves. Version 6 has steps that rescale what they
// compute.
const (
	PlanVersion   = 6
	ClientVersion = 2
)

// Magic numbers of the files.
const (
	PlanMagic   = "HOMEPLAN" // .hplan: server
	ClientMagic = "HOMECLNT" // .hclient: client, no weights
)

// meta is the part of a plan that is small: everything but network, objects,
// steps, plaintexts and the tier plan.
type meta struct {
	Model         string      `cbor:"model"`
	ModelDigest   string      `cbor:"model_digest"`
	ProfileDigest string      `cbor:"profile_digest"`
	Warnings      []string    `cbor:"warnings"`
	Notes         []string    `cbor:"notes"`
	Params        ir.Params   `cbor:"params"`
	Batch         int         `cbor:"batch"`
	Depth         int         `cbor:"depth"`
	Inputs        []Port      `cbor:"inputs"`
	Outputs       []Port      `cbor:"outputs"`
	ClientOps     []ClientOp  `cbor:"client_ops"`
	Preprocess    *Preprocess `cbor:"preprocess"`
	Layers        []Layer     `cbor:"layers"`
	Counts        Counts      `cbor:"counts"`
	Bytes         Bytes       `cbor:"bytes"`
	Predicted     Predicted   `cbor:"predicted"`
	OutputBits    float64     `cbor:"output_bits"`
	Blobs         []string    `cbor:"blobs"` // names of the network's constants, in file order
}

// Client is what the client needs: parameters, where its numbers go, and which
// keys to make. It holds no weights.
type Client struct {
	Model      string      `cbor:"model"`
	Plan       string      `cbor:"plan"` // fingerprint of the plan
	Params     ir.Params   `cbor:"params"`
	Batch      int         `cbor:"batch"`
	Inputs     []Port      `cbor:"inputs"`
	Outputs    []Port      `cbor:"outputs"`
	ClientOps  []ClientOp  `cbor:"client_ops"`
	Preprocess *Preprocess `cbor:"preprocess"`
	Keys       []KeyNeed   `cbor:"keys"`
	Bits       float64     `cbor:"bits"`        // predicted precision relative to the largest output
	OutputBits float64     `cbor:"output_bits"` // predicted absolute precision of the outputs
	Warnings   []string    `cbor:"warnings"`
}

// KeyNeed is one evaluation key a plan uses: slots rotated to the left, or
// ir.KeyRelin and the like, and the highest level of its uses.
type KeyNeed struct {
	Rot   int `cbor:"rot"`
	Level int `cbor:"level"`
}

// Keys lists the evaluation keys of a plan: those of bootstrapping,
// relinearisation, then by rotation.
func (p *Plan) Keys() []KeyNeed {
	var k []KeyNeed
	for _, o := range p.Objects {
		if o.Role == RoleKey {
			k = append(k, KeyNeed{o.Rot, o.Type.Level})
		}
	}
	slices.SortFunc(k, func(a, b KeyNeed) int { return cmp.Or(cmp.Compare(a.Rot, b.Rot), cmp.Compare(a.Level, b.Level)) })
	return k
}

// check verifies that a key can exist under the parameters.
func (k KeyNeed) check(p *ir.Params) error {
	switch {
	case k.Level < 0 || k.Level > p.MaxLevel() || k.Rot < ir.KeySparse || k.Rot >= p.Slots():
		return fmt.Errorf("%s at level %d", ir.KeyName(k.Rot), k.Level)
	case k.Rot == ir.KeySparse && k.Level != 0:
		return fmt.Errorf("%s at level %d, where it would give the secret away", ir.KeyName(k.Rot), k.Level)
	case k.Rot < 0 && p.Ring != ir.RingStandard:
		return fmt.Errorf("%s in the %s ring", ir.KeyName(k.Rot), p.Ring)
	}
	return nil
}

// Client returns the client's part of the plan.
func (p *Plan) Client() (*Client, error) {
	f, err := p.Fingerprint()
	if err != nil {
		return nil, err
	}
	return &Client{Model: p.Model, Plan: f, Params: p.Params, Batch: p.Batch, Inputs: p.Inputs, Outputs: p.Outputs,
		ClientOps: p.ClientOps, Preprocess: p.Preprocess, Keys: p.Keys(), Bits: p.Predicted.Bits, OutputBits: p.OutputBits, Warnings: p.Warnings}, nil
}

// section is one named part of an encoded plan.
type section struct {
	name string
	data []byte
}

// encode returns the sections of the plan, the tier plan last.
func (p *Plan) encode() ([]section, error) {
	m := meta{Model: p.Model, ModelDigest: p.ModelDigest, ProfileDigest: p.ProfileDigest, Warnings: p.Warnings, Notes: p.Notes,
		Params: p.Params, Batch: p.Batch, Depth: p.Depth, Inputs: p.Inputs, Outputs: p.Outputs, ClientOps: p.ClientOps,
		Preprocess: p.Preprocess, Layers: p.Layers, Counts: p.Counts, Bytes: p.Bytes, Predicted: p.Predicted, OutputBits: p.OutputBits}
	blobs := ir.Blobs{}
	var text bytes.Buffer
	if err := ir.Print(&text, p.Network, blobs); err != nil {
		return nil, err
	}
	var constants []byte
	for name := range blobs {
		m.Blobs = append(m.Blobs, name)
	}
	slices.Sort(m.Blobs)
	for _, name := range m.Blobs {
		constants = binary.LittleEndian.AppendUint64(constants, uint64(len(blobs[name])))
		constants = append(constants, blobs[name]...)
	}
	var out []section
	put := func(name string, raw []byte, err error) error {
		if err == nil {
			out = append(out, section{name, compress(raw)})
		}
		return err
	}
	obj := func(name string, v any) error {
		b, err := Marshal(v)
		return put(name, b, err)
	}
	if err := errors.Join(obj("meta", m), put("network", text.Bytes(), nil), put("constants", constants, nil),
		obj("objects", p.Objects), obj("steps", p.Steps), put("plaintexts", encodePlains(p.Plains), nil), obj("tier", p.Tier)); err != nil {
		return nil, err
	}
	return out, nil
}

// Fingerprint identifies the program: the SHA-256 of all sections but the tier
// plan, which may be made again for another budget without changing results.
func (p *Plan) Fingerprint() (string, error) {
	if p.print == "" {
		s, err := p.encode()
		if err != nil {
			return "", err
		}
		p.print = fingerprint(s)
	}
	return p.print, nil
}

func fingerprint(s []section) string {
	h := sha256.New()
	for _, x := range s {
		hashSection(h, x)
	}
	return printOf(h)
}

func hashSection(h hash.Hash, x section) {
	if x.name != "tier" {
		fmt.Fprintf(h, "%s %d\n", x.name, len(x.data))
		h.Write(x.data)
	}
}

func printOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:16]) }

// Save writes the plan as .hplan. Equal plans give equal bytes.
func (p *Plan) Save(path string) error {
	s, err := p.encode()
	if err != nil {
		return err
	}
	if p.print == "" {
		p.print = fingerprint(s)
	}
	return WriteFile(path, Options{Magic: PlanMagic, Version: PlanVersion, Insecure: p.Params.Insecure}, func(w *Writer) error {
		for _, x := range s {
			if err := w.Section(x.name, x.data); err != nil {
				return err
			}
		}
		return nil
	})
}

// Load reads and verifies a plan.
func Load(path string) (*Plan, error) {
	r, err := OpenFile(path, PlanMagic, PlanVersion)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := decodePlan(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func decodePlan(r *Reader) (*Plan, error) {
	raw := func(name string) ([]byte, error) {
		b, err := r.Section(name)
		if err != nil {
			return nil, err
		}
		return decompress(b)
	}
	obj := func(name string, v any) error {
		b, err := raw(name)
		if err != nil {
			return err
		}
		if err := Unmarshal(b, v); err != nil {
			return fmt.Errorf("section %q: %w", name, err)
		}
		return nil
	}
	var m meta
	p := new(Plan)
	if err := errors.Join(obj("meta", &m), obj("objects", &p.Objects), obj("steps", &p.Steps)); err != nil {
		return nil, err
	}
	if r.Version >= 3 {
		if err := obj("tier", &p.Tier); err != nil {
			return nil, err
		}
	}
	p.Model, p.ModelDigest, p.ProfileDigest, p.Warnings, p.Notes = m.Model, m.ModelDigest, m.ProfileDigest, m.Warnings, m.Notes
	p.Params, p.Batch, p.Depth, p.Inputs, p.Outputs, p.ClientOps = m.Params, m.Batch, m.Depth, m.Inputs, m.Outputs, m.ClientOps
	p.Preprocess, p.Layers, p.Counts, p.Bytes, p.Predicted, p.OutputBits = m.Preprocess, m.Layers, m.Counts, m.Bytes, m.Predicted, m.OutputBits
	constants, err := raw("constants")
	if err != nil {
		return nil, err
	}
	blobs := ir.Blobs{}
	for _, name := range m.Blobs {
		if len(constants) < 8 {
			return nil, fmt.Errorf("%w: constants are cut", ErrCorrupt)
		}
		n := binary.LittleEndian.Uint64(constants)
		constants = constants[8:]
		if n > uint64(len(constants)) {
			return nil, fmt.Errorf("%w: constants are cut", ErrCorrupt)
		}
		blobs[name], constants = constants[:n], constants[n:]
	}
	if len(constants) > 0 {
		return nil, fmt.Errorf("%w: constants of no name", ErrCorrupt)
	}
	text, err := raw("network")
	if err != nil {
		return nil, err
	}
	if p.Network, err = ir.Parse(bytes.NewReader(text), blobs); err != nil {
		return nil, fmt.Errorf("%w: network: %v", ErrCorrupt, err)
	}
	plains, err := raw("plaintexts")
	if err != nil {
		return nil, err
	}
	if p.Plains, err = decodePlains(plains, r.Version); err != nil {
		return nil, err
	}
	if r.Insecure != p.Params.Insecure {
		return nil, fmt.Errorf("%w: the stamp for insecure parameters disagrees with the parameters", ErrCorrupt)
	}
	h := sha256.New()
	for _, name := range r.Names() { // one at a time: they are large
		b, err := r.Section(name)
		if err != nil {
			return nil, err
		}
		hashSection(h, section{name, b})
	}
	p.print = printOf(h)
	return p, p.Verify()
}

// SaveClient writes the client's part as .hclient.
func (c *Client) Save(path string) error {
	return WriteFile(path, Options{Magic: ClientMagic, Version: ClientVersion, Insecure: c.Params.Insecure}, func(w *Writer) error {
		b, err := Marshal(c)
		if err != nil {
			return err
		}
		return w.Section("client", compress(b))
	})
}

// LoadClient reads a .hclient. It does not judge security: whoever makes keys or
// encrypts calls Params.CheckSecurity.
func LoadClient(path string) (*Client, error) {
	r, err := OpenFile(path, ClientMagic, ClientVersion)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := r.Section("client")
	if err == nil {
		b, err = decompress(b)
	}
	if err != nil {
		return nil, err
	}
	c := new(Client)
	if err := Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Insecure != c.Params.Insecure {
		return nil, fmt.Errorf("%s: %w: the stamp for insecure parameters disagrees with the parameters", path, ErrCorrupt)
	}
	if err := c.verify(); err != nil {
		return nil, fmt.Errorf("%s: %w: %v", path, ErrCorrupt, err)
	}
	return c, nil
}

// CheckSecurity recomputes from the primes, the secret and the keys that are
// asked for whether 128 bits are reached. It never looks at the stamp.
func (c *Client) CheckSecurity() error { return checkSecurity(&c.Params, c.Keys) }

// CheckSecurity is that of the plan's client.
func (p *Plan) CheckSecurity() error { return checkSecurity(&p.Params, p.Keys()) }

func checkSecurity(p *ir.Params, keys []KeyNeed) error {
	err := p.CheckSecurity()
	if err == nil && slices.ContainsFunc(keys, func(k KeyNeed) bool { return k.Rot == ir.KeySparse || k.Rot == ir.KeyDense }) {
		err = p.CheckBootstrap()
	}
	return err
}

func (c *Client) verify() error {
	if err := c.Params.Check(); err != nil {
		return err
	}
	for _, k := range c.Keys {
		if err := k.check(&c.Params); err != nil {
			return err
		}
	}
	if c.Plan == "" {
		return errors.New("it names no plan")
	}
	for _, b := range []float64{c.Bits, c.OutputBits} {
		if math.IsNaN(b) || math.IsInf(b, 0) {
			return fmt.Errorf("a precision of %v bits", b)
		}
	}
	return errors.Join(verifyPorts(&c.Params, c.Inputs), verifyPorts(&c.Params, c.Outputs), verifyClientOps(c.ClientOps, c.Outputs))
}

// A section may unpack to rawBase bytes and rawRatio times its own length, and
// never to more than rawMost: a short file cannot make its reader allocate much.
// Plans in use unpack to less than fifty times their length.
const (
	rawBase  = 1 << 20
	rawRatio = 1 << 10
	rawMost  = 4 << 30
)

func rawLimit(packed int) uint64 {
	return min(rawMost, rawBase+rawRatio*uint64(packed))
}

// compress packs a section. One that packs better than rawRatio is made longer
// by a frame that readers skip (RFC 8878, section 3.1.2).
func compress(raw []byte) []byte {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	defer e.Close()
	b := e.EncodeAll(raw, nil)
	if most := rawLimit(len(b)); uint64(len(raw)) > most {
		pad := (uint64(len(raw)) - most + rawRatio - 1) / rawRatio
		b = binary.LittleEndian.AppendUint32(b, 0x184D2A50)
		b = binary.LittleEndian.AppendUint32(b, uint32(pad))
		b = append(b, make([]byte, pad)...)
	}
	return b
}

func decompress(b []byte) ([]byte, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(rawLimit(len(b))))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	defer d.Close()
	raw, err := d.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return raw, nil
}

// encodePlains writes slot vectors: a table of distinct values in the order in
// which they are first seen, then for each vector its period, one more than the
// logarithm of its lanes, the number of its entries, and the entries as gaps and
// value numbers; or its period, a zero and what generates it. Convolutions repeat
// few values at regular gaps, which the compression of the section then removes.
func encodePlains(plains []ir.SlotData) []byte {
	entries := 0
	for i := range plains {
		entries += plains[i].Len()
	}
	t := newValueTable()
	body := binary.AppendUvarint(make([]byte, 0, 4*entries+64*len(plains)), uint64(len(plains)))
	for i := range plains {
		d := &plains[i]
		body = binary.AppendUvarint(body, uint64(d.Period))
		if g := d.DFT; g != nil {
			inverse := uint64(0)
			if g.Inverse {
				inverse = 1
			}
			for _, x := range []uint64{0, inverse, uint64(g.From), uint64(g.To), uint64(g.Offset), uint64(g.Shift)} {
				body = binary.AppendUvarint(body, x)
			}
			body = binary.LittleEndian.AppendUint64(body, math.Float64bits(g.Factor))
			continue
		}
		body = binary.AppendUvarint(body, uint64(d.LogLanes)+1)
		body = binary.AppendUvarint(body, uint64(d.Len()))
		prev := int32(-1)
		for s, v := range d.Entries() {
			body = binary.AppendUvarint(body, uint64(s-prev-1))
			body = binary.AppendUvarint(body, uint64(t.number(math.Float64bits(v))))
			prev = s
		}
	}
	out := binary.AppendUvarint(make([]byte, 0, len(body)+8*len(t.values)+8), uint64(len(t.values)))
	for _, v := range t.values {
		out = binary.LittleEndian.AppendUint64(out, v)
	}
	return append(out, body...)
}

// valueTable numbers distinct words in the order in which they are first seen:
// a plan holds tens of millions of entries, and few different ones.
type valueTable struct {
	values []uint64
	slot   []uint32 // open addressing: number + 1, or 0
	last   uint32   // entries often repeat
}

func newValueTable() *valueTable { return &valueTable{slot: make([]uint32, 1<<10)} }

func (t *valueTable) number(v uint64) uint32 {
	if len(t.values) > 0 && t.values[t.last] == v {
		return t.last
	}
	if 2*len(t.values) >= len(t.slot) {
		t.slot = make([]uint32, 4*len(t.slot))
		for i, w := range t.values {
			t.slot[t.find(w)] = uint32(i) + 1
		}
	}
	at := t.find(v)
	if t.slot[at] == 0 {
		t.values = append(t.values, v)
		t.slot[at] = uint32(len(t.values))
	}
	t.last = t.slot[at] - 1
	return t.last
}

// find returns where v is, or would be.
func (t *valueTable) find(v uint64) uint64 {
	mask := uint64(len(t.slot) - 1)
	h := v * 0x9e3779b97f4a7c15
	at := (h ^ h>>29) & mask
	for t.slot[at] != 0 && t.values[t.slot[at]-1] != v {
		at = (at + 1) & mask
	}
	return at
}

// decodePlains reads what encodePlains of the given format version wrote. In
// version 1 there are no lanes, and nothing is generated.
func decodePlains(b []byte, version uint32) ([]ir.SlotData, error) {
	bad := func() ([]ir.SlotData, error) {
		return nil, fmt.Errorf("%w: plaintexts are cut or out of range", ErrCorrupt)
	}
	broken := false
	next := func() uint64 {
		if len(b) > 0 && b[0] < 0x80 {
			x := b[0]
			b = b[1:]
			return uint64(x)
		}
		x, n := binary.Uvarint(b)
		if n <= 0 {
			broken, b = true, nil
			return 0
		}
		b = b[n:]
		return x
	}
	float := func() float64 {
		if len(b) < 8 {
			broken, b = true, nil
			return 0
		}
		x := math.Float64frombits(binary.LittleEndian.Uint64(b))
		b = b[8:]
		broken = broken || math.IsNaN(x) || math.IsInf(x, 0)
		return x
	}
	n := next()
	if broken || n > uint64(len(b))/8 {
		return bad()
	}
	values := make([]float64, n)
	for i := range values {
		values[i] = float()
	}
	count := next()
	if broken || count > uint64(len(b)) {
		return bad()
	}
	out := make([]ir.SlotData, count)
	for i := range out {
		period, lanes := next(), uint64(1)
		if version > 1 {
			lanes = next()
		}
		if broken || period == 0 || period > 1<<17 || lanes > 18 {
			return bad()
		}
		if lanes == 0 {
			inverse, from, to, offset, shift := next(), next(), next(), next(), next()
			g := ir.Diagonal{Inverse: inverse == 1, From: int(from), To: int(to), Offset: int(offset), Shift: int(shift), Factor: float()}
			if broken || inverse > 1 || max(from, to, offset, shift) > 1<<17 {
				return bad()
			}
			out[i] = ir.SlotData{Period: int(period), DFT: &g}
			continue
		}
		entries := next()
		if entries > 2*period || entries > uint64(len(b)) {
			return bad()
		}
		d := ir.SlotData{Period: int(period), LogLanes: int(lanes - 1), Index: make([]int32, entries), Value: make([]float64, entries)}
		at := uint64(0)
		for k := range d.Index {
			gap, v := next(), next()
			if broken || gap >= 2*period || v >= n || at+gap >= 2*period {
				return bad()
			}
			at += gap
			d.Index[k], d.Value[k] = int32(at), values[v]
			at++
		}
		d.SetImag()
		d.Pack()
		out[i] = d
	}
	if broken || len(b) != 0 {
		return bad()
	}
	return out, nil
}

// Verify checks the plan completely: parameters well formed, every operand
// exists and is made before it is read, and every step's result has exactly the
// type that the op table infers from its arguments. A plan that passes cannot
// make the executor read what is not there, whatever bytes it came from.
func (p *Plan) Verify() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if err := p.Params.Check(); err != nil {
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	made := make([]bool, len(p.Objects))
	values := make([]*ir.Value, len(p.Objects))
	for i, o := range p.Objects {
		if o.Type.Level < 0 || o.Type.Level > p.Params.MaxLevel() || o.Type.Kind.Vocab() != ir.Scheme || o.Type.Kind > ir.SparseKeyKind || o.Type.Scale.Check(len(p.Params.Q)) != nil {
			return bad("object %d has type %v", i, o.Type)
		}
		if o.Layer < -1 || int(o.Layer) >= len(p.Layers) {
			return bad("object %d belongs to layer %d of %d", i, o.Layer, len(p.Layers))
		}
		if o.Type.Complex && p.Params.Ring != ir.RingStandard {
			return bad("object %d has complex slots in the %s ring", i, p.Params.Ring)
		}
		values[i] = &ir.Value{Type: o.Type}
		switch o.Role {
		case RoleInput:
			made[i] = o.Type.Kind == ir.CipherKind
		case RoleKey:
			want := ir.KeyKind
			if o.Rot == ir.KeySparse {
				want = ir.SparseKeyKind
			}
			if err := (KeyNeed{o.Rot, o.Type.Level}).check(&p.Params); err != nil {
				return bad("object %d is a %v", i, err)
			}
			made[i] = o.Type.Kind == want
			values[i].Op, values[i].Attrs = ir.OpHEKey, ir.Attrs{"rot": o.Rot, "level": o.Type.Level}
		case RolePlain:
			made[i] = (o.Type.Kind == ir.PlainKind || o.Type.Kind == ir.PlainQPKind) && o.Plain >= 0 && int(o.Plain) < len(p.Plains) &&
				o.Type.Complex == p.Plains[o.Plain].Complex()
		case RoleTemp, RoleOutput:
			continue
		}
		if !made[i] {
			return bad("object %d does not fit its role", i)
		}
	}
	for i, d := range p.Plains {
		if err := d.Check(); err != nil {
			return bad("plaintext %d: %v", i, err)
		}
		if p.Params.Slots()%d.Period != 0 {
			return bad("plaintext %d has period %d in %d slots", i, d.Period, p.Params.Slots())
		}
		for _, x := range d.Entries() {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return bad("plaintext %d holds %v", i, x)
			}
		}
	}
	for i, s := range p.Steps {
		if err := p.verifyStep(i, s, made, values); err != nil {
			return err
		}
		made[s.Out] = true
	}
	for i, o := range p.Objects {
		if o.Role == RoleOutput && !made[i] {
			return bad("output object %d is never made", i)
		}
	}
	for side, ports := range [][]Port{p.Inputs, p.Outputs} {
		if err := verifyPorts(&p.Params, ports); err != nil {
			return fmt.Errorf("%w: %v", ErrCorrupt, err)
		}
		for _, port := range ports {
			for _, id := range port.Objects {
				if id < 0 || int(id) >= len(p.Objects) || p.Objects[id].Type.Level != port.Level || !p.Objects[id].Type.Scale.Equal(port.Scale) {
					return bad("port %q names object %d", port.Name, id)
				}
				if role := p.Objects[id].Role; role != []Role{RoleInput, RoleOutput}[side] {
					return bad("port %q names object %d, whose role is another", port.Name, id)
				}
			}
		}
	}
	if err := verifyClientOps(p.ClientOps, p.Outputs); err != nil {
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	if t := p.Tier; t != nil {
		if err := t.Forms.Check(); err != nil {
			return bad("%v", err)
		}
		for i, a := range t.Actions {
			if a.Obj < 0 || int(a.Obj) >= len(p.Objects) || a.Step < 0 || int(a.Step) > len(p.Steps) || a.Kind >= numActions ||
				a.First < 0 || a.Count <= 0 || int(a.First)+int(a.Count) > p.Slabs(a.Obj)+1 {
				return bad("action %d of the tier plan: %+v", i, a)
			}
		}
	}
	return nil
}

func (p *Plan) verifyStep(i int, s Step, made []bool, values []*ir.Value) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: step %d (%s): %s", ErrCorrupt, i, s.Op, fmt.Sprintf(format, args...))
	}
	if !s.Op.Steps() {
		return fmt.Errorf("%w: step %d has op %d", ErrCorrupt, i, s.Op)
	}
	info := s.Op.Info()
	if len(s.Args) < info.MinArgs || len(s.Args) > info.MaxArgs {
		return bad("%d arguments", len(s.Args))
	}
	if err := s.Scale.Check(len(p.Params.Q)); err != nil {
		return bad("%v", err)
	}
	if s.Out < 0 || int(s.Out) >= len(p.Objects) || s.Layer < 0 || int(s.Layer) >= len(p.Layers) {
		return bad("object %d, layer %d", s.Out, s.Layer)
	}
	v := &ir.Value{Op: s.Op, Attrs: ir.Attrs{}}
	for _, a := range s.Args {
		if a < 0 || int(a) >= len(p.Objects) || !made[a] {
			return bad("reads object %d before it is made", a)
		}
		v.Args = append(v.Args, values[a])
	}
	out := p.Objects[s.Out]
	if out.Role != RoleTemp && out.Role != RoleOutput {
		return bad("writes object %d, which is read-only", s.Out)
	}
	if made[s.Out] && s.Out != s.Args[0] {
		return bad("writes object %d again", s.Out)
	}
	for k, a := range s.Args {
		if a == s.Out && (k > 0 || !InPlace(s.Op)) {
			return bad("reads its result")
		}
	}
	rotates, doubles := false, false
	for _, a := range info.Attrs {
		switch a.Name {
		case "level":
			v.Attrs["level"] = out.Type.Level
		case "rot":
			rotates = true
			if s.Rot < 0 || s.Rot >= p.Params.Slots() {
				return bad("rotates by %d", s.Rot)
			}
			v.Attrs["rot"] = s.Rot
		case "scale":
			v.Attrs["scale"] = s.Scale.String()
		case "c":
			if math.IsNaN(s.Const) || math.IsInf(s.Const, 0) {
				return bad("constant %v", s.Const)
			}
			v.Attrs["c"] = s.Const
		case "twice":
			doubles = true
			if s.Twice {
				v.Attrs["twice"] = 1
			}
		}
	}
	if !rotates && s.Rot != 0 {
		return bad("has a rotation by %d", s.Rot)
	}
	if !doubles && s.Twice {
		return bad("doubles no product")
	}
	t, err := info.Infer(v)
	if err != nil {
		return bad("%v", err)
	}
	if !t.Equal(out.Type) {
		return bad("result of type %v, object %d is %v", t, s.Out, out.Type)
	}
	return nil
}

// inPlaceOps may write their first argument.
var inPlaceOps = []ir.Op{ir.OpHEAdd, ir.OpHEAddQP, ir.OpHEAddPlain, ir.OpHEAddConst, ir.OpHEMacConst, ir.OpHEMacQP, ir.OpHEMacPlain}

// InPlace reports whether steps of an op may write their first argument.
func InPlace(op ir.Op) bool { return slices.Contains(inPlaceOps, op) }

func verifyPorts(par *ir.Params, ports []Port) error {
	if len(ports) == 0 {
		return errors.New("no inputs or no outputs")
	}
	for _, port := range ports {
		n, ok := elements(port.Shape)
		if !ok {
			return fmt.Errorf("port %q has shape %v", port.Name, port.Shape)
		}
		switch {
		case port.Layout == nil:
			return fmt.Errorf("port %q has no layout", port.Name)
		case port.Layout.Slots != par.Slots():
			return fmt.Errorf("port %q has %d slots, the parameters %d", port.Name, port.Layout.Slots, par.Slots())
		case len(port.Objects) != port.Layout.Cts:
			return fmt.Errorf("port %q names %d ciphertexts of %d", port.Name, len(port.Objects), port.Layout.Cts)
		case port.Level < 0 || port.Level > par.MaxLevel():
			return fmt.Errorf("port %q is at level %d", port.Name, port.Level)
		}
		if err := port.Scale.Check(len(par.Q)); err != nil {
			return fmt.Errorf("port %q: %w", port.Name, err)
		}
		if err := port.Layout.Check(n); err != nil {
			return fmt.Errorf("port %q: %w", port.Name, err)
		}
		for _, v := range [][]float64{port.Center, port.Norm} {
			if len(v) > 1 && len(v) != n {
				return fmt.Errorf("port %q normalises %d of %d elements", port.Name, len(v), n)
			}
			for _, x := range v {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					return fmt.Errorf("port %q normalises by %v", port.Name, x)
				}
			}
		}
		if slices.Contains(port.Norm, 0) {
			return fmt.Errorf("port %q normalises by zero", port.Name)
		}
		if !(port.Limit >= 0) {
			return fmt.Errorf("port %q has a limit of %v", port.Name, port.Limit)
		}
	}
	return nil
}

// elements returns the number of elements of a shape read from a file, and false
// where a dimension is not positive or there are more than 2^31.
func elements(shape []int) (int, bool) {
	n := 1
	for _, d := range shape {
		if d <= 0 || n > 1<<31/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// verifyClientOps verifies that the operators of the client are known, that the
// first takes the elements of the one output, and that each takes what the one
// before it gives.
func verifyClientOps(ops []ClientOp, outputs []Port) error {
	if len(ops) > 0 && len(outputs) != 1 {
		return fmt.Errorf("client operators for %d outputs", len(outputs))
	}
	var have []int
	for i, o := range ops {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("client operator %q (%q): %s", o.Node, o.Op, fmt.Sprintf(format, args...))
		}
		n, ok := elements(o.Input)
		if i == 0 {
			want, _ := elements(outputs[0].Shape)
			ok = ok && n == want
		} else {
			ok = ok && slices.Equal(o.Input, have)
		}
		if !ok || o.Axis < 0 || o.Axis >= max(1, len(o.Input)) {
			return bad("axis %d of shape %v", o.Axis, o.Input)
		}
		have = slices.Clone(o.Input)
		switch {
		case o.Op == "Softmax" || o.Op == "LogSoftmax":
		case o.Op != "ArgMax":
			return bad("not known to this build")
		case len(have) == 0:
		case o.Keep:
			have[o.Axis] = 1
		default:
			have = slices.Delete(have, o.Axis, o.Axis+1)
		}
		if !slices.Equal(o.Shape, have) {
			return bad("a result of shape %v, not %v", o.Shape, have)
		}
	}
	return nil
}

// ClientPath returns the name of the .hclient that belongs to a .hplan.
func ClientPath(planPath string) string {
	return strings.TrimSuffix(planPath, ".hplan") + ".hclient"
}
