package lattigo

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

var rewrite = flag.Bool("rewrite", false, "make the files of the newest format version in testdata; only for a new one")

// formats are the versions of key sets and ciphertexts of which testdata has files. In
// version 1 uniform residues were drawn from words as long as the prime.
var formats = []string{"v1", "v2"}

// TestFormats reads files of every format version and computes with them: what was
// stored once must be understood for ever. Sets of keys can be extended, in the newest
// version, and then hold the old keys as they were.
func TestFormats(t *testing.T) {
	newest := formats[len(formats)-1]
	if newest != fmt.Sprintf("v%d", max(KeySetVersion, CiphertextVersion)) {
		t.Errorf("the files of %s are not of the newest version: run this test with -rewrite", newest)
	}
	for _, version := range formats {
		t.Run(version, func(t *testing.T) { testFormat(t, version, *rewrite && version == newest) })
	}
}

func testFormat(t *testing.T, version string, rewrite bool) {
	dir := filepath.Join("testdata", version)
	secret, keys, cts := filepath.Join(dir, "secret.hsk"), filepath.Join(dir, "eval.hevk"), filepath.Join(dir, "x.hct")
	value := func(i int) float64 { return math.Cos(float64(i)) }
	scale := ir.ScaleTwo(36)
	if rewrite {
		p, err := ir.NewParams(version, 4, ir.RingReal, ir.SecretTernary, []int{52, 36, 36}, []int{40, 53}, 36)
		if err != nil {
			t.Fatal(err)
		}
		p.Insecure = true
		sk := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
		v := make([]float64, p.Slots())
		for i := range v {
			v[i] = value(i)
		}
		c := must[*Ciphertexts](t)(Encrypt(sk, p, "client", 1, []PortValues{{"x", 2, scale, [][]float64{v}}}, AllowInsecure()))
		for _, err := range []error{os.RemoveAll(dir), os.MkdirAll(dir, 0o755), sk.Save(secret), CreateKeySet(keys, sk, p, []KeySpec{{0, 1}, {3, 2}}, nil, AllowInsecure()), c.Save(cts)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	own := filepath.Join(t.TempDir(), "secret.hsk") // a checkout does not keep mode 0600
	if err := os.WriteFile(own, must[[]byte](t)(os.ReadFile(secret)), 0o600); err != nil {
		t.Fatal(err)
	}
	sk := must[*SecretKey](t)(LoadSecretKey(own))
	own = filepath.Join(t.TempDir(), "eval.hevk")
	if err := os.WriteFile(own, must[[]byte](t)(os.ReadFile(keys)), 0o644); err != nil {
		t.Fatal(err)
	}
	set := must[*KeySet](t)(OpenKeySet(own))
	defer func() { set.Close() }()
	c := must[*Ciphertexts](t)(LoadCiphertexts(cts))
	p := sk.Params()
	if err := set.Check(p, sk.ID()); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(p, "client", sk.ID()); err != nil {
		t.Fatal(err)
	}
	e := must[*engine](t)(openEngine(p))
	bind := func(ty ir.Type) ([][]byte, *operand) {
		s := conformance.Slabs(e, ty)
		return s, must[*operand](t)(e.bind(ty, s))
	}
	ct := ir.Type{Kind: ir.CipherKind, Level: 1, Scale: scale}
	slabs, x := bind(ct)
	if err := c.Groups[0].Load(0, slabs); err != nil {
		t.Fatal(err)
	}
	slabs, turn := bind(ir.Type{Kind: ir.KeyKind, Level: 1})
	if err := set.Expand(KeySpec{3, 1}, slabs); err != nil {
		t.Fatal(err)
	}
	set.Close()
	if n := must[int](t)(ExtendKeySet(own, sk, p, []KeySpec{{3, 2}, {5, 1}}, nil, AllowInsecure())); n != 1 {
		t.Errorf("%d keys are new, want 1", n)
	}
	set = must[*KeySet](t)(OpenKeySet(own))
	for i, k := range set.meta.Keys {
		want := kernels.DrawNarrow
		if i >= 2 || version != "v1" {
			want = kernels.DrawWide
		}
		if k.Draw != want {
			t.Errorf("%s is drawn in way %d, want %d", k.Spec, k.Draw, want)
		}
	}
	again, other := bind(ir.Type{Kind: ir.KeyKind, Level: 1})
	if err := set.Expand(KeySpec{3, 1}, again); err != nil || !slices.EqualFunc(again, slabs, bytes.Equal) {
		t.Errorf("extending the set changed a key that it had, or %v", err)
	}
	if err := set.Expand(KeySpec{5, 1}, again); err != nil {
		t.Fatal(err)
	}
	slabs, relin := bind(ir.Type{Kind: ir.KeyKind, Level: 1})
	if err := set.Expand(KeySpec{0, 1}, slabs); err != nil {
		t.Fatal(err)
	}
	slabs, fifth := bind(ct)
	if err := e.exec(&plan.Step{Op: ir.OpHERotate, Rot: 5}, []*operand{x, other}, fifth); err != nil {
		t.Fatal(err)
	}
	reply := c.Reply()
	if err := reply.Append("z", 1, ct.Scale, slabs); err != nil {
		t.Fatal(err)
	}
	_, turned := bind(ct)
	if err := e.exec(&plan.Step{Op: ir.OpHERotate, Rot: 3}, []*operand{x, turn}, turned); err != nil {
		t.Fatal(err)
	}
	ct.Scale = scale.Mul(scale)
	slabs, product := bind(ct)
	if err := e.exec(&plan.Step{Op: ir.OpHEMul}, []*operand{x, turned, relin}, product); err != nil {
		t.Fatal(err)
	}
	if err := reply.Append("y", 1, ct.Scale, slabs); err != nil {
		t.Fatal(err)
	}
	for k, want := range []func(i, n int) float64{
		func(i, n int) float64 { return value((i + 5) % n) },
		func(i, n int) float64 { return value(i) * value((i+3)%n) },
	} {
		got := must[[][]float64](t)(Decrypt(sk, reply, reply.Groups[k]))[0]
		for i := range got {
			if want := want(i, len(got)); math.Abs(got[i]-want) > 1e-6 {
				t.Errorf("%s: slot %d is %g, want %g", reply.Groups[k].Port, i, got[i], want)
			}
		}
	}
}
