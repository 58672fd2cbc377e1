package main

import (
	"fmt"
	"os"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

// checkpointFlags say whether a run on ciphertexts is saved on its way.
type checkpointFlags struct {
	Checkpoint bool    `help:"Save a run on ciphertexts on its way, so that --resume can go on after an interruption."`
	Resume     bool    `help:"Go on from the last checkpoint, or begin where there is none; then as with --checkpoint."`
	SaveDir    string  `name:"checkpoint-dir" placeholder:"DIR" help:"Folder of the checkpoints. Default: beside the output, its name with .checkpoint behind it."`
	Share      percent `name:"checkpoint-share" default:"1%" placeholder:"SHARE" help:"Most of the time that checkpoints may take. Default: ${default}."`

	dir string // of the checkpoints, once it is known
}

func (f *checkpointFlags) given() bool { return f.Checkpoint || f.Resume || f.SaveDir != "" }

// durable returns how a run is to be saved, nil for not at all. Checkpoints of a run
// that was interrupted are not lost for want of --resume.
func (f *checkpointFlags) durable(e *env, output string, ct *lattigo.Ciphertexts) (*runtime.DurableOptions, error) {
	switch {
	case !f.Checkpoint && !f.Resume:
		if f.SaveDir != "" {
			return nil, misuse("--checkpoint-dir goes with --checkpoint or --resume")
		}
		return nil, nil
	case f.Share == 0:
		return nil, misuse("--checkpoint-share must be more than nothing")
	case f.SaveDir == "" && output == "-":
		return nil, misuse("the result goes to standard output: say with --checkpoint-dir where the checkpoints go")
	}
	f.dir = f.SaveDir
	if f.dir == "" {
		f.dir = output + ".checkpoint"
	}
	has, err := store.SnapshotsIn(f.dir)
	switch {
	case err != nil:
		return nil, err
	case has && !f.Resume:
		return nil, fmt.Errorf("%s holds checkpoints of a run that was interrupted: go on with --resume, or delete them", f.dir)
	case !has && f.Resume:
		fmt.Fprintf(e.err, "home: there is no checkpoint in %s: the run begins at its start\n", printable(f.dir))
	}
	return &runtime.DurableOptions{
		Dir: f.dir, Input: ct.Digest(), Share: float64(f.Share), Resume: f.Resume,
		Warn: func(err error) { e.warn("checkpoint: %v", err) },
		Resumed: func(run, step, steps int) {
			if step < steps {
				fmt.Fprintf(e.err, "home: run %d goes on from step %s of %s\n", run+1, count(step), count(steps))
			}
		},
	}, nil
}

// saved says how to go on with a run that was interrupted, if that is possible.
func (f *checkpointFlags) saved() string {
	if has, err := store.SnapshotsIn(f.dir); f.dir == "" || !has || err != nil {
		return ""
	}
	return "the same command with --resume goes on from the last checkpoint, in " + f.dir
}

// hint adds to an error how to go on.
func (f *checkpointFlags) hint(err error) error {
	if line := f.saved(); line != "" {
		return fmt.Errorf("%w\n%s", err, line)
	}
	return err
}

// tidy removes the folder that was made for the checkpoints, which are gone.
func (f *checkpointFlags) tidy() {
	if f.dir != "" && f.SaveDir == "" {
		_ = os.Remove(f.dir) // stays if somebody put something there
	}
}
