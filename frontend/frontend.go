// Package frontend reads ONNX models into the tensor vocabulary.
//
// A model passes through four steps. The side-car (wire.go) reads the protobuf
// once, with every size checked, and keeps what the decoder would drop: node
// names, domains, opsets, symbolic dimensions. The linker (canonical.go)
// resolves names, refuses cycles and duplicate definitions, drops dead nodes
// and writes a canonical model. onnx-go decodes that into a backend of our own
// (backend.go), whose calls are held against the side-car one by one. The import
// table (table.go and the files op_*.go), one row per ONNX operator, then emits
// ir values: attributes are implemented or refused by name, shapes are
// inferred, and everything constant is folded on the way.
//
// Package frontend is the only user of onnx-go.
package frontend

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// ErrMalformed marks bytes that are not a well-formed ONNX model: cut short,
// inconsistent, or with data missing. A well-formed model that HomE cannot run
// is an *ir.NodeError instead.
var ErrMalformed = errors.New("malformed ONNX model")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// maxFile is the largest model file: protobuf messages end at 2 GiB, larger
// models keep their weights in external data files.
const maxFile = 2 << 30

// Options say how to read a model.
type Options struct {
	// Batch is the value of a symbolic batch dimension; 0 means 1. Models whose
	// batch is fixed keep it.
	Batch int
	// Dir is where external data files lie; Load sets it from the path.
	Dir string
	// BindInputs gives graph inputs, by name, that are constants of this run
	// instead of encrypted values.
	BindInputs map[string]*ir.Array
}

// NodeInfo names a node of the model as its author knows it.
type NodeInfo struct {
	Name   string // node name, or the name of its first output
	Op     string
	Domain string // "" is ai.onnx
}

// Model is an imported network.
type Model struct {
	Graph         *ir.Graph       // tensor vocabulary, constants folded, inputs encrypted
	Client        []plan.ClientOp // trailing operators moved behind decryption, in order
	IRVersion     int64
	Opsets        map[string]int64 // by domain, "" is ai.onnx
	Producer      string
	Digest        string // SHA-256 of the file and of the external data it refers to, hex
	SymbolicBatch bool   // Options.Batch took effect
	Batch         int    // first dimension of the first input
	Nodes         []NodeInfo
	InputNames    []string // encrypted inputs, in the order of Graph.Inputs
	OutputNames   []string // in the order of Graph.Outputs
	Warnings      []string
}

// Load reads a model from a file. Errors wrap ErrMalformed, or are (or join)
// *ir.NodeError for what HomE does not support.
func Load(path string, o Options) (*Model, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if o.Dir == "" {
		o.Dir = filepath.Dir(path)
	}
	m, err := Parse(data, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if m.Graph.Name == "" {
		m.Graph.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	return m, nil
}

// Parse reads a model from bytes, which it does not keep. Errors are those of
// Load.
func Parse(data []byte, o Options) (*Model, error) {
	if len(data) > maxFile {
		return nil, malformed("the model is larger than %d bytes; keep the weights in external data files", maxFile)
	}
	if o.Batch < 0 {
		return nil, fmt.Errorf("batch size %d", o.Batch)
	}
	p, err := readModel(data)
	if err != nil {
		return nil, err
	}
	l, err := link(p)
	if err != nil {
		return nil, err
	}
	if err := checkNodes(l); err != nil {
		return nil, err
	}
	digest := sha256.New()
	digest.Write(data)
	x := &external{dir: o.Dir, digest: digest}
	defer x.close()
	if err := l.resolve(x); err != nil {
		return nil, err
	}
	r, err := decode(l)
	if err != nil {
		return nil, err
	}
	im := newImporter(l, r, o, int64(len(data))+x.files)
	g, err := im.run()
	if err != nil {
		return nil, err
	}
	m := &Model{
		Graph: g, IRVersion: p.irVersion, Opsets: p.opsets, Producer: p.producer,
		Digest: hex.EncodeToString(digest.Sum(nil)), SymbolicBatch: im.symbolic,
		InputNames: im.inputNames, Warnings: im.warnings,
	}
	for _, n := range l.nodes {
		m.Nodes = append(m.Nodes, NodeInfo{Name: n.name, Op: n.op, Domain: n.domain})
	}
	for _, v := range p.graph.outputs {
		m.OutputNames = append(m.OutputNames, v.name)
	}
	if len(g.Inputs) > 0 {
		if s := g.Inputs[0].Type.Shape; len(s) > 0 {
			m.Batch = s[0]
		}
	}
	if err := recognise(g); err != nil {
		return nil, err
	}
	m.Client = moveToClient(g)
	g.Prune()
	return m, nil
}
