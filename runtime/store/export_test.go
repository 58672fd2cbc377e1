package store

// For tests that use package faulty, which imports this one.
var (
	InstallAll = install
	VerifyAll  = verify
	SomeSpecs  = specs
)
