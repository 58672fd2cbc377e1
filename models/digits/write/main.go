// Command write draws the sample digits into the current folder.
package main

import (
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"image/png"
	"os"

	"github.com/home-fhe/home/models/digits"
)

func main() {
	err := varied()
	for d := 0; d < 10 && err == nil; d++ {
		err = picture(d)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func picture(d int) error {
	f, err := os.Create(fmt.Sprintf("%d.png", d))
	if err != nil {
		return err
	}
	if err := png.Encode(f, digits.Draw(d, digits.Plain)); err != nil {
		return err
	}
	return f.Close()
}

// varied writes the drawings by many hands as idx files.
func varied() error {
	const n = digits.VariedCount
	images := header(0x803, n, digits.Side, digits.Side)
	labels := header(0x801, n)
	for i, img := range digits.Varied(n) {
		images = append(images, img.Pix...)
		labels = append(labels, byte(i%10))
	}
	if err := zip(digits.VariedImages, images); err != nil {
		return err
	}
	return zip(digits.VariedLabels, labels)
}

func header(magic uint32, dims ...uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, magic)
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, d)
	}
	return b
}

func zip(name string, b []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(b); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Close()
}
