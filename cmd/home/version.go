package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/home-fhe/home/backend/kernels"
)

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

type versionReport struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Kernels string `json:"kernels"` // arithmetic of encrypted runs, as HOME_KERNELS names it
}

func (c *versionCmd) Run(e *env) error {
	r := versionReport{Schema: 1, Version: "(devel)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Kernels: kernelsInUse()}
	if b, ok := debug.ReadBuildInfo(); ok {
		if v := b.Main.Version; v != "" {
			r.Version = v
		}
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				r.Commit = s.Value
			}
		}
	}
	if c.JSON {
		return e.printJSON(r)
	}
	commit := ""
	if r.Commit != "" {
		commit = " (" + r.Commit[:min(12, len(r.Commit))] + ")"
	}
	_, err := fmt.Fprintf(e.out, "home %s%s, %s, %s/%s, %s kernels\n", r.Version, commit, r.Go, r.OS, r.Arch, r.Kernels)
	return err
}

// kernelsInUse names the arithmetic of this process; start has refused what the
// machine cannot run.
func kernelsInUse() string {
	f, err := kernels.Chosen()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return f.String()
}
