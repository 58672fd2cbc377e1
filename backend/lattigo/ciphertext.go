package lattigo

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// CiphertextMagic and CiphertextVersion identify ciphertext files (.hct).
const (
	CiphertextMagic   = "HOMECIPH"
	CiphertextVersion = 2
)

// maxSamples bounds the samples that a file may speak of, far beyond what a disk
// holds, so that arithmetic on their number cannot overflow.
const maxSamples = 1 << 40

// Ciphertexts is the content of a .hct file: the encrypted values of one or more
// ports of a network. Ciphertexts are held packed; fresh ones as a seed and c0.
type Ciphertexts struct {
	Params   ir.Params // of keys and ciphertexts
	SecretID string    // secret key that decrypts them
	Client   string    // fingerprint of the plan and client file they belong to
	Samples  int       // samples along the first axis of the ports
	Groups   []*CipherGroup
}

// CipherGroup is the ciphertexts of one port, in the order of its layout, sample
// batch after sample batch.
type CipherGroup struct {
	Port  string
	Level int
	Scale ir.Scale
	Fresh bool // c1 expands from a seed

	p    *ir.Params
	draw kernels.Draw // how c1 does
	data []byte
}

// PortValues is what is to be encrypted for one port: one vector of slots, up to
// Params.Slots long, per ciphertext.
type PortValues struct {
	Port   string
	Level  int
	Scale  ir.Scale
	Values [][]float64
}

// Insecure reports the stamp of --insecure-test-parameters.
func (c *Ciphertexts) Insecure() bool { return c.Params.Insecure }

// size returns the bytes of one packed ciphertext.
func (g *CipherGroup) size() int {
	poly := 0
	for _, q := range g.p.Q[:g.Level+1] {
		poly += g.p.N() * residueBytes(q)
	}
	if g.Fresh {
		return keyBytes + poly
	}
	return 2 * poly
}

// Len returns the number of ciphertexts.
func (g *CipherGroup) Len() int { return len(g.data) / g.size() }

// Bytes returns the memory that the ciphertexts take.
func (c *Ciphertexts) Bytes() int64 {
	n := int64(0)
	for _, g := range c.Groups {
		n += int64(cap(g.data))
	}
	return n
}

// Group returns the ciphertexts of a port.
func (c *Ciphertexts) Group(port string) (*CipherGroup, error) {
	for _, g := range c.Groups {
		if g.Port == port {
			return g, nil
		}
	}
	return nil, fmt.Errorf("the file holds no ciphertexts for %q", port)
}

// Encrypt encrypts the values of the ports under the secret key, with fresh
// randomness for every ciphertext. client is the fingerprint of the client file,
// samples the number of samples along the first axis. Weak parameters are
// refused, see NewSecretKey; so are values that do not fit their scale.
func Encrypt(sk *SecretKey, p *ir.Params, client string, samples int, ports []PortValues, opts ...Option) (*Ciphertexts, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := checkSecurity(p, opts); err != nil {
		return nil, err
	}
	if err := samePrimes(sk.String(), &sk.params, p); err != nil {
		return nil, err
	}
	r, s, err := sk.expand()
	if err != nil {
		return nil, err
	}
	c := &Ciphertexts{Params: *p, SecretID: sk.ID(), Client: client, Samples: samples}
	work, coef := make([]complex128, r.enc.n), make([]float64, r.n)
	noiseSeed := newSeed()
	noise := newStream(&noiseSeed, elementNoise, 0, 0)
	for _, v := range ports {
		if v.Level < 0 || v.Level > p.MaxLevel() {
			return nil, fmt.Errorf("%s: level %d is outside 0..%d", v.Port, v.Level, p.MaxLevel())
		}
		if err := v.Scale.Check(len(p.Q)); err != nil {
			return nil, fmt.Errorf("%s: %w", v.Port, err)
		}
		g := &CipherGroup{Port: v.Port, Level: v.Level, Scale: v.Scale, Fresh: true, p: &c.Params, draw: kernels.DrawWide}
		rows := makeRows(2*(v.Level+1), r.n)
		for i, x := range v.Values {
			if len(x) > p.Slots() {
				return nil, fmt.Errorf("%s: %d values for %d slots", v.Port, len(x), p.Slots())
			}
			d := ir.SlotData{Period: p.Slots(), Value: x, Index: make([]int32, len(x))}
			for j := range x {
				d.Index[j] = int32(j)
			}
			big, err := r.enc.coefs(&d, v.Scale.Float64(p.Q), work, coef)
			if err == nil {
				err = r.fits(big, v.Level)
			}
			if err != nil {
				return nil, fmt.Errorf("%s, ciphertext %d: %w", v.Port, i, err)
			}
			seed := newSeed()
			r.encryptRows(s, &seed, noise, coef, v.Level, rows[:v.Level+1], rows[v.Level+1:])
			g.data = append(g.data, seed[:keyBytes]...)
			for k, row := range rows[:v.Level+1] {
				g.data = packRow(g.data, row, residueBytes(p.Q[k]))
			}
		}
		c.Groups = append(c.Groups, g)
	}
	return c, nil
}

// Reply returns an empty file for results computed from c: same parameters,
// secret, client and samples.
func (c *Ciphertexts) Reply() *Ciphertexts {
	return &Ciphertexts{Params: c.Params, SecretID: c.SecretID, Client: c.Client, Samples: c.Samples}
}

// Grow makes room for n results of a port, so that Append moves nothing. Level
// and scale are those that Append will be given.
func (c *Ciphertexts) Grow(port string, level int, scale ir.Scale, n int) error {
	if level < 0 || level > c.Params.MaxLevel() {
		return fmt.Errorf("%s: level %d is outside 0..%d", port, level, c.Params.MaxLevel())
	}
	g, err := c.Group(port)
	if err != nil {
		g = &CipherGroup{Port: port, Level: level, Scale: scale, p: &c.Params}
		c.Groups = append(c.Groups, g)
	}
	g.data = slices.Grow(g.data, n*g.size())
	return nil
}

// Append packs a ciphertext object (slabs in the layout of ciphertexts) behind
// those of the port; level and scale must agree with them.
func (c *Ciphertexts) Append(port string, level int, scale ir.Scale, slabs [][]byte) error {
	if level < 0 || level > c.Params.MaxLevel() {
		return fmt.Errorf("%s: level %d is outside 0..%d", port, level, c.Params.MaxLevel())
	}
	g, err := c.Group(port)
	if err != nil {
		g = &CipherGroup{Port: port, Level: level, Scale: scale, p: &c.Params}
		c.Groups = append(c.Groups, g)
	}
	if g.Fresh || g.Level != level || !g.Scale.Equal(scale) {
		return fmt.Errorf("%s: level %d and scale %s do not continue level %d and scale %s", port, level, scale, g.Level, g.Scale)
	}
	rows, err := limbs(g.p, slabs, 2*(level+1))
	if err != nil {
		return fmt.Errorf("%s: %w", port, err)
	}
	for i, row := range rows {
		g.data = packRow(g.data, row, residueBytes(g.p.Q[i%(level+1)]))
	}
	return nil
}

// Packed returns the ciphertexts of a port in the form in which Append packs them.
// It is valid until the next Append.
func (c *Ciphertexts) Packed(port string) []byte {
	g, err := c.Group(port)
	if err != nil {
		return nil
	}
	return g.data
}

// AppendPacked appends to the ciphertexts of a port, for which Grow was called, what
// Packed returned for them.
func (c *Ciphertexts) AppendPacked(port string, packed []byte) error {
	g, err := c.Group(port)
	if err != nil {
		return err
	}
	if len(packed)%g.size() != 0 {
		return fmt.Errorf("%s: %d bytes are no ciphertexts of %d", port, len(packed), g.size())
	}
	g.data = append(g.data, packed...)
	return nil
}

// PackedBytes returns the size of a ciphertext of a port, for which Grow was called,
// in that form.
func (c *Ciphertexts) PackedBytes(port string) (int, error) {
	g, err := c.Group(port)
	if err != nil {
		return 0, err
	}
	return g.size(), nil
}

// Load writes ciphertext i into slabs, in the layout of ciphertext objects. The
// number of slabs chooses the level, at most that of the group.
func (g *CipherGroup) Load(i int, slabs [][]byte) error {
	level := len(slabs)/2 - 1
	if i < 0 || i >= g.Len() || level < 0 || level > g.Level {
		return fmt.Errorf("%s: no ciphertext %d at level %d", g.Port, i, level)
	}
	rows, err := limbs(g.p, slabs, 2*(level+1))
	if err != nil {
		return fmt.Errorf("%s: %w", g.Port, err)
	}
	return g.unpack(i, level, rows[:level+1], rows[level+1:])
}

func (g *CipherGroup) unpack(i, level int, c0, c1 [][]uint64) error {
	size := g.size()
	b := g.data[i*size : (i+1)*size]
	var seed Seed
	polys := [][][]uint64{c0, c1}
	if g.Fresh {
		b, polys = b[copy(seed[:keyBytes], b):], polys[:1]
		seed[keyBytes] = byte(g.draw)
	}
	for _, rows := range polys {
		for k, q := range g.p.Q[:g.Level+1] {
			n := g.p.N() * residueBytes(q)
			if k <= level {
				if err := unpackRow(rows[k], b[:n], q); err != nil {
					return fmt.Errorf("%s, ciphertext %d: %w", g.Port, i, err)
				}
			}
			b = b[n:]
		}
	}
	if g.Fresh {
		for k := range level + 1 {
			uniformRow(c1[k], g.p.Q[k], &seed, rowName(elementCipher, 0, k))
		}
	}
	return nil
}

// ErrNoise says that a ciphertext decrypts to what looks like uniform noise: a
// value outgrew the modulus on the way, which an input far from those that the
// plan was made for does, or the ciphertext is not what it claims to be.
var ErrNoise = errors.New("it decrypts to noise: an input lies too far from those that the plan was calibrated with, or the ciphertext is damaged")

// slotFactor is the standard deviation of a slot over that of independent
// coefficients of a polynomial: a slot sums N of them, of which the standard ring
// keeps the real part; in the conjugate-invariant one every coefficient but the
// first counts twice.
func slotFactor(p *ir.Params) float64 {
	if p.Ring == ir.RingReal {
		return math.Sqrt(2 * float64(p.N()))
	}
	return math.Sqrt(float64(p.N()) / 2)
}

// LeastNoise returns the standard deviation, per slot, of the noise that every
// ciphertext of a scale holds, whatever was computed: that of encryption.
func LeastNoise(p *ir.Params, scale ir.Scale) float64 {
	return FreshNoise() * slotFactor(p) / scale.Float64(p.Q)
}

// looksUniform reports whether slot values are more than a quarter as large, in
// the mean square, as those of coefficients uniform modulo Q_level. A value that
// wraps around the modulus anywhere in a computation leaves such coefficients;
// values that fit lie below by orders of magnitude.
func looksUniform(p *ir.Params, level int, scale ir.Scale, v []float64) bool {
	logQ, logScale := 0.0, float64(scale.Two)
	for i, q := range p.Q {
		l := math.Log2(float64(q))
		if i <= level {
			logQ += l
		}
		if i < len(scale.Q) {
			logScale += float64(scale.Q[i]) * l
		}
	}
	sum := 0.0
	for _, x := range v {
		sum += x * x
	}
	uniform := math.Exp2(logQ-logScale) / math.Sqrt(12) * slotFactor(p)
	return !(math.Sqrt(sum/float64(len(v))) < uniform/4)
}

// Decrypt returns the slot values of every ciphertext of a group. It fails with
// ErrNoise where they can mean nothing. They carry
// information on the secret key to whoever knows the ciphertexts (Li and
// Micciancio, EUROCRYPT 2021): never send them to the server, use DecryptShared.
func Decrypt(sk *SecretKey, c *Ciphertexts, g *CipherGroup) ([][]float64, error) {
	return decrypt(sk, c, g, 0)
}

// DecryptShared decrypts and adds to every slot an independent Gaussian of the
// given standard deviation, so that the values may be shown to others.
func DecryptShared(sk *SecretKey, c *Ciphertexts, g *CipherGroup, deviation float64) ([][]float64, error) {
	if !(deviation > 0) {
		return nil, errors.New("sharing needs noise of positive standard deviation")
	}
	return decrypt(sk, c, g, deviation)
}

func decrypt(sk *SecretKey, c *Ciphertexts, g *CipherGroup, deviation float64) ([][]float64, error) {
	if c.SecretID != sk.ID() {
		return nil, fmt.Errorf("the ciphertexts belong to secret key %s, not to %s", c.SecretID, sk.ID())
	}
	if err := samePrimes("ciphertext file", &c.Params, &sk.params); err != nil {
		return nil, err
	}
	r, s, err := sk.expand()
	if err != nil {
		return nil, err
	}
	rows := makeRows(2*(g.Level+1), r.n)
	coef, work := make([]float64, r.n), make([]complex128, r.enc.n)
	seed := newSeed()
	noise := newStream(&seed, elementNoise, 0, 0)
	var out [][]float64
	for i := range g.Len() {
		if err := g.unpack(i, g.Level, rows[:g.Level+1], rows[g.Level+1:]); err != nil {
			return nil, err
		}
		r.decryptCoefs(s, rows[:g.Level+1], rows[g.Level+1:], g.Scale, coef)
		v := r.enc.slots(coef, work)
		if looksUniform(&sk.params, g.Level, g.Scale, v) {
			return nil, fmt.Errorf("%s, ciphertext %d: %w", g.Port, i, ErrNoise)
		}
		if deviation > 0 {
			for j := range v {
				v[j] += deviation * noise.normal()
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// normal draws a standard normal number (Box and Muller).
func (s *stream) normal() float64 {
	u := (float64(s.word()>>11) + 0.5) / (1 << 53)
	v := float64(s.word()>>11) / (1 << 53)
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}

type cipherMeta struct {
	Params  ir.Params   `cbor:"params"`
	Secret  string      `cbor:"secret"`
	Client  string      `cbor:"client"`
	Samples int         `cbor:"samples"`
	Groups  []groupMeta `cbor:"groups"`
}

type groupMeta struct {
	Port  string       `cbor:"port"`
	Level int          `cbor:"level"`
	Scale ir.Scale     `cbor:"scale"`
	Fresh bool         `cbor:"fresh"`
	Count int          `cbor:"count"`
	Draw  kernels.Draw `cbor:"draw,omitempty"` // how c1 of fresh ones does
}

func (c *Ciphertexts) meta() cipherMeta {
	m := cipherMeta{c.Params, c.SecretID, c.Client, c.Samples, nil}
	for _, g := range c.Groups {
		m.Groups = append(m.Groups, groupMeta{g.Port, g.Level, g.Scale, g.Fresh, g.Len(), g.draw})
	}
	return m
}

// Digest identifies the ciphertexts: the first 32 hex digits of a SHA-256 of all
// that a file of them says.
func (c *Ciphertexts) Digest() string {
	h := sha256.New()
	b, err := plan.Marshal(c.meta())
	if err != nil {
		panic("BUG: " + err.Error())
	}
	fmt.Fprintf(h, "%d\n", len(b))
	h.Write(b)
	for _, g := range c.Groups {
		h.Write(g.data)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Save writes the file; "-" is standard output.
func (c *Ciphertexts) Save(path string) error {
	m := c.meta()
	return plan.WriteFile(path, plan.Options{Magic: CiphertextMagic, Version: CiphertextVersion, Insecure: c.Params.Insecure}, func(w *plan.Writer) error {
		if err := w.Object("meta", m); err != nil {
			return err
		}
		for i, g := range c.Groups {
			if err := w.Section(fmt.Sprintf("ciphertexts/%d", i), g.data); err != nil {
				return err
			}
		}
		return nil
	})
}

// LoadCiphertexts reads a file whole; "-" is standard input.
func LoadCiphertexts(path string) (*Ciphertexts, error) {
	r, err := plan.OpenFile(path, CiphertextMagic, CiphertextVersion)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if path == "-" {
		path = "standard input"
	}
	var m cipherMeta
	if err := r.Object("meta", &m); err != nil {
		return nil, err
	}
	if err := checkStored(path, &m.Params, r.Insecure); err != nil {
		return nil, err
	}
	c := &Ciphertexts{Params: m.Params, SecretID: m.Secret, Client: m.Client, Samples: m.Samples}
	for i, gm := range m.Groups {
		g := &CipherGroup{Port: gm.Port, Level: gm.Level, Scale: gm.Scale, Fresh: gm.Fresh, p: &c.Params, draw: gm.Draw}
		if gm.Level < 0 || gm.Level > m.Params.MaxLevel() || gm.Scale.Check(len(m.Params.Q)) != nil || gm.Count < 0 || g.draw >= kernels.Draws ||
			slices.ContainsFunc(c.Groups, func(o *CipherGroup) bool { return o.Port == g.Port }) {
			return nil, fmt.Errorf("%s: %w: ciphertexts of %q", path, plan.ErrCorrupt, gm.Port)
		}
		if g.data, err = r.Section(fmt.Sprintf("ciphertexts/%d", i)); err != nil {
			return nil, err
		}
		if size := g.size(); len(g.data)%size != 0 || len(g.data)/size != gm.Count {
			return nil, fmt.Errorf("%s: %w: %d bytes for %d ciphertexts of %q", path, plan.ErrCorrupt, len(g.data), gm.Count, gm.Port)
		}
		c.Groups = append(c.Groups, g)
	}
	if m.Samples < 0 || m.Samples > maxSamples {
		return nil, fmt.Errorf("%s: %w: %d samples", path, plan.ErrCorrupt, m.Samples)
	}
	return c, nil
}

// Check refuses, by name, ciphertexts of other parameters, of another client
// file or of another secret key; empty strings are not compared.
func (c *Ciphertexts) Check(p *ir.Params, client, secretID string) error {
	if err := samePrimes("ciphertext file", &c.Params, p); err != nil {
		return err
	}
	if client != "" && c.Client != client {
		return fmt.Errorf("the ciphertexts were made for plan %s, not for %s", c.Client, client)
	}
	if secretID != "" && c.SecretID != secretID {
		return fmt.Errorf("the ciphertexts belong to secret key %s, not to %s", c.SecretID, secretID)
	}
	return nil
}
