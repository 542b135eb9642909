"""State dicts of guided-diffusion (ADM), as a ``UNet2DModel`` that computes the same function.

*Diffusion Models Beat GANs on Image Synthesis*, 2021, arXiv:2105.05233. The file is a flat state_dict. Widths, number
of blocks, attention, classes and the learned variance are read off the tensors. What no tensor tells is taken from
what is known of the models:

* The heads of attention are 64 channels wide, and q, k and v lie head by head; but OpenAI's 64 x 64 model has
  all q, then all k, then all v, and its 128 x 128 model has 4 heads at every width.
* The schedule is DDPM's linear one of 1000 steps; but that of OpenAI's 64 x 64 model is the cosine.
* The size of the pictures is the one that the multipliers of the widths stand for in guided-diffusion.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from restore.checkpoint.files import blueprint, check_tensors, only_tensors, shapes_of
from restore.prior import Prior
from restore.quality import QualityWarning
from restore.schedule import Schedule

# Sizes that guided-diffusion and improved-diffusion choose these multipliers for.
_SIZES = {(1, 2, 2, 2): 32, (1, 2, 3, 4): 64, (1, 1, 2, 3, 4): 128, (1, 1, 2, 2, 4, 4): 256}

_HEAD = 64  # Channels of a head, where not said otherwise.


@dataclass(frozen=True)
class Convention:
    """What the tensors do not tell.

    Attributes:
        schedule: The noise schedule of the training.
        heads: Heads of every attention, or None if a head is 64 channels wide.
        legacy_order: Whether the channels of q, k and v are head by head (guided-diffusion's legacy order), or
            all q, all k, all v (its new one).
    """

    schedule: Schedule
    heads: int | None = None
    legacy_order: bool = True


# By model channels, multipliers, blocks a level, and whether blocks of their own resample.
_KNOWN: dict[tuple[Any, ...], Convention] = {
    (192, (1, 2, 3, 4), 3, True): Convention(Schedule.cosine(), legacy_order=False),  # ImageNet 64
    (256, (1, 1, 2, 3, 4), 2, True): Convention(Schedule.linear(), heads=4),  # ImageNet 128
    (256, (1, 1, 2, 2, 4, 4), 2, True): Convention(Schedule.linear()),  # ImageNet and LSUN 256
    (128, (1, 1, 2, 2, 4, 4), 1, True): Convention(Schedule.linear()),  # FFHQ, of DPS
}


@dataclass(frozen=True)
class Layout:
    """What the tensors tell of an ADM network.

    Attributes:
        channels: Channels of a picture.
        outputs: Channels of the output: twice as many where the variance is learned.
        width: The model channels.
        multipliers: Width of each level in model channels, from fine to coarse.
        blocks: Residual blocks a level, on the way down.
        attention: Whether there is attention, for each level.
        resampling_blocks: Whether residual blocks change the resolution, instead of single convolutions.
        scale_shift: Whether the time scales and shifts, instead of being added.
        classes: Number of class labels, or None.
    """

    channels: int
    outputs: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    resampling_blocks: bool
    scale_shift: bool
    classes: int | None


def recognises(content: Mapping[str, Any]) -> bool:
    """Whether these are tensors of an ADM network."""
    return any(n.startswith("time_embed.") for n in content) and any(
        n.startswith("input_blocks.") for n in content
    )


def load(content: Mapping[str, Any], path: Path, schedule: Schedule | None = None) -> Prior:
    """The prior in a state_dict of guided-diffusion.

    Args:
        content: The tensors by name.
        path: Where they are from.
        schedule: The schedule of the training, where it is known to the caller.

    Raises:
        ValueError: If tensors are missing, unknown or of another shape, or the network has no counterpart.
    """
    found = only_tensors(content, path).items()
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in found}
    layout = layout_of(tensors, str(path))
    convention = convention_of(layout, path.name, schedule)
    network = build(tensors, layout, convention, str(path))
    trained = schedule or convention.schedule
    return Prior(network, trained, channels=layout.channels, config={"name": path.stem})


def convention_of(layout: Layout, source: str, schedule: Schedule | None) -> Convention:
    """What the tensors do not tell, by what is known of the published models.

    Args:
        layout: What they do tell.
        source: What a warning calls the file.
        schedule: The schedule, where the caller knows it: then nothing has to be warned of.
    """
    key = (layout.width, layout.multipliers, layout.blocks, layout.resampling_blocks)
    if key not in _KNOWN and schedule is None:
        warnings.warn(
            f"{source!r} is none of the known models of guided-diffusion, and its tensors do not tell its noise "
            f"schedule: DDPM's linear one is taken. Say load_prior(..., schedule=...) if it was trained with another "
            f"(and look at restore.checkpoint.guided_diffusion if its heads are not 64 channels wide)",
            QualityWarning,
            stacklevel=7,  # Who called load_prior.
        )
    # Heads of 64 channels are what all published models have; elsewhere, guided-diffusion's default is 4 heads.
    widths = [layout.width * m for m, a in zip(layout.multipliers, layout.attention, strict=True) if a]
    uneven = any(w % 64 for w in [*widths, layout.width * layout.multipliers[-1]])
    return _KNOWN.get(key, Convention(Schedule.linear(), heads=4 if uneven else None))


def layout_of(tensors: Mapping[str, Tensor], source: str) -> Layout:
    """Reads the configuration off the tensors' names and shapes.

    Raises:
        ValueError: If the names are not those of an ADM network, or it has no counterpart in a ``UNet2DModel``.
    """
    if any(".transformer_blocks." in name for name in tensors):
        raise ValueError(
            f"{source!r} is conditioned on text (it has cross-attention): it cannot be loaded yet"
        )
    inputs, outputs = (_numbers(tensors, f"{part}_blocks.") for part in ("input", "output"))
    ups = [i for i in outputs if _upsampler(tensors, i) is not None]
    per_level = ups[0] + 1 if ups else len(outputs)
    levels = len(ups) + 1
    # As many blocks at every level; input blocks are the first convolution, and one less, but one that halves, a level.
    # The lengths first: a number in a name can be anything.
    if (
        not len(inputs) == len(outputs) == levels * per_level
        or inputs != list(range(levels * per_level))
        or outputs != list(range(levels * per_level))
        or ups != [per_level * (i + 1) - 1 for i in range(levels - 1)]
        or per_level < 2
    ):
        raise ValueError(
            f"{source!r} has {len(inputs)} input blocks and {len(outputs)} output blocks, of which {ups} upsample; "
            f"expected as many blocks at every level. Some are missing, or it resamples without weights, which "
            f"cannot be told from the file"
        )
    first = [1 + level * per_level for level in range(levels)]  # The first input block of each level.
    widths = [_shape(tensors, f"input_blocks.{i}.0.out_layers.3.weight", source)[0] for i in first]
    width = _shape(tensors, "time_embed.0.weight", source)[1]
    if widths[0] != width or width % 32 or any(w % width for w in widths):
        raise ValueError(
            f"{source!r} has model channels of {width} and levels of {widths} channels. A UNet2DModel takes its time "
            f"embedding from the first level's width, and has 32 groups: it cannot represent a first multiplier other "
            f"than 1 (OpenAI's 512 x 512 model has 0.5), or widths that are no multiples of 32"
        )
    return Layout(
        channels=_shape(tensors, "input_blocks.0.0.weight", source)[1],
        outputs=_shape(tensors, "out.2.weight", source)[0],
        width=width,
        multipliers=tuple(w // width for w in widths),
        blocks=per_level - 1,
        attention=tuple(f"input_blocks.{i}.1.qkv.weight" in tensors for i in first),
        resampling_blocks=any(_upsampler(tensors, i) == "block" for i in ups),
        scale_shift=_shape(tensors, "input_blocks.1.0.emb_layers.1.weight", source)[0] == 2 * widths[0],
        classes=len(tensors["label_emb.weight"]) if "label_emb.weight" in tensors else None,
    )


def unet_config(layout: Layout, heads: int | None = None) -> dict[str, Any]:
    """The arguments of the ``UNet2DModel`` that computes the same function, but for a fixed number of heads."""
    plain = "Resnet{}sampleBlock2D" if layout.resampling_blocks else "{}Block2D"
    down = ["AttnDownBlock2D" if a else plain.format("Down") for a in layout.attention]
    up = ["AttnUpBlock2D" if a else plain.format("Up") for a in reversed(layout.attention)]
    resampling = "resnet" if layout.resampling_blocks else "conv"
    return {
        "sample_size": _SIZES.get(layout.multipliers),
        "in_channels": layout.channels,
        "out_channels": layout.outputs,
        "block_out_channels": [layout.width * m for m in layout.multipliers],
        "layers_per_block": layout.blocks,
        "down_block_types": down,
        "up_block_types": up,
        "downsample_type": resampling,
        "upsample_type": resampling,
        "resnet_time_scale_shift": "scale_shift" if layout.scale_shift else "default",
        # Every width is a multiple of 32. Where the number of heads is fixed, it is set afterwards.
        "attention_head_dim": 32 if heads else _HEAD,
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "num_class_embeds": layout.classes,
    }


def build(tensors: Mapping[str, Tensor], layout: Layout, convention: Convention, source: str) -> nn.Module:
    """The network of a layout with these weights.

    Returns:
        A ``UNet2DModel``; or, for a fixed number of heads, a :class:`restore.networks.FoldedUNet` that folds nothing
        and sets them.

    Raises:
        ValueError: If tensors are missing, unknown or of another shape; the message has guided-diffusion's names.
    """
    from restore.networks import FoldedUNet

    # Names and shapes alone: every tensor comes from the file, none is ever random.
    config, heads = unet_config(layout, convention.heads), convention.heads
    folded: Any = blueprint(lambda: FoldedUNet(config, fold=1, norm="group", heads=heads), source)
    network = folded.unet
    shapes = shapes_of(network)
    # Blocks that do not change the number of channels have no convolution on their shortcut.
    names = {theirs: ours for theirs, ours in _names(layout) if ours[0] in shapes}
    expected = {}
    for theirs, ours in names.items():
        rows, *columns = shapes[ours[0]]
        # Attention is a convolution over a row of pixels there, and a matrix here.
        kernel = (1,) if theirs.endswith(("qkv.weight", "proj_out.weight")) else ()
        expected[theirs] = (len(ours) * rows, *columns, *kernel)
    check_tensors(expected, tensors, source, kind="guided-diffusion that its shapes describe")
    found: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        value = tensors[theirs].reshape(-1, *shapes[ours[0]][1:])
        if len(ours) == 3 and convention.legacy_order:
            cuts = heads or len(value) // 3 // _HEAD
            value = value.unflatten(0, (cuts, 3, -1)).transpose(0, 1).flatten(0, 2)
        found |= {name: part.clone() for name, part in zip(ours, value.chunk(len(ours)), strict=True)}
    network.load_state_dict(found, assign=True)
    loaded: nn.Module = folded if heads else network
    return loaded


def _names(layout: Layout) -> Iterator[tuple[str, list[str]]]:
    """Every tensor's name there, with its name here, or its three names for q, k and v."""

    def module(theirs: str, ours: str) -> Iterator[tuple[str, list[str]]]:
        for kind in ("weight", "bias"):
            yield f"{theirs}.{kind}", [f"{ours}.{kind}"]

    def residual(theirs: str, ours: str) -> Iterator[tuple[str, list[str]]]:
        for a, b in _RESIDUAL.items():
            yield from module(f"{theirs}.{a}", f"{ours}.{b}")

    def attention(theirs: str, ours: str) -> Iterator[tuple[str, list[str]]]:
        yield from module(f"{theirs}.norm", f"{ours}.group_norm")
        yield from module(f"{theirs}.proj_out", f"{ours}.to_out.0")
        for kind in ("weight", "bias"):
            yield f"{theirs}.qkv.{kind}", [f"{ours}.to_{part}.{kind}" for part in "qkv"]

    for a, b in _SINGLE.items():
        yield from module(a, b)
    yield "label_emb.weight", ["class_embedding.weight"]
    yield from residual("middle_block.0", "mid_block.resnets.0")
    yield from attention("middle_block.1", "mid_block.attentions.0")
    yield from residual("middle_block.2", "mid_block.resnets.1")
    levels, per_level = len(layout.multipliers), layout.blocks + 1
    for level in range(levels):
        for kind, count in (("down", layout.blocks), ("up", per_level)):
            there, first = ("input_blocks", 1) if kind == "down" else ("output_blocks", 0)
            has_attention = layout.attention[level if kind == "down" else -1 - level]
            first += level * per_level
            for j in range(count):
                yield from residual(f"{there}.{first + j}.0", f"{kind}_blocks.{level}.resnets.{j}")
                if has_attention:
                    yield from attention(f"{there}.{first + j}.1", f"{kind}_blocks.{level}.attentions.{j}")
            if level == levels - 1:
                continue
            theirs = f"{there}.{first + layout.blocks}.{0 if kind == 'down' else 1 + has_attention}"
            ours = f"{kind}_blocks.{level}.{kind}samplers.0"
            if layout.resampling_blocks:
                yield from residual(theirs, ours)
            else:
                yield from module(f"{theirs}.{'op' if kind == 'down' else 'conv'}", f"{ours}.conv")


_SINGLE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def _numbers(tensors: Mapping[str, Tensor], prefix: str) -> list[int]:
    numbers = {name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)}
    return sorted(int(number) for number in numbers if number.isdigit())


def _upsampler(tensors: Mapping[str, Tensor], output_block: int) -> str | None:
    """What an output block ends with that doubles the resolution: a residual block, a convolution, or nothing."""
    for child in (1, 2):  # The second, where there is attention.
        for kind, name in (("block", "in_layers.2.weight"), ("convolution", "conv.weight")):
            if f"output_blocks.{output_block}.{child}.{name}" in tensors:
                return kind
    return None


def _shape(tensors: Mapping[str, Tensor], name: str, source: str) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim < 2:
        found = f"is {tuple(tensors[name].shape)}" if name in tensors else "is missing"
        raise ValueError(f"{source!r}: {name} {found}; expected weights of guided-diffusion")
    return tuple(tensors[name].shape)
