package lattigo

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

var rewrite = flag.Bool("rewrite", false, "make the files of testdata/v1 again; only for a new format version")

// TestFormatV1 reads files that were written by format version 1 and computes
// with them: what was stored then must be understood for ever.
func TestFormatV1(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	secret, keys, cts := filepath.Join(dir, "secret.hsk"), filepath.Join(dir, "eval.hevk"), filepath.Join(dir, "x.hct")
	value := func(i int) float64 { return math.Cos(float64(i)) }
	scale := ir.ScaleTwo(36)
	if *rewrite {
		p, err := ir.NewParams("v1", 4, ir.RingReal, ir.SecretTernary, []int{52, 36, 36}, []int{40, 53}, 36)
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
	set := must[*KeySet](t)(OpenKeySet(keys))
	defer set.Close()
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
	slabs, relin := bind(ir.Type{Kind: ir.KeyKind, Level: 1})
	if err := set.Expand(KeySpec{0, 1}, slabs); err != nil {
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
	reply := c.Reply()
	if err := reply.Append("y", 1, ct.Scale, slabs); err != nil {
		t.Fatal(err)
	}
	got := must[[][]float64](t)(Decrypt(sk, reply, reply.Groups[0]))[0]
	for i := range got {
		if want := value(i) * value((i+3)%len(got)); math.Abs(got[i]-want) > 1e-6 {
			t.Errorf("slot %d is %g, want %g", i, got[i], want)
		}
	}
}
