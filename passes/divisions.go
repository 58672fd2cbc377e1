package passes

import (
	"maps"
	"slices"

	"github.com/home-fhe/home/ir"
)

// divisions joins each rescale with the step before it that ends in a division of its
// own: a ModDown, or the relinearisation of a product. Dividing once by P and the last
// prime saves the transforms of the second division and a pass over the result, and
// rounds once instead of twice. Between products and their rescale there may be sums:
// products are added up before they are relinearised, so that one key switch serves them
// all, a constant and a doubling become part of the step, and what else is added becomes
// its accumulator.
//
// As in sums, no step is made to need more memory than the neediest had.
func divisions(u *unit) error {
	g := u.scheme
	uses := g.Uses()
	most := neediest(u.par, g, uses)
	gone, before := map[*ir.Value]bool{}, map[*ir.Value][]*ir.Value{}
	for _, v := range g.Values {
		if v.Op != ir.OpHERescale {
			continue
		}
		if a := v.Args[0]; a.Op == ir.OpHEModDown && uses[a] == 1 {
			v.Op, v.Args, gone[a] = ir.OpHEModDownRescale, a.Args, true
			continue
		}
		for products := ir.MostProducts; products > 0; products-- {
			s := summed(v.Args[0], 1, products, uses)
			if len(s.products) == 0 {
				break
			}
			step, addends, err := s.divided(v)
			if err != nil {
				return err
			}
			if pinned(u.par, &step, uses) > most {
				continue
			}
			for _, x := range slices.Concat(s.products, s.sums, s.scaled) {
				gone[x] = true
			}
			place := map[*ir.Value]*ir.Value{}
			settle := func(v *ir.Value, as ir.Value) {
				for i, a := range as.Args {
					if to := place[a]; to != nil {
						as.Args[i] = to
					}
				}
				*v = as
			}
			for i := range addends {
				a := &addends[i]
				settle(a.v, *a.as)
				place[a.as], before[v] = a.v, append(before[v], a.v)
			}
			settle(v, step)
			break
		}
	}
	var values []*ir.Value
	for _, v := range g.Values {
		if values = append(values, before[v]...); !gone[v] {
			values = append(values, v)
		}
	}
	g.Values = values
	g.Renumber()
	return nil
}

// summands is what a sum of ciphertexts adds up.
type summands struct {
	products []*ir.Value // of ciphertexts
	twice    bool        // the products count twice
	c        float64     // in every slot
	scaled   []*ir.Value // he.macconst: ciphertexts times constants
	rest     []*ir.Value // any others
	sums     []*ir.Value // what does nothing but add and double
}

// summed takes a sum apart that its user names so many times and that has no other use,
// into products of at most the given number, and others.
func summed(v *ir.Value, times, products int, uses map[*ir.Value]int) summands {
	whole := summands{rest: []*ir.Value{v}}
	if uses[v] != times {
		return whole
	}
	switch {
	case v.Op == ir.OpHEMul:
		return summands{products: []*ir.Value{v}}
	case v.Op == ir.OpHEAddConst:
		s := summed(v.Args[0], 1, products, uses)
		s.c, s.sums = s.c+v.Attrs.Float("c", 0), append(s.sums, v)
		return s
	case v.Op == ir.OpHEMacConst:
		s := summed(v.Args[0], 1, products, uses)
		s.scaled = append(s.scaled, v)
		return s
	case v.Op == ir.OpHEAdd && v.Args[0] == v.Args[1]:
		s := summed(v.Args[0], 2, products, uses)
		if s.twice || len(s.products) == 0 || len(s.rest)+len(s.scaled) > 0 {
			return whole
		}
		s.twice, s.c, s.sums = true, 2*s.c, append(s.sums, v)
		return s
	case v.Op == ir.OpHEAdd:
		s, t := summed(v.Args[0], 1, products, uses), summed(v.Args[1], 1, products, uses)
		if n, m := len(s.products), len(t.products); n > 0 && m > 0 && (s.twice != t.twice || n+m > products) {
			t = summands{rest: v.Args[1:]}
		}
		return summands{append(s.products, t.products...), s.twice || t.twice, s.c + t.c, append(s.scaled, t.scaled...),
			append(s.rest, t.rest...), append(append(s.sums, t.sums...), v)}
	}
	return whole
}

// addend is a value of the graph and what becomes of it, one after the other.
type addend struct{ v, as *ir.Value }

// divided returns the step that a rescale of the sum becomes, and what adds up its
// accumulator just before: in its arguments stand the values as they become.
func (s *summands) divided(rescale *ir.Value) (ir.Value, []addend, error) {
	step, level := *rescale, rescale.Type.Level
	step.Op, step.Args, step.Attrs = ir.OpHEMulRescale, nil, ir.Attrs{"level": level}
	var addends []addend
	var acc *ir.Value
	join := func(v *ir.Value, op ir.Op, args ...*ir.Value) error {
		as := *v
		as.Op, as.Args, as.Attrs = op, args, maps.Clone(v.Attrs)
		if as.Attrs == nil {
			as.Attrs = ir.Attrs{}
		}
		as.Attrs["level"] = level + step.Op.Drops()
		t, err := op.Info().Infer(&as)
		as.Type, acc = t, &as
		addends = append(addends, addend{v, acc})
		return err
	}
	free := slices.DeleteFunc(slices.Clone(s.sums), func(v *ir.Value) bool { return v.Op != ir.OpHEAdd || v.Args[0] == v.Args[1] })
	for _, x := range s.rest {
		if acc == nil {
			acc = x
			continue
		}
		if err := join(free[0], ir.OpHEAdd, acc, x); err != nil {
			return step, nil, err
		}
		free = free[1:]
	}
	for _, m := range s.scaled {
		op, args := ir.OpHEMacConst, []*ir.Value{acc, m.Args[1]}
		if acc == nil {
			op, args = ir.OpHEMulConst, args[1:]
		}
		if err := join(m, op, args...); err != nil {
			return step, nil, err
		}
	}
	if acc != nil {
		step.Op, step.Args = ir.OpHEMacRescale, []*ir.Value{acc}
	}
	for _, p := range s.products {
		step.Args = append(step.Args, p.Args[:2]...)
	}
	step.Args = append(step.Args, s.products[0].Args[2])
	if s.c != 0 {
		step.Attrs["c"] = s.c
	}
	if s.twice {
		step.Attrs["twice"] = 1
	}
	return step, addends, nil
}
