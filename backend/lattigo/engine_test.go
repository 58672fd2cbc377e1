package lattigo

import (
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
)

// testClient holds a secret and works on the operands of its engine.
type testClient struct {
	*engine
	s    *secret
	limb []uint64
}

func newTestClient(t testing.TB, e backend.Engine) *testClient {
	c := &testClient{engine: e.(*engine)}
	coef := make([]int64, c.n)
	seed := newSeed()
	newStream(&seed, elementSecret, 0, 0).ternary(coef, c.p.Secret)
	c.s = c.expandSecret(coef)
	return c
}

func dense(v []float64) *ir.SlotData {
	d := &ir.SlotData{Period: len(v), Value: v}
	for i := range v {
		d.Index = append(d.Index, int32(i))
	}
	return d
}

func (c *testClient) Encrypt(v []float64, out backend.Operand) error {
	o := out.(*operand)
	work, coef := make([]complex128, c.enc.n), make([]float64, c.n)
	if _, err := c.enc.coefs(dense(v), o.t.Scale.Float64(c.p.Q), work, coef); err != nil {
		return err
	}
	seed, noise := newSeed(), newSeed()
	c.encryptRows(c.s, &seed, newStream(&noise, elementNoise, 0, 0), coef, o.t.Level, o.rows[:o.stride], o.rows[o.stride:])
	return nil
}

func (c *testClient) Decrypt(in backend.Operand) ([]float64, error) {
	z, err := c.DecryptComplex(in)
	out := make([]float64, len(z))
	for i, x := range z {
		out[i] = real(x)
	}
	return out, err
}

func (c *testClient) DecryptComplex(in backend.Operand) ([]complex128, error) {
	o := in.(*operand)
	coef, work := make([]float64, c.n), make([]complex128, c.enc.n)
	c.decryptCoefs(c.s, o.rows[:o.stride], o.rows[o.stride:], o.t.Scale, coef)
	c.enc.slots(coef, work)
	return work, nil
}

func (c *testClient) MakeKey(rot int, out backend.Operand) ([]byte, error) {
	o := out.(*operand)
	seed := newSeed()
	return seed[:], c.makeKey(c.s, KeySpec{rot, o.t.Level}, &seed,
		func(d, i int) []uint64 { return o.q(2*d, i) },
		func(d, i, prime int) error {
			keyUniform(c.p, &seed, d, prime, c.mods[prime].Q, o.q(2*d+1, i))
			return nil
		})
}

func TestConformance(t *testing.T) {
	conformance.Run(t, "encrypted", func(p *ir.Params) (backend.Engine, conformance.Client) {
		e, err := Open(p, AllowInsecure())
		if err != nil {
			t.Fatal(err)
		}
		return e, newTestClient(t, e)
	})
}
