"""Training a prior: the loss L_simple, the moving average of the weights, and the trainer.

L_simple (*Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239, algorithm 1) draws a picture ``x_0``, a
time ``t`` (uniform), noise ``eps``, and asks the network for the noise in ``x_t = alpha_t x_0 + sigma_t eps``. A prior
of colours has a loss of its own, :func:`colour_loss`.

Every random number of a step comes from the seed, the step's number and the process's number alone. A run that was
interrupted therefore goes on exactly as it would have, with nothing but the weights to remember.
"""

from __future__ import annotations

from restore.training.folder import train
from restore.training.loss import EMA, colour_loss, simple_loss
from restore.training.options import TrainingOptions
from restore.training.state import LOG, STATE
from restore.training.trainer import Trainer

__all__ = ["EMA", "LOG", "STATE", "Trainer", "TrainingOptions", "colour_loss", "simple_loss", "train"]
