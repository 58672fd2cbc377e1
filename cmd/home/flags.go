package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a number of bytes on the command line: 512MiB, 1.5GiB, 4G.
type byteSize int64

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3},
	{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1},
}

// UnmarshalText parses a size. A bare letter is a binary unit.
func (b *byteSize) UnmarshalText(text []byte) error {
	s, unit := string(text), 1.0
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = rest, u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || !(v*unit >= 1) || v*unit > 1<<60 {
		return fmt.Errorf("%q is not a size; write 512MiB, 1.5GiB or a number of bytes", text)
	}
	*b = byteSize(v * unit)
	return nil
}

// String writes a size for people, three digits and a binary unit.
func (b byteSize) String() string {
	v, units := float64(b), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for math.Abs(v) >= 1000 && i+1 < len(units) {
		v /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", int64(b))
	}
	return digits3(v) + " " + units[i]
}

// digits3 writes v with three significant digits and no exponent.
func digits3(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95 || a == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// seconds writes a duration for people.
func seconds(s float64) string {
	switch {
	case math.IsNaN(s) || math.IsInf(s, 0) || s < 0:
		return "unknown"
	case s == 0:
		return "0 s"
	case s < 1e-3:
		return digits3(s*1e6) + " µs"
	case s < 1:
		return digits3(s*1e3) + " ms"
	case s < 120:
		return digits3(s) + " s"
	case s < 7200:
		return digits3(s/60) + " min"
	}
	return digits3(s/3600) + " h"
}

// count writes a number with commas between thousands.
func count[T int | int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		return "-" + s
	}
	return s
}

// percent is a share on the command line, written with its sign: 0.5%.
type percent float64

// UnmarshalText parses a share. Without the sign 0.5 could mean two things, so
// the sign is required.
func (p *percent) UnmarshalText(text []byte) error {
	s, ok := strings.CutSuffix(string(text), "%")
	v, err := strconv.ParseFloat(s, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return fmt.Errorf("%q is not a share; write it in percent, such as 0.5%%", text)
	}
	*p = percent(v / 100)
	return nil
}

// dims writes a shape: 1x28x28, or "scalar".
func dims(shape []int) string {
	if len(shape) == 0 {
		return "scalar"
	}
	s := make([]string, len(shape))
	for i, d := range shape {
		s[i] = strconv.Itoa(d)
	}
	return strings.Join(s, "x")
}
