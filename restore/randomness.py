"""One generator per image, so that a result never depends on its batch.

Every image of a batch, and every draw for it, has a generator of its own, seeded by the image's seed and the
number of the draw alone. An image therefore gives the same result alone and in any batch, and the third draw is
the same whether three draws or thirty are taken.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def stream_seed(*numbers: int) -> int:
    """A seed that mixes several numbers, with no visible relation between neighbouring ones.

    Example:
        >>> stream_seed(0, 1) != stream_seed(1, 0)
        True
    """
    # Half of the 64 bits' sign range: torch takes seeds up to 2**63 on every device.
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Randomness:
    """Standard normal numbers with one stream per image.

    Args:
        seeds: One seed per image of the batch; each names a stream (see :func:`stream_seed`).
        device: Where the numbers are drawn. CPU and GPU streams differ.

    Example:
        >>> alone = Randomness([3]).normal((1, 2, 2))
        >>> batch = Randomness([5, 3]).normal((1, 2, 2))
        >>> bool((alone[0] == batch[1]).all())
        True
    """

    def __init__(self, seeds: Sequence[int], device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._copies = 1
        self._generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

    @classmethod
    def for_draws(
        cls, seed: int | Sequence[int] | None, images: int, samples: int, device: str | torch.device = "cpu"
    ) -> Randomness:
        """The streams of ``samples`` draws for each of ``images`` images, draw by draw.

        Args:
            seed: One seed for all images; or one per image; or None for a fresh one each.
            images: Number of images in the batch.
            samples: Number of draws for each.
            device: Where the numbers are drawn.

        Raises:
            ValueError: If the number of seeds is not the number of images, or a seed is negative.
            TypeError: If a seed is not a whole number.
        """
        if seed is None:
            per_image = [secrets.randbits(62) for _ in range(images)]
        elif isinstance(seed, Sequence) and not isinstance(seed, (str, bytes)):
            per_image = [whole_seed(s) for s in seed]
            if len(per_image) != images:
                raise ValueError(
                    f"got {len(per_image)} seeds for {images} images: give one seed, or one per image"
                )
        else:
            per_image = [whole_seed(seed)] * images
        return cls([stream_seed(s, draw) for draw in range(samples) for s in per_image], device)

    def __len__(self) -> int:
        return len(self._generators)

    def part(self, draws: Sequence[int], copies: int = 1) -> Randomness:
        """The streams of some of the pictures. They are shared: what one draws, the other does not see again.

        Args:
            draws: Which pictures.
            copies: How many states each picture has, one after the other in the batch; they share its stream.
        """
        some = Randomness([], self.device)
        some._generators, some._copies = [self._generators[i] for i in draws], copies
        return some

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Fresh standard normal numbers, float32, ``(B, *shape)``."""
        block = (self._copies, *shape)
        return torch.cat(
            [
                torch.randn(block, generator=g, device=self.device, dtype=torch.float32)
                for g in self._generators
            ]
        )

    def normal_like(self, x: Tensor) -> Tensor:
        """Fresh standard normal numbers of the shape and dtype of ``x`` ``(B, ...)``, on its device."""
        return self.normal(x.shape[1:]).to(x)


def whole_seed(seed: object) -> int:
    """A seed, as a number of Python's own.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"a seed is a whole number of at least 0, not {seed!r}")
    if seed < 0:
        raise ValueError(f"a seed is a whole number of at least 0, not {seed}")
    return int(seed)
