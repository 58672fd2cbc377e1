package backend

import "github.com/home-fhe/home/ir"

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
// compact form on one core: a reduction, a transform and a product.
func (p *Profile) ExpandSeconds(par *ir.Params) float64 {
	return 1e-9 * float64(par.N()) * (p.NTT*float64(par.LogN) + 2*p.Mul)
}
