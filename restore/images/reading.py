"""Pictures from files: every format of PIL, all 16 bits where a file has them, upright."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restore.images.pil import on_white, pil_to_array

if TYPE_CHECKING:
    from PIL import Image


def read_image(path: str | os.PathLike[str], *, mode: str | None = None) -> np.ndarray:
    """Read a picture from a file of any format that PIL knows.

    The orientation that a camera recorded is applied, transparency is laid on white, palettes and CMYK become
    RGB, and of an animation the first frame is read. Files with 16 bits a channel (PNG, TIFF, PGM) give
    uint16, in full; TIFF files of floats give float32 as stored. All of these go into `to_batch` and `solve`.

    Args:
        path: The file.
        mode: `None` for gray or colour as the file is, `"L"` for gray, `"RGB"` for colour.

    Returns:
        Array `(H, W)` or `(H, W, 3)`, uint8 unless the file is deeper.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If it is a folder.
        ValueError: If it is not a picture, is damaged, or `mode` is unknown.

    >>> import tempfile
    >>> from restore.images import write_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(Path(folder, "gray.png"), np.eye(2))
    ...     read_image(Path(folder, "gray.png"))
    array([[255,   0],
           [  0, 255]], dtype=uint8)
    """
    from PIL import Image, UnidentifiedImageError

    if mode not in (None, "L", "RGB"):
        raise ValueError(f"mode is {mode!r}; expected None (as the file is), 'L' (gray) or 'RGB' (colour).")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; expected the file of one picture.")
    if not path.exists():
        folder = path.absolute().parent
        hint = "" if folder.is_dir() else f" The folder {str(folder)!r} does not exist either."
        raise FileNotFoundError(f"no file {str(path)!r} (looked in {os.getcwd()!r}).{hint}")
    data = path.read_bytes()
    if not data:
        raise ValueError(f"{str(path)!r} is empty (0 bytes); expected a picture.")
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = _deep_colour(data, image)
            orientation = image.getexif().get(0x0112, 1)
            if pixels is None:
                pixels = pil_to_array(image)
    except UnidentifiedImageError:
        raise ValueError(
            f"{str(path)!r} is not a picture that PIL can read ({len(data)} bytes, beginning {data[:8]!r}); "
            "expected PNG, JPEG, TIFF, WebP or the like."
        ) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as err:
        raise ValueError(
            f"{str(path)!r} cannot be decoded: {err}. The file may be cut off or damaged."
        ) from err
    return np.ascontiguousarray(_in_mode(_upright(pixels, orientation), mode))


def _deep_colour(data: bytes, image: Image.Image) -> np.ndarray | None:
    """Pixels of a colour file with 16 bits a channel, else `None`: PIL would keep the upper 8 bits."""
    tiles = getattr(image, "tile", None)
    tile = tiles[0].args if tiles else ""
    raw_mode = tile if isinstance(tile, str) else str(tile[0]) if tile else ""
    if image.mode not in ("RGB", "RGBA", "LA") or ";16" not in raw_mode:
        return None
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        return None
    if pixels.shape[2] == 4:
        pixels = on_white(pixels)
    return pixels[..., 0] if image.mode == "LA" else pixels[..., ::-1]


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the EXIF orientation, 1 to 8, to `(H, W, ...)`."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _in_mode(pixels: np.ndarray, mode: str | None) -> np.ndarray:
    if mode == "RGB" and pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    if mode == "L" and pixels.ndim == 3:
        luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as PIL
        return (np.rint(luma) if pixels.dtype.kind == "u" else luma).astype(pixels.dtype)
    return pixels
