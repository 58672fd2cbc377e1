//go:build !amd64

package kernels

func hasIFMA() bool { return false }
