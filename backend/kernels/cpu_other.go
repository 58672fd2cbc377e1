//go:build !amd64

package kernels

func hasDQ() bool { return false }

func hasIFMA() bool { return false }

func hasVAES() bool { return false }
