package passes_test
import ("testing";"fmt";"github.com/home-fhe/home/ir";"github.com/home-fhe/home/passes")
func TestZZ(t *testing.T){
 for _, n := range []int{2,3,4,5,6} {
  s := "graph \"sq\"\n%0 = tensor.input() {shape=[1,4]} \"x\"\n%1 = tensor.const() data=[1,0,0,0.5,0,1,0,0,0,0,1,0,0,0,0,-1] : f[4,4] \"w\"\n%2 = tensor.matmul(%0, %1) \"fc\"\n"
  for i:=0;i<n;i++ { s += fmt.Sprintf("%%%d = tensor.pow(%%%d) {k=2.0} \"p%d\"\n", 3+i,2+i,i) }
  s += fmt.Sprintf("inputs(%%0)\noutputs(%%%d)\n", 2+n)
  g, err := ir.ParseString(s); if err!=nil {t.Fatal(err)}
  p, err := passes.Compile(passes.Source{Graph:g}, passes.Options{Calibrate: noise([]int{1,4})})
  if err != nil { t.Log(n, err); continue }
  t.Log(n, p.Params.Name, p.Depth, p.Predicted.Bits)
  for _, st := range p.Steps { if st.Op==ir.OpHERescale { t.Log(p.Objects[st.Out].Type) } }
 }
}
