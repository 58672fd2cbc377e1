package plan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"

	"github.com/home-fhe/home/ir"
)

// smallPlan is a complete plan by hand: (rot(x,3)*w + x^2 part) on tiny
// parameters, with an update in place and every role of object.
func smallPlan(t testing.TB) *Plan {
	t.Helper()
	par, err := ir.NewParams("tiny", 4, ir.RingReal, ir.SecretTernary, []int{50, 40, 40}, []int{51}, 40)
	if err != nil {
		t.Fatal(err)
	}
	par.Insecure = true
	g, err := ir.ParseString(`graph "small"
%0 = tensor.input() {shape=[1,16]} "x"
%1 = tensor.mul(%0, %0) "square"
inputs(%0)
outputs(%1)
`)
	if err != nil {
		t.Fatal(err)
	}
	w := ir.NewArray(5, 16) // long enough to be kept outside the text
	for i := range w.Data {
		w.Data[i] = float64(i) / 8
	}
	c, err1 := g.Const("w", w, ir.Real)
	m, err2 := g.Add(ir.OpMul, "scale", nil, g.Outputs[0], c)
	s, err3 := g.Add(ir.OpReduceSum, "sum", ir.Attrs{"axes": []int{0}}, m)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	g.Outputs[0] = s
	d, q := ir.ScaleTwo(40), ir.ScalePrime(2)
	ct := func(level int, s ir.Scale) ir.Type {
		return ir.Type{Kind: ir.CipherKind, Encrypted: true, Level: level, Scale: s}
	}
	key := ir.Type{Kind: ir.KeyKind, Level: 2}
	l := ir.NewLayout(16, 1, 1)
	for i := range l.Map {
		l.Map[i] = int32(i)
	}
	return &Plan{
		Model: "small", ModelDigest: "00", ProfileDigest: "01", Warnings: []string{"a warning"}, Notes: []string{"a note"},
		Params: *par, Batch: 1, Depth: 1, Network: g,
		Inputs:    []Port{{Name: "x", Shape: []int{1, 16}, Layout: l, Objects: []ObjectID{0}, Level: 2, Scale: d, Norm: []float64{2}, Limit: 4}},
		Outputs:   []Port{{Name: "y", Shape: []int{1, 16}, Layout: l, Objects: []ObjectID{7}, Level: 1, Scale: d, Norm: []float64{0.5}}},
		ClientOps: []ClientOp{{Op: "Softmax", Node: "soft", Axis: 1, Shape: []int{1, 16}, Input: []int{1, 16}}},
		Layers:    []Layer{{Name: "scale", Kind: "linear", Shape: []int{1, 16}}},
		Objects: []Object{
			0: {Role: RoleInput, Type: ct(2, d), Layer: -1},
			1: {Role: RoleKey, Type: key, Rot: 3, Layer: -1},
			2: {Role: RoleKey, Type: key, Layer: -1},
			3: {Role: RolePlain, Type: ir.Type{Kind: ir.PlainKind, Level: 2, Scale: q}, Layer: 0},
			4: {Role: RoleTemp, Type: ct(2, d)},
			5: {Role: RoleTemp, Type: ct(2, d.Mul(q))},
			6: {Role: RoleTemp, Type: ct(2, d.Mul(d))},
			7: {Role: RoleOutput, Type: ct(1, d)},
		},
		Steps: []Step{
			{Op: ir.OpHERotate, Args: []ObjectID{0, 1}, Out: 4, Rot: 3},
			{Op: ir.OpHEMulPlain, Args: []ObjectID{4, 3}, Out: 5},
			{Op: ir.OpHEMacConst, Args: []ObjectID{5, 0}, Out: 5, Const: 0.25, Scale: q},
			{Op: ir.OpHEMul, Args: []ObjectID{4, 4, 2}, Out: 6},
			{Op: ir.OpHERescale, Args: []ObjectID{5}, Out: 7},
		},
		Plains:     []ir.SlotData{{Period: 16, Index: []int32{0, 5, 15}, Value: []float64{0.5, -2, 0.5}}},
		Counts:     Counts{Rotations: 1, KeySwitches: 2, GaloisKeys: 1, CtMults: 1, Diagonals: 1},
		OutputBits: 20,
		Tier:       &Tier{Budget: 1 << 30, ArenaSlabs: 99, Profile: "01", Actions: []Action{{0, ActFetch, 0, 0, 2}, {5, ActDrop, 4, 0, 1}}},
	}
}

func saved(t testing.TB, p *Plan) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.hplan")
	if err := p.Save(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// loadBytes is Load for a file in memory.
func loadBytes(b []byte) (*Plan, error) {
	r, err := NewReader("test", bytes.NewReader(b), int64(len(b)), PlanMagic, PlanVersion)
	if err != nil {
		return nil, err
	}
	return decodePlan(r)
}

var samePlan = cmp.Options{cmpopts.IgnoreUnexported(Plan{}), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b *ir.Graph) bool { return a.String() == b.String() })}

func TestSaveLoad(t *testing.T) {
	p := smallPlan(t)
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	b := saved(t, p)
	q, err := loadBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p, q, samePlan); d != "" {
		t.Errorf("loaded plan (-want +got):\n%s", d)
	}
	if !bytes.Equal(b, saved(t, q)) {
		t.Error("saved again, other bytes")
	}
	print := func(p *Plan) string {
		f, err := p.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if print(p) != print(q) {
		t.Errorf("fingerprints %s and %s", print(p), print(q))
	}
	other := smallPlan(t)
	other.Tier.ArenaSlabs++
	if print(other) != print(p) {
		t.Error("the fingerprint depends on the tier plan")
	}
	other = smallPlan(t)
	other.Plains[0].Value[1] = -2.0000001
	if print(other) == print(p) {
		t.Error("the fingerprint does not depend on the weights")
	}
}

// TestPlains round-trips slot vectors of all shapes.
func TestPlains(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var plains []ir.SlotData
		for range r.IntN(5) {
			d := ir.SlotData{Period: 1 << r.IntN(8), Index: []int32{}, Value: []float64{}}
			if r.IntN(4) == 0 {
				d.DFT = &ir.Diagonal{Inverse: r.IntN(2) == 0, From: r.IntN(3), To: 3 + r.IntN(4), Offset: r.IntN(d.Period), Shift: r.IntN(d.Period), Factor: r.NormFloat64()}
				plains = append(plains, d)
				continue
			}
			if r.IntN(3) == 0 {
				d.LogLanes = r.IntN(bits.Len(uint(d.Period)))
			}
			most := d.Positions()
			if r.IntN(4) == 0 {
				most *= 2 // imaginary parts
			}
			for i := range most {
				if r.IntN(3) == 0 {
					d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, []float64{0.5, r.NormFloat64(), math.Copysign(0, -1), 1e-300}[r.IntN(4)])
				}
			}
			d.SetImag()
			plains = append(plains, d)
		}
		raw := encodePlains(plains)
		got, err := decodePlains(raw, PlanVersion)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(plains, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		for n := range raw { // cut anywhere: an error, or fewer vectors only where counts say so
			if _, err := decodePlains(raw[:n], PlanVersion); err == nil {
				t.Fatalf("%d of %d bytes were taken", n, len(raw))
			}
		}
	}
}

// tableOf returns offsets and lengths of the sections of a container.
func tableOf(t testing.TB, b []byte) []sectionEntry {
	t.Helper()
	r, err := NewReader("test", bytes.NewReader(b), int64(len(b)), PlanMagic, PlanVersion)
	if err != nil {
		t.Fatal(err)
	}
	return r.sections
}

// TestCut cuts a plan at every boundary of its format and at random places.
func TestCut(t *testing.T) {
	b := saved(t, smallPlan(t))
	cuts := []int{0, 1, 8, 47, 48, 51, PageBytes - 1, PageBytes, len(b) - 1}
	for _, s := range tableOf(t, b) {
		cuts = append(cuts, int(s.Offset), int(s.Offset)-1, int(s.Offset+s.Length), int(s.Offset+s.Length)-1, int(s.Offset+s.Length)+1)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		cuts = append(cuts, r.IntN(len(b)))
	}
	for _, n := range cuts {
		if _, err := loadBytes(b[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d of %d bytes: %v", n, len(b), err)
		}
	}
	for _, tail := range [][]byte{{0}, make([]byte, PageBytes), b} {
		if _, err := loadBytes(append(slices.Clone(b), tail...)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes appended: %v", len(tail), err)
		}
	}
}

// TestFlip flips one bit in every byte that means something, and in some of the
// padding. What loads all the same must be the same plan.
func TestFlip(t *testing.T) {
	p := smallPlan(t)
	b := saved(t, p)
	meant := make([]bool, len(b))
	for i := range 48 {
		meant[i] = true
	}
	table := tableOf(t, b)
	end := 0
	for _, s := range table {
		for i := range int(s.Length) {
			meant[int(s.Offset)+i] = true
		}
		end = max(end, int(s.Offset+s.Length))
	}
	for i := (end + PageBytes - 1) / PageBytes * PageBytes; i < len(b); i++ {
		meant[i] = true
	}
	for i := range b {
		if !meant[i] && i%97 != 0 {
			continue
		}
		b[i] ^= 1 << (i % 8)
		q, err := loadBytes(b)
		b[i] ^= 1 << (i % 8)
		switch {
		case meant[i] && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion):
			t.Errorf("bit %d of byte %d flipped: %v", i%8, i, err)
		case err == nil && cmp.Diff(p, q, samePlan) != "":
			t.Errorf("bit %d of byte %d flipped: another plan", i%8, i)
		}
	}
}

// patchPrologue changes the prologue and makes its checksum right again.
func patchPrologue(b []byte, change func(h []byte)) []byte {
	c := slices.Clone(b)
	change(c[:48])
	binary.LittleEndian.PutUint32(c[44:], crc32.Checksum(c[:44], castagnoli))
	return c
}

func TestPrologue(t *testing.T) {
	b := saved(t, smallPlan(t))
	le := binary.LittleEndian
	for _, c := range []struct {
		name   string
		change func(h []byte)
		want   error
	}{
		{"next version", func(h []byte) { le.PutUint32(h[8:], PlanVersion+1) }, ErrVersion},
		{"version 0", func(h []byte) { le.PutUint32(h[8:], 0) }, ErrVersion},
		{"version 2^32-1", func(h []byte) { le.PutUint32(h[8:], math.MaxUint32) }, ErrVersion},
		{"client's magic", func(h []byte) { copy(h, ClientMagic) }, ErrCorrupt},
		{"no magic", func(h []byte) { clear(h[:8]) }, ErrCorrupt},
		{"stamp taken off", func(h []byte) { le.PutUint32(h[12:], 0) }, ErrCorrupt},
		{"table at 0", func(h []byte) { le.PutUint64(h[16:], 0) }, ErrCorrupt},
		{"table beyond the end", func(h []byte) { le.PutUint64(h[16:], 1<<40) }, ErrCorrupt},
		{"negative table offset", func(h []byte) { le.PutUint64(h[16:], math.MaxUint64) }, ErrCorrupt},
		{"table of 64 GiB", func(h []byte) { le.PutUint64(h[24:], 64<<30) }, ErrCorrupt},
		{"empty table", func(h []byte) { le.PutUint64(h[24:], 0) }, ErrCorrupt},
		{"file of 64 GiB", func(h []byte) { le.PutUint64(h[32:], 64<<30) }, ErrCorrupt},
	} {
		if _, err := loadBytes(patchPrologue(b, c.change)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	secure := smallPlan(t)
	secure.Params.Insecure = false
	if _, err := loadBytes(patchPrologue(saved(t, secure), func(h []byte) { le.PutUint32(h[12:], flagInsecure) })); !errors.Is(err, ErrCorrupt) {
		t.Errorf("stamp put on: %v", err)
	}
}

// rewrite saves sections under right checksums: what an attacker who knows the
// format would send.
func rewrite(t testing.TB, magic string, insecure bool, sections []section) []byte {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	version := uint32(PlanVersion)
	if magic == ClientMagic {
		version = ClientVersion
	}
	err = writeContainer(f, Options{Magic: magic, Version: version, Insecure: insecure}, func(w *Writer) error {
		for _, s := range sections {
			if err := w.Section(s.name, s.data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostileSections leaves sections out, doubles them, swaps them, fills them
// with garbage or with frames that claim to unpack to gigabytes. Every one is an
// error, found within little memory.
func TestHostileSections(t *testing.T) {
	good, err := smallPlan(t).encode()
	if err != nil {
		t.Fatal(err)
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	bomb := e.EncodeAll(make([]byte, 256<<20), nil)
	// The header of a frame whose content is said to be 3.9 GiB, and no content.
	claim := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0xf9, 1, 0, 0}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i, s := range good {
		for _, c := range []struct {
			name string
			data []byte
		}{
			{"empty", nil}, {"garbage", []byte("no section of any kind")}, {"bomb", bomb}, {"claim", claim},
			{"nested", compress(bytes.Repeat([]byte{0x81}, 100))}, {"long array", compress([]byte{0x9a, 0x7f, 0xff, 0xff, 0xff})},
			{"long string", compress([]byte{0x7b, 0, 0, 0, 0xf, 0xff, 0xff, 0xff, 0xff})}, {"long map", compress([]byte{0xba, 0x7f, 0xff, 0xff, 0xff})},
		} {
			bad := slices.Clone(good)
			bad[i].data = c.data
			if _, err := loadBytes(rewrite(t, PlanMagic, true, bad)); err == nil {
				t.Errorf("section %s %s: no error", s.name, c.name)
			}
		}
		if _, err := loadBytes(rewrite(t, PlanMagic, true, slices.Delete(slices.Clone(good), i, i+1))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("section %s missing: %v", s.name, err)
		}
		swapped := slices.Clone(good)
		swapped[i].data = good[(i+1)%len(good)].data
		if _, err := loadBytes(rewrite(t, PlanMagic, true, swapped)); err == nil {
			t.Errorf("section %s holds another one: no error", s.name)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 2<<30 {
		t.Errorf("%d MiB were allocated for files of a few pages", got>>20)
	}
}

// TestSections refuses tables whose sections lie in one another or share a name:
// a table of a few bytes per section would make a file expand to any size.
func TestSections(t *testing.T) {
	const past = PageBytes + 100
	for _, c := range []struct {
		name string
		list []sectionEntry
		ok   bool
	}{
		{"apart", []sectionEntry{{Name: "a", Offset: PageBytes, Length: 50}, {Name: "b", Offset: PageBytes + 50, Length: 50}}, true},
		{"empty", []sectionEntry{{Name: "a", Offset: PageBytes}, {Name: "b", Offset: PageBytes}}, true},
		{"the same bytes", []sectionEntry{{Name: "a", Offset: PageBytes, Length: 100}, {Name: "b", Offset: PageBytes, Length: 100}}, false},
		{"one byte shared", []sectionEntry{{Name: "a", Offset: PageBytes, Length: 50}, {Name: "b", Offset: PageBytes + 49, Length: 50}}, false},
		{"backwards", []sectionEntry{{Name: "a", Offset: PageBytes + 50, Length: 50}, {Name: "b", Offset: PageBytes, Length: 50}}, false},
		{"a name twice", []sectionEntry{{Name: "a", Offset: PageBytes, Length: 50}, {Name: "a", Offset: PageBytes + 50, Length: 50}}, false},
		{"in the prologue", []sectionEntry{{Name: "a", Offset: 0, Length: 50}}, false},
		{"in the table", []sectionEntry{{Name: "a", Offset: PageBytes, Length: 101}}, false},
	} {
		table, err := Marshal(c.list)
		if err != nil {
			t.Fatal(err)
		}
		b := append(make([]byte, past), table...)
		copy(b, PlanMagic)
		le := binary.LittleEndian
		le.PutUint32(b[8:], 1)
		le.PutUint64(b[16:], past)
		le.PutUint64(b[24:], uint64(len(table)))
		le.PutUint64(b[32:], uint64(len(b)))
		le.PutUint32(b[40:], crc32.Checksum(table, castagnoli))
		le.PutUint32(b[44:], crc32.Checksum(b[:44], castagnoli))
		if _, err := NewReader("test", bytes.NewReader(b), int64(len(b)), PlanMagic, 1); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("sections %s: %v", c.name, err)
		}
	}
}

// TestMemory reads files of a few pages with arrays of millions of the shortest
// elements there are, which decode to structs of a hundred bytes and more.
func TestMemory(t *testing.T) {
	const n = 1 << 22
	list := func(key string, head []byte, elem byte) []byte {
		b := append([]byte{0xa1, 0x60 | byte(len(key))}, key...)
		b = append(b, head...)
		b = binary.BigEndian.AppendUint32(append(b, 0x9a), n)
		return compress(append(b, bytes.Repeat([]byte{elem}, n)...))
	}
	var before, after runtime.MemStats
	for _, elem := range []byte{0xa0, 0xf6, 0x00, 0x80, 0x60} { // {}, null, 0, [], ""
		for _, key := range []string{"inputs", "INPUTS", "client_ops"} {
			for _, head := range [][]byte{nil, {0xc6}} { // without and with a tag
				b := rewrite(t, ClientMagic, false, []section{{"client", list(key, head, elem)}})
				runtime.ReadMemStats(&before)
				_, err := loadClientBytes(t, b)
				runtime.ReadMemStats(&after)
				if got := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrCorrupt) || got > 64<<20 {
					t.Errorf("%s of %#x, %d KiB: %d MiB were allocated, error %v", key, elem, len(b)>>10, got>>20, err)
				}
			}
		}
	}
	// What is in use stays far from the bound.
	p := smallPlan(t)
	for range 12 {
		p.Objects = append(p.Objects, p.Objects...)
	}
	b, err := Marshal(p.Objects)
	if err != nil {
		t.Fatal(err)
	}
	var back []Object
	if err := Unmarshal(b, &back); err != nil || len(back) != len(p.Objects) {
		t.Errorf("%d of %d objects, error %v", len(back), len(p.Objects), err)
	}
}

// TestCompress round-trips sections that pack far better than readers allow for.
func TestCompress(t *testing.T) {
	for _, n := range []int{0, 1, 1 << 10, rawBase, rawBase + 1<<22, 64 << 20} {
		raw := make([]byte, n)
		b := compress(raw)
		got, err := decompress(b)
		if err != nil || !bytes.Equal(raw, got) {
			t.Errorf("%d zeros packed to %d bytes: %v", n, len(b), err)
		}
	}
}

// TestVerify breaks a good plan in one place after another.
func TestVerify(t *testing.T) {
	d := ir.ScaleTwo(40)
	huge := ir.Scale{Q: []int64{1 << 62, -1 << 62}}
	for _, c := range []struct {
		name  string
		wreck func(p *Plan)
	}{
		{"operand out of range", func(p *Plan) { p.Steps[0].Args[0] = 99 }},
		{"negative operand", func(p *Plan) { p.Steps[0].Args[0] = -1 }},
		{"result out of range", func(p *Plan) { p.Steps[0].Out = 8 }},
		{"negative result", func(p *Plan) { p.Steps[0].Out = -1 }},
		{"read before written", func(p *Plan) { p.Steps[0], p.Steps[1] = p.Steps[1], p.Steps[0] }},
		{"writes its input", func(p *Plan) { p.Steps[0].Out = 0 }},
		{"writes a key", func(p *Plan) { p.Steps[0].Out = 1 }},
		{"writes a plaintext", func(p *Plan) { p.Steps[1].Out = 3 }},
		{"written twice", func(p *Plan) { p.Steps[3].Out = 5 }},
		{"in place where that is not allowed", func(p *Plan) { p.Steps[4].Out = 5 }},
		{"too few operands", func(p *Plan) { p.Steps[0].Args = p.Steps[0].Args[:1] }},
		{"no operands", func(p *Plan) { p.Steps[4].Args = nil }},
		{"too many operands", func(p *Plan) { p.Steps[4].Args = append(p.Steps[4].Args, 0) }},
		{"key where a ciphertext belongs", func(p *Plan) { p.Steps[4].Args[0] = 1 }},
		{"ciphertext where a key belongs", func(p *Plan) { p.Steps[0].Args[1] = 0 }},
		{"key of another rotation", func(p *Plan) { p.Steps[0].Rot = 4 }},
		{"relinearisation key for a rotation", func(p *Plan) { p.Steps[0].Args[1] = 2 }},
		{"rotation key for a product", func(p *Plan) { p.Steps[3].Args[2] = 1 }},
		{"key of a lower level", func(p *Plan) { p.Objects[1].Type.Level = 1 }},
		{"rotation out of range", func(p *Plan) { p.Steps[0].Rot, p.Objects[1].Rot = 19, 19 }},
		{"negative rotation", func(p *Plan) { p.Steps[0].Rot, p.Objects[1].Rot = -3, -3 }},
		{"level too high", func(p *Plan) { p.Objects[4].Type.Level = 3 }},
		{"negative level", func(p *Plan) { p.Objects[0].Type.Level = -1 }},
		{"result above its operands", func(p *Plan) { p.Objects[7].Type.Level = 2 }},
		{"rescale without a rescaled scale", func(p *Plan) { p.Objects[7].Type.Scale = d.Mul(ir.ScalePrime(2)) }},
		{"scale mismatch of a sum", func(p *Plan) { p.Steps[2].Scale = ir.ScalePrime(1) }},
		{"scale of a prime that is not there", func(p *Plan) { p.Objects[6].Type.Scale = ir.ScalePrime(3) }},
		{"wrong kind of result", func(p *Plan) { p.Objects[6].Type.Kind = ir.CipherQPKind }},
		{"unknown kind", func(p *Plan) { p.Objects[6].Type.Kind = 99 }},
		{"a tensor as an object", func(p *Plan) { p.Objects[6].Type = ir.TensorType(1) }},
		{"unknown role", func(p *Plan) { p.Objects[6].Role = 99 }},
		{"a key as input", func(p *Plan) { p.Objects[1].Role = RoleInput }},
		{"plaintext without values", func(p *Plan) { p.Objects[3].Plain = 1 }},
		{"negative plaintext", func(p *Plan) { p.Objects[3].Plain = -1 }},
		{"period that does not divide", func(p *Plan) { p.Plains[0].Period = 12 }},
		{"period beyond the slots", func(p *Plan) { p.Plains[0].Period = 32 }},
		{"no period", func(p *Plan) { p.Plains[0].Period = 0 }},
		{"slot beyond the lanes", func(p *Plan) { p.Plains[0].LogLanes = 1 }},
		{"negative lanes", func(p *Plan) { p.Plains[0].LogLanes = -1 }},
		{"lanes beyond the period", func(p *Plan) { p.Plains[0].LogLanes = 5 }},
		{"slot beyond the period", func(p *Plan) { p.Plains[0].Index[2] = 16 }},
		{"negative slot", func(p *Plan) { p.Plains[0].Index[0] = -1 }},
		{"slots without values", func(p *Plan) { p.Plains[0].Value = p.Plains[0].Value[:2] }},
		{"NaN weight", func(p *Plan) { p.Plains[0].Value[0] = math.NaN() }},
		{"tensor op as a step", func(p *Plan) { p.Steps[0].Op = ir.OpConv }},
		{"unknown op", func(p *Plan) { p.Steps[0].Op = 9999 }},
		{"packed op as a step", func(p *Plan) { p.Steps[0].Op = ir.OpPackRefresh }},
		{"a rotation that doubles", func(p *Plan) { p.Steps[0].Twice = true }},
		{"input op as a step", func(p *Plan) { p.Steps[0].Op = ir.OpHEInput }},
		{"output op as a step", func(p *Plan) { p.Steps[4].Op = ir.OpHEOutput }},
		{"layer of a step", func(p *Plan) { p.Steps[0].Layer = 1 }},
		{"layer of an object", func(p *Plan) { p.Objects[0].Layer = -2 }},
		{"NaN constant", func(p *Plan) { p.Steps[2].Const = math.NaN() }},
		{"infinite constant", func(p *Plan) { p.Steps[2].Const = math.Inf(1) }},
		{"output never made", func(p *Plan) { p.Steps = p.Steps[:4] }},
		{"output port at an input", func(p *Plan) { p.Outputs[0].Objects[0] = 0 }},
		{"output port at a temporary", func(p *Plan) {
			p.Outputs[0].Objects[0], p.Outputs[0].Level = 4, 2
		}},
		{"input port at a temporary", func(p *Plan) { p.Inputs[0].Objects[0] = 4 }},
		{"port out of range", func(p *Plan) { p.Inputs[0].Objects[0] = 8 }},
		{"port at another level", func(p *Plan) { p.Inputs[0].Level = 1 }},
		{"port at another scale", func(p *Plan) { p.Outputs[0].Scale = ir.ScaleTwo(41) }},
		{"port without layout", func(p *Plan) { p.Inputs[0].Layout = nil }},
		{"port without ciphertexts", func(p *Plan) { p.Inputs[0].Objects = nil }},
		{"layout of other slots", func(p *Plan) { p.Inputs[0].Layout = ir.NewLayout(32, 1, 1) }},
		{"layout without an element", func(p *Plan) { p.Inputs[0].Layout = ir.NewLayout(16, 1, 1) }},
		{"layout of an element too many", func(p *Plan) { p.Inputs[0].Shape = []int{1, 15} }},
		{"port of a huge shape", func(p *Plan) { p.Inputs[0].Shape = []int{1 << 20, 1 << 20, 1 << 20} }},
		{"port of no elements", func(p *Plan) { p.Inputs[0].Shape = []int{0} }},
		{"normalised by zero", func(p *Plan) { p.Inputs[0].Norm = []float64{0} }},
		{"normalised by NaN", func(p *Plan) { p.Inputs[0].Center = []float64{math.NaN()} }},
		{"normalised in part", func(p *Plan) { p.Inputs[0].Norm = []float64{1, 2} }},
		{"NaN limit", func(p *Plan) { p.Inputs[0].Limit = math.NaN() }},
		{"scale of an object with huge powers", func(p *Plan) { p.Objects[6].Type.Scale = huge }},
		{"scale of a step with huge powers", func(p *Plan) { p.Steps[2].Scale = huge }},
		{"scale of a port with huge powers", func(p *Plan) { p.Inputs[0].Scale, p.Objects[0].Type.Scale = huge, huge }},
		{"client operator of another shape", func(p *Plan) { p.ClientOps[0].Input = []int{1, 1 << 40} }},
		{"unknown client operator", func(p *Plan) { p.ClientOps[0].Op = "Hardmax" }},
		{"no inputs", func(p *Plan) { p.Inputs = nil }},
		{"no outputs", func(p *Plan) { p.Outputs = nil }},
		{"no primes", func(p *Plan) { p.Params.Q = nil }},
		{"a composite modulus", func(p *Plan) { p.Params.Q[0] += 64 * 2 }},
		{"huge ring", func(p *Plan) { p.Params.LogN = 40 }},
		{"unknown ring", func(p *Plan) { p.Params.Ring = "" }},
		{"tier action on no object", func(p *Plan) { p.Tier.Actions[0].Obj = 8 }},
		{"tier action after the end", func(p *Plan) { p.Tier.Actions[1].Step = 6 }},
		{"unknown tier action", func(p *Plan) { p.Tier.Actions[1].Kind = 7 }},
	} {
		p := smallPlan(t)
		c.wreck(p)
		if err := p.Verify(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
		// A file made of it, with right checksums, must not load either.
		if d := p.Plains[0]; len(d.Index) != len(d.Value) {
			continue // no file can say this
		}
		s, err := p.encode()
		if err != nil {
			continue // the writer refuses it already
		}
		if _, err := loadBytes(rewrite(t, PlanMagic, true, s)); err == nil {
			t.Errorf("%s: loads from a file", c.name)
		}
	}
}

// rescaledPlan is smallPlan with steps that rescale what they compute.
func rescaledPlan(t testing.TB) *Plan {
	t.Helper()
	p := smallPlan(t)
	d, q := ir.ScaleTwo(40), ir.ScalePrime(2)
	half := ir.Type{Kind: ir.CipherKind, Encrypted: true, Level: 1, Scale: d.Mul(d).Div(q)}
	p.Steps[3] = Step{Op: ir.OpHEMulRescale, Args: []ObjectID{4, 4, 2}, Out: 6, Const: -1, Twice: true}
	p.Objects[6].Type = half
	p.Objects = append(p.Objects, Object{Role: RoleTemp, Type: ir.Type{Kind: ir.CipherKind, Encrypted: true, Level: 2, Scale: d.Mul(d)}}, Object{Role: RoleTemp, Type: half})
	p.Steps = append(p.Steps, Step{Op: ir.OpHEMulConst, Args: []ObjectID{0}, Out: 8, Const: 0.5, Scale: d},
		Step{Op: ir.OpHEMacRescale, Args: []ObjectID{8, 0, 4, 2}, Out: 9})
	p.Counts.KeySwitches, p.Counts.CtMults = 3, 2
	return p
}

// throughFile verifies a plan and its counts, and takes it through a file.
func throughFile(t *testing.T, p *Plan) {
	t.Helper()
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p.Counts, p.Count(nil)); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
	q, err := loadBytes(saved(t, p))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p, q, samePlan); d != "" {
		t.Errorf("loaded plan (-want +got):\n%s", d)
	}
}

// TestRescaledSteps takes steps that rescale what they compute through a file.
func TestRescaledSteps(t *testing.T) {
	p := rescaledPlan(t)
	throughFile(t, p)
	for _, c := range []struct {
		name  string
		wreck func(p *Plan)
	}{
		{"a result at the level of the product", func(p *Plan) { p.Objects[6].Type.Level = 2 }},
		{"a key at the level of the result", func(p *Plan) { p.Objects[2].Type.Level = 1 }},
		{"a scale that is not divided", func(p *Plan) { p.Objects[6].Type.Scale = ir.ScaleTwo(80) }},
		{"an infinite constant", func(p *Plan) { p.Steps[3].Const = math.Inf(-1) }},
		{"an accumulator of another scale", func(p *Plan) { p.Steps[6].Args[0] = 0 }},
		{"an accumulator as the result", func(p *Plan) { p.Steps[6].Out = 8 }},
		{"a rotation key", func(p *Plan) { p.Steps[3].Args[2] = 1 }},
	} {
		p := rescaledPlan(t)
		c.wreck(p)
		if err := p.Verify(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func clientBytes(t testing.TB, c *Client) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.hclient")
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loadClientBytes(t testing.TB, b []byte) (*Client, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.hclient")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadClient(path)
}

func TestClient(t *testing.T) {
	p := smallPlan(t)
	c, err := p.Client()
	if err != nil {
		t.Fatal(err)
	}
	b := clientBytes(t, c)
	got, err := loadClientBytes(t, b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(c, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("loaded client part (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]KeyNeed{{0, 2}, {3, 2}}, c.Keys); d != "" {
		t.Error(d)
	}
	if weight := binary.LittleEndian.AppendUint64(nil, math.Float64bits(-2)); bytes.Contains(b, weight) {
		t.Error("the client file holds a weight")
	}
	for _, w := range []struct {
		name  string
		wreck func(c *Client)
	}{
		{"key out of range", func(c *Client) { c.Keys[1].Rot = 16 }},
		{"key above the chain", func(c *Client) { c.Keys[0].Level = 3 }},
		{"no inputs", func(c *Client) { c.Inputs = nil }},
		{"NaN limit", func(c *Client) { c.Inputs[0].Limit = math.NaN() }},
		{"negative limit", func(c *Client) { c.Inputs[0].Limit = -1 }},
		{"composite modulus", func(c *Client) { c.Params.P[0] += 128 }},
		{"no plan", func(c *Client) { c.Plan = "" }},
		{"scale of huge powers", func(c *Client) { c.Inputs[0].Scale = ir.Scale{Q: []int64{1 << 62, -1 << 62}} }},
		{"scale of 2^(2^62)", func(c *Client) { c.Outputs[0].Scale = ir.ScaleTwo(1 << 62) }},
		{"infinite precision", func(c *Client) { c.OutputBits = math.Inf(1) }},
		{"no precision", func(c *Client) { c.OutputBits = math.NaN() }},
		{"client operator of another size", func(c *Client) { c.ClientOps[0].Input = []int{1, 17} }},
		{"client operator of negative size", func(c *Client) { c.ClientOps[0].Input = []int{-1, -16} }},
		{"client operator of overflowing size", func(c *Client) { c.ClientOps[0].Input = []int{1 << 32, 1<<32 + 1, 16} }},
		{"client operator on a far axis", func(c *Client) { c.ClientOps[0].Axis = 2 }},
		{"client operator on a negative axis", func(c *Client) { c.ClientOps[0].Axis = -1 }},
		{"client operator with another result", func(c *Client) { c.ClientOps[0].Shape = []int{16} }},
		{"unknown client operator", func(c *Client) { c.ClientOps[0].Op = "Exec" }},
		{"client operators that do not fit together", func(c *Client) {
			c.ClientOps = append(c.ClientOps, ClientOp{Op: "ArgMax", Axis: 0, Input: []int{16}})
		}},
	} {
		bad, err := smallPlan(t).Client()
		if err != nil {
			t.Fatal(err)
		}
		w.wreck(bad)
		if _, err := loadClientBytes(t, clientBytes(t, bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", w.name, err)
		}
	}
	for i := 0; i < 48; i++ {
		b[i] ^= 0x10
		if _, err := loadClientBytes(t, b); err == nil {
			t.Errorf("byte %d of the prologue flipped: no error", i)
		}
		b[i] ^= 0x10
	}
}

// TestWriteFailure fails in the middle of a write: no file and no temporary is
// left, and an older file survives.
func TestWriteFailure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.hplan")
	if err := smallPlan(t).Save(path); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("disk is full")
	if err := WriteFile(path, Options{Magic: PlanMagic, Version: 1}, func(w *Writer) error {
		if err := w.Begin("half"); err != nil {
			return err
		}
		if _, err := io.WriteString(w, "half a section"); err != nil {
			return err
		}
		return boom
	}); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, old) {
		t.Errorf("the old file is gone or changed (%v)", err)
	}
	if l, _ := os.ReadDir(dir); len(l) != 1 {
		t.Errorf("left behind: %v", l)
	}
	if err := smallPlan(t).Save(filepath.Join(dir, "missing", "p.hplan")); err == nil {
		t.Error("saved into a folder that does not exist")
	}
}

// TestWriteToPipe writes a container into what cannot seek.
func TestWriteToPipe(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: /dev/fd is needed")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r)
		got <- b
	}()
	p := smallPlan(t)
	err = p.Save(fmt.Sprintf("/dev/fd/%d", w.Fd()))
	w.Close()
	if b := <-got; err != nil || !bytes.Equal(b, saved(t, p)) {
		t.Errorf("%d bytes came out of the pipe: %v", len(b), err)
	}
}

// FuzzLoad mutates whole files, and sections below the checksums and the
// compression, of both formats: an error, or a plan that saves and loads again to
// the same bytes.
func FuzzLoad(f *testing.F) {
	p := smallPlan(f)
	good, err := p.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(255), saved(f, p))
	f.Add(byte(255), saved(f, raisePlan(f)))
	f.Add(byte(255), saved(f, rescaledPlan(f)))
	for i, s := range good {
		raw, err := decompress(s.data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), raw)
	}
	c, err := p.Client()
	if err != nil {
		f.Fatal(err)
	}
	raw, err := Marshal(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(len(good)), raw)
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		if int(which) == len(good) {
			if c, err := loadClientBytes(t, rewrite(t, ClientMagic, true, []section{{"client", compress(data)}})); err == nil {
				if _, err := loadClientBytes(t, clientBytes(t, c)); err != nil {
					t.Errorf("a client part that loads does not load again: %v", err)
				}
			}
			return
		}
		file := data
		if int(which) < len(good) {
			bad := slices.Clone(good)
			bad[which].data = compress(data)
			file = rewrite(t, PlanMagic, true, bad)
		}
		q, err := loadBytes(file)
		if err != nil {
			return
		}
		sections, err := q.encode()
		if err != nil {
			t.Fatalf("a plan that loads does not encode: %v", err)
		}
		again, err := loadBytes(rewrite(t, PlanMagic, q.Params.Insecure, sections))
		if err != nil {
			t.Fatalf("a plan that loads does not load again: %v", err)
		}
		// The first reading may have come from text that was not canonical.
		twice, err := again.encode()
		if err != nil {
			t.Fatal(err)
		}
		for i := range twice {
			if twice[i].name != sections[i].name || !bytes.Equal(twice[i].data, sections[i].data) {
				t.Fatalf("section %s is another after saving and loading", twice[i].name)
			}
		}
	})
}
