// Package dataset reads what networks are fed and judged with: NumPy arrays,
// the idx files of MNIST, the binary records of CIFAR-10 and pictures, and
// applies the preprocessing that a plan carries.
//
// Pixels and numbers are kept apart. A float .npy file holds network inputs and
// is never touched; idx and CIFAR files and pictures hold pixels from 0 to 255,
// which mean nothing to a network before plan.Preprocess has been applied, so
// opening them without one is an error.
//
// No reader trusts a size it has not seen bytes for: headers are checked against
// the length of the file, and what comes from a compressed stream is grown as it
// arrives.
package dataset

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Kind is a file format that samples or labels come in.
type Kind uint8

// Kinds of files. Auto decides by content, and by the extension .bin for CIFAR
// records, which carry no mark.
const (
	Auto Kind = iota
	Npy
	Idx
	Cifar
	Picture
)

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

var kindNames = [...]string{"auto", "npy", "idx", "cifar", "picture"}

// maxElems bounds one sample, so that a header alone can never ask for more
// than 512 MiB.
const maxElems = 1 << 26

// Options say how samples are to be read.
type Options struct {
	Kind  Kind // Auto unless the caller knows better
	Limit int  // at most so many samples; 0 reads all

	// Shape is the shape of one sample as the network takes it, without the
	// batch axis. Samples of another shape are refused. Dimensions of size one
	// may be left out or added, and a sample may be flat: nothing else moves
	// elements about. nil accepts any shape.
	Shape []int

	// Preprocess turns pixels into inputs. Required for idx and CIFAR files and
	// pictures, not used for .npy.
	Preprocess *plan.Preprocess
}

// Samples yields the samples of a file one after another, in file order. It is
// not safe for concurrent use.
type Samples struct {
	Kind  Kind
	Shape []int // of one sample, as Next returns it

	name  string
	total int
	len   int
	done  int
	read  func() error              // the bytes of the next sample
	fill  func(dst []float64) error // the sample that was read
	stop  []io.Closer
}

// Len returns how many samples the file holds, or Options.Limit if that is
// less.
func (s *Samples) Len() int { return s.len }

// Total returns how many samples the file holds, whatever Options.Limit is.
func (s *Samples) Total() int { return s.total }

// Next returns the next k samples as an array of shape [k, Shape...] with
// 1 <= k <= n, and io.EOF once all have been read. A value that is not finite
// is an error.
func (s *Samples) Next(n int) (*ir.Array, error) {
	if n = min(n, s.len-s.done); n <= 0 {
		return nil, io.EOF
	}
	size := ir.NumElems(s.Shape)
	var data []float64 // grows as samples arrive: a header may lie about their number
	for i := range n {
		if err := s.read(); err != nil {
			return nil, fmt.Errorf("%s: sample %d: %w", s.name, s.done, cut(err))
		}
		data = slices.Grow(data, size)[:len(data)+size]
		one := data[i*size:]
		if err := s.fill(one); err != nil {
			return nil, fmt.Errorf("%s: sample %d: %w", s.name, s.done, err)
		}
		for j, v := range one {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("%s: sample %d: element %d is %v; inputs must be finite", s.name, s.done, j, v)
			}
		}
		s.done++
	}
	return ir.ArrayOf(data, append([]int{n}, s.Shape...)...), nil
}

// All returns the samples that are left, as Next does. A file without samples
// cannot be opened, so the first call never meets io.EOF.
func (s *Samples) All() (*ir.Array, error) { return s.Next(math.MaxInt) }

// Close closes the file. Arrays already returned stay valid.
func (s *Samples) Close() error {
	var err error
	for i := len(s.stop) - 1; i >= 0; i-- {
		err = errors.Join(err, s.stop[i].Close())
	}
	s.stop = nil
	return err
}

// Open opens a file of samples; path "-" is standard input.
func Open(path string, o Options) (*Samples, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	return f.open(o)
}

// OpenBytes is Open for a file in memory; name is for messages and gives the
// extension.
func OpenBytes(name string, b []byte, o Options) (*Samples, error) {
	f, err := fromBytes(name, b)
	if err != nil {
		return nil, err
	}
	return f.open(o)
}

func (f *file) open(o Options) (*Samples, error) {
	s, err := f.samples(o)
	if err != nil {
		f.close()
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	s.name = f.name
	s.stop = f.stop
	s.total = s.len
	if o.Limit > 0 {
		s.len = min(s.len, o.Limit)
	}
	return s, nil
}

// Load opens a file of samples, reads them all and closes it.
func Load(path string, o Options) (*ir.Array, error) {
	s, err := Open(path, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.All()
}

func (f *file) samples(o Options) (*Samples, error) {
	kind, err := f.kind(o.Kind)
	if err != nil {
		return nil, err
	}
	if kind != Npy {
		if o.Preprocess == nil {
			return nil, errors.New("holds pixels, and this model knows no preprocessing: give it once with compile --preprocess p.json")
		}
		if err := CheckPreprocess(o.Preprocess); err != nil {
			return nil, err
		}
	}
	var s *Samples
	switch kind {
	case Npy:
		return f.npySamples(o.Shape, o.Preprocess)
	case Idx:
		s, err = f.idxSamples(o.Preprocess)
	case Cifar:
		s, err = f.cifarSamples(o.Preprocess)
	default:
		s, err = f.pictureSample(o.Preprocess)
	}
	if err != nil {
		return nil, err
	}
	if o.Shape != nil {
		if !sameOrder(s.Shape, o.Shape) {
			return nil, fmt.Errorf("preprocessing gives samples of shape %v, the network takes %v: set resize, crop, pad, channels or order accordingly", s.Shape, o.Shape)
		}
		s.Shape = slices.Clone(o.Shape)
	}
	return s, nil
}

// sameOrder reports whether row-major data of shape a can be read as shape b
// without moving elements: the shapes agree but for dimensions of size one, or
// one of them is flat.
func sameOrder(a, b []int) bool {
	squeeze := func(s []int) []int {
		return slices.DeleteFunc(slices.Clone(s), func(d int) bool { return d == 1 })
	}
	if ir.NumElems(a) != ir.NumElems(b) {
		return false
	}
	a, b = squeeze(a), squeeze(b)
	return len(a) <= 1 || len(b) <= 1 || slices.Equal(a, b)
}

// file is an input with a look-ahead of some bytes, decompressed where it was
// compressed by gzip.
type file struct {
	name string // for messages
	r    *bufio.Reader
	size int64 // bytes, -1 for a compressed stream of unknown length
	ext  string
	stop []io.Closer
}

func open(path string) (*file, error) {
	f := &file{name: path, size: -1, ext: strings.ToLower(filepath.Ext(strings.TrimSuffix(path, ".gz")))}
	var src io.Reader
	if path == "-" {
		b, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		f.name, f.size, src = "standard input", int64(len(b)), bytes.NewReader(b)
	} else {
		g, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		f.stop = append(f.stop, g)
		fi, err := g.Stat()
		if err == nil && fi.IsDir() {
			err = fmt.Errorf("%s is a directory, not a file of samples", path)
		}
		if err != nil {
			f.close()
			return nil, err
		}
		if fi.Mode().IsRegular() {
			f.size = fi.Size()
		}
		src = g
	}
	if err := f.decompress(src); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// fromBytes is open for bytes in memory.
func fromBytes(name string, b []byte) (*file, error) {
	f := &file{name: name, size: int64(len(b)), ext: strings.ToLower(filepath.Ext(strings.TrimSuffix(name, ".gz")))}
	return f, f.decompress(bytes.NewReader(b))
}

func (f *file) decompress(src io.Reader) error {
	f.r = bufio.NewReaderSize(src, 1<<16)
	if b, _ := f.r.Peek(2); len(b) == 2 && b[0] == 0x1f && b[1] == 0x8b {
		z, err := gzip.NewReader(f.r)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		f.stop = append(f.stop, z)
		f.r, f.size = bufio.NewReaderSize(z, 1<<16), -1
	}
	return nil
}

func (f *file) close() {
	for i := len(f.stop) - 1; i >= 0; i-- {
		f.stop[i].Close()
	}
	f.stop = nil
}

// kind recognises the format by its first bytes.
func (f *file) kind(asked Kind) (Kind, error) {
	b, err := f.r.Peek(8)
	if len(b) == 0 {
		if err != nil && err != io.EOF {
			return Auto, err
		}
		return Auto, errors.New("the file is empty")
	}
	has := func(magic string) bool { return strings.HasPrefix(string(b), magic) }
	found := Auto
	switch {
	case has(npyMagic):
		found = Npy
	case has("\x89PNG"), has("\xff\xd8\xff"), has("BM") && f.ext == ".bmp":
		found = Picture
	case f.ext == ".bin":
		found = Cifar
	case len(b) >= 4 && b[0] == 0 && b[1] == 0 && idxType(b[2]) && b[3] >= 1 && b[3] <= 4:
		found = Idx
	}
	switch {
	case asked == Cifar && found == Auto:
		return Cifar, nil
	case found == Auto:
		return Auto, errors.New("is not a .npy array, an idx file, a CIFAR .bin file or a PNG, JPEG or BMP picture")
	case asked != Auto && asked != found:
		return Auto, fmt.Errorf("is a file of kind %s, not %s", found, asked)
	}
	return found, nil
}

// records returns a reader of count records of n bytes that reuses one buffer
// and wants the file to end after the last.
func (f *file) records(count int, n int64) func() ([]byte, error) {
	var rec []byte
	left := count
	return func() (_ []byte, err error) {
		if rec == nil {
			rec, err = readN(f.r, n)
		} else {
			_, err = io.ReadFull(f.r, rec)
		}
		if err != nil {
			return nil, err
		}
		if left--; left == 0 {
			err = atEnd(f.r)
		}
		return rec, err
	}
}

// readN reads exactly n bytes, growing the buffer as they arrive.
func readN(r io.Reader, n int64) ([]byte, error) {
	var b bytes.Buffer
	if n <= 1<<20 {
		b.Grow(int(n) + bytes.MinRead)
	}
	m, err := io.Copy(&b, io.LimitReader(r, n))
	if err == nil && m < n {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}

// atEnd reports an error if bytes follow the last sample.
func atEnd(r io.Reader) error {
	var one [1]byte
	switch _, err := io.ReadFull(r, one[:]); err {
	case io.EOF:
		return nil
	case nil:
		return errors.New("bytes follow the last sample: the file has grown or its header is wrong")
	default:
		return err
	}
}

// cut words the end of a file that should have gone on.
func cut(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the file is cut short")
	}
	return err
}
