package runtime

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/home-fhe/home/ir/plan/plantest"
)

// A directory that cannot be written is an error that names it.
func TestReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=64k"); err != nil {
		t.Skipf("cannot mount a read-only file system: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	p := plantest.Random(1, plantest.Config{})
	_, err := Install(t.Context(), p, &fakeEngine{params: &p.Params}, fakeKeys{}, dir, InstallOptions{})
	if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}
