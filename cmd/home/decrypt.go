package main

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/dataset"
)

type decryptCmd struct {
	Client string  `arg:"" help:"Client part of the plan (.hclient)."`
	Key    string  `required:"" short:"k" placeholder:"FILE" help:"Secret key (secret.hsk)."`
	Input  string  `required:"" short:"i" placeholder:"FILE" help:"Ciphertexts from the server (.hct). '-' is standard input."`
	Output string  `short:"o" placeholder:"FILE" help:"Write the outputs here (.npy). '-' is standard output."`
	Top    int     `default:"3" placeholder:"K" help:"Classes to print for every sample. Default: ${default}."`
	Expect string  `placeholder:"FILE" help:"Print these scores (.npy) beside the decrypted ones, and the largest difference."`
	Atol   float64 `placeholder:"T" help:"With --expect: exit with code 2 where the difference is larger than T."`
	Share  bool    `help:"Add noise that hides what decryption tells about the key, before showing results to others."`
	JSON   bool    `help:"Print JSON."`
}

func (*decryptCmd) Help() string {
	return `Decrypts, applies the operators that were left to the client (Softmax and the like), and prints labels and
scores rounded to the precision that the plan predicts.

Decrypted values carry information on the secret key to whoever also has the ciphertexts. Never send them back
to the server. --share adds noise, eight times the worst error that the simulator predicts, before anything
leaves this command: results for third parties, not for the server. The noise is fresh every time and averages
out: share one result of a ciphertext, once.

  home decrypt model.hclient --key keys/secret.hsk --input y.hct --top 1`
}

type decryptReport struct {
	Schema      int              `json:"schema"`
	Model       string           `json:"model"`
	Bits        float64          `json:"bits"` // absolute precision of the scores
	Shared      bool             `json:"shared"`
	Samples     []decryptedClass `json:"samples"`
	MaxAbsError *float64         `json:"max_abs_error,omitempty"` // from --expect
}

type decryptedClass struct {
	Sample int             `json:"sample"`
	Top    []runtime.Class `json:"top"`
}

// shareFactor is how much larger than the worst predicted error the noise of
// --share is.
const shareFactor = 8

func (c *decryptCmd) Run(e *env) error {
	if c.JSON && c.Output == "-" {
		return misuse("--json and --output - both want standard output")
	}
	if c.Atol != 0 && c.Expect == "" {
		return misuse("--atol needs --expect")
	}
	if err := errors.Join(positive("--top", c.Top, false), tolerance(c.Atol), writable(c.Output, c.Client, c.Key, c.Input, c.Expect)); err != nil {
		return err
	}
	cl, err := loadClient(c.Client)
	if err != nil {
		return err
	}
	sk, err := loadSecret(c.Key)
	if err != nil {
		return err
	}
	if err := expectKind(c.Input, lattigo.CiphertextMagic); err != nil {
		return err
	}
	ct, err := lattigo.LoadCiphertexts(c.Input)
	if err != nil {
		return err
	}
	raw, bits, err := decryptAll(cl, sk, ct, c.Share)
	if err != nil {
		return err
	}
	for i, v := range raw.Data {
		raw.Data[i] = runtime.Round(v, bits)
	}
	n := &network{client: cl.ClientOps, pre: cl.Preprocess}
	out, err := n.finish(raw)
	if err != nil {
		return err
	}
	if c.Output != "" {
		if err := dataset.WriteNpy(c.Output, out); err != nil {
			return err
		}
	}
	var want *ir.Array
	worst := 0.0
	if c.Expect != "" {
		if want, err = dataset.ReadNpy(c.Expect); err != nil {
			return fmt.Errorf("--expect: %w", err)
		}
		if len(want.Data) != len(out.Data) {
			return fmt.Errorf("--expect: %s has shape %v, the outputs have %v", c.Expect, want.Shape, out.Shape)
		}
		worst = maxDiff(out.Data, want.Data)
	}
	switch {
	case c.JSON:
		r := c.report(cl, n, out, bits)
		if want != nil {
			r.MaxAbsError = &worst
		}
		err = e.printJSON(r)
	case c.Output == "-":
	case want != nil:
		err = printBeside(e.out, n, out, want, c.Top, bits)
	default:
		err = printTop(e.out, n, out, c.Top, bits)
	}
	if err == nil && want != nil && c.Atol > 0 && !(worst <= c.Atol) {
		err = fmt.Errorf("%w from %s by up to %.3g, more than %.3g", errMismatch, c.Expect, worst, c.Atol)
	}
	return err
}

// printBeside writes the best classes with the scores that were expected.
func printBeside(w io.Writer, n *network, out, want *ir.Array, k int, bits float64) error {
	var labels []string
	if n.pre != nil {
		labels = n.pre.Labels
	}
	rows := out.Shape[0]
	width := len(out.Data) / max(1, rows)
	for i := range rows {
		got, exp := out.Data[i*width:(i+1)*width], want.Data[i*width:(i+1)*width]
		t := newTable(1, 2, 3)
		t.row(fmt.Sprintf("sample %d", i), "decrypted", "expected", "difference")
		for _, c := range runtime.Top(got, labels, k) {
			t.row(className(c.Index, labels), score(c.Score, bits), score(exp[c.Index], bits), fmt.Sprintf("%.1e", math.Abs(c.Score-exp[c.Index])))
		}
		if err := t.write(w, ""); err != nil {
			return err
		}
		fmt.Fprintf(w, "largest difference: %.3g\n", maxDiff(got, exp))
	}
	return nil
}

func (c *decryptCmd) report(cl *plan.Client, n *network, out *ir.Array, bits float64) decryptReport {
	r := decryptReport{Schema: 1, Model: cl.Model, Bits: bits, Shared: c.Share, Samples: []decryptedClass{}}
	var labels []string
	if n.pre != nil {
		labels = n.pre.Labels
	}
	rows := out.Shape[0]
	w := len(out.Data) / max(1, rows)
	for i := range rows {
		row := out.Data[i*w : (i+1)*w]
		d := decryptedClass{Sample: i}
		if n.picks() {
			for _, v := range row {
				d.Top = append(d.Top, runtime.Class{Index: int(v), Label: className(int(v), labels), Score: 1})
			}
		} else {
			d.Top = runtime.Top(row, labels, c.Top)
			for k := range d.Top {
				d.Top[k].Score = runtime.Round(d.Top[k].Score, bits)
			}
		}
		r.Samples = append(r.Samples, d)
	}
	return r
}

// decryptAll checks that ciphertexts are results of the client's plan under its
// key and decrypts them into rows. It also returns how many bits of the values
// are meant.
func decryptAll(c *plan.Client, sk *lattigo.SecretKey, ct *lattigo.Ciphertexts, share bool) (*ir.Array, float64, error) {
	if err := onePort(c); err != nil {
		return nil, 0, err
	}
	if err := ct.Check(&c.Params, c.Plan, sk.ID()); err != nil {
		return nil, 0, err
	}
	port := &c.Outputs[0]
	g, err := ct.Group(port.Name)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: it is no result of %s", err, c.Model)
	}
	if g.Level != port.Level || !g.Scale.Equal(port.Scale) {
		return nil, 0, fmt.Errorf("%s: ciphertexts at level %d and scale %s, the plan ends at level %d and scale %s", port.Name, g.Level, g.Scale, port.Level, port.Scale)
	}
	batch, _ := portRun(&c.Inputs[0])
	runs := (ct.Samples + batch - 1) / batch
	if ct.Samples < 1 || g.Len() != runs*port.Layout.Cts {
		return nil, 0, fmt.Errorf("%s: %d ciphertexts for %d samples, want %d", port.Name, g.Len(), ct.Samples, runs*port.Layout.Cts)
	}
	least, most := math.Inf(1), 0.0 // slots are outputs over Norm
	for i := range max(1, len(port.Norm)) {
		one := math.Abs(port.Restore(i, 1) - port.Restore(i, 0))
		least, most = math.Min(least, one), math.Max(most, one)
	}
	// The precision comes from the maker of the plan. Were it better than the
	// parameters allow, digits that tell about the key would be shown.
	floor := lattigo.LeastNoise(&c.Params, port.Scale)
	bits := math.Min(c.OutputBits, -math.Log2(floor*most))
	var slots [][]float64
	if share {
		worst := math.Max(math.Exp2(-bits)/least, floor) // the smallest Norm asks for most
		if slots, err = lattigo.DecryptShared(sk, ct, g, shareFactor*worst); err != nil {
			return nil, 0, err
		}
		bits -= math.Log2(shareFactor) + 1
	} else if slots, err = lattigo.Decrypt(sk, ct, g); err != nil {
		return nil, 0, err
	}
	var all gather
	own, _ := splitBatch(c.Inputs[0].Shape)
	for run := range runs {
		n := min(batch, ct.Samples-run*batch)
		a, err := runtime.Unpack(port, slots[run*port.Layout.Cts:(run+1)*port.Layout.Cts], (n+own-1)/own)
		if err != nil {
			return nil, 0, err
		}
		r, err := rows(a, (n+own-1)/own*own, n)
		if err != nil {
			return nil, 0, err
		}
		if err := all.add(r); err != nil {
			return nil, 0, err
		}
	}
	return all.array(), bits, nil
}
