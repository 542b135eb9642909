"""The network of guided-diffusion once more, as a function of its state_dict: what a loaded one is compared with.

Written from the paper (arXiv:2105.05233) and the names of the published tensors; it knows nothing of diffusers.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F

FFHQ = {"width": 128, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 1, "attention": (16,)}
IMAGENET = {"width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (8, 16, 32)}


def shapes(
    width, multipliers, blocks, attention, classes=None, outputs=6, channels=3, updown=True, scale_shift=True
):
    """Names and shapes of all tensors; ``attention`` holds the downsampling factors at which there is some."""
    found = {}

    def layer(name, out, *rest):
        found[f"{name}.weight"], found[f"{name}.bias"] = (out, *rest), (out,)

    def residual(name, ins, outs):
        layer(f"{name}.in_layers.0", ins)
        layer(f"{name}.in_layers.2", outs, ins, 3, 3)
        layer(f"{name}.emb_layers.1", outs * (2 if scale_shift else 1), 4 * width)
        layer(f"{name}.out_layers.0", outs)
        layer(f"{name}.out_layers.3", outs, outs, 3, 3)
        if ins != outs:
            layer(f"{name}.skip_connection", outs, ins, 1, 1)

    def attend(name, n):
        layer(f"{name}.norm", n)
        layer(f"{name}.qkv", 3 * n, n, 1)
        layer(f"{name}.proj_out", n, n, 1)

    layer("time_embed.0", 4 * width, width)
    layer("time_embed.2", 4 * width, 4 * width)
    if classes:
        found["label_emb.weight"] = (classes, 4 * width)
    layer("input_blocks.0.0", width, channels, 3, 3)
    now, kept, number = width, [width], itertools.count(1)
    for level, m in enumerate(multipliers):
        for _ in range(blocks):
            i = next(number)
            residual(f"input_blocks.{i}.0", now, m * width)
            now = m * width
            if 2**level in attention:
                attend(f"input_blocks.{i}.1", now)
            kept.append(now)
        if level < len(multipliers) - 1:
            i = next(number)
            if updown:
                residual(f"input_blocks.{i}.0", now, now)
            else:
                layer(f"input_blocks.{i}.0.op", now, now, 3, 3)
            kept.append(now)
    residual("middle_block.0", now, now)
    attend("middle_block.1", now)
    residual("middle_block.2", now, now)
    number = itertools.count(0)
    for level, m in reversed(list(enumerate(multipliers))):
        for j in range(blocks + 1):
            i = next(number)
            residual(f"output_blocks.{i}.0", now + kept.pop(), m * width)
            now, child = m * width, 1
            if 2**level in attention:
                attend(f"output_blocks.{i}.1", now)
                child = 2
            if level and j == blocks:
                if updown:
                    residual(f"output_blocks.{i}.{child}", now, now)
                else:
                    layer(f"output_blocks.{i}.{child}.conv", now, now, 3, 3)
    layer("out.0", now)
    layer("out.2", outputs, now, 3, 3)
    return found


def random_state(seed=0, **options):
    """Weights of such a size that every layer matters."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(**options).items():
        fan = math.prod(shape[1:]) or 1
        values = torch.randn(shape, generator=generator)
        state[name] = values / math.sqrt(fan) if len(shape) > 1 else 0.2 * values
        if name.endswith(("layers.0.weight", "norm.weight", "out.0.weight")):
            state[name] += 1
    return state


def forward(state, x, t, y=None, *, heads=None, legacy=True):
    """The network's output for ``x`` ``(B, C, H, W)`` at step numbers ``t`` ``(B,)`` with labels ``y``."""

    def linear(name, v):
        return F.linear(v, state[f"{name}.weight"], state[f"{name}.bias"])

    def conv(name, v, **options):
        weight = state[f"{name}.weight"]
        return F.conv2d(v, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2, **options)

    def norm(name, v):
        return F.group_norm(v, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    def residual(name, v, resample=lambda v: v):
        h = conv(f"{name}.in_layers.2", resample(F.silu(norm(f"{name}.in_layers.0", v))))
        v = resample(v)
        e = linear(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
        if e.shape[1] == h.shape[1]:
            h = norm(f"{name}.out_layers.0", h + e)
        else:
            scale, shift = e.chunk(2, dim=1)
            h = norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        h = conv(f"{name}.out_layers.3", F.silu(h))
        return h + (conv(f"{name}.skip_connection", v) if f"{name}.skip_connection.weight" in state else v)

    def attend(name, v):
        b, c = v.shape[:2]
        n = heads or c // 64
        weight, bias = state[f"{name}.qkv.weight"][:, :, 0], state[f"{name}.qkv.bias"]
        qkv = torch.einsum("oc,bcp->bop", weight, norm(f"{name}.norm", v).flatten(2)) + bias[:, None]
        if legacy:
            q, k, val = qkv.reshape(b, n, 3, c // n, -1).unbind(2)
        else:
            q, k, val = qkv.reshape(b, 3, n, c // n, -1).unbind(1)
        scores = torch.einsum("bncs,bnct->bnst", q, k) / math.sqrt(c // n)
        mixed = torch.einsum("bnst,bnct->bncs", scores.softmax(-1), val).reshape(b, c, -1)
        out = torch.einsum("oc,bcp->bop", state[f"{name}.proj_out.weight"][:, :, 0], mixed)
        return v + (out + state[f"{name}.proj_out.bias"][:, None]).reshape(v.shape)

    def block(prefix, v, last):
        for child in range(3):
            name = f"{prefix}.{child}"
            if f"{name}.qkv.weight" in state:
                v = attend(name, v)
            elif f"{name}.op.weight" in state:
                v = conv(f"{name}.op", v, stride=2)
            elif f"{name}.conv.weight" in state:
                v = conv(f"{name}.conv", F.interpolate(v, scale_factor=2))
            elif f"{name}.in_layers.0.weight" in state:
                v = residual(name, v, last if child or last is halve else lambda v: v)
        return v

    def halve(v):
        return F.avg_pool2d(v, 2)

    def double(v):
        return F.interpolate(v, scale_factor=2)

    width = state["time_embed.0.weight"].shape[1]
    frequencies = torch.exp(
        -math.log(10000) * torch.arange(width // 2) / (width // 2)
    )  # float32, as it was trained
    angles = t[:, None].float() * frequencies
    emb = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
    emb = linear("time_embed.2", F.silu(linear("time_embed.0", emb)))
    if y is not None:
        emb = emb + state["label_emb.weight"][y]
    count = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("input_blocks"))
    levels = 1 + sum(
        f"output_blocks.{i}.{c}.{n}.weight" in state
        for i in range(count)
        for c in (1, 2)
        for n in ("in_layers.2", "conv")
    )
    each = count // levels
    h, kept = conv("input_blocks.0.0", x), []
    kept.append(h)
    for i in range(1, count):
        halves = i % each == 0 and f"input_blocks.{i}.0.in_layers.0.weight" in state
        h = block(f"input_blocks.{i}", h, halve if halves else None)
        kept.append(h)
    h = residual("middle_block.2", attend("middle_block.1", residual("middle_block.0", h)))
    for i in range(count):
        h = block(f"output_blocks.{i}", torch.cat([h, kept.pop()], dim=1), double)
    return conv("out.2", F.silu(norm("out.0", h)))
