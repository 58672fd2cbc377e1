package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// An idx file is two zero bytes, a type, the number of dimensions, the
// dimensions as big-endian u32, then the data in row-major order (Y. LeCun, the
// MNIST database). Pixels and labels are unsigned bytes, the only type read
// here.
const idxUbyte = 0x08

func idxType(b byte) bool {
	switch b {
	case idxUbyte, 0x09, 0x0b, 0x0c, 0x0d, 0x0e:
		return true
	}
	return false
}

// idxHeader reads the dimensions and checks them against the file's length
// where that is known.
func (f *file) idxHeader() ([]int, error) {
	head, err := readN(f.r, 4)
	if err != nil {
		return nil, cut(err)
	}
	if head[2] != idxUbyte {
		return nil, fmt.Errorf("idx element type 0x%02x is not supported: pixels and labels are unsigned bytes (0x08)", head[2])
	}
	raw, err := readN(f.r, 4*int64(head[3]))
	if err != nil {
		return nil, cut(err)
	}
	dims := make([]int, head[3])
	bytes := int64(1)
	for i := range dims {
		d := int64(binary.BigEndian.Uint32(raw[4*i:]))
		if d > 1<<32 || d != 0 && bytes > (1<<48)/d {
			return nil, errors.New("idx dimensions are too large")
		}
		dims[i] = int(d)
		bytes *= d
	}
	if bytes == 0 {
		return nil, fmt.Errorf("idx file of dimensions %v holds nothing", dims)
	}
	if have := f.size - int64(4+len(raw)); f.size >= 0 && have != bytes {
		return nil, fmt.Errorf("idx header announces %v, %d bytes, but %d follow: the file is cut or damaged", dims, bytes, have)
	}
	return dims, nil
}

// idxSamples opens images: [n, height, width] of grey pixels.
func (f *file) idxSamples(p *plan.Preprocess) (*Samples, error) {
	dims, err := f.idxHeader()
	if err != nil {
		return nil, err
	}
	if len(dims) == 1 {
		return nil, errors.New("is an idx file of labels, not of images")
	}
	if len(dims) != 3 {
		return nil, fmt.Errorf("idx file of dimensions %v: images have three, [count, height, width]", dims)
	}
	return f.rawSamples(Idx, dims[0], 1, dims[1], dims[2], 0, p)
}

// rawSamples reads records of skip bytes followed by planes of pixels, each
// height x width.
func (f *file) rawSamples(kind Kind, count, planes, height, width, skip int, p *plan.Preprocess) (*Samples, error) {
	n := int64(planes) * int64(height) * int64(width)
	if n > maxElems {
		return nil, fmt.Errorf("one image of %d bytes is more than the limit of %d", n, maxElems)
	}
	shape, err := outputShape(p, height, width)
	if err != nil {
		return nil, err
	}
	var rec []byte
	next := f.records(count, int64(skip)+n)
	return &Samples{
		Kind: kind, Shape: shape, len: count,
		read: func() (err error) {
			rec, err = next()
			return err
		},
		fill: func(dst []float64) error {
			return apply(p, bitmap{planes: planes, h: height, w: width, pix: rec[skip:]}, dst)
		},
	}, nil
}

// CIFAR-10 binary: records of a label byte and 3x32x32 pixels, red, green and
// blue planes (A. Krizhevsky, 2009).
const (
	cifarSide   = 32
	cifarRecord = 1 + 3*cifarSide*cifarSide
)

func (f *file) cifarCount() (int, error) {
	if f.size < 0 {
		return 0, errors.New("CIFAR records cannot be counted in a stream: decompress the file first")
	}
	if f.size == 0 || f.size%cifarRecord != 0 {
		return 0, fmt.Errorf("%d bytes are not a whole number of CIFAR-10 records of %d: the file is cut or of another kind", f.size, cifarRecord)
	}
	return int(f.size / cifarRecord), nil
}

func (f *file) cifarSamples(p *plan.Preprocess) (*Samples, error) {
	n, err := f.cifarCount()
	if err != nil {
		return nil, err
	}
	return f.rawSamples(Cifar, n, 3, cifarSide, cifarSide, 1, p)
}

// Labels reads the class of each sample: an idx file of one dimension, the
// label bytes of CIFAR records, or a .npy array of integers. At most limit
// labels are read, 0 reads all; path "-" is standard input.
func Labels(path string, limit int) ([]int, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.close()
	l, err := f.labels(limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return l, nil
}

func (f *file) labels(limit int) ([]int, error) {
	kind, err := f.kind(Auto)
	if err != nil {
		return nil, err
	}
	upTo := func(n int) int {
		if limit > 0 {
			return min(n, limit)
		}
		return n
	}
	switch kind {
	case Idx:
		dims, err := f.idxHeader()
		if err != nil {
			return nil, err
		}
		if len(dims) != 1 {
			return nil, fmt.Errorf("idx file of dimensions %v: labels have one", dims)
		}
		raw, err := readN(f.r, int64(upTo(dims[0])))
		if err != nil {
			return nil, cut(err)
		}
		labels := make([]int, len(raw))
		for i, b := range raw {
			labels[i] = int(b)
		}
		return labels, nil
	case Cifar:
		n, err := f.cifarCount()
		if err != nil {
			return nil, err
		}
		labels := make([]int, upTo(n))
		rec := make([]byte, cifarRecord)
		for i := range labels {
			if _, err := io.ReadFull(f.r, rec); err != nil {
				return nil, cut(err)
			}
			labels[i] = int(rec[0])
		}
		return labels, nil
	case Npy:
		a, err := f.npyArray()
		if err != nil {
			return nil, err
		}
		if len(a.Data) == 0 || !sameOrder(a.Shape, []int{len(a.Data)}) || !flat(a) {
			return nil, fmt.Errorf("array of shape %v: labels are one number per sample", a.Shape)
		}
		labels := make([]int, upTo(len(a.Data)))
		for i := range labels {
			if v := a.Data[i]; v < 0 || v > 1<<31 || v != float64(int(v)) {
				return nil, fmt.Errorf("label %d is %v, not a class number", i, v)
			}
			labels[i] = int(a.Data[i])
		}
		return labels, nil
	}
	return nil, errors.New("a picture holds no labels")
}

// flat reports whether at most one dimension is larger than one.
func flat(a *ir.Array) bool {
	n := 0
	for _, d := range a.Shape {
		if d > 1 {
			n++
		}
	}
	return n <= 1
}
