package lattigo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// ParamsFingerprint identifies what keys and ciphertexts depend on: ring, secret
// distribution and primes. Name, scale and stamp do not enter, so that plans
// that differ only in those share keys.
func ParamsFingerprint(p *ir.Params) string {
	b, err := plan.Marshal([]any{"home-params-1", p.LogN, string(p.Ring), string(p.Secret), p.Q, p.P})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16])
}

// samePrimes refuses objects of other parameters, by name.
func samePrimes(what string, have, want *ir.Params) error {
	if a, b := ParamsFingerprint(have), ParamsFingerprint(want); a != b {
		return fmt.Errorf("%s has parameters %q (%s), wanted %q (%s): make it for these parameters", what, have.Name, a, want.Name, b)
	}
	return nil
}

// checkStored refuses parameters read from a file that are malformed, or weak
// without the file's own insecure stamp.
func checkStored(what string, p *ir.Params, stamped bool) error {
	if err := p.Check(); err != nil {
		return fmt.Errorf("%s: %w: %w", what, plan.ErrCorrupt, err)
	}
	p.Insecure = stamped
	if err := p.CheckSecurity(); err != nil && !stamped {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// residueBytes is the width of a packed residue: whole bytes.
func residueBytes(q uint64) int { return (bits.Len64(q) + 7) / 8 }

// packRow appends the residues of a row, each in width bytes, little end first.
func packRow(dst []byte, row []uint64, width int) []byte {
	for _, x := range row {
		for range width {
			dst = append(dst, byte(x))
			x >>= 8
		}
	}
	return dst
}

// unpackRow is the inverse of packRow; it refuses residues that are not below q.
func unpackRow(row []uint64, src []byte, q uint64) error {
	width := residueBytes(q)
	var bad uint64
	for i := range row {
		var x uint64
		for k, b := range src[i*width : (i+1)*width] {
			x |= uint64(b) << (8 * k)
		}
		_, below := bits.Sub64(x, q, 0)
		bad |= below ^ 1
		row[i] = x
	}
	if bad != 0 {
		return fmt.Errorf("%w: residue not below its prime", plan.ErrCorrupt)
	}
	return nil
}

// limbs views caller-owned slabs as rows of words.
func limbs(p *ir.Params, slabs [][]byte, want int) ([][]uint64, error) {
	if len(slabs) != want {
		return nil, fmt.Errorf("%d slabs, want %d", len(slabs), want)
	}
	rows := make([][]uint64, want)
	for i, s := range slabs {
		at := unsafe.Pointer(unsafe.SliceData(s))
		if len(s) != p.SlabBytes() || uintptr(at)&7 != 0 {
			return nil, fmt.Errorf("slab %d: %d bytes at %p, want %d, aligned", i, len(s), at, p.SlabBytes())
		}
		rows[i] = unsafe.Slice((*uint64)(at), p.N())
	}
	return rows, nil
}
