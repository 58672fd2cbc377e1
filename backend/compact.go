package backend

import (
	"math/bits"

	"github.com/home-fhe/home/ir"
)

// Compact is an Engine whose plaintexts have a compact form: the coefficients,
// in one slab, of which transforms alone make the limbs of any level. A slow
// tier that holds these is smaller by as many times as a plaintext has slabs.
type Compact interface {
	Engine
	// EncodeCompact writes the compact form of a plaintext of type t into a slab.
	// It fails where Encode would.
	EncodeCompact(values *ir.SlotData, t ir.Type, slab []byte) error
	// Expand makes the plaintext of its compact form, which lies in the last slab
	// of out. The result is what Encode writes, bit for bit.
	Expand(out Operand) error
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
