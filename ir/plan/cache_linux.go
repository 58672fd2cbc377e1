package plan

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropBehind asks the kernel to forget the pages of a section that was read:
// they would count as memory that the process causes, and are not read again.
func dropBehind(f *os.File, off, length int64) {
	_ = unix.Fadvise(int(f.Fd()), off, length, unix.FADV_DONTNEED)
}
