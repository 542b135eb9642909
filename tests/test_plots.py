"""Sheets, grids and maps: what is where, and in which colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restore.plots import deviation_map, difference_map, grid, maps, sheet

few = settings(max_examples=30, deadline=None)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def flat(colour, height=40, width=30):
    return np.full((height, width, 3), colour, np.uint8)


def regions(image, colour):
    """Bounding box (top, left, bottom, right) of the pixels of one colour."""
    hit = np.argwhere((np.asarray(image) == colour).all(axis=-1))
    return (*hit.min(0).tolist(), *(hit.max(0) + 1).tolist())


# --------------------------------------------------------------------------------------------- sheets

RED, BLUE, GREEN = (200, 0, 0), (0, 0, 200), (0, 200, 0)


def test_sheet_places_pictures_at_one_height():
    got = sheet([flat(RED), flat(BLUE, 80, 120)], height=100)
    assert got.mode == "RGB"
    top, left, bottom, right = regions(got, RED)
    assert (bottom - top, right - left) == (100, 75)
    top2, left2, bottom2, right2 = regions(got, BLUE)
    assert (top2, bottom2, right2 - left2) == (top, bottom, 150)
    assert left2 > right
    assert got.getpixel((0, 0)) == (255, 255, 255)
    margins = (top, left, got.height - bottom, got.width - right2, left2 - right)
    assert len(set(margins)) == 1


def test_sheet_columns_and_titles():
    pictures = [flat(RED), flat(BLUE), flat(GREEN)]
    plain = sheet(pictures, columns=2, height=100)
    top, left, bottom, _ = regions(plain, RED)
    assert regions(plain, BLUE)[0] == top
    assert regions(plain, GREEN)[0] > bottom
    assert regions(plain, GREEN)[1] == left
    titled = sheet(pictures, ["one", "two\nlines", "three"], columns=2, height=100)
    assert titled.height > plain.height
    assert regions(titled, RED)[0] == regions(titled, BLUE)[0]
    above = np.asarray(titled)[: regions(titled, RED)[0]]
    half = above.shape[1] // 2
    assert (above[:, :half] < 100).any()
    assert (above[:, half:] < 100).any()
    assert (np.asarray(plain)[:top] == 255).all()
    assert sheet({"one": pictures[0]}, height=100) == sheet([pictures[0]], ["one"], height=100)
    assert sheet({"one": pictures[0]}, height=100) != sheet([pictures[0]], ["two"], height=100)


@few
@given(
    counts=st.integers(1, 7),
    columns=st.one_of(st.none(), st.integers(1, 9)),
    height=st.one_of(st.none(), st.integers(1, 90)),
    seed=st.integers(0, 99),
)
def test_sheet_takes_anything(counts, columns, height, seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(counts):
        h, w = rng.integers(1, 40, 2)
        array = rng.random((h, w, 3))
        images.append(
            [
                array,
                array[..., 0],
                (array * 255).astype(np.uint8),
                torch.from_numpy(array[..., :2].mean(-1)).half()[None],
                torch.from_numpy(array).permute(2, 0, 1)[None],
                Image.fromarray((array * 255).astype(np.uint8)).convert("CMYK"),
            ][rng.integers(6)]
        )
    titles = ["word " * rng.integers(0, 5) for _ in images]
    got = sheet(images, titles, columns=columns, height=height, max_width=600)
    assert got.mode == "RGB"
    assert got.width <= 600


@few
@given(width=st.integers(120, 2000), count=st.integers(1, 6))
def test_sheet_keeps_to_the_width(width, count):
    assert sheet([flat(RED, 60, 80)] * count, height=400, max_width=width).width <= width


def test_sheet_of_a_measurement_shows_its_pixels():
    y = noise(8, 8, 3)
    got = np.asarray(sheet([y], height=64))
    margin = (got.shape[0] - 64) // 2
    inner = got[margin : margin + 64, margin : margin + 64]
    np.testing.assert_array_equal(inner, y.repeat(8, 0).repeat(8, 1))
    large = np.asarray(sheet([flat(RED, 512, 512)], height=64))  # and a large one is averaged, not sampled
    assert (large[margin + 3, margin + 3] == RED).all()
    checks = np.indices((256, 256)).sum(0) % 2 * 1.0
    reduced = np.asarray(sheet([checks], height=32))[16, 16]
    assert abs(int(reduced[0]) - 128) < 8


def test_sheet_clips_noise_and_wraps_titles():
    got = sheet([np.array([[-0.5, 1.5]])], height=20)
    values = np.unique(np.asarray(got))
    assert values[0] == 0
    narrow, wide = (sheet([flat(RED, 100, w)], ["several words in a title"], height=100) for w in (60, 400))
    assert narrow.height > wide.height
    for title in ("Antidisestablishmentarianism" * 3, "", "σ = 0.1 × 2 – é"):
        got = np.asarray(sheet([flat(RED, 100, 60)], [title], height=100))
        assert (got[:, 0] == 255).all()


@pytest.mark.parametrize(
    ("args", "options", "match"),
    [
        (([],), {}, "nothing to show"),
        (({"a": flat(RED)}, ["a"]), {}, "given twice"),
        (([flat(RED)], ["a", "b"]), {}, "2 titles for 1"),
        (([flat(RED)],), {"columns": 0}, "columns is 0"),
        (([flat(RED)],), {"height": -5}, "height is -5"),
        (([np.zeros((9, 9, 4))],), {}, r"images\[0\] has 4 channels"),
        (([flat(RED), np.zeros((2, 9, 9, 3))],), {}, r"images\[1\] is a batch of 2"),
        (([np.full((9, 9), 255.0)],), {}, r"images\[0\] has float values.*Divide by 255"),
        (([np.full((9, 9), np.nan)],), {}, "NaN"),
    ],
)
def test_sheet_refuses(args, options, match):
    with pytest.raises(ValueError, match=match):
        sheet(*args, **options)


# ---------------------------------------------------------------------------------------------- grids


@few
@given(count=st.integers(1, 8), columns=st.one_of(st.none(), st.integers(1, 9)), pad=st.integers(0, 3))
def test_grid_holds_every_pixel(count, columns, pad):
    batch = noise(count, 5, 7, 3)
    got = np.asarray(grid(batch, columns, pad))
    used = min(columns or int(np.ceil(np.sqrt(count))), count)
    assert got.shape == (-(-count // used) * (5 + pad) + pad, used * (7 + pad) + pad, 3)
    for i, picture in enumerate(batch):
        top, left = i // used * (5 + pad) + pad, i % used * (7 + pad) + pad
        np.testing.assert_array_equal(got[top : top + 5, left : left + 7], picture)
    assert got.astype(int).sum() == batch.sum() + 255 * (got.size - batch.size)  # white elsewhere
    tensors = torch.from_numpy(batch).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(np.asarray(grid(tensors, columns, pad)), got)
    np.testing.assert_array_equal(np.asarray(grid(list(batch), columns, pad)), got)


def test_grid_refuses():
    with pytest.raises(ValueError, match=r"differ in size.*plots\.sheet"):
        grid([flat(RED), flat(RED, 41)])
    with pytest.raises(ValueError, match="columns is 0"):
        grid([flat(RED)], columns=0)


# ----------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("name", ["magma", "viridis"])
def test_colours_are_the_known_maps(name):
    table = cv2.applyColorMap(
        np.arange(256, dtype=np.uint8)[:, None], getattr(cv2, f"COLORMAP_{name.upper()}")
    )
    got = maps._colours(np.linspace(0, 1, 256)[:, None], name)
    assert np.abs(got[:, 0].astype(int) - table[:, 0, ::-1]).max() <= 5
    luma = got[:, 0] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma) > -0.5).all()


def test_deviation_is_the_standard_deviation():
    rng = np.random.default_rng(0)
    draws = np.clip(rng.normal(0.5, 0.1, (12, 9, 8, 3)), 0, 1)
    deviation = 255 * np.sqrt(draws.var(axis=0, ddof=1).mean(-1))
    want = maps._colours(deviation / 50, "magma")
    got = np.asarray(deviation_map(draws, maximum=50, colorbar=False)).astype(int)
    assert np.abs(got - want).max() <= 1
    tensors = torch.from_numpy(draws).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(deviation_map(tensors, maximum=50, colorbar=False), got)
    pil = [Image.fromarray(np.rint(d * 255).astype(np.uint8)) for d in draws]
    near = np.asarray(deviation_map(pil, maximum=50, colorbar=False)).astype(int)
    assert 0 < np.abs(near - got).max() < 10
    gray = draws[..., 0]
    assert deviation_map(gray, colorbar=False).size == (8, 9)


def test_maps_of_nothing_are_dark():
    same = np.ones((5, 40, 30))
    assert np.asarray(deviation_map(same, colorbar=False)).max() <= 4
    assert np.asarray(difference_map(same[0], same[0], colorbar=False)).max() <= 4
    deviation_map(same)
    difference_map(same[0], same[0])


def test_difference_by_hand():
    a, b = np.zeros((4, 4, 3)), np.zeros((4, 4, 3))
    b[1, 2] = [0.3, 0.6, 0.6]  # root mean square 0.52
    got = np.asarray(difference_map(a, b, maximum=255 * np.sqrt(0.27), colorbar=False))
    assert got[1, 2].tolist() == [0xFC, 0xFD, 0xBF]
    assert got[0, 0].tolist() == [0, 0, 4]
    assert difference_map(a, np.zeros((4, 4)), colorbar=False).size == (4, 4)


@few
@given(largest=st.floats(1e-4, 300), maximum=st.one_of(st.none(), st.floats(1e-3, 300)))
def test_scales_are_round_and_reach(largest, maximum):
    top, step = maps._scale(largest, maximum)
    assert top == maximum if maximum else largest <= top * (1 + 1e-9) <= 1.3 * largest
    assert 3.9 < top / step < 11
    assert float(f"{step:.0e}") == pytest.approx(step)
    assert f"{step:.0e}"[0] in "125"


@pytest.mark.parametrize("shape", [(20, 30), (200, 150), (1, 1), (500, 40)])
def test_colour_bar(shape):
    a, b = np.zeros(shape), np.random.default_rng(0).random(shape)
    bare, full = (difference_map(a, b, colorbar=bar, colormap="viridis") for bar in (False, True))
    factor = -(-192 // shape[0])
    picture = np.asarray(full)[: shape[0] * factor, : shape[1] * factor]
    np.testing.assert_array_equal(picture[::factor, ::factor], bare)
    assert full.height == shape[0] * factor
    beside = np.asarray(full)[:, shape[1] * factor :]
    column = beside[:, np.argmax((beside < 250).any(-1).all(0)) + 2].astype(int)  # inside the bar
    assert np.abs(column[0] - [0xFD, 0xE7, 0x25]).max() <= 2  # highest on top
    assert np.abs(column[-1] - [0x44, 0x01, 0x54]).max() <= 2
    assert (beside.max(axis=-1) < 60).any()  # figures


def test_maps_refuse():
    with pytest.raises(ValueError, match="at least 2 draws"):
        deviation_map(np.zeros((1, 8, 8)))
    # Rows that would pass for draws, and a picture without any.
    arrays = [np.zeros(shape) for shape in ((8, 9, 3), (8, 9, 1), (8, 9))]
    for picture in (*arrays, torch.zeros(3, 8, 9), Image.new("L", (9, 8))):
        with pytest.raises(ValueError, match="samples is one picture"):
            deviation_map(picture)
    for draws in (np.zeros((5, 8, 9)), torch.zeros(5, 8, 9), [np.zeros((8, 9, 3))] * 2):
        assert deviation_map(draws, colorbar=False).size == (9, 8)
    with pytest.raises(ValueError, match="batch of 2"):
        deviation_map(np.zeros((3, 2, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"samples\[1\] is \(1, 8, 9\)"):
        deviation_map([np.zeros((8, 8)), np.zeros((8, 9))])
    with pytest.raises(ValueError, match="expected the same size"):
        difference_map(np.zeros((8, 8)), np.zeros((8, 9)))
    with pytest.raises(ValueError, match="'magma', 'viridis'"):
        difference_map(np.zeros((8, 8)), np.zeros((8, 8)), colormap="jet")
    with pytest.raises(ValueError, match="maximum is -1"):
        difference_map(np.zeros((8, 8)), np.zeros((8, 8)), maximum=-1)


@pytest.mark.parametrize("width", [16, 40, 96, 200])
def test_titles_are_broken_and_never_cut(width):
    from restore.plots.lettering import font_for, title_lines

    title = "diffpir:steps=50,zeta=1.0,iterations=100\n28.84 dB / 0.805 of_a_picture_with_a_long_name.png"
    lines = [text for text, _ in title_lines(title, 12, width)]
    assert "".join(lines).replace(" ", "") == "".join(title.split())
    assert all(font_for(12, text).getlength(text) <= width for text in lines)
    if width >= 96:  # There is room to end at signs, not within words.
        assert all(text[-1] in ":,=_/.-" or f"{text} " in f"{title} ".replace("\n", " ") for text in lines)
