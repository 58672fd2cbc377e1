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

// ShortestTransform is the number of points below which no engine shortens the transform
// of a plaintext that repeats.
const ShortestTransform = 64

// ExpandSeconds predicts the time to make one slab of a plaintext from its
// compact form on one core: a reduction and a transform. Where the slots repeat
// after points, the transform is shorter by as many times, and what it gives is copied
// from the cache. A step that makes the slab for itself takes less: it moves neither
// what the transform reads nor the slab, which would be written and read again.
func (p *Profile) ExpandSeconds(par *ir.Params, points int, inStep bool) float64 {
	gap := bits.Len(uint(min(par.Slots()/points, max(1, par.N()/ShortestTransform)))) - 1
	short, whole := float64(par.N()>>gap), float64(par.N())
	d := short * (p.NTT*float64(par.LogN-gap) + p.Reduce)
	if gap > 0 {
		d += whole * p.Memory
	}
	if inStep {
		d -= (short + 2*whole) * p.Memory
	}
	return 1e-9 * d
}
