package lattigo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// decryptLimb returns the coefficients of a ciphertext modulo one prime.
func (c *testClient) decryptLimb(o *operand, i int) []uint64 {
	z := make([]uint64, c.n)
	c.mods[i].Mac(z, o.q(0, i), o.q(1, i), c.s.ntt[i])
	c.mods[i].INTT(z, z)
	return z
}

// centre returns x, below q, as its representative nearest zero.
func centre(x, q uint64) int64 {
	if x > q/2 {
		return -int64(q - x)
	}
	return int64(x)
}

// TestRaise holds a raised ciphertext, limb by limb and exactly, against m + e +
// q_0*I: the same small I modulo every prime, of the variance that the ephemeral
// weight promises, and noise e of the size that RaiseNoise promises.
func TestRaise(t *testing.T) {
	for _, c := range []struct {
		name   string
		secret ir.Secret
		q, p   []int
	}{
		{"one special prime", ir.SecretTernary, []int{49, 45, 45, 45}, []int{50}},
		{"several", ir.SecretH192, []int{49, 45, 45, 45, 45, 45, 45}, []int{50, 49, 49}},
		{"wide primes", ir.SecretH192, []int{55, 45, 52, 45}, []int{56, 56}},
		{"narrow below wide", ir.SecretTernary, []int{45, 55, 45}, []int{56}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ir.NewParams("raise", 10, ir.RingStandard, c.secret, c.q, c.p, 36)
			if err != nil {
				t.Fatal(err)
			}
			p.Insecure = true
			e := must[*engine](t)(openEngine(p))
			portable := newEngine(must[*rings](t)(newRingsWith(p, kernels.Portable)), 1)
			cl := newTestClient(t, e)
			bind := func(k ir.Kind, l int, s ir.Scale) *operand {
				tt := ir.Type{Kind: k, Encrypted: true, Level: l, Scale: s}
				return must[*operand](t)(e.bind(tt, conformance.Slabs(e, tt)))
			}
			key := func(rot int, k ir.Kind, l int) *operand {
				o := bind(k, l, ir.Scale{})
				if _, err := cl.MakeKey(rot, o); err != nil {
					t.Fatal(err)
				}
				return o
			}
			top := p.MaxLevel()
			sparse, dense := key(ir.KeySparse, ir.SparseKeyKind, 0), key(ir.KeyDense, ir.KeyKind, top)
			rng := rand.New(rand.NewPCG(1, 2))
			v := make([]float64, p.Slots())
			for i := range v {
				v[i] = 2*rng.Float64() - 1
			}
			d := ir.ScaleTwo(p.LogScale)
			x := bind(ir.CipherKind, 0, d)
			if err := cl.Encrypt(v, x); err != nil {
				t.Fatal(err)
			}
			in := cl.decryptLimb(x, 0)
			var q0 = e.mods[0].Q
			var square, noise float64
			for _, l := range []int{1, 2, top} {
				out := bind(ir.CipherKind, l, d)
				if err := e.exec(&plan.Step{Op: ir.OpHERaise}, []*operand{x, sparse, dense}, out); err != nil {
					t.Fatal(err)
				}
				plain := bind(ir.CipherKind, l, d)
				if err := portable.exec(&plan.Step{Op: ir.OpHERaise}, []*operand{owned(portable, x), owned(portable, sparse), owned(portable, dense)}, owned(portable, plain)); err != nil {
					t.Fatal(err)
				}
				for i := range plain.rows {
					if !slices.Equal(plain.rows[i], out.rows[i]) {
						t.Fatalf("level %d: limb %d depends on the kernels", l, i)
					}
				}
				sent := make([]int64, e.n) // modulo q_0: message and noise
				for i, r := range cl.decryptLimb(out, 0) {
					sent[i] = centre(r, q0)
					w := centre((r+q0-in[i])%q0, q0)
					noise += float64(w) * float64(w) / float64(3*e.n)
				}
				var times []int64
				for k := 1; k <= l; k++ {
					m := e.mods[k]
					inv := m.Invert(q0 % m.Q)
					got := make([]int64, e.n)
					for i, r := range cl.decryptLimb(out, k) {
						s := uint64(sent[i]%int64(m.Q)+int64(m.Q)) % m.Q
						got[i] = centre(m.Times((r+m.Q-s)%m.Q, inv), m.Q)
						if most := int64(ir.EphemeralWeight/2 + 1); got[i] > most || got[i] < -most {
							t.Fatalf("level %d, prime %d: coefficient %d gains %d times q_0, at most %d", l, k, i, got[i], most)
						}
					}
					if times != nil && fmt.Sprint(times) != fmt.Sprint(got) {
						t.Fatalf("level %d: primes %d and %d gain different multiples of q_0", l, k-1, k)
					}
					times = got
				}
				for _, n := range times {
					square += float64(n*n) / float64(3*e.n)
				}
			}
			// The coefficients are few, and those of one ephemeral secret are correlated: one draw
			// in some hundreds is a fifth off.
			if want := (ir.EphemeralWeight + 1) / 12.0; square < 0.65*want || square > 1.35*want {
				t.Errorf("multiples of q_0 have mean square %g, want %g", square, want)
			}
			// Of 240 draws the ratio was 0.85 to 1.07, with a deviation of 0.03 around 0.91
			// for one special prime and 1.00 for the rest.
			if got, want := math.Sqrt(noise), RaiseNoise(p, top); got < 0.75*want || got > 1.25*want {
				t.Errorf("noise %g, theory %g", got, want)
			}
			out := bind(ir.CipherKind, top, d)
			allocs := testing.AllocsPerRun(4, func() {
				if err := e.exec(&plan.Step{Op: ir.OpHERaise}, []*operand{x, sparse, dense}, out); err != nil {
					t.Fatal(err)
				}
			})
			if allocs > 24 { // closures; never a limb
				t.Errorf("%g allocations", allocs)
			}
		})
	}
}

// TestBootstrapKeys makes the keys of bootstrapping at 128 bits, at once and by
// extending, and opens every limb with the secret that it belongs to: b + a*to
// must be noise, plus the secret that it switches from on the primes of its digit.
func TestBootstrapKeys(t *testing.T) {
	p, err := ir.NewParams("n16", 16, ir.RingStandard, ir.SecretH192, []int{49, 45}, []int{50}, 45)
	if err != nil {
		t.Fatal(err)
	}
	sk := must[*SecretKey](t)(NewSecretKey(p))
	dir := t.TempDir()
	path, secret := filepath.Join(dir, "eval.hevk"), filepath.Join(dir, "secret.hsk")
	if err := sk.Save(secret); err != nil {
		t.Fatal(err)
	}
	if err := CreateKeySet(path, sk, p, []KeySpec{{ir.KeySparse, 0}, {ir.KeyRelin, 1}}, nil); err != nil {
		t.Fatal(err)
	}
	again := must[*SecretKey](t)(LoadSecretKey(secret))
	if n := must[int](t)(ExtendKeySet(path, again, p, []KeySpec{{ir.KeyDense, 1}, {ir.KeyConj, 1}, {ir.KeySparse, 0}, {3, 0}}, nil)); n != 3 {
		t.Errorf("extended by %d keys, want 3", n)
	}
	set := must[*KeySet](t)(OpenKeySet(path))
	defer set.Close()
	r := must[*rings](t)(newRings(p))
	s := r.expandSecret(sk.coef)
	weight := 0
	for _, c := range s.ephemeral {
		weight += int(c * c)
	}
	if weight != ir.EphemeralWeight {
		t.Fatalf("the ephemeral secret has weight %d", weight)
	}
	var perm kernels.Automorphism
	from, to, z := make([]uint64, r.n), make([]uint64, r.n), make([]uint64, r.n)
	for _, spec := range set.Specs() {
		slabs := keySlabs(p, spec)
		if err := set.Expand(spec, slabs); err != nil {
			t.Fatal(err)
		}
		rows := must[[][]uint64](t)(limbs(p, slabs, len(slabs)))
		primes := keyPrimes(p, spec)
		digits := len(rows) / 2 / len(primes)
		if g := spec.galois(p); g != 1 {
			r.automorphism(&perm, galoisInverse(p, g))
		}
		for d := range digits {
			for i, prime := range primes {
				m := r.mods[prime]
				r.keyPolys(s, spec.Rot, prime, from, to, &perm)
				b, a := rows[2*d*len(primes)+i], rows[(2*d+1)*len(primes)+i]
				m.Mul(z, a, to) // Montgomery form of a*to
				m.Add(z, z, b)
				m.MulConst(z, z, m.Plain(1))
				if prime == d { // one special prime, one prime to a digit
					m.MulConst(from, from, p.P[0]%m.Q)
					m.Sub(z, z, from)
				}
				m.INTT(z, z)
				sq := 0.0
				for k, x := range z {
					c := centre(x, m.Q)
					if c > gaussTail || c < -gaussTail {
						t.Fatalf("%s, digit %d, prime %d: coefficient %d has noise %d", spec, d, prime, k, c)
					}
					sq += float64(c * c)
				}
				if v := sq / float64(len(z)); v < 0.95*Sigma*Sigma || v > 1.05*Sigma*Sigma {
					t.Errorf("%s, digit %d, prime %d: noise of variance %g", spec, d, prime, v)
				}
			}
		}
	}
}

// TestWeakBootstrapRefused asks for the key to the ephemeral secret where no bound
// covers it.
func TestWeakBootstrapRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eval.hevk")
	sparse := []KeySpec{{ir.KeySparse, 0}}
	make16 := func(q0, p0 int) *ir.Params {
		p, err := ir.NewParams("n16", 16, ir.RingStandard, ir.SecretH192, []int{q0, 45}, []int{p0}, 45)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	n15, err := ir.NewParams("n15", 15, ir.RingStandard, ir.SecretH192, []int{49, 45}, []int{50}, 45)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    *ir.Params
		want string
	}{{n15, "no 128-bit bound is known for bootstrapping at N=2^15"}, {make16(61, 61), "exceeds 121"}} {
		sk := must[*SecretKey](t)(NewSecretKey(c.p))
		wantError(t, "key to the ephemeral secret", CreateKeySet(path, sk, c.p, sparse, nil), c.want)
		wantError(t, "the same, allowed but not stamped", CreateKeySet(path, sk, c.p, sparse, nil, AllowInsecure()), c.want)
		// A file that holds one is refused unless it is stamped.
		stamped := *c.p
		stamped.Insecure = true
		if err := CreateKeySet(path, sk, &stamped, sparse, nil, AllowInsecure()); err != nil {
			t.Fatal(err)
		}
		set := must[*KeySet](t)(OpenKeySet(path))
		if !set.Insecure() {
			t.Error("the set lost its stamp")
		}
		set.Close()
	}
	good := make16(49, 50)
	sk := must[*SecretKey](t)(NewSecretKey(good))
	wantError(t, "the key at level 1", CreateKeySet(path, sk, good, []KeySpec{{ir.KeySparse, 1}}, nil), "level 0 only")
	wantError(t, "an unknown key", CreateKeySet(path, sk, good, []KeySpec{{ir.KeySparse - 1, 0}}, nil), "no key -4")
	real := toyParams(t)
	sk = must[*SecretKey](t)(NewSecretKey(real, AllowInsecure()))
	for rot := ir.KeySparse; rot < 0; rot++ {
		wantError(t, "real ring", CreateKeySet(path, sk, real, []KeySpec{{rot, 0}}, nil, AllowInsecure()), "standard ring")
	}
}

// TestEphemeral: the ephemeral secret follows from the main one and from nothing
// else, and tells others apart.
func TestEphemeral(t *testing.T) {
	seed := newSeed()
	c := make([]int64, 1<<10)
	newStream(&seed, elementSecret, 0, 0).ternary(c, ir.SecretH192)
	a := ephemeral(c)
	if !slices.Equal(a, ephemeral(slices.Clone(c))) {
		t.Error("two ephemeral secrets of one main secret")
	}
	c[0] = 1 - c[0]
	b := ephemeral(c)
	common := 0
	for i := range a {
		if a[i] != 0 && b[i] != 0 {
			common++
		}
	}
	if common > 12 { // one in expectation
		t.Errorf("ephemeral secrets of different main ones share %d places", common)
	}
}

// owned returns an operand over the same limbs that belongs to e.
func owned(e *engine, o *operand) *operand {
	x := *o
	x.owner = e
	return &x
}
