"""The denoising networks, built from diffusers' models.

:func:`photo_unet` builds the network of a prior for photographs: diffusers' ``UNet2DModel`` between a
folding of 2 x 2 pixels into channels and its inverse, with a normalisation that looks at one pixel at a time, and
attention at the coarsest level.

Two choices make such a small network good for pictures of any size:

* Folding quarters the number of positions that every layer works on, and costs no information.
* Group normalisation averages over the whole picture, so that what was learned on small crops changes on
  large pictures. Normalising each pixel over its channels (as ConvNeXt, arXiv:2201.03545, and NAFNet,
  arXiv:2204.04676, do) makes convolutions the same function everywhere, whatever the size of the picture.

Attention without positions, at the coarsest level alone, tells every place of the picture's other places. It takes any
size, too, and costs little there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelNorm(nn.Module):
    """Normalises every pixel over its channels, with a learned scale and shift per channel.

    Args:
        channels: Number of channels.
        eps: Added to the variance.

    Example:
        >>> import torch
        >>> y = PixelNorm(8)(torch.randn(2, 8, 5, 3))
        >>> bool(y.mean(1).abs().max() < 1e-5)
        True
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``, or ``(B, C, N)`` in attention, to the same shape."""
        # In channels_last memory this permutation is free and the normalised axis is contiguous.
        y = F.layer_norm(x.movedim(1, -1), (x.shape[1],), self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)


class PreciseAttention:
    """Self-attention as a processor of diffusers, computed in the precision of its weights also under autocast.

    What is attended to is decided by exponentials of products, the logits. bfloat16 has less than three digits: logits
    of some hundreds are wrong by several units, and gradients are others. At the coarsest level, full precision costs
    next to nothing.

    It is for the attention in blocks of ``UNet2DModel``: each place sees all others, and is added to what it saw.

    The weights of attention are kept for the gradient. torch's fused attention computes them again, from logarithms of
    sums that are rounded where logits are large: at 1e7 gradients were wrong by factors of 1e5 in float32, then
    infinite (torch 2.14, CPU).
    """

    def __call__(
        self,
        attention: Any,
        x: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Places ``(B, C, H, W)`` with what they have seen of one another, in the type of ``x``; the rest is unused."""
        kind = x.device.type
        autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if autocast else nullcontext():
            before = x.to(attention.to_q.weight.dtype)
            tokens = before.flatten(2)
            # Between the halves of a UNet2DModel whose time scales and shifts, there is none.
            if attention.group_norm is not None:
                tokens = attention.group_norm(tokens)
            tokens = tokens.transpose(1, 2)
            query, key, value = (
                attention.head_to_batch_dim(layer(tokens))
                for layer in (attention.to_q, attention.to_k, attention.to_v)
            )
            if attention.norm_q is not None:
                query, key = attention.norm_q(query), attention.norm_k(key)
            seen = attention.batch_to_head_dim(attention.get_attention_scores(query, key) @ value)
            seen = attention.to_out[0](seen).transpose(1, 2).unflatten(2, x.shape[-2:])
            out: Tensor = (before + seen) / attention.rescale_output_factor
        return out.to(x.dtype)


class FoldedUNet(nn.Module):
    """A U-Net that works on 2 x 2 pixels folded into channels.

    Args:
        config: Arguments of diffusers' ``UNet2DModel``, for the folded picture (``in_channels`` is
            ``fold**2`` times the picture's).
        fold: Side of the squares that are folded; 1 folds nothing.
        norm: ``"pixel"`` replaces every group normalisation by :class:`PixelNorm`; ``"group"`` keeps them.
        heads: How many heads every attention has, whatever its width (a ``UNet2DModel`` has heads of one width).
        qk_norm: Divide the queries and keys of every head by their root mean square, and give every channel a learned
            scale (as *Scaling Vision Transformers to 22 Billion Parameters*, 2023, arXiv:2302.05442, does, where their
            mean is subtracted, too). Without it they may grow until a place sees one other alone, and what it sees can
            no longer be learned. For ``"pixel"``.

    Raises:
        ValueError: If the kind of normalisation is not known, or queries and keys are to be normalised beside groups.

    Example:
        >>> import torch
        >>> network = photo_unet(channels=(16, 16), layers=1)
        >>> network(torch.randn(1, 3, 16, 24), torch.tensor([10.0])).shape
        torch.Size([1, 3, 16, 24])
    """

    def __init__(
        self,
        config: dict[str, Any],
        fold: int = 2,
        norm: str = "pixel",
        heads: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        # Seconds to import: only when a network is built.
        from diffusers import UNet2DModel
        from diffusers.models.attention_processor import Attention

        if norm not in ("pixel", "group"):
            raise ValueError(f"norm must be 'pixel' or 'group', not {norm!r}")
        if qk_norm and norm != "pixel":
            raise ValueError("qk_norm is for networks that normalise pixels: norm='pixel'")
        self.config: dict[str, Any] = {"config": dict(config), "fold": fold, "norm": norm}
        self.fold = fold
        self.unet = cast(Any, UNet2DModel(**config))
        attentions: list[Any] = [module for module in self.unet.modules() if isinstance(module, Attention)]
        if norm == "pixel":
            _replace_group_norms(self.unet)
            # Networks of others have more attention, and keep their fused one.
            for attention in attentions:
                attention.set_processor(PreciseAttention())
        if heads is not None:
            self.config["heads"] = heads
            # The number of heads is how its matrices are cut, not what they are.
            for attention in attentions:
                attention.heads, attention.scale = heads, (attention.inner_dim // heads) ** -0.5
        if qk_norm:
            self.config["qk_norm"] = True
            for attention in attentions:
                width = attention.inner_dim // attention.heads
                attention.norm_q, attention.norm_k = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)

    @property
    def channels(self) -> int:
        """Channels of the picture."""
        return int(self.unet.config.in_channels) // self.fold**2

    @property
    def outputs(self) -> int:
        """Channels of what it returns."""
        return int(self.unet.config.out_channels) // self.fold**2

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this."""
        return int(self.fold * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def sample_size(self) -> int | tuple[int, ...] | None:
        """Height and width of the pictures it was trained on, where its configuration tells."""
        size = self.unet.config.sample_size
        if size is None:
            return None
        return size * self.fold if isinstance(size, int) else tuple(n * self.fold for n in size)

    def forward(self, x: Tensor, step: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The network's output, e.g. the noise.

        Args:
            x: ``(B, C, H, W)``.
            step: Step numbers ``(B,)``.
            class_labels: Integer labels ``(B,)`` for a class-conditional network.
        """
        folded = F.pixel_unshuffle(x, self.fold)
        out = self.unet(folded, step, class_labels=class_labels, return_dict=False)[0]
        return F.pixel_shuffle(out, self.fold)


def photo_unet(
    channels: tuple[int, ...] = (64, 96, 128, 160),
    layers: int = 1,
    image_channels: int = 3,
    fold: int = 2,
    attention: bool | None = None,
    out_channels: int | None = None,
    qk_norm: bool | None = None,
) -> FoldedUNet:
    """The network for photographs, which takes any size.

    It is that of the prior in the package, but that queries and keys are normalised, which they are not there.

    Args:
        channels: Width of each level, from fine to coarse; multiples of 8.
        layers: Residual blocks a level (one more on the way up).
        image_channels: 3 for colour, 1 for grey pictures.
        fold: Side of the squares of pixels folded into channels.
        attention: Whether the places of the coarsest level attend to one another. By default they do where that level
            has a sixteenth of the picture's side or less: with more places it would cost more than all else. It
            is told no positions, and changes nothing at first: its output begins at 0.
        out_channels: Channels of what it returns; those of the picture by default.
        qk_norm: Whether queries and keys are normalised, see :class:`FoldedUNet`; by default, where there is attention.

    Example:
        >>> sum(p.numel() for p in photo_unet().parameters()) / 1e6 < 7.2
        True
    """
    folded, coarser = image_channels * fold**2, len(channels) - 1
    attention = fold * 2**coarser >= 16 if attention is None else attention
    config = {
        "in_channels": folded,
        "out_channels": (out_channels or image_channels) * fold**2,
        "block_out_channels": list(channels),
        "layers_per_block": layers,
        "down_block_types": ["DownBlock2D"] * coarser + ["AttnDownBlock2D" if attention else "DownBlock2D"],
        "up_block_types": ["AttnUpBlock2D" if attention else "UpBlock2D"] + ["UpBlock2D"] * coarser,
        "add_attention": attention,
        "attention_head_dim": min(32, channels[-1]),
        "norm_num_groups": 8,
        # The time scales and shifts the features after their normalisation. Added before it, as is
        # UNet2DModel's default, a normalisation over groups of one channel would cancel it silently.
        "resnet_time_scale_shift": "scale_shift",
    }
    network = FoldedUNet(config, fold=fold, norm="pixel", qk_norm=attention if qk_norm is None else qk_norm)
    for module in network.unet.modules():
        if hasattr(module, "to_q"):
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)
    return network


def colour_unet(channels: tuple[int, ...] = (48, 64, 96), layers: int = 1, fold: int = 2) -> FoldedUNet:
    """The network of a :class:`restore.colours.ColourPrior`: from a luma and a noisy chroma to a chroma.

    That of the one in the package is larger: it was made of a :func:`photo_unet`, by
    :func:`restore.colours.colour_network`.

    Args:
        channels: As of :func:`photo_unet`.
        layers: The same.
        fold: The same. Of squares of 4 x 4 pixels, colours came out coarser than with pictures of half the size.

    Example:
        >>> import torch
        >>> colour_unet((16, 16))(torch.randn(1, 3, 16, 24), torch.tensor([10.0])).shape
        torch.Size([1, 2, 16, 24])
    """
    return photo_unet(channels, layers, fold=fold, out_channels=2)


def with_scales(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights for a network whose queries and keys are normalised, where they lack the scales of those: 1 each.

    Args:
        weights: Of a network that is the same, normalised or not.
        network: The network they are for.

    Example:
        >>> old = photo_unet((8, 8), attention=True, qk_norm=False)
        >>> new = photo_unet((8, 8), attention=True)
        >>> new.load_state_dict(with_scales(old.state_dict(), new))
        <All keys matched successfully>
    """
    scales = (".norm_q.weight", ".norm_k.weight")
    return {k: torch.ones_like(v) for k, v in network.state_dict().items() if k.endswith(scales)} | dict(
        weights
    )


def set_dropout(network: nn.Module, share: float) -> None:
    """Leaves out a share of the features of every residual block of diffusers, while the network is trained.

    Args:
        network: A network of ``photo_unet``, ``colour_unet`` or diffusers.
        share: In [0, 1).

    Raises:
        TypeError: If the network has no such blocks.

    Example:
        >>> network = photo_unet((8, 8))
        >>> set_dropout(network, 0.1)
        >>> network.unet.mid_block.resnets[0].dropout
        Dropout(p=0.1, inplace=False)
    """
    blocks = [module for module in network.modules() if type(module).__name__ == "ResnetBlock2D"]
    if not blocks:
        raise TypeError(
            f"a {type(network).__name__} has no residual blocks of diffusers: train it without dropout"
        )
    for block in blocks:
        block.dropout = nn.Dropout(share)


def _replace_group_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, PixelNorm(child.num_channels, child.eps))
        else:
            _replace_group_norms(child)
