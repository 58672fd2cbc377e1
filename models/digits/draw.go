// Package digits draws the sample digits of this folder: strokes of a round pen
// on 28x28 pixels, light on dark, sized and centred by mass as the digits of
// the MNIST data set are. They are the project's own drawings and stand in for
// that data set in demonstrations.
package digits

import (
	"embed"
	"fmt"
	"image"
	"image/color"
	"math"
)

//go:generate go run ./write

//go:embed *.png
var files embed.FS

// PNG returns the stored drawing of digit d, 0 to 9, as a PNG file.
func PNG(d int) ([]byte, error) { return files.ReadFile(fmt.Sprintf("%d.png", d)) }

// Side is the width and height of a drawing in pixels.
const Side = 28

// pen is the radius of the pen in pixels, soft is how far its edge fades.
const (
	pen  = 1.05
	soft = 0.75
)

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
func Draw(d int) *image.Gray {
	const steps = 48
	var dots []point
	for _, c := range strokes[d] {
		for i := range steps + 1 {
			dots = append(dots, c.at(float64(i)/steps))
		}
	}
	// The ink is centred by mass, so it is weighed in the middle of the picture
	// first and then drawn where the centre says.
	ink := lay(dots, point{4, 4})
	var sum, mx, my float64
	for y := range Side {
		for x := range Side {
			v := ink[y*Side+x]
			sum += v
			mx += v * (float64(x) + 0.5)
			my += v * (float64(y) + 0.5)
		}
	}
	ink = lay(dots, point{4 + Side/2 - mx/sum, 4 + Side/2 - my/sum})
	img := image.NewGray(image.Rect(0, 0, Side, Side))
	for i, v := range ink {
		img.SetGray(i%Side, i/Side, color.Gray{Y: uint8(math.Round(255 * v))})
	}
	return img
}

// lay returns the coverage of each pixel, 0 to 1, by a round pen over the dots.
func lay(dots []point, origin point) []float64 {
	ink := make([]float64, Side*Side)
	for i := range ink {
		px, py := float64(i%Side)+0.5, float64(i/Side)+0.5
		near := math.Inf(1)
		for _, q := range dots {
			near = min(near, math.Hypot(px-q.x-origin.x, py-q.y-origin.y))
		}
		ink[i] = min(1, max(0, (pen+soft-near)/(2*soft)))
	}
	return ink
}
