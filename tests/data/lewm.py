"""Writes lewm.safetensors and lewm.json: a small LeWorldModel and its numbers. Needs torch, transformers and safetensors."""

import json
import torch
from torch import nn
from torch.nn import functional as F
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

D, ACTION, CHANNELS, HISTORY, HEADS, HEAD_DIM, MLP, HIDDEN, LAYERS = 12, 3, 5, 3, 3, 6, 20, 14, 2
torch.manual_seed(7)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        inner = HEADS * HEAD_DIM
        self.norm, self.to_qkv, self.to_out = nn.LayerNorm(D), nn.Linear(D, 3 * inner, bias=False), nn.Sequential(nn.Linear(inner, D))

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2) for t in self.to_qkv(self.norm(x)).chunk(3, -1))
        return self.to_out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        nothing = nn.Identity
        self.net = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, MLP), nn.GELU(), nothing(), nn.Linear(MLP, D))

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp, self.adaLN_modulation = Attention(), Mlp(), nn.Sequential(nn.SiLU(), nn.Linear(D, 6 * D))

    def forward(self, x, c):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, -1)
        plain = lambda x: F.layer_norm(x, (D,), eps=1e-6)
        x = x + gate_a * self.attn(plain(x) * (1 + scale_a) + shift_a)
        return x + gate_m * self.mlp(plain(x) * (1 + scale_m) + shift_m)


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, HISTORY, D))
        self.transformer = nn.Module()
        self.transformer.layers, self.transformer.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(D)

    def forward(self, x, c):
        x = x + self.pos_embedding[:, : x.shape[1]]
        for block in self.transformer.layers:
            x = block(x, c)
        return self.transformer.norm(x)


class Actions(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv1d(ACTION, CHANNELS, 1)
        self.embed = nn.Sequential(nn.Linear(CHANNELS, 4 * D), nn.SiLU(), nn.Linear(4 * D, D))

    def forward(self, a):
        return self.embed(self.patch_embed(a.transpose(1, 2)).transpose(1, 2))


class Projector(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(D, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.GELU(), nn.Linear(HIDDEN, D))

    def forward(self, x):
        return self.net(x)


class LeWm(nn.Module):
    def __init__(self):
        super().__init__()
        config = ViTConfig(hidden_size=D, num_hidden_layers=2, num_attention_heads=3, intermediate_size=4 * D, image_size=12, patch_size=4,
                           attn_implementation="eager")
        self.encoder = ViTModel(config, add_pooling_layer=False)
        self.projector, self.pred_proj, self.action_encoder, self.predictor = Projector(), Projector(), Actions(), Predictor()

    def cls(self, pixels):
        return self.encoder(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]

    def rollout(self, embeddings, past, candidates):
        n, horizon, _ = candidates.shape
        actions = self.action_encoder(torch.cat([past.expand(n, -1, -1), candidates], 1))
        seen = embeddings.expand(n, -1, -1)
        for _ in range(horizon):
            end = seen.shape[1]
            start = max(0, end - HISTORY)
            predicted = self.predictor(seen[:, start:end], actions[:, start:end])[:, -1]
            seen = torch.cat([seen, self.pred_proj(predicted)[:, None]], 1)
        return seen[:, -horizon:]


model = LeWm().eval()
with torch.no_grad():
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.dtype == torch.float32:
            tensor.copy_((torch.randn_like(tensor) * 0.35 + (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)) * 64).round_().div_(64)
    model = model.double()
    grid = lambda *shape: torch.randint(-64, 65, shape).double() / 32
    frames, larger = grid(4, 3, 12, 12), grid(2, 3, 8, 20)
    past, candidates = grid(1, 4, ACTION), grid(5, 4, ACTION)
    embeddings = model.projector(model.cls(frames))
    result = {"frames": frames, "larger": larger, "class_tokens": model.cls(frames), "class_tokens_larger": model.cls(larger),
              "embeddings": embeddings, "candidates": candidates, "past": past[0, :3]}
    for context in (1, 3):
        rolled = model.rollout(embeddings[None, :context], past[:, : context - 1], candidates)
        goal = embeddings[3]
        result[f"rollout_{context}"] = rolled
        result[f"costs_{context}"] = ((rolled[:, -1] - goal) ** 2).sum(-1)
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()}
save_file(state, "tests/data/lewm.safetensors")
json.dump({k: {"shape": list(v.shape), "data": [round(x, 7) for x in v.flatten().tolist()]} for k, v in result.items()}, open("tests/data/lewm.json", "w"))
