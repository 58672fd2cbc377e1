package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir/plan"
)

// kinds names our own files by their magic.
var kinds = map[string]string{
	plan.PlanMagic:          "a plan (.hplan)",
	plan.ClientMagic:        "the client's part of a plan (.hclient)",
	lattigo.SecretMagic:     "a secret key (.hsk)",
	lattigo.KeySetMagic:     "a set of evaluation keys (.hevk)",
	lattigo.CiphertextMagic: "ciphertexts (.hct)",
}

// magic returns the first eight bytes of a file, or "" where it has none or is
// standard input.
func magic(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var b [8]byte
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return ""
	}
	if _, err := f.Read(b[:]); err != nil {
		return ""
	}
	return string(b[:])
}

// expectKind refuses a file of ours that is of another kind than the one wanted,
// and says what it is. Anything else is left to the reader to judge.
func expectKind(path, want string) error {
	got := magic(path)
	if name, ours := kinds[got]; ours && got != want {
		return fmt.Errorf("%s is %s; expected %s", path, name, kinds[want])
	}
	return nil
}

// expectPlain refuses our own files where inputs in the clear are wanted, and
// says what they are.
func expectPlain(path string) error {
	switch got := magic(path); {
	case got == lattigo.CiphertextMagic:
		return fmt.Errorf("%s holds ciphertexts; expected inputs in the clear (.npy, picture, idx or CIFAR .bin)", path)
	case kinds[got] != "":
		return fmt.Errorf("%s is %s; expected inputs (.npy, picture, idx or CIFAR .bin)", path, kinds[got])
	}
	return nil
}

// serverSide is expectKind for the server, which must never see a secret key.
func serverSide(path, want string) error {
	if magic(path) == lattigo.SecretMagic {
		return fmt.Errorf("%s is a secret key. It must never be given to the server: delete it here", path)
	}
	return expectKind(path, want)
}

// loadClient reads the client's part of a plan.
func loadClient(path string) (*plan.Client, error) {
	if err := expectKind(path, plan.ClientMagic); err != nil {
		return nil, err
	}
	return plan.LoadClient(path)
}

// loadPlan reads a plan.
func loadPlan(path string) (*plan.Plan, error) {
	if err := serverSide(path, plan.PlanMagic); err != nil {
		return nil, err
	}
	return plan.Load(path)
}

// loadSecret reads a secret key.
func loadSecret(path string) (*lattigo.SecretKey, error) {
	if err := expectKind(path, lattigo.SecretMagic); err != nil {
		return nil, err
	}
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file: give the secret key itself, such as %s", path, filepath.Join(path, secretName))
	}
	return lattigo.LoadSecretKey(path)
}

// openKeys opens an evaluation-key set.
func openKeys(path string) (*lattigo.KeySet, error) {
	if err := serverSide(path, lattigo.KeySetMagic); err != nil {
		return nil, err
	}
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return nil, fmt.Errorf("%s is a folder: give the evaluation keys themselves, %s, and never the secret key", path, filepath.Join(path, evalName))
	}
	return lattigo.OpenKeySet(path)
}

// loadCiphertexts reads ciphertexts. Plain inputs given to the server are a
// mistake with a price, so they are named.
func loadCiphertexts(path string) (*lattigo.Ciphertexts, error) {
	if err := serverSide(path, lattigo.CiphertextMagic); err != nil {
		return nil, err
	}
	if got := magic(path); got != "" && got != lattigo.CiphertextMagic {
		return nil, fmt.Errorf("%s holds no ciphertexts: encrypt the input first, or use --mode to play all roles in one process", path)
	}
	return lattigo.LoadCiphertexts(path)
}
