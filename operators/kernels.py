"""Point-spread functions: what a blur does to one bright point. All sum to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.arguments import as_generator, as_pair


def gaussian_kernel(std: float | Sequence[float], size: int | Sequence[int] | None = None) -> Tensor:
    """A Gaussian, sampled at the pixels' centres.

    Args:
        std: standard deviation in pixels, or ``(rows, columns)``; above 0.
        size: of the kernel, a side or ``(h, w)``; by default, odd and out to 4 standard deviations. The peak
            is at ``(h // 2, w // 2)``, so that no size shifts the picture.

    Returns:
        ``(h, w)`` float32, of sum 1.

    >>> gaussian_kernel(0.5, 3)
    tensor([[0.0113, 0.0838, 0.0113],
            [0.0838, 0.6193, 0.0838],
            [0.0113, 0.0838, 0.0113]])
    """
    stds = tuple(std) if isinstance(std, Sequence) else (std, std)
    if len(stds) != 2 or not all(0 < v < math.inf for v in stds):
        raise ValueError(f"std should be one number above 0, or two (rows, columns), in pixels; got {std!r}")
    h, w = as_pair([2 * math.ceil(4 * v) + 1 for v in stds] if size is None else size, "size")
    rows = torch.exp(-0.5 * ((torch.arange(h, dtype=torch.float64) - h // 2) / stds[0]) ** 2)
    columns = torch.exp(-0.5 * ((torch.arange(w, dtype=torch.float64) - w // 2) / stds[1]) ** 2)
    kernel = torch.outer(rows, columns)
    return (kernel / kernel.sum()).float()


def disk_kernel(radius: float, size: int | Sequence[int] | None = None) -> Tensor:
    """A uniform disk, the blur of a lens out of focus. Pixels on its edge count by the part that is covered.

    Args:
        radius: in pixels, above 0.
        size: of the kernel, a side or ``(h, w)``; by default the smallest odd one that holds the disk.

    Returns:
        ``(h, w)`` float32, of sum 1, centred on ``(h // 2, w // 2)``.

    >>> disk_kernel(1.0).shape
    torch.Size([3, 3])
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius should be above 0, in pixels; got {radius}")
    h, w = as_pair(2 * math.ceil(radius - 0.5) + 1 if size is None else size, "size")
    parts = 16  # sample points across a pixel
    offsets = (torch.arange(parts, dtype=torch.float64) + 0.5) / parts - 0.5
    rows = (torch.arange(h, dtype=torch.float64)[:, None] - h // 2 + offsets).reshape(-1, 1)
    columns = (torch.arange(w, dtype=torch.float64)[:, None] - w // 2 + offsets).reshape(1, -1)
    inside = (rows**2 + columns**2 <= radius**2).double()
    kernel = inside.reshape(h, parts, w, parts).mean((1, 3))
    if float(kernel.sum()) == 0:  # a disk smaller than the grid of sample points is a point
        kernel[h // 2, w // 2] = 1
    return (kernel / kernel.sum()).float()


def motion_kernel(
    size: int | Sequence[int] = 61,
    intensity: float = 0.5,
    *,
    length: float | None = None,
    angle: float | None = None,
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """The path of a shaking camera, after Boracchi and Foi (2012, doi:10.1109/TIP.2012.2192126).

    A point moves with inertia, is pulled back to where it started, is jostled all the time, and now and then
    is thrown into another direction; the kernel is how long it stayed in each pixel.

    Args:
        size: of the kernel, a side or ``(h, w)``.
        intensity: of the shake, in [0, 1]. 0 is a straight line.
        length: of the path in pixels, before it is made to fit the kernel; default: three quarters of the
            kernel's smaller side.
        angle: of the first direction, in degrees, counter-clockwise from the right; default: random.
        seed: an integer or a generator; None draws another path every time.

    Returns:
        ``(h, w)`` float32, of sum 1, its centre of mass at ``(h // 2, w // 2)``.

    >>> motion_kernel(5, intensity=0, length=4, angle=0)[2]
    tensor([0.1265, 0.2490, 0.2490, 0.2490, 0.1265])
    """
    h, w = as_pair(size, "size")
    if not 0 <= intensity <= 1:
        raise ValueError(f"intensity should be from 0 (a straight line) to 1; got {intensity}")
    length = 0.75 * min(h, w) if length is None else length
    if not 0 <= length < math.inf:
        raise ValueError(f"length should be in pixels and not negative; got {length}")
    generator = as_generator(seed)
    if angle is None:
        angle = 360 * float(torch.rand((), generator=generator, dtype=torch.float64))
    path = _shaken_path(length, math.radians(angle), intensity, generator)
    path = path - path.mean(0)
    # The path has to stay a pixel's share within the kernel, or it would be cut off.
    room = torch.tensor([(h - 1) // 2, (w - 1) // 2], dtype=torch.float64)
    extent = path.abs().amax(0).clamp_min(1e-12)
    path = path * float((room / extent).amin().clamp(max=1))
    kernel = torch.zeros(h, w, dtype=torch.float64)
    position = path + torch.tensor([h // 2, w // 2], dtype=torch.float64)
    corner = position.floor()
    share = position - corner
    # Each moment is shared between the four pixels around it, in proportion to how near they are.
    for down in (0, 1):
        for right in (0, 1):
            weight = (share[:, 0] if down else 1 - share[:, 0]) * (share[:, 1] if right else 1 - share[:, 1])
            row = (corner[:, 0].long() + down).clamp(0, h - 1)
            column = (corner[:, 1].long() + right).clamp(0, w - 1)
            kernel.index_put_((row, column), weight, accumulate=True)
    return (kernel / kernel.sum()).float()


def _shaken_path(length: float, heading: float, intensity: float, generator: torch.Generator) -> Tensor:
    """``(moments, 2)`` positions as (down, right), at constant speed."""
    moments = max(2, 64 * math.ceil(length) + 1)
    if intensity == 0:
        along = torch.linspace(-0.5, 0.5, moments, dtype=torch.float64) * length
        return torch.stack([-math.sin(heading) * along, math.cos(heading) * along], 1)
    steps = 2000  # of the shake itself, along a path of length 1
    dt = 1 / steps
    jolts = torch.randn(steps, 2, generator=generator, dtype=torch.float64).tolist()
    throws = torch.rand(steps, 2, generator=generator, dtype=torch.float64).tolist()
    down, right, position = -math.sin(heading), math.cos(heading), [0.0, 0.0]
    path = []
    for (jolt_down, jolt_right), (chance, turn) in zip(jolts, throws, strict=True):
        path.append(list(position))
        # About four throws a path at full intensity, each at least a quarter turn.
        if chance < 4 * intensity * dt:
            a = math.pi * (0.5 + turn)
            down, right = math.cos(a) * down - math.sin(a) * right, math.sin(a) * down + math.cos(a) * right
        down += intensity * (3 * math.sqrt(dt) * jolt_down - 4 * dt * position[0])
        right += intensity * (3 * math.sqrt(dt) * jolt_right - 4 * dt * position[1])
        speed = math.hypot(down, right) or 1.0
        down, right = down / speed, right / speed
        position[0] += dt * down
        position[1] += dt * right
    picked = torch.linspace(0, steps - 1, min(moments, steps), dtype=torch.float64).long()
    return length * torch.tensor(path, dtype=torch.float64)[picked]
