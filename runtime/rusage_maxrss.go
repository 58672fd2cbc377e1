//go:build linux || freebsd

package runtime

// maxrssUnit: the maximum resident set is counted in kibibytes.
const maxrssUnit = 1024
