package home_test

import (
	"context"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/sim"
	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
)

// simulateAll runs the plan on the simulated engine for every image, on all
// cores, and returns the classes.
func simulateAll(t *testing.T, p *plan.Plan, samples []*ir.Array) []int {
	t.Helper()
	classes := make([]int, len(samples))
	workers := goruntime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[w] = func() error {
				e, err := sim.New(&p.Params, backend.DefaultProfile(), 1)
				if err != nil {
					return err
				}
				defer e.Close()
				x, err := runtime.NewExecutor(context.Background(), p, e, runtime.Options{})
				if err != nil {
					return err
				}
				defer x.Close()
				in, out := &p.Inputs[0], &p.Outputs[0]
				for i := w; i < len(samples); i += workers {
					values, err := runtime.Pack(in, samples[i])
					if err != nil {
						return err
					}
					res, _, err := x.Run(context.Background(), func(obj plan.ObjectID, dst [][]byte) error {
						o, err := e.Bind(p.Objects[obj].Type, dst)
						if err != nil {
							return err
						}
						for k, id := range in.Objects {
							if id == obj {
								err = e.Encrypt(values[k], o)
							}
						}
						return err
					})
					if err != nil {
						return err
					}
					var slots [][]float64
					for _, id := range out.Objects {
						o, err := e.Bind(p.Objects[id].Type, res[id])
						if err != nil {
							return err
						}
						z, _ := clear.Slots(o)
						slots = append(slots, z)
					}
					a, err := runtime.Unpack(out, slots, 1)
					if err != nil {
						return err
					}
					classes[i] = argmax(a.Data)
				}
				return nil
			}()
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return classes
}

// TestSimulatedAccuracy measures top-1 accuracy on real test images with the
// noise and approximations of an encrypted run, beside that of the exact
// network: at most half a point less on 1,000 images (make test-long). The short
// suite takes fewer images of the small networks and allows for their number.
func TestSimulatedAccuracy(t *testing.T) {
	for _, c := range []struct {
		name  string
		short int
		pre   plan.Preprocess
		cifar bool
	}{
		{"mnist_trained_mlp_square", 200, unit(0, 1), false},
		{"mnist_trained_cryptonet_square", 200, unit(0, 1), false},
		{"mnist_trained_mlp_relu", 100, unit(0, 1), false},
		{"mnist_heir_mlp", 100, unit(0.1307, 0.3081), false},
		{"mnist_marabou_2x10", 0, unit(0, 1), false},
		{"mnist_marabou_mlp_sigmoid", 0, unit(0, 1), false},
		{"mnist_trained_cnn_silu_bn", 0, unit(0, 1), false},
		{"mnist_trained_lenet5_relu_avg", 0, unit(0, 1), false},
		{"cifar10_trained_silu_cnn", 0, unit(0.5, 0.25), true},
		{"mnist_trained_lenet5_relu_max", 0, unit(0, 1), false},
		{"mnist_marabou_5x20_leaky", 0, unit(0, 1), false},
		{deepModels[0].name, 0, deepModels[0].pre, true}, // ResNet-20
	} {
		t.Run(c.name, func(t *testing.T) {
			n := c.short
			if longTests() {
				n = 1000
			}
			if n == 0 {
				t.Skip("in make test-long only")
			}
			m, err := frontend.Load(filepath.Join(dataDir(t), "models", c.name+".onnx"), frontend.Options{})
			if err != nil {
				t.Fatal(err)
			}
			shape := m.Graph.Inputs[0].Type.Shape
			train, test, truth, calibrate := mnistTrain, mnistTest, mnistLabels, 1000
			if c.cifar {
				train, test, truth, calibrate = cifarTrain, cifarTest, cifarTest, 500
			}
			calib := pictures(t, train, calibrate, shape, c.pre)
			tests, want := pictures(t, test, n, shape, c.pre), labels(t, truth, n)
			p, err := passes.Compile(passes.Source{Graph: m.Graph, Client: m.Client, Digest: m.Digest}, passes.Options{Calibrate: calib})
			if err != nil {
				t.Fatal(err)
			}
			classes := simulateAll(t, p, tests)
			plain, simulated, changed := 0, 0, 0
			for i, x := range tests {
				exact, _, err := clear.EvalTensor(p.Network, []*ir.Array{x}, clear.Options{})
				if err != nil {
					t.Fatal(err)
				}
				k := argmax(exact[0].Data)
				if k == want[i] {
					plain++
				}
				if classes[i] == want[i] {
					simulated++
				}
				if k != classes[i] {
					changed++
				}
			}
			t.Logf("%s: %d images, %s, plain %.2f %%, simulated %.2f %%, %d classes changed", c.name, n, p.Params.Name,
				100*float64(plain)/float64(n), 100*float64(simulated)/float64(n), changed)
			// Half a point, and at least one image.
			if lost := plain - simulated; lost > max(1, n/200) {
				t.Errorf("accuracy falls by %d of %d images", lost, n)
			}
		})
	}
}
