#include "textflag.h"

// func features7() uint32
TEXT ·features7(SB), NOSPLIT, $0-4
	XORL AX, AX
	CPUID
	CMPL AX, $7
	JLT  none
	MOVL $7, AX
	XORL CX, CX
	CPUID
	MOVL BX, ret+0(FP)
	RET

none:
	MOVL $0, ret+0(FP)
	RET

// Lines are written back and the fence follows within one function: it orders what
// the same thread wrote back before, and the scheduler does not move a goroutine to
// another thread in the middle of assembly.

// func flushCLWB(line unsafe.Pointer, lines uintptr)
TEXT ·flushCLWB(SB), NOSPLIT, $0-16
	MOVQ line+0(FP), AX
	MOVQ lines+8(FP), CX

next:
	CLWB (AX)
	ADDQ $64, AX
	DECQ CX
	JNZ  next
	SFENCE
	RET

// func flushCLFLUSHOPT(line unsafe.Pointer, lines uintptr)
TEXT ·flushCLFLUSHOPT(SB), NOSPLIT, $0-16
	MOVQ line+0(FP), AX
	MOVQ lines+8(FP), CX

next:
	CLFLUSHOPT (AX)
	ADDQ $64, AX
	DECQ CX
	JNZ  next
	SFENCE
	RET

// func flushCLFLUSH(line unsafe.Pointer, lines uintptr)
TEXT ·flushCLFLUSH(SB), NOSPLIT, $0-16
	MOVQ line+0(FP), AX
	MOVQ lines+8(FP), CX

next:
	CLFLUSH (AX)
	ADDQ $64, AX
	DECQ CX
	JNZ  next
	SFENCE
	RET
