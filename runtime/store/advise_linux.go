package store

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// adviseHuge asks for huge pages. A kernel without them says no, which changes
// nothing but speed.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

// noTransparent says that the kernel was told never to use huge pages by itself.
var noTransparent = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err != nil || bytes.Contains(b, []byte("[never]"))
})

// mapReserved maps at least n bytes of huge pages that the administrator set aside
// (vm.nr_hugepages), or nil where transparent ones can be had or too few are left.
func mapReserved(n int) []byte {
	if !noTransparent() {
		return nil
	}
	return mapHugeTLB(n)
}

func mapHugeTLB(n int) []byte {
	n = (n + hugeBytes - 1) &^ (hugeBytes - 1)
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_HUGETLB|21<<unix.MAP_HUGE_SHIFT)
	if err != nil {
		return nil
	}
	return b
}

// hugeIn returns how many bytes of the given ranges lie in huge pages, as
// /proc/self/smaps counts them.
func hugeIn(ranges [][2]uintptr) (int64, error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var huge, ours int64 // ours: bytes of the ranges in the present mapping
	in := bufio.NewScanner(f)
	for in.Scan() {
		line := in.Bytes()
		var from, to uintptr
		if n, _ := fmt.Sscanf(string(line[:min(len(line), 40)]), "%x-%x ", &from, &to); n == 2 {
			ours = 0
			for _, r := range ranges {
				if lo, hi := max(from, r[0]), min(to, r[1]); lo < hi {
					ours += int64(hi - lo)
				}
			}
			continue
		}
		for _, key := range []string{"AnonHugePages:", "Private_Hugetlb:"} {
			if rest, ok := bytes.CutPrefix(line, []byte(key)); ok && ours > 0 {
				kib, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(rest, []byte("kB")))), 10, 64)
				if err != nil {
					return 0, fmt.Errorf("/proc/self/smaps: %q", line)
				}
				huge += min(kib<<10, ours)
			}
		}
	}
	return huge, in.Err()
}
