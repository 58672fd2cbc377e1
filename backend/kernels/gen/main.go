// Command gen writes the assembly of package kernels, one file per subject, and the
// Go declarations beside it:
//
//	go run ./gen [folder]
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

// subjects are the files without their endings, and what fills them.
var subjects = []struct {
	name string
	fill func(*emit)
}{
	{"aes", aes},
	{"dq", dq},
	{"gadget", gadget},
	{"peaks", peaks},
}

// emit collects the functions of a file.
type emit struct{ *build.Context }

// function starts a function without a frame.
func (e *emit) function(name, signature string, doc ...string) {
	e.Function(name)
	e.Attributes(attr.NOSPLIT)
	e.Pragma("noescape")
	e.SignatureExpr(signature)
	e.Doc(doc...)
}

// table declares constant words.
func (e *emit) table(name string, words []uint64) operand.Mem {
	m := e.StaticGlobal(name)
	e.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, w := range words {
		e.AddDatum(8*i, operand.U64(w))
	}
	return m
}

// param returns where a parameter of one word lies.
func (e *emit) param(name string) operand.Mem {
	c, err := e.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return c.Addr
}

// broadcast loads a parameter of one word into all lanes of a register.
func (e *emit) broadcast(name string) reg.VecVirtual {
	z := e.ZMM()
	e.VPBROADCASTQ(e.param(name), z)
	return z
}

// files returns the contents of all generated files by name.
func files() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, s := range subjects {
		e := &emit{build.NewContext()}
		s.fill(e)
		f, err := e.Result()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		if err := pass.Compile.Execute(f); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		cfg := printer.Config{Argv: []string{"gen"}, Pkg: "kernels"}
		for name, p := range map[string]interface {
			Print(*ir.File) ([]byte, error)
		}{s.name + "_amd64.s": printer.NewGoAsm(cfg), s.name + "_amd64.go": printer.NewStubs(cfg)} {
			if out[name], err = p.Print(f); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return out, nil
}

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	all, err := files()
	for name, b := range all {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
