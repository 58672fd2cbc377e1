#!/usr/bin/env python3
"""Trains small MNIST models with PyTorch (PyTorch 1.13) and exports them to ONNX.
usage: train_mnist.py TRAIN_IMAGES TRAIN_LABELS TEST_IMAGES TEST_LABELS OUTDIR [name ...]
The four data files are MNIST idx files (gzip accepted) or .npy. Preprocessing of every model: x/255, shape [N,1,28,28].
"""
import sys, gzip, struct, json, time, os, math
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
torch.set_num_threads(1)

def load(p):
    if p.endswith('.npy'): return np.load(p)
    b = (gzip.open if p.endswith('.gz') else open)(p, 'rb').read(); n = b[3]
    return np.frombuffer(b[4+4*n:], np.uint8).reshape(struct.unpack('>' + 'I'*n, b[4:4+4*n])).copy()

class Square(nn.Module):
    def forward(self, x): return x * x
class Cast28(nn.Module):          # [N,1,28,28] -> [N,28,28]: rows as a sequence
    def forward(self, x): return x.squeeze(1)
class RNN(nn.Module):
    def __init__(s, kind, h):
        super().__init__(); s.rnn = getattr(nn, kind)(28, h, batch_first=False); s.fc = nn.Linear(h, 10)
    def forward(s, x):
        y, _ = s.rnn(x.squeeze(1).transpose(0, 1)); return s.fc(y[-1])
class Attn(nn.Module):
    def __init__(s, d, h):
        super().__init__(); s.h = h; s.qkv = nn.Linear(d, 3*d); s.o = nn.Linear(d, d)
    def forward(s, x):
        B, T, D = x.shape; q, k, v = s.qkv(x).reshape(B, T, 3, s.h, D//s.h).permute(2, 0, 3, 1, 4).unbind(0)
        a = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(D//s.h), -1)
        return s.o((a @ v).transpose(1, 2).reshape(B, T, D))
class Block(nn.Module):
    def __init__(s, d, h, act):
        super().__init__(); s.n1 = nn.LayerNorm(d); s.a = Attn(d, h); s.n2 = nn.LayerNorm(d); s.m = nn.Sequential(nn.Linear(d, 2*d), act(), nn.Linear(2*d, d))
    def forward(s, x): x = x + s.a(s.n1(x)); return x + s.m(s.n2(x))
class ViT(nn.Module):
    def __init__(s, d=32, h=2, L=2, act=nn.GELU, cls=False):
        super().__init__(); s.p = nn.Conv2d(1, d, 7, 7); s.cls = cls
        if cls: s.c = nn.Parameter(torch.zeros(1, 1, d))
        s.pos = nn.Parameter(torch.randn(1, 16 + int(cls), d)*.02); s.b = nn.Sequential(*[Block(d, h, act) for _ in range(L)]); s.n = nn.LayerNorm(d); s.fc = nn.Linear(d, 10)
    def forward(s, x):
        x = s.p(x).flatten(2).transpose(1, 2)
        if s.cls: x = torch.cat([s.c.expand(x.shape[0], -1, -1), x], 1)
        x = s.n(s.b(x + s.pos)); return s.fc(x[:, 0] if s.cls else x.mean(1))
class Res(nn.Module):
    def __init__(s, c, act):
        super().__init__(); s.f = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), act(), nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)); s.a = act()
    def forward(s, x): return s.a(x + s.f(x))
S = nn.Sequential; C = nn.Conv2d; L = nn.Linear
def lenet(act, pool): return S(C(1, 6, 5, padding=2), act(), pool(2), C(6, 16, 5), act(), pool(2), nn.Flatten(), L(400, 120), act(), L(120, 84), act(), L(84, 10))
def dw(i, o, s, act): return S(C(i, i, 3, s, 1, groups=i, bias=False), nn.BatchNorm2d(i), act(), C(i, o, 1, bias=False), nn.BatchNorm2d(o), act())
M = {  # name: (constructor, epochs, lr, export options)
 'mlp_relu':        (lambda: S(nn.Flatten(), L(784, 128), nn.ReLU(), L(128, 64), nn.ReLU(), L(64, 10)), 8, 1e-3, dict(opset=9)),
 'mlp_square':      (lambda: S(nn.Flatten(), L(784, 128), Square(), L(128, 64), Square(), L(64, 10)), 6, 1e-3, dict(opset=13, dyn=1)),
 'cryptonet_square':(lambda: S(C(1, 5, 5, 2, 2), Square(), nn.Flatten(), L(980, 100), Square(), L(100, 10)), 5, 2e-3, dict(opset=11)),
 'lenet5_relu_max': (lambda: lenet(nn.ReLU, nn.MaxPool2d), 3, 4e-3, dict(opset=13)),
 'lenet5_relu_avg': (lambda: lenet(nn.ReLU, nn.AvgPool2d), 3, 4e-3, dict(opset=13, dyn=1)),
 'cnn_silu_bn':     (lambda: S(C(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), C(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU(), C(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), L(32, 10)), 5, 1e-2, dict(opset=13, keepbn=1)),
 'vit_gelu':        (lambda: ViT(), 6, 2e-3, dict(opset=14)),
 'gru_rows':        (lambda: RNN('GRU', 48), 3, 6e-3, dict(opset=13)),
}
if __name__ == '__main__':
    xi, xl, ti, tl = [load(p) for p in sys.argv[1:5]]; out = sys.argv[5]; names = sys.argv[6:] or list(M)
    X = torch.from_numpy(xi).float().div(255).unsqueeze(1); Y = torch.from_numpy(xl.astype(np.int64)); T = torch.from_numpy(ti).float().div(255).unsqueeze(1); TL = torch.from_numpy(tl.astype(np.int64))
    for n in names:
        ctor, ep, lr, o = M[n]; torch.manual_seed(sum(map(ord, n))); m = ctor(); t0 = time.time(); B = 100
        sm = isinstance(m, nn.Sequential) and isinstance(m[-1], nn.Softmax)
        opt = torch.optim.Adam(m.parameters(), lr); sch = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=ep*((len(X)+B-1)//B))
        for e in range(ep):
            m.train(); p = torch.randperm(len(X))
            for i in range(0, len(X), B):
                j = p[i:i+B]; z = m(X[j]); loss = F.nll_loss(torch.log(z+1e-9), Y[j]) if sm else F.cross_entropy(z, Y[j]); opt.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(m.parameters(), 1.); opt.step(); sch.step()
        m.eval()
        with torch.no_grad(): a = (torch.cat([m(T[i:i+500]).argmax(1) for i in range(0, len(T), 500)]) == TL).float().mean().item()
        kw = dict(opset_version=o['opset'], input_names=['image'], output_names=['logits'])
        if o.get('dyn'): kw['dynamic_axes'] = {'image': {0: 'batch'}, 'logits': {0: 'batch'}}
        if o.get('keepbn'): kw.update(training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
        torch.onnx.export(m, T[:1], f'{out}/mnist_{n}.onnx', **kw)
        r = dict(model=n, params=sum(p.numel() for p in m.parameters()), epochs=ep, torch_test_accuracy=round(a, 4), seconds=round(time.time()-t0), opset=o['opset'], bytes=os.path.getsize(f'{out}/mnist_{n}.onnx'))
        print(json.dumps(r), flush=True)
