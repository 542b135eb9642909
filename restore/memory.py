"""What a network costs to run: the type of its weights, what is kept for a gradient, and compilation.

Every function gives a changed copy and leaves the network as it is. Weights that do not change are shared, not copied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# How many pixels are worked on at once, by kind of device: what is beyond that is done in parts.
PIXELS_AT_ONCE = {"cpu": 2**19, "cuda": 2**22}

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def states_at_once(pixels: int, device: torch.device, *, gradient: bool, light: bool = False) -> int:
    """How many states are worked on at once, so that they and what a network keeps of them fit into memory.

    Args:
        pixels: Height times width of a state.
        device: Where the work is done.
        gradient: Whether the prior is differentiated, for which all activations of a network are kept.
        light: Whether the prior is a formula, which needs a few numbers a pixel and not a network's hundreds.

    Example:
        >>> states_at_once(256 * 256, torch.device("cpu"), gradient=False)
        8
        >>> states_at_once(256 * 256, torch.device("cpu"), gradient=True)
        1
    """
    limit = PIXELS_AT_ONCE.get(device.type, PIXELS_AT_ONCE["cpu"])
    if light:
        limit *= 4
    elif gradient:
        limit //= 8
    return max(1, limit // pixels)


def precision(dtype: str | torch.dtype) -> torch.dtype:
    """The type that a name means.

    Args:
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or the type of torch.

    Raises:
        ValueError: If it is none of the three.

    Example:
        >>> precision("bfloat16")
        torch.bfloat16
    """
    for name, known in PRECISIONS.items():
        if dtype in (name, known):
            return known
    raise ValueError(f"dtype must be 'float32', 'bfloat16' or 'float16', not {dtype!r}")


def usable_device(device: str | torch.device) -> torch.device:
    """A device that is there.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or whatever torch knows.

    Raises:
        ValueError: If there is no such device, or not on this machine.

    Example:
        >>> usable_device("cpu")
        device(type='cpu')
    """
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device is 'cpu', 'cuda' or 'cuda:1', or whatever torch knows, not {device!r}"
        ) from None
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {str(where)!r}, but torch finds no GPU here: leave device out, or say device='cpu'"
        )
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"device is {str(where)!r}, which torch cannot use here ({why}): leave device out, or say device='cpu'"
        ) from None
    return where


def twin(network: nn.Module, change: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
    """The same network with modules of its own, and the same weights or changed ones.

    Args:
        network: Any network.
        change: What becomes of a parameter's or buffer's values; without it, the two networks share them.

    Example:
        >>> line = nn.Linear(2, 2)
        >>> other = twin(line)
        >>> other is line, other.weight is line.weight
        (False, True)
    """

    def changed(tensor: Tensor) -> Tensor:
        if change is None:
            return tensor
        other = change(tensor.detach())
        return nn.Parameter(other, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else other

    # What a deep copy finds in its memo, it takes from there instead of copying.
    return copy.deepcopy(network, {id(t): changed(t) for t in (*network.parameters(), *network.buffers())})


def in_dtype(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network with its weights, and so its arithmetic, in another floating-point type.

    Args:
        network: Any network.
        dtype: The type.

    Example:
        >>> in_dtype(nn.Linear(2, 2), torch.bfloat16).weight.dtype
        torch.bfloat16
    """
    return twin(network, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def checkpointed(network: nn.Module) -> nn.Module:
    """The network, computing the activations of its residual and attention blocks again when a gradient needs them.

    *Training Deep Nets with Sublinear Memory Cost*, 2016, arXiv:1604.06174. Between forward and backward the inputs of
    the blocks are kept, and nothing from inside them. A gradient costs one more forward pass. Every residual block
    counts, those that change the resolution too, and every attention; ``enable_gradient_checkpointing`` of diffusers
    leaves these two out, and so keeps twice as much of guided-diffusion's networks.

    Args:
        network: A network that is made of the residual blocks of diffusers, or a :class:`restore.networks.RMSUNet`.

    Raises:
        TypeError: If it has none of them.

    Example:
        >>> from restore.networks import photo_unet
        >>> network = checkpointed(photo_unet((16, 16), layers=1))
    """
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    from restore.networks import rms

    kinds = (ResnetBlock2D, Attention, rms.Residual, rms.Attention)
    other = twin(network)
    blocks = [module for module in other.modules() if isinstance(module, kinds)]
    if not blocks:
        raise TypeError(
            f"a {type(network).__name__} has no residual blocks of diffusers or of RMSUNet, at which it could be cut "
            f"for checkpointing: call torch.utils.checkpoint in its forward, and leave checkpointing=True out"
        )
    for block in blocks:
        if "forward" not in vars(block):  # Else it has been done before.
            # Not reentrant: parameters are frozen, and torch.autograd.grad is called for the picture alone. There is
            # no dropout in evaluation mode, so no state of random numbers to bring back.
            again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            block.forward = again  # type: ignore[method-assign]
    return other


def is_checkpointed(network: nn.Module) -> bool:
    """Whether :func:`checkpointed` made this network.

    Example:
        >>> from restore.networks import photo_unet
        >>> network = photo_unet((16, 16), layers=1)
        >>> is_checkpointed(network), is_checkpointed(checkpointed(network))
        (False, True)
    """
    return any(getattr(vars(m).get("forward"), "func", None) is checkpoint for m in network.modules())
