package passes

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

var update = flag.Bool("update", false, "rewrite the golden files of this package")

// TestGolden runs the pipeline on the text of each file of testdata up to a pass
// and compares the text it leaves. A file is a txtar archive: its comment says
// what to look at, "options" how to run, "in" the network, "out" the result.
// Options, one to a line:
//
//	pass NAME        the pass to stop after
//	params RING LOGN LEVELS   insecure parameters
//	input LO HI      range of the input, default -1 1
//	batch N          samples a run should serve
//	approx           keep the polynomials of the input text
//
// After levels and placement the fused program is printed, and the scheme
// vocabulary after schedule as the steps of the plan.
// Floats are cut to five digits, which no processor's rounding reaches.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files (%v)", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			a := txtar.Parse(raw)
			part := func(name string) *txtar.File {
				i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == name })
				if i < 0 {
					a.Files = append(a.Files, txtar.File{Name: name})
					i = len(a.Files) - 1
				}
				return &a.Files[i]
			}
			got := golden(t, string(part("options").Data), string(part("in").Data))
			if *update {
				part("out").Data = []byte(got)
				if b := txtar.Format(a); !bytes.Equal(b, raw) {
					if err := os.WriteFile(path, b, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				return
			}
			if d := cmp.Diff(string(part("out").Data), got); d != "" {
				t.Errorf("(-want +got), -update rewrites:\n%s", d)
			}
		})
	}
}

func golden(t *testing.T, options, in string) string {
	t.Helper()
	stop, keep := "", false
	opt := &Options{InputLo: -1, InputHi: 1, AllowInsecure: true, Params: tiny(t, 4, ir.RingReal, 3)}
	number := func(s string) float64 {
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, line := range strings.Split(strings.TrimSpace(options), "\n") {
		switch f := strings.Fields(line); f[0] {
		case "pass":
			stop = f[1]
		case "params":
			opt.Params = tiny(t, int(number(f[2])), ir.Ring(f[1]), int(number(f[3])))
		case "input":
			opt.InputLo, opt.InputHi = number(f[1]), number(f[2])
		case "batch":
			opt.Batch = int(number(f[1]))
		case "approx":
			keep = true
		default:
			t.Fatalf("option %q", line)
		}
	}
	if err := checkSkips(nil, stop); err != nil {
		t.Fatal(err)
	}
	u := &unit{opt: opt, graph: parse(t, in)}
	for _, p := range Passes {
		if p.run == nil {
			continue
		}
		run := p.run
		switch {
		case p.Name == "activations" && keep:
			run = func(u *unit) (err error) {
				u.inputRanges = []Range{{opt.InputLo, opt.InputHi}}
				u.ranges, err = intervals(u.graph, u.inputRanges[0], nil)
				return err
			}
		case p.Name == "packing":
			u.plan = &plan.Plan{Params: *u.par, Network: u.graph}
		}
		if err := run(u); err != nil {
			t.Fatalf("pass %s: %v", p.Name, err)
		}
		if err := ir.Verify(u.current(), p.Writes); err != nil {
			t.Fatalf("after pass %s: %v", p.Name, err)
		}
		if p.Name == stop {
			break
		}
	}
	switch stop {
	case "levels":
		return program(u.fused)
	case "placement":
		return shortFloats(program(u.nodes) + strings.Join(append(u.notes, ""), "\n"))
	}
	if u.plan != nil && len(u.plan.Steps) > 0 {
		return shortFloats(steps(u.plan))
	}
	return shortFloats(u.current().String())
}

var longFloat = regexp.MustCompile(`-?\d+\.\d{5,}(e[-+]\d+)?|-?\d+(\.\d+)?e[-+]\d+`)

func shortFloats(s string) string {
	return longFloat.ReplaceAllStringFunc(s, func(f string) string {
		x, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return f
		}
		if x > -1e-13 && x < 1e-13 {
			return "0"
		}
		return strconv.FormatFloat(x, 'g', 5, 64)
	})
}

// program prints fused steps: number, level of the result, kind, name, and the
// numbers of what they read.
func program(nodes []*fusedNode) string {
	var b strings.Builder
	for i, n := range nodes {
		fmt.Fprintf(&b, "%d: level %d, %s %q", i, n.level, n.kind, n.name)
		for k, a := range n.args {
			sep := ", "
			if k == 0 {
				sep = " of "
			}
			fmt.Fprintf(&b, "%s%d", sep, slices.Index(nodes, a))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// steps prints the objects that steps read from outside and the steps.
func steps(p *plan.Plan) string {
	var b strings.Builder
	for i, o := range p.Objects {
		switch o.Role {
		case plan.RoleInput:
			fmt.Fprintf(&b, "#%d input %v\n", i, o.Type)
		case plan.RoleKey:
			fmt.Fprintf(&b, "#%d key rot=%d level=%d\n", i, o.Rot, o.Type.Level)
		case plan.RolePlain:
			d := p.Plains[o.Plain]
			fmt.Fprintf(&b, "#%d plain %v period=%d slots=%v values=%v\n", i, o.Type, d.Period, d.Index, d.Value)
		}
	}
	for _, s := range p.Steps {
		o := p.Objects[s.Out]
		fmt.Fprintf(&b, "#%d = %s(", s.Out, s.Op)
		for k, a := range s.Args {
			if k > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "#%d", a)
		}
		b.WriteString(")")
		if s.Rot != 0 {
			fmt.Fprintf(&b, " rot=%d", s.Rot)
		}
		switch s.Op {
		case ir.OpHEAddConst, ir.OpHEMulConst, ir.OpHEMacConst:
			fmt.Fprintf(&b, " c=%v at %v", s.Const, s.Scale)
		case ir.OpHEMulRescale, ir.OpHEMacRescale:
			fmt.Fprintf(&b, " twice=%v c=%v", s.Twice, s.Const)
		}
		fmt.Fprintf(&b, " : %v", o.Type)
		if o.Role == plan.RoleOutput {
			b.WriteString(" output")
		}
		b.WriteString("\n")
	}
	for _, q := range append(slices.Clone(p.Inputs), p.Outputs...) {
		fmt.Fprintf(&b, "port %s %v objects=%v centre=%v norm=%v\n", q.Name, q.Layout, q.Objects, q.Center, q.Norm)
	}
	c := p.Counts
	fmt.Fprintf(&b, "%d rotations, %d key switches, %d Galois keys, %d products, %d diagonals\n", c.Rotations, c.KeySwitches, c.GaloisKeys, c.CtMults, c.Diagonals)
	return b.String()
}
