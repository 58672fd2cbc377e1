package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
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
}

func (c *versionCmd) Run(e *env) error {
	r := versionReport{Schema: 1, Version: "(devel)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
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
	_, err := fmt.Fprintf(e.out, "home %s%s, %s, %s/%s\n", r.Version, commit, r.Go, r.OS, r.Arch)
	return err
}
