package main

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// testClaimedPrecision: a client file comes from whoever compiled the network. One
// that claims more precision than the parameters allow must not make decrypt show
// digits of noise, nor --share leave the noise out.
func testClaimedPrecision(t *testing.T) {
	dir, err := fixture()
	if err != nil {
		t.Fatal(err)
	}
	sk, err := lattigo.LoadSecretKey(filepath.Join(dir, "keys", secretName))
	if err != nil {
		t.Fatal(err)
	}
	ct, err := lattigo.LoadCiphertexts(filepath.Join(dir, "y.hct"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *plan.Client){
		"honest":       func(*plan.Client) {},
		"900 bits":     func(c *plan.Client) { c.OutputBits = 900 },
		"a tiny scale": func(c *plan.Client) { c.OutputBits, c.Outputs[0].Norm = 900, []float64{1e-200} },
		"a huge scale": func(c *plan.Client) { c.OutputBits, c.Outputs[0].Norm = 900, []float64{1e200} },
	} {
		t.Run(name, func(t *testing.T) {
			c, err := plan.LoadClient(filepath.Join(dir, "digit.hclient"))
			if err != nil {
				t.Fatal(err)
			}
			change(c)
			port := &c.Outputs[0]
			norm := 1.0
			if len(port.Norm) == 1 {
				norm = math.Abs(port.Norm[0])
			} else if len(port.Norm) > 1 {
				t.Skip("outputs of different norms")
			}
			floor := lattigo.LeastNoise(&c.Params, port.Scale) * norm
			_, bits, err := decryptAll(c, sk, ct, false)
			if err != nil {
				t.Fatal(err)
			}
			if unit := math.Exp2(-bits); unit < floor*0.99 {
				t.Errorf("rounded to %g, below the noise of a fresh ciphertext, %g", unit, floor)
			}
			if name == "honest" && bits != c.OutputBits {
				t.Errorf("%v bits, the plan predicts %v", bits, c.OutputBits)
			}
			// Two decryptions with noise differ by its deviation times sqrt(2).
			sum, n := 0.0, 0
			for range 20 {
				a, _, err1 := decryptAll(c, sk, ct, true)
				b, _, err2 := decryptAll(c, sk, ct, true)
				if err := errors.Join(err1, err2); err != nil {
					t.Fatal(err)
				}
				for i := range a.Data {
					d := (a.Data[i] - b.Data[i]) / norm
					sum += d * d / 2
					n++
				}
			}
			if std := math.Sqrt(sum/float64(n)) * norm; std < 0.8*shareFactor*floor {
				t.Errorf("--share adds noise of deviation %g to outputs with noise of at least %g", std, floor)
			}
		})
	}
}

// TestFinish: operators of the client that do not fit the outputs, or would mix
// samples, are refused.
func TestFinish(t *testing.T) {
	soft := func(axis int, in ...int) plan.ClientOp {
		return plan.ClientOp{Op: "Softmax", Node: "soft", Axis: axis, Input: in, Shape: in}
	}
	for _, c := range []struct {
		name string
		ops  []plan.ClientOp
		out  []int
		ok   bool
	}{
		{"per sample", []plan.ClientOp{soft(1, 1, 3)}, []int{4, 3}, true},
		{"without a batch axis", []plan.ClientOp{soft(0, 3)}, []int{4, 3}, true},
		{"along the samples", []plan.ClientOp{soft(0, 1, 3)}, []int{4, 3}, false},
		{"argmax along the samples", []plan.ClientOp{{Op: "ArgMax", Input: []int{1, 3}, Shape: []int{3}}}, []int{4, 3}, false},
		{"of another size", []plan.ClientOp{soft(0, 1<<40)}, []int{4, 3}, false},
		{"of negative size", []plan.ClientOp{soft(0, -3)}, []int{4, 3}, false},
	} {
		n := &network{client: c.ops}
		out, err := n.finish(ir.NewArray(c.out...))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && out.Shape[0] != c.out[0] {
			t.Errorf("%s: %v has no row for each of %d samples", c.name, out.Shape, c.out[0])
		}
	}
}

// TestPrintable: what files say reaches the terminal as text only.
func TestPrintable(t *testing.T) {
	labels := []string{"cat\x1b[2J\x1b]0;title\x07", "dög\r\u202e", "\xff\xfe"}
	n := &network{pre: &plan.Preprocess{Labels: labels}}
	var b strings.Builder
	if err := printTop(&b, n, ir.ArrayOf([]float64{3, 2, 1}, 1, 3), 3, 8); err != nil {
		t.Fatal(err)
	}
	e := &env{err: &b}
	e.warn("%s", labels[0])
	if code := e.report(errors.New(labels[1])); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	for _, r := range b.String() {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%q reaches the terminal", r)
		}
	}
	if got := b.String(); !strings.Contains(got, "cat") || !strings.Contains(got, "dög") {
		t.Errorf("the text is gone: %q", got)
	}
}

// TestScores: outputs that are no numbers are no prediction.
func TestScores(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		err := scores(ir.ArrayOf([]float64{1, 2, v, 3}, 2, 2), 10)
		if err == nil || !strings.Contains(err.Error(), "sample 11: output 0") {
			t.Errorf("%v: error %v", v, err)
		}
	}
	if err := scores(ir.ArrayOf([]float64{1, 2, 3, 4}, 2, 2), 0); err != nil {
		t.Error(err)
	}
	if err := scores(ir.ArrayOf([]float64{1, 2}, 2, 1), 0); err == nil {
		t.Error("one output per sample is accepted")
	}
}
