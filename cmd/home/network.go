package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/dataset"
)

// network computes outputs from inputs in one of the modes, a batch at a time.
type network struct {
	batch  int   // most samples per run
	own    int   // samples that the network itself takes at once: a run takes a multiple
	sample []int // shape of one sample
	client []plan.ClientOp
	pre    *plan.Preprocess

	// run computes one batch: in has the batch in front of the sample's shape.
	// The output is that of the network, before the client's operators.
	run func(ctx context.Context, in *ir.Array) (result, error)
	// parallel is how many runs may be in progress at once.
	parallel int
	close    func() error
	bits     float64 // absolute precision of the outputs; 0 where they are exact
}

// result is the output of one run.
type result struct {
	out    *ir.Array
	stats  clear.Stats // activations that left their range
	report *runtime.Report
	lost   error // in a simulated run: why there is no output
}

func (n *network) Close() error {
	if n.close == nil {
		return nil
	}
	return n.close()
}

// clearNetwork evaluates a graph in float64: with the exact activations, or with
// the polynomials of a plan.
func clearNetwork(path string, g *ir.Graph, client []plan.ClientOp, pre *plan.Preprocess, approx bool) (*network, error) {
	batch, sample, err := onlyInput(path, g)
	if err != nil {
		return nil, err
	}
	if err := onlyOutput(path, len(g.Outputs)); err != nil {
		return nil, err
	}
	shape := g.Inputs[0].Type.Shape
	return &network{
		batch: batch, own: batch, sample: sample, client: client, pre: pre, parallel: goruntime.GOMAXPROCS(0),
		run: func(_ context.Context, in *ir.Array) (result, error) {
			out, stats, err := clear.EvalTensor(g, []*ir.Array{in.Reshape(shape...)}, clear.Options{Approx: approx})
			if err != nil {
				return result{}, err
			}
			return result{out: out[0], stats: stats}, nil
		},
	}, nil
}

func onlyOutput(path string, n int) error {
	if n != 1 {
		return fmt.Errorf("%s: the model has %d outputs, %w here: only home run --mode clear takes several", path, n, ir.ErrUnsupported)
	}
	return nil
}

// chunk is the outputs of consecutive samples.
type chunk struct {
	first  int
	in     *ir.Array // [n, sample...]
	out    *ir.Array // [n, ...], before the client's operators
	result result
}

// feed runs all samples through the network, the network's own batch at a time,
// and hands the outputs to f in the order of the samples. What the network's own
// batch lacks at the end is filled up with the last sample, and the surplus
// outputs are cut off.
func (n *network) feed(ctx context.Context, s *dataset.Samples, f func(chunk) error) error {
	if n.parallel <= 1 {
		return n.feedInTurn(ctx, s, f)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type slot struct {
		c   chunk
		err error
	}
	queue := make(chan chan slot, n.parallel-1) // the one that is waited for is in progress as well
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	go func() {
		defer close(queue)
		first := 0
		for ctx.Err() == nil {
			in, err := s.Next(n.batch)
			if err == io.EOF {
				return
			}
			done := make(chan slot, 1)
			select {
			case queue <- done:
			case <-ctx.Done():
				return
			}
			if err != nil {
				done <- slot{err: err}
				return
			}
			c := chunk{first: first, in: in}
			first += in.Shape[0]
			wg.Add(1)
			go func() {
				defer wg.Done()
				err := caught(func() error { return n.one(ctx, &c) })
				done <- slot{c, err}
			}()
		}
	}()
	for done := range queue {
		r := <-done
		if r.err != nil {
			return r.err
		}
		if err := f(r.c); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// feedInTurn is feed for networks that do one run at a time: a run has the
// machine to itself, and f is done before the next one begins.
func (n *network) feedInTurn(ctx context.Context, s *dataset.Samples, f func(chunk) error) error {
	first := 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		in, err := s.Next(n.batch)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		c := chunk{first: first, in: in}
		if err := caught(func() error { return n.one(ctx, &c) }); err != nil {
			return err
		}
		if err := f(c); err != nil {
			return err
		}
		first += in.Shape[0]
	}
}

// caught turns a panic of f into an error, so that a bug in one goroutine ends
// the command as every other error does.
func caught(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("this is a bug in HomE, please report it with the lines below: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}

// one runs one chunk of at most a batch.
func (n *network) one(ctx context.Context, c *chunk) (err error) {
	in := fillUp(n.own, c.in)
	if c.result, err = n.run(ctx, in); err != nil {
		return fmt.Errorf("sample %d: %w", c.first, err)
	}
	if c.result.lost != nil {
		return nil
	}
	c.out, err = rows(c.result.out, in.Shape[0], c.in.Shape[0])
	return err
}

// fillUp repeats the last sample until the number of samples is a multiple of
// own, the batch that the network fixes.
func fillUp(own int, a *ir.Array) *ir.Array {
	n := a.Shape[0]
	want := (n + own - 1) / own * own
	if want == n {
		return a
	}
	size := len(a.Data) / n
	full := ir.NewArray(append([]int{want}, a.Shape[1:]...)...)
	copy(full.Data, a.Data)
	for i := n; i < want; i++ {
		copy(full.Data[i*size:], a.Data[(n-1)*size:])
	}
	return full
}

// rows views an output of one run as [batch, ...] and keeps the first k rows. An
// output without a batch axis is the row of a single sample.
func rows(out *ir.Array, batch, k int) (*ir.Array, error) {
	shape := out.Shape
	switch {
	case len(shape) > 0 && shape[0] == batch:
		shape = shape[1:]
	case batch != 1:
		return nil, fmt.Errorf("output of shape %v has no row for each of %d samples", out.Shape, batch)
	}
	return ir.ArrayOf(out.Data[:k*ir.NumElems(shape)], append([]int{k}, shape...)...), nil
}

// finish applies the client's operators to rows of outputs. Operators were
// compiled for the network's own output shape, so rows pass through in that
// form. An operator along the axis of the samples would mix those of different
// runs, and is refused.
func (n *network) finish(out *ir.Array) (*ir.Array, error) {
	if len(n.client) == 0 {
		return out, nil
	}
	in := n.client[0].Input
	if len(in) == len(out.Shape)-1 { // no batch axis: row by row
		var data []float64
		var shape []int
		size := ir.NumElems(in)
		if size*out.Shape[0] != len(out.Data) {
			return nil, fmt.Errorf("client operator %s (%s) takes %v, the outputs are %v", n.client[0].Node, n.client[0].Op, in, out.Shape[1:])
		}
		for i := range out.Shape[0] {
			r, err := runtime.ApplyClientOps(n.client, ir.ArrayOf(out.Data[i*size:(i+1)*size], in...))
			if err != nil {
				return nil, err
			}
			data, shape = append(data, r.Data...), r.Shape
		}
		return ir.ArrayOf(data, append([]int{out.Shape[0]}, shape...)...), nil
	}
	for _, o := range n.client {
		if o.Axis == 0 {
			return nil, fmt.Errorf("node %s (%s): axis 0 is that of the samples, %w: HomE judges every sample by itself; use axis=-1, or leave the operator out with run --raw", o.Node, o.Op, ir.ErrUnsupported)
		}
	}
	return runtime.ApplyClientOps(n.client, out)
}

// picks reports whether the client's operators end in class numbers instead of
// scores.
func (n *network) picks() bool {
	return len(n.client) > 0 && n.client[len(n.client)-1].Op == "ArgMax"
}

// classes returns the predicted class of every row: the number itself where the
// client's operators pick it, else the largest score, the first of equals.
func (n *network) classes(out *ir.Array) []int {
	c := make([]int, out.Shape[0])
	if len(c) == 0 {
		return c
	}
	w := len(out.Data) / len(c)
	for i := range c {
		row := out.Data[i*w : (i+1)*w]
		if n.picks() {
			c[i] = int(row[0])
			continue
		}
		for j, v := range row {
			if v > row[c[i]] {
				c[i] = j
			}
		}
	}
	return c
}

// gather puts chunks together again.
type gather struct {
	data  []float64
	shape []int // of a row
	n     int
}

func (g *gather) add(a *ir.Array) error {
	if g.n > 0 && !slices.Equal(g.shape, a.Shape[1:]) {
		return errors.New("BUG: rows of different shapes")
	}
	g.shape = a.Shape[1:]
	g.n += a.Shape[0]
	g.data = append(g.data, a.Data...)
	return nil
}

func (g *gather) array() *ir.Array {
	return ir.ArrayOf(g.data, append([]int{g.n}, g.shape...)...)
}
