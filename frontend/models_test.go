package frontend

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/home-fhe/home/ir"
)

type manifestEntry struct {
	Name   string
	File   string
	RefIn  string `json:"ref_in"`
	RefOut string `json:"ref_out"`
}

func manifest(t testing.TB) (string, []manifestEntry) {
	dir := testData(t, "models")
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []manifestEntry
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	return dir, list
}

// refused are the models of the manifest that the front end must refuse, with
// the operator it must name.
var refused = map[string]string{"mnist_trained_gru_rows": "GRU", "files_magika_v3_3": "Equal"}

// TestModels evaluates every real model on its reference inputs.
func TestModels(t *testing.T) {
	dir, list := manifest(t)
	for _, e := range list {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			m, err := Load(filepath.Join(dir, e.File), Options{})
			if op, ok := refused[e.Name]; ok {
				var ne *ir.NodeError
				if !asNodeError(err, &ne) || ne.Op != op {
					t.Fatalf("want a refusal of %s, got %v", op, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := ir.Verify(m.Graph, ir.Tensor); err != nil {
				t.Fatal(err)
			}
			if testing.Short() && m.Graph.Inputs[0].Type.Elems() > 100_000 {
				t.Skip("SKIPPED: large model in short mode")
			}
			in, err := readNpy(filepath.Join(dir, e.RefIn))
			if err != nil {
				t.Fatal(err)
			}
			want, err := readNpy(filepath.Join(dir, e.RefOut))
			if err != nil {
				t.Fatal(err)
			}
			worst := compareModel(t, m, in, want)
			t.Logf("largest error %.3g of %.3g; values %d, client %v, warnings %q", worst, want.MaxAbs(), len(m.Graph.Values), m.Client, m.Warnings)
			if limit := 1e-4 * math.Max(1, want.MaxAbs()); !(worst <= limit) {
				t.Errorf("largest error %.3g, limit %.3g", worst, limit)
			}
		})
	}
}

// compareModel feeds samples of the model's batch at a time and returns the
// largest error.
func compareModel(t *testing.T, m *Model, in, want *ir.Array) float64 {
	t.Helper()
	shape := m.Graph.Inputs[0].Type.Shape
	per := ir.NumElems(shape)
	if len(in.Data)%per != 0 {
		t.Fatalf("reference input %v for model input %v", in.Shape, shape)
	}
	worst, at := 0.0, 0
	for s := 0; s < len(in.Data); s += per {
		out, err := eval(m, ir.ArrayOf(in.Data[s:s+per], shape...))
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range out[0].Data {
			if d := math.Abs(v - want.Data[at+i]); !(d <= worst) {
				worst = d
			}
		}
		at += len(out[0].Data)
	}
	if at != len(want.Data) {
		t.Fatalf("%d results, reference has %d", at, len(want.Data))
	}
	return worst
}

// TestBatch compiles a model with a symbolic batch for three samples at once.
func TestBatch(t *testing.T) {
	dir := testData(t, "models")
	one, err := Load(filepath.Join(dir, "mnist_trained_lenet5_relu_avg.onnx"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	three, err := Load(filepath.Join(dir, "mnist_trained_lenet5_relu_avg.onnx"), Options{Batch: 3})
	if err != nil {
		t.Fatal(err)
	}
	if !three.SymbolicBatch || three.Batch != 3 || one.Batch != 1 {
		t.Fatalf("batches %d and %d, symbolic %v", one.Batch, three.Batch, three.SymbolicBatch)
	}
	in, err := readNpy(filepath.Join(dir, "ref", "mnist_trained_lenet5_relu_avg.in.npy"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := eval(three, ir.ArrayOf(in.Data[:3*784], 3, 1, 28, 28))
	if err != nil {
		t.Fatal(err)
	}
	for s := range 3 {
		got, err := eval(one, ir.ArrayOf(in.Data[s*784:(s+1)*784], 1, 1, 28, 28))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got[0].Data, all[0].Data[s*10:(s+1)*10]) {
			t.Errorf("sample %d differs between batch 1 and 3", s)
		}
	}
}
