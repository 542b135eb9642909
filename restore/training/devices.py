"""Where to train, and whether it computes in bfloat16 there."""

from __future__ import annotations

import torch

from restore.memory import usable_device


def device_of(device: str | torch.device | None) -> torch.device:
    """Where to train: as asked for; with several processes, each has a GPU of its own."""
    from accelerate import PartialState

    where = (
        torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device is None
        else usable_device(device)
    )
    if where.type == "cuda" and where.index is None:
        own = torch.device(PartialState().device)
        where = (
            own
            if own.type == "cuda" and own.index is not None
            else torch.device("cuda", torch.cuda.current_device())
        )
    return where


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Emulated bf16 is many times slower than float32.
        asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(ask is not None and ask() for ask in asked)
    return False
