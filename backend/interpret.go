package backend

import (
	"fmt"
	"unsafe"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Interpret runs a plan step by step on the Go heap: no threads, no tiers, each
// weight encoded when it is used, each result dropped after its last use. It is
// the slow twin of the runtime and what the compiler predicts precision with.
// input fills the ciphertexts from the client; fixed fills keys and may be nil
// for engines whose keys take no memory; output receives each output object
// before its memory is reused.
func Interpret(p *plan.Plan, e Engine, input, fixed, output func(obj plan.ObjectID, o Operand) error) error {
	last := make([]int, len(p.Objects))
	for i := range last {
		last[i] = -1
	}
	for i, s := range p.Steps {
		for _, a := range s.Args {
			last[a] = i
		}
		last[s.Out] = i
	}
	bound := make([]Operand, len(p.Objects))
	spare := map[int][][]byte{} // by number of slabs
	memory := make(map[plan.ObjectID][]byte)
	bind := func(id plan.ObjectID) (Operand, error) {
		t := p.Objects[id].Type
		n := e.Slabs(t)
		var buf []byte
		if l := spare[n]; len(l) > 0 {
			buf, spare[n] = l[len(l)-1], l[:len(l)-1]
		} else {
			buf = aligned(n * e.SlabBytes())
		}
		memory[id] = buf
		slabs := make([][]byte, n)
		for k := range slabs {
			slabs[k] = buf[k*e.SlabBytes() : (k+1)*e.SlabBytes() : (k+1)*e.SlabBytes()]
		}
		return e.Bind(t, slabs)
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		args := make([]Operand, len(s.Args))
		for k, a := range s.Args {
			if bound[a] == nil {
				o, err := bind(a)
				if err != nil {
					return err
				}
				bound[a] = o
				switch obj := p.Objects[a]; obj.Role {
				case plan.RoleInput:
					err = input(a, o)
				case plan.RolePlain:
					err = e.Encode(&p.Plains[obj.Plain], o)
				case plan.RoleKey:
					if fixed != nil {
						err = fixed(a, o)
					}
				default:
					err = fmt.Errorf("step %d reads object %d before it is made", i, a)
				}
				if err != nil {
					return stepError(p, i, err)
				}
			}
			args[k] = bound[a]
		}
		if bound[s.Out] == nil {
			o, err := bind(s.Out)
			if err != nil {
				return err
			}
			bound[s.Out] = o
		}
		if err := e.Exec(s, args, bound[s.Out]); err != nil {
			return stepError(p, i, err)
		}
		for _, a := range append([]plan.ObjectID{s.Out}, s.Args...) {
			if last[a] == i && bound[a] != nil {
				if p.Objects[a].Role == plan.RoleOutput {
					if err := output(a, bound[a]); err != nil {
						return err
					}
				}
				bound[a] = nil
				n := e.Slabs(p.Objects[a].Type)
				spare[n] = append(spare[n], memory[a])
				delete(memory, a)
			}
		}
	}
	return nil
}

func stepError(p *plan.Plan, i int, err error) error {
	s := &p.Steps[i]
	if s.Layer >= 0 && int(s.Layer) < len(p.Layers) {
		return &ir.NodeError{Node: p.Layers[s.Layer].Name, Op: s.Op.String(), Err: err}
	}
	return fmt.Errorf("step %d (%s): %w", i, s.Op, err)
}

// aligned allocates n bytes on a 64-byte boundary.
func aligned(n int) []byte {
	b := make([]byte, n+64)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & 63)
	return b[off : off+n : off+n]
}
