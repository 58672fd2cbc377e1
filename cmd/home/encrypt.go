package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/dataset"
)

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
	if err := errors.Join(positive("--limit", c.Limit, true), writable(c.Output, c.Client, c.Key, c.Input)); err != nil {
		return err
	}
	cl, err := loadClient(c.Client)
	if err != nil {
		return err
	}
	if err := c.secure(cl); err != nil {
		return fmt.Errorf("%s: %w", c.Client, err)
	}
	sk, err := loadSecret(c.Key)
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

func openInputs(c *plan.Client, path string, limit int) (*dataset.Samples, error) {
	if err := onePort(c); err != nil {
		return nil, err
	}
	if err := expectPlain(path); err != nil {
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
