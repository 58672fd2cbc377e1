package frontend

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/home-fhe/home/ir"
)

// The range of ai.onnx opsets whose operator definitions the table implements.
// Opset 6 lacks numpy broadcasting: what asks for its old form is refused.
const (
	minOpset = 6
	maxOpset = 27
)

// attrRow is an attribute that an operator may carry.
type attrRow struct {
	name  string
	kind  attrKind
	since int // first and last opset that has it; 0 means no bound
	until int
}

// row is one operator of the import table. A new operator is a new row.
type row struct {
	op     string
	domain string
	since  int // first and last opset in which this row applies; 0 means no bound
	until  int
	minIn  int
	maxIn  int // -1: any number
	attrs  []attrRow
	note   string // for people: what is limited
	// arith refuses encrypted integers, because the operator computes with
	// its inputs rather than moving them.
	arith bool
	emit  func(c *call) error
}

// OpSupport describes an operator of the import table.
type OpSupport struct {
	Op         string
	Domain     string // "" is ai.onnx
	Since      int    // first opset
	Until      int    // last opset, 0 for the newest
	Attributes []string
	Note       string
}

// SupportedOps lists the import table in order of operator and opset.
func SupportedOps() []OpSupport {
	var out []OpSupport
	for _, r := range importTable {
		s := OpSupport{Op: r.op, Domain: r.domain, Since: max(r.since, minOpset), Until: r.until, Note: r.note}
		for _, a := range r.attrs {
			s.Attributes = append(s.Attributes, a.name)
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b OpSupport) int {
		if c := strings.Compare(a.Op, b.Op); c != 0 {
			return c
		}
		return a.Since - b.Since
	})
	return out
}

// findRow returns the row for an operator at an opset version, or nil.
func findRow(domain, op string, opset int64) *row {
	for i := range importTable {
		r := &importTable[i]
		if r.op == op && r.domain == domain && (domain != "" ||
			int64(r.since) <= opset && (r.until == 0 || opset <= int64(r.until))) {
			return r
		}
	}
	return nil
}

// checkNodes refuses what the table does not hold, by node name: operators,
// opsets, attributes and their kinds, functions and subgraphs. It reports
// several nodes at once, so that a user sees the extent of the trouble.
func checkNodes(l *linked) error {
	if len(l.nodes) == 0 {
		return malformed("the graph computes nothing: no node contributes to an output")
	}
	if len(l.graph.sparse) > 0 {
		return &ir.NodeError{Node: l.graph.sparse[0], Op: "sparse initialiser", Err: errors.New("sparse tensors are not supported"),
			Hint: "export the weights as dense tensors"}
	}
	opset, ok := l.opsets[""]
	if !ok && slices.ContainsFunc(l.nodes, func(n *nodeProto) bool { return n.domain == "" }) {
		return malformed("the model does not say which opset of ai.onnx it uses")
	}
	if ok && (opset < minOpset || opset > maxOpset) {
		hint := "convert it with onnx.version_converter"
		if opset > maxOpset {
			hint = "export it with an older opset"
		}
		return &ir.NodeError{Node: "model", Op: "opset", Err: fmt.Errorf("opset %d is outside the supported %d to %d", opset, minOpset, maxOpset), Hint: hint}
	}
	const most = 10
	var errs []error
	bad := 0
	for _, n := range l.nodes {
		if err := checkNode(l, n); err != nil {
			if bad++; bad <= most {
				errs = append(errs, err)
			}
		}
	}
	if bad > most {
		errs = append(errs, fmt.Errorf("and %d more nodes", bad-most))
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func checkNode(l *linked, n *nodeProto) error {
	refuse := func(attr, hint, format string, args ...any) error {
		return &ir.NodeError{Node: n.name, Op: n.op, Attr: attr, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	if l.functions[n.domain+":"+n.op] {
		return refuse("", "inline the model's functions before compiling it (onnx.inliner)", "functions defined by the model are not supported")
	}
	for _, a := range n.attrs {
		switch {
		case a.kind == attrGraph || a.kind == attrGraphs:
			return refuse(a.name, "control flow cannot depend on encrypted data; unroll it", "subgraphs are not supported")
		case a.ref != "":
			return malformed("node %q (%s): attribute %s refers to a function's attribute outside a function", n.name, n.op, a.name)
		}
	}
	opset := l.opsets[n.domain]
	r := findRow(n.domain, n.op, opset)
	if r == nil {
		if n.domain != "" {
			return refuse("", "", "operators of domain %s are not supported", n.domain)
		}
		return refuse("", hints[n.op], "the operator is not supported in opset %d", opset)
	}
	for _, a := range n.attrs {
		i := slices.IndexFunc(r.attrs, func(k attrRow) bool { return k.name == a.name })
		switch {
		case i < 0:
			return refuse(a.name, "", "the attribute is not supported")
		case r.attrs[i].kind != a.kind:
			return refuse(a.name, "", "the attribute is of kind %s, want %s", a.kind, r.attrs[i].kind)
		case int64(r.attrs[i].since) > opset || r.attrs[i].until != 0 && int64(r.attrs[i].until) < opset:
			return refuse(a.name, "", "the attribute does not exist in opset %d", opset)
		}
	}
	return nil
}

// hints say what to do about common operators that the table does not hold.
var hints = map[string]string{
	"GRU":              "recurrent layers are not supported; use a convolutional or dense network",
	"LSTM":             "recurrent layers are not supported; use a convolutional or dense network",
	"RNN":              "recurrent layers are not supported; use a convolutional or dense network",
	"QuantizeLinear":   "export the float model instead of the quantised one",
	"DequantizeLinear": "export the float model instead of the quantised one",
	"QLinearConv":      "export the float model instead of the quantised one",
	"QLinearMatMul":    "export the float model instead of the quantised one",
	"ConvInteger":      "export the float model instead of the quantised one",
	"MatMulInteger":    "export the float model instead of the quantised one",
	"NonZero":          "the shape of its result depends on encrypted data",
	"TopK":             "comparisons between encrypted values are not supported; cut the network before this node",
}

// importTable is filled by init, because its rows refer to functions that
// refer to the table.
var importTable []row

func init() {
	importTable = slices.Concat(linearRows, poolRows, shapeRows, activationRows, normRows, constantRows, headRows)
}
