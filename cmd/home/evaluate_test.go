package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/home-fhe/home/backend/sim"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/dataset"
)

// A sample whose values outgrow the modulus in a simulated run counts as wrong and
// does not end the evaluation; other errors do.
func TestEvaluateOverflow(t *testing.T) {
	g, err := ir.ParseString(`graph "same"
%0 = tensor.input() {shape=[1,2]} "x"
%1 = tensor.add(%0, %0) "twice"
inputs(%0)
outputs(%1)
`)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	images, labels := filepath.Join(dir, "x.npy"), filepath.Join(dir, "y.npy")
	// Classes 0, 1, 1, 0; the labels say 0, 1, 0, 0.
	if err := dataset.WriteNpy(images, ir.ArrayOf([]float64{3, 1, 1, 3, 0, 1, 9, 1}, 4, 2)); err != nil {
		t.Fatal(err)
	}
	if err := dataset.WriteNpy(labels, ir.ArrayOf([]float64{0, 1, 0, 0}, 4)); err != nil {
		t.Fatal(err)
	}
	evaluate := func(lost error) (string, string, error) {
		n := &network{batch: 1, own: 1, sample: []int{2}, parallel: 2, run: func(_ context.Context, a *ir.Array) (result, error) {
			if a.Data[0] == 9 {
				return result{}, lost
			}
			return result{out: ir.ArrayOf([]float64{2 * a.Data[0], 2 * a.Data[1]}, 1, 2)}, nil
		}}
		var out, msg strings.Builder
		c := &evaluateCmd{Model: "same", Images: images, Labels: labels, Mode: modeSimulate, JSON: true}
		err := c.evaluate(&env{ctx: t.Context(), out: &out, err: &msg}, &subject{plan: &plan.Plan{Model: "same", Network: g}}, n)
		return out.String(), msg.String(), err
	}
	out, msg, err := evaluate(fmt.Errorf("/act: %w: 1e99", sim.ErrOverflow))
	if err != nil {
		t.Fatal(err)
	}
	var r evaluateReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Samples != 4 || r.Overflows != 1 || r.Accuracy != 0.5 || r.PlainAccuracy != 0.75 || r.Disagreements != 1 || r.MaxAbsError != 0 || *r.SchemeDisagreements != 1 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(msg, "sample 3: /act") {
		t.Errorf("told: %q", msg)
	}
	if _, _, err := evaluate(context.DeadlineExceeded); err == nil {
		t.Error("another error is lost")
	}
}
