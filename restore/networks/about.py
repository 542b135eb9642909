"""What a network tells of itself: ours, diffusers' models, and others that have the same attributes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def channels_of(network: nn.Module) -> int | None:
    """Channels of a picture, or None if it does not tell."""
    for attribute in ("channels", "in_channels"):
        value = _told(network, attribute)
        if isinstance(value, int):
            return value
    return None


def outputs_of(network: nn.Module) -> int | None:
    """How many channels it returns, or None if it does not tell."""
    value = _told(network, "outputs") or _told(getattr(network, "unet", network), "out_channels")
    return value if isinstance(value, int) else None


def multiple_of(network: nn.Module) -> int:
    """What heights and widths must be multiples of.

    Example:
        >>> from restore.networks import photo_unet
        >>> multiple_of(photo_unet((8, 8)))
        4
    """
    value = getattr(network, "multiple", None)
    if isinstance(value, int):
        return value
    widths = _told(network, "block_out_channels")
    return 2 ** (len(widths) - 1) if widths else 1


def trained_size_of(network: nn.Module) -> int | tuple[int, int] | None:
    """Side, or height and width, of the pictures that it was trained on; None where it does not matter, or tell.

    It matters to a network with attention alone: every pixel sees the whole picture.
    """
    size: int | tuple[int, int] | None = _told(network, "sample_size")
    return size if has_attention(network) else None


def has_attention(network: nn.Module) -> bool:
    """Whether a network has attention, so that every pixel sees the whole picture.

    Example:
        >>> has_attention(nn.MultiheadAttention(8, 2)), has_attention(nn.Conv2d(3, 3, 3))
        (True, False)
    """
    return any("attention" in type(module).__name__.lower() for module in network.modules())


def needs_labels(network: nn.Module) -> bool:
    """Whether it is conditional on a class, and cannot be called without one."""
    return getattr(getattr(network, "unet", network), "class_embedding", None) is not None


def estimate_of(output: Any) -> Tensor:
    """What a network returned: a tensor, or an object that has it as ``.sample``, as diffusers' models do."""
    estimate: Tensor = output if isinstance(output, Tensor) else output.sample
    return estimate


def _told(network: nn.Module, name: str) -> Any:
    # The configuration first: diffusers warns where its models are asked themselves.
    for holder in (getattr(network, "config", None), network):
        value = getattr(holder, name, None)
        if value is not None:
            return value
    return None
