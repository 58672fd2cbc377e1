package ir_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
)

// realModels returns the ONNX files of the test data, or skips.
func realModels(t *testing.T) []string {
	dir := os.Getenv("HOME_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	files, err := filepath.Glob(filepath.Join(dir, "models", "*.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("SKIPPED: no models in %s; set HOME_TEST_DATA", dir)
	}
	return files
}

// TestRealModels takes every real network through the verifier, the text form
// and DOT, and holds Linear against Eval for each of its linear layers.
func TestRealModels(t *testing.T) {
	for _, file := range realModels(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".onnx"), func(t *testing.T) {
			m, err := frontend.Load(file, frontend.Options{})
			if err != nil {
				t.Skipf("SKIPPED: the front end refuses it: %v", err)
			}
			if err := ir.Verify(m.Graph, ir.Tensor); err != nil {
				t.Fatal(err)
			}
			var text, again bytes.Buffer
			blobs := ir.Blobs{}
			if err := ir.Print(&text, m.Graph, blobs); err != nil {
				t.Fatal(err)
			}
			g, err := ir.Parse(bytes.NewReader(text.Bytes()), blobs)
			if err != nil {
				t.Fatal(err)
			}
			if err := ir.Verify(g, ir.Tensor); err != nil {
				t.Fatal(err)
			}
			if err := ir.Print(&again, g, ir.Blobs{}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(text.Bytes(), again.Bytes()) {
				t.Error("the text form is not canonical")
			}
			if err := ir.DOT(new(bytes.Buffer), g); err != nil {
				t.Error(err)
			}
			for _, v := range g.Values {
				checkLayer(t, v)
			}
		})
	}
}

// checkLayer compares Linear and Eval of one layer on one input.
func checkLayer(t *testing.T, v *ir.Value) {
	info := v.Op.Info()
	if info.Linear == nil || !v.Type.Encrypted {
		return
	}
	args := make([]*ir.Array, len(v.Args))
	work := v.Type.Elems()
	for i, a := range v.Args {
		if args[i] = a.Array; args[i] == nil {
			args[i] = ir.NewArray(a.Type.Shape...)
			for k := range args[i].Data {
				args[i].Data[k] = math.Sin(float64(k*k+3*i+1)) + 0.25
			}
		}
	}
	if v.Op == ir.OpConv {
		work *= ir.NumElems(v.Args[1].Type.Shape[1:])
	}
	if v.Op == ir.OpMatMul {
		work *= v.Args[0].Type.Shape[len(v.Args[0].Type.Shape)-1]
	}
	if most := 20_000_000; work > most || testing.Short() && work > most/20 {
		return
	}
	want, err := info.Eval(v, args)
	if err != nil {
		t.Errorf("%s (%s): %v", v.Name, v.Op, err)
		return
	}
	got := make([]float64, v.Type.Elems())
	err = info.Linear(v,
		func(out, arg, in int, coef float64) { got[out] += coef * args[arg].Data[in] },
		func(out int, c float64) { got[out] += c })
	if err != nil {
		encrypted := 0
		for _, a := range v.Args {
			if a.Type.Encrypted {
				encrypted++
			}
		}
		if encrypted < 2 { // products of encrypted values are not linear
			t.Errorf("%s (%s): %v", v.Name, v.Op, err)
		}
		return
	}
	for i, w := range want.Data {
		if math.Abs(got[i]-w) > 1e-9*math.Max(1, math.Abs(w)) {
			t.Errorf("%s (%s): element %d is %v by Linear, %v by Eval", v.Name, v.Op, i, got[i], w)
			return
		}
	}
}
