"""Times of rollouts of a predictor with the sizes of the demo's Two Rooms model, as JSON: python3 rollouts.py SAMPLES HORIZON ROUNDS.

Random weights, one thread, history of one frame. Attention over one token is its value, which both sides compute as such."""

import json
import sys
import time

import torch
from torch import nn

WIDTH, ACTION, CHANNELS, LAYERS, HEADS, HEAD, MLP, PROJECTOR = 32, 2, 10, 3, 4, 16, 256, 256


class Block(nn.Module):
    """AdaLN-zero: attention and a perceptron, shifted, scaled and gated by the action."""

    def __init__(self):
        super().__init__()
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.inner = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * HEAD, bias=False)
        self.out = nn.Linear(HEADS * HEAD, WIDTH)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, MLP), nn.GELU(), nn.Linear(MLP, WIDTH))

    def forward(self, x, condition):
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(condition).chunk(6, -1)
        y = self.inner(self.norms[0](x) * (1 + scale) + shift)
        q, k, v = (part.view(len(x), -1, HEADS, HEAD).transpose(1, 2) for part in self.qkv(y).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), -1, HEADS * HEAD)
        x = x + gate * self.out(y)
        return x + gate2 * self.mlp(self.norms[1](x) * (1 + scale2) + shift2)


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.action = nn.Sequential(nn.Linear(ACTION, CHANNELS), nn.Linear(CHANNELS, 4 * WIDTH), nn.SiLU(), nn.Linear(4 * WIDTH, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.project = nn.Sequential(nn.Linear(WIDTH, PROJECTOR), nn.BatchNorm1d(PROJECTOR), nn.GELU(), nn.Linear(PROJECTOR, WIDTH))

    def forward(self, x, action):
        condition = self.action(action)
        for block in self.blocks:
            x = block(x, condition)
        return self.project(self.norm(x)[:, -1]).unsqueeze(1)


def main():
    samples, horizon, rounds = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    model = Predictor().eval()
    start, actions = torch.randn(1, 1, WIDTH), torch.randn(samples, horizon, 1, ACTION)
    times = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            x, seen = start.expand(samples, -1, -1), []
            for step in range(horizon):
                x = model(x, actions[:, step])
                seen.append(x)
            torch.cat(seen, 1).numpy()
            times.append(1e3 * (time.perf_counter() - begin))
    print(json.dumps(times[1:]))


main()
