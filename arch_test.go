package home_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/home-fhe/home"

// mayImport lists, for each folder, which of our packages its non-test files may
// import. A pattern ending in "/..." stands for a folder and all below it; the
// first row that fits a folder counts. A folder without a row fails the test: say
// here what it may depend on.
var mayImport = []folderRule{
	{".", nil},
	{"ir", nil},
	{"ir/plan/...", []string{"ir", "ir/plan/..."}},
	{"frontend/...", []string{"ir/...", "frontend/..."}},
	{"passes/...", []string{"ir/...", "backend", "backend/clear", "backend/sim", "passes/..."}},
	{"backend", []string{"ir/..."}},
	{"internal/asm", nil},
	{"backend/kernels/gen", []string{"internal/asm"}},
	{"runtime/store/gen", []string{"internal/asm"}},
	{"backend/kernels/...", []string{"backend/kernels/..."}},
	{"backend/lattigo/...", []string{"ir/...", "backend", "backend/kernels/...", "backend/lattigo/..."}},
	{"backend/...", []string{"ir/...", "backend", "backend/clear", "backend/sim"}},
	{"runtime/...", []string{"ir/...", "backend", "runtime/..."}},
	{"models/...", []string{"ir/...", "runtime/dataset", "models/..."}},
	{"cmd/...", []string{"..."}},
}

type folderRule struct {
	folder string
	may    []string
}

// onlyUnder lists modules that a single folder may use, tests included.
var onlyUnder = []struct{ module, folder string }{
	{"github.com/owulveryck/onnx-go", "frontend"},
	{"github.com/tuneinsight/lattigo", "backend/lattigo"},
}

// wrongNumbers are the gorgonia calls that give wrong results over an inner
// axis or on sliced views in v0.9.24, and their kin.
var wrongNumbers = []string{
	"Sum", "Max", "Min", "Argmax", "Argmin", "Reduce", "ReduceAdd",
	"MatMul", "MatVecMul", "TensorMul", "Dot", "Inner", "Outer", "Contract",
}

const gorgonia = "gorgonia.org/tensor"

func fits(pattern, folder string) bool {
	if pattern == "..." {
		return true
	}
	p, tree := strings.CutSuffix(pattern, "/...")
	return folder == p || tree && strings.HasPrefix(folder, p+"/")
}

// findings checks one source file, at its path relative to the root.
func findings(fset *token.FileSet, file string, f *ast.File) []string {
	var bad []string
	say := func(p token.Pos, format string, args ...any) {
		bad = append(bad, fmt.Sprintf("%s:%d: %s", file, fset.Position(p).Line, fmt.Sprintf(format, args...)))
	}
	folder := path.Dir(file)
	test := strings.HasSuffix(file, "_test.go")
	row := slices.IndexFunc(mayImport, func(r folderRule) bool { return fits(r.folder, folder) })
	if row < 0 {
		say(f.Pos(), "folder %s has no row in mayImport", folder)
		return bad
	}
	imported := map[string]string{} // local name to path
	for _, s := range f.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			say(s.Pos(), "%v", err)
			continue
		}
		name := path.Base(p)
		if s.Name != nil {
			name = s.Name.Name
		}
		imported[name] = p
		if ours, ok := strings.CutPrefix(p, module); ok && !test {
			to := strings.TrimPrefix(ours, "/")
			if to == "" {
				to = "."
			}
			if !slices.ContainsFunc(mayImport[row].may, func(m string) bool { return fits(m, to) }) {
				say(s.Pos(), "%s must not import %s", folder, to)
			}
		}
		for _, o := range onlyUnder {
			if (p == o.module || strings.HasPrefix(p, o.module+"/")) && !fits(o.folder+"/...", folder) {
				say(s.Pos(), "only %s may import %s", o.folder, o.module)
			}
		}
		if p == gorgonia && name == "." {
			say(s.Pos(), "%s must be imported under a name", gorgonia)
		}
	}
	if test {
		return bad
	}
	usesGorgonia := false
	for _, p := range imported {
		usesGorgonia = usesGorgonia || p == gorgonia
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		name := sel.Sel.Name
		id, qualified := sel.X.(*ast.Ident)
		from := ""
		if qualified {
			from = imported[id.Name]
		}
		switch {
		case from != "" && from != gorgonia: // a function of another package
		case usesGorgonia && slices.Contains(wrongNumbers, name):
			if file == "ir/tensor.go" && name == "MatMul" {
				return true // on contiguous matrices, where it is right
			}
			say(sel.Pos(), "gorgonia's %s gives wrong numbers: write the loop, or use ir.MatMul", name)
		}
		return true
	})
	ast.Inspect(f, func(n ast.Node) bool { // a.Dense() hands out a gorgonia tensor
		c, ok := n.(*ast.CallExpr)
		if !ok || len(c.Args) > 0 {
			return true
		}
		if sel, ok := c.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Dense" && file != "ir/tensor.go" {
			say(sel.Pos(), "Array.Dense is for ir/tensor.go alone")
		}
		return true
	})
	return bad
}

// TestArchitecture checks that dependencies point one way, that the two large
// libraries have one user each, and that no one calls what is known to be wrong.
func TestArchitecture(t *testing.T) {
	fset := token.NewFileSet()
	files := 0
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != "." && (strings.HasPrefix(n, ".") || strings.HasPrefix(n, "_") || n == "testdata" || n == "vendor") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		for _, b := range findings(fset, filepath.ToSlash(p), f) {
			t.Error(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("only %d files found: the test does not run in the root of the repository", files)
	}
}

// TestArchitectureFinds gives the check what it must find.
func TestArchitectureFinds(t *testing.T) {
	const ours = `import "` + module
	tests := []struct{ file, source, want string }{
		{"ir/a.go", ours + `/ir/plan"`, "ir must not import ir/plan"},
		{"ir/plan/a.go", ours + `/ir"`, ""},
		{"ir/plan/a.go", ours + `/backend"`, "must not import backend"},
		{"frontend/a.go", ours + `/passes"`, "must not import passes"},
		{"passes/a.go", ours + `/backend/clear"`, ""},
		{"passes/a.go", ours + `/backend/lattigo"`, "must not import backend/lattigo"},
		{"passes/a.go", ours + `/runtime"`, "must not import runtime"},
		{"backend/a.go", ours + `/backend/clear"`, "must not import backend/clear"},
		{"backend/gpu/a.go", ours + `/backend"`, ""},
		{"backend/gpu/a.go", ours + `/backend/lattigo"`, "must not import backend/lattigo"},
		{"runtime/store/a.go", ours + `/backend"`, ""},
		{"runtime/store/a.go", ours + `/backend/lattigo"`, "must not import"},
		{"runtime/a.go", ours + `/passes"`, "must not import"},
		{"runtime/a_test.go", ours + `/passes"`, ""},
		{"cmd/home/a.go", ours + `/backend/lattigo"`, ""},
		{"elsewhere/a.go", "", "no row"},
		{"passes/a.go", `import "github.com/owulveryck/onnx-go/decoder"`, "only frontend"},
		{"frontend/a.go", `import "github.com/owulveryck/onnx-go/decoder"`, ""},
		{"cmd/home/a_test.go", `import "github.com/tuneinsight/lattigo/v5/ring"`, "only backend/lattigo"},
		{"backend/lattigo/a.go", `import "github.com/tuneinsight/lattigo/v5/ring"`, ""},
		{"frontend/a.go", `import . "gorgonia.org/tensor"`, "under a name"},
		{"frontend/a.go", `import gt "gorgonia.org/tensor"; var x, _ = gt.Sum(nil)`, "gorgonia's Sum"},
		{"frontend/a.go", `import "gorgonia.org/tensor"; var f = tensor.MatMul`, "gorgonia's MatMul"},
		{"frontend/a.go", `import "gorgonia.org/tensor"; func f(d *tensor.Dense) { d.Max(1) }`, "gorgonia's Max"},
		{"frontend/a.go", `import ("gorgonia.org/tensor"; "math"); var x = math.Max(1, 2); var y tensor.Dense`, ""},
		{"frontend/a_test.go", `import "gorgonia.org/tensor"; var f = tensor.MatMul`, ""},
		{"ir/tensor.go", `import "gorgonia.org/tensor"; var f = tensor.MatMul`, ""},
		{"ir/tensor.go", `import "gorgonia.org/tensor"; var f = tensor.Sum`, "gorgonia's Sum"},
		{"passes/a.go", `func f(a interface{ Dense() int }) { a.Dense() }`, "Array.Dense"},
		{"passes/a.go", `func f(a interface{ Dense(int) []float64 }) { a.Dense(3) }`, ""},
	}
	for _, c := range tests {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, c.file, "package a\n"+c.source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(findings(fset, c.file, f), "; ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s with %s: found %q, want %q", c.file, c.source, got, c.want)
		}
	}
}
