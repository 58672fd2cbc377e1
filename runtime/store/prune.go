package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Suffix ends the names of tier files.
const Suffix = ".htier"

// Fate says what Prune makes of a file.
type Fate string

// Fates of files.
const (
	FateKept    Fate = "kept"
	FateStale   Fate = "stale"   // goes
	FateRemoved Fate = "removed" // has gone
	FateInUse   Fate = "in use"  // would go, but a process has it open
	FateUnknown Fate = "unknown" // not recognised as a tier file: stays
)

// Found is a file of a folder as Prune sees it.
type Found struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Fate  Fate   `json:"fate"`
	Holds string `json:"holds,omitempty"` // kind and identity

	header Header
}

// Prune lists the tier files of a folder, by name, and removes those that keep does
// not want if remove says so. It touches no file that is not a tier file under the
// name that its header asks for, by name, and none that a process has open. A file
// goes whole or not at all; an error, or the end of ctx, leaves the rest, and what is
// returned then says what has happened to each.
func Prune(ctx context.Context, dir string, name func(Header) string, keep func(Header) bool, remove bool) ([]Found, error) {
	if IsDevice(dir) {
		return nil, fmt.Errorf("%s is a device: it is emptied as a whole, with home install --format", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []Found
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), Suffix) {
			continue
		}
		f, err := look(filepath.Join(dir, e.Name()), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody else removed it
		}
		if err != nil {
			return nil, err
		}
		if f.Fate == FateStale && keep(f.header) {
			f.Fate = FateKept
		}
		all = append(all, f)
	}
	var errs []error
	for i := range all {
		if f := &all[i]; remove && f.Fate == FateStale && ctx.Err() == nil {
			errs = append(errs, f.remove())
		}
	}
	if slices.ContainsFunc(all, func(f Found) bool { return f.Fate == FateRemoved }) {
		errs = append(errs, syncDir(dir))
	}
	return all, errors.Join(append(errs, ctx.Err())...)
}

// look reads the header of a file without waiting for whoever has it open.
func look(path string, name func(Header) string) (Found, error) {
	found := Found{Path: path, Fate: FateUnknown}
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return found, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return found, nil
	}
	if err != nil {
		return found, err
	}
	defer f.Close()
	found.Bytes = fi.Size()
	page := make([]byte, PageBytes)
	if err := readPlain(f, [][]byte{page}, 0); err != nil {
		return found, nil // too short to be one, or not to be read
	}
	if found.header, _, err = parseHeader(page); err == nil && name(found.header) == filepath.Base(path) {
		found.Fate = FateStale
		found.Holds = fmt.Sprintf("%v of %s", found.header.Kind, found.header.ID)
	}
	return found, nil
}

// remove removes a stale file, unless a process has it open.
func (f *Found) remove() error {
	own, _, err := openLockedAs(f.Path, os.O_RDWR, true)
	switch {
	case errors.Is(err, ErrLocked):
		f.Fate = FateInUse
		return nil
	case errors.Is(err, fs.ErrNotExist):
		f.Fate = FateRemoved
		return nil
	case err != nil:
		return err
	}
	defer own.Close()
	// What was looked at is what is locked now: installs never replace a file.
	if err := os.Remove(f.Path); err != nil {
		return err
	}
	f.Fate = FateRemoved
	return nil
}
