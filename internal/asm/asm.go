// Package asm is what the generators of assembly share: files are printed, written, and
// held against the tree in one way.
package asm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

// Files are the contents of generated files by name.
type Files map[string][]byte

// Add compiles what c has collected and adds it under a name: the assembly, and the Go
// declarations beside it, of package pkg. It returns the functions.
func (f Files) Add(pkg, name string, c *build.Context) ([]*ir.Function, error) {
	file, err := c.Result()
	if err == nil {
		err = pass.Compile.Execute(file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	cfg := printer.Config{Argv: []string{"gen"}, Pkg: pkg}
	asm, err1 := printer.NewGoAsm(cfg).Print(file)
	stubs, err2 := printer.NewStubs(cfg).Print(file)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f[name+"_amd64.s"], f[name+"_amd64.go"] = asm, stubs
	return file.Functions(), nil
}

// Table declares constant words.
func Table(c *build.Context, name string, words []uint64) operand.Mem {
	m := c.StaticGlobal(name)
	c.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, w := range words {
		c.AddDatum(8*i, operand.U64(w))
	}
	return m
}

// Main writes what files returns into the folder that the command line names, or this
// one, and ends the process where that fails.
func Main(files func() (Files, error)) {
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

// Verify holds the files of a folder against what files returns.
func Verify(dir string, files func() (Files, error)) error {
	all, err := files()
	for name, want := range all {
		got, bad := os.ReadFile(filepath.Join(dir, name))
		if bad == nil && !bytes.Equal(got, want) {
			bad = fmt.Errorf("%s is not what the generator writes: run go generate in its folder", name)
		}
		err = errors.Join(err, bad)
	}
	return err
}
