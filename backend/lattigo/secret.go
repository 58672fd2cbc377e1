package lattigo

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// SecretMagic and SecretVersion identify secret key files (.hsk).
const (
	SecretMagic   = "HOMESECR"
	SecretVersion = 1
)

// SecretKey is the client's secret. It prints as its id, never as its content. It
// may be used from several goroutines.
type SecretKey struct {
	params ir.Params
	id     [16]byte
	coef   []int64

	once     sync.Once // the expansion, made when first needed
	rings    *rings
	expanded *secret
	err      error
}

// expand returns the tables of the key's parameters and the key modulo every
// prime. Both are read-only and shared by all calls.
func (k *SecretKey) expand() (*rings, *secret, error) {
	k.once.Do(func() {
		if k.rings, k.err = newRings(&k.params); k.err == nil {
			k.expanded = k.rings.expandSecret(k.coef)
		}
	})
	return k.rings, k.expanded, k.err
}

// NewSecretKey draws a secret key. The id is random and independent of the key.
// It recomputes the security of the parameters and refuses weak ones, unless
// they are stamped insecure and AllowInsecure is given.
func NewSecretKey(p *ir.Params, opts ...Option) (*SecretKey, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := checkSecurity(p, opts); err != nil {
		return nil, err
	}
	k := &SecretKey{params: *p, coef: make([]int64, p.N())}
	rand.Read(k.id[:])
	seed := newSeed()
	newStream(&seed, elementSecret, 0, 0).ternary(k.coef, p.Secret)
	clear(seed[:])
	return k, nil
}

// ID returns the fingerprint by which keys and ciphertexts name the secret key.
func (k *SecretKey) ID() string { return hex.EncodeToString(k.id[:]) }

// Params returns the parameters the key was made for.
func (k *SecretKey) Params() *ir.Params { return &k.params }

// String names the key without revealing it.
func (k *SecretKey) String() string { return "secret key " + k.ID() }

// Format prints the key's name whatever the verb, so that no format string can
// reveal it.
func (k *SecretKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

type secretMeta struct {
	Params ir.Params `cbor:"params"`
	ID     []byte    `cbor:"id"`
}

// Save writes the key with mode 0600 into a new file. A file that exists is never
// replaced: it may be the only key to somebody's results. The error then is
// fs.ErrExist.
func (k *SecretKey) Save(path string) error {
	release, err := k.SaveProvisional(path)
	if err == nil {
		release()
	}
	return err
}

// SaveProvisional is Save for a key that is of no use yet: an interrupt removes
// the file until release is called.
func (k *SecretKey) SaveProvisional(path string) (release func(), err error) {
	o := plan.Options{Magic: SecretMagic, Version: SecretVersion, Insecure: k.params.Insecure, Mode: 0o600, New: true, Provisional: &release}
	err = plan.WriteFile(path, o, func(w *plan.Writer) error {
		if err := w.Object("meta", secretMeta{k.params, k.id[:]}); err != nil {
			return err
		}
		b := make([]byte, len(k.coef))
		for i, c := range k.coef {
			b[i] = byte(c + 1)
		}
		return w.Section("secret", b)
	})
	return release, err
}

// LoadSecretKey reads a key. It refuses a file that others may read.
func LoadSecretKey(path string) (*SecretKey, error) {
	if fi, err := os.Stat(path); err == nil && fi.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s has mode %04o: a secret key must be readable by its owner alone (chmod 600 %s)", path, fi.Mode().Perm(), path)
	}
	r, err := plan.OpenFile(path, SecretMagic, SecretVersion)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var m secretMeta
	if err := r.Object("meta", &m); err != nil {
		return nil, err
	}
	if err := checkStored(path, &m.Params, r.Insecure); err != nil {
		return nil, err
	}
	b, err := r.Section("secret")
	if err != nil {
		return nil, err
	}
	k := &SecretKey{params: m.Params, coef: make([]int64, m.Params.N())}
	if len(m.ID) != len(k.id) || len(b) != len(k.coef) {
		return nil, fmt.Errorf("%s: %w: %d coefficients", path, plan.ErrCorrupt, len(b))
	}
	copy(k.id[:], m.ID)
	weight := 0
	for i, c := range b {
		if c > 2 {
			return nil, fmt.Errorf("%s: %w: the secret is not ternary", path, plan.ErrCorrupt)
		}
		k.coef[i] = int64(c) - 1
		weight += int(k.coef[i] & 1)
	}
	if want := secretWeight(len(b)); m.Params.Secret == ir.SecretH192 && weight != want {
		return nil, fmt.Errorf("%s: %w: the secret has weight %d, want %d", path, plan.ErrCorrupt, weight, want)
	}
	return k, nil
}
