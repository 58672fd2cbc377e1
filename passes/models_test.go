package passes_test

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
)

// dataDir returns the folder of test data, or skips the test aloud.
func dataDir(t testing.TB) string {
	d := os.Getenv("HOME_TEST_DATA")
	if d == "" {
		d = filepath.Join("..", "..", "shared", "data")
	}
	if _, err := os.Stat(d); err != nil {
		t.Skipf("test data is absent (%v); set HOME_TEST_DATA", err)
	}
	return d
}

// mnist reads n images as arrays of the given shape with pixels scaled to [0,1].
func mnist(t testing.TB, name string, n int, shape []int) []*ir.Array {
	f, err := os.Open(filepath.Join(dataDir(t), "mnist", name))
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var h [16]byte
	if _, err := io.ReadFull(z, h[:]); err != nil || binary.BigEndian.Uint32(h[:]) != 0x803 {
		t.Fatal("not an idx file of images")
	}
	var out []*ir.Array
	px := make([]byte, 784)
	for range n {
		if _, err := io.ReadFull(z, px); err != nil {
			t.Fatal(err)
		}
		a := ir.NewArray(shape...)
		for i, p := range px {
			a.Data[i] = float64(p) / 255
		}
		out = append(out, a)
	}
	return out
}

func compileMNIST(t testing.TB, name string, calib int, o passes.Options) *plan.Plan {
	m, err := frontend.Load(filepath.Join(dataDir(t), "models", name+".onnx"), frontend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Calibrate = mnist(t, "train-images-idx3-ubyte.gz", calib, m.Graph.Inputs[0].Type.Shape)
	p, err := passes.Compile(passes.Source{Graph: m.Graph, Client: m.Client, Digest: m.Digest}, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

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
			p := compileMNIST(t, c.name, 500, passes.Options{})
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
			if got := passes.CountSteps(p.Steps, p.Counts.GaloisKeys); got != p.Counts {
				t.Errorf("counts %+v, the steps give %+v", p.Counts, got)
			}
		})
	}
}
