// Command home compiles ONNX networks into plans for CKKS homomorphic encryption
// and runs them on encrypted inputs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Exit codes. They are part of the command's contract.
const (
	exitOK          = 0
	exitFailure     = 1
	exitMismatch    = 2
	exitUnsupported = 3
	exitBudget      = 4
	exitUsage       = 80
	exitInterrupted = 130
)

const description = `Run a neural network on data it cannot see.

HomE compiles an ONNX network into a plan for CKKS homomorphic encryption and runs the plan on
encrypted inputs, within a memory budget that you set.

The owner of the data, the client:  keygen, encrypt, decrypt. The secret key never leaves here.
The owner of the network, the server:  compile, install, run. It sees ciphertexts only.

The server is trusted to compute honestly: results are not authenticated. Never send raw
decryptions back to it. The network is not hidden from a client who may query it.

Exit codes: 0 done, 1 failure, 2 outputs differ from --expect, 3 model not supported,
4 memory budget cannot be met, 80 usage, 130 interrupted.`

// cli is the command line: one field per verb, in the order of a first session.
type cli struct {
	Check        checkCmd        `cmd:"" help:"Say whether a model is supported, and what runs where."`
	Compile      compileCmd      `cmd:"" help:"Compile an ONNX model into a plan."`
	Inspect      inspectCmd      `cmd:"" help:"Show what a plan does, needs and costs."`
	Keygen       keygenCmd       `cmd:"" help:"Make a secret key and the evaluation keys that plans need."`
	Install      installCmd      `cmd:"" help:"Bring keys and weights into the slow tier, once."`
	Prune        pruneCmd        `cmd:"" help:"Remove keys and weights from the slow tier that nothing needs any more."`
	Encrypt      encryptCmd      `cmd:"" help:"Encrypt inputs."`
	Run          runCmd          `cmd:"" help:"Run a plan on encrypted inputs, or a network in one process."`
	Decrypt      decryptCmd      `cmd:"" help:"Decrypt results into labels and scores."`
	Evaluate     evaluateCmd     `cmd:"" help:"Measure accuracy on a labelled data set."`
	Bench        benchCmd        `cmd:"" help:"Time the reference networks, encrypted."`
	Characterize characterizeCmd `cmd:"" help:"Measure this machine and write a cost profile."`
	Version      versionCmd      `cmd:"" help:"Print the version and what it was built from."`
}

// env is what a verb may touch of the world around it.
type env struct {
	ctx  context.Context
	in   io.Reader
	out  io.Writer // results
	err  io.Writer // everything else
	term bool      // err is a terminal: progress may be drawn
	wide int       // columns of that terminal
	verb string    // for messages about usage

	advice *atomic.Pointer[func() string] // what to say to who interrupts the verb
}

// onInterrupt sets what is said when the verb is interrupted: a line, or nothing.
func (e *env) onInterrupt(advice func() string) {
	e.advice.Store(&advice)
}

func main() { os.Exit(start(os.Args[1:])) }

// start runs the command line and returns the exit code. A panic is a bug of
// ours: it is reported as one and never shown as another result.
func start(args []string) (code int) {
	defer func() {
		if r := recover(); r != nil {
			plan.RemoveTemps()
			fmt.Fprintf(os.Stderr, "home: this is a bug in HomE, please report it with the lines below: %v\n%s", r, debug.Stack())
			code = exitFailure
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e := &env{ctx: ctx, in: os.Stdin, out: os.Stdout, err: os.Stderr, advice: new(atomic.Pointer[func() string])}
	e.term, e.wide = terminal(os.Stderr)
	go interrupted(e)

	var c cli
	parser, err := kong.New(&c,
		kong.Name("home"),
		kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Writers(e.out, e.err),
		kong.Bind(e),
		kong.ExplicitGroups([]kong.Group{{Key: "compile", Title: "Compiling a model:"}}),
	)
	if err != nil {
		panic("BUG: command line: " + err.Error())
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if err != nil {
		return e.usage(err)
	}
	e.verb = k.Command()
	if _, err := kernels.Chosen(); err != nil {
		return e.usage(err)
	}
	return e.report(k.Run())
}

// interrupted waits for Ctrl-C, a request to end or the end of the terminal,
// removes temporary files and leaves.
func interrupted(e *env) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(c, syscall.SIGHUP)
	}
	<-c
	atInterrupt.Lock() // for good: whoever waits for it does not go on
	for _, f := range atInterrupt.m {
		f()
	}
	plan.RemoveTemps()
	fmt.Fprintln(e.err, "\nhome: interrupted; temporary files are removed")
	if f := e.advice.Load(); f != nil {
		if line := (*f)(); line != "" {
			fmt.Fprintln(e.err, "home:", printable(line))
		}
	}
	os.Exit(exitInterrupted)
}

// atInterrupt holds what an interrupt ends besides temporary files: processes that
// this one has started.
var atInterrupt struct {
	sync.Mutex
	m    map[int]func()
	next int
}

// atEnd has f called when the process is interrupted, until release is
// called. After an interrupt release does not return.
func atEnd(f func()) (release func()) {
	atInterrupt.Lock()
	defer atInterrupt.Unlock()
	if atInterrupt.m == nil {
		atInterrupt.m = map[int]func(){}
	}
	id := atInterrupt.next
	atInterrupt.next++
	atInterrupt.m[id] = f
	return func() {
		atInterrupt.Lock()
		defer atInterrupt.Unlock()
		delete(atInterrupt.m, id)
	}
}

// usage reports a command line that makes no sense.
func (e *env) usage(err error) int {
	verb := e.verb
	var pe *kong.ParseError
	if errors.As(err, &pe) && pe.Context != nil {
		if s := pe.Context.Selected(); s != nil {
			verb = s.Name
		}
	}
	verb, _, _ = strings.Cut(verb, " ")
	fmt.Fprintf(e.err, "home: %v\nTry: %s\n", err, strings.Join(strings.Fields("home "+verb+" --help"), " "))
	return exitUsage
}

// usageError is a usage mistake found after parsing, such as two options that
// exclude each other.
type usageError struct{ error }

func misuse(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errMismatch marks outputs that differ from what --expect holds.
var errMismatch = errors.New("outputs differ")

// report turns the result of a verb into an exit code.
func (e *env) report(err error) int {
	var u usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &u):
		return e.usage(u.error)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(e.err, "home:", printable(line))
	}
	switch {
	case errors.Is(err, errMismatch):
		return exitMismatch
	case budgetError(err):
		return exitBudget
	case errors.Is(err, ir.ErrUnsupported):
		return exitUnsupported
	}
	return exitFailure
}

// warn tells people something that is not an error.
func (e *env) warn(format string, args ...any) {
	fmt.Fprintln(e.err, "home: warning:", printable(fmt.Sprintf(format, args...)))
}

// note tells people what is going on, on a terminal only.
func (e *env) note(format string, args ...any) {
	if e.term {
		fmt.Fprintf(e.err, format+"\n", args...)
	}
}
