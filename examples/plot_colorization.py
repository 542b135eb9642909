"""
Give a grey picture colours
===========================

A grey picture has one number where a colour picture has three. Which colours it had cannot be known; a prior over
colour photographs can draw plausible ones. No classical tool does this, so the grey picture itself is what we compare
with.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import color, data, transform

import restore
from operators import Grayscale, Mask, random_mask
from restore.metrics import psnr
from restore.plots import deviation_map

SIZE = 128


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


# %%
# A picture, and its luma
# -----------------------

truth = transform.resize(data.coffee()[30:390, 120:480], (SIZE, SIZE), anti_aliasing=True)
truth = truth.astype(np.float32)
luma = Grayscale("luma")
grey = luma(torch.from_numpy(truth).permute(2, 0, 1)[None])[0, 0].numpy()

# %%
# One call
# --------
#
# Here pictures are floats in [0, 1]; what comes in decides what goes out. ``grey`` has shape ``(H, W)``, each draw
# ``(H, W, 3)``. One call makes several draws.

draws = restore.colorize(grey, samples=4, seed=0, progress=False)

print("shapes:", grey.shape, "to", draws.shape)
show({"grey": 255 * grey} | {f"draw {i + 1}": draw for i, draw in enumerate(draws[:3])} | {"truth": truth})

# %%
# The luma of each draw is the picture that was given, up to what clipping to [0, 1] costs:

again = luma(torch.from_numpy(draws).permute(0, 3, 1, 2))[:, 0].numpy()
print(f"largest difference of the luma: {255 * abs(again - grey).max():.3f} grey levels")

# %%
# How far from the truth?
# -----------------------
#
# A draw that gives a red cup blue paint is plausible, and wrong. So the grey picture, which dares nothing, is often
# nearer to the truth in PSNR than a draw is. The mean of the draws dares less than each of them.

flat = np.repeat(grey[..., None], 3, axis=-1)
mean = draws.mean(0)


def chroma(picture):
    """How colourful a picture is: the mean distance from grey in CIELAB."""
    return np.hypot(*np.moveaxis(color.rgb2lab(picture)[..., 1:], -1, 0)).mean()


for name, picture in {"grey": flat, "draw 1": draws[0], "mean of 4": mean, "truth": truth}.items():
    error = "    " if picture is truth else f"{psnr(picture, truth):4.1f}"
    print(f"{name:10} PSNR {error} dB   chroma {chroma(picture):4.1f}")

show({"draw 4": draws[3], "mean of 4": mean, "truth": truth, "deviation of the draws": deviation_map(draws)})

# %%
# The deviation shows where the draws disagree about the colour. The darkest and the brightest parts have little room
# for it: there are few colours whose luma is near black or white.
#
# With a hint
# -----------
#
# You may know some of the colours: the cup was red. Then say so. The prior of colours in the package is told the luma,
# and is then a prior like any other, of the pictures that have this luma; what is left to measure is the colour of one
# pixel in fifty. DPS asks by the network's gradient how the known colours speak of those beside them, and so they
# spread over the things that they are on.

colours = restore.load_prior("colours").given(torch.from_numpy(2 * grey - 1)[None, None])
known = random_mask(SIZE, keep=0.02, seed=0)
y = known * torch.from_numpy(truth).permute(2, 0, 1)
hinted = restore.solve(y, Mask(known), "dps", prior=colours, seed=0, progress=False)
hinted = hinted.permute(1, 2, 0).numpy()

hints = np.where(known.numpy()[..., None], truth, 1)
print(f"PSNR without hints {psnr(draws[0], truth):.1f} dB, with hints {psnr(hinted, truth):.1f} dB")

show({"grey": 255 * grey, "hints": hints, "without": draws[0], "with hints": hinted, "truth": truth})
