package lattigo

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// secureParams is the smallest parameter set that reaches 128 bits.
func secureParams(t testing.TB, r ir.Ring) *ir.Params {
	p, err := ir.NewParams("n12", 12, r, ir.SecretTernary, []int{36, 28}, []int{37}, 28)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckSecurity(); err != nil {
		t.Fatal(err)
	}
	return p
}

// toyParams is small, quick and stamped insecure.
func toyParams(t testing.TB) *ir.Params {
	p, err := ir.NewParams("toy", 6, ir.RingReal, ir.SecretTernary, []int{45, 36, 36, 36, 36}, []int{40, 40}, 36)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	return p
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantError fails unless the message contains every part.
func wantError(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: accepted", what)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%s: error %q does not say %q", what, err, p)
		}
	}
}

func TestSecretKeyFile(t *testing.T) {
	p := toyParams(t)
	k := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	path := filepath.Join(t.TempDir(), "secret.hsk")
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	fi := must[os.FileInfo](t)(os.Stat(path))
	if runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o, want 0600", fi.Mode().Perm())
	}
	if err := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure())).Save(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key was saved over another one: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
	l := must[*SecretKey](t)(LoadSecretKey(path))
	if l.ID() != k.ID() || fmt.Sprint(l.coef) != fmt.Sprint(k.coef) {
		t.Error("loaded another key than was saved")
	}
	other := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	if other.ID() == k.ID() {
		t.Error("two keys share an id")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		if got := fmt.Sprintf(verb, k); got != "secret key "+k.ID() {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		_, err := LoadSecretKey(path)
		wantError(t, "key readable by the group", err, "0640", "chmod 600")
	}
}

func TestSecretDistribution(t *testing.T) {
	seed := newSeed()
	s := newStream(&seed, elementSecret, 0, 0)
	c := make([]int64, 1<<16)
	s.ternary(c, ir.SecretTernary)
	var count [3]float64
	for _, x := range c {
		count[x+1]++
	}
	for i, n := range count {
		// standard deviation of a count is sqrt(N*2/9) = 121
		if math.Abs(n-65536.0/3) > 6*121 {
			t.Errorf("value %d occurs %g times in 65536", i-1, n)
		}
	}
	s.ternary(c, ir.SecretH192)
	var weight, sum int64
	for _, x := range c {
		weight += x * x
		sum += x
	}
	if weight != 192 || sum < -84 || sum > 84 {
		t.Errorf("sparse secret has weight %d and sum %d", weight, sum)
	}
}

func TestGaussian(t *testing.T) {
	seed := newSeed()
	s := newStream(&seed, elementNoise, 0, 0)
	const n = 1 << 18
	var sum, sq float64
	hist := map[int64]float64{}
	for range n {
		x := s.gauss()
		sum += float64(x)
		sq += float64(x * x)
		hist[x]++
		if x > gaussTail || x < -gaussTail {
			t.Fatalf("drew %d", x)
		}
	}
	if mean := sum / n; math.Abs(mean) > 6*Sigma/math.Sqrt(n) {
		t.Errorf("mean %g", mean)
	}
	if v := sq / n; math.Abs(v-Sigma*Sigma) > 6*Sigma*Sigma*math.Sqrt(2.0/n) {
		t.Errorf("variance %g, want %g", v, Sigma*Sigma)
	}
	for x := int64(-6); x <= 6; x++ {
		p := math.Exp(-float64(x*x)/(2*Sigma*Sigma)) / (Sigma * math.Sqrt(2*math.Pi))
		if d := hist[x] - n*p; math.Abs(d) > 6*math.Sqrt(n*p) {
			t.Errorf("%d occurs %g times, want %g", x, hist[x], n*p)
		}
	}
}

func TestUniform(t *testing.T) {
	seed := newSeed()
	const q = 3 << 10 // a quarter of all words is rejected
	z := make([]uint64, 1<<18)
	uniformRow(z, q, &seed, rowName(elementKey, 0, 0))
	var hist [8]float64
	for _, x := range z {
		if x >= q {
			t.Fatalf("%d is not below %d", x, q)
		}
		hist[x*8/q]++
	}
	for i, n := range hist {
		if mean := float64(len(z)) / 8; math.Abs(n-mean) > 6*math.Sqrt(mean) {
			t.Errorf("eighth %d holds %g of %d", i, n, len(z))
		}
	}
}

// TestStreamsDiffer holds the streams of one seed against each other: element,
// digit and prime all separate them.
func TestStreamsDiffer(t *testing.T) {
	seed := newSeed()
	seen := map[uint64]string{}
	for _, element := range []uint16{elementKey, elementCipher} {
		for digit := range 8 {
			for _, prime := range []int{0, 1, 2, special, special + 1} {
				name := fmt.Sprint(element, digit, prime)
				s := newStream(&seed, element, digit, prime)
				for range 300 {
					w := s.word()
					if was, ok := seen[w]; ok {
						t.Fatalf("stream %s repeats a word of %s", name, was)
					}
					seen[w] = name
				}
			}
		}
	}
}

func TestWeakParametersRefused(t *testing.T) {
	weak, err := ir.NewParams("weak", 12, ir.RingReal, ir.SecretTernary, []int{45, 36, 36}, []int{40}, 36)
	if err != nil {
		t.Fatal(err)
	}
	stamped := *weak
	stamped.Insecure = true
	k := must[*SecretKey](t)(NewSecretKey(&stamped, AllowInsecure()))
	path := filepath.Join(t.TempDir(), "x")
	for _, c := range []struct {
		name string
		p    *ir.Params
		opts []Option
	}{{"unstamped", weak, nil}, {"unstamped but allowed", weak, []Option{AllowInsecure()}}, {"stamped but not allowed", &stamped, nil}} {
		_, err := NewSecretKey(c.p, c.opts...)
		wantError(t, c.name+" secret key", err, "exceeds 106")
		wantError(t, c.name+" key set", CreateKeySet(path, k, c.p, []KeySpec{{0, 1}}, nil, c.opts...), "exceeds 106")
		_, err = Encrypt(k, c.p, "", 1, nil, c.opts...)
		wantError(t, c.name+" encryption", err, "exceeds 106")
		_, err = Open(c.p, c.opts...)
		wantError(t, c.name+" engine", err, "exceeds 106")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a refused key set left a file")
	}
	// A file whose stamp was removed: the bound is recomputed from the primes.
	k.params.Insecure = false
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	_, err = LoadSecretKey(path)
	wantError(t, "weak key without stamp", err, "exceeds 106")
}

func keySlabs(p *ir.Params, k KeySpec) [][]byte {
	s := make([][]byte, p.Slabs(keyKind(k), k.Level))
	for i := range s {
		s[i] = make([]byte, p.SlabBytes())
	}
	return s
}

// TestKeySet makes a set, extends it, and uses every key at several levels.
func TestKeySet(t *testing.T) {
	p := toyParams(t)
	sk := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	path := filepath.Join(t.TempDir(), "eval.hevk")
	var calls []string
	progress := func(done, total int) { calls = append(calls, fmt.Sprintf("%d/%d", done, total)) }
	specs := []KeySpec{{0, 4}, {1, 3}, {1, 1}, {p.Slots() - 1, 2}, {5, 1}}
	if err := CreateKeySet(path, sk, p, specs, progress, AllowInsecure()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(calls, " "); got != "0/4 1/4 2/4 3/4 4/4" { // {1,1} is covered by {1,3}
		t.Errorf("progress %s", got)
	}
	set := must[*KeySet](t)(OpenKeySet(path))
	before := keySlabs(p, KeySpec{1, 3})
	if err := set.Expand(KeySpec{1, 3}, before); err != nil {
		t.Fatal(err)
	}
	set.Close()

	n := must[int](t)(ExtendKeySet(path, sk, p, []KeySpec{{1, 2}, {5, 4}, {7, 0}}, nil, AllowInsecure()))
	if n != 2 {
		t.Errorf("extended by %d keys, want 2", n)
	}
	if n := must[int](t)(ExtendKeySet(path, sk, p, specs, nil, AllowInsecure())); n != 0 {
		t.Errorf("extended by %d keys that were there", n)
	}
	set = must[*KeySet](t)(OpenKeySet(path))
	defer set.Close()
	after := keySlabs(p, KeySpec{1, 3})
	if err := set.Expand(KeySpec{1, 3}, after); err != nil {
		t.Fatal(err)
	}
	for i := range before {
		if !bytes.Equal(before[i], after[i]) {
			t.Fatal("extending changed a key that was there")
		}
	}
	if s, ok := set.Find(5, 1); !ok || s.Level != 1 {
		t.Errorf("Find(5, 1) = %v %v", s, ok)
	}
	if s, ok := set.Find(5, 2); !ok || s.Level != 4 {
		t.Errorf("Find(5, 2) = %v %v", s, ok)
	}
	if _, ok := set.Find(7, 1); ok {
		t.Error("found a key above its level")
	}
	wantError(t, "absent key", set.Expand(KeySpec{9, 0}, keySlabs(p, KeySpec{9, 0})), "key for rotation by 9", "--extend")

	// Every key works at every level it covers.
	e := must[*engine](t)(openEngine(p))
	c := &testClient{engine: e, s: e.expandSecret(sk.coef)}
	v := make([]float64, p.Slots())
	for i := range v {
		v[i] = math.Sin(float64(i))
	}
	for _, spec := range set.Specs() {
		for l := spec.Level; l >= 1; l-- {
			tk := ir.Type{Kind: ir.KeyKind, Level: l}
			slabs := conformance.Slabs(e, tk)
			if err := set.Expand(KeySpec{spec.Rot, l}, slabs); err != nil {
				t.Fatal(err)
			}
			key := must[*operand](t)(e.bind(tk, slabs))
			tc := ir.Type{Kind: ir.CipherKind, Level: l, Scale: ir.ScaleTwo(p.LogScale)}
			x := must[*operand](t)(e.bind(tc, conformance.Slabs(e, tc)))
			if err := c.Encrypt(v, x); err != nil {
				t.Fatal(err)
			}
			step, args := plan.Step{Op: ir.OpHERotate, Rot: spec.Rot}, []*operand{x, key}
			want := func(i int) float64 { return v[(i+spec.Rot)%len(v)] }
			if spec.Rot == 0 {
				step, args = plan.Step{Op: ir.OpHEMul}, []*operand{x, x, key}
				tc.Scale = tc.Scale.Mul(tc.Scale)
				want = func(i int) float64 { return v[i] * v[i] }
			}
			out := must[*operand](t)(e.bind(tc, conformance.Slabs(e, tc)))
			if err := e.exec(&step, args, out); err != nil {
				t.Fatal(err)
			}
			got := must[[]float64](t)(c.Decrypt(out))
			for i := range got {
				if math.Abs(got[i]-want(i)) > 1e-5 {
					t.Fatalf("%v used at level %d: slot %d is %g, want %g", spec, l, i, got[i], want(i))
				}
			}
		}
	}

	// Mismatches are refused by name.
	stranger := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	_, err := ExtendKeySet(path, stranger, p, specs, nil, AllowInsecure())
	wantError(t, "extend under another secret", err, sk.ID(), stranger.ID())
	other := *secureParams(t, ir.RingReal)
	wantError(t, "other parameters", set.Check(&other, ""), `"toy"`, `"n12"`)
	wantError(t, "secret of other parameters", CreateKeySet(path, sk, &other, specs, nil), `"toy"`, `"n12"`)
}

func openEngine(p *ir.Params) (*engine, error) {
	e, err := Open(p, AllowInsecure())
	if err != nil {
		return nil, err
	}
	return e.(*engine), nil
}

// TestStoredKeys reads every serialised key of 128-bit sets: its modulus must lie
// within the bound of the secret that it is encrypted under, no uniform half may
// occur twice, and b must not repeat either.
func TestStoredKeys(t *testing.T) {
	deep, err := ir.NewParams("n16", 16, ir.RingStandard, ir.SecretH192, []int{49, 45}, []int{50, 49}, 45)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p           *ir.Params
		specs, more []KeySpec // more has keys made again at another level
	}{
		{secureParams(t, ir.RingStandard), []KeySpec{{0, 1}, {1, 0}, {2, 1}}, []KeySpec{{1, 1}}},
		{secureParams(t, ir.RingReal), []KeySpec{{0, 1}, {1, 0}, {2, 1}}, []KeySpec{{1, 1}}},
		{deep, []KeySpec{{ir.KeySparse, 0}, {ir.KeyDense, 0}, {ir.KeyConj, 1}, {0, 0}}, []KeySpec{{ir.KeyDense, 1}}},
	} {
		p := c.p
		sk := must[*SecretKey](t)(NewSecretKey(p))
		dir := t.TempDir()
		path := filepath.Join(dir, "a.hevk")
		if err := CreateKeySet(path, sk, p, c.specs, nil); err != nil {
			t.Fatal(err)
		}
		must[int](t)(ExtendKeySet(path, sk, p, c.more, nil))
		again := filepath.Join(dir, "b.hevk")
		if err := CreateKeySet(again, sk, p, c.specs[:1], nil); err != nil {
			t.Fatal(err)
		}
		seen := map[[32]byte]string{}
		for path, want := range map[string]int{path: len(c.specs) + len(c.more), again: 1} {
			set := must[*KeySet](t)(OpenKeySet(path))
			if n := len(set.Specs()); n != want {
				t.Fatalf("%d keys, want %d", n, want)
			}
			for _, spec := range set.Specs() {
				slabs := keySlabs(p, spec)
				if err := set.Expand(spec, slabs); err != nil {
					t.Fatal(err)
				}
				cut := *set.Params()
				cut.Q = cut.Q[:spec.Level+1]
				check := cut.CheckSecurity
				if spec.Rot == ir.KeySparse {
					cut.P = cut.P[:1]
					check = cut.CheckBootstrap
					if cut.LogQP() > 121 {
						t.Errorf("%v: the ephemeral secret meets a modulus of %d bits", spec, cut.LogQP())
					}
				}
				if len(slabs) != 2*cut.Digits(spec.Level)*(len(cut.Q)+len(cut.P)) {
					t.Errorf("%v has %d limbs", spec, len(slabs))
				}
				if err := check(); err != nil {
					t.Errorf("%v: %v", spec, err)
				}
				if bound, ok := ir.SecurityBound(cut.Secret, cut.LogN); !ok || cut.LogQP() > bound {
					t.Errorf("%v: log2(QP)=%d exceeds %d", spec, cut.LogQP(), bound)
				}
				for i, s := range slabs {
					name := fmt.Sprintf("%s %v limb %d", filepath.Base(path), spec, i)
					h := sha256.Sum256(s)
					if was, ok := seen[h]; ok {
						t.Errorf("%s equals %s", name, was)
					}
					seen[h] = name
				}
			}
			set.Close()
		}
	}
}

func TestCiphertextFile(t *testing.T) {
	p := toyParams(t)
	sk := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	n := p.Slots()
	values := make([][]float64, 3)
	for i := range values {
		values[i] = make([]float64, n-i)
		for j := range values[i] {
			values[i][j] = math.Cos(float64(i*n + j))
		}
	}
	scale := ir.ScaleTwo(p.LogScale)
	c := must[*Ciphertexts](t)(Encrypt(sk, p, "client-7", 3, []PortValues{{"image", 3, scale, values}, {"side", 1, scale, values[:1]}}, AllowInsecure()))
	path := filepath.Join(t.TempDir(), "x.hct")
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	fi := must[os.FileInfo](t)(os.Stat(path))
	if most := int64(4096*4 + 3*(32+n*(6+3*5)) + 32 + n*(6+5)); fi.Size() > most {
		t.Errorf("file has %d bytes, a seeded one at most %d", fi.Size(), most)
	}
	c = must[*Ciphertexts](t)(LoadCiphertexts(path))
	if !c.Insecure() || c.Samples != 3 || c.Client != "client-7" {
		t.Errorf("meta %+v", c)
	}
	g := must[*CipherGroup](t)(c.Group("image"))
	near := func(what string, got, want []float64) {
		t.Helper()
		for j := range got {
			w := 0.0
			if j < len(want) {
				w = want[j]
			}
			if math.Abs(got[j]-w) > 1e-6 {
				t.Fatalf("%s: slot %d is %g, want %g", what, j, got[j], w)
			}
		}
	}
	for i, v := range must[[][]float64](t)(Decrypt(sk, c, g)) {
		near("fresh", v, values[i])
	}

	// The server loads (at a lower level too), packs results; the client decrypts.
	e := must[*engine](t)(openEngine(p))
	reply := c.Reply()
	for i := range g.Len() {
		tc := ir.Type{Kind: ir.CipherKind, Level: 2, Scale: scale}
		slabs := conformance.Slabs(e, tc)
		if err := g.Load(i, slabs); err != nil {
			t.Fatal(err)
		}
		if err := reply.Append("out", 2, scale, slabs); err != nil {
			t.Fatal(err)
		}
	}
	if err := reply.Save(path); err != nil {
		t.Fatal(err)
	}
	reply = must[*Ciphertexts](t)(LoadCiphertexts(path))
	out := must[*CipherGroup](t)(reply.Group("out"))
	for i, v := range must[[][]float64](t)(Decrypt(sk, reply, out)) {
		near("returned", v, values[i])
	}
	shared := must[[][]float64](t)(DecryptShared(sk, reply, out, 0.25))
	sq := 0.0
	for j, x := range shared[0] {
		sq += (x - values[0][j]) * (x - values[0][j])
	}
	if d := math.Sqrt(sq / float64(n)); d < 0.15 || d > 0.35 {
		t.Errorf("shared values deviate by %g, want 0.25", d)
	}

	stranger := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	_, err := Decrypt(stranger, reply, out)
	wantError(t, "decrypt under another secret", err, sk.ID(), stranger.ID())
	wantError(t, "other plan", c.Check(p, "client-8", ""), "client-7", "client-8")
	wantError(t, "other secret", c.Check(p, "", stranger.ID()), sk.ID(), stranger.ID())
	wantError(t, "other parameters", c.Check(secureParams(t, ir.RingReal), "", ""), `"toy"`, `"n12"`)
	wantError(t, "absent port", func() error { _, err := c.Group("nix"); return err }(), "nix")
	_, err = Encrypt(sk, p, "", 1, []PortValues{{"image", 0, scale, [][]float64{{1e9}}}}, AllowInsecure())
	wantError(t, "value too large", err, "image", "bits")
	_, err = Encrypt(sk, p, "", 1, []PortValues{{"image", 1, scale, [][]float64{{math.NaN()}}}}, AllowInsecure())
	wantError(t, "NaN", err, "image", "NaN")
	for _, s := range []ir.Scale{{Q: []int64{1 << 62, -1 << 62}}, {Two: math.MinInt64}, ir.ScalePrime(5)} {
		_, err = Encrypt(sk, p, "", 1, []PortValues{{"image", 1, s, values[:1]}}, AllowInsecure())
		wantError(t, "a scale no plan has", err, "image", "scale")
	}
}

// TestDecryptsToNoise: what wrapped around the modulus, or is no ciphertext at all, is
// refused instead of decrypted to numbers without meaning.
func TestDecryptsToNoise(t *testing.T) {
	for _, ring := range []ir.Ring{ir.RingReal, ir.RingStandard} {
		p, err := ir.NewParams("toy", 8, ring, ir.SecretTernary, []int{45, 36, 36}, []int{46}, 36)
		if err != nil {
			t.Fatal(err)
		}
		p.Insecure = true
		sk := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
		e := must[*engine](t)(openEngine(p))
		v := make([]float64, p.Slots())
		for i := range v {
			v[i] = math.Sin(float64(i * i))
		}
		scale, by := ir.ScaleTwo(36), ir.ScaleTwo(20)
		x := must[*Ciphertexts](t)(Encrypt(sk, p, "", 1, []PortValues{{"x", 1, scale, [][]float64{v}}}, AllowInsecure()))
		// level 1 holds 81 bits, of which the scale of the product takes 56
		for _, c := range []struct {
			factor float64
			noise  bool
		}{{1, false}, {1 << 20, false}, {1 << 28, true}, {1 << 40, true}} {
			tc := ir.Type{Kind: ir.CipherKind, Level: 1, Scale: scale}
			slabs := conformance.Slabs(e, tc)
			if err := x.Groups[0].Load(0, slabs); err != nil {
				t.Fatal(err)
			}
			a := must[*operand](t)(e.bind(tc, slabs))
			tc.Scale = scale.Mul(by)
			out := conformance.Slabs(e, tc)
			if err := e.exec(&plan.Step{Op: ir.OpHEMulConst, Const: c.factor, Scale: by}, []*operand{a}, must[*operand](t)(e.bind(tc, out))); err != nil {
				t.Fatal(err)
			}
			y := x.Reply()
			if err := y.Append("y", 1, tc.Scale, out); err != nil {
				t.Fatal(err)
			}
			got, err := Decrypt(sk, y, y.Groups[0])
			if errors.Is(err, ErrNoise) != c.noise || !c.noise && err != nil {
				t.Errorf("%s ring, times %g: error %v", ring, c.factor, err)
			}
			if !c.noise && math.Abs(got[0][3]-v[3]*c.factor) > 1e-3*c.factor {
				t.Errorf("%s ring: %g, want %g", ring, got[0][3], v[3]*c.factor)
			}
			if _, err := DecryptShared(sk, y, y.Groups[0], 1); errors.Is(err, ErrNoise) != c.noise {
				t.Errorf("%s ring, times %g, shared: error %v", ring, c.factor, err)
			}
		}
		// It is what a fresh ciphertext has.
		sq := 0.0
		for i, u := range must[[][]float64](t)(Decrypt(sk, x, x.Groups[0]))[0] {
			sq += (u - v[i]) * (u - v[i])
		}
		if got, want := math.Sqrt(sq/float64(len(v))), LeastNoise(p, scale); got < want*0.7 || got > want*1.4 {
			t.Errorf("%s ring: a fresh ciphertext has noise %g, LeastNoise says %g", ring, got, want)
		}
	}
}

// TestFreshRandomness: two encryptions of the same values share nothing.
func TestFreshRandomness(t *testing.T) {
	p := toyParams(t)
	sk := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	same := [][]float64{{1}, {1}}
	seen := map[string]bool{}
	for range 2 {
		c := must[*Ciphertexts](t)(Encrypt(sk, p, "", 1, []PortValues{{"x", 0, ir.ScaleTwo(30), same}}, AllowInsecure()))
		g := c.Groups[0]
		for i := range g.Len() {
			b := g.data[i*g.size() : (i+1)*g.size()]
			for _, part := range []string{string(b[:keyBytes]), string(b[keyBytes:])} {
				if seen[part] {
					t.Fatal("a seed or a ciphertext occurs twice")
				}
				seen[part] = true
			}
		}
	}
}

// TestDamagedFiles cuts and flips every kind of file: each damage must be refused
// when the part is read, by an error that says the file is damaged.
func TestDamagedFiles(t *testing.T) {
	p := toyParams(t)
	dir := t.TempDir()
	sk := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	secret, keys, cts := filepath.Join(dir, "s.hsk"), filepath.Join(dir, "k.hevk"), filepath.Join(dir, "c.hct")
	c := must[*Ciphertexts](t)(Encrypt(sk, p, "", 1, []PortValues{{"x", 1, ir.ScaleTwo(30), [][]float64{{1}}}}, AllowInsecure()))
	for _, err := range []error{sk.Save(secret), CreateKeySet(keys, sk, p, []KeySpec{{1, 1}}, nil, AllowInsecure()), c.Save(cts)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	read := map[string]func(string) error{
		secret: func(f string) error { _, err := LoadSecretKey(f); return err },
		cts:    func(f string) error { _, err := LoadCiphertexts(f); return err },
		keys: func(f string) error {
			k, err := OpenKeySet(f)
			if err != nil {
				return err
			}
			defer k.Close()
			return k.Expand(KeySpec{1, 1}, keySlabs(p, KeySpec{1, 1}))
		},
	}
	for _, path := range []string{secret, keys, cts} {
		good := must[[]byte](t)(os.ReadFile(path))
		if err := read[path](path); err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(dir, "bad")
		try := func(what string, b []byte) {
			t.Helper()
			if err := os.WriteFile(bad, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := read[path](bad); !errors.Is(err, plan.ErrCorrupt) && !errors.Is(err, plan.ErrVersion) {
				t.Errorf("%s, %s: error %v", filepath.Base(path), what, err)
			}
		}
		for _, n := range []int{0, 7, 47, 100, 4096, len(good) / 2, len(good) - 1} {
			try(fmt.Sprintf("cut to %d bytes", n), good[:n])
		}
		try("with a byte more", append(bytes.Clone(good), 0))
		var payload []int // the bytes that carry something
		for at := range good {
			if at < 48 || at >= plan.PageBytes && !padding(good, at) {
				payload = append(payload, at)
			}
		}
		for i := 0; i < len(payload); i += 1 + len(payload)/100 {
			b := bytes.Clone(good)
			b[payload[i]] ^= 0x40
			try(fmt.Sprintf("byte %d flipped", payload[i]), b)
		}
	}
	for path, f := range read {
		for other := range read {
			if other != path {
				if err := f(other); !errors.Is(err, plan.ErrCorrupt) && err == nil {
					t.Errorf("%s read as %s", filepath.Base(other), filepath.Base(path))
				}
			}
		}
	}
}

// padding reports whether the byte belongs to the zeros that fill a page.
func padding(b []byte, at int) bool {
	end := (at/plan.PageBytes + 1) * plan.PageBytes
	if end > len(b) {
		return false // the table is not padded
	}
	return len(bytes.Trim(b[at:end], "\x00")) == 0
}

func TestParamsFingerprint(t *testing.T) {
	p := toyParams(t)
	f := ParamsFingerprint(p)
	same := *p
	same.Name, same.LogScale, same.Insecure = "other", 30, false
	if ParamsFingerprint(&same) != f {
		t.Error("name, scale or stamp changes the fingerprint")
	}
	for name, change := range map[string]func(*ir.Params){
		"ring":   func(p *ir.Params) { p.Ring = ir.RingStandard },
		"secret": func(p *ir.Params) { p.Secret = ir.SecretH192 },
		"degree": func(p *ir.Params) { p.LogN++ },
		"split":  func(p *ir.Params) { p.Q, p.P = p.Q[:4], append([]uint64{p.Q[4]}, p.P...) },
		"prime":  func(p *ir.Params) { p.Q = append([]uint64{p.Q[0] + 2}, p.Q[1:]...) },
	} {
		q := *p
		change(&q)
		if ParamsFingerprint(&q) == f {
			t.Errorf("another %s has the same fingerprint", name)
		}
	}
}

// TestForeignMemory: slabs may lie anywhere the caller likes, such as a mapped
// file; nothing is copied.
func TestForeignMemory(t *testing.T) {
	e := must[*engine](t)(openEngine(toyParams(t)))
	tc := ir.Type{Kind: ir.CipherKind, Level: 0, Scale: ir.ScaleTwo(30)}
	slabs := conformance.Slabs(e, tc)
	o := must[*operand](t)(e.bind(tc, slabs))
	if unsafe.Pointer(&slabs[1][0]) != unsafe.Pointer(&o.rows[1][0]) {
		t.Error("the operand does not alias the slab")
	}
	slabs[0] = slabs[0][8:]
	_, err := e.Bind(tc, slabs)
	wantError(t, "short slab", err, "bytes")
}

// TestHostileFiles writes well-formed containers that say impossible things of
// themselves: each must be refused, none may panic or allocate without bound.
func TestHostileFiles(t *testing.T) {
	p := toyParams(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "hostile")
	write := func(magic string, mode os.FileMode, meta any, sections map[string][]byte) {
		t.Helper()
		err := plan.WriteFile(path, plan.Options{Magic: magic, Version: 1, Insecure: true, Mode: mode}, func(w *plan.Writer) error {
			if err := w.Object("meta", meta); err != nil {
				return err
			}
			for _, n := range []string{"secret", "galois/5/1", "ciphertexts/0"} {
				if b, ok := sections[n]; ok {
					if err := w.Section(n, b); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	id := strings.Repeat("ab", 16)
	params := func(change func(*ir.Params)) ir.Params {
		q := *p
		change(&q)
		return q
	}
	hostile := map[string]ir.Params{
		"degree of 2^60":   params(func(p *ir.Params) { p.LogN = 60 }),
		"negative degree":  params(func(p *ir.Params) { p.LogN = -1 }),
		"no special prime": params(func(p *ir.Params) { p.P = nil }),
		"a composite":      params(func(p *ir.Params) { p.Q = []uint64{p.Q[0], 1<<20 + 1} }),
		"a prime twice":    params(func(p *ir.Params) { p.Q = []uint64{p.Q[0], p.Q[0]} }),
		"unknown ring":     params(func(p *ir.Params) { p.Ring = "x" }),
	}
	for name, q := range hostile {
		write(SecretMagic, 0o600, secretMeta{q, make([]byte, 16)}, map[string][]byte{"secret": make([]byte, 64)})
		_, err := LoadSecretKey(path)
		wantError(t, "secret key with "+name, err, "parameters")
		write(KeySetMagic, 0, keySetMeta{Params: q, Secret: id}, nil)
		_, err = OpenKeySet(path)
		wantError(t, "key set with "+name, err, "parameters")
		write(CiphertextMagic, 0, cipherMeta{Params: q, Secret: id}, nil)
		_, err = LoadCiphertexts(path)
		wantError(t, "ciphertexts with "+name, err, "parameters")
	}
	for name, b := range map[string][]byte{"short": make([]byte, 63), "long": make([]byte, 65), "of digits beyond ternary": bytes.Repeat([]byte{3}, 64)} {
		write(SecretMagic, 0o600, secretMeta{*p, make([]byte, 16)}, map[string][]byte{"secret": b})
		_, err := LoadSecretKey(path)
		wantError(t, "secret "+name, err, "damaged")
	}
	sparse := params(func(p *ir.Params) { p.Secret = ir.SecretH192; p.LogN = 6 })
	write(SecretMagic, 0o600, secretMeta{sparse, make([]byte, 16)}, map[string][]byte{"secret": bytes.Repeat([]byte{1}, 64)})
	_, err := LoadSecretKey(path)
	wantError(t, "sparse secret of weight zero", err, "weight 0")

	key := storedKey{"galois", 5, KeySpec{1, 1}, 1}
	for name, m := range map[string]keySetMeta{
		"a level too high":          {*p, id, []storedKey{{"galois", 5, KeySpec{1, 5}, 1}}},
		"a negative level":          {*p, id, []storedKey{{"galois", 5, KeySpec{1, -1}, 1}}},
		"a rotation too far":        {*p, id, []storedKey{{"galois", 5, KeySpec{1 << 40, 1}, 1}}},
		"a key that is absent":      {*p, id, []storedKey{{"galois", 25, KeySpec{2, 1}, 1}}},
		"a key of another kind":     {*p, id, []storedKey{{"galois", 5, KeySpec{0, 1}, 1}}},
		"a key of another rotation": {*p, id, []storedKey{{"galois", 5, KeySpec{2, 1}, 1}}},
		"a way to draw of later":    {*p, id, []storedKey{{"galois", 5, KeySpec{1, 1}, 2}}},
		"no secret":                 {*p, "", []storedKey{key}},
	} {
		write(KeySetMagic, 0, m, map[string][]byte{"galois/5/1": nil})
		_, err := OpenKeySet(path)
		wantError(t, "key set with "+name, err, "damaged")
	}
	full := keyBytes + p.N()*(6+5+5+5)
	for name, b := range map[string][]byte{"empty": nil, "short": make([]byte, full-1), "long": make([]byte, full+1), "with residues out of range": bytes.Repeat([]byte{0xff}, full)} {
		write(KeySetMagic, 0, keySetMeta{*p, id, []storedKey{key}}, map[string][]byte{"galois/5/1": b})
		set := must[*KeySet](t)(OpenKeySet(path))
		wantError(t, "key that is "+name, set.Expand(KeySpec{1, 1}, keySlabs(p, KeySpec{1, 1})), "damaged")
		set.Close()
	}

	good := groupMeta{"x", 1, ir.ScaleTwo(30), true, 1, 1}
	one := make([]byte, keyBytes+p.N()*(6+5))
	for name, change := range map[string]func(*groupMeta){
		"a level too high":         func(g *groupMeta) { g.Level = 5 },
		"a negative level":         func(g *groupMeta) { g.Level = -1 },
		"a negative count":         func(g *groupMeta) { g.Count = -1 },
		"a huge count":             func(g *groupMeta) { g.Count = math.MaxInt },
		"a huge scale":             func(g *groupMeta) { g.Scale = ir.Scale{Two: math.MaxInt64} },
		"a scale of absent primes": func(g *groupMeta) { g.Scale = ir.ScalePrime(60) },
		"a scale of huge powers":   func(g *groupMeta) { g.Scale = ir.Scale{Q: []int64{math.MaxInt64}} },
		"the wrong form":           func(g *groupMeta) { g.Fresh = false },
		"a way to draw of later":   func(g *groupMeta) { g.Draw = 2 },
	} {
		g := good
		change(&g)
		write(CiphertextMagic, 0, cipherMeta{*p, id, "", 1, []groupMeta{g}}, map[string][]byte{"ciphertexts/0": one})
		_, err := LoadCiphertexts(path)
		wantError(t, "ciphertexts with "+name, err, "damaged")
	}
	for _, n := range []int{-1, math.MaxInt} {
		write(CiphertextMagic, 0, cipherMeta{*p, id, "", n, []groupMeta{good}}, map[string][]byte{"ciphertexts/0": one})
		_, err := LoadCiphertexts(path)
		wantError(t, "an impossible number of samples", err, "damaged")
	}
	write(CiphertextMagic, 0, cipherMeta{*p, id, "", 1, []groupMeta{good, good}}, map[string][]byte{"ciphertexts/0": one})
	_, err = LoadCiphertexts(path)
	wantError(t, "a port twice", err, "damaged")
	write(CiphertextMagic, 0, cipherMeta{*p, id, "", 1, []groupMeta{good}}, map[string][]byte{"ciphertexts/0": bytes.Repeat([]byte{0xff}, len(one))})
	c := must[*Ciphertexts](t)(LoadCiphertexts(path))
	slabs := make([][]byte, 4)
	for i := range slabs {
		slabs[i] = make([]byte, p.SlabBytes())
	}
	wantError(t, "residues out of range", c.Groups[0].Load(0, slabs), "damaged")
	wantError(t, "a ciphertext beyond the last", c.Groups[0].Load(1, slabs), "no ciphertext")
	wantError(t, "a level beyond the ciphertext's", c.Groups[0].Load(0, make([][]byte, 6)), "level 2")
}
