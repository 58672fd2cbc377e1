// Package kernels chooses the arithmetic of this process: which of the vector
// instructions that the CPU offers the engines use. Results do not depend on it.
package kernels

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// Form is a set of kernels. A later form is faster where both apply.
type Form uint8

const (
	// Portable is plain Go, for every prime and every machine.
	Portable Form = iota
	// DQ is AVX-512 with 64-bit products, for primes below 2^61.
	DQ
	// IFMA is AVX-512 with 52-bit multiply-add, for primes below 2^50, and DQ for others.
	IFMA
)

// Env names the environment variable that forces a form.
const Env = "HOME_KERNELS"

var names = [...]string{Portable: "portable", DQ: "avx512dq", IFMA: "ifma"}

// String returns the name of the form, as Env takes it.
func (f Form) String() string { return names[f] }

// Supported lists the forms that this machine can run, the best last.
func Supported() []Form {
	out := []Form{Portable}
	if hasDQ() {
		out = append(out, DQ)
	}
	if hasIFMA() {
		out = append(out, IFMA)
	}
	return out
}

// Chosen returns the form that this process uses: the one that Env names, else
// the best that the machine supports. It reads the environment once. It returns
// an error if Env names a form that does not exist or that this machine lacks.
var Chosen = sync.OnceValues(func() (Form, error) { return choose(os.Getenv(Env), Supported()) })

// choose returns the form of a name among those supported, the best for "".
func choose(name string, supported []Form) (Form, error) {
	if name == "" {
		return supported[len(supported)-1], nil
	}
	var have []string
	for _, f := range supported {
		if f.String() == name {
			return f, nil
		}
		have = append(have, f.String())
	}
	what := "no such kernels"
	for _, n := range names {
		if n == name {
			what = "this CPU lacks the instructions"
		}
	}
	return 0, fmt.Errorf("%s=%q: %s; this machine has %s", Env, name, what, strings.Join(have, ", "))
}
