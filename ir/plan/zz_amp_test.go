package plan

import (
	"encoding/binary"
	"runtime"
	"testing"
	"bytes"
	"github.com/home-fhe/home/ir"
	"unsafe"
)

func TestAmp(t *testing.T) {
	const n = 1 << 23
	raw := append([]byte{0xa1, 0x66}, "inputs"...)
	raw = append(raw, 0x9a)
	raw = binary.BigEndian.AppendUint32(raw, n)
	raw = append(raw, bytes.Repeat([]byte{0xa0}, n)...)
	b := compress(raw)
	f := rewrite(t, ClientMagic, false, []section{{"client", b}})
	var m0, m1 runtime.MemStats
	runtime.ReadMemStats(&m0)
	_, err := loadClientBytes(t, f)
	runtime.ReadMemStats(&m1)
	t.Logf("file %d KiB: alloc %d MiB: %v; port %d obj %d step %d type %d", len(f)>>10, (m1.TotalAlloc-m0.TotalAlloc)>>20, err, unsafe.Sizeof(Port{}), unsafe.Sizeof(Object{}), unsafe.Sizeof(Step{}), unsafe.Sizeof(ir.Type{}))
}
