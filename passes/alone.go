package passes

import (
	"fmt"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// The functions of this file compile one step of a network by itself, as the
// pipeline would with these parameters at this level: packing, lowering, sums and
// schedule choose as they do for a whole network. Input and output are vectors that
// fill the slots of one ciphertext. What they return has no tier plan, and nothing
// is held against a bound of security: it is for measurements.

// CompileLinear compiles the product of a square matrix of as many rows as there
// are slots with a vector at a level from 1 on.
func CompileLinear(par *ir.Params, prof *backend.Profile, m *ir.Sparse, level int) (*plan.Plan, error) {
	if m.Rows != par.Slots() || m.Cols != par.Slots() {
		return nil, fmt.Errorf("a matrix of %d x %d for %d slots", m.Rows, m.Cols, par.Slots())
	}
	return compileAlone(par, prof, &fusedNode{kind: fusedLinear, name: "linear", mats: []*ir.Sparse{m}}, level, 1)
}

// CompilePolynomial compiles sum c[k]*T_k, applied to every slot of a vector at a
// level that is no less than the depth of the polynomial.
func CompilePolynomial(par *ir.Params, prof *backend.Profile, c []float64, level int) (*plan.Plan, error) {
	if len(c) < 2 {
		return nil, fmt.Errorf("a polynomial of %d coefficients", len(c))
	}
	return compileAlone(par, prof, &fusedNode{kind: fusedPoly, name: "polynomial", approx: &ir.Approx{Coef: c, Bound: 1}}, level, polyDepth(len(c)-1))
}

// CompileRefresh compiles a bootstrap to the highest level that the chain has. The
// circuit is that of bootEntries with another ratio, log2(q_0/S).
func CompileRefresh(par *ir.Params, prof *backend.Profile, ratio int) (*plan.Plan, error) {
	boot := bootEntries[0].boot
	boot.ratio = ratio
	level := par.MaxLevel() - boot.levelsOver()
	return compileAlone(par, prof, &fusedNode{kind: fusedRefresh, name: "refresh", boot: &boot}, boot.levelsIn(), boot.levelsIn()-level)
}

// compileAlone compiles a step of one argument, at a level, whose result is depth
// levels below.
func compileAlone(par *ir.Params, prof *backend.Profile, n *fusedNode, level, depth int) (*plan.Plan, error) {
	if level < 1 || level > par.MaxLevel() || level-depth < 0 || level-depth > par.MaxLevel() {
		return nil, fmt.Errorf("%s: from level %d to %d with a chain of %d", n.name, level, level-depth, par.MaxLevel())
	}
	if err := par.Check(); err != nil {
		return nil, err
	}
	shape, one := []int{par.Slots()}, []float64{1}
	in := &fusedNode{kind: fusedInput, name: "x", shape: shape, norm: one, level: level}
	n.args, n.shape, n.norm, n.level = []*fusedNode{in}, shape, one, level-depth
	out := &fusedNode{kind: fusedOutput, name: "y", shape: shape, args: []*fusedNode{n}, norm: one, level: n.level}
	u := &unit{opt: &Options{Profile: prof, Batch: 1}, graph: &ir.Graph{Name: n.name}, par: par, nodes: []*fusedNode{in, n, out}, depth: max(level, n.level)}
	u.plan = u.newPlan("")
	for _, p := range Passes {
		switch p.Name {
		case "packing", "lowering", "sums", "schedule":
			if err := p.run(u); err != nil {
				return nil, err
			}
			if err := ir.Verify(u.current(), p.Writes); err != nil {
				return nil, fmt.Errorf("BUG: after pass %s: %w", p.Name, err)
			}
		}
	}
	return u.plan, nil
}
