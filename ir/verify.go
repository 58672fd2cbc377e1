package ir

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Check verifies that the matrices are in compressed row form and agree in
// their number of rows, with that of the bias too.
func (l *Linear) Check() error {
	for i, m := range l.Mats {
		if m == nil {
			return fmt.Errorf("matrix %d is missing", i)
		}
		if err := m.Check(); err != nil {
			return fmt.Errorf("matrix %d: %w", i, err)
		}
		if m.Rows != l.Mats[0].Rows {
			return fmt.Errorf("matrix %d has %d rows, matrix 0 has %d", i, m.Rows, l.Mats[0].Rows)
		}
	}
	if l.Bias != nil && len(l.Mats) > 0 && len(l.Bias) != l.Mats[0].Rows {
		return fmt.Errorf("bias of %d elements for %d rows", len(l.Bias), l.Mats[0].Rows)
	}
	return nil
}

// Check verifies that the matrix is in compressed row form with ascending
// columns in every row.
func (m *Sparse) Check() error {
	switch {
	case m.Rows < 0 || m.Cols < 0 || m.Rows > math.MaxInt32 || m.Cols > math.MaxInt32:
		return fmt.Errorf("matrix of size %dx%d", m.Rows, m.Cols)
	case len(m.Ptr) != m.Rows+1 || m.Ptr[0] != 0 || int(m.Ptr[m.Rows]) != len(m.Col) || len(m.Val) != len(m.Col):
		return fmt.Errorf("matrix of %d rows with %d row ends, %d columns, %d values", m.Rows, len(m.Ptr), len(m.Col), len(m.Val))
	case !slices.IsSorted(m.Ptr):
		return errors.New("row ends do not ascend")
	}
	for r := range m.Rows {
		prev := int32(-1)
		for _, c := range m.Col[m.Ptr[r]:m.Ptr[r+1]] {
			if c <= prev || int(c) >= m.Cols {
				return fmt.Errorf("row %d: column %d after %d of %d columns", r, c, prev, m.Cols)
			}
			prev = c
		}
	}
	return nil
}

// Check verifies that the indices ascend within both parts of the period, or that the
// generated diagonal exists.
func (d *SlotData) Check() error {
	if d.DFT != nil {
		if len(d.Index) > 0 || len(d.Value) > 0 || d.Packed != nil || d.LogLanes != 0 {
			return errors.New("slot values beside a generated diagonal")
		}
		return d.DFT.check(d.Period)
	}
	if d.Period < 1 || d.Period&(d.Period-1) != 0 || len(d.Index) != len(d.Value) || d.Packed != nil && len(d.Index) > 0 {
		return fmt.Errorf("%d indices and %d values of period %d", len(d.Index), len(d.Value), d.Period)
	}
	if d.LogLanes < 0 || d.LogLanes >= bits.Len(uint(d.Period)) {
		return fmt.Errorf("entries of 2^%d slots in a period of %d", d.LogLanes, d.Period)
	}
	prev, n, places := int32(-1), 0, d.Positions()
	for i := range d.Entries() {
		if i <= prev || int(i) >= 2*places {
			return fmt.Errorf("index %d after %d of %d", i, prev, places)
		}
		prev = i
		n++
	}
	if n != d.Len() {
		return fmt.Errorf("%d of %d packed entries can be read", n, d.Len())
	}
	if d.Imag != (int(prev) >= places) {
		return fmt.Errorf("imaginary parts: %t, and the last index is %d of %d", d.Imag, prev, places)
	}
	return nil
}

// Verify checks a graph completely: every value belongs to an allowed
// vocabulary (any, where none is given), comes after its arguments, carries its
// position as ID, its attributes and payload fit the op table, the type
// inferred again is the one it carries, and all numbers are finite. Inputs and
// outputs are values of the graph, and every input op is among the inputs. The
// error names the value and the ONNX node it came from.
func Verify(g *Graph, allowed ...Vocab) error {
	pos := make(map[*Value]int, len(g.Values))
	for i, v := range g.Values {
		if v == nil {
			return fmt.Errorf("value %%%d is missing", i)
		}
		if err := verifyValue(v, i, pos, allowed); err != nil {
			return fmt.Errorf("value %%%d %s %q: %w", i, v.Op, v.Name, err)
		}
		pos[v] = i
	}
	listed := make(map[*Value]bool, len(g.Inputs))
	for i, v := range g.Inputs {
		if _, ok := pos[v]; !ok {
			return fmt.Errorf("input %d is not in the graph", i)
		}
		if !isInput(v.Op) || listed[v] {
			return fmt.Errorf("input %d: value %%%d %s %q is no input, or listed twice", i, v.ID, v.Op, v.Name)
		}
		listed[v] = true
	}
	for i, v := range g.Values {
		if isInput(v.Op) && !listed[v] {
			return fmt.Errorf("value %%%d %s %q is not among the inputs of the graph", i, v.Op, v.Name)
		}
	}
	if len(g.Outputs) == 0 {
		return errors.New("the graph has no outputs")
	}
	for i, v := range g.Outputs {
		if _, ok := pos[v]; !ok {
			return fmt.Errorf("output %d is not in the graph", i)
		}
	}
	return nil
}

func isInput(o Op) bool { return o == OpInput || o == OpPackInput || o == OpHEInput }

func verifyValue(v *Value, id int, pos map[*Value]int, allowed []Vocab) error {
	if int(v.Op) >= len(table) || table[v.Op].Op == OpInvalid {
		return errors.New("unknown op")
	}
	info := v.Op.Info()
	if len(allowed) > 0 && !slices.Contains(allowed, info.Vocab) {
		return fmt.Errorf("the %s vocabulary is not allowed here, only %v", info.Vocab, allowed)
	}
	if _, ok := pos[v]; ok {
		return errors.New("occurs twice in the graph")
	}
	if v.ID != id {
		return fmt.Errorf("carries ID %d", v.ID)
	}
	if err := checkShape(v, info); err != nil {
		return err
	}
	for i, a := range v.Args {
		if _, ok := pos[a]; !ok {
			return fmt.Errorf("argument %d (%q) does not come before it", i, a.Name)
		}
	}
	for _, n := range v.Attrs.Names() {
		if x, ok := v.Attrs[n].(float64); ok && math.IsNaN(x) {
			return fmt.Errorf("attribute %s is NaN", n)
		}
	}
	if err := verifyPayload(v); err != nil {
		return err
	}
	t, err := info.Infer(v)
	if err != nil {
		return err
	}
	if !t.Equal(v.Type) {
		return fmt.Errorf("has type %s, its arguments give %s", v.Type, t)
	}
	return nil
}

func verifyPayload(v *Value) error {
	for _, p := range []struct {
		name string
		has  bool
		fits bool
	}{
		{"constant", v.Array != nil, v.Op == OpConst},
		{"polynomial", v.Approx != nil, v.Op == OpAct || v.Op == OpPackPoly},
		{"matrix", v.Linear != nil, v.Op == OpPackLinear},
		{"slot", v.Slots != nil, v.Op == OpHEPlain},
		{"layout", v.Layout != nil, v.Op.Info().Vocab == Packed},
	} {
		if p.has && !p.fits {
			return fmt.Errorf("carries a %s payload, which belongs to other ops", p.name)
		}
	}
	if a := v.Array; a != nil {
		if err := finite("constant", a.Data); err != nil {
			return err
		}
	}
	if a := v.Approx; a != nil {
		if err := finite("polynomial", a.Coef); err != nil {
			return err
		}
		for _, c := range a.Inner {
			if err := finite("inner polynomial", c); err != nil {
				return err
			}
		}
		if err := finite("range of the polynomial", []float64{a.Center, a.Bound, a.Err}); err != nil {
			return err
		}
	}
	if l := v.Linear; l != nil {
		if err := l.Check(); err != nil {
			return err
		}
		for _, m := range l.Mats {
			if err := finite("matrix", m.Val); err != nil {
				return err
			}
		}
		if err := finite("bias", l.Bias); err != nil {
			return err
		}
	}
	if d := v.Slots; d != nil {
		if err := d.Check(); err != nil {
			return err
		}
		return finite("slots", d.Value)
	}
	return nil
}

func finite(what string, l []float64) error {
	for i, x := range l {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%s: entry %d is %v", what, i, x)
		}
	}
	return nil
}

// String describes the type for people, in the manner of the text form but
// with the layout reduced to its sizes.
func (t Type) String() string {
	var s string
	switch t.Kind {
	case TensorKind:
		s = t.DType.String() + intsText(t.Shape)
	case SlotsKind:
		s = "slots" + intsText(t.Shape)
		if l := t.Layout; l != nil {
			s += fmt.Sprintf(" in %d x %d slots", l.Cts, l.Slots)
			if l.Lanes > 1 {
				s += fmt.Sprintf(" of %d lanes", l.Lanes)
			}
		}
	default:
		s = fmt.Sprintf("%s(level=%d, scale=%s)", t.Kind, t.Level, t.Scale)
		if t.Complex {
			s += " complex"
		}
	}
	if t.Encrypted {
		s += " enc"
	}
	return s
}
