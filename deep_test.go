package home_test

import (
	"errors"
	"math"
	"path/filepath"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
)

// deepModels are networks of ReLU, maxima and residual blocks: too deep for one
// chain, or nearly so.
var deepModels = []struct {
	name      string
	pre       plan.Preprocess
	cifar     bool
	calibrate int // samples
	inputs    int // encrypted
}{
	{"cifar10_resnet20", plan.Preprocess{Scale: 1.0 / 255, Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}}, true, 500, 5},
	{"cifar10_mlperf_resnet8", plan.Preprocess{Scale: 1}, true, 500, 2},
	{"cifar10_kw_base", plan.Preprocess{Scale: 1.0 / 255, Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.225}}, true, 500, 2},
	{"mnist_trained_lenet5_relu_max", unit(0, 1), false, 1000, 10},
	{"mnist_cc_lenet_bn", unit(0, 1), false, 100, 10},
	{"mnist_marabou_5x20_leaky", unit(0, 1), false, 1000, 10},
	{"mnist_marabou_cnn_max2", unit(0, 1), false, 1000, 10},
	{"mnist_heir_lenet", plan.Preprocess{Scale: 1.0 / 255, Mean: []float64{0.1307}, Std: []float64{0.3081}, Pad: []int{2, 2, 2, 2}}, false, 1000, 10},
	{"mnist_cntk_cnn", plan.Preprocess{Scale: 1}, false, 1000, 10},
}

// deepBudget is the memory that encrypted runs of deep networks get.
const deepBudget = 12 << 30

// TestDeepModels runs deep networks on encrypted test images at 128 bits, keys
// and weights in a slow tier: the same class as the approximated network in the
// clear, logits within 0.02 of the largest, and the bootstraps of the plan.
func TestDeepModels(t *testing.T) {
	if !longTests() {
		t.Skip("in make test-long only")
	}
	for _, c := range deepModels {
		t.Run(c.name, func(t *testing.T) {
			m, err := frontend.Load(filepath.Join(dataDir(t), "models", c.name+".onnx"), frontend.Options{})
			if err != nil {
				t.Fatal(err)
			}
			train, test := mnistTrain, mnistTest
			if c.cifar {
				train, test = cifarTrain, cifarTest
			}
			shape := m.Graph.Inputs[0].Type.Shape
			calib := pictures(t, train, c.calibrate, shape, c.pre)
			p, err := passes.Compile(passes.Source{Graph: m.Graph, Client: m.Client, Digest: m.Digest}, passes.Options{Calibrate: calib})
			if err != nil {
				t.Fatal(err)
			}
			shape = p.Network.Inputs[0].Type.Shape // without the batch that a model fixes
			if err := p.Params.CheckSecurity(); err != nil {
				t.Fatal(err)
			}
			if p.Counts.Bootstraps > 20 {
				t.Errorf("%d bootstraps, more than 20", p.Counts.Bootstraps)
			}
			q := newTieredParty(t, p, deepBudget)
			worst, most, sec, cpu := 0.0, 0.0, 0.0, 0.0
			for i, x := range pictures(t, test, c.inputs, shape, c.pre) {
				want, _, err := clear.EvalTensor(p.Network, []*ir.Array{x}, clear.Options{Approx: true})
				if err != nil {
					t.Fatal(err)
				}
				got, rep := q.run(t, x)
				sec, cpu = sec+rep.Seconds, cpu+rep.CPUSeconds
				classes := len(got.Data) / shape[0]
				for k := 0; k < len(got.Data); k += classes {
					g, w := got.Data[k:k+classes], want[0].Data[k:k+classes]
					if argmax(g) != argmax(w) {
						t.Errorf("input %d: class %d encrypted, %d in the clear", i, argmax(g), argmax(w))
					}
				}
				for k, w := range want[0].Data {
					e := math.Abs(got.Data[k] - w)
					most = max(most, e)
					worst = max(worst, e/max(1, want[0].MaxAbs()))
				}
				if rep.Counts != p.Counts {
					t.Errorf("executed %+v, planned %+v", rep.Counts, p.Counts)
				}
			}
			n := float64(c.inputs)
			t.Logf("%s: %d inputs, %s, %d bootstraps, %d rotations, %d key switches, %d keys of %d MiB, weights %d MiB, matrices %d MiB, largest error %.2g, %.2g of max(1,|logit|), predicted 2^-%.1f, %.1f s wall, %.1f s CPU each",
				c.name, c.inputs, p.Params.Name, p.Counts.Bootstraps, p.Counts.Rotations, p.Counts.KeySwitches, p.Counts.GaloisKeys,
				p.Bytes.Keys>>20, p.Bytes.Weights>>20, p.Bytes.Matrices>>20, most, worst, p.Predicted.Bits, sec/n, cpu/n)
			if worst > 0.02 {
				t.Errorf("largest error %.3g exceeds 0.02", worst)
			}
		})
	}
}

// newTieredParty runs a plan under a budget, with keys and weights in a slow tier.
func newTieredParty(t *testing.T, p *plan.Plan, budget int64) *party {
	t.Helper()
	q := enroll(t, p)
	if err := passes.Retier(p, budget, backend.DefaultProfile(), 2); err != nil {
		var small *plan.BudgetError
		if errors.As(err, &small) {
			t.Fatalf("the least budget is %d MiB", small.Least>>20)
		}
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := runtime.Install(t.Context(), p, q.e, keySource{q.keys}, dir, runtime.InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	slow, err := runtime.OpenStore(p, q.e, q.keys.SecretID(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slow.Close() })
	q.serve(t, runtime.Options{Threads: 2, Slow: slow})
	return q
}
