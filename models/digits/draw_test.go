package digits

import (
	"bytes"
	"image"
	"image/png"
	"slices"
	"testing"
)

// The stored files are what the strokes say, pixel for pixel.
func TestStored(t *testing.T) {
	for d := range 10 {
		b, err := PNG(d)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		got, ok := img.(*image.Gray)
		if !ok || !slices.Equal(got.Pix, Draw(d).Pix) {
			t.Errorf("%d.png is not what Draw draws: run go generate ./models/digits", d)
		}
	}
}
