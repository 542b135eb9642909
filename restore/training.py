"""Training a prior: the loss L_simple, the moving average of the weights, and the trainer.

L_simple (*Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239, algorithm 1) draws a picture ``x_0``, a
time ``t`` (uniform), noise ``eps``, and asks the network for the noise in ``x_t = alpha_t x_0 + sigma_t eps``.

Every random number of a step comes from the seed, the step's number and the process's number alone. A run that was
interrupted therefore goes on exactly as it would have, with nothing but the weights to remember.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.checkpoint import describe_network, load_weights, save_prior
from restore.data import Crops, find_images, split
from restore.files import write_atomically
from restore.prior import Prior, per_image
from restore.randomness import stream_seed
from restore.schedule import Schedule

STATE = "training.safetensors"
LOG = "log.jsonl"


def simple_loss(
    network: Callable[[Tensor, Tensor], Tensor],
    x_0: Tensor,
    schedule: Schedule,
    generator: torch.Generator | None = None,
) -> Tensor:
    """L_simple: the mean squared error of the predicted noise, at uniform times.

    The times of a batch are spread evenly over the schedule (one uniform offset for all), which leaves each of them
    uniform and takes most of the variance out of the loss.

    Args:
        network: ``network(x_t, step) -> predicted noise``.
        x_0: Clean pictures ``(B, C, H, W)`` in the prior's range.
        schedule: The noise schedule.
        generator: Where the times and the noise come from, on the device of ``x_0``.

    Returns:
        The loss, a scalar.

    Example:
        >>> x_0 = torch.zeros(64, 1, 4, 4)
        >>> loss = simple_loss(lambda x_t, step: torch.zeros_like(x_t), x_0, Schedule.linear())
        >>> 0.5 < float(loss) < 1.5
        True
    """
    batch = len(x_0)
    offset = torch.rand((), generator=generator, device=x_0.device, dtype=torch.float64)
    even = (torch.arange(batch, device=x_0.device, dtype=torch.float64) + offset) / batch
    step = (even * schedule.steps).long().clamp_(max=schedule.steps - 1)
    alphas, sigmas = _tables(schedule, x_0.device)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    x_t = per_image(alphas[step], x_0) * x_0 + per_image(sigmas[step], x_0) * eps
    return F.mse_loss(network(x_t, (step + schedule.first_step).to(x_0.dtype)).float(), eps)


def _tables(schedule: Schedule, device: torch.device) -> tuple[Tensor, Tensor]:
    """``alpha`` and ``sigma`` of every trained step, kept on the device."""
    cache: dict[torch.device, tuple[Tensor, Tensor]] = schedule.__dict__.setdefault("_tables", {})
    if device not in cache:
        alphas, sigmas = schedule(torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps)
        cache[device] = alphas.to(device, torch.float32), sigmas.to(device, torch.float32)
    return cache[device]


class EMA:
    """An exponential moving average of a network's weights, which is what is saved and sampled from.

    The decay rises as ``(1 + n) / (10 + n)`` with the number of updates ``n``, so that a short run is not an
    average of its random start.

    Args:
        network: The network that is trained; copied.
        decay: What the decay rises to, in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, updates: int) -> None:
        """Moves the average towards the network's weights, after update number ``updates`` (from 0)."""
        weight = 1 - min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(
            list(self.network.parameters()), [p.detach() for p in network.parameters()], weight
        )


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. All have defaults that suit a small network for photographs.

    Attributes:
        steps: Number of weight updates.
        batch: Crops per update and process.
        crop: Side of the crops, in pixels.
        learning_rate: Its peak value (AdamW).
        warmup: Updates over which the learning rate rises from 0.
        decay: Share of the updates, at the end, over which it falls to 0.
        weight_decay: AdamW's.
        ema: Decay of the moving average of the weights.
        clip: Largest norm of a gradient.
        accumulate: Batches whose gradients are summed for one update.
        precision: ``"fp32"``, ``"bf16"`` (autocast), or ``"auto"``: bf16 on devices that compute in it.
        compile: Compile the network (torch.compile).
        flip: Mirror half of the crops.
        scales: How many times a picture may be halved.
        seed: Seed of everything.
        save_every: Updates between checkpoints.
        sample_every: Updates between pictures of samples; 0 for none.
        validate_every: Updates between validations; 0 for none.
    """

    steps: int = 100_000
    batch: int = 16
    crop: int = 64
    learning_rate: float = 5e-4
    warmup: int = 500
    decay: float = 0.3
    weight_decay: float = 1e-4
    ema: float = 0.999
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "auto"
    compile: bool = False
    flip: bool = True
    scales: int = 2
    seed: int = 0
    save_every: int = 1000
    sample_every: int = 5000
    validate_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop", "accumulate", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', not {self.precision!r}")
        if not 0 <= self.decay <= 1 or not 0 <= self.ema < 1:
            raise ValueError(f"decay must lie in [0, 1] and ema in [0, 1), not {self.decay} and {self.ema}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")
        if self.learning_rate <= 0 or self.clip <= 0:
            raise ValueError(
                f"learning_rate and clip must be above 0, not {self.learning_rate} and {self.clip}"
            )

    def rate(self, step: int) -> float:
        """The learning rate of update ``step`` (from 0): linear warm-up, constant, linear decay to 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        last = self.decay * self.steps
        fall = min(1.0, (self.steps - step) / last) if last else 1.0
        return self.learning_rate * rise * fall


class Trainer:
    """Minimises L_simple, on a CPU, a GPU, or several processes (started by ``torchrun`` or ``accelerate launch``).

    The folder ``out`` is a prior that can be loaded at any time (the moving average of the weights), with the state of
    the training (``training.safetensors``), a log of losses (``log.jsonl``) and pictures of samples beside it.

    Args:
        network: A network of ``restore.networks`` or a diffusers ``UNet2DModel``; trained in place.
        crops: Where training pictures come from, on the device that trains.
        out: The folder that the prior is written to.
        options: How to train.
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
        options: TrainingOptions = TrainingOptions(),
        *,
        schedule: Schedule | None = None,
        validation: Crops | None = None,
        resume: bool = False,
        progress: bool = True,
        config: dict[str, Any] | None = None,
    ) -> None:
        from accelerate import Accelerator

        self.options, self.crops, self.validation, self.out = options, crops, validation, Path(out)
        self.schedule = schedule or Schedule.linear()
        self.progress, self.config = progress, dict(config or {})
        self.accelerator = Accelerator(cpu=crops.device.type == "cpu")
        self.device = crops.device
        self.bf16 = options.precision == "bf16" or (
            options.precision == "auto" and _computes_in_bf16(self.device)
        )

        self._check(network)
        network = network.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=options.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=options.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.network, self.ema = network, EMA(network, options.ema)
        self.step = 0
        if resume:
            self._load()
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
            prior = Prior(copy.deepcopy(network), self.schedule)
        if self.crops.size % prior.multiple:
            raise ValueError(
                f"crops of {self.crops.size} pixels do not suit the network, whose sides must be multiples of "
                f"{prior.multiple}: choose another crop"
            )
        if prior.channels not in (None, self.crops.channels):
            raise ValueError(
                f"the pictures have {self.crops.channels} channels, the network takes {prior.channels}"
            )

    # ---------------------------------------------------------------- training

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
        stop, saves = _Interruption(), True
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
                    average = recent[0] if math.isnan(average) else average
                    for value in recent:
                        average += 0.01 * (value - average)
                    bar.set_postfix(loss=f"{average:.4f}")
                    self._log(recent, since)
                    log = []
                if o.validate_every and self.validation is not None and self.step % o.validate_every == 0:
                    self._note({"step": self.step, "validation": self.validate()})
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
            x_0 = self.crops.batch(o.batch, generator).contiguous(memory_format=torch.channels_last)
            # Processes exchange gradients once an update, with the last part; that is decided by the forward pass.
            with self.accelerator.no_sync(self._forward) if part < o.accumulate - 1 else nullcontext():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss = simple_loss(self._forward, x_0, self.schedule, generator) / o.accumulate
                self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.network.parameters(), o.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.network, self.step)
        return self.accelerator.reduce(total, "mean") if self.accelerator.num_processes > 1 else total

    def _generators(self) -> Iterator[torch.Generator]:
        rank = self.accelerator.process_index
        for part in range(self.options.accumulate):
            seed = stream_seed(self.options.seed, self.step, rank, part)
            yield torch.Generator(self.device).manual_seed(seed)

    @torch.no_grad()
    def validate(self, batches: int = 8) -> float:
        """L_simple of the averaged weights on the validation crops, always the same ones with the same noise."""
        if self.validation is None:
            raise ValueError("there are no validation pictures: give validation=")
        generator = torch.Generator(self.device).manual_seed(stream_seed(self.options.seed, 1))
        total = 0.0
        for _ in range(batches):
            x_0 = self.validation.batch(64, generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                total += float(simple_loss(self.ema.network, x_0, self.schedule, generator))
        return total / batches

    def prior(self) -> Prior:
        """The prior of the averaged weights as they are now (a copy)."""
        return Prior(copy.deepcopy(self.ema.network), self.schedule, config=self.config)

    # ---------------------------------------------------------------- files

    def save(self) -> None:
        """Writes the prior and the state of the training; each file replaces its predecessor at once."""
        from safetensors.torch import save_file

        if self.accelerator.is_main_process:
            state = {f"network.{k}": v for k, v in self.network.state_dict().items()}
            state |= {f"ema.{k}": v for k, v in self.ema.network.state_dict().items()}
            for name, parameter in self.network.named_parameters():
                moments = self.optimizer.state.get(parameter, {})
                state |= {f"{k}.{name}": moments[k] for k in ("exp_avg", "exp_avg_sq") if k in moments}
            state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
            about = {
                "step": self.step,
                "options": asdict(self.options),
                "network": describe_network(self.network),
                "schedule": self.schedule.to_config(),
            }
            # One file holds all that a resumed run needs: two could be of different steps after an interruption.
            metadata = {"restore": json.dumps(about)}
            write_atomically(self.out / STATE, lambda path: save_file(state, path, metadata=metadata))
            save_prior(self.prior(), self.out)
        self.accelerator.wait_for_everyone()

    def _load(self) -> None:
        from safetensors import safe_open

        path = self.out / STATE
        if not path.is_file():
            raise FileNotFoundError(
                f"nothing to resume: there is no {str(path)!r}; train without resume first"
            )
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["restore"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if about["network"] != json.loads(json.dumps(describe_network(self.network))):
            raise ValueError(f"{str(path)!r} is the state of another network: {about['network']}")
        if Schedule.from_config(about["schedule"]) != self.schedule:
            raise ValueError(
                f"{str(path)!r} is the state of a training with another schedule: {about['schedule']}"
            )
        free = {"steps", "save_every", "sample_every", "validate_every", "compile"}
        now = asdict(self.options)
        changed = [k for k in now if k not in free and about["options"].get(k) != now[k]]
        if changed:
            told = ", ".join(f"{k} was {about['options'].get(k)} and is {now[k]}" for k in changed)
            raise ValueError(
                f"cannot go on exactly with other options ({told}): start anew from the saved prior instead"
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

        self.step = int(about["step"])
        self.network.load_state_dict(part("network."))
        self.ema.network.load_state_dict(part("ema."))
        first, second = part("exp_avg."), part("exp_avg_sq.")
        for name, parameter in self.network.named_parameters():
            if name in first:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=parameter.device),
                    # In the parameter's own memory order: fused AdamW reads both as flat memory.
                    "exp_avg": torch.empty_like(parameter).copy_(first[name]).detach(),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(second[name]).detach(),
                }
        self._cut_log()

    def _cut_log(self) -> None:
        """Drops what an interrupted run logged after its last checkpoint."""
        path = self.out / LOG
        if self.accelerator.is_main_process and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A line without its end was being written when the run was interrupted.
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.step]
            write_atomically(path, lambda p: p.write_text("".join(kept), encoding="utf-8"))

    def _log(self, recent: list[float], since: float) -> None:
        first = self.step - len(recent) + 1
        seconds = round(time.monotonic() - since, 1)
        for number, value in enumerate(recent, first):
            self._note(
                {"step": number, "loss": value, **({"seconds": seconds} if number == self.step else {})}
            )

    def _note(self, entry: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def _sample(self) -> None:
        from restore.images import write_image
        from restore.plots import grid
        from restore.solve import sample

        size = self.options.crop
        pictures = sample(
            self.prior(), (16, self.crops.channels, size, size), steps=50, seed=0, progress=False
        )
        write_image(self.out / "samples" / f"{self.step:07d}.png", grid(pictures))


def train(
    photos: str | Path,
    out: str | Path,
    *,
    network: nn.Module | None = None,
    init: str | Path | None = None,
    schedule: Schedule | None = None,
    channels: int = 3,
    device: str | torch.device | None = None,
    resume: bool = False,
    progress: bool = True,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Prior:
    """Trains a prior on a folder of pictures and saves it.

    Args:
        photos: A folder of pictures of any size, searched with its sub-folders. Sub-folders whose name ends in
            ``-val``, and every twentieth of the other pictures, are only used for validation.
        out: The folder that the prior is written to; :func:`restore.load_prior` loads it.
        network: What to train; by default the network of the prior in the package, from random weights.
        init: A prior folder to take the weights to start with from (a new run, unlike ``resume``).
        schedule: The noise schedule; DDPM's linear one by default.
        channels: 3 for colour, 1 for grey pictures, where ``network`` is not given.
        device: Where to train; a GPU where there is one, by default.
        resume: Go on exactly from the state in ``out``.
        progress: Show a bar with the loss.
        config: Written into the prior's ``config.json`` (name, data, licence).
        **options: See :class:`TrainingOptions`, e.g. ``steps=20_000, batch=32``.

    Returns:
        The trained prior.

    Raises:
        TypeError: If an option is not known; the message lists the known ones.
        FileNotFoundError: If there are no pictures, or nothing to resume.
        FileExistsError: If ``out`` holds a training already.
        ValueError: If an option's value makes no sense or no picture is as large as a crop.
    """
    known = [f.name for f in fields(TrainingOptions)]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise TypeError(f"unknown training option {unknown[0]!r}; known are {', '.join(known)}")
    chosen = TrainingOptions(**options)
    if (Path(out) / STATE).exists() and not resume:  # Before minutes of decoding pictures.
        raise FileExistsError(
            f"{str(out)!r} holds a training already: resume it (--resume) or choose another folder"
        )
    paths, held_out = split(find_images(photos), root=photos)
    if network is None:
        from restore.networks import photo_unet

        with torch.random.fork_rng(
            devices=[]
        ):  # The caller's random numbers go on as if nothing had been drawn.
            torch.manual_seed(chosen.seed)
            network = photo_unet(image_channels=channels)
    if init is not None:
        load_weights(network, Path(init) / "model.safetensors")
    where = _device(device)
    crops = Crops(paths, chosen.crop, channels=channels, device=where, flip=chosen.flip, scales=chosen.scales)
    validation = None
    if held_out and chosen.validate_every:
        validation = Crops(
            held_out, chosen.crop, channels=channels, device=where, flip=False, scales=chosen.scales
        )
    trainer = Trainer(
        network,
        crops,
        out,
        chosen,
        schedule=schedule,
        validation=validation,
        resume=resume,
        progress=progress,
        config=config,
    )
    return trainer.run()


def _device(device: str | torch.device | None) -> torch.device:
    """Where to train: as asked for; with several processes, each has a GPU of its own."""
    from accelerate import PartialState

    where = (
        torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device is None
        else torch.device(device)
    )
    if where.type == "cuda" and where.index is None:
        own = torch.device(PartialState().device)
        where = (
            own
            if own.type == "cuda" and own.index is not None
            else torch.device("cuda", torch.cuda.current_device())
        )
    return where


def _computes_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Emulated bf16 is many times slower than float32.
        asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(ask is not None and ask() for ask in asked)
    return False


class _Interruption:
    """Ctrl-C ends a training between two updates, so that what is saved can be gone on from exactly.

    A second Ctrl-C stops at once. Only the main thread is told of signals; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        self.end()

    def end(self) -> None:
        """Ctrl-C does again what it did before."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
