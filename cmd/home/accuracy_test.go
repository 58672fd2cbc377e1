package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/models"
	"github.com/home-fhe/home/models/digits"
	"github.com/home-fhe/home/runtime/dataset"
)

// reference returns a reference network in clear mode, with exact activations.
func reference(t *testing.T, m *models.Model) *network {
	t.Helper()
	b, err := m.ONNX()
	if err != nil {
		t.Fatal(err)
	}
	model, err := frontend.Parse(b, frontend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pre, err := m.Preprocessing()
	if err != nil {
		t.Fatal(err)
	}
	n, err := clearNetwork(m.Name, model.Graph, model.Client, pre, false)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(n.sample, m.Input) {
		t.Errorf("the network takes samples of shape %v, the manifest says %v", n.sample, m.Input)
	}
	return n
}

// accuracy returns the share of samples that a network classifies right.
func accuracy(t *testing.T, n *network, s *dataset.Samples, labels []int) float64 {
	t.Helper()
	right := 0
	if err := n.feed(t.Context(), s, func(k chunk) error {
		for i, c := range n.rank(k.out) {
			right += one(c == labels[k.first+i])
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return float64(right) / float64(s.Len())
}

// Every network for digits reads every drawing right.
func TestDrawnDigits(t *testing.T) {
	all, err := models.All()
	if err != nil {
		t.Fatal(err)
	}
	images, err := digits.File(digits.VariedImages)
	if err != nil {
		t.Fatal(err)
	}
	labels := make([]int, digits.VariedCount)
	for i := range labels {
		labels[i] = i % 10
	}
	for i := range all {
		m := &all[i]
		if !drawn(m) {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			n := reference(t, m)
			s, err := dataset.OpenBytes(digits.VariedImages, images, dataset.Options{Limit: 100, Shape: n.sample, Preprocess: n.pre})
			if err != nil {
				t.Fatal(err)
			}
			if got := accuracy(t, n, s, labels); got != 1 {
				t.Errorf("%.1f %% of the drawings are read right, want all", 100*got)
			}
			for d := range 10 {
				name := string(rune('0'+d)) + ".png"
				b, err := digits.File(name)
				if err != nil {
					t.Fatal(err)
				}
				s, err := dataset.OpenBytes(name, b, dataset.Options{Shape: n.sample, Preprocess: n.pre})
				if err != nil {
					t.Fatal(err)
				}
				if accuracy(t, n, s, []int{d}) != 1 {
					t.Errorf("%s is not read as %d", name, d)
				}
			}
		})
	}
}

// The reference networks reach the accuracy that the manifest states, on the
// data that it names: fewer samples unless HOME_LONG asks for all.
func TestManifestAccuracy(t *testing.T) {
	root := os.Getenv("HOME_TEST_DATA")
	if root == "" {
		root = "../../../shared/data"
	}
	files := map[string][2]string{
		"mnist-test":   {"mnist/t10k-first5000-images-idx3-ubyte.gz", "mnist/t10k-first5000-labels-idx1-ubyte.gz"},
		"cifar10-test": {"cifar10/cifar10_test_first1000.bin", "cifar10/cifar10_test_first1000.bin"},
	}
	all, err := models.All()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		m := &all[i]
		a := m.Accuracy[0]
		f, ok := files[a.Data]
		if !ok {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			path := filepath.Join(root, f[0])
			if _, err := os.Stat(path); err != nil {
				t.Skipf("NOT TESTED: %s is absent (set HOME_TEST_DATA)", path)
			}
			n := reference(t, m)
			limit, tolerance := 400, 0.03 // three standard errors of a share near 0.98, and then some
			if os.Getenv("HOME_LONG") != "" {
				limit, tolerance = a.Samples, 0.0005
			}
			s, err := dataset.Open(path, dataset.Options{Limit: limit, Shape: n.sample, Preprocess: n.pre})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			labels, err := dataset.Labels(filepath.Join(root, f[1]), limit)
			if err != nil {
				t.Fatal(err)
			}
			if a.Top1 < 0.9 {
				tolerance *= 3 // a share near 0.7 spreads more
			}
			if got := accuracy(t, n, s, labels); math.Abs(got-a.Top1) > tolerance {
				t.Errorf("accuracy %.4f on %d samples, the manifest says %.4f", got, s.Len(), a.Top1)
			}
		})
	}
}
