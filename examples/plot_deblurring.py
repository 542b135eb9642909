"""
Undo a blur
===========

A shaking camera, a lens out of focus: a blur is a convolution, and if its kernel is known it can be undone, up to what
the noise has buried. What was buried, the prior has to guess.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data, restoration, transform

import restore
from operators import motion_kernel
from restore import Blur
from restore.metrics import data_misfit, psnr, ssim
from restore.plots import deviation_map, difference_map

SIZE, SIGMA = 144, 2.55  # pixels; grey levels of noise: a hundredth of the range


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
# A shaken photograph
# -------------------
#
# The kernel is the path of a shaking camera. The operator takes batches of torch tensors ``(B, C, H, W)``; all else
# here is numpy, ``(H, W, C)``.

truth = transform.resize(data.astronaut()[0:288, 80:368], (SIZE, SIZE), anti_aliasing=True)
truth = (255 * truth).round().astype(np.uint8)
kernel = motion_kernel(17, intensity=0.5, seed=1)
blur = Blur(kernel, boundary="reflect")

clean = blur(torch.from_numpy(truth / 255).float().permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
noise = np.random.default_rng(0).normal(scale=SIGMA, size=truth.shape)
blurred = (255 * clean + noise).clip(0, 255).round().astype(np.uint8)

# %%
# One call
# --------
#
# :func:`restore.deblur` takes the kernel, and the noise in the units of the picture. Beyond its edge it takes the
# picture to be mirrored.

sharp = restore.deblur(blurred, kernel, noise=SIGMA, seed=0, progress=False)

path = np.pad((255 * kernel / kernel.max()).numpy(), 4)
show({"kernel": path, "blurred": blurred, "restore.deblur": sharp, "truth": truth})

# %%
# Beside Wiener's filter
# ----------------------
#
# Wiener's filter is the classical answer. Its balance between sharpness and noise is a free number; we let it have the
# best one, which takes the true picture to find. So that it does not see the edges as steps, the picture is mirrored
# for it.


def wiener(picture, balance):
    """scikit-image's Wiener filter, channel by channel."""
    pad = kernel.shape[0]
    padded = np.pad(picture / 255, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    channels = [restoration.wiener(padded[..., c], kernel.numpy(), balance, clip=False) for c in range(3)]
    inside = np.stack(channels, -1)[pad:-pad, pad:-pad]
    return (255 * inside.clip(0, 1)).round().astype(np.uint8)


balances = np.geomspace(1e-4, 1, 17)
best = max(balances, key=lambda balance: psnr(wiener(blurred, balance), truth))
results = {"blurred": blurred, "Wiener": wiener(blurred, best), "restore": sharp}

# %%
# The misfit is the distance between the blurred picture and the result blurred again, in standard deviations of the
# noise. Near 1 all that is left is noise; well above, the picture contradicts the measurement; well below, it has
# fitted the noise.

print("          PSNR   SSIM  misfit")
for name, picture in results.items():
    misfit = data_misfit(picture, blurred, blur, noise=SIGMA)
    print(f"{name:8} {psnr(picture, truth):5.2f}  {ssim(picture, truth):5.3f}   {misfit:5.2f}")

show(
    {f"{name}\n{psnr(picture, truth):.1f} dB": picture for name, picture in results.items()}
    | {"error of restore\n": difference_map(sharp, truth)}
)

# %%
# Other methods
# -------------
#
# :func:`restore.deblur` uses DPIR unless told otherwise. SDEdit starts from a picture that was deblurred without the
# prior, and then forgets the measurement. DPS and MMPS follow gradients through the network, so a step of them costs
# more; DPS takes one step down the misfit at every noise level, MMPS one of conjugate gradients, which knows how sure
# the prior is of each pixel. A misfit of 1 is what noise alone makes.

part = blurred[24:120, 24:120]
common = {"noise": SIGMA, "steps": 40, "seed": 0, "progress": False}
results = {
    "dpir": restore.deblur(part, kernel, **common),
    "sdedit": restore.deblur(part, kernel, method="sdedit", **common),
    "dps": restore.deblur(part, kernel, method="dps", **common),
    "mmps": restore.deblur(part, kernel, method="mmps", **common),
}

show({f"{name}\nmisfit {data_misfit(x, part, blur, noise=SIGMA):.1f}": x for name, x in results.items()})

# %%
# How sure is it?
# ---------------
#
# Several draws differ where the blur has left the picture open.

draws = restore.deblur(part, kernel, samples=4, **common)

show({f"draw {i + 1}": draw for i, draw in enumerate(draws)} | {"deviation": deviation_map(draws)})
