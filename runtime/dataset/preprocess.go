package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // decoder
	_ "image/png"  // decoder
	"io"
	"math"
	"os"

	_ "golang.org/x/image/bmp" // decoder
	"golang.org/x/image/draw"

	"github.com/home-fhe/home/ir/plan"
)

// maxPixels bounds a picture before it is decoded.
const maxPixels = 1 << 26

// maxSide bounds the sides that preprocessing may ask for.
const maxSide = 1 << 13

// LoadPreprocess reads preprocessing from a JSON file with the fields of
// plan.Preprocess; path "-" is standard input. A field that is not known is an
// error, so that a misspelt one cannot be ignored.
func LoadPreprocess(path string) (*plan.Preprocess, error) {
	var b []byte
	var err error
	if path == "-" {
		path = "standard input"
		b, err = io.ReadAll(io.LimitReader(os.Stdin, 1<<24))
	} else {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	p, err := ParsePreprocess(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// ParsePreprocess is LoadPreprocess for bytes in memory.
func ParsePreprocess(text []byte) (*plan.Preprocess, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	p := new(plan.Preprocess)
	if err := d.Decode(p); err == io.EOF {
		return nil, errors.New("preprocessing: the file is empty")
	} else if err != nil {
		return nil, fmt.Errorf("preprocessing: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("preprocessing: text follows the JSON object")
	}
	return p, CheckPreprocess(p)
}

// CheckPreprocess says what is wrong with preprocessing, whoever wrote it: names
// it does not know, sizes out of range, a scale or deviation of zero.
func CheckPreprocess(p *plan.Preprocess) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("preprocessing: "+format, args...)
	}
	channels := 3
	switch p.Channels {
	case "gray":
		channels = 1
	case "rgb", "bgr":
	default:
		return bad(`channels is %q; it must be "gray", "rgb" or "bgr"`, p.Channels)
	}
	if p.Order != "nchw" && p.Order != "nhwc" {
		return bad(`order is %q; it must be "nchw" or "nhwc"`, p.Order)
	}
	if p.Resize < 0 || p.Resize > maxSide {
		return bad("resize is %d; it must be between 0 (keep) and %d", p.Resize, maxSide)
	}
	if len(p.Crop) != 0 && len(p.Crop) != 2 {
		return bad("crop has %d numbers; it takes two, height and width", len(p.Crop))
	}
	for _, c := range p.Crop {
		if c < 1 || c > maxSide {
			return bad("crop %v: sides must be between 1 and %d", p.Crop, maxSide)
		}
	}
	if len(p.Pad) != 0 && len(p.Pad) != 4 {
		return bad("pad has %d numbers; it takes four, top, left, bottom and right", len(p.Pad))
	}
	for _, c := range p.Pad {
		if c < 0 || c > maxSide {
			return bad("pad %v: borders must be between 0 and %d", p.Pad, maxSide)
		}
	}
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	if p.Scale == 0 || !finite(p.Scale) {
		return bad("scale is %v; use 1 to keep pixels as they are, 1/255 = 0.00392156862745098 for 0 to 1", p.Scale)
	}
	for _, l := range []struct {
		name string
		v    []float64
	}{{"mean", p.Mean}, {"std", p.Std}} {
		if n := len(l.v); n > 1 && n != channels {
			return bad("%s has %d numbers for %d channels", l.name, n, channels)
		}
		for _, v := range l.v {
			if !finite(v) || l.name == "std" && v == 0 {
				return bad("%s holds %v", l.name, v)
			}
		}
	}
	return nil
}

// geometry is where preprocessing takes a picture: the size after resizing, the
// corner of the crop, and the size of the result.
type geometry struct {
	resizeH, resizeW int
	top, left        int
	h, w             int // after the crop
	outH, outW       int // after the border
}

func layOut(p *plan.Preprocess, h, w int) (g geometry, err error) {
	g.resizeH, g.resizeW = h, w
	if s := p.Resize; s > 0 { // the long side is rounded to a whole pixel
		if h <= w {
			g.resizeH, g.resizeW = s, roundDiv(int64(s)*int64(w), int64(h))
		} else {
			g.resizeH, g.resizeW = roundDiv(int64(s)*int64(h), int64(w)), s
		}
		if g.resizeH > maxPixels/g.resizeW {
			return g, fmt.Errorf("a picture of %dx%d pixels is too long to be resized to %d", w, h, s)
		}
	}
	g.h, g.w = g.resizeH, g.resizeW
	if len(p.Crop) == 2 {
		g.h, g.w = p.Crop[0], p.Crop[1]
		if g.h > g.resizeH || g.w > g.resizeW {
			return g, fmt.Errorf("a picture of %dx%d pixels is too small for the centre crop of %dx%d: set resize", g.resizeW, g.resizeH, g.w, g.h)
		}
		g.top, g.left = (g.resizeH-g.h)/2, (g.resizeW-g.w)/2
	}
	g.outH, g.outW = g.h, g.w
	if len(p.Pad) == 4 {
		g.outH += p.Pad[0] + p.Pad[2]
		g.outW += p.Pad[1] + p.Pad[3]
	}
	return g, nil
}

// roundDiv returns a/b rounded to the nearest integer, halves up.
func roundDiv(a, b int64) int { return int((2*a + b) / (2 * b)) }

func channels(p *plan.Preprocess) int {
	if p.Channels == "gray" {
		return 1
	}
	return 3
}

// outputShape returns the shape of one sample made from h x w pixels.
func outputShape(p *plan.Preprocess, h, w int) ([]int, error) {
	g, err := layOut(p, h, w)
	if err != nil {
		return nil, err
	}
	if g.outH > maxElems/g.outW/channels(p) {
		return nil, fmt.Errorf("preprocessing: a result of %dx%d pixels is more than the limit of %d elements", g.outW, g.outH, maxElems)
	}
	if p.Order == "nhwc" {
		return []int{g.outH, g.outW, channels(p)}, nil
	}
	return []int{channels(p), g.outH, g.outW}, nil
}

// bitmap is a picture as planes of bytes: one plane of grey, or red, green and
// blue.
type bitmap struct {
	planes, h, w int
	pix          []byte
}

// convert returns the picture with the given number of planes. Grey is the luma
// of ITU-R BT.601, as the image package computes it.
func (b bitmap) convert(planes int) bitmap {
	if b.planes == planes {
		return b
	}
	n := b.h * b.w
	out := bitmap{planes: planes, h: b.h, w: b.w, pix: make([]byte, planes*n)}
	if planes == 3 {
		for c := range 3 {
			copy(out.pix[c*n:], b.pix)
		}
		return out
	}
	for i := range n {
		out.pix[i] = color.GrayModel.Convert(color.RGBA{R: b.pix[i], G: b.pix[n+i], B: b.pix[2*n+i], A: 255}).(color.Gray).Y
	}
	return out
}

// resize scales each plane with a triangle filter that widens when it shrinks.
func (b bitmap) resize(h, w int) bitmap {
	if b.h == h && b.w == w {
		return b
	}
	out := bitmap{planes: b.planes, h: h, w: w, pix: make([]byte, b.planes*h*w)}
	for c := range b.planes {
		src := &image.Gray{Pix: b.pix[c*b.h*b.w : (c+1)*b.h*b.w], Stride: b.w, Rect: image.Rect(0, 0, b.w, b.h)}
		dst := image.NewGray(image.Rect(0, 0, w, h))
		draw.BiLinear.Scale(dst, dst.Rect, src, src.Rect, draw.Src, nil)
		copy(out.pix[c*h*w:], dst.Pix)
	}
	return out
}

// apply fills dst with the network input that p makes of a picture: resize,
// centre crop, scale, mean, deviation, border, order. Its length is that of
// outputShape.
func apply(p *plan.Preprocess, b bitmap, dst []float64) error {
	g, err := layOut(p, b.h, b.w)
	if err != nil {
		return err
	}
	ch := channels(p)
	b = b.convert(ch).resize(g.resizeH, g.resizeW)
	clear(dst)
	top, left := 0, 0
	if len(p.Pad) == 4 {
		top, left = p.Pad[0], p.Pad[1]
	}
	pick := func(v []float64, c int, none float64) float64 {
		switch len(v) {
		case 0:
			return none
		case 1:
			return v[0]
		}
		return v[c]
	}
	for c := range ch {
		from := c
		if p.Channels == "bgr" {
			from = 2 - c
		}
		mean, std := pick(p.Mean, c, 0), pick(p.Std, c, 1)
		for y := range g.h {
			row := b.pix[from*b.h*b.w+(y+g.top)*b.w+g.left:]
			for x := range g.w {
				at := (c*g.outH+y+top)*g.outW + x + left
				if p.Order == "nhwc" {
					at = ((y+top)*g.outW+x+left)*ch + c
				}
				dst[at] = (float64(row[x])*p.Scale - mean) / std
			}
		}
	}
	return nil
}

// pictureSample decodes one picture. Transparency is refused, because what
// shows through would be a guess.
func (f *file) pictureSample(p *plan.Preprocess) (*Samples, error) {
	raw, err := io.ReadAll(f.r)
	if err != nil {
		return nil, err
	}
	conf, format, err := image.DecodeConfig(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("picture: %w", err)
	}
	if conf.Width < 1 || conf.Height < 1 || conf.Width > maxPixels/conf.Height {
		return nil, fmt.Errorf("%s picture of %dx%d pixels is more than the limit of %d", format, conf.Width, conf.Height, maxPixels)
	}
	img, _, err := image.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%s picture: %w", format, err)
	}
	b, err := planesOf(img)
	if err != nil {
		return nil, fmt.Errorf("%s picture: %w", format, err)
	}
	if p.Invert {
		for i, v := range b.pix {
			b.pix[i] = 255 - v
		}
	}
	shape, err := outputShape(p, b.h, b.w)
	if err != nil {
		return nil, err
	}
	return &Samples{
		Kind: Picture, Shape: shape, len: 1,
		read: func() error { return nil },
		fill: func(dst []float64) error { return apply(p, b, dst) },
	}, nil
}

// planesOf splits a decoded picture into planes of 8 bits.
func planesOf(img image.Image) (bitmap, error) {
	r := img.Bounds()
	b := bitmap{planes: 3, h: r.Dy(), w: r.Dx()}
	switch img.ColorModel() {
	case color.GrayModel, color.Gray16Model:
		b.planes = 1
	}
	n := b.h * b.w
	b.pix = make([]byte, b.planes*n)
	i := 0
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			red, green, blue, alpha := img.At(x, y).RGBA()
			if alpha != 0xffff {
				return b, errors.New("has transparent pixels: flatten it onto a background first")
			}
			b.pix[i] = byte(red >> 8)
			if b.planes == 3 {
				b.pix[n+i], b.pix[2*n+i] = byte(green>>8), byte(blue>>8)
			}
			i++
		}
	}
	return b, nil
}
