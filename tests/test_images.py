"""Pictures in, pictures out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from restore.images import ImageFormat, check_destination, read_image, to_batch, write_image

sides = st.integers(1, 7)
few = settings(max_examples=60, deadline=None)
TORCH_TYPES = [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@st.composite
def arrays(draw, dtype=np.uint8, ndims=(2, 3, 4)):
    ndim = draw(st.sampled_from(ndims))
    shape = [draw(sides), draw(sides)]
    if ndim > 2:
        shape.append(draw(st.sampled_from([1, 3])))
    if ndim > 3:
        shape.insert(0, draw(st.integers(1, 3)))
    return draw(hnp.arrays(dtype, tuple(shape)))


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


# ------------------------------------------------------------------------------------------- round trips


@few
@given(st.sampled_from([np.uint8, np.uint16]).flatmap(arrays))
def test_numpy_integers_come_back_exactly(array):
    before = array.copy()
    batch, fmt = to_batch(array)
    assert batch.ndim == 4
    assert batch.dtype == torch.float32
    assert batch.min() >= 0
    assert batch.max() <= 1
    back = fmt.restore(batch)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array, strict=True)
    batch.zero_()  # never the user's memory
    np.testing.assert_array_equal(array, before)


@few
@given(array=arrays(), dtype=st.sampled_from(TORCH_TYPES))
def test_torch_comes_back_exactly(array, dtype):
    if array.ndim > 2:
        array = np.moveaxis(array, -1, -3)
    values = torch.from_numpy(array.copy())
    tensor = values.to(dtype) if dtype in (torch.uint8, torch.uint16) else (values / 255).to(dtype)
    before = tensor.clone()
    batch, fmt = to_batch(tensor)
    back = fmt.restore(batch)
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)
    batch.fill_(0.5)
    assert torch.equal(tensor, before)


@few
@given(array=arrays(ndims=(2, 3)), count=st.integers(0, 3))
def test_pil_comes_back_exactly(array, count):
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    image = Image.fromarray(array)
    batch, fmt = to_batch([image] * count if count else image)
    back = fmt.restore(batch)
    assert isinstance(back, list) == (count > 0)
    for one in back if count else [back]:
        assert one.mode == image.mode
        np.testing.assert_array_equal(np.asarray(one), array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">f8", "<f4"])
def test_floats_keep_their_type_and_noise(dtype):
    y = np.array([[-0.3, 1.2], [0.0, 1.0]]).astype(dtype)
    batch, fmt = to_batch(y)
    back = fmt.restore(batch)
    assert back.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_allclose(back, y.astype(np.float64), rtol=1e-6)


def test_layouts_put_every_pixel_where_it_belongs():
    array = noise(2, 5, 4, 3)
    want = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(to_batch(array)[0], want)
    assert torch.equal(to_batch(array[0])[0], want[:1])
    assert torch.equal(to_batch(array[0, ..., 0])[0], want[:1, :1])
    assert torch.equal(to_batch(want)[0], want)
    assert torch.equal(to_batch(want[1])[0], want[1:])
    assert torch.equal(to_batch(Image.fromarray(array[1]))[0], want[1:])


def test_awkward_memory():
    array = noise(6, 8, 3)
    for view in (array[::-1], array[:, ::-2], array[..., ::-1], np.asfortranarray(array)):
        batch, fmt = to_batch(view)
        np.testing.assert_array_equal(fmt.restore(batch), view)
    for dtype in (">u2", "<u2"):
        wide = noise(3, 4, dtype=np.uint16).astype(dtype)
        np.testing.assert_array_equal(to_batch(wide)[1].restore(to_batch(wide)[0]), wide)
    array.flags.writeable = False
    to_batch(array)[0].zero_()
    strided = torch.rand(8, 6, 3).permute(2, 0, 1).flip(1).requires_grad_()
    batch, fmt = to_batch(strided)
    assert not batch.requires_grad
    assert torch.equal(fmt.restore(batch), strided.detach())
    expanded = torch.rand(1, 5, 5).expand(3, 5, 5)
    assert torch.equal(to_batch(expanded)[0][0], expanded)


def test_bool_comes_back_with_levels():
    mask = np.array([[True, False]])
    batch, fmt = to_batch(mask)
    assert batch.flatten().tolist() == [1.0, 0.0]
    assert fmt.restore(torch.full((1, 1, 1, 2), 0.5)).tolist() == [[128, 128]]
    batch, fmt = to_batch(torch.tensor([[[True, False]]]))
    assert batch.flatten().tolist() == [1.0, 0.0]
    assert fmt.restore(batch).dtype == torch.uint8


# ----------------------------------------------------------------------------- results unlike the input


def test_result_of_other_size_and_colour():
    colour = torch.rand(1, 3, 8, 10)
    gray = colour[:, :1]
    y = noise(4, 5)
    assert to_batch(y)[1].restore(colour).shape == (8, 10, 3)
    assert to_batch(y)[1].restore(gray).shape == (8, 10)
    assert to_batch(y[..., None])[1].restore(gray).shape == (8, 10, 1)
    assert to_batch(noise(4, 5, 3))[1].restore(gray).shape == (8, 10, 1)
    assert to_batch(torch.rand(4, 5))[1].restore(colour).shape == (3, 8, 10)
    assert to_batch(torch.rand(4, 5))[1].restore(gray).shape == (8, 10)
    assert to_batch(torch.rand(1, 1, 4, 5))[1].restore(colour).shape == (1, 3, 8, 10)
    for y in (Image.fromarray(noise(4, 5)), Image.fromarray(noise(4, 5, 3))):
        assert (to_batch(y)[1].restore(gray).mode, to_batch(y)[1].restore(gray).size) == ("L", (10, 8))
        assert to_batch(y)[1].restore(colour).mode == "RGB"


def test_samples_lead():
    draws = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 3, 2, 2) / 255  # 2 pictures, 3 draws
    fmt = to_batch(noise(2, 4, 4, 3))[1]
    got = fmt.restore(draws, samples=3)
    assert got.shape == (3, 2, 2, 2, 3)
    assert got[..., 0, 0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]
    one = to_batch(torch.rand(3, 4, 4))[1]
    assert one.restore(draws, samples=6).shape == (6, 3, 2, 2)
    assert one.restore(draws[:1], samples=1).shape == (1, 3, 2, 2)
    pictures = to_batch(Image.new("RGB", (4, 4)))[1].restore(draws, samples=6)
    assert [p.getpixel((0, 0))[0] for p in pictures] == list(range(6))
    nested = to_batch([Image.new("RGB", (4, 4))] * 2)[1].restore(draws, samples=3)
    assert [[p.getpixel((0, 0))[0] for p in row] for row in nested] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match=r"holds 6 pictures.*1 draw"):
        one.restore(draws)
    with pytest.raises(ValueError, match="4 draw"):
        fmt.restore(draws, samples=4)


def test_integers_are_clipped_and_rounded():
    x = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 3.0]).reshape(1, 1, 2, 3)
    assert ImageFormat("numpy", np.dtype(np.uint8), 2).restore(x).ravel().tolist() == [0, 0, 0, 1, 255, 255]
    wide = ImageFormat("torch", torch.uint16, 2, device=torch.device("cpu")).restore(x)
    assert wide.flatten().tolist() == [0, 0, 128, 129, 65535, 65535]
    half = x.to(torch.bfloat16)
    assert ImageFormat("numpy", np.dtype(np.float32), 2).restore(half).dtype == np.float32


def test_other_kind_on_request():
    batch, fmt = to_batch(noise(4, 5, 3))
    assert torch.equal(
        fmt.restore(batch, as_format="torch"), torch.from_numpy(fmt.restore(batch)).permute(2, 0, 1)
    )
    np.testing.assert_array_equal(np.asarray(fmt.restore(batch, as_format="pil")), fmt.restore(batch))
    half = to_batch(torch.rand(3, 4, 5, dtype=torch.bfloat16))[1]
    assert half.restore(batch, as_format="numpy").dtype == np.float32
    assert half.restore(batch, as_format="pil").mode == "RGB"
    with pytest.raises(ValueError, match="as_format is 'jpeg'"):
        fmt.restore(batch, as_format="jpeg")


def test_results_that_are_no_pictures():
    _, fmt = to_batch(noise(4, 5))
    with pytest.raises(ValueError, match=r"1 values that are NaN or infinite.*\(0, 0, 1, 2\)"):
        fmt.restore(
            torch.zeros(1, 1, 4, 5).index_put_(
                tuple(torch.tensor([[0], [0], [1], [2]])), torch.tensor(np.nan)
            )
        )
    with pytest.raises(ValueError, match=r"shape \(4, 5\)"):
        fmt.restore(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="5 channels"):
        fmt.restore(torch.zeros(1, 5, 4, 4), as_format="pil")


# ---------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("high", [255.0, 17.0, -9.0])
def test_float_in_wrong_units_is_refused(high):
    for y in (
        np.array([[0.0, high]]),
        torch.tensor([[0.0, high]]),
        Image.fromarray(np.float32([[0.0, high]])),
    ):
        with pytest.raises(ValueError, match=r"y has float values.*Divide by 255"):
            to_batch(y, name="y")
        batch, fmt = to_batch(y, check_range=False)
        assert batch.flatten()[1] == high
        assert np.asarray(fmt.restore(batch)).flatten()[1] == high


@few
@given(sigma=st.floats(0, 0.6), seed=st.integers(0, 99))
def test_noisy_measurements_pass(sigma, seed):
    to_batch(np.clip(np.random.default_rng(seed).normal(0.5, sigma, (16, 16, 3)), -3.5, 3.5))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("check_range", [True, False])
def test_nan_is_named(value, check_range):
    y = np.zeros((4, 5, 3))
    y[1, 2, 0] = y[3, 4, 2] = value
    with pytest.raises(ValueError, match=r"2 values that are NaN or infinite, of 60.*index \(1, 2, 0\)"):
        to_batch(y, check_range=check_range)
    with pytest.raises(ValueError, match=r"2 values that are NaN or infinite, of 60.*index \(0, 1, 2\)"):
        to_batch(torch.from_numpy(y).permute(2, 0, 1), check_range=check_range)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (np.zeros((0, 5)), ValueError, r"empty.*\(0, 5\)"),
        (torch.zeros(3, 0, 5), ValueError, "empty"),
        (np.zeros(5), ValueError, r"\(5,\).*expected \(H, W\)"),
        (torch.zeros(1, 1, 1, 5, 5), ValueError, r"expected \(H, W\), \(C, H, W\)"),
        (np.zeros((3, 32, 32)), ValueError, r"32 channels.*image\.transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 32, 32)), ValueError, r"image\.transpose\(0, 2, 3, 1\)"),
        (torch.zeros(32, 32, 3), ValueError, r"image\.permute\(2, 0, 1\)"),
        (torch.zeros(2, 32, 32, 3), ValueError, r"image\.permute\(0, 3, 1, 2\)"),
        (np.zeros((4, 4), int), TypeError, r"int64.*astype\(np\.uint8\)"),
        (torch.zeros(4, 4, dtype=torch.int32), TypeError, "int32"),
        (np.zeros((4, 4), complex), TypeError, "complex"),
        (np.zeros((4, 4), object), TypeError, "object"),
        (np.ma.masked_equal(np.eye(3), 0), TypeError, "6 masked entries"),
        ("cat.png", TypeError, "read_image"),
        ([np.zeros((4, 4))], TypeError, r"np\.stack"),
        (None, TypeError, "NoneType"),
        ([Image.new("L", (3, 3)), Image.new("L", (3, 4))], ValueError, "unlike"),
        (Image.fromarray(np.full((2, 2), 70000, np.int32)), ValueError, "70000"),
    ],
)
def test_errors_say_what_to_do(bad, error, match):
    with pytest.raises(error, match=match):
        to_batch(bad)


# ---------------------------------------------------------------------------------------------- PIL modes


def test_pil_modes():
    colour = Image.fromarray(noise(6, 5, 3))
    want = np.asarray(colour) / np.float32(255)

    def pixels(image):
        return to_batch(image)[0][0].permute(1, 2, 0).numpy()

    palette = colour.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    np.testing.assert_array_equal(pixels(palette), pixels(palette.convert("RGB")))
    np.testing.assert_allclose(pixels(colour.convert("CMYK")), want, atol=1.5 / 255)
    bits = colour.convert("1")
    assert set(np.unique(pixels(bits))) <= {0.0, 1.0}
    assert to_batch(bits)[1].restore(to_batch(bits)[0]).mode == "L"
    deep = Image.fromarray(noise(6, 5, dtype=np.uint16))
    back = to_batch(deep)[1].restore(to_batch(deep)[0])
    assert back.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(back), np.asarray(deep))
    assert to_batch(deep)[1].restore(torch.ones(1, 3, 2, 2)).getpixel((0, 0)) == (255, 255, 255)
    floats = Image.fromarray(np.float32([[-0.25, 1.5]]))
    assert to_batch(floats)[1].restore(to_batch(floats)[0]).mode == "F"


def test_transparency_is_laid_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [0, 51, 255]  # unseen, a fifth, solid
    want = [[255, 255, 255], [244, 204, 204], [200, 0, 0]]
    batch, fmt = to_batch(Image.fromarray(rgba))
    assert np.asarray(fmt.restore(batch))[0].tolist() == want
    gray = Image.fromarray(rgba[..., [0, 3]])
    assert gray.mode == "LA"
    batch, fmt = to_batch(gray)
    assert np.asarray(fmt.restore(batch)).tolist() == [[255, 244, 200]]


# -------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("extension", [".png", ".tif", ".TIFF", ".webp", ".bmp", ".pgm", ".jp2", ".jpg"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
def test_files_round_trip(tmp_path, extension, shape):
    if extension == ".pgm" and len(shape) == 3:
        extension = ".ppm"
    array = noise(*shape)
    path = tmp_path / "new" / f"a{extension}"
    write_image(path, array)
    back = read_image(path)
    if extension == ".jpg":
        assert back.shape == array.shape
    elif extension == ".webp" and len(shape) == 2:  # WebP has no gray
        np.testing.assert_array_equal(read_image(path, mode="L"), array)
    else:
        np.testing.assert_array_equal(back, array, strict=True)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    back[:] = 0  # the caller owns what it gets


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
def test_16_bits_survive(tmp_path, extension, shape):
    array = noise(*shape, dtype=np.uint16)
    path = tmp_path / f"a{extension}"
    write_image(path, array)
    np.testing.assert_array_equal(read_image(path), array, strict=True)
    independent = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(independent[..., ::-1] if len(shape) == 3 else independent, array)
    write_image(tmp_path / "a.bmp", array)  # eight bits only
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp"), np.rint(array / 257))


def test_16_bit_files_of_others(tmp_path):
    gray = noise(5, 4, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.pgm"), gray)
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm"), gray, strict=True)
    rgba = noise(5, 4, 4, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), rgba)
    alpha = rgba[..., 3:] / 65535
    want = np.rint(rgba[..., 2::-1] * alpha + 65535 * (1 - alpha))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), want)
    assert read_image(tmp_path / "a.png", mode="L").dtype == np.uint16
    floats = np.float32([[0.25, 7.5]])
    Image.fromarray(floats).save(tmp_path / "f.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "f.tiff"), floats, strict=True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(noise(4, 6, 3))
    image.save(tmp_path / "a.png", exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), want)


def test_odd_files(tmp_path):
    frames = [Image.new("RGB", (4, 3), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif").tolist() == np.full((3, 4, 3), [255, 0, 0]).tolist()
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png").tolist() == [[[255, 255, 255], [10, 20, 30]]]
    Image.new("CMYK", (2, 2), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    assert (read_image(tmp_path / "c.jpg") // 200).tolist() == [[[1, 0, 0]] * 2] * 2


def test_read_mode(tmp_path):
    colour = noise(5, 4, 3)
    write_image(tmp_path / "a.png", colour)
    want = np.asarray(Image.fromarray(colour).convert("L")).astype(int)
    assert np.abs(read_image(tmp_path / "a.png", mode="L").astype(int) - want).max() <= 1
    write_image(tmp_path / "g.png", colour[..., 0])
    assert read_image(tmp_path / "g.png").ndim == 2
    np.testing.assert_array_equal(read_image(tmp_path / "g.png", mode="RGB"), colour[..., [0, 0, 0]])
    with pytest.raises(ValueError, match="'RGBA'"):
        read_image(tmp_path / "g.png", mode="RGBA")


def test_read_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.png.*folder.*does not exist"):
        read_image(tmp_path / "nowhere" / "missing.png")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match="0 bytes"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello, this is text")
    with pytest.raises(ValueError, match="not a picture"):
        read_image(tmp_path / "text.png")
    for extension, shape in ((".png", (50, 50, 3)), (".jpg", (50, 50, 3))):
        whole = tmp_path / f"whole{extension}"
        write_image(whole, noise(*shape))
        cut = tmp_path / f"cut{extension}"
        cut.write_bytes(whole.read_bytes()[:900])
        with pytest.raises(ValueError, match=r"cannot be decoded|not a picture"):
            read_image(cut)
    deep = tmp_path / "deep.png"
    write_image(deep, noise(50, 50, 3, dtype=np.uint16))
    deep.write_bytes(deep.read_bytes()[:900])
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_image(deep)


def test_every_kind_writes_the_same_file(tmp_path):
    array = noise(5, 4, 3)
    kinds = {
        "numpy": array,
        "float": array / 255.0,
        "torch": torch.from_numpy(array).permute(2, 0, 1),
        "batch": torch.from_numpy(array / 255.0).permute(2, 0, 1)[None].bfloat16().float(),
        "pil": Image.fromarray(array),
    }
    for name, image in kinds.items():
        write_image(tmp_path / f"{name}.png", image)
        got = read_image(tmp_path / f"{name}.png").astype(int)
        assert np.abs(got - array).max() <= (1 if name == "batch" else 0)
    write_image(str(tmp_path / "clip.png"), np.array([[-0.5, 1.5]]))
    assert read_image(tmp_path / "clip.png").tolist() == [[0, 255]]


def test_write_errors_leave_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, np.zeros((2, 2)))
    before = path.read_bytes()
    for bad, match in [
        (np.full((2, 2), np.nan), "NaN"),
        (np.full((2, 2), 255.0), "Divide by 255"),
        (np.zeros((2, 2, 2, 3)), "2 pictures"),
        (np.zeros((2, 2, 4)), "4 channels"),
    ]:
        with pytest.raises(ValueError, match=match):
            write_image(path, bad)
    with pytest.raises(ValueError, match="no extension"):
        write_image(tmp_path / "a", np.zeros((2, 2)))

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_image(path, np.ones((2, 2)))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_import_is_light():
    heavy = "kornia skimage cv2 diffusers lpips matplotlib torchvision PIL"
    code = (
        "import sys, types; root = types.ModuleType('restore'); root.__path__ = ['restore'];"
        "sys.modules['restore'] = root; import torch, numpy; before = set(sys.modules);"
        "import restore.images, restore.metrics, restore.plots;"
        f"new = (set(sys.modules) - before) & set('{heavy}'.split()); assert not new, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.gpu
def test_device_is_kept():
    batch, fmt = to_batch(torch.rand(3, 4, 5, device="cuda", dtype=torch.float16))
    assert batch.device.type == "cuda"
    back = fmt.restore(batch.cpu())
    assert (back.device.type, back.dtype) == ("cuda", torch.float16)
    assert isinstance(fmt.restore(batch, as_format="numpy"), np.ndarray)


def test_where_a_picture_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    assert check_destination(tmp_path / "new" / "deep" / "A.PNG") == ".png"
    for path, kind, words in (
        (tmp_path / "file" / "a.png", NotADirectoryError, "file' is a file, and no folder"),
        (tmp_path / "folder.png", IsADirectoryError, "is a folder; expected the file"),
        (tmp_path / "a.xyz", ValueError, "extension '.xyz'"),
    ):
        with pytest.raises(kind, match=words):
            check_destination(path)
        with pytest.raises(kind, match=words):
            write_image(path, np.zeros((2, 2)))
    assert not (tmp_path / "new").exists()


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)
    with pytest.raises(PermissionError, match="no permission to write to"):
        check_destination(tmp_path / "a" / "b.png")
