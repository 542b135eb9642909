"""Dead leaves: synthetic pictures of things that hide each other, a known substitute for photographs in training.

Opaque leaves fall on the picture, each at a uniform place and with a radius of density ``r^-3``, until nothing else is
seen. That law alone is scale-invariant, and gives the statistics of photographs: a power spectrum near ``f^-2`` and
contrasts with heavy tails (*Occlusion Models for Natural Images: A Statistical Study of a Scale-Invariant Dead Leaves
Model*, 2001, doi 10.1023/A:1011109015675). Networks that were trained on such pictures alone repair photographs nearly
as well as those that were trained on photographs (*Synthetic Images as a Regularity Prior for Image Restoration Neural
Networks*, 2021; *Fully Synthetic Training for Image Restoration Tasks*, 2023).

Here leaves are discs, ellipses, polygons and lobed shapes, flat, shaded, or with a texture. Every picture has its own
colours, its own smallest leaf, and a lens: what lies below may be out of focus, and no edge is sharper than a pixel.
"""

from __future__ import annotations

import math

import numpy as np

OVERSAMPLING = 2  # Pixels are drawn at twice the resolution, and averaged.
LAYERS = 5.0  # Leaves over every point, on average: all but exp(-5) of the picture is covered.
POINTS = 32  # Of a leaf's outline.
REACH = 4.0  # No outline reaches farther from its centre, in radii.
FRACTION = 4  # Bits of OpenCV's coordinates after the point.
PLAIN = 5.0  # Radius, in pixels, below which a leaf is too small to show shading or texture.
# Luma, warm against cold, green against magenta: nearly uncorrelated in photographs, with these deviations (of 1).
DEVIATIONS = (0.22, 0.09, 0.03)
TO_RGB = np.array([[1.0, 1.0, -0.5], [1.0, 0.0, 1.0], [1.0, -1.0, -0.5]])


def dead_leaves(
    size: int | tuple[int, int] = 256,
    seed: int = 0,
    *,
    colours: np.ndarray | None = None,
    smallest: float | None = None,
) -> np.ndarray:
    """One dead-leaves picture.

    Args:
        size: Its side, or ``(height, width)``, in pixels; at least 8.
        seed: The same seed gives the same picture.
        colours: Colours to draw the leaves' from, ``(N, 3)`` uint8, e.g. the pixels of a photograph; by default
            random ones, which differ in luma most, as those of photographs do.
        smallest: Radius of the smallest leaf, in pixels; by default random, from 1 to a thirty-second of the side.

    Returns:
        ``(height, width, 3)`` uint8.

    Raises:
        ValueError: If ``size``, ``seed``, ``colours`` or ``smallest`` is not as above.

    Example:
        >>> picture = dead_leaves(64, seed=3)
        >>> picture.shape, bool((picture == dead_leaves(64, seed=3)).all())
        ((64, 64, 3), True)
    """
    import cv2

    height, width = (size, size) if isinstance(size, int) else size
    short, largest = min(height, width), max(height, width) / 2
    if short < 8:
        raise ValueError(f"size must be at least 8 pixels, not {size}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, not {seed}")
    if colours is not None and (colours.dtype != np.uint8 or colours.ndim != 2 or colours.shape[1:] != (3,)):
        raise ValueError(
            f"colours must be (N, 3) of dtype uint8, not {colours.shape} of dtype {colours.dtype}"
        )
    if colours is not None and not len(colours):
        raise ValueError("colours must hold at least one")
    rng = np.random.default_rng(seed)
    chosen = math.exp(rng.uniform(0, math.log(max(1.0, short / 32))))
    if smallest is not None and not 0.5 <= smallest < largest:
        raise ValueError(f"smallest must be at least 0.5 and below {largest:g} pixels, not {smallest}")
    drawn = (height * OVERSAMPLING, width * OVERSAMPLING)
    pile = _Pile(rng, drawn, OVERSAMPLING * (smallest or chosen), OVERSAMPLING * largest, colours)
    canvas: np.ndarray = np.empty((*drawn, 3), np.uint8)
    canvas[:] = pile.colours[0]
    # How much of the picture the leaves above the plane of focus cover: 1 - exp(-layers).
    focus, defocus = rng.uniform(0.1, 1.5), OVERSAMPLING * max(0.0, rng.uniform(-4.0, 3.0))
    last_blurred = int(len(pile.radii) * (1 - focus / LAYERS))
    for number in range(len(pile.radii)):
        if number == last_blurred and defocus > 0.2:
            canvas = cv2.GaussianBlur(canvas, (0, 0), defocus)
        pile.drop(canvas, number)
    canvas = cv2.GaussianBlur(canvas, (0, 0), OVERSAMPLING * rng.uniform(0.15, 0.5))
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA))


def radii(rng: np.random.Generator, count: int, smallest: float, largest: float) -> np.ndarray:
    """Radii of density proportional to ``r^-3`` between two bounds: the one law under which no scale is special.

    Example:
        >>> r = radii(np.random.default_rng(0), 10_000, 1.0, 100.0)
        >>> bool(abs((r > 10).mean() - 0.01) < 0.003)                  # A hundredth is ten times as large.
        True
    """
    u = rng.random(count)
    return np.asarray((u * largest**-2.0 + (1 - u) * smallest**-2.0) ** -0.5)


class _Pile:
    """The leaves of one picture, from the lowest to the uppermost, in pixels of the canvas."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        smallest: float,
        largest: float,
        colours: np.ndarray | None,
    ) -> None:
        self.rng = rng
        # Leaves whose centre lies outside count, too: the picture is a window of an endless pile.
        around = np.array(shape) + 2 * largest
        area = 2 * math.pi * math.log(largest / smallest) / (smallest**-2.0 - largest**-2.0)
        count = math.ceil(LAYERS * around.prod() / area)
        r, centres = radii(rng, count, smallest, largest), rng.random((count, 2)) * around - largest
        near = ((centres + REACH * r[:, None] > 0) & (centres - REACH * r[:, None] < shape)).all(1)
        self.radii, self.centres = r[near], centres[near]
        outlines = self.centres[:, None] + self.radii[:, None, None] * _outlines(rng, len(self.radii))
        self.low, self.high = outlines.min(1), outlines.max(1)
        self.seen = ((self.high > 0) & (self.low < shape)).all(1)
        self.outlines = np.rint(outlines[..., ::-1] * 2**FRACTION).astype(np.int32)
        self.colours = _colours(rng, len(self.radii) + 1, colours)
        self.fields = [_field(rng, shape) for _ in range(4)]

    def drop(self, canvas: np.ndarray, number: int) -> None:
        """Paints a leaf over what lies there already."""
        import cv2

        if not self.seen[number]:
            return
        outline, colour = self.outlines[number], self.colours[number]
        if self.radii[number] < PLAIN * OVERSAMPLING:
            cv2.fillPoly(canvas, [outline], colour.tolist(), cv2.LINE_AA, FRACTION)
            return
        top, left = np.maximum(np.floor(self.low[number]).astype(int) - 1, 0)
        bottom, right = np.ceil(self.high[number]).astype(int) + 2
        below = canvas[top:bottom, left:right]
        mask = np.zeros(below.shape[:2], np.uint8)
        offset = (-int(left) << FRACTION, -int(top) << FRACTION)
        cv2.fillPoly(mask, [outline + np.array(offset, np.int32)], 255, cv2.LINE_AA, FRACTION)
        painted = self.surface(number, top, left, mask.shape)
        share = mask[..., None] * np.float32(1 / 255)
        below[:] = np.rint(below + share * (painted - below))

    def surface(self, number: int, top: int, left: int, shape: tuple[int, ...]) -> np.ndarray:
        """The colours of a leaf with its texture and shading, ``(H, W, 3)`` float32 from 0 to 255."""
        rng, r = self.rng, self.radii[number]
        y, x = np.ogrid[: shape[0], : shape[1]]
        y = ((top + y - self.centres[number][0]) / r).astype(np.float32)
        x = ((left + x - self.centres[number][1]) / r).astype(np.float32)
        kind = rng.choice(["flat", "grating", "noise", "blotches"], p=[0.35, 0.15, 0.3, 0.2])
        field = self.fields[rng.integers(len(self.fields))][top : top + shape[0], left : left + shape[1]]
        pattern: np.ndarray
        if kind == "grating":
            turn, waves = rng.uniform(0, 2 * math.pi), r / math.exp(rng.uniform(math.log(4), math.log(40)))
            phase = (
                2 * math.pi * waves * (math.cos(turn) * x + math.sin(turn) * y) + rng.uniform(0, 1.5) * field
            )
            sharpness = np.float32(rng.uniform(0.3, 5))
            pattern = np.tanh(sharpness * np.sin(phase + rng.uniform(0, 6)))
        elif kind == "noise":
            pattern = 0.7 * field
        elif kind == "blotches":
            pattern = np.tanh(rng.uniform(1, 8) * (field - rng.normal()))
        else:
            pattern = np.zeros_like(field)
        colour = self.colours[number].astype(np.float32)
        # A texture is another brightness, or another colour of the picture.
        other = colour * 0.4 if rng.random() < 0.7 else self.colours[rng.integers(len(self.colours))]
        depth = np.float32(min(1.0, 0.25 * math.exp(rng.normal(0, 0.7))))
        painted = colour + (depth * pattern[..., None]) * (other - colour).astype(np.float32)
        turn, slope = rng.uniform(0, 2 * math.pi), rng.normal(0, 0.25)
        light = 1 + np.clip(slope * (math.cos(turn) * x + math.sin(turn) * y), -0.6, 0.6)
        return np.clip(painted * light[..., None], 0, 255)


def _outlines(rng: np.random.Generator, count: int) -> np.ndarray:
    """Outlines ``(count, POINTS, 2)`` of about a unit disc's area, around 0: discs, ellipses, polygons, lobes."""
    angle = np.broadcast_to(np.linspace(0, 2 * math.pi, POINTS, endpoint=False), (count, POINTS))
    length = np.ones((count, POINTS))
    kind = rng.choice(4, size=(count, 1), p=[0.2, 0.2, 0.4, 0.2])
    # A polygon of n corners: n different angles among the points, with some irregularity.
    corners = rng.integers(3, 8, (count, 1))
    corner = np.arange(POINTS) * corners // POINTS
    jitter = np.take_along_axis(rng.uniform(-0.35, 0.35, (count, POINTS)), corner, 1)
    angle = np.where(kind == 2, 2 * math.pi * (corner + jitter) / corners, angle)
    # The area of a regular polygon is that of the disc times sin(2 pi / n) / (2 pi / n).
    length = np.where(kind == 2, length / np.sqrt(np.sinc(2 / corners)), length)
    for lobes in (2, 3, 5):
        wave = rng.normal(0, 0.4 / lobes, (count, 1)) * np.cos(
            lobes * angle + rng.uniform(0, 6.3, (count, 1))
        )
        length = np.where(kind == 3, length + wave, length)
    length = np.clip(length, 0.3, 1.6)
    long = np.where(kind == 0, 1.0, np.minimum(2.5, np.exp(np.abs(rng.normal(0, 0.45, (count, 1))))))
    x, y = long * length * np.cos(angle), length / long * np.sin(angle)
    turn = rng.uniform(0, 2 * math.pi, (count, 1))
    return np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y], -1)


def _colours(rng: np.random.Generator, count: int, given: np.ndarray | None) -> np.ndarray:
    """The leaves' colours, ``(count, 3)`` uint8: around the mean of this picture, with its contrast and saturation."""
    if given is not None:
        return np.asarray(given[rng.integers(len(given), size=count)])
    saturation, contrast = math.exp(rng.normal(-0.2, 0.5)), math.exp(rng.normal(0, 0.3))
    scale = np.array(DEVIATIONS) * [contrast, saturation, saturation]
    mean = rng.normal(0, 1, 3) * scale * [0.7, 0.8, 0.5]
    # Heavy tails: most colours are dull, a few are not.
    luma, *chroma = (mean + rng.standard_t(4, (count, 3)) * scale).T
    luma = 0.5 + 0.5 * np.tanh(2 * luma - 0.1)
    # What is nearly black or white has hardly a colour.
    opponent = np.stack([luma, *(4 * luma * (1 - luma) * chroma)], -1)
    return np.rint(255 * np.clip(opponent @ TO_RGB.T, 0, 1)).astype(np.uint8)


def _field(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Gaussian noise of unit variance, ``shape`` float32: of one band of waves, or of all with a power law."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    turn, stretch = rng.uniform(0, math.pi), math.exp(abs(rng.normal(0, 0.8)))
    u, v = math.cos(turn) * fx + math.sin(turn) * fy, math.cos(turn) * fy - math.sin(turn) * fx
    f = np.hypot(u * stretch, v / stretch)
    f[0, 0] = 1.0
    if rng.random() < 0.5:
        band = math.exp(rng.uniform(math.log(1 / 64), math.log(1 / 5)))
        gain = np.exp(-0.5 * (np.log(f / band) / 0.5) ** 2)
    else:
        gain = f ** -rng.uniform(0.6, 1.6)
    gain[0, 0] = 0.0
    noise = np.fft.irfft2(gain * np.fft.rfft2(rng.standard_normal(shape)), shape)
    return np.asarray(noise / max(float(noise.std()), 1e-12), np.float32)
