package lattigo

import (
	"math/big"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/tuneinsight/lattigo/v5/ring"
)

// modulus is one prime of the parameters with the kernels that serve it.
type modulus struct{ kernels.Modulus }

// newModulus returns the kernels of a form for Lattigo's prime and roots, of which it
// takes a copy. Transforms are those of Lattigo, entry for entry.
func newModulus(s *ring.SubRing, fold bool, form kernels.Form) (*modulus, error) {
	p, err := kernels.NewPrime(s.Modulus)
	if err != nil {
		return nil, err
	}
	plain := func(x uint64) uint64 { return ring.IMForm(x, s.Modulus, s.MRedConstant) }
	// The layer with h blocks has its roots at h..2h, in the conjugate-invariant ring
	// at 2h..3h of Lattigo's tables.
	layers := func(roots []uint64) []uint64 {
		w := make([]uint64, s.N)
		for h := 1; h < s.N; h <<= 1 {
			for i := range h {
				at := h + i
				if fold {
					at += h
				}
				w[h+i] = plain(roots[at])
			}
		}
		return w
	}
	t := &kernels.Transform{
		N: s.N, Forward: layers(s.RootsForward), Inverse: layers(s.RootsBackward), NInv: plain(s.NInv), Fold: fold,
	}
	if fold {
		t.F, t.G = plain(s.RootsForward[1]), plain(s.RootsBackward[1])
	}
	rows, err := kernels.New(p, form, t)
	if err != nil {
		return nil, err
	}
	return &modulus{kernels.Modulus{Prime: p, Rows: rows}}, nil
}

// bigMod returns x mod q in [0, q).
func (m *modulus) bigMod(x *big.Int) uint64 {
	return new(big.Int).Mod(x, new(big.Int).SetUint64(m.Q)).Uint64()
}

// newBasis returns the extension from primes to others.
func newBasis(src, targets []*modulus) (*kernels.Basis, error) {
	list := func(mods []*modulus) []*kernels.Modulus {
		out := make([]*kernels.Modulus, len(mods))
		for i, m := range mods {
			out[i] = &m.Modulus
		}
		return out
	}
	return kernels.NewBasis(list(src), list(targets))
}

// maxGroup is the number of targets converted at once where there are several
// sources: enough that reading the sources does not dominate, few enough that the
// results stay in cache. A single source is read so quickly that one target at a
// time is better.
const maxGroup = 4

func groupSize(p *ir.Params) int {
	if len(p.P) == 1 {
		return 1
	}
	return maxGroup
}
