package ir

import (
	"strings"
	"testing"
)

// TestSumsOfProducts: steps of several terms have the type of one, and each term must
// fit.
func TestSumsOfProducts(t *testing.T) {
	g := new(Graph)
	add := func(v *Value) *Value {
		t.Helper()
		if _, err := g.Append(v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	ct := func(level int, scale string) *Value {
		return add(&Value{Op: OpHEInput, Attrs: Attrs{"level": level, "scale": scale}})
	}
	pt := func(level, qp int, complex bool) *Value {
		d := &SlotData{Period: 2, Index: []int32{0}, Value: []float64{1}}
		if complex {
			d.Index, d.Imag = []int32{2}, true
		}
		return add(&Value{Op: OpHEPlain, Attrs: Attrs{"level": level, "scale": "q3", "qp": qp}, Slots: d})
	}
	x, low, other := ct(3, "2^30"), ct(1, "2^30"), ct(3, "2^31")
	p, plow, pqp, pc := pt(3, 0, false), pt(1, 0, false), pt(3, 1, false), pt(3, 0, true)
	sum := add(&Value{Op: OpHEMulPlain, Args: []*Value{x, p}})
	eight := []*Value{x, p, x, p, x, p, x, p, x, p, x, p, x, p, x, p}
	for _, c := range []struct {
		op    Op
		attrs Attrs
		args  []*Value
		level int
		want  string // error
	}{
		{OpHEMulPlain, nil, []*Value{x, p, x, p}, 3, ""},
		{OpHEMulPlain, nil, []*Value{x, p, low, p}, 1, ""},
		{OpHEMulPlain, nil, []*Value{x, p, x, plow}, 1, ""},
		{OpHEMulPlain, Attrs{"level": 2}, []*Value{x, p, x, p}, 2, ""},
		{OpHEMulPlain, Attrs{"level": 2}, []*Value{x, p, x, plow}, 0, "levels 3 and 1 below 2"},
		{OpHEMulPlain, nil, eight, 3, ""},
		{OpHEMulPlain, nil, append(eight[:16:16], x, p), 0, "18 arguments"},
		{OpHEMulPlain, nil, []*Value{x, p, x}, 0, "no plaintext"},
		{OpHEMulPlain, nil, []*Value{x, p, x, pqp}, 0, "kinds ct and ptqp"},
		{OpHEMulPlain, nil, []*Value{x, p, p, x}, 0, "kinds pt and ct"},
		{OpHEMulPlain, nil, []*Value{x, p, other, p}, 0, "added to scale"},
		{OpHEMacPlain, nil, append([]*Value{sum}, eight...), 3, ""},
		{OpHEMacPlain, nil, append([]*Value{sum, x, p}, eight...), 0, "19 arguments"},
		{OpHEMacPlain, nil, []*Value{sum, x, p, low, p}, 0, "below 3"},
		{OpHEMacPlain, nil, []*Value{sum, x, p, x}, 0, "no plaintext"},
		{OpHEMacPlain, nil, []*Value{sum, x, p, other, p}, 0, "added to scale"},
		{OpHEMacQP, nil, []*Value{sum, x, p, x, p}, 0, "argument 0 is of kind"},
	} {
		v, err := g.Add(c.op, "node7", c.attrs, c.args...)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s of %d arguments: %v", c.op, len(c.args), err)
		case c.want == "" && (v.Type.Level != c.level || v.Type.Scale.String() != "2^30*q3" || v.Type.Complex):
			t.Errorf("%s of %d arguments has type %v", c.op, len(c.args), v.Type)
		case c.want != "" && err == nil:
			t.Errorf("%s of %d arguments gave %v, want an error about %q", c.op, len(c.args), v.Type, c.want)
		case c.want != "" && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s of %d arguments: %q, want it to say %q", c.op, len(c.args), err, c.want)
		}
	}
	if v := add(&Value{Op: OpHEMacPlain, Args: []*Value{sum, x, p, x, pc}}); !v.Type.Complex {
		t.Error("a sum with a complex plaintext is real")
	}
	for _, c := range []struct{ op, args, want int }{{int(OpHEMulPlain), 2, 1}, {int(OpHEMulQP), 16, 8}, {int(OpHEMacPlain), 3, 1}, {int(OpHEMacQP), 17, 8}, {int(OpHEMul), 3, 0}} {
		if n := Op(c.op).Terms(c.args); n != c.want {
			t.Errorf("%s of %d arguments has %d terms, want %d", Op(c.op), c.args, n, c.want)
		}
	}
}

// TestRescaledProducts: products that are divided in their step lie a level below their
// operands and key.
func TestRescaledProducts(t *testing.T) {
	g := new(Graph)
	ct := func(level int, scale string) *Value {
		t.Helper()
		v, err := g.Append(&Value{Op: OpHEInput, Attrs: Attrs{"level": level, "scale": scale}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	key := func(level, rot int) *Value {
		t.Helper()
		v, err := g.Append(&Value{Op: OpHEKey, Attrs: Attrs{"level": level, "rot": rot}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	x, y, bottom, acc, wide := ct(3, "2^30"), ct(2, "2^30"), ct(0, "2^30"), ct(3, "2^60"), ct(3, "2^61")
	k, low, rot := key(3, 0), key(1, 0), key(3, 1)
	for _, c := range []struct {
		op    Op
		attrs Attrs
		args  []*Value
		level int
		want  string // error
	}{
		{OpHEMulRescale, nil, []*Value{x, x, k}, 2, ""},
		{OpHEMulRescale, Attrs{"twice": 1, "c": -0.5}, []*Value{x, y, k}, 1, ""},
		{OpHEMulRescale, Attrs{"level": 0}, []*Value{x, x, low}, 0, ""},
		{OpHEMulRescale, Attrs{"level": 1}, []*Value{x, x, low}, 0, "key at level 1 used at 2"},
		{OpHEMulRescale, Attrs{"level": 3}, []*Value{x, x, k}, 0, "level 4"},
		{OpHEMulRescale, Attrs{"level": -1}, []*Value{x, x, k}, 0, "no level remains"},
		{OpHEMulRescale, Attrs{"level": -2}, []*Value{x, x, k}, 0, "level -1"},
		{OpHEMulRescale, Attrs{"twice": 2}, []*Value{x, x, k}, 0, "twice is 2"},
		{OpHEMulRescale, nil, []*Value{bottom, x, k}, 0, "no level remains"},
		{OpHEMulRescale, nil, []*Value{x, x, rot}, 0, "used for"},
		{OpHEMulRescale, nil, []*Value{x, k, k}, 0, "argument 1 is of kind key"},
		{OpHEMulRescale, nil, []*Value{x, x, y, x, k}, 1, ""},
		{OpHEMulRescale, nil, []*Value{x, x, x, x, x, x, x, x, k}, 2, ""},
		{OpHEMulRescale, nil, []*Value{x, x, x, x, x, x, x, x, x, x, k}, 0, "11 arguments"},
		{OpHEMulRescale, nil, []*Value{x, x, x, k}, 0, "none to be multiplied with"},
		{OpHEMulRescale, nil, []*Value{x, x, x, acc, k}, 0, "added to scale"},
		{OpHEMacRescale, nil, []*Value{acc, x, x, x, x, k}, 2, ""},
		{OpHEMacRescale, nil, []*Value{acc, x, x, x, k}, 0, "none to be multiplied with"},
		{OpHEMacRescale, nil, []*Value{acc, x, y, k}, 1, ""},
		{OpHEMacRescale, Attrs{"level": 0, "twice": 1}, []*Value{acc, x, y, k}, 0, ""},
		{OpHEMacRescale, nil, []*Value{wide, x, y, k}, 0, "added to scale"},
		{OpHEMacRescale, nil, []*Value{x, x, k}, 0, "3 arguments"},
		{OpHEModDownRescale, nil, []*Value{x}, 0, "of kind ct, want ctqp"},
	} {
		v, err := g.Add(c.op, "node7", c.attrs, c.args...)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s %v: %v", c.op, c.attrs, err)
		case c.want == "" && (v.Type.Level != c.level || !v.Type.Scale.Equal(ScaleTwo(60).Div(ScalePrime(c.level+1))) || v.Type.Kind != CipherKind || !v.Type.Encrypted):
			t.Errorf("%s %v has type %v", c.op, c.attrs, v.Type)
		case c.want != "" && err == nil:
			t.Errorf("%s %v gave %v, want an error about %q", c.op, c.attrs, v.Type, c.want)
		case c.want != "" && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s %v: %q, want it to say %q", c.op, c.attrs, err, c.want)
		}
	}
	for _, c := range []struct{ op, args, want int }{{int(OpHEMul), 3, 1}, {int(OpHEMulRescale), 9, 4}, {int(OpHEMacRescale), 4, 1}, {int(OpHEMacRescale), 6, 2}, {int(OpHEMulPlain), 4, 0}} {
		if n := Op(c.op).Products(c.args); n != c.want {
			t.Errorf("%s of %d arguments has %d products, want %d", Op(c.op), c.args, n, c.want)
		}
	}
	for _, op := range Ops() {
		if drops := op == OpHERescale || op == OpHEModDownRescale || op == OpHEMulRescale || op == OpHEMacRescale; (op.Drops() == 1) != drops || op.Drops() > 1 {
			t.Errorf("%s drops %d levels", op, op.Drops())
		}
	}
	for op := range numOps + 3 {
		if want := op >= OpHEAdd && op < OpHEOutput || op > OpPackRefresh && op < numOps; op.Steps() != want {
			t.Errorf("plans have steps of %s: %v", op, op.Steps())
		}
	}
}
