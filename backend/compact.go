package backend

import (
	"math/bits"

	"github.com/home-fhe/home/ir"
)

// Compact is an Engine that can compute slabs of some objects from something
// smaller, their source: those of a plaintext from its coefficients, which take one
// slab, by transforms; those of the uniform halves of an evaluation key from a
// seed. A slow tier that holds sources is smaller, or has less to read, by as many
// times.
type Compact interface {
	Engine
	// SeedBytes is the size of the source of a key.
	SeedBytes() int
	// EncodeCompact writes the source of a plaintext of type t into a slab. It fails
	// where Encode would.
	EncodeCompact(values *ir.SlotData, t ir.Type, slab []byte) error
	// Make computes slabs of out, given by number, from its source: a slab for
	// plaintexts, a seed for keys. It changes neither the source nor any other slab,
	// which may be nil in the Bind of out, so that several calls may share the work.
	// The result is what Encode writes, or the key itself, bit for bit.
	Make(out Operand, source []byte, slabs []int32) error
	// Stream has steps make what they read of the uniform halves of a key from its seed,
	// or of a plaintext from its source: these slabs may be nil. Of a seed it keeps a
	// copy; the source of a plaintext is read when steps run. It holds until Rebind.
	Stream(out Operand, source []byte) error
}

// UniformSeconds predicts the time to make one slab of a key from a seed on one
// core.
func (p *Profile) UniformSeconds(par *ir.Params) float64 {
	return 1e-9 * float64(par.N()) * p.Uniform
}

// ExpandSeconds predicts the time to make one slab of a plaintext from its
// compact form on one core: a reduction and a transform. Where the slots repeat
// after points, the transform is shorter by as many times, down to an eighth, and
// what it gives is copied.
func (p *Profile) ExpandSeconds(par *ir.Params, points int) float64 {
	gap := bits.Len(uint(par.Slots()/points)) - 1
	if gap = min(gap, 3); gap <= 0 {
		return 1e-9 * float64(par.N()) * (p.NTT*float64(par.LogN) + p.Reduce)
	}
	return 1e-9 * (float64(par.N()>>gap)*(p.NTT*float64(par.LogN-gap)+p.Reduce) + float64(par.N())*p.Add)
}
