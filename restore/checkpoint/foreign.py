"""What cannot be loaded: recognised by its tensors' names, and refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NO_BETAS = (
    "it is told the noise level instead of a step of a table of betas, and its output is scaled by it; "
    "a UNet2DModel has neither"
)
# A name that gives each kind away, what it is, and why it is refused.
_KINDS = (
    (
        r"^(model\.diffusion_model|first_stage_model)\.",
        "a latent diffusion model",
        "it sees codes, not pixels",
    ),
    (
        r"\.transformer_blocks\.|\.attn2\.to_k\.",
        "a network conditioned on text",
        "no method here has a text to give",
    ),
    (
        r"(^|\.)u_net\.d_blocks\.",
        "a network of k-diffusion (image_v1)",
        f"{_NO_BETAS}; nor normalisation that is adaptive in every layer, or resampling by a fixed filter",
    ),
    (
        r"(^|\.)(patch_in\.proj|time_emb\.weight|mid_level\.\d)",
        "a transformer of k-diffusion",
        f"it is no U-Net of convolutions, and {_NO_BETAS}",
    ),
    (r"(^|\.)all_modules\.\d", "an NCSN++ of score-based models", _NO_BETAS),
    (r"(^|\.)enc\.\d+x\d+_(conv|block)", "a network of EDM", _NO_BETAS),
    (r"^(x_embedder|y_embedder|final_layer)\.", "a diffusion transformer (DiT)", "it sees codes, not pixels"),
)


def refuse(names: Iterable[str], source: str) -> None:
    """Raises if the tensors' names are those of a network that cannot be represented.

    Raises:
        ValueError: The message says what it is, and why it cannot be loaded.
    """
    names = list(names)
    for pattern, what, why in _KINDS:
        if any(re.search(pattern, name) for name in names):
            raise ValueError(
                f"{source!r} is {what}, which cannot be loaded: {why}. A network that you can build in Python becomes "
                f"a prior by restore.Prior(network, schedule, prediction=...)"
            )
