package kernels

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

//go:generate go run ./gen

// Uniform fills z with exactly uniform residues modulo q > 0: the words of the key
// stream of AES-256 in counter mode under the seed (NIST SP 800-38A), little-endian,
// cut to the length of q, those not below q left out. The counter block is iv
// followed by the number of the block, big-endian.
func Uniform(z []uint64, q uint64, seed *[32]byte, iv *[8]byte) {
	if f, err := Chosen(); err == nil && f != Portable && hasVAES() {
		uniformVector(z, q, seed, iv)
	} else {
		uniformPortable(z, q, seed, iv)
	}
}

// chunk is the number of words of key stream that uniformPortable makes at a time:
// they stay in the first cache.
const chunk = 2048

// uniformPortable makes the key stream where the residues go and moves those that
// stay together.
func uniformPortable(z []uint64, q uint64, seed *[32]byte, iv *[8]byte) {
	b, err := aes.NewCipher(seed[:])
	if err != nil {
		panic("BUG: " + err.Error())
	}
	var counter [aes.BlockSize]byte
	copy(counter[:], iv[:])
	c := cipher.NewCTR(b, counter[:])
	mask := uint64(1)<<bits.Len64(q) - 1
	for len(z) > 0 {
		row := z[:min(chunk, len(z))]
		clear(row)
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&row[0])), 8*len(row))
		c.XORKeyStream(raw, raw)
		n := 0
		for ; len(raw) >= 8; raw = raw[8:] {
			w := binary.LittleEndian.Uint64(raw) & mask
			row[n] = w // at or before the word just read
			_, below := bits.Sub64(w, q, 0)
			n += int(below)
		}
		z = z[n:]
	}
}

// uniformVector is uniformPortable on VAES.
func uniformVector(z []uint64, q uint64, seed *[32]byte, iv *[8]byte) {
	const group = 64 // words
	var keys [240]byte
	expandKey(&keys, seed)
	mask := uint64(1)<<bits.Len64(q) - 1
	first, ctr := binary.LittleEndian.Uint64(iv[:]), uint64(0)
	for len(z) >= group {
		groups := len(z) / group
		n := uniformBelow(&z[0], &keys, first, ctr, groups, q, mask)
		z, ctr = z[n:], ctr+uint64(groups)*group/2
	}
	var rest [group]uint64
	for len(z) > 0 {
		n := uniformBelow(&rest[0], &keys, first, ctr, 1, q, mask)
		z, ctr = z[copy(z, rest[:n]):], ctr+group/2
	}
}
