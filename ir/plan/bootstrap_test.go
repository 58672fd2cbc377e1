package plan

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/home-fhe/home/ir"
)

// raisePlan is smallPlan with the steps of a bootstrap in place of its own: the
// modulus is raised, a generated diagonal multiplies, the real part is taken.
func raisePlan(t testing.TB) *Plan {
	t.Helper()
	p := smallPlan(t)
	par, err := ir.NewParams("tiny", 5, ir.RingStandard, ir.SecretTernary, []int{50, 40, 40}, []int{51}, 40)
	if err != nil {
		t.Fatal(err)
	}
	par.Insecure = true
	p.Params = *par
	d, q := ir.ScaleTwo(40), ir.ScalePrime(2)
	ct := func(level int, s ir.Scale, complex bool) ir.Type {
		return ir.Type{Kind: ir.CipherKind, Encrypted: true, Level: level, Scale: s, Complex: complex}
	}
	key := ir.Type{Kind: ir.KeyKind, Level: 2}
	p.Layers = []Layer{{Name: "refresh", Kind: LayerRefresh, Shape: []int{1, 16}}}
	p.Objects = []Object{
		0:  {Role: RoleInput, Type: ct(0, d, false), Layer: -1},
		1:  {Role: RoleKey, Type: ir.Type{Kind: ir.SparseKeyKind}, Rot: ir.KeySparse, Layer: -1},
		2:  {Role: RoleKey, Type: key, Rot: ir.KeyDense, Layer: -1},
		3:  {Role: RoleKey, Type: key, Rot: ir.KeyConj, Layer: -1},
		4:  {Role: RoleKey, Type: key, Rot: 3, Layer: -1},
		5:  {Role: RolePlain, Type: ir.Type{Kind: ir.PlainKind, Level: 2, Scale: q, Complex: true}},
		6:  {Role: RoleTemp, Type: ct(2, d, true)},
		7:  {Role: RoleTemp, Type: ct(2, d, true)},
		8:  {Role: RoleTemp, Type: ct(2, d.Mul(q), true)},
		9:  {Role: RoleTemp, Type: ct(1, d, true)},
		10: {Role: RoleTemp, Type: ct(1, d, true)},
		11: {Role: RoleOutput, Type: ct(1, d, false)},
	}
	p.Steps = []Step{
		{Op: ir.OpHERaise, Args: []ObjectID{0, 1, 2}, Out: 6},
		{Op: ir.OpHERotate, Args: []ObjectID{6, 4}, Out: 7, Rot: 3},
		{Op: ir.OpHEMulPlain, Args: []ObjectID{7, 5}, Out: 8},
		{Op: ir.OpHERescale, Args: []ObjectID{8}, Out: 9},
		{Op: ir.OpHEMulI, Args: []ObjectID{9}, Out: 10},
		{Op: ir.OpHERealPart, Args: []ObjectID{10, 3}, Out: 11},
	}
	p.Plains = []ir.SlotData{{Period: 16, DFT: &ir.Diagonal{Inverse: true, From: 1, To: 3, Offset: 14, Shift: 3, Factor: 0.125}}}
	p.Inputs[0].Level, p.Outputs[0].Objects = 0, []ObjectID{11}
	p.Counts = Counts{Bootstraps: 1, KeySwitches: 4, GaloisKeys: 2, Diagonals: 1}
	p.Tier = nil
	return p
}

// TestRaise takes a plan with bootstrapping through its files.
func TestRaise(t *testing.T) {
	p := raisePlan(t)
	throughFile(t, p)
	c, err := p.Client()
	if err != nil {
		t.Fatal(err)
	}
	want := []KeyNeed{{ir.KeySparse, 0}, {ir.KeyDense, 2}, {ir.KeyConj, 2}, {3, 2}}
	if got, err := loadClientBytes(t, clientBytes(t, c)); err != nil || !slices.Equal(got.Keys, want) {
		t.Errorf("keys %v (%v), want %v", got, err, want)
	}
	for _, w := range []struct {
		name  string
		wreck func(p *Plan)
	}{
		{"ephemeral key above level 0", func(p *Plan) { p.Objects[1].Type.Level = 1 }},
		{"ephemeral key of the usual kind", func(p *Plan) { p.Objects[1].Type.Kind = ir.KeyKind }},
		{"usual key of the ephemeral kind", func(p *Plan) { p.Objects[3].Type.Kind = ir.SparseKeyKind }},
		{"a key that there is not", func(p *Plan) { p.Objects[3].Rot = ir.KeySparse - 1 }},
		{"keys exchanged", func(p *Plan) { p.Steps[0].Args[1], p.Steps[0].Args[2] = 2, 1 }},
		{"raised from level 1", func(p *Plan) { p.Objects[0].Type.Level, p.Inputs[0].Level = 1, 1 }},
		{"raised beyond the key", func(p *Plan) { p.Objects[2].Type.Level = 1 }},
		{"raised to real slots", func(p *Plan) { p.Objects[6].Type.Complex = false }},
		{"complex real part", func(p *Plan) { p.Objects[11].Type.Complex = true }},
		{"conjugation with another key", func(p *Plan) { p.Steps[5].Args[1] = 4 }},
		{"a rotation that is none", func(p *Plan) { p.Steps[5].Rot = 1 }},
		{"rotation by a negative key", func(p *Plan) { p.Steps[1].Rot, p.Steps[1].Args[1] = ir.KeyConj, 3 }},
		{"real plaintext of complex slots", func(p *Plan) { p.Objects[5].Type.Complex = false }},
		{"layers that there are not", func(p *Plan) { p.Plains[0].DFT.To = 5 }},
		{"layers backwards", func(p *Plan) { p.Plains[0].DFT.From = 3 }},
		{"diagonal outside", func(p *Plan) { p.Plains[0].DFT.Offset = 16 }},
		{"negative diagonal", func(p *Plan) { p.Plains[0].DFT.Offset = -1 }},
		{"shift outside", func(p *Plan) { p.Plains[0].DFT.Shift = 16 }},
		{"infinite factor", func(p *Plan) { p.Plains[0].DFT.Factor = math.Inf(1) }},
		{"transform of one point", func(p *Plan) { p.Plains[0].Period = 1 }},
		{"transform of three points", func(p *Plan) { p.Plains[0].Period = 3 }},
		{"transform beyond the slots", func(p *Plan) { p.Plains[0].Period = 32 }},
		{"in the real ring", func(p *Plan) { p.Params = smallPlan(t).Params }},
	} {
		p := raisePlan(t)
		w.wreck(p)
		if err := p.Verify(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", w.name, err)
		}
		s, err := p.encode()
		if err != nil {
			continue
		}
		if _, err := loadBytes(rewrite(t, PlanMagic, true, s)); err == nil {
			t.Errorf("%s: loads from a file", w.name)
		}
	}
	for _, k := range []KeyNeed{{ir.KeySparse, 1}, {ir.KeySparse - 1, 0}, {ir.KeyDense, 3}, {16, 0}} {
		bad := *c
		bad.Keys = []KeyNeed{k}
		if _, err := loadClientBytes(t, clientBytes(t, &bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("client that asks for %+v: %v", k, err)
		}
	}
}

// TestSecurityOfBootstrapping: keys for the ephemeral secret bring its bound
// with them, whatever the stamp says.
func TestSecurityOfBootstrapping(t *testing.T) {
	for _, c := range []struct {
		logP int
		ok   bool
	}{{60, true}, {61, true}, {0, false}} {
		logN, logQ, logP := 16, []int{60, 50}, []int{c.logP}
		if c.logP == 0 {
			logN, logP = 15, []int{50}
		}
		p, err := ir.NewParams("p", logN, ir.RingStandard, ir.SecretH192, logQ, logP, 50)
		if err != nil {
			t.Fatal(err)
		}
		plain, boot := &Client{Params: *p, Keys: []KeyNeed{{0, 1}}}, &Client{Params: *p, Keys: []KeyNeed{{ir.KeySparse, 0}, {0, 1}}}
		boot.Params.Insecure = true
		if err := plain.CheckSecurity(); err != nil {
			t.Errorf("N=2^%d, no bootstrapping: %v", logN, err)
		}
		if err := boot.CheckSecurity(); (err == nil) != c.ok {
			t.Errorf("N=2^%d, bootstrapping with q_0 and p_0 of %d bits: %v", logN, 60+c.logP, err)
		}
	}
}

// TestOldFormats reads files of older format versions: they must be understood for
// ever, all but the tier plans from before version 3.
func TestOldFormats(t *testing.T) {
	for _, version := range []string{"v1", "v2", "v3", "v4", "v5"} {
		dir := filepath.Join("testdata", version)
		p, err := Load(filepath.Join(dir, "small.hplan"))
		if err != nil {
			t.Fatal(err)
		}
		want := smallPlan(t)
		if version < "v3" {
			want.Tier = nil
		}
		if d := cmp.Diff(want, p, samePlan); d != "" {
			t.Errorf("%s: plan (-want +got):\n%s", version, d)
		}
		old, err := os.ReadFile(filepath.Join(dir, "small.hplan"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(saved(t, p), old) {
			t.Errorf("%s: saved again under the same version number", version)
		}
		if version != "v1" {
			continue // the client's format is the same since
		}
		c, err := LoadClient(filepath.Join(dir, "small.hclient"))
		if err != nil {
			t.Fatal(err)
		}
		print, err := p.Fingerprint()
		if err != nil || c.Plan != print || !slices.Equal(c.Keys, p.Keys()) {
			t.Errorf("client part of plan %s with keys %v, of a plan %s with %v (%v)", c.Plan, c.Keys, print, p.Keys(), err)
		}
	}
}
