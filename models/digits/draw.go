// Package digits draws the sample digits of this folder: strokes of a round pen
// on 28x28 pixels, light on dark, sized and centred by mass as the digits of
// the MNIST data set are. They are the project's own drawings and stand in for
// that data set in demonstrations.
package digits

import (
	"embed"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
)

//go:generate go run ./write

//go:embed *.png *.gz
var files embed.FS

// Files with the drawings by many hands: idx, compressed.
const (
	VariedImages = "varied-images.gz"
	VariedLabels = "varied-labels.gz"
)

// File returns a stored file: VariedImages, VariedLabels or "0.png" to "9.png".
func File(name string) ([]byte, error) { return files.ReadFile(name) }

// Side is the width and height of a drawing in pixels.
const Side = 28

// Pen is how a digit is drawn. The zero value is not useful, Plain is.
type Pen struct {
	Radius        float64 // of the stroke, in pixels
	Soft          float64 // how far its edge fades, in pixels
	Width, Height float64 // factors
	Slant         float64 // pixels to the right per pixel upwards
	Turn          float64 // radians
	Ink           float64 // brightness of a full stroke, 0 to 1
}

// Plain is the pen of the stored drawings.
var Plain = Pen{Radius: 1.05, Soft: 0.75, Width: 1, Height: 1, Ink: 1}

// Vary returns a pen drawn at random about Plain, as hands differ.
func Vary(r *rand.Rand) Pen {
	about := func(mean, spread float64) float64 { return mean + spread*(2*r.Float64()-1) }
	return Pen{
		Radius: about(1.1, 0.4), Soft: about(0.75, 0.2), Width: about(0.95, 0.2), Height: about(1, 0.1),
		Slant: about(0.05, 0.2), Turn: about(0, 0.12), Ink: about(0.95, 0.05),
	}
}

// put places a point of the box of 20x20 units in the picture, about its centre.
func (p Pen) put(q point) point {
	x, y := (q.x-10)*p.Width, (q.y-10)*p.Height
	x -= y * p.Slant
	sin, cos := math.Sincos(p.Turn)
	return point{10 + x*cos - y*sin, 10 + x*sin + y*cos}
}

type point struct{ x, y float64 }

// curve is a cubic Bézier segment in a box of 20x20 units, y downwards.
type curve [4]point

func line(x0, y0, x1, y1 float64) curve {
	a, b := point{x0, y0}, point{x1, y1}
	return curve{a, mix(a, b, 1.0/3), mix(a, b, 2.0/3), b}
}

func bend(x0, y0, x1, y1, x2, y2, x3, y3 float64) curve {
	return curve{{x0, y0}, {x1, y1}, {x2, y2}, {x3, y3}}
}

func mix(a, b point, t float64) point { return point{a.x + (b.x-a.x)*t, a.y + (b.y-a.y)*t} }

// at evaluates the segment by de Casteljau's construction.
func (c curve) at(t float64) point {
	p := c
	for n := 3; n > 0; n-- {
		for i := range n {
			p[i] = mix(p[i], p[i+1], t)
		}
	}
	return p[0]
}

// strokes of the ten digits.
var strokes = [10][]curve{
	0: {
		bend(11, 0.5, 4.5, 0.5, 3, 7, 3.2, 12), bend(3.2, 12, 3.4, 18, 7, 19.8, 9.5, 19.3),
		bend(9.5, 19.3, 15, 18.3, 17, 11.5, 16.5, 7), bend(16.5, 7, 16, 2.5, 13.5, 0.5, 11, 0.5),
	},
	1: {line(12, 0.5, 8.2, 19.5)},
	2: {
		bend(4.2, 4.5, 5.5, 0.5, 14.5, -1, 14.8, 4.5), bend(14.8, 4.5, 15, 9.5, 8.5, 14.5, 3.6, 18.6),
		bend(3.6, 18.6, 8, 17.2, 12, 18.4, 17, 18.4),
	},
	3: {
		bend(4.2, 2.2, 8, -0.2, 15.5, -0.2, 14.8, 4.5), bend(14.8, 4.5, 14.3, 7.6, 10.5, 9, 7.8, 9.2),
		bend(7.8, 9.2, 12.5, 9, 16.5, 11.5, 15.8, 15), bend(15.8, 15, 15, 19.8, 7, 20.6, 3.8, 17.6),
	},
	4: {
		bend(5.8, 1, 5.2, 4, 4, 8.5, 4.2, 10.2), bend(4.2, 10.2, 7, 11.4, 12, 10.4, 15.6, 9.6),
		line(15.2, 1, 13, 19.5),
	},
	5: {
		line(15.5, 1, 6.8, 1.3), line(6.8, 1.3, 5.4, 8.6), bend(5.4, 8.6, 9.5, 7, 15.6, 8.2, 15.4, 13),
		bend(15.4, 13, 15.2, 18.6, 8.5, 20.8, 4, 17.8),
	},
	6: {
		bend(13, 0.6, 7.5, 3.5, 3.8, 9.5, 4.2, 14.5), bend(4.2, 14.5, 4.6, 20.2, 14.6, 20.8, 15.2, 14.8),
		bend(15.2, 14.8, 15.6, 9.6, 7.5, 9, 4.4, 14.2),
	},
	7: {bend(3.4, 2.6, 7, 1.4, 12, 2.2, 15.8, 1.6), bend(15.8, 1.6, 13.2, 7, 10, 12.5, 8.4, 19.5)},
	8: {
		bend(14.6, 3, 12, -0.6, 4.6, 0.2, 5.2, 4.6), bend(5.2, 4.6, 5.8, 9, 14.8, 10.4, 14.6, 15.2),
		bend(14.6, 15.2, 14.2, 20.4, 4.6, 20.4, 4.8, 15.4), bend(4.8, 15.4, 5, 10.6, 14.2, 8, 14.6, 3),
	},
	9: {
		bend(14.8, 5, 13.8, -0.6, 4.6, 0.2, 4.8, 5.8), bend(4.8, 5.8, 5, 10.6, 13, 10.4, 14.8, 5),
		bend(14.8, 5, 15, 10, 13.6, 15, 12.6, 19.5),
	},
}

// Draw draws digit d, 0 to 9.
func Draw(d int, pen Pen) *image.Gray {
	const steps = 48
	var dots []point
	for _, c := range strokes[d] {
		for i := range steps + 1 {
			dots = append(dots, pen.put(c.at(float64(i)/steps)))
		}
	}
	// The ink is centred by mass, so it is weighed in the middle of the picture
	// first and then drawn where the centre says.
	ink := pen.lay(dots, point{4, 4})
	var sum, mx, my float64
	for y := range Side {
		for x := range Side {
			v := ink[y*Side+x]
			sum += v
			mx += v * (float64(x) + 0.5)
			my += v * (float64(y) + 0.5)
		}
	}
	ink = pen.lay(dots, point{4 + Side/2 - mx/sum, 4 + Side/2 - my/sum})
	img := image.NewGray(image.Rect(0, 0, Side, Side))
	for i, v := range ink {
		img.SetGray(i%Side, i/Side, color.Gray{Y: uint8(math.Round(255 * v))})
	}
	return img
}

// lay returns the brightness of each pixel, 0 to 1, under a round pen that
// touches the dots.
func (p Pen) lay(dots []point, origin point) []float64 {
	ink := make([]float64, Side*Side)
	for i := range ink {
		px, py := float64(i%Side)+0.5, float64(i/Side)+0.5
		near := math.Inf(1)
		for _, q := range dots {
			near = min(near, math.Hypot(px-q.x-origin.x, py-q.y-origin.y))
		}
		ink[i] = p.Ink * min(1, max(0, (p.Radius+p.Soft-near)/(2*p.Soft)))
	}
	return ink
}

// Varied draws n digits, 0 to 9 in turn, with pens that differ. The same n gives
// the same drawings.
func Varied(n int) []*image.Gray {
	r := rand.New(rand.NewPCG(28, 28))
	out := make([]*image.Gray, n)
	for i := range out {
		out[i] = Draw(i%10, Vary(r))
	}
	return out
}

// VariedCount is the number of drawings in VariedImages.
const VariedCount = 500
