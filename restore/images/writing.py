"""Pictures into files: whole or not at all, and without loss wherever the format can."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from restore.files import write_atomically
from restore.images.conversion import to_batch
from restore.images.layout import ImageFormat

# What a file is written with: lossless wherever the format can be, and the best the format has otherwise.
_FILE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".jp2": ("JPEG2000", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}
_16_BIT_FORMATS = ("PNG", "TIFF")


def write_image(path: str | os.PathLike[str], image: Any) -> None:
    """Write a picture to a file; the extension says the format. Folders are made as needed.

    Lossless in PNG, TIFF, WebP, BMP, PPM, PGM and JPEG 2000; JPEG at quality 95 with full colour resolution.
    Floats are clipped to [0, 1] and rounded to 8 bits; uint16 keeps its 16 bits in PNG and TIFF. The file
    appears all at once: whoever reads it finds the old content or the new, never a half.

    Args:
        path: The file, with an extension from those above.
        image: One picture in any layout that `to_batch` takes, gray or colour. A batch of one will do.

    Raises:
        ValueError: If the extension is unknown, or the image is no single gray or colour picture, holds NaN
            or infinity, or has floats far from [0, 1].
        TypeError: If it is no picture at all.
        OSError: If nothing can be written there (see `check_destination`).

    >>> write_image("picture.xyz", np.zeros((2, 2)))
    Traceback (most recent call last):
    ValueError: 'picture.xyz' has the extension '.xyz'; expected one of .bmp, .jp2, .jpeg, .jpg, .pgm, .png, \
.ppm, .tif, .tiff, .webp.
    """
    path = Path(path)
    suffix = check_destination(path)
    batch, fmt = to_batch(image)
    count, channels = batch.shape[:2]
    if count != 1:
        raise ValueError(
            f"{count} pictures do not fit one file: write them one by one, or as plots.grid(images)."
        )
    if channels not in (1, 3):
        raise ValueError(
            f"the image has {channels} channels; expected 1 (gray) or 3 (RGB): pass image[..., :3]."
        )
    keeps_16 = fmt.scale == 65535.0 and _FILE_FORMATS[suffix][0] in _16_BIT_FORMATS
    dtype = np.dtype(np.uint16 if keeps_16 else np.uint8)
    pixels = ImageFormat("numpy", dtype, ndim=2).restore(batch)
    data = _encode(pixels, suffix)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def check_destination(path: str | os.PathLike[str]) -> str:
    """Refuses a place where no picture can be written; to be asked before the work that makes the picture.

    Returns:
        The extension, as `known_suffix` has it.

    Raises:
        ValueError: If pictures cannot be written to a file of this extension.
        IsADirectoryError: If it is a folder.
        NotADirectoryError: If its folder would have to be made inside of a file.
        PermissionError: If its folder may not be written to.
    """
    path, suffix = Path(path), known_suffix(path)
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; expected the file to write a picture to.")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise NotADirectoryError(
            f"{str(path)!r} cannot be written: {str(there)!r} is a file, and no folder. Choose another place."
        )
    if not os.access(there, os.W_OK):
        raise PermissionError(
            f"{str(path)!r} cannot be written: no permission to write to {str(there)!r}. Choose another place."
        )
    return suffix


def known_suffix(path: str | os.PathLike[str]) -> str:
    """The extension of a picture's file, in small letters.

    Raises:
        ValueError: If pictures cannot be written to such a file.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FILE_FORMATS:
        found = f"the extension {suffix!r}" if suffix else "no extension"
        raise ValueError(f"{str(path)!r} has {found}; expected one of {', '.join(sorted(_FILE_FORMATS))}.")
    return suffix


def _encode(pixels: np.ndarray, suffix: str) -> bytes:
    if pixels.dtype == np.uint16 and pixels.ndim == 3:  # PIL cannot write 16-bit colour
        import cv2

        return cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()
    from PIL import Image

    file_format, options = _FILE_FORMATS[suffix]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()
