"""Pictures in and out: files, numpy arrays, torch tensors and PIL images, and their value ranges.

Inside the package a picture is a float32 tensor `(B, C, H, W)` whose white is 1. `to_batch` makes that
tensor from whatever the user has, with an `ImageFormat` that turns a result into the same kind again.

>>> y = np.zeros((4, 6), dtype=np.uint8)             # a gray numpy picture
>>> batch, layout = to_batch(y)
>>> batch.shape
torch.Size([1, 1, 4, 6])
>>> colour = layout.restore(torch.ones(1, 3, 8, 12))  # the result is larger, and in colour
>>> colour.shape, colour.dtype, colour.max()
((8, 12, 3), dtype('uint8'), np.uint8(255))
"""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from restore.files import write_atomically

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageFormat", "read_image", "to_batch", "write_image"]

Kind = Literal["numpy", "torch", "pil"]

# Noisy measurements leave [0, 1], so being outside is no error; but white at 255 is. Noise as strong as the
# signal itself stays below 4 in practice, and 8-bit pictures given as floats come nowhere near it from above.
_FLOAT_LIMIT = 4.0

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


# ----------------------------------------------------------------------------------------------------------
# What the user gave, and the way back
# ----------------------------------------------------------------------------------------------------------


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
        _check_finite(batch, "the result")

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
        return _to_pil(array, axes=3 if colour else 2)


def to_batch(image: Any, *, check_range: bool = True, name: str = "image") -> tuple[Tensor, ImageFormat]:
    """Turn a user's picture or measurement into a float32 tensor `(B, C, H, W)`.

    =====  =============================================  ====================================================
    kind   shapes                                         values
    =====  =============================================  ====================================================
    numpy  `(H, W)`, `(H, W, C)`, `(B, H, W, C)`          uint8, uint16, bool, or floats in [0, 1] up to noise
    torch  `(H, W)`, `(C, H, W)`, `(B, C, H, W)`          the same
    PIL    an image, or a list of images of one size      every mode
    =====  =============================================  ====================================================

    Integers are divided by 255 or 65535. Bool (and PIL mode `"1"`) reads as 0 and 1, and comes back as uint8,
    since what is restored from a black-and-white picture has more levels than two. PIL images with
    transparency are laid on white, palettes and CMYK become RGB, mode `"F"` counts as float. The tensor never
    shares memory with the input, and carries no gradient.

    Args:
        image: The picture, picture batch, or measurement.
        check_range: Refuse floats beyond 4 in magnitude, which are 8-bit values that nobody divided by 255.
            Moderate noise passes. Turn it off for measurements in units of their own.
        name: What error messages call the input.

    Returns:
        The tensor, on the device of a torch input and on the CPU otherwise, and the format to restore with.

    Raises:
        TypeError: If the input is of no known kind, or its type of numbers says nothing about the range.
        ValueError: If it is empty, has a wrong number of axes, looks like it has its channels at the wrong
            end, holds NaN or infinity, or leaves the range.

    >>> batch, layout = to_batch(np.full((2, 5, 3), 51, dtype=np.uint8))
    >>> tuple(batch.shape), round(batch[0, 0, 0, 0].item(), 6), layout.kind
    ((1, 3, 2, 5), 0.2, 'numpy')
    """
    if isinstance(image, Tensor):
        return _from_torch(image, check_range, name)
    if isinstance(image, np.ndarray):
        return _from_numpy(image, check_range, name)
    if _is_pil(image):
        return _from_pil([image], False, check_range, name)
    if isinstance(image, (list, tuple)) and image and all(_is_pil(i) for i in image):
        return _from_pil(list(image), True, check_range, name)
    hint = ""
    if isinstance(image, (str, os.PathLike)):
        hint = " Read a file with restore.images.read_image(path) first."
    elif isinstance(image, (list, tuple)):
        hint = " Stack pictures of one size into a batch with np.stack or torch.stack."
    raise TypeError(
        f"{name} is a {type(image).__name__}; expected a numpy array, a torch tensor or a PIL image.{hint}"
    )


def _from_numpy(array: np.ndarray, check_range: bool, name: str) -> tuple[Tensor, ImageFormat]:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise TypeError(
            f"{name} is a masked array with {np.ma.count_masked(array)} masked entries, which hold no "
            "defined value. Fill it, image.filled(0), and say what is missing with a Mask operator."
        )
    array = np.asarray(array)
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind not in "bf" and dtype not in (np.uint8, np.uint16):
        raise TypeError(_dtype_message(name, str(dtype), "image.astype(np.uint8)", dtype.kind == "c"))
    _check_shape(array.shape, name, channels_last=True)
    _check_finite(array, name)

    is_bool = dtype.kind == "b"
    fmt = ImageFormat("numpy", np.dtype(np.uint8) if is_bool else dtype, min(array.ndim, 3), array.ndim == 4)
    values = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))  # a copy: never the user's memory
    if not is_bool:
        values /= fmt.scale
    if array.ndim == 2:
        values = values[..., None]
    batch = (values if array.ndim == 4 else values[None]).movedim(-1, 1).contiguous()
    _check_range(batch, name, check_range)
    return batch, fmt


def _from_torch(tensor: Tensor, check_range: bool, name: str) -> tuple[Tensor, ImageFormat]:
    is_bool = tensor.dtype == torch.bool
    if not (is_bool or tensor.is_floating_point() or tensor.dtype in (torch.uint8, torch.uint16)):
        raise TypeError(_dtype_message(name, str(tensor.dtype), "image.to(torch.uint8)", tensor.is_complex()))
    _check_shape(tuple(tensor.shape), name, channels_last=False)
    tensor = tensor.detach()
    _check_finite(tensor, name)

    dtype = torch.uint8 if is_bool else tensor.dtype
    fmt = ImageFormat("torch", dtype, min(tensor.ndim, 3), tensor.ndim == 4, tensor.device)
    batch = tensor.to(torch.float32, copy=True)
    if not is_bool:
        batch /= fmt.scale
    batch = batch.reshape((1,) * (4 - batch.ndim) + tuple(batch.shape)).contiguous()
    _check_range(batch, name, check_range)
    return batch, fmt


def _from_pil(
    images: list[Image.Image], batched: bool, check_range: bool, name: str
) -> tuple[Tensor, ImageFormat]:
    arrays = [_pil_to_array(image) for image in images]
    kinds = {(a.shape, str(a.dtype)) for a in arrays}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{shape} {dtype}" for shape, dtype in kinds))
        raise ValueError(f"{name} is a list of unlike PIL images ({found}); a batch needs one size and mode.")
    stack = np.stack([a if a.ndim == 3 else a[..., None] for a in arrays])
    batch, fmt = _from_numpy(stack, check_range, name)
    return batch, ImageFormat("pil", fmt.dtype, arrays[0].ndim, batched)


def _check_shape(shape: tuple[int, ...], name: str, channels_last: bool) -> None:
    kind, layouts = (
        ("numpy array", "(H, W), (H, W, C) or (B, H, W, C)")
        if channels_last
        else ("torch tensor", "(H, W), (C, H, W) or (B, C, H, W)")
    )
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"{name} is a {kind} of shape {shape}; expected {layouts}.")
    if 0 in shape:
        raise ValueError(f"{name} is empty: its shape is {shape}.")
    if len(shape) == 2:
        return
    # A picture with its channels at the other end would pass as a strip of 3 pixels with many channels.
    first, last = shape[-3], shape[-1]
    there, here = (last, first) if channels_last else (first, last)
    if here in (1, 3) and there > 16:
        axes = (2, 0, 1) if len(shape) == 3 else (0, 3, 1, 2)
        back = (1, 2, 0) if len(shape) == 3 else (0, 2, 3, 1)
        fix = f"image.transpose{back}" if channels_last else f"image.permute{axes}"
        raise ValueError(
            f"{name} is a {kind} of shape {shape}, which reads as {there} channels: expected {layouts}. "
            f"If its channels are at the other end, pass {fix}."
        )


def _dtype_message(name: str, dtype: str, cast: str, is_complex: bool) -> str:
    if is_complex:
        return f"{name} has complex values ({dtype}); expected real ones, such as image.real or abs(image)."
    return (
        f"{name} has values of type {dtype}, whose white is unknown; expected uint8, uint16, bool or floats "
        f"in [0, 1]. For values from 0 to 255 pass {cast}."
    )


def _check_finite(values: np.ndarray | Tensor, name: str) -> None:
    """Name the number of NaN and infinite values and the first position, in the layout the user knows."""
    if isinstance(values, Tensor):
        if not values.is_floating_point() or torch.isfinite(values).all():
            return
        array = values.detach().cpu().double().numpy()
    else:
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        array = values
    bad = ~np.isfinite(array)
    where = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    raise ValueError(
        f"{name} holds {int(bad.sum())} values that are NaN or infinite, of {bad.size}; the first, "
        f"{float(array[where])}, at index {where} of shape {bad.shape}. Expected finite numbers: "
        "mark missing pixels with a Mask operator and give them any finite value."
    )


def _check_range(batch: Tensor, name: str, check_range: bool) -> None:
    if not check_range:
        return
    low, high = (v.item() for v in torch.aminmax(batch))
    if max(-low, high) > _FLOAT_LIMIT:
        raise ValueError(
            f"{name} has float values from {low:.4g} to {high:.4g}; expected [0, 1], up to noise. "
            "Divide by 255, or pass uint8. If this is a measurement in other units, pass check_range=False."
        )


# ----------------------------------------------------------------------------------------------------------
# PIL
# ----------------------------------------------------------------------------------------------------------


def _is_pil(image: Any) -> bool:
    # Only who has imported PIL can hold a PIL image; the test itself must not import it.
    return any(c.__module__ == "PIL.Image" and c.__name__ == "Image" for c in type(image).__mro__)


def _pil_to_array(image: Image.Image) -> np.ndarray:
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
        flat = _on_white(pixels)
        return flat[..., 0] if gray else flat
    return np.array(image.convert("L" if mode in ("1", "L") else "RGB"))


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Lay `(H, W, C + 1)` integer pixels with alpha last on white, as a page shows them: `(H, W, C)`.

    Dropping alpha would bring out the colours below transparent pixels, which are arbitrary.
    """
    white = float(np.iinfo(pixels.dtype).max)
    alpha = pixels[..., -1:] / white
    return np.rint(pixels[..., :-1] * alpha + white * (1.0 - alpha)).astype(pixels.dtype)


def _to_pil(array: np.ndarray, axes: int) -> Any:
    """A PIL image from the last `axes` axes; a list for every axis before."""
    if array.ndim > axes:
        return [_to_pil(a, axes) for a in array]
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


# ----------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------


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
                pixels = _pil_to_array(image)
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

    >>> write_image("picture.xyz", np.zeros((2, 2)))
    Traceback (most recent call last):
    ValueError: 'picture.xyz' has the extension '.xyz'; expected one of .bmp, .jp2, .jpeg, .jpg, .pgm, .png, \
.ppm, .tif, .tiff, .webp.
    """
    path = Path(path)
    suffix = known_suffix(path)
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


def known_suffix(path: str | os.PathLike[str]) -> str:
    """The extension of a picture's file, in small letters; to be asked before the work that makes the picture.

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
        pixels = _on_white(pixels)
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
