package models

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestManifest(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range all {
		t.Run(m.Name, func(t *testing.T) {
			known[m.Path] = true
			b, err := m.ONNX()
			if err != nil {
				t.Fatal(err)
			}
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != m.SHA256 {
				t.Errorf("sha256 %x, the manifest says %s", sum, m.SHA256)
			}
			if _, err := m.Preprocessing(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(m.Training); err != nil {
				t.Error(err)
			}
			for _, a := range m.Accuracy {
				if a.Top1 <= 0.5 || a.Top1 > 1 || a.Samples <= 0 {
					t.Errorf("accuracy %+v", a)
				}
			}
			if got, err := Find(m.Name); err != nil || got.Path != m.Path {
				t.Errorf("Find: %+v, %v", got, err)
			}
		})
	}
	onnx, err := filepath.Glob("*/*.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range onnx {
		if !known[f] {
			t.Errorf("%s is not in the manifest", f)
		}
	}
	if _, err := Find("nothing"); !errors.Is(err, ErrUnknown) {
		t.Errorf("Find of nothing: %v", err)
	}
	if _, err := fs.Stat(files, "training/train_mnist.py"); err == nil {
		t.Error("training scripts are embedded in the command")
	}
}
