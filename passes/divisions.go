package passes

import (
	"slices"

	"github.com/home-fhe/home/ir"
)

// divisions joins each rescale with the step before it that ends in a division of its
// own: a ModDown, or the relinearisation of a product. Dividing once by P and the last
// prime saves the transforms of the second division and a pass over the result, and
// rounds once instead of twice. Between a product and its rescale there may be sums: a
// constant and a doubling become part of the step, and what else is added becomes its
// accumulator.
//
// As in sums, no step is made to need more memory than the neediest had.
func divisions(u *unit) error {
	g := u.scheme
	uses := g.Uses()
	most := neediest(u.par, g, uses)
	gone := map[*ir.Value]bool{}
	for _, v := range g.Values {
		if v.Op != ir.OpHERescale {
			continue
		}
		a := v.Args[0]
		if a.Op == ir.OpHEModDown && uses[a] == 1 {
			v.Op, v.Args, gone[a] = ir.OpHEModDownRescale, a.Args, true
			continue
		}
		if path := reach(a, uses, 1, false); path != nil {
			d := divided(v, path)
			if pinned(u.par, &d.step, uses) > most {
				continue
			}
			*v = d.step
			for _, x := range slices.Backward(path) {
				sum, ok := d.sums[x]
				if !ok {
					gone[x] = true
					continue
				}
				t, err := sum.Op.Info().Infer(&sum) // real, perhaps, where the product was complex
				if err != nil {
					return err
				}
				*x, x.Type = sum, t
			}
		}
	}
	g.Values = slices.DeleteFunc(g.Values, func(v *ir.Value) bool { return gone[v] })
	g.Renumber()
	return nil
}

// reach returns the values from v to a product of ciphertexts that are only sums, v
// first and the product last, each with no use beside the one that is given so many
// times; nil where there is none. In what is doubled nothing but constants is added.
func reach(v *ir.Value, uses map[*ir.Value]int, times int, doubled bool) []*ir.Value {
	if uses[v] != times {
		return nil
	}
	var rest []*ir.Value
	switch {
	case v.Op == ir.OpHEMul:
		return []*ir.Value{v}
	case v.Op == ir.OpHEAddConst, v.Op == ir.OpHEMacConst && !doubled:
		rest = reach(v.Args[0], uses, 1, doubled)
	case v.Op == ir.OpHEAdd && v.Args[0] == v.Args[1] && !doubled:
		rest = reach(v.Args[0], uses, 2, true)
	case v.Op == ir.OpHEAdd && !doubled:
		if rest = reach(v.Args[0], uses, 1, false); rest == nil {
			rest = reach(v.Args[1], uses, 1, false)
		}
	}
	if rest == nil {
		return nil
	}
	return append([]*ir.Value{v}, rest...)
}

// joinedDivision is a product that is rescaled in its step.
type joinedDivision struct {
	step ir.Value
	sums map[*ir.Value]ir.Value // those between that remain, as they become
}

// divided returns the step that a rescale becomes with the sums and the product of path.
func divided(rescale *ir.Value, path []*ir.Value) joinedDivision {
	d := joinedDivision{*rescale, map[*ir.Value]ir.Value{}}
	last := len(path) - 1
	var acc *ir.Value // what is added to the product
	c, twice := 0.0, 0
	for i := last - 1; i >= 0; i-- {
		x, inner := path[i], path[i+1]
		sum := *x
		switch {
		case x.Op == ir.OpHEAddConst:
			c += x.Attrs.Float("c", 0)
			continue
		case x.Op == ir.OpHEMacConst && acc == nil:
			sum.Op, sum.Args = ir.OpHEMulConst, x.Args[1:]
		case x.Op == ir.OpHEMacConst:
			sum.Args = []*ir.Value{acc, x.Args[1]}
		case x.Args[0] == x.Args[1]:
			c, twice = 2*c, 1
			continue
		default:
			other := x.Args[0]
			if other == inner {
				other = x.Args[1]
			}
			if acc == nil {
				acc = other
				continue
			}
			sum.Args = []*ir.Value{acc, other}
		}
		acc = x
		d.sums[x] = sum
	}
	d.step.Op, d.step.Args = ir.OpHEMulRescale, path[last].Args
	d.step.Attrs = ir.Attrs{"level": rescale.Type.Level}
	if c != 0 {
		d.step.Attrs["c"] = c
	}
	if twice != 0 {
		d.step.Attrs["twice"] = twice
	}
	if acc != nil {
		d.step.Op, d.step.Args = ir.OpHEMacRescale, append([]*ir.Value{acc}, path[last].Args...)
	}
	return d
}
