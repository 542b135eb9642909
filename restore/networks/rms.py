"""The U-Net of denoising-diffusion-pytorch (version 2), tensor by tensor.

It differs from a ``UNet2DModel`` in what no configuration of that can express: each pixel is divided by its
root mean square over the channels, every level has attention, linear but for the innermost (*Efficient Attention:
Attention with Linear Complexities*, 2018, arXiv:1812.01243), and attention has learned keys and values beside those
of the picture. The names of its tensors are those of the trainer's files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSUNet(nn.Module):
    """The network that ``denoising_diffusion_pytorch.Unet`` is.

    Args:
        dim: Features of the time's sinusoids.
        widths: Channels after the first convolution, then of each level, from fine to coarse: one more than levels.
        attention: For each level: ``full`` (or linear), ``heads``, ``width`` of a head, ``memory`` (learned keys).
        channels: Channels of a picture.

    Example:
        >>> import torch
        >>> level = {"full": False, "heads": 2, "width": 4, "memory": 4}
        >>> network = RMSUNet(8, (8, 8, 16), [level, {**level, "full": True}])
        >>> network(torch.randn(1, 3, 16, 12), torch.tensor([10.0])).shape
        torch.Size([1, 3, 16, 12])
    """

    def __init__(
        self, dim: int, widths: Sequence[int], attention: Sequence[dict[str, Any]], channels: int = 3
    ) -> None:
        super().__init__()
        if len(widths) != len(attention) + 1:
            raise ValueError(
                f"{len(widths)} widths need {len(widths) - 1} levels of attention, not {len(attention)}"
            )
        self.config = {
            "dim": dim,
            "widths": list(widths),
            "attention": [dict(a) for a in attention],
            "channels": channels,
        }
        self.channels, self.multiple = channels, 2 ** (len(attention) - 1)
        time = 4 * dim
        self.init_conv = nn.Conv2d(channels, widths[0], 7, padding=3)
        self.time_mlp = nn.Sequential(Sinusoids(dim), nn.Linear(dim, time), nn.GELU(), nn.Linear(time, time))
        levels = list(zip(widths[:-1], widths[1:], attention, strict=True))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, (fine, coarse, kind) in enumerate(levels):
            last = i == len(levels) - 1
            # Squares of 2 x 2 pixels become channels, which a convolution of single pixels mixes.
            down = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * fine, coarse, 1))
            self.downs.append(
                nn.ModuleList(
                    [
                        Residual(fine, fine, time),
                        Residual(fine, fine, time),
                        Attention(fine, **kind),
                        nn.Conv2d(fine, coarse, 3, padding=1) if last else down,
                    ]
                )
            )
        inner = {**attention[-1], "full": True}
        self.mid_block1 = Residual(widths[-1], widths[-1], time)
        self.mid_attn = Attention(widths[-1], **inner)
        self.mid_block2 = Residual(widths[-1], widths[-1], time)
        for i, (fine, coarse, kind) in reversed(list(enumerate(levels))):
            up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1))
            self.ups.append(
                nn.ModuleList(
                    [
                        Residual(coarse + fine, coarse, time),
                        Residual(coarse + fine, coarse, time),
                        Attention(coarse, **kind),
                        up if i else nn.Conv2d(coarse, fine, 3, padding=1),
                    ]
                )
            )
        self.final_res_block = Residual(2 * widths[0], widths[0], time)
        self.final_conv = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """The network's output, e.g. the noise.

        Args:
            x: ``(B, C, H, W)``, with sides that are multiples of ``multiple``.
            step: Step numbers ``(B,)``.
        """
        x = first = self.init_conv(x)
        # The sines are of step numbers, which need float32; the weights may be of another type.
        t = self.time_mlp[1:](self.time_mlp[0](step).to(x.dtype))
        kept = []
        for level in self.downs:
            block1, block2, attention, down = cast(nn.ModuleList, level)
            x = block1(x, t)
            kept.append(x)
            x = block2(x, t)
            x = attention(x) + x
            kept.append(x)
            x = down(x)
        x = self.mid_block1(x, t)
        x = self.mid_attn(x) + x
        x = self.mid_block2(x, t)
        for level in self.ups:
            block1, block2, attention, up = cast(nn.ModuleList, level)
            x = block1(torch.cat([x, kept.pop()], 1), t)
            x = block2(torch.cat([x, kept.pop()], 1), t)
            x = up(attention(x) + x)
        out: Tensor = self.final_conv(self.final_res_block(torch.cat([x, first], 1), t))
        return out


class Sinusoids(nn.Module):
    """Sines, then cosines, of a step number at ``dim / 2`` frequencies from 1 down to 1/10000."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frequencies = dim // 2

    def forward(self, step: Tensor) -> Tensor:
        """``(B,)`` to ``(B, dim)``."""
        exponents = torch.arange(self.frequencies, device=step.device) * -(
            math.log(10000) / (self.frequencies - 1)
        )
        angles = step[:, None] * exponents.exp()
        return torch.cat([angles.sin(), angles.cos()], 1)


class RMSNorm(nn.Module):
    """Divides every pixel by its root mean square over the channels; a learned scale per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return F.normalize(x, dim=1) * self.g * x.shape[1] ** 0.5


class Block(nn.Module):
    """Convolution, normalisation, and the time's scale and shift if given."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm = RMSNorm(out_channels)

    def forward(self, x: Tensor, scale_shift: Tensor | None = None) -> Tensor:
        """``x`` is ``(B, C, H, W)``, ``scale_shift`` ``(B, 2 C)``."""
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift[..., None, None].chunk(2, 1)
            x = x * (scale + 1) + shift
        return F.silu(x)


class Residual(nn.Module):
    """Two blocks, of which the first is told the time, beside a shortcut."""

    def __init__(self, channels: int, out_channels: int, time: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * out_channels))
        self.block1, self.block2 = Block(channels, out_channels), Block(out_channels, out_channels)
        same = channels == out_channels
        self.res_conv = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """``x`` is ``(B, C, H, W)``, ``t`` the time's features."""
        shortcut: Tensor = self.res_conv(x)
        return self.block2(self.block1(x, self.mlp(t))) + shortcut


class Attention(nn.Module):
    """Attention of all pixels on all, or its linear form, with learned keys and values beside the picture's."""

    def __init__(self, channels: int, full: bool, heads: int, width: int, memory: int) -> None:
        super().__init__()
        self.full, self.heads = full, heads
        inside = heads * width
        self.norm = RMSNorm(channels)
        shape = (memory, width) if full else (width, memory)
        self.mem_kv = nn.Parameter(torch.randn(2, heads, *shape))
        self.to_qkv = nn.Conv2d(channels, 3 * inside, 1, bias=False)
        out = nn.Conv2d(inside, channels, 1)
        self.to_out = out if full else nn.Sequential(out, RMSNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        # (B, 3 heads width, H, W) to three of (B, heads, width, H W).
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)
        memory = self.mem_kv.mT if self.full else self.mem_kv
        k, v = (
            torch.cat([m.expand(len(x), -1, -1, -1), part], -1)
            for m, part in zip(memory, (k, v), strict=True)
        )
        if self.full:
            out = F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
        else:
            # Softmax of q over its features and of k over the pixels: then k and v can be multiplied first.
            context = k.softmax(-1) @ v.mT
            out = context.mT @ (q.softmax(-2) * q.shape[-2] ** -0.5)
        result: Tensor = self.to_out(out.flatten(1, 2).unflatten(2, x.shape[-2:]))
        return result
