"""PIL images: their modes, their transparency, and the arrays they become and come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def is_pil(image: Any) -> bool:
    """Whether it is a PIL image."""
    # Only who has imported PIL can hold a PIL image; the test itself must not import it.
    return any(c.__module__ == "PIL.Image" and c.__name__ == "Image" for c in type(image).__mro__)


def pil_to_array(image: Image.Image) -> np.ndarray:
    """Pixels of any PIL image: `(H, W)` or `(H, W, 3)`, uint8 (uint16 or float32 from deeper modes)."""
    mode = image.mode
    if mode.startswith("I;16"):
        pixels = np.array(image)
        return pixels.astype(np.uint16)
    if mode == "I":
        pixels = np.array(image)
        low, high = int(pixels.min(initial=0)), int(pixels.max(initial=0))
        if low < 0 or high > 65535:
            raise ValueError(
                f"the PIL image has 32-bit integers (mode 'I') from {low} to {high}, whose white is unknown; "
                "expected 16-bit values, 0 to 65535. Convert it to a float array in [0, 1]."
            )
        return pixels.astype(np.uint16)
    if mode == "F":
        return np.array(image, dtype=np.float32)
    if image.has_transparency_data:
        gray = mode in ("L", "LA", "La", "1")
        pixels = np.array(image.convert("LA" if gray else "RGBA"))
        flat = on_white(pixels)
        return flat[..., 0] if gray else flat
    return np.array(image.convert("L" if mode in ("1", "L") else "RGB"))


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Lay `(H, W, C + 1)` integer pixels with alpha last on white, as a page shows them: `(H, W, C)`.

    Dropping alpha would bring out the colours below transparent pixels, which are arbitrary.
    """
    white = float(np.iinfo(pixels.dtype).max)
    alpha = pixels[..., -1:] / white
    return np.rint(pixels[..., :-1] * alpha + white * (1.0 - alpha)).astype(pixels.dtype)


def to_pil(array: np.ndarray, axes: int) -> Any:
    """A PIL image from the last `axes` axes; a list for every axis before."""
    if array.ndim > axes:
        return [to_pil(a, axes) for a in array]
    from PIL import Image

    if array.ndim == 3:
        if array.shape[2] != 3:
            raise ValueError(
                f"a result of {array.shape[2]} channels is no PIL image; expected 1 or 3. "
                "Ask for a numpy array or a tensor."
            )
        if array.dtype == np.uint16:  # PIL has neither 16-bit nor float colour
            array = np.rint(array / 257.0)
        elif array.dtype.kind == "f":
            array = np.rint(array.clip(0.0, 1.0) * 255.0)
        array = array.astype(np.uint8)
    return Image.fromarray(array)
