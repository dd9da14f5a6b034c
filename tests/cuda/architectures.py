# SPDX-License-Identifier: Apache-2.0
"""The seven architectures that the GPU's targets name, with few channels and layers: every kind of layer and of junction that
they have, small enough for the interpreter. Weights from seeds."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(cin, cout, k=1, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Residual(nn.Module):
    def __init__(self, body, skip=None, act=nn.Identity):
        super().__init__()
        self.body, self.skip, self.act = body, skip or nn.Identity(), act()

    def forward(self, x):
        return self.act(self.body(x) + self.skip(x))


def bottleneck(cin, width, stride=1):
    out = 4 * width
    body = nn.Sequential(conv(cin, width), conv(width, width, 3, stride), conv(width, out, act=None))
    return Residual(body, conv(cin, out, 1, stride, act=None) if stride > 1 or cin != out else None, nn.ReLU)


def head(channels, classes=10):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def resnet50():
    stem = nn.Sequential(conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(stem, bottleneck(8, 4), bottleneck(16, 4), bottleneck(16, 8, 2), head(32))


def inverted(cin, cout, expand, stride=1):
    mid, layers = cin * expand, [conv(cin, cin * expand, act=nn.ReLU6)] if expand > 1 else []
    body = nn.Sequential(*layers, conv(mid, mid, 3, stride, mid, nn.ReLU6), conv(mid, cout, act=None))
    return Residual(body) if stride == 1 and cin == cout else body


def mobilenet_v2():
    blocks = [inverted(8, 8, 1), inverted(8, 12, 6, 2), inverted(12, 12, 6)]
    return nn.Sequential(conv(3, 8, 3, 2, act=nn.ReLU6), *blocks, conv(12, 32, act=nn.ReLU6), head(32))


class UNet(nn.Module):
    def __init__(self, w=4):
        super().__init__()
        double = lambda a, b: nn.Sequential(conv(a, b, 3), conv(b, b, 3))  # noqa: E731
        self.first, self.down, self.deep = double(3, w), double(w, 2 * w), double(2 * w, 4 * w)
        self.up = nn.ModuleList([nn.ConvTranspose2d(4 * w, 2 * w, 2, 2), nn.ConvTranspose2d(2 * w, w, 2, 2)])
        self.merge = nn.ModuleList([double(4 * w, 2 * w), double(2 * w, w)])
        self.out = nn.Conv2d(w, 2, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.down(F.max_pool2d(a, 2))
        y = self.deep(F.max_pool2d(b, 2))
        for up, merge, skip in zip(self.up, self.merge, (b, a)):
            y = merge(torch.cat([skip, up(y)], 1))
        return self.out(y)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, bias=None):
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(y.transpose(1, 2).reshape(n, t, width))


class Layer(nn.Module):
    """before: norms in front (ViT, Swin) instead of behind the sums (BERT)."""

    def __init__(self, width, heads, before):
        super().__init__()
        self.before, self.attention = before, Attention(width, heads)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x, bias=None):
        one, two = self.norms
        if self.before:
            x = x + self.attention(one(x), bias)
            return x + self.mlp(two(x))
        x = one(x + self.attention(x, bias))
        return two(x + self.mlp(x))


class Bert(nn.Module):
    def __init__(self, width=32, heads=2, layers=2, pooled=False):
        super().__init__()
        self.words, self.places = nn.Embedding(50, width), nn.Embedding(32, width)
        self.norm, self.pooled = nn.LayerNorm(width), pooled
        self.layers = nn.ModuleList([Layer(width, heads, False) for _ in range(layers)])

    def forward(self, ids, mask):
        x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1])))
        bias = torch.where(mask[:, None, None, :] > 0, 0.0, torch.finfo(torch.float32).min).to(x.dtype)
        for layer in self.layers:
            x = layer(x, bias)
        if not self.pooled:
            return x
        weights = mask[:, :, None].to(x.dtype)
        return F.normalize((x * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=1)


def minilm():
    return Bert(width=24, heads=3, layers=3, pooled=True)


class ViT(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width))
        self.layers, self.norm = nn.ModuleList([Layer(width, 2, True) for _ in range(2)]), nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class Window(nn.Module):
    """A Swin block: attention in windows of 2 x 2, every other one shifted by 1, with a bias per relative position."""

    def __init__(self, width, side, shift):
        super().__init__()
        self.side, self.shift, self.layer = side, shift, Layer(width, 2, True)
        self.table = nn.Parameter(torch.randn(9, 2))
        at = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        self.register_buffer("index", ((at[:, None] - at[None] + 1) * torch.tensor([3, 1])).sum(-1))
        part = torch.zeros(side, side)
        part[-1:] += 1
        part[:, -1:] += 2
        windows = part.view(side // 2, 2, side // 2, 2).transpose(1, 2).reshape(-1, 4)
        apart = (windows[:, None] != windows[:, :, None]).float() * -100
        self.register_buffer("mask", apart if shift else torch.zeros(len(windows), 4, 4))

    def forward(self, x):
        n, s, width = x.shape[0], self.side, x.shape[-1]
        if self.shift:
            x = torch.roll(x, (-1, -1), (1, 2))
        w = x.view(n, s // 2, 2, s // 2, 2, width).transpose(2, 3).reshape(-1, 4, width)
        bias = self.table[self.index].permute(2, 0, 1)[None] + self.mask[:, None].repeat(n, 1, 1, 1)
        w = self.layer(w, bias).view(n, s // 2, s // 2, 2, 2, width).transpose(2, 3).reshape(n, s, s, width)
        return torch.roll(w, (1, 1), (1, 2)) if self.shift else w


class Swin(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        self.one = nn.Sequential(Window(width, 4, False), Window(width, 4, True))
        self.merge = nn.Sequential(nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False))
        self.two, self.last = Window(2 * width, 2, False), nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = self.one(self.norm(self.patches(x).permute(0, 2, 3, 1)))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        x = self.last(self.two(self.merge(x)))
        return self.head(x.mean((1, 2)))


IMAGES = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2, "unet": UNet, "vit_b16": ViT, "swin_t": Swin}
TEXTS = {"bert": Bert, "minilm": minilm}
NAMES = [*IMAGES, *TEXTS]


def built(name):
    """(module in eval mode, with batch norms that have seen data; make(seed) → its inputs)."""
    torch.manual_seed(0)
    module = {**IMAGES, **TEXTS}[name]()
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.1)
            m.momentum = None
    with torch.no_grad():
        module.train()(*inputs_of(name, 1, 8))
    return module.eval(), lambda seed: inputs_of(name, seed, 2)


def inputs_of(name, seed, n):
    generator = torch.Generator().manual_seed(seed)
    if name in IMAGES:
        return (torch.randn(n, 3, 16, 16, generator=generator),)
    ids, mask = torch.randint(0, 50, (n, 9), generator=generator), torch.ones(n, 9, dtype=torch.int64)
    mask[1::2, 6:] = 0
    return ids, mask
