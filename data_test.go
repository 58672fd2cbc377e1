package home_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/dataset"
)

// dataDir returns the folder of test data, or skips the test aloud.
func dataDir(t testing.TB) string {
	d := os.Getenv("HOME_TEST_DATA")
	if d == "" {
		d = filepath.Join("..", "shared", "data")
	}
	if _, err := os.Stat(d); err != nil {
		t.Skipf("test data is absent (%v); set HOME_TEST_DATA", err)
	}
	return d
}

// longTests reports whether make test-long asked for the full sizes.
func longTests() bool { return os.Getenv("HOME_LONG") != "" }

// images reads n pictures of a data set, mapped to (x/255-mean)/std, each in the
// shape that the network takes one in, batch axis included.
func images(t testing.TB, file string, n int, shape []int, mean, std float64) []*ir.Array {
	t.Helper()
	return pictures(t, file, n, shape, unit(mean, std))
}

// unit maps pixels to (x/255-mean)/std.
func unit(mean, std float64) plan.Preprocess {
	return plan.Preprocess{Scale: 1.0 / 255, Mean: []float64{mean}, Std: []float64{std}}
}

// pictures reads pictures of a data set for n inputs of a network, which takes
// several at a time where its first axis is longer than one.
func pictures(t testing.TB, file string, n int, shape []int, p plan.Preprocess) []*ir.Array {
	t.Helper()
	p.Channels = "gray"
	if strings.HasPrefix(file, "cifar10/") {
		p.Channels = "rgb"
	}
	if p.Order = "nchw"; len(shape) == 4 && shape[3] < shape[1] {
		p.Order = "nhwc"
	}
	all, err := dataset.Load(filepath.Join(dataDir(t), file), dataset.Options{Limit: n * shape[0], Shape: shape[1:], Preprocess: &p})
	if err != nil {
		t.Fatal(err)
	}
	per := ir.NumElems(shape)
	if len(all.Data) != n*per {
		t.Fatalf("%s: %d values, want %d inputs of %d", file, len(all.Data), n, per)
	}
	out := make([]*ir.Array, n)
	for i := range out {
		out[i] = ir.ArrayOf(slices.Clone(all.Data[i*per:(i+1)*per]), shape...)
	}
	return out
}

// labels reads the first n labels of a data set.
func labels(t testing.TB, file string, n int) []int {
	t.Helper()
	l, err := dataset.Labels(filepath.Join(dataDir(t), file), n)
	if err != nil {
		t.Fatal(err)
	}
	return l[:n]
}

const (
	mnistTrain  = "mnist/train-images-idx3-ubyte.gz"
	mnistTest   = "mnist/t10k-first5000-images-idx3-ubyte.gz"
	mnistLabels = "mnist/t10k-first5000-labels-idx1-ubyte.gz"
	cifarTrain  = "cifar10/cifar10_train_first500.bin"
	cifarTest   = "cifar10/cifar10_test_first1000.bin"
)

// wdbcRows reads rows of features of the breast cancer set.
func wdbcRows(t testing.TB, from, n int) []*ir.Array {
	t.Helper()
	f, err := os.Open(filepath.Join(dataDir(t), "models", "data", "wdbc_train400_dev85.csv"))
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []*ir.Array
	for _, r := range rows[from : from+n] {
		a := ir.NewArray(1, 30)
		for i := range a.Data {
			if a.Data[i], err = strconv.ParseFloat(r[len(r)-30+i], 64); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, a)
	}
	return out
}
