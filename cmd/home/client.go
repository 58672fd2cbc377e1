package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/dataset"
)

// Names of the files in a key folder.
const (
	secretName = "secret.hsk"
	evalName   = "eval.hevk"
)

// insecureFlag is the way to work with files that a compilation stamped
// insecure.
type insecureFlag struct {
	Insecure bool `name:"insecure-test-parameters" help:"Accept files stamped insecure. For tests only."`
}

func insecureOption(ok bool) []lattigo.Option {
	if ok {
		return []lattigo.Option{lattigo.AllowInsecure()}
	}
	return nil
}

type keygenCmd struct {
	Clients []string `arg:"" help:"Client parts of plans (.hclient)."`
	Output  string   `short:"o" required:"" placeholder:"DIR" help:"Folder for secret.hsk and eval.hevk."`
	Extend  bool     `help:"Keep the secret key in the folder and add the evaluation keys that are missing."`

	insecureFlag
}

func (*keygenCmd) Help() string {
	return `Makes a secret key, which stays with you, and the set of evaluation keys that the given plans need, which
goes to the server. Plans of one client share keys; --extend adds what a new plan needs.

The parameters are not taken on trust: their security is computed again from the primes, and parameters
below 128 bits are refused.

  home keygen model.hclient -o keys
  home keygen other.hclient -o keys --extend`
}

func (c *keygenCmd) Run(e *env) error {
	var first *plan.Client
	needs := map[int]int{}
	for _, path := range c.Clients {
		cl, err := plan.LoadClient(path)
		if err != nil {
			return err
		}
		if first == nil {
			first = cl
		} else if lattigo.ParamsFingerprint(&cl.Params) != lattigo.ParamsFingerprint(&first.Params) {
			return fmt.Errorf("%s uses parameters %s and %s uses %s: plans share keys only under the same parameters; run keygen for each", c.Clients[0], first.Params.Name, path, cl.Params.Name)
		}
		for _, k := range cl.Keys {
			if l, ok := needs[k.Rot]; !ok || k.Level > l {
				needs[k.Rot] = k.Level
			}
		}
	}
	var specs []lattigo.KeySpec
	for rot := range first.Params.Slots() { // in order, whatever the order of the clients
		if l, ok := needs[rot]; ok {
			specs = append(specs, lattigo.KeySpec{Rot: rot, Level: l})
		}
	}
	secret, eval := filepath.Join(c.Output, secretName), filepath.Join(c.Output, evalName)
	opts := insecureOption(c.Insecure)
	var sk *lattigo.SecretKey
	_, err := os.Stat(secret)
	switch {
	case err == nil && !c.Extend:
		return fmt.Errorf("%s exists: use --extend to add evaluation keys to it, or another folder for a new secret key", secret)
	case err == nil:
		if sk, err = lattigo.LoadSecretKey(secret); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		if sk, err = lattigo.NewSecretKey(&first.Params, opts...); err != nil {
			return err
		}
		if err := os.MkdirAll(c.Output, 0o700); err != nil {
			return err
		}
		if err := sk.Save(secret); err != nil {
			return err
		}
	default:
		return err
	}
	bar := e.bar("evaluation keys", len(specs))
	defer bar.stop()
	added, err := lattigo.ExtendKeySet(eval, sk, &first.Params, specs, func(done, total int) { bar.of(done, total) }, opts...)
	bar.stop()
	if err != nil {
		return err
	}
	size := int64(0)
	if fi, err := os.Stat(eval); err == nil {
		size = fi.Size()
	}
	t := newTable()
	t.row("secret key", secret, "id "+sk.ID()+", keep it to yourself")
	t.row("evaluation keys", eval, fmt.Sprintf("%d added, %s in all, for the server", added, byteSize(size)))
	return t.write(e.out, "")
}

type encryptCmd struct {
	Client string `arg:"" help:"Client part of the plan (.hclient)."`
	Key    string `required:"" short:"k" placeholder:"FILE" help:"Secret key (secret.hsk)."`
	Input  string `required:"" short:"i" placeholder:"FILE" help:"Inputs: .npy, picture, idx or CIFAR .bin. '-' is standard input."`
	Output string `required:"" short:"o" placeholder:"FILE" help:"Write the ciphertexts here (.hct). '-' is standard output."`
	Limit  int    `placeholder:"N" help:"Use only the first N samples."`

	insecureFlag
}

func (*encryptCmd) Help() string {
	return `Prepares the inputs as the plan says (pictures are resized and scaled, .npy is taken as it is) and encrypts
them. Any number of samples may lie along the first axis.

  home encrypt model.hclient --key keys/secret.hsk --input digit.png -o x.hct`
}

func (c *encryptCmd) Run(e *env) error {
	cl, err := plan.LoadClient(c.Client)
	if err != nil {
		return err
	}
	sk, err := lattigo.LoadSecretKey(c.Key)
	if err != nil {
		return err
	}
	in, err := openInputs(cl, c.Input, c.Limit)
	if err != nil {
		return err
	}
	defer in.Close()
	ct, err := encryptAll(cl, sk, in, insecureOption(c.Insecure))
	if err != nil {
		return err
	}
	return ct.Save(c.Output)
}

// portRun returns how many samples one run takes at a port, and the shape of
// one. A port whose network fixes the batch holds that many per lane.
func portRun(p *plan.Port) (batch int, sample []int) {
	batch, sample = splitBatch(p.Shape)
	return batch * p.Layout.Lanes, sample
}

// onePort refuses clients of networks with several inputs or outputs.
func onePort(c *plan.Client) error {
	if len(c.Inputs) != 1 || len(c.Outputs) != 1 {
		return fmt.Errorf("%s has %d inputs and %d outputs, %w: HomE feeds networks with one of each", c.Model, len(c.Inputs), len(c.Outputs), ir.ErrUnsupported)
	}
	return nil
}

func openInputs(c *plan.Client, path string, limit int) (*dataset.Samples, error) {
	if err := onePort(c); err != nil {
		return nil, err
	}
	_, sample := portRun(&c.Inputs[0])
	return dataset.Open(path, dataset.Options{Limit: limit, Shape: sample, Preprocess: c.Preprocess})
}

// encryptAll encrypts samples, as many per ciphertext as a run takes.
func encryptAll(c *plan.Client, sk *lattigo.SecretKey, in *dataset.Samples, opts []lattigo.Option) (*lattigo.Ciphertexts, error) {
	port := &c.Inputs[0]
	batch, _ := portRun(port)
	own, _ := splitBatch(port.Shape)
	v := lattigo.PortValues{Port: port.Name, Level: port.Level, Scale: port.Scale}
	samples := 0
	for {
		a, err := in.Next(batch)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		slots, err := runtime.Pack(port, fillUp(own, a))
		if err != nil {
			return nil, fmt.Errorf("samples %d to %d: %w", samples, samples+a.Shape[0]-1, err)
		}
		v.Values = append(v.Values, slots...)
		samples += a.Shape[0]
	}
	return lattigo.Encrypt(sk, &c.Params, c.Plan, samples, []lattigo.PortValues{v}, opts...)
}

type decryptCmd struct {
	Client string  `arg:"" help:"Client part of the plan (.hclient)."`
	Key    string  `required:"" short:"k" placeholder:"FILE" help:"Secret key (secret.hsk)."`
	Input  string  `required:"" short:"i" placeholder:"FILE" help:"Ciphertexts from the server (.hct). '-' is standard input."`
	Output string  `short:"o" placeholder:"FILE" help:"Write the outputs here (.npy). '-' is standard output."`
	Top    int     `default:"3" placeholder:"K" help:"Classes to print for every sample."`
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
leaves this command: results for third parties, not for the server.

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
	cl, err := plan.LoadClient(c.Client)
	if err != nil {
		return err
	}
	sk, err := lattigo.LoadSecretKey(c.Key)
	if err != nil {
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
	bits := c.OutputBits
	var slots [][]float64
	if share {
		worst := math.Exp2(-bits)
		least := math.Inf(1) // slots are outputs over Norm, so the smallest one asks for most
		for i := range max(1, len(port.Norm)) {
			least = math.Min(least, math.Abs(port.Restore(i, 1)-port.Restore(i, 0)))
		}
		if slots, err = lattigo.DecryptShared(sk, ct, g, shareFactor*worst/least); err != nil {
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
