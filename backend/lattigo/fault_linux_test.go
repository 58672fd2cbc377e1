package lattigo

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// A fault under a kernel can be turned into an error: an operand lies in a file that
// was cut.
func TestFaultUnderAKernel(t *testing.T) {
	p, err := ir.NewParams("fault", 12, ir.RingStandard, ir.SecretTernary, []int{49, 45}, []int{49}, 45)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	e := must[*engine](t)(openEngine(p))
	f, err := os.Create(filepath.Join(t.TempDir(), "slabs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, p.SlabBytes(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	ct := ir.Type{Kind: ir.CipherKind, Scale: ir.ScaleTwo(45)}
	x := must[*operand](t)(e.bind(ct, conformance.Slabs(e, ct)))
	w := must[*operand](t)(e.bind(ir.Type{Kind: ir.PlainKind, Scale: ir.ScaleTwo(1)}, [][]byte{mem}))
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	err = backend.Guard(func() error {
		return e.Exec(&plan.Step{Op: ir.OpHEMulPlain}, []backend.Operand{x, w}, x)
	})
	if err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("got %v", err)
	}
}
