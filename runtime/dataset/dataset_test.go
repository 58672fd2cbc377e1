package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// npyFile builds a .npy file by hand.
func npyFile(major byte, header string, data ...byte) []byte {
	b := []byte(npyMagic + string([]byte{major, 0}))
	if major == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(append(b, header...), data...)
}

func head(descr, order, shape string) string {
	return fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n", descr, order, shape)
}

func TestReadNpy(t *testing.T) {
	for _, tc := range []struct {
		name string
		file []byte
		want *ir.Array
	}{
		{"f4", npyFile(1, head("<f4", "False", "(2,)"), 0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0), ir.ArrayOf([]float64{1, -2.5}, 2)},
		{"f4 big endian", npyFile(1, head(">f4", "False", "(1,)"), 0x3f, 0x80, 0, 0), ir.ArrayOf([]float64{1}, 1)},
		{"f8 version 2", npyFile(2, head("<f8", "False", "()"), 0, 0, 0, 0, 0, 0, 0xf0, 0x3f), ir.ArrayOf([]float64{1})},
		{"f2", npyFile(3, head("<f2", "False", "(4,)"), 0, 0x3c, 1, 0, 0, 0x7c, 0, 0xc0), ir.ArrayOf([]float64{1, math.Ldexp(1, -24), math.Inf(1), -2}, 4)},
		{"i1", npyFile(1, head("|i1", "False", "(2,)"), 0xff, 5), ir.ArrayOf([]float64{-1, 5}, 2)},
		{"u1", npyFile(1, head("|u1", "False", "(2, 1)"), 0xff, 5), ir.ArrayOf([]float64{255, 5}, 2, 1)},
		{"i4 big endian", npyFile(1, head(">i4", "False", "(1,)"), 0xff, 0xff, 0xff, 0xfe), ir.ArrayOf([]float64{-2}, 1)},
		{"i8", npyFile(1, head("<i8", "False", "(1,)"), 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), ir.ArrayOf([]float64{-2}, 1)},
		{"u2", npyFile(1, head("<u2", "False", "(1,)"), 1, 2), ir.ArrayOf([]float64{513}, 1)},
		{"bool", npyFile(1, head("|b1", "False", "(2,)"), 1, 0), ir.ArrayOf([]float64{1, 0}, 2)},
		{"fortran", npyFile(1, head("|u1", "True", "(2, 3)"), 0, 3, 1, 4, 2, 5), ir.ArrayOf([]float64{0, 1, 2, 3, 4, 5}, 2, 3)},
		{"fortran 3-D", npyFile(1, head("|u1", "True", "(2, 2, 2)"), 0, 4, 2, 6, 1, 5, 3, 7), ir.ArrayOf([]float64{0, 1, 2, 3, 4, 5, 6, 7}, 2, 2, 2)},
		{"keys in another order", npyFile(1, `{"shape": (1L,), "descr": "|u1", "fortran_order": False}`, 9), ir.ArrayOf([]float64{9}, 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ReadNpy(write(t, "x.npy", tc.file))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b []int) bool { return slices.Equal(a, b) })); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestReadNpyRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		file       []byte
	}{
		{"cut", "the file is cut or damaged", npyFile(1, head("<f4", "False", "(2,)"), 1, 2, 3)},
		{"grown", "the file is cut or damaged", npyFile(1, head("|u1", "False", "(2,)"), 1, 2, 3)},
		{"64 GiB in 100 bytes", "the file is cut or damaged", npyFile(1, head("<f8", "False", "(8589934592,)"), 1)},
		{"overflowing shape", "too many elements", npyFile(1, head("<f8", "False", "(4294967296, 4294967296)"))},
		{"zero hides overflow", "too many elements", npyFile(1, head("<f8", "False", "(4294967296, 4294967296, 0)"))},
		{"negative", "bad dimension", npyFile(1, head("<f8", "False", "(-1,)"))},
		{"complex", "is not supported", npyFile(1, head("<c8", "False", "(1,)"))},
		{"native order", "is not supported", npyFile(1, head("=f8", "False", "(1,)"))},
		{"structured", "structured", npyFile(1, "{'descr': [('a','<f4')], 'fortran_order': False, 'shape': (1,)}")},
		{"unknown key", "is not known", npyFile(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': (1,)}")},
		{"twice", "twice", npyFile(1, "{'descr': '<f4', 'descr': '<f4', 'shape': (1,)}")},
		{"missing", "are required", npyFile(1, "{'descr': '<f4'}")},
		{"trailing text", "text follows", npyFile(1, head("<f4", "False", "(1,)")+"x")},
		{"version 4", "version 4", npyFile(4, head("<f4", "False", "(1,)"))},
		{"long header", "longer than", append([]byte(npyMagic), 2, 0, 0xff, 0xff, 0xff, 0xff)},
		{"bad bool", "is not a boolean", npyFile(1, head("|b1", "False", "(1,)"), 2)},
		{"inexact integer", "too large", npyFile(1, head("<i8", "False", "(1,)"), 1, 0, 0, 0, 0, 0, 0x20, 0)},
		{"empty file", "empty", nil},
		{"not npy", "is not a .npy", []byte("hello, world")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ReadNpy(write(t, "x.npy", tc.file))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func TestNpyRoundTrip(t *testing.T) {
	for _, shape := range [][]int{{}, {3}, {2, 3}, {1, 2, 3}, {0, 4}} {
		a := ir.NewArray(shape...)
		for i := range a.Data {
			a.Data[i] = math.Sqrt(float64(i)) - 1
		}
		path := filepath.Join(t.TempDir(), "a.npy")
		if err := WriteNpy(path, a); err != nil {
			t.Fatal(err)
		}
		b, err := ReadNpy(path)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.Shape, b.Shape) || !slices.Equal(a.Data, b.Data) {
			t.Errorf("shape %v: read back %v %v", shape, b.Shape, b.Data)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if (len(raw)-8*len(a.Data))%64 != 0 {
			t.Errorf("shape %v: data is not aligned to 64 bytes", shape)
		}
	}
}

func TestNpyShapes(t *testing.T) {
	for _, tc := range []struct {
		file, want []int
		n          int // 0: refused
	}{
		{[]int{5, 1, 4, 4}, []int{1, 4, 4}, 5},
		{[]int{5, 4, 4}, []int{1, 4, 4}, 5},
		{[]int{5, 16}, []int{1, 4, 4}, 5},
		{[]int{5, 4, 4}, []int{16}, 5},
		{[]int{1, 4, 4}, []int{1, 4, 4}, 1},
		{[]int{4, 4}, []int{1, 4, 4}, 1},
		{[]int{16}, []int{1, 4, 4}, 1},
		{[]int{5, 3, 4}, []int{3, 4}, 5},
		{[]int{5, 4, 3}, []int{3, 4}, 0}, // as many elements, another order
		{[]int{5, 4}, []int{1, 4, 4}, 0},
		{[]int{3}, []int{1}, 3},
		{[]int{0, 4}, []int{4}, 0},
	} {
		path := filepath.Join(t.TempDir(), "x.npy")
		if err := WriteNpy(path, ir.NewArray(tc.file...)); err != nil {
			t.Fatal(err)
		}
		a, err := Load(path, Options{Shape: tc.want})
		switch {
		case tc.n == 0 && err == nil:
			t.Errorf("%v was read as samples of %v", tc.file, tc.want)
		case tc.n > 0 && err != nil:
			t.Errorf("%v as samples of %v: %v", tc.file, tc.want, err)
		case tc.n > 0 && !slices.Equal(a.Shape, append([]int{tc.n}, tc.want...)):
			t.Errorf("%v as samples of %v gives %v", tc.file, tc.want, a.Shape)
		}
	}
}

// TestBytesAsInputs: bytes are inputs where preprocessing would leave them as
// they are, and where there is none.
func TestBytesAsInputs(t *testing.T) {
	path := write(t, "u.npy", npyFile(1, head("|u1", "False", "(1, 2)"), 200, 3))
	for _, p := range []*plan.Preprocess{nil, plain} {
		a, err := Load(path, Options{Preprocess: p})
		if err != nil || !slices.Equal(a.Data, []float64{200, 3}) {
			t.Errorf("%v: %v, %v", p, a, err)
		}
	}
}

func TestFortranSamples(t *testing.T) {
	// Three samples of two elements, stored by columns.
	path := write(t, "f.npy", npyFile(1, head("|u1", "True", "(3, 2)"), 0, 10, 20, 1, 11, 21))
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []float64
	for {
		a, err := s.Next(2)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.Data...)
	}
	if want := []float64{0, 1, 10, 11, 20, 21}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNotFinite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.npy")
	if err := WriteNpy(path, ir.ArrayOf([]float64{0, math.NaN()}, 2, 1)); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path, Options{})
	if err == nil || !strings.Contains(err.Error(), "sample 1: element 0 is NaN") {
		t.Errorf("error %v", err)
	}
	if _, err := Load(path, Options{Limit: 1}); err != nil {
		t.Errorf("the sample before it: %v", err)
	}
}

var plain = &plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1}

func idxFile(typ byte, dims []uint32, data ...byte) []byte {
	b := []byte{0, 0, typ, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, d)
	}
	return append(b, data...)
}

func gz(t *testing.T, b []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

func TestIdx(t *testing.T) {
	img := idxFile(8, []uint32{3, 1, 2}, 1, 2, 3, 4, 5, 6)
	for name, b := range map[string][]byte{"x.idx": img, "x.gz": gz(t, img)} {
		s, err := Open(write(t, name, b), Options{Preprocess: plain, Limit: 2, Shape: []int{2}})
		if err != nil {
			t.Fatal(name, err)
		}
		defer s.Close()
		a, err := s.All()
		if err != nil {
			t.Fatal(name, err)
		}
		if s.Total() != 3 || s.Len() != 2 {
			t.Errorf("%s: %d samples, %d of them to be read", name, s.Total(), s.Len())
		}
		if s.Kind != Idx || !slices.Equal(a.Shape, []int{2, 2}) || !slices.Equal(a.Data, []float64{1, 2, 3, 4}) {
			t.Errorf("%s: %v %v %v", name, s.Kind, a.Shape, a.Data)
		}
	}
	lab := idxFile(8, []uint32{3}, 7, 0, 9)
	for name, b := range map[string][]byte{"l.idx": lab, "l.gz": gz(t, lab)} {
		got, err := Labels(write(t, name, b), 2)
		if err != nil || !slices.Equal(got, []int{7, 0}) {
			t.Errorf("%s: labels %v, %v", name, got, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	rec := make([]byte, cifarRecord)
	huge := idxFile(8, []uint32{1 << 30, 4, 4}, 1, 2, 3)
	clear4 := image.NewNRGBA(image.Rect(0, 0, 2, 2))
	var transparent bytes.Buffer
	if err := png.Encode(&transparent, clear4); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, want string
		file       []byte
		o          Options
	}{
		{"a.idx", "the file is cut or damaged", huge, Options{Preprocess: plain}},
		{"a.gz", "cut short", gz(t, huge), Options{Preprocess: plain}},
		{"half.gz", "unexpected EOF", gz(t, huge)[:6], Options{Preprocess: plain}},
		{"more.gz", "has grown", gz(t, idxFile(8, []uint32{1, 1, 1}, 1, 2)), Options{Preprocess: plain}},
		{"big.gz", "more than the limit", gz(t, idxFile(8, []uint32{1, 65536, 65536})), Options{Preprocess: plain}},
		{"overflow.gz", "too large", gz(t, idxFile(8, []uint32{1 << 31, 1 << 31, 1 << 31})), Options{Preprocess: plain}},
		{"float.idx", "0x0d is not supported", idxFile(0x0d, []uint32{1, 1, 1}, 1, 2, 3, 4), Options{Preprocess: plain}},
		{"labels.idx", "labels, not of images", idxFile(8, []uint32{1}, 1), Options{Preprocess: plain}},
		{"none.idx", "holds nothing", idxFile(8, []uint32{0, 2, 2}), Options{Preprocess: plain}},
		{"c.bin", "whole number of CIFAR-10 records", rec[:100], Options{Preprocess: plain}},
		{"c.bin", "knows no preprocessing", rec, Options{}},
		{"c.bin", "the network takes [1 28 28]", rec, Options{Preprocess: plain, Shape: []int{1, 28, 28}}},
		{"u.npy", "holds bytes", npyFile(1, head("|u1", "False", "(1,)"), 200), Options{Preprocess: &plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1.0 / 255}}},
		{"p.png", "transparent", transparent.Bytes(), Options{Preprocess: plain}},
		{"p.png", "unexpected EOF", transparent.Bytes()[:50], Options{Preprocess: plain}},
		{"p.png", "of kind picture, not idx", transparent.Bytes(), Options{Preprocess: plain, Kind: Idx}},
		{"x.txt", "is not a .npy", []byte("1 2 3 4 5 6 7 8 9"), Options{}},
	} {
		t.Run(tc.name+" "+tc.want, func(t *testing.T) {
			_, err := Load(write(t, tc.name, tc.file), tc.o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
		})
	}
	for _, path := range []string{t.TempDir(), "no/such/file.npy"} {
		if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v does not name it", path, err)
		}
	}
	for _, tc := range []struct {
		name, want string
		file       []byte
	}{
		{"l.idx", "labels have one", idxFile(8, []uint32{1, 1}, 1)},
		{"l.npy", "not a class number", npyFile(1, head("|i1", "False", "(1,)"), 0xff)},
		{"l.npy", "one number per sample", npyFile(1, head("|i1", "False", "(2, 2)"), 1, 2, 3, 4)},
		{"p.png", "holds no labels", transparent.Bytes()},
	} {
		if _, err := Labels(write(t, tc.name, tc.file), 0); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one that says %q", tc.name, err, tc.want)
		}
	}
}

func TestApply(t *testing.T) {
	rgb := bitmap{planes: 3, h: 1, w: 2, pix: []byte{10, 20, 30, 40, 50, 60}}
	gray := bitmap{planes: 1, h: 4, w: 4, pix: []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}
	for _, tc := range []struct {
		name  string
		p     plan.Preprocess
		in    bitmap
		shape []int
		want  []float64
	}{
		{"rgb nchw", plan.Preprocess{Channels: "rgb", Order: "nchw", Scale: 1}, rgb, []int{3, 1, 2}, []float64{10, 20, 30, 40, 50, 60}},
		{"bgr nchw", plan.Preprocess{Channels: "bgr", Order: "nchw", Scale: 1}, rgb, []int{3, 1, 2}, []float64{50, 60, 30, 40, 10, 20}},
		{"rgb nhwc", plan.Preprocess{Channels: "rgb", Order: "nhwc", Scale: 1}, rgb, []int{1, 2, 3}, []float64{10, 30, 50, 20, 40, 60}},
		{"mean per channel of the network", plan.Preprocess{Channels: "bgr", Order: "nchw", Scale: 2, Mean: []float64{100, 60, 20}, Std: []float64{2, 1, 4}}, rgb,
			[]int{3, 1, 2}, []float64{0, 10, 0, 20, 0, 5}},
		{"grey from colour", plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1}, rgb, []int{1, 1, 2}, []float64{26, 36}},
		{"colour from grey", plan.Preprocess{Channels: "rgb", Order: "nhwc", Scale: 1}, bitmap{1, 1, 2, []byte{7, 8}}, []int{1, 2, 3}, []float64{7, 7, 7, 8, 8, 8}},
		{"centre crop", plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1, Crop: []int{2, 2}}, gray, []int{1, 2, 2}, []float64{5, 6, 9, 10}},
		{"border after normalisation", plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1, Crop: []int{2, 2}, Mean: []float64{1}, Pad: []int{1, 0, 0, 2}}, gray,
			[]int{1, 3, 4}, []float64{0, 0, 0, 0, 4, 5, 0, 0, 8, 9, 0, 0}},
		{"shrink averages", plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1, Resize: 1}, bitmap{1, 2, 4, []byte{9, 9, 9, 9, 9, 9, 9, 9}}, []int{1, 1, 2}, []float64{9, 9}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := CheckPreprocess(&tc.p); err != nil {
				t.Fatal(err)
			}
			shape, err := outputShape(&tc.p, tc.in.h, tc.in.w)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float64, ir.NumElems(shape))
			if err := apply(&tc.p, tc.in, got); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(shape, tc.shape) || !slices.Equal(got, tc.want) {
				t.Errorf("shape %v %v, want %v %v", shape, got, tc.shape, tc.want)
			}
		})
	}
}

func TestLargePreprocess(t *testing.T) {
	p := &plan.Preprocess{Channels: "rgb", Order: "nchw", Scale: 1, Pad: []int{8000, 8000, 8000, 8000}}
	_, err := Load(write(t, "x.idx", idxFile(8, []uint32{1, 1, 1}, 1)), Options{Preprocess: p})
	if err == nil || !strings.Contains(err.Error(), "more than the limit") {
		t.Errorf("error %v", err)
	}
}

func TestPictureKinds(t *testing.T) {
	grey16 := image.NewGray16(image.Rect(0, 0, 2, 1))
	grey16.SetGray16(1, 0, color.Gray16{Y: 0xabcd})
	colour := image.NewRGBA(image.Rect(0, 0, 2, 1))
	colour.Set(0, 0, color.Black)
	colour.Set(1, 0, color.Gray{Y: 0xab})
	for name, img := range map[string]image.Image{"16-bit grey": grey16, "colour": colour} {
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		path := write(t, "x.png", b.Bytes())
		a, err := Load(path, Options{Preprocess: plain})
		if err != nil {
			t.Fatal(name, err)
		}
		if !slices.Equal(a.Data, []float64{0, 0xab}) {
			t.Errorf("%s: %v", name, a.Data)
		}
		inv := *plain
		inv.Invert = true
		if a, err = Load(path, Options{Preprocess: &inv}); err != nil || !slices.Equal(a.Data, []float64{255, 255 - 0xab}) {
			t.Errorf("%s inverted: %v %v", name, a, err)
		}
	}
}

func TestParsePreprocess(t *testing.T) {
	p, err := ParsePreprocess([]byte(`{"channels": "bgr", "order": "nchw", "scale": 1, "resize": 256, "crop": [224, 224], "mean": [104, 117, 123], "labels": ["a", "b"]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &plan.Preprocess{Channels: "bgr", Order: "nchw", Scale: 1, Resize: 256, Crop: []int{224, 224}, Mean: []float64{104, 117, 123}, Labels: []string{"a", "b"}}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	for text, want := range map[string]string{
		`{"channels": "gray", "order": "nchw", "scale": 1, "means": [1]}`:         `unknown field "means"`,
		`{"channels": "grey", "order": "nchw", "scale": 1}`:                       `"gray", "rgb" or "bgr"`,
		`{"channels": "gray", "order": "chw", "scale": 1}`:                        `"nchw" or "nhwc"`,
		`{"channels": "gray", "order": "nchw"}`:                                   "scale is 0",
		`{"channels": "gray", "order": "nchw", "scale": 1, "std": [0]}`:           "std holds 0",
		`{"channels": "gray", "order": "nchw", "scale": 1, "mean": [1, 2, 3]}`:    "3 numbers for 1 channels",
		`{"channels": "gray", "order": "nchw", "scale": 1, "crop": [5]}`:          "height and width",
		`{"channels": "gray", "order": "nchw", "scale": 1, "crop": [5, 0]}`:       "between 1 and",
		`{"channels": "gray", "order": "nchw", "scale": 1, "pad": [1, 1]}`:        "top, left, bottom and right",
		`{"channels": "gray", "order": "nchw", "scale": 1, "pad": [1, 1, 1, -1]}`: "between 0 and",
		`{"channels": "gray", "order": "nchw", "scale": 1, "resize": -1}`:         "resize is -1",
		`{"channels": "gray", "order": "nchw", "scale": 1} {}`:                    "text follows",
		`[`: "preprocessing",
	} {
		if _, err := ParsePreprocess([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", text, err, want)
		}
	}
}

// data returns a file of the shared collection of test data.
func data(t *testing.T, name string) string {
	t.Helper()
	root := os.Getenv("HOME_TEST_DATA")
	if root == "" {
		root = "../../../shared/data"
	}
	path := filepath.Join(root, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("NOT TESTED: %s is absent (set HOME_TEST_DATA)", path)
	}
	return path
}

func TestMNIST(t *testing.T) {
	unit := &plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1.0 / 255}
	s, err := Open(data(t, "mnist/t10k-first5000-images-idx3-ubyte.gz"), Options{Preprocess: unit, Shape: []int{1, 28, 28}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Len() != 5000 {
		t.Errorf("%d images", s.Len())
	}
	a, err := s.Next(5)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := ReadNpy(data(t, "models/ref/mnist_trained_mlp_relu.in.npy")) // the same five images
	if err != nil {
		t.Fatal(err)
	}
	near(t, a, ref, 1e-7)
	l, err := Labels(data(t, "mnist/t10k-first5000-labels-idx1-ubyte.gz"), 0)
	if err != nil || len(l) != 5000 || !slices.Equal(l[:5], []int{7, 2, 1, 0, 4}) {
		t.Errorf("%d labels, %v", len(l), err)
	}
	border := &plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1.0 / 255, Mean: []float64{0.1307}, Std: []float64{0.3081}, Pad: []int{2, 2, 2, 2}}
	if a, err = Load(data(t, "mnist/t10k-first5000-images-idx3-ubyte.gz"), Options{Preprocess: border, Shape: []int{1, 32, 32}, Limit: 5}); err != nil {
		t.Fatal(err)
	}
	if ref, err = ReadNpy(data(t, "models/ref/mnist_heir_lenet.in.npy")); err != nil {
		t.Fatal(err)
	}
	near(t, a, ref, 1e-6)
}

func TestCIFAR(t *testing.T) {
	path := data(t, "cifar10/cifar10_test_first1000.bin")
	for _, tc := range []struct {
		ref string
		p   plan.Preprocess
	}{
		{"cifar10_resnet20", plan.Preprocess{Channels: "rgb", Order: "nchw", Scale: 1.0 / 255, Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}}},
		{"cifar10_mlperf_resnet8", plan.Preprocess{Channels: "rgb", Order: "nhwc", Scale: 1}},
	} {
		ref, err := ReadNpy(data(t, "models/ref/"+tc.ref+".in.npy"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := Load(path, Options{Preprocess: &tc.p, Shape: ref.Shape[1:], Limit: ref.Shape[0]})
		if err != nil {
			t.Fatal(err)
		}
		near(t, a, ref, 1e-6)
	}
	l, err := Labels(path, 4)
	if err != nil || !slices.Equal(l, []int{3, 8, 8, 0}) {
		t.Errorf("labels %v, %v", l, err)
	}
}

// The *_224.png files were made from their originals by another implementation
// of the same steps; bytes may differ by rounding.
func TestPhotographs(t *testing.T) {
	p := &plan.Preprocess{Channels: "rgb", Order: "nchw", Scale: 1, Resize: 256, Crop: []int{224, 224}}
	asIs := &plan.Preprocess{Channels: "rgb", Order: "nchw", Scale: 1}
	for _, name := range []string{"coral_bird.png", "coral_grace_hopper.png", "coral_hot_dog.jpg", "skimage_chelsea.png"} {
		t.Run(name, func(t *testing.T) {
			got, err := Load(data(t, "images/"+name), Options{Preprocess: p})
			if err != nil {
				t.Fatal(err)
			}
			stem := strings.TrimSuffix(strings.TrimSuffix(name, ".png"), ".jpg")
			want, err := Load(data(t, "images/"+stem+"_224.png"), Options{Preprocess: asIs})
			if err != nil {
				t.Fatal(err)
			}
			near(t, got, want, 4)
		})
	}
	bgr := &plan.Preprocess{Channels: "bgr", Order: "nchw", Scale: 1, Mean: []float64{104, 117, 123}}
	got, err := Load(data(t, "images/coral_cat_224.png"), Options{Preprocess: bgr, Shape: []int{3, 224, 224}})
	if err != nil {
		t.Fatal(err)
	}
	want, err := ReadNpy(data(t, "models/ref/imagenet_squeezenet11_fp32.in.npy"))
	if err != nil {
		t.Fatal(err)
	}
	near(t, got, want, 1e-6)
}

func near(t *testing.T, got, want *ir.Array, tol float64) {
	t.Helper()
	if !slices.Equal(got.Shape, want.Shape) {
		t.Fatalf("shape %v, want %v", got.Shape, want.Shape)
	}
	worst, at := 0.0, 0
	for i := range got.Data {
		if d := math.Abs(got.Data[i] - want.Data[i]); d > worst {
			worst, at = d, i
		}
	}
	if worst > tol {
		t.Errorf("largest difference %g at %d, allowed %g", worst, at, tol)
	}
}

func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// A small compressed file that claims a picture of 64 MiB costs no more memory
// than what it holds.
func TestClaimsCostNothing(t *testing.T) {
	b := gz(t, idxFile(8, []uint32{1, 8192, 8192}, 1, 2, 3))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Load(write(t, "x.gz", b), Options{Preprocess: plain})
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("error %v", err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
		t.Errorf("%d bytes were allocated for a file of %d", got, len(b))
	}
}

// FuzzOpen feeds random bytes to every reader. They must return, not panic, and
// never hold more than a small multiple of what they were given.
func FuzzOpen(f *testing.F) {
	f.Add("x.npy", npyFile(1, head("<f4", "True", "(1, 2)"), 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add("x.npy", npyFile(2, head("<f8", "False", "(8589934592,)"), 1))
	f.Add("x.idx", idxFile(8, []uint32{2, 1, 2}, 1, 2, 3, 4))
	f.Add("l.idx", idxFile(8, []uint32{2}, 1, 2))
	f.Add("x.bin", make([]byte, cifarRecord))
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 3, 3))); err != nil {
		f.Fatal(err)
	}
	f.Add("x.png", b.Bytes())
	p := &plan.Preprocess{Channels: "rgb", Order: "nhwc", Scale: 1, Resize: 4, Crop: []int{2, 3}, Pad: []int{1, 0, 1, 0}}
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if conf, _, err := image.DecodeConfig(bytes.NewReader(b)); err == nil && conf.Width > 1<<20/max(conf.Height, 1) {
			t.Skip("a large picture is allowed to take its time")
		}
		if g, err := fromBytes(name, b); err == nil {
			if s, err := g.samples(Options{Preprocess: p}); err == nil {
				s.name = name
				for {
					a, err := s.Next(3)
					if err != nil {
						break
					}
					if len(a.Data) != ir.NumElems(a.Shape) || !slices.Equal(a.Shape[1:], s.Shape) {
						t.Fatalf("shape %v with %d elements", a.Shape, len(a.Data))
					}
				}
			}
		}
		if g, err := fromBytes(name, b); err == nil {
			if l, err := g.labels(0); err == nil && len(l) > len(b)*1100 {
				t.Fatalf("%d labels from %d bytes", len(l), len(b))
			}
		}
	})
}
