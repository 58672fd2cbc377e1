package lattigo

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// KeySetMagic and KeySetVersion identify evaluation-key sets (.hevk).
const (
	KeySetMagic   = "HOMEEVKS"
	KeySetVersion = 2
)

// KeySpec names an evaluation key, usable at levels up to Level: a rotation by Rot
// slots to the left, or one of ir.KeyRelin, ir.KeyConj, ir.KeyDense, ir.KeySparse.
type KeySpec struct {
	Rot   int `cbor:"rot"`
	Level int `cbor:"level"`
}

// String prints the name for people.
func (s KeySpec) String() string { return fmt.Sprintf("%s for level %d", ir.KeyName(s.Rot), s.Level) }

// normal brings a rotation into 0..Slots-1 and checks rotation and level.
func (s KeySpec) normal(p *ir.Params) (KeySpec, error) {
	n, r := p.Slots(), s
	switch {
	case s.Rot >= n:
		if r.Rot = s.Rot % n; r.Rot == 0 {
			return r, fmt.Errorf("%s: a rotation by %d slots is the identity", s, n)
		}
	case s.Rot < ir.KeySparse:
		return r, fmt.Errorf("there is no key %d", s.Rot)
	case s.Rot < 0 && p.Ring != ir.RingStandard:
		return r, fmt.Errorf("%s: it needs the standard ring, not the %s one", s, p.Ring)
	}
	if s.Level < 0 || s.Level > p.MaxLevel() {
		return r, fmt.Errorf("%s: level outside 0..%d", s, p.MaxLevel())
	}
	if s.Rot == ir.KeySparse && s.Level != 0 {
		return r, fmt.Errorf("%s: it may exist for level 0 only", s)
	}
	return r, nil
}

// checkBootstrap recomputes, where the keys include the one to the ephemeral
// secret, whether that secret keeps 128 bits.
func checkBootstrap(p *ir.Params, keys []KeySpec) error {
	if slices.ContainsFunc(keys, func(k KeySpec) bool { return k.Rot == ir.KeySparse }) {
		return p.CheckBootstrap()
	}
	return nil
}

// A key set is a container with the section "meta" and one section per key: its
// seed, then the b halves digit by digit, limb by limb, packed. The uniform
// halves are expanded from the seed, which is fresh randomness for every key.
type keySetMeta struct {
	Params ir.Params   `cbor:"params"`
	Secret string      `cbor:"secret"` // id of the secret key
	Keys   []storedKey `cbor:"keys"`
}

type storedKey struct {
	Kind   string `cbor:"kind"`   // relinearisation, galois, dense or sparse
	Galois uint64 `cbor:"galois"` // Galois element, 1 where there is none
	Spec   KeySpec
	Draw   kernels.Draw `cbor:"draw,omitempty"` // how the uniform halves do from the seed
}

func (k storedKey) section() string { return fmt.Sprintf("%s/%d/%d", k.Kind, k.Galois, k.Spec.Level) }

func stored(p *ir.Params, s KeySpec, draw kernels.Draw) storedKey {
	kind := "galois"
	switch s.Rot {
	case ir.KeyRelin:
		kind = "relinearisation"
	case ir.KeyDense:
		kind = "dense"
	case ir.KeySparse:
		kind = "sparse"
	}
	return storedKey{kind, s.galois(p), s, draw}
}

// galois returns the Galois element of a key, 1 where there is none.
func (s KeySpec) galois(p *ir.Params) uint64 {
	switch {
	case s.Rot > 0:
		return rotation(p, s.Rot)
	case s.Rot == ir.KeyConj:
		return conjugation(p)
	}
	return 1
}

// missing returns the normalised specs that no key in have or among themselves
// covers, in a fixed order.
func missing(p *ir.Params, have, want []KeySpec) ([]KeySpec, error) {
	var out []KeySpec
	for _, s := range want {
		n, err := s.normal(p)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b KeySpec) int { return cmp.Or(a.Rot-b.Rot, b.Level-a.Level) })
	have = slices.Clone(have)
	return slices.DeleteFunc(out, func(s KeySpec) bool {
		if slices.ContainsFunc(have, func(h KeySpec) bool { return h.Rot == s.Rot && h.Level >= s.Level }) {
			return true
		}
		have = append(have, s)
		return false
	}), nil
}

// CreateKeySet generates the keys and writes them to a new file, one at a time
// in bounded memory. Specs that another covers are left out. progress, if not
// nil, is called before the first key and after each.
func CreateKeySet(path string, sk *SecretKey, p *ir.Params, specs []KeySpec, progress func(done, total int), opts ...Option) error {
	return writeKeySet(path, nil, sk, p, specs, progress, opts)
}

// ExtendKeySet adds the keys that a set lacks and returns how many; keys that it
// has are taken over unchanged. A set that does not exist is created. The old
// file is replaced only when the new one is complete.
func ExtendKeySet(path string, sk *SecretKey, p *ir.Params, specs []KeySpec, progress func(done, total int), opts ...Option) (int, error) {
	old, err := OpenKeySet(path)
	if errors.Is(err, fs.ErrNotExist) {
		todo, err := missing(p, nil, specs)
		if err != nil {
			return 0, err
		}
		return len(todo), CreateKeySet(path, sk, p, specs, progress, opts...)
	}
	if err != nil {
		return 0, err
	}
	defer old.Close()
	if err := old.Check(p, sk.ID()); err != nil {
		return 0, err
	}
	todo, err := missing(p, old.Specs(), specs)
	if err != nil || len(todo) == 0 {
		return 0, err
	}
	return len(todo), writeKeySet(path, old, sk, p, specs, progress, opts)
}

func writeKeySet(path string, old *KeySet, sk *SecretKey, p *ir.Params, specs []KeySpec, progress func(done, total int), opts []Option) error {
	if err := p.Check(); err != nil {
		return err
	}
	if err := checkSecurity(p, opts); err != nil {
		return err
	}
	if err := samePrimes(sk.String(), &sk.params, p); err != nil {
		return err
	}
	r, s, err := sk.expand()
	if err != nil {
		return err
	}
	meta := keySetMeta{Params: *p, Secret: sk.ID()}
	var have []KeySpec
	if old != nil {
		have = old.Specs()
		meta.Keys = slices.Clone(old.meta.Keys)
	}
	todo, err := missing(p, have, specs)
	if err != nil {
		return err
	}
	if err := checkBootstrap(p, todo); err != nil && !allowed(p, opts) {
		return err
	}
	for _, t := range todo {
		meta.Keys = append(meta.Keys, stored(p, t, kernels.DrawWide))
	}
	if progress == nil {
		progress = func(int, int) {}
	}
	return plan.WriteFile(path, plan.Options{Magic: KeySetMagic, Version: KeySetVersion, Insecure: p.Insecure, Mode: os.FileMode(0o644)}, func(w *plan.Writer) error {
		if err := w.Object("meta", meta); err != nil {
			return err
		}
		for _, k := range meta.Keys[:len(have)] {
			b, err := old.r.Section(k.section())
			if err != nil {
				return err
			}
			if err := w.Section(k.section(), b); err != nil {
				return err
			}
		}
		progress(0, len(todo))
		row := make([]uint64, r.n)
		var packed []byte
		for done, k := range meta.Keys[len(have):] {
			if err := w.Begin(k.section()); err != nil {
				return err
			}
			seed := newSeed()
			if _, err := w.Write(seed.key()[:]); err != nil {
				return err
			}
			err := r.makeKey(s, k.Spec, &seed,
				func(int, int) []uint64 { return row },
				func(_, _, prime int) error {
					packed = packRow(packed[:0], row, residueBytes(r.mods[prime].Q))
					_, err := w.Write(packed)
					return err
				})
			if err != nil {
				return err
			}
			progress(done+1, len(todo))
		}
		return nil
	})
}

// KeySet is an open evaluation-key set. Its methods may be called from several
// goroutines.
type KeySet struct {
	r    *plan.Reader
	path string
	meta keySetMeta
}

// OpenKeySet opens a key set and checks what it says of itself.
func OpenKeySet(path string) (*KeySet, error) {
	r, err := plan.OpenFile(path, KeySetMagic, KeySetVersion)
	if err != nil {
		return nil, err
	}
	k := &KeySet{r: r, path: path}
	if err := k.read(); err != nil {
		r.Close()
		return nil, err
	}
	return k, nil
}

func (k *KeySet) read() error {
	if err := k.r.Object("meta", &k.meta); err != nil {
		return err
	}
	if err := checkStored(k.path, &k.meta.Params, k.r.Insecure); err != nil {
		return err
	}
	if b, err := hex.DecodeString(k.meta.Secret); err != nil || len(b) != 16 {
		return fmt.Errorf("%s: %w: id of the secret key", k.path, plan.ErrCorrupt)
	}
	for _, s := range k.meta.Keys {
		n, err := s.Spec.normal(&k.meta.Params)
		if err != nil || s != stored(&k.meta.Params, n, s.Draw) || s.Draw >= kernels.Draws || !k.r.Has(s.section()) {
			return fmt.Errorf("%s: %w: %s", k.path, plan.ErrCorrupt, s.Spec)
		}
	}
	if err := checkBootstrap(&k.meta.Params, k.Specs()); err != nil && !k.r.Insecure {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	return nil
}

// Close closes the file.
func (k *KeySet) Close() error { return k.r.Close() }

// Params returns the parameters of the keys.
func (k *KeySet) Params() *ir.Params { return &k.meta.Params }

// SecretID returns the id of the secret key the set belongs to.
func (k *KeySet) SecretID() string { return k.meta.Secret }

// Insecure reports the stamp of --insecure-test-parameters.
func (k *KeySet) Insecure() bool { return k.r.Insecure }

// Specs lists the keys in file order.
func (k *KeySet) Specs() []KeySpec {
	s := make([]KeySpec, len(k.meta.Keys))
	for i, e := range k.meta.Keys {
		s[i] = e.Spec
	}
	return s
}

// Check refuses, by name, a set made for other parameters or for another secret
// key; an empty secretID is not compared.
func (k *KeySet) Check(p *ir.Params, secretID string) error {
	if err := samePrimes("key set "+k.path, &k.meta.Params, p); err != nil {
		return err
	}
	if secretID != "" && secretID != k.meta.Secret {
		return fmt.Errorf("key set %s belongs to secret key %s, not to %s", k.path, k.meta.Secret, secretID)
	}
	return nil
}

// Find returns the stored key of least level that serves what rot names (see
// KeySpec) at a level.
func (k *KeySet) Find(rot, level int) (KeySpec, bool) {
	e, ok := k.find(KeySpec{rot, level})
	return e.Spec, ok
}

func (k *KeySet) find(s KeySpec) (best storedKey, ok bool) {
	s, err := s.normal(&k.meta.Params)
	if err != nil {
		return best, false
	}
	for _, e := range k.meta.Keys {
		if e.Spec.Rot == s.Rot && e.Spec.Level >= s.Level && (!ok || e.Spec.Level < best.Spec.Level) {
			best, ok = e, true
		}
	}
	return best, ok
}

// Expand writes the key for want at exactly want.Level into slabs, in the layout
// of key objects: the stored key of least sufficient level, cut down. It reads
// and checks the whole stored key.
func (k *KeySet) Expand(want KeySpec, slabs [][]byte) error { return k.Parts(want, slabs, nil) }

// Parts is Expand for parts of a key: slabs of its uniform halves that are nil are
// left out, and seed, where it is not nil, receives the SeedBytes from which
// engine.Make computes them.
func (k *KeySet) Parts(want KeySpec, slabs [][]byte, seed []byte) error {
	p := &k.meta.Params
	all := slices.Clone(slabs)
	for i, s := range slabs {
		if s == nil {
			all[i] = slabs[0] // which must be there
		}
	}
	rows, err := limbs(p, all, p.Slabs(keyKind(want), want.Level))
	if err == nil && seed != nil && len(seed) != SeedBytes {
		err = fmt.Errorf("room for a seed of %d bytes, want %d", len(seed), SeedBytes)
	}
	stride := len(rows) / (2 * p.Digits(want.Level))
	for i := range rows {
		if slabs[i] != nil {
			continue
		}
		if rows[i] = nil; i/stride%2 == 0 {
			err = fmt.Errorf("slab %d is missing, and does not follow from a seed", i)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", k.path, want, err)
	}
	return k.load(want, func(from *Seed, digit, limb, prime int, q uint64) []uint64 {
		copy(seed, from[:])
		if a := rows[(2*digit+1)*stride+limb]; a != nil {
			keyUniform(p, from, digit, prime, q, a)
		}
		return rows[2*digit*stride+limb]
	})
}

// load reads the stored key of least level that serves want, and checks the whole
// of it. row returns where a row of its b half is to be put.
func (k *KeySet) load(want KeySpec, row func(seed *Seed, digit, limb, prime int, q uint64) []uint64) error {
	p := &k.meta.Params
	fail := func(err error) error { return fmt.Errorf("%s: %s: %w", k.path, want, err) }
	e, ok := k.find(want)
	if !ok {
		return fail(errors.New("the set holds no such key; extend it with keygen --extend"))
	}
	b, err := k.r.Section(e.section())
	if err != nil {
		return err
	}
	primes := keyPrimes(p, e.Spec)
	prime := func(i int) uint64 {
		if nq := len(p.Q); i >= nq {
			return p.P[i-nq]
		}
		return p.Q[i]
	}
	perDigit := 0
	for _, i := range primes {
		perDigit += p.N() * residueBytes(prime(i))
	}
	if len(b) != keyBytes+p.Digits(e.Spec.Level)*perDigit {
		return fail(fmt.Errorf("%w: %d bytes", plan.ErrCorrupt, len(b)))
	}
	seed := Seed{keyBytes: byte(e.Draw)}
	b = b[copy(seed[:keyBytes], b):]
	for d := range p.Digits(want.Level) {
		limb := 0
		for _, i := range primes {
			q := prime(i)
			size := p.N() * residueBytes(q)
			if i <= want.Level || i >= len(p.Q) {
				if err := unpackRow(row(&seed, d, limb, i, q), b[:size], q); err != nil {
					return fail(err)
				}
				limb++
			}
			b = b[size:]
		}
	}
	return nil
}
