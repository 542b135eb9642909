"""Training pictures: a folder of images of any size, as random crops that are ready on the device.

All pictures lie as one flat uint8 buffer on the training device, each at a few scales, and a batch is one
gather from it. Nothing is decoded, copied or converted on the host while training runs, so a fast GPU
never waits. The photographs of a few thousand files take well under a gigabyte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.deadleaves import dead_leaves as dead_leaves_picture
from restore.randomness import stream_seed

LEAVES_SIDE = 256  # Of dead-leaves pictures, in pixels; larger for crops of more than half of it.
#: Nearly whole pictures are kept with a crop's side as their shorter one, and with so many pixels more.
WHOLE_MARGIN = 16
#: Scenes are kept with so many times a crop's side as their shorter one.
SCENES = (2, 3, 4)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"})


def find_images(folder: str | Path) -> list[Path]:
    """All picture files below a folder, sorted by path, so that every machine sees the same order.

    Args:
        folder: A folder, searched with its sub-folders; or one picture.

    Raises:
        FileNotFoundError: If the folder does not exist, or holds no picture.
    """
    root = Path(folder).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}; give a folder of pictures")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not paths:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise FileNotFoundError(
            f"no pictures in {str(root)!r} or its sub-folders; files ending in {known} count"
        )
    return paths


def split(
    paths: Sequence[Path], every: int = 20, root: str | Path | None = None
) -> tuple[list[Path], list[Path]]:
    """Training and validation pictures.

    Sub-folders whose name ends in ``-val`` are for validation, and so is every twentieth of the other pictures.

    Args:
        paths: Picture files, sorted.
        every: Which share of the others to hold out; fewer pictures than this hold out none.
        root: The folder that the pictures were found in, whose own name and place say nothing.

    Example:
        >>> train, val = split([Path(f"a/{i}.png") for i in range(40)] + [Path("b-val/0.png")])
        >>> len(train), len(val)
        (38, 3)
    """
    above = len(Path(root).expanduser().parts) if root is not None else 0
    named = [p for p in paths if any(part.endswith("-val") for part in p.parts[above:-1])]
    chosen = set(named)
    others = [p for p in paths if p not in chosen]
    held_out = others[every - 1 :: every]
    chosen |= set(held_out)
    return [p for p in others if p not in chosen], named + held_out


@dataclass(frozen=True)
class _Source:
    """Pictures ``(H, W, C)``, and what share of the crops comes from them; where ``side`` is set, of that side only."""

    images: Sequence[np.ndarray]
    share: float
    side: int | None = None


class Crops:
    """Random crops from pictures that are held as uint8 on the device.

    Every picture is kept at full size and at halved sizes as long as a crop fits, because a prior should know
    things near and far. A picture is drawn with a probability proportional to the square root of its number of
    pixels: large pictures hold more to see, but much of it is sky.

    Args:
        paths: Picture files.
        size: Side of the square crops, in pixels; or several sides, for :meth:`batch` to choose from.
        channels: 3 for colour, 1 for grey.
        device: Where the pictures are held.
        flip: Mirror half of the crops.
        scales: How many times a picture may be halved (0: full size only).
        per_octave: At how many sizes a picture is kept per halving: 2 adds those between, at factors of 1.41.
        whole: Share of the crops that show nearly a whole picture, below 1: for each size of crops, pictures are also
            kept with that as their shorter side, and with 16 pixels more.
        scenes: Share of the crops that show a large part of a large picture, below 1: for each size of crops, pictures
            that are at least four times as large are also kept at 2, 3 and 4 times it.
        dead_leaves: Share of the crops that come from dead-leaves pictures (:mod:`restore.deadleaves`) in the
            colours of the photographs, below 1. As many are made as have that share of the photographs' pixels.
        seed: Seed of the dead leaves.
        progress: Show a bar while they are made.

    Raises:
        ValueError: If no picture is at least ``size`` pixels high and wide, or a file is damaged.

    Example:
        >>> crops = Crops.from_arrays([np.zeros((20, 30, 3), np.uint8)], size=16)
        >>> crops.batch(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 16, 16])
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int | Sequence[int] = 64,
        *,
        channels: int = 3,
        device: str | torch.device = "cpu",
        flip: bool = True,
        scales: int = 2,
        per_octave: int = 1,
        whole: float = 0.0,
        scenes: float = 0.0,
        dead_leaves: float = 0.0,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        sides = (size,) if isinstance(size, int) else tuple(size)
        if not paths:
            raise ValueError(
                "no pictures to train on: all that were found are held out for validation, or there were none"
            )
        shares = {"whole": whole, "scenes": scenes, "dead_leaves": dead_leaves}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} is a share of the crops, from 0 to below 1, not {share}")
        if sum(shares.values()) >= 1:
            told = ", ".join(f"{name} ({share})" for name, share in shares.items())
            raise ValueError(f"{told} leave no crops for other pictures")
        with ThreadPoolExecutor() as pool:  # Decoding releases the interpreter lock.
            pyramids = list(pool.map(lambda p: _pyramid(p, min(sides), channels, scales, per_octave), paths))
        images = [image for pyramid in pyramids for image in pyramid]
        if not any(min(image.shape[:2]) >= max(sides) for image in images):
            raise ValueError(
                f"none of the {len(paths)} pictures is at least {max(sides)} pixels high and wide: "
                f"use larger pictures or smaller crops"
            )
        sources = [_Source(images, 1 - sum(shares.values()))]
        originals = [pyramid[0] for pyramid in pyramids if pyramid]
        for side in dict.fromkeys(sides):
            if whole:
                sources.append(_Source(_kept_at(originals, (side, side + WHOLE_MARGIN)), whole, side))
            if scenes:
                large = [image for image in originals if min(image.shape[:2]) >= max(SCENES) * side]
                if not large:
                    raise ValueError(
                        f"scenes ({scenes}) are of pictures of at least {max(SCENES) * side} pixels a side, for crops "
                        f"of {side}; there are none: leave scenes out, or take smaller crops"
                    )
                sources.append(_Source(_kept_at(large, [n * side for n in SCENES]), scenes, side))
        if dead_leaves:
            leaves = _leaves(images, dead_leaves, max(LEAVES_SIDE, 2 * max(sides)), seed, progress)
            sources.append(_Source(leaves, dead_leaves))
        self._fill(sources, sides, device, flip)

    @classmethod
    def from_arrays(
        cls, images: Sequence[np.ndarray], size: int, *, device: str | torch.device = "cpu", flip: bool = True
    ) -> Crops:
        """Crops from arrays ``(H, W, C)`` of dtype uint8, all with the same number of channels."""
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or min(image.shape[:2]) < size:
                raise ValueError(
                    f"expected arrays (H, W, C) of dtype uint8 with sides of at least {size}, "
                    f"got {image.shape} of dtype {image.dtype}"
                )
        if len({image.shape[2] for image in images}) != 1:
            raise ValueError("expected at least one array, all with the same number of channels")
        crops = cls.__new__(cls)
        crops._fill([_Source(images, 1.0)], (size,), device, flip)
        return crops

    def _fill(
        self, sources: Sequence[_Source], sides: tuple[int, ...], device: str | torch.device, flip: bool
    ) -> None:
        images = [image for source in sources for image in source.images]
        self.size, self.sides, self.flip, self.device = sides[0], sides, flip, torch.device(device)
        self.channels = images[0].shape[2]
        self.count = len(images)
        shapes = torch.tensor([image.shape[:2] for image in images])
        areas = shapes.prod(1)
        self._pixels = torch.from_numpy(
            np.concatenate([np.ascontiguousarray(i).reshape(-1) for i in images])
        ).to(device)
        self._starts = (torch.cumsum(areas, 0) - areas).mul(self.channels).to(device)
        self._shapes = shapes.to(device)
        # Which picture: a uniform number against these edges. float64, since small pictures have small shares.
        self._drawn = {}
        for side in sides:
            chances = areas.double().sqrt() * (shapes >= side).all(1)
            first = 0
            for source in sources:
                part = chances[first : first + len(source.images)]
                part *= source.share / part.sum() if source.side in (None, side) else 0
                first += len(source.images)
            (used,) = chances.nonzero(as_tuple=True)
            self._drawn[side] = used.to(device), torch.cumsum(chances[used] / chances.sum(), 0).to(device)

    def __len__(self) -> int:
        return self.count

    def batch(self, count: int, generator: torch.Generator, size: int | None = None) -> Tensor:
        """Random crops.

        Args:
            count: How many.
            generator: Decides which; on the device of the pictures.
            size: Their side, one of ``sides``; by default the first.

        Returns:
            ``(count, C, size, size)`` float32 in [-1, 1] on the device.
        """
        size = size or self.size
        u = torch.rand(4, count, device=self.device, generator=generator, dtype=torch.float64)
        large, edges = self._drawn[size]
        which = large[torch.searchsorted(edges, u[0]).clamp_(max=len(large) - 1)]
        height, width = self._shapes[which].unbind(1)
        top = (u[1] * (height - size + 1)).long()
        left = (u[2] * (width - size + 1)).long()
        line = torch.arange(size, device=self.device)
        rows = top[:, None] + line
        columns = left[:, None] + line
        if self.flip:
            columns = torch.where((u[3] < 0.5)[:, None], columns, columns.flip(1))
        pixel = rows[:, :, None] * width[:, None, None] + columns[:, None, :]
        index = self._starts[which][:, None, None] + pixel * self.channels
        channel = torch.arange(self.channels, device=self.device)[:, None, None]
        crops = self._pixels[index[:, None] + channel]
        return crops.float().div_(127.5).sub_(1)


def _leaves(
    images: Sequence[np.ndarray], share: float, side: int, seed: int, progress: bool
) -> list[np.ndarray]:
    """Dead-leaves pictures in the colours of pictures, with ``share`` times as many pixels as those have."""
    from PIL import Image
    from tqdm import tqdm

    channels = images[0].shape[2]
    count = math.ceil(share * sum(image.shape[0] * image.shape[1] for image in images) / side**2)
    made = []
    for number in tqdm(range(count), desc="dead leaves", disable=not progress or not count):
        own = stream_seed(seed, number)
        colours = images[own % len(images)].reshape(-1, channels)
        leaves = dead_leaves_picture(side, own, colours=np.repeat(colours, 3 // channels, 1))
        made.append(leaves if channels == 3 else np.asarray(Image.fromarray(leaves).convert("L"))[..., None])
    return made


def _kept_at(images: Sequence[np.ndarray], sides: Sequence[int]) -> list[np.ndarray]:
    """Pictures with each of these as their shorter side, where they are as large."""
    reduced = (_reduced(image, side) for image in images for side in sides)
    return [image for image in reduced if image is not None]


def _reduced(pixels: np.ndarray, least: int) -> np.ndarray | None:
    """A picture with a shorter side of ``least``; nothing if it is smaller."""
    from PIL import Image

    factor = least / min(pixels.shape[:2])
    if factor > 1:
        return None
    shape = [max(least, round(n * factor)) for n in pixels.shape[1::-1]]
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    return _with_channels(np.asarray(image.resize((shape[0], shape[1]), Image.Resampling.LANCZOS)))


def _pyramid(path: Path, size: int, channels: int, scales: int, per_octave: int) -> list[np.ndarray]:
    """A picture, and its smaller versions as long as a crop fits, as arrays ``(H, W, C)``."""
    from PIL import Image

    from restore.images import read_image

    pixels = read_image(path, mode="RGB" if channels == 3 else "L")
    if pixels.dtype != np.uint8:
        pixels = np.rint(
            pixels / 257.0 if pixels.dtype == np.uint16 else np.clip(pixels, 0, 1) * 255.0
        ).astype(np.uint8)
    octave = image = Image.fromarray(pixels)
    levels = []
    for level in range(scales * per_octave + 1):
        part = level % per_octave
        if level and not part:
            octave = octave.resize((octave.width // 2, octave.height // 2), Image.Resampling.LANCZOS)
        factor = 2 ** (-part / per_octave)
        image = octave
        if part:
            shape = (round(octave.width * factor), round(octave.height * factor))
            image = octave.resize(shape, Image.Resampling.LANCZOS)
        if min(image.size) < size:
            break
        levels.append(_with_channels(np.asarray(image)))
    return levels


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    """A picture ``(H, W, C)``, where a grey one is ``(H, W)``."""
    return pixels if pixels.ndim == 3 else pixels[..., None]
