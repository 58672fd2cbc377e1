package digits

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"image"
	"image/png"
	"io"
	"testing"
)

// same reports whether pictures agree up to the rounding of one grey level,
// which may differ between processors.
func same(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if d := int(a[i]) - int(b[i]); d < -1 || d > 1 {
			return false
		}
	}
	return true
}

// The stored files are what the strokes say.
func TestStored(t *testing.T) {
	for d := range 10 {
		b, err := File(fmt.Sprintf("%d.png", d))
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		got, ok := img.(*image.Gray)
		if !ok || !same(got.Pix, Draw(d, Plain).Pix) {
			t.Errorf("%d.png is not what Draw draws: run go generate ./models/digits", d)
		}
	}
	b, err := File(VariedImages)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, img := range Varied(VariedCount) {
		want = append(want, img.Pix...)
	}
	if len(got) < 16 || !same(got[16:], want) {
		t.Error("varied-images.gz is not what Varied draws: run go generate ./models/digits")
	}
}
