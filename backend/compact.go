package backend

import (
	"math/bits"

	"github.com/home-fhe/home/ir"
)

// Compact is an Engine some of whose objects have a compact form, from which the
// object follows. Of a plaintext it is the coefficients, in one slab, of which
// transforms make the limbs of any level; of an evaluation key the half that is
// not random, and the seed of the other. A slow tier that holds these is smaller
// by as many times.
type Compact interface {
	Engine
	// CompactSlabs lists the slabs of an object of type t, by number, in which its
	// compact form lies, in order; nil where it has none. A plaintext has one, a key
	// one more than half of its slabs.
	CompactSlabs(t ir.Type) []int
	// EncodeCompact writes the compact form of a plaintext of type t into a slab.
	// It fails where Encode would.
	EncodeCompact(values *ir.SlotData, t ir.Type, slab []byte) error
	// Expand makes an object of its compact form, which lies in the slabs of out
	// that CompactSlabs lists. The result is what Encode writes, or the key itself,
	// bit for bit.
	Expand(out Operand) error
}

// uniformNanos is what a uniform residue from a seed takes: half a block of
// AES-256, with the instructions for it, and a comparison.
const uniformNanos = 2.2

// UniformSeconds predicts the time to make one slab of a key from a seed on one
// core.
func (p *Profile) UniformSeconds(par *ir.Params) float64 {
	return 1e-9 * float64(par.N()) * uniformNanos
}

// ExpandSeconds predicts the time to make one slab of a plaintext from its
// compact form on one core: a reduction, a transform and a product. Where the
// slots repeat after points, the transform is shorter by as many times, down to
// an eighth, and what it gives is copied.
func (p *Profile) ExpandSeconds(par *ir.Params, points int) float64 {
	gap := bits.Len(uint(par.Slots()/points)) - 1
	if gap = min(gap, 3); gap <= 0 {
		return 1e-9 * float64(par.N()) * (p.NTT*float64(par.LogN) + 2*p.Mul)
	}
	return 1e-9 * (float64(par.N()>>gap)*(p.NTT*float64(par.LogN-gap)+2*p.Mul) + float64(par.N())*p.Add)
}
