package passes

import (
	"math/bits"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// Batch-axis packing: a ciphertext for every element of a tensor, its slots
// holding that element of many samples (as in nGraph-HE, Boemer et al., WAHC
// 2019). Nothing rotates and no weight is encoded: layers are sums of
// ciphertexts times constants. One run costs far more than one of a
// single-image packing, but serves as many samples as there are slots.

// laneState places every step batch-axis wise.
func laneState(nodes []*fusedNode, par *ir.Params, prof *backend.Profile) *packState {
	st := &packState{logLanes: bits.Len(uint(par.Slots())) - 1}
	for _, n := range nodes {
		l := ir.NewLayout(1, n.elems(), 1)
		for i := range l.Map {
			l.Map[i] = int32(i)
		}
		st.places = append(st.places, placement{&packed{layout: l, period: 1, bounded: true}, 1, 1, false})
		elems, level := float64(n.elems()), n.level+1
		switch n.kind {
		case fusedLinear:
			for _, m := range n.mats {
				st.cost += float64(m.NNZ()) * prof.Seconds(par, ir.OpHEMacConst, level)
			}
			st.cost += elems * prof.Seconds(par, ir.OpHERescale, level)
		case fusedPoly:
			st.cost += elems * polyCost(n.approx.Degree(), par, prof, level)
		case fusedMul:
			st.cost += elems * prof.Seconds(par, ir.OpHEMulRescale, level)
		case fusedRefresh:
			st.cost += n.boot.seconds(par, prof, n.level, par.Slots(), n.elems())
		}
	}
	return st
}

// lanesLinear emits a linear layer on batch-axis data.
func (lw *lowering) lanesLinear(n *fusedNode, level int, product ir.Scale) []*ir.Value {
	b := lw.b
	out := make([]*ir.Value, n.elems())
	for i := range out {
		var acc *ir.Value
		for k, m := range n.mats {
			xs := lw.cts[n.args[k]]
			cols, vals := m.Row(i)
			for e, c := range cols {
				x := xs[c]
				s := product.Div(x.Type.Scale)
				if acc == nil {
					acc = b.mulConst(x, vals[e], s, level)
				} else {
					acc = b.macConst(acc, x, vals[e])
				}
			}
		}
		if acc == nil { // an element that depends on nothing
			x := lw.cts[n.args[0]][0]
			acc = b.mulConst(x, 0, product.Div(x.Type.Scale), level)
		}
		out[i] = b.rescale(acc)
		if n.bias != nil && n.bias[i] != 0 {
			out[i] = b.addConst(out[i], n.bias[i])
		}
	}
	return out
}
