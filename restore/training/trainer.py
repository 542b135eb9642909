"""The trainer: one update after the other, with checkpoints, validation and samples in between."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore.checkpoint import describe_network, save_prior
from restore.colours import ColourPrior, luma_of
from restore.data import Crops
from restore.networks import set_dropout
from restore.prior import Prior
from restore.randomness import stream_seed
from restore.schedule import Schedule
from restore.spectrum import Spectrum
from restore.training.devices import computes_in_bf16
from restore.training.interruption import Interruption
from restore.training.loss import EMA, colour_loss, simple_loss
from restore.training.options import TrainingOptions
from restore.training.state import LOG, STATE, Log, load_state, read_about, save_state

#: Of how many crops of 64 pixels the spectrum is taken; of larger ones, of as many pixels.
SPECTRUM_CROPS = 2000
#: Pictures whose channels differ by less from their luma, in [-1, 1], have no colours.
GREY = 0.03
#: Of how many updates gradients that overflow are counted, and above which share of them a person is told.
WATCHED, MOST_OVERFLOWS = 50, 0.1


class Trainer:
    """Minimises L_simple, or ``colour_loss``, on a CPU, a GPU, or several processes (by ``torchrun``, ``accelerate``).

    The folder ``out`` is a prior that can be loaded at any time (the moving average of the weights), with the state of
    the training (``training.safetensors``), a log of losses (``log.jsonl``) and pictures of samples beside it.

    Args:
        network: A network of ``restore.networks`` or a diffusers ``UNet2DModel``; trained in place.
        crops: Where training pictures come from, on the device that trains.
        out: The folder that the prior is written to.
        options: How to train; the defaults of :class:`TrainingOptions` where it is not given.
        schedule: The noise schedule.
        validation: Crops that are only looked at; or None.
        resume: Go on from the state in ``out``.
        progress: Show a bar with the loss.
        config: What is written into the prior's ``config.json`` besides (name, data, licence).

    Raises:
        FileExistsError: If ``out`` holds a training already and ``resume`` was not asked for.
        FileNotFoundError: If ``resume`` was asked for and there is nothing to go on from.
        ValueError: If the state in ``out`` is of another network or other options.
    """

    def __init__(
        self,
        network: nn.Module,
        crops: Crops,
        out: str | Path,
        options: TrainingOptions | None = None,
        *,
        schedule: Schedule | None = None,
        validation: Crops | None = None,
        resume: bool = False,
        progress: bool = True,
        config: dict[str, Any] | None = None,
    ) -> None:
        from accelerate import Accelerator

        options = options or TrainingOptions()
        self.options, self.crops, self.validation, self.out = options, crops, validation, Path(out)
        self.schedule = schedule or Schedule.linear()
        if config is None and resume:
            config = read_about(self.out / STATE).get("config")
        self.progress, self.config = progress, dict(config or {})
        self.accelerator = Accelerator(cpu=crops.device.type == "cpu")
        self.device = crops.device
        self.bf16 = options.precision == "bf16" or (
            options.precision == "auto" and computes_in_bf16(self.device)
        )

        if options.colours and crops.channels != 3:
            raise ValueError(
                "grey pictures have no colours to train a prior of: give channels=3, or leave colours out"
            )
        if options.colours:
            some = crops.batch(64, torch.Generator(self.device).manual_seed(stream_seed(options.seed, 2)))
            if float((some - luma_of(some)).abs().max()) < GREY:
                raise ValueError(
                    "the pictures are grey: a prior of colours is trained on pictures that have colours"
                )
        self._loss: Callable[..., Tensor] = colour_loss if options.colours else simple_loss
        self._check(network)
        self.spectrum: Spectrum | None = None
        if options.spectrum:
            generator = torch.Generator(self.device).manual_seed(stream_seed(options.seed, 2))
            count = max(64, round(SPECTRUM_CROPS * min(1.0, (64 / crops.size) ** 2)))
            self.spectrum = Spectrum.of(crops.batch(count, generator))
        if options.dropout:
            set_dropout(network, options.dropout)
        network = network.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=options.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=options.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.network, self.ema = network, EMA(network, options.ema)
        self._overflows, self._warned = torch.zeros((), dtype=torch.long, device=self.device), False
        self._watched = 0
        self.step, self.log = 0, Log(self.out / LOG)
        if resume:
            state = (self.network, self.ema, self.optimizer, options, self.schedule)
            self.step = load_state(self.out / STATE, *state)
            if self.accelerator.is_main_process:
                self.log.cut(self.step)
        elif (self.out / STATE).exists():
            raise FileExistsError(
                f"{str(self.out)!r} holds a training already: resume it (resume=True, --resume) "
                f"or choose another folder"
            )
        # Where things are has been decided: the pictures are there already.
        wrapped, self.optimizer = self.accelerator.prepare(
            network, self.optimizer, device_placement=[False, False]
        )
        self._forward = torch.compile(wrapped) if options.compile else wrapped

    def _check(self, network: nn.Module) -> None:
        """Finds out now what would otherwise stop the first checkpoint, after a thousand updates."""
        describe_network(network)
        with torch.random.fork_rng(devices=[]):
            prior = self._prior_of(copy.deepcopy(network))
        for side in self.crops.sides:
            if side % prior.multiple:
                raise ValueError(
                    f"crops of {side} pixels do not suit the network, whose sides must be multiples of "
                    f"{prior.multiple}: choose another crop"
                )
        if prior.channels not in (None, self.crops.channels):
            raise ValueError(
                f"the pictures have {self.crops.channels} channels, the network takes {prior.channels}"
            )

    def run(self, until: int | None = None) -> Prior:
        """Trains to the end, or to update number ``until``, and returns the prior (the averaged weights).

        Raises:
            FloatingPointError: If the loss is not finite; the last checkpoint is left as it is.
            KeyboardInterrupt: After Ctrl-C, when the update has been finished and saved.
        """
        from tqdm import tqdm

        o, main = self.options, self.accelerator.is_main_process
        last = o.steps if until is None else min(until, o.steps)
        bar = tqdm(
            total=last,
            initial=self.step,
            disable=not (self.progress and main),
            desc="training",
            unit="step",
            smoothing=0.02,
        )
        average, log, since = math.nan, [], time.monotonic()
        stop, saves = Interruption(), True
        try:
            while self.step < last and not (stop.asked and saves):
                loss = self._update()
                self.step += 1
                log.append(loss)
                bar.update()
                saves = self.step % o.save_every == 0 or self.step == last or stop.asked
                # Reading a loss waits for the device: only now and then, and before weights are written.
                if self.step % 50 == 0 or saves:
                    recent = torch.stack(log).tolist()
                    if not all(map(math.isfinite, recent)):
                        raise FloatingPointError(
                            f"the loss is not finite near update {self.step}: lower the learning rate"
                        )
                    self._warn_of_overflows(len(recent))
                    average = recent[0] if math.isnan(average) else average
                    for value in recent:
                        average += 0.01 * (value - average)
                    bar.set_postfix(loss=f"{average:.4f}")
                    if main:
                        self.log.losses(recent, self.step, since)
                    log = []
                if o.validate_every and self.validation is not None and self.step % o.validate_every == 0:
                    entry = {"step": self.step, "validation": self.validate()}
                    if main:
                        self.log.note(entry)
                if o.sample_every and self.step % o.sample_every == 0 and main:
                    self._sample()
                if saves:
                    self.save()
        finally:
            stop.end()
            bar.close()
        if stop.asked:
            raise KeyboardInterrupt
        return self.prior()

    def _update(self) -> Tensor:
        """One update of the weights; returns its loss, on the device."""
        o = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = o.rate(self.step)
        total = torch.zeros((), device=self.device)
        for part, generator in enumerate(self._generators()):
            side = self.crops.sides[(self.step * o.accumulate + part) % len(self.crops.sides)]
            # Fewer of the larger crops: every batch has about as many pixels.
            count = max(1, round(o.batch * (self.crops.size / side) ** 2))
            x_0 = self.crops.batch(count, generator, side).contiguous(memory_format=torch.channels_last)
            # Processes exchange gradients once an update, with the last part; that is decided by the forward pass.
            with self.accelerator.no_sync(self._forward) if part < o.accumulate - 1 else nullcontext():
                with (
                    self._dropping_out(generator),
                    torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
                ):
                    loss = self._loss(self._forward, x_0, self.schedule, generator) / o.accumulate
                self.accelerator.backward(loss)
            total += loss.detach()
        # One number that overflowed would make an infinite norm, by which clipping divides: all weights would be lost.
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self._overflows += ~torch.stack([gradient.sum() for gradient in gradients]).isfinite().all()
        for gradient in gradients:
            gradient.nan_to_num_(0.0, 0.0, 0.0)
        self.accelerator.clip_grad_norm_(self.network.parameters(), o.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.network, self.step)
        return self.accelerator.reduce(total, "mean") if self.accelerator.num_processes > 1 else total

    def _warn_of_overflows(self, updates: int) -> None:
        """One update that lost a gradient does no harm; a training that loses them again and again learns little."""
        self._watched += updates
        if self._watched < WATCHED or self._warned:
            return
        lost, watched = int(self._overflows), self._watched
        self._overflows, self._watched = torch.zeros_like(self._overflows), 0
        if lost > MOST_OVERFLOWS * watched and self.accelerator.is_main_process:
            self._warned = True
            warnings.warn(
                f"in {lost} of the last {watched} updates, up to number {self.step}, gradients were not finite and "
                f"parts of them were left out: lower the learning rate{', or train in fp32' if self.bf16 else ''}",
                RuntimeWarning,
                stacklevel=3,
            )

    @contextmanager
    def _dropping_out(self, generator: torch.Generator) -> Iterator[None]:
        """Dropout takes the device's own random numbers: these follow from the update's, so that it can be resumed."""
        if not self.options.dropout:
            yield
            return
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(stream_seed(generator.initial_seed(), 1))
            yield

    def _generators(self) -> Iterator[torch.Generator]:
        rank = self.accelerator.process_index
        for part in range(self.options.accumulate):
            seed = stream_seed(self.options.seed, self.step, rank, part)
            yield torch.Generator(self.device).manual_seed(seed)

    @torch.no_grad()
    def validate(self, batches: int = 8) -> float:
        """The loss of the averaged weights on the validation crops, always the same ones with the same noise."""
        if self.validation is None:
            raise ValueError("there are no validation pictures: give validation=")
        # Of no seed: trainings of different seeds are compared by it.
        generator = torch.Generator(self.device).manual_seed(stream_seed(0, 1))
        total = 0.0
        for _ in range(batches):
            x_0 = self.validation.batch(64, generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                total += float(self._loss(self.ema.network, x_0, self.schedule, generator))
        return total / batches

    def prior(self) -> Prior:
        """The prior of the averaged weights as they are now (a copy)."""
        prior = self._prior_of(copy.deepcopy(self.ema.network))
        return prior if self.spectrum is None else prior.with_spectrum(self.spectrum)

    def _prior_of(self, network: nn.Module) -> Prior:
        if self.options.colours:
            return ColourPrior(network, self.schedule, size=self.crops.size, config=self.config)
        return Prior(network, self.schedule, config=self.config)

    def save(self) -> None:
        """Writes the state of the training and the prior; each file replaces its predecessor at once."""
        if self.accelerator.is_main_process:
            state = (self.network, self.ema, self.optimizer, self.options, self.schedule, self.config)
            save_state(self.out / STATE, self.step, *state)
            save_prior(self.prior(), self.out)
        self.accelerator.wait_for_everyone()

    def _sample(self) -> None:
        from restore.images import write_image
        from restore.plots import grid
        from restore.solve import sample

        prior, shape = self.prior(), (16, self.crops.channels, self.crops.size, self.crops.size)
        if isinstance(prior, ColourPrior):
            generator = torch.Generator(self.device).manual_seed(stream_seed(0, 3))
            shown = (self.validation or self.crops).batch(16, generator)
            prior, shape = prior.given(luma_of(shown)), (16, 3, *shown.shape[-2:])
        pictures = sample(prior, shape, steps=50, seed=0, progress=False)
        write_image(self.out / "samples" / f"{self.step:07d}.png", grid(pictures))
