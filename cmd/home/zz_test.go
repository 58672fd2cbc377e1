package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime"
	"github.com/klauspost/compress/zstd"
)

func TestZZ(t *testing.T) {
	w := "/tmp/crev/w/"
	sk, err := lattigo.LoadSecretKey(w + "keys/secret.hsk")
	if err != nil { t.Fatal(err) }
	c0, err := plan.LoadClient(w + "d.hclient")
	if err != nil { t.Fatal(err) }
	c0.ClientOps = []plan.ClientOp{{Op: "Softmax", Axis: 1, Shape: []int{1, 10}, Input: []int{1, 10}}, {Op: "ArgMax", Axis: 1, Shape: []int{1}, Input: []int{1, 10}}}
	for i := range c0.Inputs { // small maps mutate more often elsewhere
		_ = i
	}
	raw, _ := plan.Marshal(c0)
	ct, err := lattigo.LoadCiphertexts(w + "y.hct")
	if err != nil { t.Fatal(err) }
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	// offsets of the long map arrays are avoided: bytes that repeat
	var spots []int
	for i := range raw { if i < 8 || i+8 >= len(raw) || fmt.Sprint(raw[i-4:i]) != fmt.Sprint(raw[i:i+4]) && raw[i] != 0x20 && raw[i] != 0x21 { spots = append(spots, i) } }
	spots = nil
	inMap := false
	for i := range raw {
		if i > 4 && string(raw[i-3:i]) == "Map" { inMap = true }
		if i > 8 && i+7 < len(raw) && string(raw[i:i+5]) == "Slots" || i+7 < len(raw) && (string(raw[i:i+5]) == "level" || string(raw[i:i+7]) == "objects" || string(raw[i:i+5]) == "Lanes"|| string(raw[i:i+4]) == "norm"|| string(raw[i:i+5]) == "limit") { inMap = false }
		if !inMap { spots = append(spots, i) }
	}
	t.Log(len(raw), len(spots))
	interesting := []byte{0, 1, 0x17, 0x18, 0x19, 0x1b, 0x20, 0x3b, 0x80, 0x81, 0xa0, 0xf6, 0xf9, 0xfb, 0xff, 0x7f}
	path := filepath.Join(t.TempDir(), "c.hclient")
	loaded, n, packed, dec := 0, 0, 0, 0
	enc, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	_ = ir.NewArray
	for end := time.Now().Add(70 * time.Second); time.Now().Before(end); n++ {
		b := append([]byte{}, raw...)
		for range 1 + r.IntN(3) {
			i := spots[r.IntN(len(spots))]
			switch r.IntN(3) {
			case 0: b[i] = interesting[r.IntN(len(interesting))]
			case 1: b[i] ^= 1 << r.IntN(8)
			case 2: b[i] += byte(r.IntN(5)) - 2
			}
		}
		err := plan.WriteFile(path, plan.Options{Magic: plan.ClientMagic, Version: 1}, func(w *plan.Writer) error { return w.Section("client", enc.EncodeAll(b, nil)) })
		if err != nil { t.Fatal(err) }
		func() {
			defer func() {
				if p := recover(); p != nil {
					os.WriteFile(fmt.Sprintf("/tmp/crev/panic-%d.bin", n), b, 0o644)
					t.Errorf("panic %v", p)
					panic(p)
				}
			}()
			c, err := plan.LoadClient(path)
			if err != nil { return }
			loaded++
			if onePort(c) != nil { return }
			batch, sample := portRun(&c.Inputs[0])
			_ = batch
			if ir.NumElems(sample) > 1<<20 { return }
			a := ir.NewArray(append([]int{1}, sample...)...)
			own, _ := splitBatch(c.Inputs[0].Shape)
			if s, err := runtime.Pack(&c.Inputs[0], fillUp(own, a)); err == nil {
				packed++
				p := &c.Inputs[0]
				lattigo.Encrypt(sk, &c.Params, c.Plan, 1, []lattigo.PortValues{{Port: p.Name, Level: p.Level, Scale: p.Scale, Values: s}})
			}
			out, bits, err := decryptAll(c, sk, ct, r.IntN(2) == 0)
			if err != nil { return }
			dec++
			nn := &network{client: c.ClientOps, pre: c.Preprocess}
			if out, err = nn.finish(out); err != nil { return }
			printTop(io.Discard, nn, out, 3, bits)
			dc := &decryptCmd{Top: 3}
			dc.report(c, nn, out, bits)
		}()
	}
	t.Log(n, loaded, packed, dec)
}
