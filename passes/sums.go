package passes

import (
	"slices"

	"github.com/home-fhe/home/ir"
)

// sums joins products with plaintexts that are added to one accumulator into steps of
// several terms: the accumulator, which takes more bytes than a plaintext, is then
// read and written once for all of them. Sums are exact, so that results are the same
// bit for bit.
//
// A step has all that it touches in DRAM at once. Terms are joined while that is no
// more than what the neediest other step has, so that the least budget of the plan
// stays what it was.
func sums(u *unit) error {
	g := u.scheme
	uses := g.Uses()
	most := neediest(u.par, g, uses)
	joined := map[*ir.Value]bool{}
	for _, v := range g.Values {
		if _, acc := v.Op.Accumulates(); !acc {
			continue
		}
		a := v.Args[0]
		if a.Op.Terms(len(a.Args)) == 0 || uses[a] > 1 {
			continue
		}
		both := *v
		both.Op, both.Attrs = a.Op, a.Attrs
		both.Args = append(slices.Clone(a.Args), v.Args[1:]...)
		again := slices.Contains(a.Args, v.Args[len(v.Args)-1]) // what a step reads of the slow tier is counted once
		if !again && both.Op.Terms(len(both.Args)) <= ir.MostTerms && pinned(u.par, &both, uses) <= most {
			*v, joined[a] = both, true
		}
	}
	g.Values = slices.DeleteFunc(g.Values, func(v *ir.Value) bool { return joined[v] })
	g.Renumber()
	return nil
}

// neediest returns the most slabs that a step has in DRAM at once.
func neediest(par *ir.Params, g *ir.Graph, uses map[*ir.Value]int) int {
	most := 0
	for _, v := range g.Values {
		most = max(most, pinned(par, v, uses))
	}
	return most
}

// pinned returns the slabs that the step of a value has in DRAM at once: what it
// touches, and the sources of plaintexts.
func pinned(par *ir.Params, v *ir.Value, uses map[*ir.Value]int) int {
	switch v.Op {
	case ir.OpHEInput, ir.OpHEKey, ir.OpHEPlain, ir.OpHEOutput:
		return 0
	}
	n := 0
	if !updates(v, uses) {
		n = par.Slabs(v.Type.Kind, v.Type.Level)
	}
	for i, a := range v.Args {
		switch t := a.Type; {
		case slices.Contains(v.Args[:i], a):
		case t.Kind == ir.KeyKind:
			n += par.Slabs(t.Kind, min(t.Level, v.Type.Level+v.Op.Drops()))
		case a.Op == ir.OpHEPlain:
			n += par.Slabs(t.Kind, t.Level) + 1
		default:
			n += par.Slabs(t.Kind, t.Level)
		}
	}
	return n
}
