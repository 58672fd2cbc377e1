package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
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

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

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
