"""Priors as files: our own folders, and those of others.

Weights are safetensors and configurations JSON, or a ``.pt`` that is read for its tensors alone: nothing that is read
can carry code. Every file that is written is written beside its place and then moved there, so that an interruption
leaves the old file or the new one.
"""

from __future__ import annotations

from restore.checkpoint.diffusers import schedule_of_diffusers
from restore.checkpoint.files import CONFIG as CONFIG
from restore.checkpoint.load import load_prior
from restore.checkpoint.native import WEIGHTS as WEIGHTS
from restore.checkpoint.native import build_network, describe_network, save_prior

__all__ = [
    "build_network",
    "describe_network",
    "load_prior",
    "save_prior",
    "schedule_of_diffusers",
]
