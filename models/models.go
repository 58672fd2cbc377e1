// Package models carries the small reference networks that the project trained
// itself, so that a fresh checkout has something real to run: one folder per
// network, the scripts that trained them under training, drawings of digits
// under digits, and a manifest of checksums, preprocessing, accuracy and
// tolerances.
package models

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/dataset"
)

//go:embed manifest.json */*.onnx */preprocess.json
var files embed.FS

// Model is an entry of the manifest.
type Model struct {
	Name       string     `json:"name"`
	About      string     `json:"about"`
	Path       string     `json:"model"` // of the ONNX file within this folder
	SHA256     string     `json:"sha256"`
	Training   string     `json:"training"` // script that trained it
	Licence    string     `json:"licence"`
	Input      []int      `json:"input"`                // shape of one sample
	Preprocess string     `json:"preprocess,omitempty"` // absent where inputs are plain numbers
	Classes    []string   `json:"classes,omitempty"`    // names of the outputs where preprocessing does not say
	Accuracy   []Accuracy `json:"accuracy"`
	Tolerance  Tolerance  `json:"tolerance"`
}

// Accuracy is what an independent ONNX runtime measured.
type Accuracy struct {
	Data    string  `json:"data"`  // mnist-test, cifar10-test or wdbc-dev
	First   int     `json:"first"` // samples First to First+Samples-1 of it
	Samples int     `json:"samples"`
	Top1    float64 `json:"top1"` // fraction
}

// Tolerance is how far HomE may be from that runtime.
type Tolerance struct {
	Accuracy  float64 `json:"accuracy"`  // absolute, top-1 fraction
	Clear     float64 `json:"clear"`     // largest error over max(1, largest |output|), exact activations
	Encrypted float64 `json:"encrypted"` // the same, against the clear run with the plan's polynomials
}

// All returns the manifest, in its order.
func All() ([]Model, error) {
	b, err := files.ReadFile("manifest.json")
	if err != nil {
		return nil, err
	}
	var m struct {
		Schema int     `json:"schema"`
		Models []Model `json:"models"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("models/manifest.json: %w", err)
	}
	if m.Schema != 1 {
		return nil, fmt.Errorf("models/manifest.json: schema %d, want 1", m.Schema)
	}
	return m.Models, nil
}

// ErrUnknown marks a name that the manifest does not hold.
var ErrUnknown = errors.New("no such reference network")

// Find returns the entry of that name.
func Find(name string) (*Model, error) {
	all, err := All()
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, ErrUnknown)
}

// ONNX returns the bytes of the network.
func (m *Model) ONNX() ([]byte, error) { return fs.ReadFile(files, m.Path) }

// Preprocessing returns how pixels become inputs; nil where inputs are plain
// numbers.
func (m *Model) Preprocessing() (*plan.Preprocess, error) {
	if m.Preprocess == "" {
		return nil, nil
	}
	b, err := fs.ReadFile(files, m.Preprocess)
	if err != nil {
		return nil, err
	}
	return dataset.ParsePreprocess(b)
}
