package runtime

import (
	"bytes"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Memory returns the bytes of DRAM that this process may use at most: those of
// the machine, or of the control group it runs in; 0 where that is not known.
func Memory() int64 {
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return 0
	}
	most := int64(min(uint64(s.Totalram)*uint64(s.Unit), math.MaxInt64))
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil && n > 0 { // "max" is no number
			most = min(most, n)
		}
	}
	return most
}
