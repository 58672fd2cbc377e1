package lattigo

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/tuneinsight/lattigo/v5/core/rlwe"
	"github.com/tuneinsight/lattigo/v5/ring"
	"github.com/tuneinsight/lattigo/v5/schemes/ckks"
)

// TestEncoderRoundTrip encodes dense and periodic vectors and decodes them.
func TestEncoderRoundTrip(t *testing.T) {
	for _, r := range []ir.Ring{ir.RingStandard, ir.RingReal} {
		for _, logN := range []int{4, 7, 10} {
			p, err := ir.NewParams("enc", logN, r, ir.SecretTernary, []int{45}, []int{46}, 30)
			if err != nil {
				t.Fatal(err)
			}
			e := newEncoder(p)
			rng := rand.New(rand.NewPCG(3, uint64(logN)))
			for period := 1; period <= e.n; period *= 2 {
				d := &ir.SlotData{Period: period, LogLanes: rng.IntN(bits.Len(uint(period)))}
				for i := 0; i < d.Positions(); i += 1 + rng.IntN(3) {
					d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, 2*rng.Float64()-1)
				}
				c := make([]float64, p.N())
				for i := range c {
					c[i] = math.NaN() // must be overwritten
				}
				big := must[float64](t)(e.coefs(d, 3, make([]complex128, e.n), c))
				for _, x := range c {
					if !(math.Abs(x) <= big) {
						t.Fatalf("coefficient %g above the largest, %g", x, big)
					}
				}
				got := e.slots(c, make([]complex128, e.n))
				for i, want := range d.Dense(e.n) {
					if math.Abs(got[i]-3*want) > 1e-12 {
						t.Fatalf("%s, N=2^%d, period %d: slot %d is %g, want %g", r, logN, period, i, got[i], 3*want)
					}
				}
			}
		}
	}
}

// TestResidues rounds and reduces numbers of every size, against big integers
// by way of residue, and small ones against the obvious formula.
func TestResidues(t *testing.T) {
	r := must[*rings](t)(newRings(toyParams(t)))
	for _, m := range r.mods {
		c := []float64{0, 0.4, 0.5, -0.5, 0.6, -0.6, 1e9 + 0.25, -1e9, 1 << 51, -(1 << 53), 1 << 60, math.Ldexp(-3, 100), math.Ldexp(5, 200)}
		z := make([]uint64, len(c))
		m.residues(z, c)
		for i, x := range c {
			want := m.Pow(2, 100)
			switch {
			case i == 12:
				want = m.Times(m.Pow(2, 200), 5)
			case i == 11:
				want = m.Q - m.Times(want, 3)
			default:
				v := int64(math.Round(x))
				want = uint64(((v % int64(m.Q)) + int64(m.Q)) % int64(m.Q))
			}
			if z[i] != want {
				t.Errorf("%g modulo %d is %d, want %d", x, m.Q, z[i], want)
			}
		}
	}
}

// TestLattigoAgrees decrypts our ciphertexts with Lattigo's own decryptor and
// encoder: same ring, same slots, same scale.
func TestLattigoAgrees(t *testing.T) {
	for _, r := range []ir.Ring{ir.RingStandard, ir.RingReal} {
		t.Run(string(r), func(t *testing.T) {
			p, err := ir.NewParams("agree", 8, r, ir.SecretTernary, []int{55, 40, 40}, []int{56}, 40)
			if err != nil {
				t.Fatal(err)
			}
			p.Insecure = true
			lp, err := ckks.NewParametersFromLiteral(ckks.ParametersLiteral{LogN: p.LogN, Q: p.Q, P: p.P, LogDefaultScale: 40, RingType: ringType(r)})
			if err != nil {
				t.Fatal(err)
			}
			sk := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
			lsk := rlwe.NewSecretKey(lp)
			all := append(append([]*ring.SubRing{}, lp.RingQ().SubRings...), lp.RingP().SubRings...)
			rows := append(append([][]uint64{}, lsk.Value.Q.Coeffs...), lsk.Value.P.Coeffs...)
			for i, s := range all {
				must[*modulus](t)(newModulus(s, r == ir.RingReal, kernels.Portable)).signedRow(rows[i], sk.coef)
				s.NTT(rows[i], rows[i])
				s.MForm(rows[i], rows[i])
			}
			v := make([]float64, p.Slots())
			for i := range v {
				v[i] = math.Sin(float64(i * i))
			}
			const level = 1
			c := must[*Ciphertexts](t)(Encrypt(sk, p, "", 1, []PortValues{{"x", level, ir.ScaleTwo(40), [][]float64{v}}}, AllowInsecure()))
			ct := ckks.NewCiphertext(lp, 1, level)
			if err := c.Groups[0].unpack(0, level, ct.Value[0].Coeffs, ct.Value[1].Coeffs); err != nil {
				t.Fatal(err)
			}
			got := make([]float64, p.Slots())
			if err := ckks.NewEncoder(lp).Decode(rlwe.NewDecryptor(lp, lsk).DecryptNew(ct), got); err != nil {
				t.Fatal(err)
			}
			for i := range v {
				if math.Abs(got[i]-v[i]) > 1e-8 {
					t.Fatalf("Lattigo reads %g in slot %d, want %g", got[i], i, v[i])
				}
			}
		})
	}
}

// TestReserve holds what an engine allocates, with all kernels that this machine has,
// against what Reserve promises.
func TestReserve(t *testing.T) {
	chosen, err := kernels.Chosen()
	if err != nil {
		t.Fatal(err)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what the first one left to be swept
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for _, r := range []ir.Ring{ir.RingStandard, ir.RingReal} {
		for _, special := range [][]int{{40}, {49, 49, 49}, {51, 51, 51, 51, 51, 51}} {
			p, err := ir.NewParams("reserve", 11, r, ir.SecretTernary, sizes(50, 40, 12), special, 40)
			if err != nil {
				t.Fatal(err)
			}
			p.Insecure = true
			for form := range chosen + 1 {
				before := heap()
				e := newEngine(must[*rings](t)(newRingsWith(p, form)), 1)
				opened := heap()
				s := e.take()
				s.encoding(e.rings)
				e.automorphism(&s.auto, rotation(p, 1))
				ready := heap()
				tables, scratch := Reserve(p)
				for _, c := range []struct {
					what      string
					got, most int64
				}{{"tables", opened - before, tables}, {"scratch", ready - opened, scratch}} {
					if c.got > c.most || c.got < c.most/2 { // AVX-512 DQ has the largest tables
						t.Errorf("%s, %d special primes, %s: %s take %d bytes, Reserve says %d", r, len(special), form, c.what, c.got, c.most)
					}
				}
				runtime.KeepAlive(e)
				runtime.KeepAlive(s)
			}
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, logN := range []int{13, 15} {
		p, err := ir.NewParams("open", logN, ir.RingReal, ir.SecretTernary, sizes(45, 33, 4), []int{45}, 33)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("N%d", logN), func(b *testing.B) {
			for b.Loop() {
				if _, err := newRings(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
