package clear_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
)

// BenchmarkModels evaluates real networks one sample at a time.
func BenchmarkModels(b *testing.B) {
	dir := os.Getenv("HOME_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	for _, name := range []string{"mnist_trained_lenet5_relu_avg", "cifar10_resnet20", "cifar10_mlperf_resnet8", "imagenet_mobilenet_v1_025_128"} {
		b.Run("model="+name, func(b *testing.B) {
			m, err := frontend.Load(filepath.Join(dir, "models", name+".onnx"), frontend.Options{})
			if os.IsNotExist(err) {
				b.Skipf("SKIPPED: no %s in %s; set HOME_TEST_DATA", name, dir)
			}
			if err != nil {
				b.Fatal(err)
			}
			x := ir.NewArray(m.Graph.Inputs[0].Type.Shape...)
			for i := range x.Data {
				x.Data[i] = math.Sin(float64(i))
			}
			for b.Loop() {
				if _, _, err := clear.EvalTensor(m.Graph, []*ir.Array{x}, clear.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
