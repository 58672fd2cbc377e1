package kernels

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"
)

//go:generate go run ./gen

// Seed makes uniform rows from 32 bytes, the key of AES-256 in counter mode (NIST SP
// 800-38A). A counter block is the name of the row followed by the number of the block,
// big-endian. Of each word of the key stream, little-endian and cut to a few bits more
// than q has, the residue modulo q counts if the word is below the largest multiple of
// q that there is: residues are exactly uniform. The zero value is no seed.
type Seed struct {
	more   uint // bits of a word beyond those of q
	vector bool
	keys   [240]byte
	block  cipher.Block
}

// Draw says how words of the key stream become residues.
type Draw uint8

// Ways to draw residues.
const (
	// DrawNarrow cuts words to the length of q: where q is just above a power of two,
	// nearly half of them are left out.
	DrawNarrow Draw = iota
	// DrawWide cuts them to three bits more, of which at most one word in nine is left
	// out, and one in 16 or hardly any where q is just above or below a power of two.
	DrawWide
	// Draws is their number.
	Draws
)

// MaxUniform bounds the moduli of uniform rows.
const MaxUniform = 1 << 61

// VectorSeeds reports whether the chosen kernels make uniform rows with vector
// instructions: then they are made faster than DRAM delivers them.
func VectorSeeds() bool {
	f, err := Chosen()
	return err == nil && f.seeds()
}

// seeds reports whether kernels of the form make uniform rows with vector instructions.
func (f Form) seeds() bool { return f != Portable && hasVAES() }

// Set makes s stand for a seed. It allocates only where VectorSeeds says no.
func (s *Seed) Set(seed *[32]byte, draw Draw) { s.set(seed, draw, VectorSeeds()) }

func (s *Seed) set(seed *[32]byte, draw Draw, vector bool) {
	switch draw {
	case DrawNarrow:
		s.more = 0
	case DrawWide:
		s.more = 3
	default:
		panic(fmt.Sprintf("BUG: way %d to draw residues", draw))
	}
	if s.vector = vector; vector {
		expandKey(&s.keys, seed)
		return
	}
	var err error
	if s.block, err = aes.NewCipher(seed[:]); err != nil {
		panic("BUG: " + err.Error())
	}
}

// Fill sets z to the beginning of a row modulo q, 1 < q < MaxUniform.
func (s *Seed) Fill(z []uint64, q uint64, name [8]byte) {
	const most = 32 // what is made at a time stays in the first cache
	u := s.row(q, name)
	for len(z) >= group {
		z = z[u.fill(z[:min(len(z)/group, most)*group], nil, nil):]
	}
	var rest [group]uint64
	for len(z) > 0 {
		z = z[copy(z, rest[:u.fill(rest[:], nil, nil)]):]
	}
}

// group is the number of words of key stream that vector kernels make at a time.
const group = 64

// uniform is a uniform row made up to a word.
type uniform struct {
	*Seed
	name          uint64
	blocks        uint64 // made
	q, last, mask uint64 // words are cut with mask; the last one that counts
	stream        cipher.Stream
}

func (s *Seed) row(q uint64, name [8]byte) uniform {
	if q < 2 || q >= MaxUniform {
		panic(fmt.Sprintf("BUG: uniform residues modulo %d", q))
	}
	u := uniform{Seed: s, name: binary.LittleEndian.Uint64(name[:]), q: q, mask: uint64(1)<<(bits.Len64(q)+int(s.more)) - 1}
	u.last = u.mask - (u.mask%q+1)%q
	if !s.vector {
		var counter [aes.BlockSize]byte
		copy(counter[:], name[:])
		u.stream = cipher.NewCTR(s.block, counter[:])
	}
	return u
}

// fill reads len(z) words of the key stream, a positive multiple of group, sets the front
// of z to the residues they give, and returns their number. What is behind them in z is
// overwritten. As it goes it reads ahead a line of x and of y, if any, for each eight
// words.
func (u *uniform) fill(z, x, y []uint64) int {
	if u.vector {
		n := uniformBelow(&z[0], &u.keys, u.name, u.blocks, len(z)/group, u.q, u.last, u.mask, unsafe.SliceData(x), unsafe.SliceData(y))
		u.blocks += uint64(len(z) / 2)
		return n
	}
	// The key stream is made where the residues go, and those that stay move together.
	clear(z)
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&z[0])), 8*len(z))
	u.stream.XORKeyStream(raw, raw)
	n := 0
	inv, _ := bits.Div64(1, 0, u.q) // floor(2^64/q)
	for ; len(raw) >= 8; raw = raw[8:] {
		w := binary.LittleEndian.Uint64(raw) & u.mask
		_, out := bits.Sub64(u.last, w, 0)
		t, _ := bits.Mul64(w, inv)
		w -= t * u.q         // below 2q
		z[n] = min(w, w-u.q) // at or before the word just read
		n += 1 - int(out)
	}
	return n
}
