"""
Enlarge a picture
=================

A small picture has lost what lies between its pixels. Interpolation draws smooth lines there; a prior over pictures
draws what photographs have there, and the measurement keeps it honest: made small again, the result is what was given.
"""

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data, transform

import restore
from restore import Downsample
from restore.metrics import data_misfit, psnr, ssim
from restore.plots import deviation_map

SCALE, SIZE = 4, 160


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
# A picture, and a small one of it
# --------------------------------
#
# PIL makes the small picture, by its antialiased bicubic filter. :class:`operators.Downsample` is that same filter, as
# an operator with an exact transpose and inverse.

truth = transform.resize(data.coffee()[20:340, 180:500], (SIZE, SIZE), anti_aliasing=True)
truth = (255 * truth).round().astype(np.uint8)
small = np.asarray(Image.fromarray(truth).resize((SIZE // SCALE, SIZE // SCALE), Image.Resampling.BICUBIC))

print(
    f"the operator differs from PIL by {data_misfit(truth, small, Downsample(SCALE)):.2f} grey levels (PIL rounds)"
)

# %%
# One call
# --------

large = restore.super_resolve(small, SCALE, seed=0, progress=False)

show({"given": small, f"enlarged {SCALE} times": large, "truth": truth})

# %%
# Beside classical tools
# ----------------------
#
# The error against the truth is one thing. The other is whether a result agrees with what was given: the misfit is the
# root mean square difference between the given picture and the result made small again, in grey levels. The pictures
# show a part, enlarged.

results = {
    "bicubic": np.asarray(Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC)),
    "Lanczos": np.asarray(Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.LANCZOS)),
    "restore": large,
}
print("            PSNR   SSIM  misfit")
for name, picture in results.items():
    misfit = data_misfit(picture, small, Downsample(SCALE))
    print(f"{name:10} {psnr(picture, truth):5.2f}  {ssim(picture, truth):5.3f}   {misfit:5.2f}")

corner = np.s_[40:100, 60:120]
show({name: picture[corner] for name, picture in results.items()} | {"truth": truth[corner]})

# %%
# The PSNR is highest for the mean of all pictures that would fit, which is a smooth one. A draw is one of these
# pictures, and pays for its texture in PSNR, even where it looks better.
#
# A noisy picture
# ---------------
#
# Real small pictures are noisy, and interpolation enlarges the noise. :func:`restore.super_resolve` can be told how
# strong it is, in the units of the picture, and then does not take it for detail: the misfit should be near the noise,
# not near 0.

SIGMA = 8.0
noisy = small + np.random.default_rng(0).normal(scale=SIGMA, size=small.shape)
noisy = noisy.clip(0, 255).round().astype(np.uint8)

bicubic = np.asarray(Image.fromarray(noisy).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
large = restore.super_resolve(noisy, SCALE, noise=SIGMA, seed=0, progress=False)

print(
    f"misfit: {data_misfit(large, noisy, Downsample(SCALE)):.1f} grey levels, of which the noise is {SIGMA}"
)
show(
    {
        f"bicubic\n{psnr(bicubic, truth):.1f} dB": bicubic,
        f"restore\n{psnr(large, truth):.1f} dB": large,
        "truth\n": truth,
    }
)

# %%
# How sure is it?
# ---------------
#
# Several draws of the same part show what the small picture leaves open. Their mean is the picture to take where
# the PSNR matters.

part = small[8:32, 10:34]
draws = restore.super_resolve(part, SCALE, samples=4, seed=0, progress=False)
wanted = truth[8 * SCALE : 32 * SCALE, 10 * SCALE : 34 * SCALE]
mean = draws.mean(0).round().astype(np.uint8)
print("PSNR of each draw:", *(f"{psnr(draw, wanted):.2f}" for draw in draws))
print(f"PSNR of their mean: {psnr(mean, wanted):.2f}")

show(
    {"draw 1": draws[0], "draw 2": draws[1], "mean of 4": mean, "truth": wanted}
    | {"deviation": deviation_map(draws)}
)
