package frontend

import (
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/home-fhe/home/ir"
)

// conformanceFloor is the number of ONNX conformance cases that must give the
// right answer with at least one encrypted input; raise it when it grows.
const conformanceFloor = 269

// TestConformance runs ONNX's own cases three ways: every real input encrypted,
// only the first, none (everything folds). Each way must give the right
// answer or be refused by node name; it must never be wrong.
func TestConformance(t *testing.T) {
	dir := testData(t, "onnx-conformance")
	cases, err := filepath.Glob(filepath.Join(dir, "*", "test_*", "model.onnx"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases in %s: %v", dir, err)
	}
	sort.Strings(cases)
	encrypted, folded, refusals := 0, 0, map[string]int{}
	for _, path := range cases {
		name := filepath.Base(filepath.Dir(path))
		t.Run(name, func(t *testing.T) {
			best, reason := conformanceCase(t, path)
			switch best {
			case 2:
				encrypted++
			case 1:
				folded++
			default:
				refusals[reason]++
			}
		})
	}
	t.Logf("%d cases: %d right with encrypted inputs, %d right as constants only, %d refused", len(cases), encrypted, folded, len(cases)-encrypted-folded)
	var reasons []string
	for r, n := range refusals {
		reasons = append(reasons, fmt.Sprintf("%4d %s", n, r))
	}
	sort.Sort(sort.Reverse(sort.StringSlice(reasons)))
	t.Logf("refused:\n%s", strings.Join(reasons, "\n"))
	if encrypted < conformanceFloor {
		t.Errorf("%d cases right with encrypted inputs, want at least %d", encrypted, conformanceFloor)
	}
}

// conformanceCase returns 2 if the case is right with an encrypted input, 1 if
// only as constants, 0 with the reason if it is refused.
func conformanceCase(t *testing.T, path string) (best int, reason string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sets, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "test_data_set_*"))
	if len(sets) == 0 {
		t.Fatal("no data set")
	}
	p, err := readModel(data)
	if err != nil {
		t.Fatal(err)
	}
	names := p.graph.inputs
	for _, set := range sets {
		ins, ok := readTensors(t, filepath.Join(set, "input_"))
		if !ok || len(ins) > len(names) {
			_, err := Parse(data, Options{}) // sequences, strings and the like
			return 0, refusal(t, err)
		}
		outs, readable := readTensors(t, filepath.Join(set, "output_"))
		for mode := range 3 {
			bind := map[string]*ir.Array{}
			var feed []*ir.Array
			for i, a := range ins {
				if mode == 2 || !names[i].elem.real() || mode == 1 && len(feed) > 0 {
					bind[names[i].name] = a
				} else {
					feed = append(feed, a)
				}
			}
			if mode < 2 && len(feed) == 0 || mode == 1 && len(feed)+len(bind) == 1 {
				continue
			}
			m, err := Parse(data, Options{BindInputs: bind})
			if err != nil {
				reason = refusal(t, err)
				continue
			}
			if !readable {
				t.Fatalf("accepted, though its outputs are no tensors")
			}
			got, err := eval(m, feed...)
			if err != nil {
				t.Fatalf("accepted, evaluation fails: %v", err)
			}
			if len(got) != len(outs) {
				t.Fatalf("%d outputs, want %d", len(got), len(outs))
			}
			for i, w := range outs {
				sameWithin(t, mode, p.graph.outputs[i].name, got[i], w)
			}
			if mode < 2 {
				best = 2
			} else {
				best = max(best, 1)
			}
		}
	}
	return best, reason
}

// sameWithin applies the tolerances of ONNX's own runner.
func sameWithin(t *testing.T, mode int, name string, got, want *ir.Array) {
	t.Helper()
	if fmt.Sprint(got.Shape) != fmt.Sprint(want.Shape) {
		t.Errorf("mode %d: output %s has shape %v, want %v", mode, name, got.Shape, want.Shape)
		return
	}
	for i, w := range want.Data {
		if d := math.Abs(got.Data[i] - w); !(d <= 1e-7+1e-3*math.Abs(w)) && got.Data[i] != w && !(math.IsNaN(w) && math.IsNaN(got.Data[i])) {
			t.Errorf("mode %d: output %s element %d is %v, want %v", mode, name, i, got.Data[i], w)
			return
		}
	}
}

// refusal checks that an error names a node and returns its operator and
// reason.
func refusal(t *testing.T, err error) string {
	t.Helper()
	var ne *ir.NodeError
	if !asNodeError(err, &ne) {
		t.Fatalf("not a clean refusal: %v", err)
	}
	if ne.Node == "" || ne.Op == "" {
		t.Fatalf("refusal without node or operator: %v", err)
	}
	s := ne.Op
	if ne.Attr != "" {
		s += " " + ne.Attr
	}
	return s + ": " + ne.Err.Error()
}

// readTensors reads prefix0.pb, prefix1.pb, ...; false where one is not a
// tensor that the front end can read.
func readTensors(t *testing.T, prefix string) ([]*ir.Array, bool) {
	var list []*ir.Array
	for i := 0; ; i++ {
		b, err := os.ReadFile(fmt.Sprintf("%s%d.pb", prefix, i))
		if os.IsNotExist(err) {
			return list, true
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := readTensor(b)
		if err != nil {
			return nil, false
		}
		c, err := (&external{digest: sha256.New()}).canonical(p, "data", "data")
		if err != nil {
			return nil, false
		}
		list = append(list, decodeCanon(c))
	}
}
