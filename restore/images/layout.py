"""The way back: how the user's picture was laid out, and a result in the same kind again."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from restore.images.checks import check_finite
from restore.images.pil import to_pil

Kind = Literal["numpy", "torch", "pil"]


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """How the user's picture was laid out, and the way from `(B, C, H, W)` back to it.

    Attributes:
        kind: `"numpy"`, `"torch"` or `"pil"`.
        dtype: The numpy or torch type of a result. For PIL, the numpy type of its pixels.
        ndim: Axes of one picture: 2 for `(H, W)`, 3 where there is an axis of channels.
        batched: Whether the user gave a batch. A batch of PIL images is a list.
        device: Where a torch result goes; `None` for numpy and PIL.
    """

    kind: Kind
    dtype: np.dtype | torch.dtype
    ndim: int = 3
    batched: bool = False
    device: torch.device | None = None

    @property
    def channels_last(self) -> bool:
        """Whether channels are the last axis: yes for numpy and PIL, no for torch."""
        return self.kind != "torch"

    @property
    def scale(self) -> float:
        """What 1.0 inside the package is in the user's units: 255 (uint8), 65535 (uint16) or 1 (floats)."""
        if self.dtype in (torch.uint8, np.dtype(np.uint8)):
            return 255.0
        if self.dtype in (torch.uint16, np.dtype(np.uint16)):
            return 65535.0
        return 1.0

    def as_kind(self, kind: str) -> ImageFormat:
        """The same format in another kind, with the nearest type of values that this kind has.

        Args:
            kind: `"same"`, `"numpy"`, `"torch"` or `"pil"`. PIL images made from floats are 8-bit.

        Returns:
            An `ImageFormat`; `self` where nothing changes.

        Raises:
            ValueError: For an unknown kind.

        >>> ImageFormat("torch", torch.bfloat16, device=torch.device("cpu")).as_kind("numpy").dtype
        dtype('float32')
        """
        if kind in ("same", self.kind):
            return self
        if kind not in ("numpy", "torch", "pil"):
            raise ValueError(f"as_format is {kind!r}; expected 'same', 'numpy', 'torch' or 'pil'.")
        dtype: np.dtype | torch.dtype
        if kind == "torch":
            dtype = torch.from_numpy(np.empty(0, dtype=self.dtype)).dtype
            return dataclasses.replace(self, kind="torch", dtype=dtype, device=torch.device("cpu"))
        if isinstance(self.dtype, torch.dtype):
            exact = torch.float32 if self.dtype == torch.bfloat16 else self.dtype  # numpy has no bfloat16
            dtype = torch.empty(0, dtype=exact).numpy().dtype
        else:
            dtype = self.dtype
        if kind == "pil" and dtype.kind == "f":
            dtype = np.dtype(np.uint8)
        return dataclasses.replace(self, kind=kind, dtype=dtype, device=None)  # type: ignore[arg-type]

    def restore(self, batch: Tensor, *, samples: int | None = None, as_format: str = "same") -> Any:
        """Turn a result into the kind of picture that the user gave.

        Number of channels and size are the result's, not the input's: `(H, W)` comes back as `(H, W)` if the
        result has one channel and as `(H, W, 3)` if it has three. Integer types are clipped to [0, 1] and
        rounded; floats pass unchanged (a measurement may leave [0, 1]).

        Args:
            batch: `(B, C, H, W)` tensor of floats, in [0, 1] for pictures; with `samples=n` it is
                `(n * B, C, H, W)`, all pictures of the first draw first.
            samples: Number of draws. The result gets a leading axis of that length (PIL: a list), also for 1.
            as_format: `"same"` as the user gave, or `"numpy"`, `"torch"`, `"pil"`.

        Returns:
            A numpy array, torch tensor or PIL image, or a list of images for several PIL images.

        Raises:
            ValueError: If the tensor is not a batch that fits this format, or holds NaN or infinity.

        >>> from restore.images import to_batch
        >>> _, layout = to_batch(torch.zeros(3, 8, 8))
        >>> layout.restore(torch.zeros(5, 3, 16, 16), samples=5).shape
        torch.Size([5, 3, 16, 16])
        """
        fmt = self.as_kind(as_format)
        if batch.ndim != 4:
            raise ValueError(f"the result has shape {tuple(batch.shape)}; expected (B, C, H, W).")
        draws = 1 if samples is None else samples
        if draws < 1 or batch.shape[0] % draws or not (fmt.batched or batch.shape[0] == draws):
            want = f"{draws} draw(s) of " + ("a batch" if fmt.batched else "one picture")
            raise ValueError(
                f"the result holds {batch.shape[0]} pictures; the format calls for {want}. "
                "Pass samples=n where n draws of each picture are stacked, draw by draw."
            )
        check_finite(batch, "the result")

        x = batch.detach()
        if fmt.scale != 1.0:
            # One copy, not three, and of bytes before anything else is copied: it may be 200 megapixels.
            x = x.float().clamp(0.0, 1.0).mul_(fmt.scale).round_()
            x = x.to(torch.uint8) if fmt.scale == 255.0 else x
        x = x.reshape(draws, -1, *x.shape[1:])  # (n, B, C, H, W)
        if x.shape[2] == 1 and (fmt.ndim == 2 or fmt.kind == "pil"):
            x = x.squeeze(2)
        elif fmt.channels_last:
            x = x.movedim(2, -1)
        if not fmt.batched:
            x = x.squeeze(1)
        if samples is None:
            x = x.squeeze(0)

        if fmt.kind == "torch":
            return x.to(fmt.device, fmt.dtype).contiguous()  # type: ignore[arg-type]
        x = x.cpu()
        array = np.ascontiguousarray((x.float() if x.dtype == torch.bfloat16 else x).numpy())
        array = array.astype(fmt.dtype)  # type: ignore[arg-type]
        if fmt.kind == "numpy":
            return array
        colour = batch.shape[1] != 1
        return to_pil(array, axes=3 if colour else 2)
