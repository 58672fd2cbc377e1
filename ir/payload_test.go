package ir

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLanes spreads entries over neighbouring slots: what is filled in is what the
// same vector holds slot by slot.
func TestLanes(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		log, places := r.IntN(5), 1<<r.IntN(6)
		d := SlotData{Period: places << log, LogLanes: log}
		long := SlotData{Period: places << log}
		for i := range places << r.IntN(2) {
			if r.IntN(3) == 0 {
				continue
			}
			v := r.NormFloat64()
			d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, v)
			for k := range 1 << log {
				long.Index, long.Value = append(long.Index, int32(i<<log+k)), append(long.Value, v)
			}
		}
		d.SetImag()
		long.SetImag()
		if err := d.Check(); err != nil {
			t.Fatal(err)
		}
		a, b := make([]complex128, d.Period), make([]complex128, d.Period)
		d.Fill(a)
		long.Fill(b)
		if d.Positions() != places || d.Imag != long.Imag || !slices.Equal(a, b) {
			t.Fatalf("seed %d: %d lanes: %v, want %v", seed, 1<<log, a, b)
		}
		if !d.Imag && !slices.Equal(d.Dense(2*d.Period), long.Dense(2*d.Period)) {
			t.Fatalf("seed %d: %d lanes: dense vectors differ", seed, 1<<log)
		}
		for _, bad := range []int{-1, bits.Len(uint(d.Period)), 64} {
			e := d
			if e.LogLanes = bad; e.Check() == nil {
				t.Errorf("seed %d: entries of 2^%d slots pass in a period of %d", seed, bad, d.Period)
			}
		}
	}
}

// TestPack packs vectors of few and of many different values: what can be read
// back is the same, few values take little memory, and damage is found.
func TestPack(t *testing.T) {
	packed := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		d := SlotData{Period: 1 << r.IntN(13)}
		few := make([]float64, 1+r.IntN(40))
		for i := range few {
			few[i] = r.NormFloat64()
		}
		for i := range 2 * d.Period {
			if r.IntN(3) == 0 {
				continue
			}
			v := few[r.IntN(len(few))]
			if seed%5 == 0 {
				v = r.NormFloat64()
			}
			d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, v)
		}
		d.SetImag()
		e := d
		e.Pack()
		if want := len(d.Index) >= 256 && seed%5 != 0; want != (e.Packed != nil) {
			t.Fatalf("seed %d: %d entries packed: %t", seed, len(d.Index), !want)
		}
		if i, v := e.lists(); e.Len() != len(d.Index) || !slices.Equal(i, d.Index) || !slices.Equal(v, d.Value) {
			t.Fatalf("seed %d: packing changes entries", seed)
		}
		if err := e.Check(); err != nil {
			t.Fatal(err)
		}
		a, b := make([]complex128, d.Period), make([]complex128, d.Period)
		d.Fill(a)
		e.Fill(b)
		if !slices.Equal(a, b) {
			t.Fatalf("seed %d: packing changes slots", seed)
		}
		if e.Packed == nil {
			continue
		}
		packed++
		if n := len(e.Packed.Code) + 8*len(e.Packed.Table); n > 4*len(d.Index) {
			t.Errorf("seed %d: %d bytes for %d entries", seed, n, len(d.Index))
		}
		for _, bad := range []PackedEntries{
			{e.Packed.Count, e.Packed.Table, e.Packed.Code[:len(e.Packed.Code)-1]},
			{e.Packed.Count, e.Packed.Table[:len(e.Packed.Table)-1], e.Packed.Code},
			{e.Packed.Count + 1, e.Packed.Table, e.Packed.Code},
			{e.Packed.Count - 1, e.Packed.Table, append([]byte{0xff, 0x7f}, e.Packed.Code[1:]...)},
		} {
			f := SlotData{Period: d.Period, Imag: d.Imag, Packed: &bad}
			if f.Check() == nil {
				t.Errorf("seed %d: damaged entries pass", seed)
			}
		}
	}
	if packed < 50 {
		t.Errorf("%d vectors packed", packed)
	}
}
