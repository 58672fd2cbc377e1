package runtime

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

func TestApplyClientOps(t *testing.T) {
	e := math.E
	for _, tc := range []struct {
		name  string
		op    plan.ClientOp
		in    *ir.Array
		shape []int
		want  []float64
	}{
		{"softmax", plan.ClientOp{Op: "Softmax", Axis: 1, Input: []int{1, 2}}, ir.ArrayOf([]float64{0, 1, 1000, 1000}, 2, 2), []int{2, 2},
			[]float64{1 / (1 + e), e / (1 + e), 0.5, 0.5}},
		{"softmax along the first of two", plan.ClientOp{Op: "Softmax", Axis: 1, Input: []int{1, 2, 2}}, ir.ArrayOf([]float64{0, 5, 1, 5}, 1, 2, 2), []int{1, 2, 2},
			[]float64{1 / (1 + e), 0.5, e / (1 + e), 0.5}},
		{"softmax flattened", plan.ClientOp{Op: "Softmax", Axis: 1, Flat: true, Input: []int{1, 2, 2}}, ir.ArrayOf([]float64{3, 3, 3, 3}, 1, 2, 2), []int{1, 2, 2},
			[]float64{0.25, 0.25, 0.25, 0.25}},
		{"log-softmax of large scores", plan.ClientOp{Op: "LogSoftmax", Axis: 1, Input: []int{1, 2}}, ir.ArrayOf([]float64{-2000, -2001}, 1, 2), []int{1, 2},
			[]float64{-math.Log(1 + 1/e), -1 - math.Log(1+1/e)}},
		{"argmax first of equals", plan.ClientOp{Op: "ArgMax", Axis: 1, Input: []int{1, 3}}, ir.ArrayOf([]float64{1, 2, 2, 5, 4, 3}, 2, 3), []int{2}, []float64{1, 0}},
		{"argmax last of equals", plan.ClientOp{Op: "ArgMax", Axis: 1, Last: true, Keep: true, Input: []int{1, 3}}, ir.ArrayOf([]float64{1, 2, 2, 5, 4, 3}, 2, 3), []int{2, 1}, []float64{2, 0}},
		{"argmax along the middle", plan.ClientOp{Op: "ArgMax", Axis: 1, Input: []int{1, 2, 2}}, ir.ArrayOf([]float64{1, 9, 8, 2}, 1, 2, 2), []int{1, 2}, []float64{1, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ApplyClientOps([]plan.ClientOp{tc.op}, tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Shape, tc.shape) {
				t.Errorf("shape %v, want %v", got.Shape, tc.shape)
			}
			for i, w := range tc.want {
				if math.Abs(got.Data[i]-w) > 1e-12 {
					t.Errorf("element %d is %v, want %v", i, got.Data[i], w)
				}
			}
		})
	}
	for want, op := range map[string]plan.ClientOp{
		"not known":    {Op: "Hardmax", Axis: 1, Input: []int{1, 2}},
		"compiled for": {Op: "Softmax", Axis: 1, Input: []int{1, 3}},
		"axis 2":       {Op: "Softmax", Axis: 2, Input: []int{1, 2}},
	} {
		if _, err := ApplyClientOps([]plan.ClientOp{op}, ir.NewArray(1, 2)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

func TestPackUnpack(t *testing.T) {
	one := &plan.Port{Name: "x", Shape: []int{1, 3}, Layout: &ir.Layout{Slots: 4, Cts: 1, Lanes: 1, Map: []int32{2, -1, 0, 1}}}
	lanes := &plan.Port{Name: "y", Shape: []int{1, 2}, Layout: &ir.Layout{Slots: 4, Cts: 2, Lanes: 4, Map: []int32{0, 1}}}
	for _, tc := range []struct {
		port *plan.Port
		in   *ir.Array
		want [][]float64
	}{
		{one, ir.ArrayOf([]float64{7, 8, 9}, 1, 3), [][]float64{{9, 0, 7, 8}}},
		{lanes, ir.ArrayOf([]float64{1, 2, 3, 4, 5, 6}, 3, 2), [][]float64{{1, 3, 5, 1}, {2, 4, 6, 2}}},
	} {
		slots, err := Pack(tc.port, tc.in)
		if err != nil {
			t.Fatal(err)
		}
		for i := range slots {
			if !slices.Equal(slots[i], tc.want[i]) {
				t.Errorf("ciphertext %d holds %v, want %v", i, slots[i], tc.want[i])
			}
		}
		back, err := Unpack(tc.port, slots, tc.in.Shape[0])
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(back.Shape, tc.in.Shape) || !slices.Equal(back.Data, tc.in.Data) {
			t.Errorf("read back %v %v", back.Shape, back.Data)
		}
	}
	norm := &plan.Port{Name: "z", Shape: []int{2}, Center: []float64{10, 20}, Norm: []float64{2}, Limit: 1.5, Layout: &ir.Layout{Slots: 2, Cts: 1, Lanes: 1, Map: []int32{0, 1}}}
	slots, err := Pack(norm, ir.ArrayOf([]float64{12, 19}, 2))
	if err != nil || !slices.Equal(slots[0], []float64{1, -0.5}) {
		t.Errorf("normalised to %v, %v", slots, err)
	}
	if back, err := Unpack(norm, slots, 1); err != nil || !slices.Equal(back.Data, []float64{12, 19}) {
		t.Errorf("restored to %v, %v", back, err)
	}
	if _, err := Pack(norm, ir.ArrayOf([]float64{12, 24}, 2)); err == nil || !strings.Contains(err.Error(), "element 1 is 24, outside 17 to 23") {
		t.Errorf("beyond the limit: %v", err)
	}
	if _, err := Pack(one, ir.NewArray(2, 3)); err == nil {
		t.Error("two samples were packed into one lane")
	}
	if _, err := Unpack(one, [][]float64{{1, 2}}, 1); err == nil {
		t.Error("a short slot vector was unpacked")
	}
}

func TestTopAndRound(t *testing.T) {
	got := Top([]float64{1, 3, 2, 3}, []string{"a", "b"}, 3)
	want := []Class{{1, "b", 3}, {3, "", 3}, {2, "", 2}}
	if !slices.Equal(got, want) {
		t.Errorf("top %v, want %v", got, want)
	}
	for _, tc := range []struct{ v, bits, want float64 }{{1.3, 2, 1.25}, {1.3, 2.9, 1.25}, {-0.6, 0, -1}, {1.3, math.Inf(1), 1.3}} {
		if got := Round(tc.v, tc.bits); got != tc.want {
			t.Errorf("Round(%v, %v) = %v, want %v", tc.v, tc.bits, got, tc.want)
		}
	}
}
