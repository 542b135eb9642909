"""
Fill in what is missing
=======================

Scratches, writing, a passer-by, dead pixels: some pixels of a picture are lost, and the others are right. Here we lose
some on purpose, so that we can look at what was there.
"""

import cv2
import matplotlib.pyplot as plt
import numpy as np
from skimage import data, restoration, transform

import restore
from operators import box_mask, freeform_mask
from restore import Mask
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
# A picture, and a mask
# ---------------------
#
# In a mask ``True`` means *measured*: these pixels are kept. (A mask that was drawn in an editor is usually the other
# way round, white where something is to be filled in; :func:`operators.mask_from_image` reads it.)

truth = transform.resize(data.chelsea()[20:276, 100:356], (SIZE, SIZE), anti_aliasing=True)
truth = (255 * truth).round().astype(np.uint8)

mask = (freeform_mask(SIZE, keep=0.85, seed=3) & box_mask(SIZE, (88, 78, 22, 22))).numpy()
damaged = np.where(mask[..., None], truth, 255)

# %%
# One call
# --------
#
# :func:`restore.inpaint` fills the holes, by the method that ``"auto"`` chooses unless told otherwise: DPIR where
# holes are narrow; DPS where one is wide, as here, and something has to be invented. ``seed`` makes the result
# repeatable: another seed is another draw.

filled = restore.inpaint(damaged, mask, seed=0, progress=False)

show({"damaged": damaged, "restore.inpaint": filled, "truth": truth})

# %%
# What was measured is not touched, to the last bit:

print("pixels that changed outside of the holes:", int((filled != damaged)[mask].sum()))

# %%
# Beside classical tools
# ----------------------
#
# Telea's fast marching, which is OpenCV's, and biharmonic inpainting, which is scikit-image's, continue what surrounds
# a hole smoothly. We measure the error in the holes alone: over the whole picture, every method would look good.


def hole_psnr(picture):
    """Peak signal-to-noise ratio over the filled pixels, in dB."""
    error = (picture.astype(float) - truth)[~mask]
    return 10 * np.log10(255**2 / np.mean(error**2))


telea = cv2.inpaint(damaged, (~mask).astype(np.uint8), 3, cv2.INPAINT_TELEA)
biharmonic = restoration.inpaint_biharmonic(damaged, ~mask, channel_axis=-1)
biharmonic = (255 * biharmonic).clip(0, 255).round().astype(np.uint8)

results = {"Telea": telea, "biharmonic": biharmonic, "restore.inpaint": filled}
show({f"{name}\n{hole_psnr(picture):.1f} dB": picture for name, picture in results.items()})

# %%
# The PSNR favours smooth fillings, since it is highest for the *mean* of all pictures that would fit. A draw has
# texture instead, and cannot know where each hair was. The look decides, too.
#
# Other methods
# -------------
#
# :func:`restore.solve` is the general call: a measurement, what made it, and a method with its options. Every method
# can fill holes. RePaint pastes the measured pixels into every step, and goes up and down again so that the rest comes
# to agree with them; SDEdit starts half way down, from noise on holes of mid-grey; DPIR draws nothing: it looks for the
# one picture that the network leaves as it is, which is smooth where little is known. :doc:`/guide/methods` tells what
# they cost.

y = truth * mask[..., None]
common = {"seed": 0, "progress": False}
results = {
    "dps, 100 calls": filled,
    "dpir": restore.solve(y, Mask(mask), "dpir", **common),
    "repaint": restore.solve(y, Mask(mask), "repaint", steps=50, jump=5, resamplings=3, **common),
    "sdedit": restore.solve(y, Mask(mask), "sdedit", steps=100, **common),
}

show({f"{name}\n{hole_psnr(picture):.1f} dB": picture for name, picture in results.items()})

# %%
# Several answers
# ---------------
#
# What is missing cannot be known; it can only be drawn. ``samples`` draws several fillings, of which the first is the
# one above. Their deviation shows where they disagree: never in what was measured.

draws = restore.inpaint(damaged, mask, samples=3, seed=0, progress=False)

show({f"draw {i + 1}": draw for i, draw in enumerate(draws)} | {"deviation": deviation_map(draws)})
