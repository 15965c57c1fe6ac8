"""The native side of the bench: the encoder and the training step of www/bench in PyTorch on the CPU, f32, eager.

Requests and answers come and go by stdin and stdout, each after its length (u32, little-endian). A request is a safetensors file of f32 values with a
"request" in its metadata; an answer is JSON, padded to 4 bytes after its own length, and f32 values."""

import json
import struct
import sys
import time

import torch
from torch.nn import functional as F


def tensors(body):
    """The tensors of a safetensors file, and its request."""
    (length,) = struct.unpack_from("<Q", body)
    header = json.loads(body[8 : 8 + length])
    request = json.loads(header.pop("__metadata__")["request"])
    found = {}
    for name, info in header.items():
        begin, end = (8 + length + offset for offset in info["data_offsets"])
        found[name] = torch.frombuffer(bytearray(body[begin:end]), dtype=torch.float32).reshape(info["shape"])
    return found, request


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def norm(w, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def blocks(w, name, layers, heads, eps, x):
    for i in range(layers):
        at = f"{name}.{i}"
        y = linear(w, f"{at}.attn.qkv", norm(w, f"{at}.norm1", x, eps))
        sequences, length, width = y.shape
        q, k, v = y.view(sequences, length, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + linear(w, f"{at}.attn.proj", y)
        y = F.gelu(linear(w, f"{at}.mlp.fc1", norm(w, f"{at}.norm2", x, eps)))
        x = x + linear(w, f"{at}.mlp.fc2", y)
    return x


def patches(x, size):
    """[B, 3, H, W] to [B, N, 3 · size²]."""
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // size, size, width // size, size)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size * size)


class Encoder:
    """Weights under Hugging Face's names."""

    def __init__(self, theirs, geometry):
        names = {"layernorm_before": "norm1", "attention.output.dense": "attn.proj", "layernorm_after": "norm2", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2"}
        self.geometry = geometry
        self.w = {}
        for name, tensor in theirs.items():
            for old, new in names.items():
                if f".{old}." in name:
                    name = name.replace(old, new)
                    break
            self.w[name] = tensor
        for i in range(geometry["layers"]):
            at = f"encoder.layer.{i}.attention.attention"
            for kind in ("weight", "bias"):
                self.w[f"encoder.layer.{i}.attn.qkv.{kind}"] = torch.cat([self.w.pop(f"{at}.{part}.{kind}") for part in ("query", "key", "value")])

    @torch.inference_mode()
    def run(self, given):
        g, w = self.geometry, self.w
        name = "embeddings.patch_embeddings.projection"
        weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
        convolve = F.conv3d if g["frames"] > 1 else F.conv2d
        x = convolve(given["pixels"], weight, bias, stride=weight.shape[2:]).flatten(2).transpose(1, 2)
        x = blocks(w, "encoder.layer", g["layers"], g["heads"], g["eps"], x + w["embeddings.position_embeddings"])
        return norm(w, "layernorm", x, g["eps"])


class Training:
    def __init__(self, weights, task):
        self.task = task
        self.tables = {name: weights.pop(name)[0] for name in list(weights) if name.endswith("pos_embed")}
        self.target = {name.removeprefix("target_"): tensor for name, tensor in weights.items() if name.startswith("target_")}
        self.w = {name: tensor.requires_grad_() for name, tensor in weights.items() if not name.startswith("target_")}
        decays = [len(tensor.shape) > 1 and "bias" not in name for name, tensor in self.w.items()]
        o = task["optimizer"]
        groups = [
            {"params": [tensor for tensor, decay in zip(self.w.values(), decays) if decay == which], "weight_decay": o["weightDecay"] if which else 0.0}
            for which in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"], fused=True)

    def encode(self, w, x, positions):
        t = self.task
        x = F.linear(x, w["encoder.patch_embed.proj.weight"].flatten(1), w["encoder.patch_embed.proj.bias"]) + positions
        x = blocks(w, "encoder.blocks", t["encoder"]["layers"], t["encoder"]["heads"], t["eps"], x)
        return norm(w, "encoder.norm", x, t["eps"])

    def predict(self, context, context_positions, target_positions):
        t, w = self.task, self.w
        known = linear(w, "predictor.predictor_embed", context) + context_positions
        queries = w["predictor.mask_token"] + target_positions
        x = torch.cat([known.repeat(t["targets"], 1, 1), queries], 1)
        x = blocks(w, "predictor.predictor_blocks", t["predictor"]["layers"], t["predictor"]["heads"], t["eps"], x)
        x = norm(w, "predictor.predictor_norm", x[:, t["contextLength"] :], t["eps"])
        return linear(w, "predictor.predictor_proj", x)

    def run(self, given):
        t = self.task
        x = patches(given["pixels"], t["patchSize"])
        context, targets = given["context"].long(), given["targets"].long()
        positions, narrow = self.tables["encoder.pos_embed"], self.tables["predictor.predictor_pos_embed"]
        with torch.no_grad():
            goal = self.encode(self.target, x, positions)
            goal = F.layer_norm(goal, goal.shape[-1:], eps=t["targetEps"])
            pictures = torch.arange(len(targets)) % t["batch"]
            goal = goal[pictures[:, None], targets]
            seen = x[torch.arange(t["batch"])[:, None], context]
        predicted = self.predict(self.encode(self.w, seen, positions[context]), narrow[context], narrow[targets])
        loss = F.smooth_l1_loss(predicted, goal)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            online = [self.w[name] for name in self.target]
            torch._foreach_mul_(list(self.target.values()), t["momentum"])
            torch._foreach_add_(list(self.target.values()), online, alpha=1 - t["momentum"])
        return loss.detach()


def answers():
    side = None
    while len(head := sys.stdin.buffer.read(4)) == 4:
        given, request = tensors(sys.stdin.buffer.read(struct.unpack("<I", head)[0]))
        values = torch.zeros(0)
        told = {}
        try:
            if "threads" in request:
                torch.set_num_threads(request["threads"])
                side = (Training if "optimizer" in request["of"] else Encoder)(given, request["of"])
                told["version"] = torch.__version__.split("+")[0]
            else:
                start = time.perf_counter()
                values = side.run(given)
                told["ms"] = 1e3 * (time.perf_counter() - start)
        except Exception as error:
            told["error"] = f"{type(error).__name__}: {error}"
        text = json.dumps(told).encode()
        text += b" " * (-len(text) % 4)
        yield struct.pack("<I", len(text)) + text + values.contiguous().numpy().tobytes()


for answer in answers():
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
