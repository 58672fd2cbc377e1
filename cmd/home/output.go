package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8/cwriter"

	"github.com/home-fhe/home/ir/plan"
)

// terminal reports whether f is a terminal that may be drawn on, and its width.
// TERM=dumb turns drawing off.
func terminal(f *os.File) (bool, int) {
	if os.Getenv("TERM") == "dumb" || !cwriter.IsTerminal(int(f.Fd())) {
		return false, 80
	}
	w, _, err := cwriter.GetSize(int(f.Fd()))
	if err != nil || w < 40 {
		w = 80
	}
	return true, w
}

// printJSON writes v indented, one object per call.
func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// writeText writes a result to a file, whole or not at all; "-" and "" are
// standard output.
func (e *env) writeText(path string, fill func(io.Writer) error) error {
	if path == "" || path == "-" {
		return fill(e.out)
	}
	return plan.ReplaceFile(path, 0o644, func(f *os.File) error { return fill(f) })
}

// writable refuses an output that cannot be written, before any work is done for
// it: a folder, a file in a folder that is not there, or an input of the same
// command. "" and "-" are fine.
func writable(path string, inputs ...string) error {
	if path == "" || path == "-" {
		return nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fmt.Errorf("cannot write %s: %w", path, err)
		}
		return nil
	}
	if fi.IsDir() {
		return fmt.Errorf("%s is a folder: give the name of a file to write", path)
	}
	for _, in := range inputs {
		if other, err := os.Stat(in); err == nil && fi.Mode().IsRegular() && os.SameFile(fi, other) {
			return misuse("%s is an input of this command: write to another file", path)
		}
	}
	return nil
}

// positive refuses numbers below one; zero stands for "all" where that is meant.
func positive(flag string, n int, zero bool) error {
	if n < 0 || n == 0 && !zero {
		return misuse("%s must be positive", flag)
	}
	return nil
}

// tolerance refuses what is no bound on an error.
func tolerance(t float64) error {
	if !(t >= 0) {
		return misuse("--atol must not be negative")
	}
	return nil
}

// table lays out rows in columns. Columns named in right are flushed right.
type table struct {
	right map[int]bool
	rows  [][]string
}

func newTable(right ...int) *table {
	t := &table{right: map[int]bool{}}
	for _, c := range right {
		t.right[c] = true
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	t.rows = append(t.rows, cells)
}

// printable replaces what a terminal would obey instead of show. Labels, names
// of nodes and warnings come from files that others made.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func (t *table) write(w io.Writer, indent string) error {
	var width []int
	for _, r := range t.rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range t.rows {
		var b strings.Builder
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if t.right[i] {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
			b.WriteString("  ")
		}
		if _, err := fmt.Fprintln(w, indent+strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}
