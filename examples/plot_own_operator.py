"""
A measurement of your own
=========================

A camera with one number where others have five: every block of 8 x 8 pixels is measured by a dozen random patterns, as
a single-pixel camera does it. The package has no such operator, and need not have it: ``forward`` is all that has to
be written, and everything else follows from it.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data, transform

import restore
from operators import dot_test
from restore import FromCallable, LinearOperator
from restore.metrics import coverage, data_misfit, psnr
from restore.plots import deviation_map

SIZE, SIGMA = 128, 0.02


def show(pictures):
    """Pictures beside each other, with their titles."""
    widths = [np.shape(picture)[1] / np.shape(picture)[0] for picture in pictures.values()]
    _, axes = plt.subplots(
        1, len(widths), figsize=(2.2 * sum(widths), 2.6), width_ratios=widths, layout="constrained"
    )
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    plt.show()


def numpy_picture(x):
    """``(C, H, W)`` in [0, 1] as ``(H, W, C)`` uint8."""
    return (255 * x.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()


# %%
# The operator
# ------------
#
# Images come as ``(B, C, H, W)`` floats. The measurement may have any shape ``(B, C', H', W')``; where it is not the
# image's, ``image_shape`` has to tell the image's shape from it. What the operator holds is a buffer, so that
# ``.to(device)`` moves it.


class BlockCamera(LinearOperator):
    """Random patterns of +1 and -1, the same ones for every block and every channel."""

    def __init__(self, patterns=12, block=8, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (patterns, 1, block, block), generator=generator) * 2.0 - 1
        self.register_buffer("patterns", signs / block)
        self.block = block

    def forward(self, x):
        """Slides in steps of one block: ``(B, C, H, W)`` to ``(B, C * patterns, H / block, W / block)``."""
        blocks = torch.nn.functional.conv2d(x.flatten(0, 1)[:, None], self.patterns.to(x), stride=self.block)
        return blocks.unflatten(0, x.shape[:2]).flatten(1, 2)

    def image_shape(self, measurement_shape):
        channels, rows, columns = measurement_shape
        return channels // len(self.patterns), rows * self.block, columns * self.block


camera = BlockCamera()
print(f"adjoint, by autograd: the dot test is off by {dot_test(camera.double(), (3, 32, 32)):.0e}")
camera = camera.float()

# %%
# Measure
# -------

truth = transform.resize(data.chelsea()[20:276, 100:356], (SIZE, SIZE), anti_aliasing=True)
truth = torch.from_numpy(truth).float().permute(2, 0, 1)

generator = torch.Generator().manual_seed(0)
y = camera(truth[None])[0]
y = y + SIGMA * torch.randn(y.shape, generator=generator)
print(f"{truth.numel()} numbers in the picture, {y.numel()} in the measurement")

# %%
# The classical answer
# --------------------
#
# The pseudo-inverse is the smallest picture that fits. It came with the operator, by conjugate gradients. ``prox`` is
# its regularised kin: the picture that is nearest to a given one, here to mid-grey, and fits up to the noise.

grey = torch.full((1, *truth.shape), 0.5)
inverse = camera.pinv(y[None])[0]
ridge = camera.prox(y[None], grey, lam=SIGMA**2 * 12)[0]

# %%
# Draws from the posterior
# ------------------------
#
# DPS needs the gradient of the misfit only, so it takes any operator. ``samples`` draws several pictures that the prior
# finds likely and that agree with the measurement. They come as the measurement came: torch, ``(n, C, H, W)``.

draws = restore.solve(y, camera, "dps", noise=SIGMA, steps=40, samples=3, seed=0, progress=False)
mean = draws.mean(0)

results = {"pseudo-inverse": inverse, "ridge": ridge, "draw 1": draws[0], "mean of 3": mean}
print("                  PSNR   misfit (1: all that is left is noise)")
for name, x in results.items():
    x = x.clamp(0, 1)
    print(f"{name:15} {psnr(x, truth):7.2f}  {data_misfit(x, y, camera, noise=SIGMA):7.2f}")

show({name: numpy_picture(x) for name, x in results.items()} | {"truth": numpy_picture(truth)})

# %%
# How sure is it?
# ---------------
#
# The draws differ where the measurement leaves the picture open. Were they draws from the true posterior, the truth
# would lie between the lowest and the highest of three draws at half of the pixels; the share found tells how far to
# trust them. (Three draws are few: for maps that you rely on take more.)

inside = coverage(draws, truth, level=0.5)
print(f"true values within the range of the draws: {inside:.0%}, expected 50%")

show({f"draw {i + 1}": numpy_picture(x) for i, x in enumerate(draws)} | {"deviation": deviation_map(draws)})

# %%
# A measurement that is not linear
# --------------------------------
#
# Any differentiable function will do. Film answers to light less and less: in its bright parts, much light makes little
# difference, and there the plain inverse turns noise of the scan into large errors.

SCAN = 0.03


def film(x):
    """Density of a film for light in [0, 1]."""
    return 1 - torch.exp(-4 * x)


bright = transform.resize(data.astronaut()[0:256, 96:352], (SIZE, SIZE), anti_aliasing=True)
bright = torch.from_numpy(bright).float().permute(2, 0, 1)
y = film(bright) + SCAN * torch.randn(bright.shape, generator=generator)

inverse = -torch.log((1 - y).clamp(min=1e-3)) / 4
x = restore.solve(y, FromCallable(film), "dps", noise=SCAN, steps=40, seed=0, progress=False)

show(
    {
        "measured\n": numpy_picture(y),
        f"inverse\n{psnr(inverse.clamp(0, 1), bright):.1f} dB": numpy_picture(inverse),
        f"dps\n{psnr(x, bright):.1f} dB": numpy_picture(x),
        "truth\n": numpy_picture(bright),
    }
)

# %%
# Methods that need more than a gradient say so before any work is done:

try:
    restore.solve(y, FromCallable(film), "ddnm")
except ValueError as error:
    print(error)
