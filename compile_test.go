package home_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/passes"
)

// TestCompileModels compiles trained networks and guards what the compiler makes
// of them: ring, depth and rotations no larger than they were, 128 bits, the
// precision that encrypted runs are held to, and a plan that verifies.
func TestCompileModels(t *testing.T) {
	for _, c := range []struct {
		name                   string
		logN, depth, rotations int // at most
	}{
		{"mnist_trained_cryptonet_square", 13, 5, 60},
		{"mnist_trained_mlp_square", 13, 5, 44},
		{"mnist_trained_mlp_relu", 15, 12, 42},
		{"mnist_trained_cnn_silu_bn", 15, 17, 100},
		{"mnist_trained_lenet5_relu_avg", 15, 18, 130},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			m, err := frontend.Load(filepath.Join(dataDir(t), "models", c.name+".onnx"), frontend.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p, err := passes.Compile(passes.Source{Graph: m.Graph, Client: m.Client, Digest: m.Digest},
				passes.Options{Calibrate: images(t, mnistTrain, 500, m.Graph.Inputs[0].Type.Shape, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.2fs params %s depth %d counts %+v bytes %+v predicted %+v notes %v", time.Since(began).Seconds(), p.Params.Name, p.Depth, p.Counts, p.Bytes, p.Predicted, p.Notes)
			for _, l := range p.Layers {
				t.Logf("%+v", l)
			}
			if err := errors.Join(p.Verify(), p.Params.CheckSecurity()); err != nil {
				t.Error(err)
			}
			if p.Params.LogN > c.logN || p.Depth > c.depth || p.Counts.Rotations > c.rotations {
				t.Errorf("N=2^%d, depth %d, %d rotations; want at most N=2^%d, %d, %d", p.Params.LogN, p.Depth, p.Counts.Rotations, c.logN, c.depth, c.rotations)
			}
			if p.Predicted.Bits < 11 {
				t.Errorf("%.1f bits predicted, 11 are wanted", p.Predicted.Bits)
			}
			if got := p.Count(nil); got != p.Counts {
				t.Errorf("counts %+v, the steps give %+v", p.Counts, got)
			}
		})
	}
}
