package kernels

import "testing"

// ticks is a clock that passes a second whenever it is looked at.
func ticks() func() float64 {
	now := 0.0
	return func() float64 { now++; return now }
}

// TestMeasurePeaks runs the loops once, by a clock of which the rates are known.
func TestMeasurePeaks(t *testing.T) {
	var dram int64
	for _, c := range caches() {
		dram = max(dram, 2*c.bytes)
	}
	for _, cores := range []int{1, 2} {
		p := measurePeaks(meter{cores, ticks(), 1}, dram)
		want := [NumUnits]float64{Mul64: 8, Float: 24}
		if hasDQ() {
			want[MulHalf], want[MulLow], want[FMA] = 192, 192, 192
		}
		if hasIFMA() {
			want[Madd52] = 192
		}
		if hasVAES() {
			want[AES] = 192
		}
		for u := range want {
			if p.Rate[u] != want[u]*float64(cores) {
				t.Errorf("%d cores: %s at %v words per second, want %v", cores, Unit(u), p.Rate[u], want[u]*float64(cores))
			}
		}
		for i, m := range p.Memory {
			if last := i == len(p.Memory)-1; (m.Level == "DRAM") != last || (m.Holds == 0) != last {
				t.Errorf("%d cores: level %d is %s of %d bytes", cores, i, m.Level, m.Holds)
			}
			// A run goes over half of what a level holds, once.
			bytes := float64(m.Holds / 2)
			switch {
			case m.Holds == 0:
				bytes = float64(dram)
			case i > 1:
				bytes /= float64(cores)
			}
			if bytes *= float64(cores); m.Read < 0.99*bytes || m.Read > bytes || m.Copy < 0.99*bytes || m.Copy > bytes {
				t.Errorf("%d cores, %s: %v bytes per second read, %v copied, want %v", cores, m.Level, m.Read, m.Copy, bytes)
			}
		}
	}
}

// TestWritePrice: a copy takes what reading half of its bytes and writing the other takes.
func TestWritePrice(t *testing.T) {
	b := Bandwidth{Read: 30e9, Copy: 20e9}
	if got, want := 1/b.Read+b.Write(), 2/b.Copy; got < 0.999*want || got > 1.001*want {
		t.Errorf("reading and writing a byte takes %v s, copying one %v", got, want)
	}
	if b = (Bandwidth{Read: 10e9, Copy: 40e9}); b.Write() != 0 {
		t.Errorf("a byte written takes %v s where copies are as fast as nothing", b.Write())
	}
}

// TestPeakLoops: copying copies, and nothing else.
func TestPeakLoops(t *testing.T) {
	if !hasDQ() {
		t.Skip("this machine has no AVX-512")
	}
	x, z := make([]uint64, 192), make([]uint64, 192)
	for i := range x {
		x[i] = uint64(i) + 1
	}
	peakCopy(&z[64], &x[64], 64)
	peakRead(&x[0], len(x))
	for i := range z {
		if want := x[i] * uint64(i/64%2); z[i] != want {
			t.Fatalf("word %d is %d, want %d", i, z[i], want)
		}
	}
	if got := readWords(x[:64]); got != 127 {
		t.Errorf("the words or each other to %d", got)
	}
}

func TestMeasurePace(t *testing.T) {
	for _, f := range Supported() {
		for _, bits := range []int{45, 60} {
			p, err := MeasurePace(f, bits, ticks())
			if err != nil {
				t.Fatal(err)
			}
			// One run per second: of 5120 butterflies, 1024 products or uniform residues, 512
			// results.
			if p.Butterfly != 1.0/5120 || p.Inverse != 1.0/5120 || p.Product != 1.0/1024 || p.Uniform != 1.0/1024 || p.Term != 0 || p.Reduction != 1.0/512 {
				t.Errorf("%s, %d bits: %+v", f, bits, p)
			}
		}
	}
	if _, err := MeasurePace(Portable, 62, ticks()); err == nil {
		t.Error("primes of 62 bits are out of range")
	}
}
