package lattigo

import (
	"fmt"
)

// MomentaryKeys makes evaluation keys straight into the memory they are used from,
// for a process that plays all roles for as long as it takes to measure something.
// Keys that are kept belong into a set, see CreateKeySet. It may be used from
// several goroutines.
type MomentaryKeys struct {
	sk   *SecretKey
	opts []Option
}

// NewMomentaryKeys makes keys for a secret key.
func NewMomentaryKeys(sk *SecretKey, opts ...Option) *MomentaryKeys {
	return &MomentaryKeys{sk, opts}
}

// ID identifies the secret key.
func (m *MomentaryKeys) ID() string { return m.sk.ID() }

// Key makes the key that rotates by rot slots to the left, or that ir.KeyRelin and
// the like name, in as many slabs as a key of the level has. seed, where it is not
// nil, receives the seed of its uniform halves. Weak parameters are refused, see
// NewSecretKey.
func (m *MomentaryKeys) Key(rot, level int, dst [][]byte, seed []byte) error {
	p := &m.sk.params
	k, err := KeySpec{rot, level}.normal(p)
	if err == nil {
		err = checkSecurity(p, m.opts)
	}
	if err == nil && !allowed(p, m.opts) {
		err = checkBootstrap(p, []KeySpec{k})
	}
	if err != nil {
		return err
	}
	rows, err := limbs(p, dst, p.Slabs(keyKind(k), k.Level))
	if err == nil && seed != nil && len(seed) != SeedBytes {
		err = fmt.Errorf("room for a seed of %d bytes, want %d", len(seed), SeedBytes)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	r, s, err := m.sk.expand()
	if err != nil {
		return err
	}
	from := newSeed()
	copy(seed, from[:])
	stride := len(rows) / (2 * p.Digits(k.Level))
	return r.makeKey(s, k, &from,
		func(digit, limb int) []uint64 { return rows[2*digit*stride+limb] },
		func(digit, limb, prime int) error {
			keyUniform(p, &from, digit, prime, r.mods[prime].Q, rows[(2*digit+1)*stride+limb])
			return nil
		})
}
