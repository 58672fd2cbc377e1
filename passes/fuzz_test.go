package passes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/passes"
)

// FuzzCompile compiles mutated networks: a plan that verifies or an error, and
// no error that blames the compiler.
func FuzzCompile(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range txtar.Parse(raw).Files {
			if part.Name == "in" {
				f.Add(string(part.Data), 0)
				f.Add(string(part.Data), 1<<20)
			}
		}
	}
	q := []int{50}
	for range 12 {
		q = append(q, 40)
	}
	par, err := ir.NewParams("tiny", 5, ir.RingReal, ir.SecretTernary, q, []int{51, 51}, 40)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string, batch int) {
		g, err := ir.ParseString(text)
		if err != nil || ir.Verify(g, ir.Tensor) != nil || len(g.Values) > 40 {
			return
		}
		for _, v := range g.Values {
			if v.Type.Elems() > 1000 {
				return
			}
		}
		p, err := passes.Compile(passes.Source{Graph: g}, passes.Options{Params: par, AllowInsecure: true, Batch: min(max(batch, 0), 1<<30)})
		if err != nil {
			if strings.Contains(err.Error(), "BUG") {
				t.Fatal(err)
			}
			return
		}
		if err := p.Verify(); err != nil {
			t.Fatal(err)
		}
	})
}
