"""How to train: the options, and the learning rate that follows from them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from restore.spectrum import MEASURED


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. All have defaults that suit a small network for photographs.

    Attributes:
        steps: Number of weight updates.
        batch: Crops per update and process.
        crop: Side of the crops, in pixels. Batches take turns among several, as in ``"64,96,128"``, with fewer of the
            larger crops: ``batch`` is how many there are of the first.
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
        per_octave: At how many sizes a picture is kept per halving: 2 adds those between, at factors of 1.41.
        whole: Share of the crops that show nearly a whole picture, reduced to the crop's size, below 1.
        scenes: Share of the crops, below 1, that are of pictures with at least four times a crop's side, reduced to
            two, three and four times it.
        dead_leaves: Share of the crops that come from synthetic dead-leaves pictures, below 1.
        spectrum: At high noise, the trained prior estimates with a Gaussian of the crops' mean colour and spectrum, in
            place of the network: for pictures of many things, not for faces that are all in one place.
        colours: Train a prior of colours for a given luma (restore.colours), which colours grey pictures.
        dropout: Share of the features in each block that are left out of an update, against learning pictures by heart.
        seed: Seed of everything.
        save_every: Updates between checkpoints.
        sample_every: Updates between pictures of samples; 0 for none.
        validate_every: Updates between validations; 0 for none.
    """

    steps: int = 100_000
    batch: int = 16
    crop: int | str = 64
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
    per_octave: int = 1
    whole: float = 0.0
    scenes: float = 0.0
    dead_leaves: float = 0.0
    spectrum: bool = False
    colours: bool = False
    dropout: float = 0.0
    seed: int = 0
    save_every: int = 1000
    sample_every: int = 5000
    validate_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "save_every", "per_octave"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", str(self.crop)):
            raise ValueError(f"crop must be at least 1, or several like '64,96,128', not {self.crop!r}")
        if len(self.sides) == 1:  # "64" of a command line is 64, and goes on where 64 stopped.
            object.__setattr__(self, "crop", self.sides[0])
        shares = ("whole", "scenes", "dead_leaves")
        for name in (*shares, "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if sum(getattr(self, name) for name in shares) >= 1:
            raise ValueError(
                f"{', '.join(shares)} are shares of the same crops, and leave none for others: "
                f"{', '.join(str(getattr(self, name)) for name in shares)}"
            )
        if self.spectrum and self.sides[0] < MEASURED:
            raise ValueError(
                f"a spectrum is measured of crops of at least {MEASURED} pixels, not {self.sides[0]}: "
                f"choose another crop"
            )
        if self.spectrum and self.colours:
            raise ValueError(
                "spectrum is for priors of pictures, and colours makes one of colours: choose one of them"
            )
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

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides that crops have, in pixels."""
        return tuple(map(int, str(self.crop).split(",")))

    def rate(self, step: int) -> float:
        """The learning rate of update ``step`` (from 0): linear warm-up, constant, linear decay to 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        last = self.decay * self.steps
        fall = min(1.0, (self.steps - step) / last) if last else 1.0
        return self.learning_rate * rise * fall
