package ir

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// DOT writes the graph in the DOT language for people to look at: data flows
// from top to bottom, edges carry the type of what flows, and constants, plaintexts
// and keys stand inside the boxes of the ops that use them.
func DOT(w io.Writer, g *Graph) error {
	b := bufio.NewWriter(w)
	ids := make(map[*Value]int, len(g.Values))
	for i, v := range g.Values {
		ids[v] = i
	}
	fmt.Fprintf(b, "digraph %s {\n", dotQuote(g.Name))
	b.WriteString("  rankdir=TB\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fontsize=11]\n")
	b.WriteString("  edge [fontname=\"sans-serif\", fontsize=9, color=\"#666666\"]\n")
	for i, v := range g.Values {
		if dotInside(v) {
			continue
		}
		lines := []string{v.Name, dotOp(v)}
		for _, a := range v.Args {
			if dotInside(a) {
				lines = append(lines, dotOperand(a))
			}
		}
		if p := v.Approx; p != nil {
			lines = append(lines, fmt.Sprintf("degree %d on [%.4g, %.4g]", p.Degree(), p.Center-p.Bound, p.Center+p.Bound))
		}
		if l := v.Linear; l != nil {
			n := 0
			for _, m := range l.Mats {
				n += m.NNZ()
			}
			lines = append(lines, fmt.Sprintf("%d nonzeros", n))
		}
		fmt.Fprintf(b, "  v%d [label=%s, fillcolor=%q]\n", i, dotQuote(lines...), dotColour(v))
		for _, a := range v.Args {
			if !dotInside(a) {
				fmt.Fprintf(b, "  v%d -> v%d [label=%s]\n", ids[a], i, dotQuote(dotType(a.Type)))
			}
		}
	}
	for i, v := range g.Outputs {
		fmt.Fprintf(b, "  out%d [label=%s, shape=ellipse, fillcolor=\"#ffffff\"]\n  v%d -> out%d [label=%s]\n",
			i, dotQuote("output "+strconv.Itoa(i)), ids[v], i, dotQuote(dotType(v.Type)))
		if dotInside(v) { // an output that is a constant has no box of its own yet
			fmt.Fprintf(b, "  v%d [label=%s, fillcolor=%q]\n", ids[v], dotQuote(v.Name, v.Op.String()), dotColour(v))
		}
	}
	b.WriteString("}\n")
	return b.Flush()
}

func dotInside(v *Value) bool { return v.Op == OpConst || v.Op == OpHEPlain || v.Op == OpHEKey }

// dotOp is the op with the attributes that say most about it.
func dotOp(v *Value) string {
	_, s, _ := strings.Cut(v.Op.String(), ".")
	for _, n := range []string{"fn", "rot", "kernel", "strides", "k", "c"} {
		if x, ok := v.Attrs[n]; ok {
			s += " " + n + "=" + strings.Trim(attrText(x), `"`)
		}
	}
	return s
}

func dotOperand(v *Value) string {
	switch v.Op {
	case OpHEKey:
		if r := v.Attrs.Int("rot", 0); r != 0 {
			return fmt.Sprintf("key: rotation %d", r)
		}
		return "key: relinearisation"
	case OpHEPlain:
		return fmt.Sprintf("plaintext of %d values", len(v.Slots.Index))
	}
	if v.Array != nil && len(v.Array.Data) == 1 {
		return "constant " + floatText(v.Array.Data[0])
	}
	return "constant " + dims(v.Type.Shape)
}

func dotType(t Type) string {
	if t.Kind == TensorKind {
		return dims(t.Shape)
	}
	if t.Kind == SlotsKind && t.Layout != nil {
		return fmt.Sprintf("%s in %d ct", dims(t.Shape), t.Layout.Cts)
	}
	return fmt.Sprintf("%s, level %d", t.Kind, t.Level)
}

func dims(shape []int) string {
	if len(shape) == 0 {
		return "scalar"
	}
	s := make([]string, len(shape))
	for i, d := range shape {
		s[i] = strconv.Itoa(d)
	}
	return strings.Join(s, "×")
}

// dotColour: inputs green, linear blue, polynomials and activations orange,
// products of encrypted values red, bootstrapping violet, the rest grey.
func dotColour(v *Value) string {
	encrypted := 0
	for _, a := range v.Args {
		if a.Type.Encrypted && a.Op != OpHEKey {
			encrypted++
		}
	}
	switch {
	case isInput(v.Op):
		return "#d9ead3"
	case v.Op == OpAct || v.Op == OpPackPoly || v.Op == OpMaxPool || v.Op == OpReduceMax || v.Op == OpPow:
		return "#fce5cd"
	case v.Op == OpPackMul || v.Op == OpHEMul || v.Op == OpHEMulRescale || v.Op == OpHEMacRescale || encrypted > 1 && (v.Op == OpMul || v.Op == OpMatMul || v.Op == OpDiv):
		return "#f4cccc"
	case v.Op == OpPackLinear || v.Op.Info().Linear != nil:
		return "#dce6f4"
	case v.Op == OpPackRefresh || v.Op == OpHERaise:
		return "#d9d2e9"
	}
	return "#eeeeee"
}

// dotQuote joins non-empty lines into one quoted DOT string.
func dotQuote(lines ...string) string {
	var s []string
	for _, l := range lines {
		if l == "" {
			continue
		}
		l = strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(l, "?"))
		s = append(s, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(l))
	}
	return `"` + strings.Join(s, `\n`) + `"`
}
