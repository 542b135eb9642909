"""Training pictures: which files are found, and that every crop is a true window of a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from restore.data import IMAGE_SUFFIXES, Crops, find_images, split

few = settings(max_examples=40, deadline=None)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def located(height, width, number=0):
    """A picture whose pixels say where they are: (row, column, number of the picture)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype(np.uint8)


def levels(batch):
    """The grey levels, 0 to 255, that a batch was made from; exactly."""
    value = (batch.double() + 1) * 127.5
    assert torch.equal(value.round().float().div(127.5).sub(1), batch)
    return value.round().long()


def places(batch, shapes):
    """Where each crop comes from: (picture, top, left, mirrored); fails if it is no true window."""
    found = []
    for rows, columns, number in levels(batch):
        size = rows.shape[0]
        which = int(number[0, 0])
        top, first, second = int(rows[0, 0]), int(columns[0, 0]), int(columns[0, 1])
        assert bool((number == which).all())
        line = torch.arange(size)
        assert bool((rows == top + line[:, None]).all())
        mirrored = second < first
        left = first - size + 1 if mirrored else first
        expected = left + (line.flip(0) if mirrored else line)
        assert bool((columns == expected[None]).all())
        height, width = shapes[which]
        assert 0 <= top <= height - size
        assert 0 <= left <= width - size
        found.append((which, top, left, mirrored))
    return found


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def only_picture(path, channels=3):
    """A square picture as it came out of the file, in grey levels (H, W, C)."""
    with Image.open(path) as image:
        side = min(image.size)
    crops = Crops([path], side, channels=channels, flip=False, scales=0)
    return levels(crops.batch(1, seeded()))[0].permute(1, 2, 0).numpy()


# ------------------------------------------------------------------------------------------- finding files


def test_pictures_are_found_with_sub_folders_in_order(tmp_path):
    names = ["b.png", "a.JPG", "sub/deep/c.webp", "sub/d.tiff", "z.jpeg"]
    for name in [*names, "notes.txt", "sub/model.safetensors", "no_suffix"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = find_images(tmp_path)
    assert found == sorted(tmp_path / name for name in names)
    assert find_images(str(tmp_path)) == found


def test_one_file_is_a_folder_of_one(tmp_path):
    path = save(tmp_path / "a.png", located(4, 4))
    assert find_images(path) == [path]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images(tmp_path / "nowhere")


def test_folder_without_pictures_is_named_with_what_counts(tmp_path):
    (tmp_path / "readme.md").touch()
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*\.png") as error:
        find_images(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert all(suffix in str(error.value) for suffix in IMAGE_SUFFIXES)


# ------------------------------------------------------------------------------------------- the split

paths = st.lists(
    st.builds(
        lambda folder, name: Path(folder, f"{name}.png"),
        st.sampled_from(["a", "b", "a-val", "b/c-val/d", "valley", "x-val.d"]),
        st.integers(0, 999),
    ),
    max_size=90,
    unique=True,
).map(sorted)


@few
@given(paths, st.integers(2, 25))
def test_split_is_a_partition(paths, every):
    train, held_out = split(paths, every)
    assert sorted(train + held_out) == paths
    assert train == sorted(train)
    named = {p for p in paths if p.parts[0] == "a-val" or "c-val" in p.parts}
    assert named <= set(held_out)
    others = len(paths) - len(named)
    assert len(held_out) - len(named) == others // every
    assert split(paths, every) == (train, held_out)


@few
@given(paths)
def test_a_new_validation_picture_moves_no_training_picture(paths):
    train, _ = split(paths)
    assert split(sorted([*paths, Path("extra-val/0.png")]))[0] == train


def test_only_folders_below_the_root_are_for_validation(tmp_path):
    """Not those above it: a folder may lie, or be, where it likes."""
    root = tmp_path / "project-val" / "photos-val"
    for name in ("a.png", "b.png", "c-val/d.png"):
        save(root / name, located(4, 4))
    train, held_out = split(find_images(root), root=root)
    assert [p.name for p in train] == ["a.png", "b.png"]
    assert [p.name for p in held_out] == ["d.png"]


def test_a_file_named_like_a_validation_folder_is_for_training():
    assert split([Path("a/b-val.png"), Path("a/c-val")]) == ([Path("a/b-val.png"), Path("a/c-val")], [])


# ------------------------------------------------------------------------------------------- crops are windows


@few
@given(
    st.lists(st.tuples(st.integers(5, 40), st.integers(5, 40)), min_size=1, max_size=6),
    st.integers(2, 5),
    st.integers(0, 1000),
    st.booleans(),
)
def test_every_crop_is_a_window_of_a_picture(shapes, size, seed, flip):
    crops = Crops.from_arrays([located(h, w, i) for i, (h, w) in enumerate(shapes)], size, flip=flip)
    assert len(crops) == len(shapes)
    batch = crops.batch(32, seeded(seed))
    assert batch.shape == (32, 3, size, size)
    assert batch.dtype == torch.float32
    assert not any(mirrored for *_, mirrored in places(batch, shapes)) or flip


def test_crops_of_files_are_windows_too(tmp_path):
    shapes = [(9, 30), (25, 8), (12, 12)]
    files = [save(tmp_path / f"{i}.png", located(h, w, i)) for i, (h, w) in enumerate(shapes)]
    found = places(Crops(files, 8, scales=0).batch(300, seeded()), shapes)
    assert {which for which, *_ in found} == {0, 1, 2}


def test_every_position_is_taken_equally_often():
    shape, size, count = (10, 8), 5, 12_000
    found = places(Crops.from_arrays([located(*shape)], size).batch(count, seeded()), [shape])
    table = np.zeros((6, 4))
    for _, top, left, _ in found:
        table[top, left] += 1
    expected = count / table.size
    # Chi-square with 23 degrees of freedom: above 58 once in 10,000 seeds.
    assert ((table - expected) ** 2 / expected).sum() < 58


def test_pictures_are_drawn_by_the_square_root_of_their_area():
    shapes, count = [(8, 8), (16, 16), (8, 72), (40, 90)], 20_000
    crops = Crops.from_arrays([located(h, w, i) for i, (h, w) in enumerate(shapes)], 8)
    batch = crops.batch(count, seeded(1))
    seen = torch.bincount(levels(batch)[:, 2, 0, 0], minlength=4).double()
    shares = torch.tensor([math.sqrt(h * w) for h, w in shapes], dtype=torch.float64)
    expected = count * shares / shares.sum()
    # 8, 16, 24 and 60 parts. Chi-square with 3 degrees of freedom: above 21 once in 10,000 seeds.
    assert expected.tolist() == pytest.approx([count * n / 108 for n in (8, 16, 24, 60)])
    assert float(((seen - expected) ** 2 / expected).sum()) < 21


def test_half_of_the_crops_are_mirrored():
    count, shape = 10_000, (12, 20)
    found = places(Crops.from_arrays([located(*shape)], 6).batch(count, seeded()), [shape])
    mirrored = np.array([m for *_, m in found])
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)
    # Neither the place nor the choice of it depends on the mirror.
    lefts = np.array([left for _, _, left, _ in found])
    assert abs(lefts[mirrored].mean() - lefts[~mirrored].mean()) < 0.5
    straight = Crops.from_arrays([located(*shape)], 6, flip=False).batch(1000, seeded())
    assert not any(m for *_, m in places(straight, [shape]))


def test_values_are_the_levels_in_the_priors_range():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    batch = Crops.from_arrays([ramp], 16, flip=False).batch(1, seeded())
    assert float(batch.min()) == -1.0
    assert float(batch.max()) == 1.0
    torch.testing.assert_close(batch.flatten(), torch.linspace(-1, 1, 256), rtol=0, atol=1e-6)


def test_the_generator_decides():
    crops = Crops.from_arrays([located(40, 40)], 8)
    a, b, c = (crops.batch(16, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generator = seeded(3)
    crops.batch(16, generator)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(crops.batch(16, generator), a)


# ------------------------------------------------------------------------------------------- sizes and scales


def test_small_pictures_are_skipped(tmp_path):
    shapes = [(7, 40), (40, 7), (8, 8), (20, 9)]
    files = [save(tmp_path / f"{i}.png", located(h, w, i)) for i, (h, w) in enumerate(shapes)]
    crops = Crops(files, 8, scales=0)
    assert len(crops) == 2
    assert {which for which, *_ in places(crops.batch(100, seeded()), shapes)} == {2, 3}


def test_if_no_picture_is_large_enough_the_error_says_how_large(tmp_path):
    files = [save(tmp_path / f"{i}.png", located(9, 30)) for i in range(3)]
    with pytest.raises(ValueError, match="none of the 3 pictures is at least 10 pixels"):
        Crops(files, 10)


def test_no_pictures_at_all():
    with pytest.raises(ValueError, match="no pictures"):
        Crops([], 8)


@pytest.mark.parametrize(
    ("scales", "sides"), [(0, [64]), (1, [64, 32]), (2, [64, 32, 16]), (9, [64, 32, 16])]
)
def test_the_pyramid_halves_as_long_as_a_crop_fits(tmp_path, scales, sides):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    crops = Crops([save(tmp_path / "a.png", pixels)], 12, scales=scales)
    assert crops._shapes.tolist() == [[side, side * 3 // 2] for side in sides]
    # Each level holds the picture itself, halved by PIL.
    level = Image.fromarray(pixels)
    for start, side in zip(crops._starts.tolist(), sides, strict=True):
        kept = crops._pixels[start : start + side * side * 3 // 2 * 3].numpy().reshape(side, -1, 3)
        assert np.array_equal(kept, np.asarray(level))
        level = level.resize((level.width // 2, level.height // 2), Image.Resampling.LANCZOS)
    assert len(crops._pixels) == sum(side * side * 3 // 2 * 3 for side in sides)


def test_halving_keeps_what_is_where(tmp_path):
    """A smooth ramp, halved, is the same ramp with half the pixels."""
    rows, columns = np.mgrid[:64, :64]
    pixels = np.stack([rows * 4, columns * 4, 0 * rows], -1).astype(np.uint8)
    crops = Crops([save(tmp_path / "a.png", pixels)], 32, flip=False, scales=1)
    kept = crops._pixels[64 * 64 * 3 :].reshape(32, 32, 3).float()
    expected = torch.arange(32) * 8 + 2.0
    torch.testing.assert_close(kept[2:-2, 16, 0], expected[2:-2], rtol=0, atol=1.0)
    torch.testing.assert_close(kept[16, 2:-2, 1], expected[2:-2], rtol=0, atol=1.0)


@pytest.mark.parametrize(
    ("per_octave", "sides"), [(2, [64, 45, 32, 23, 16]), (3, [64, 51, 40, 32, 25, 20, 16])]
)
def test_sizes_between_the_halves(tmp_path, per_octave, sides):
    """Each is the picture of its octave, resized by PIL; the halves themselves are as without."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", pixels)
    crops, halves = Crops([path], 12, per_octave=per_octave), Crops([path], 12)
    heights, widths = crops._shapes.unbind(1)
    assert heights.tolist() == sides
    assert widths.tolist() == pytest.approx([1.5 * side for side in sides], abs=0.8)

    def level(of, number):
        start, (height, width) = of._starts[number], of._shapes[number].tolist()
        return of._pixels[start : start + height * width * 3].reshape(height, width, 3).numpy()

    for octave in range(3):
        assert np.array_equal(level(crops, octave * per_octave), level(halves, octave))
    between = level(crops, per_octave + 1)
    above = Image.fromarray(level(halves, 1))
    resized = above.resize(between.shape[1::-1], Image.Resampling.LANCZOS)
    assert np.array_equal(between, np.asarray(resized))


# ------------------------------------------------------------------------------------------- several sides


def test_crops_of_several_sides_are_windows_of_what_is_large_enough(tmp_path):
    shapes = [(9, 30), (25, 40), (12, 12)]
    files = [save(tmp_path / f"{i}.png", located(h, w, i)) for i, (h, w) in enumerate(shapes)]
    crops = Crops(files, (8, 12, 20), scales=0)
    for side, large in ((8, {0, 1, 2}), (12, {1, 2}), (20, {1})):
        batch = crops.batch(200, seeded(side), side)
        assert batch.shape == (200, 3, side, side)
        assert {which for which, *_ in places(batch, shapes)} == large
    assert torch.equal(crops.batch(9, seeded()), Crops(files, 8, scales=0).batch(9, seeded()))


def test_the_largest_crop_must_fit(tmp_path):
    with pytest.raises(ValueError, match="none of the 1 pictures is at least 24 pixels"):
        Crops([save(tmp_path / "a.png", located(20, 30))], (8, 24))


# ------------------------------------------------------------------------------------------- nearly whole pictures


def gradual(height, width):
    """A picture whose red rises from its left to its right, and green from top to bottom, whatever its size."""
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return np.rint(np.stack(np.broadcast_arrays(255 * columns, 255 * rows[:, None], 0), -1)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_share_of_the_crops_show_whole_pictures(tmp_path, channels):
    path, share, count = save(tmp_path / "a.png", gradual(200, 300)), 0.3, 3000
    crops = Crops([path], (16, 64), channels=channels, scales=0, whole=share, flip=False)
    sizes = [[200, 300], [16, 24], [32, 48], [64, 96], [80, 120]]
    assert crops._shapes.tolist() == sizes
    for side, (small, large) in {16: (24, 48), 64: (96, 120)}.items():
        batch = levels(crops.batch(count, seeded(3), side))
        assert batch.shape == (count, channels, side, side)
        if channels == 1:
            continue
        wide = (batch[:, 0, 0, -1] - batch[:, 0, 0, 0]).double() / (side - 1) / 255  # Of a pixel: 1 / width.
        widths = torch.tensor([300, large, small]).double()
        nearest = (1 / wide.clamp(min=1e-6)[:, None] - widths).abs().argmin(1)
        whole = float((nearest > 0).double().mean())
        assert abs(whole - share) < 4 * math.sqrt(share * (1 - share) / count)
        # Among themselves as all pictures: by the square root of their pixels.
        of_whole = float((nearest == 1).sum() / (nearest > 0).sum())
        assert of_whole == pytest.approx(large / (large + small), abs=4 * math.sqrt(0.25 / (share * count)))


def test_pictures_too_small_to_be_reduced_are_not_enlarged(tmp_path):
    paths = [save(tmp_path / "a.png", gradual(20, 20)), save(tmp_path / "b.png", gradual(18, 90))]
    crops = Crops(paths, (8, 18), scales=0, whole=0.5)
    assert crops._shapes.tolist() == [[20, 20], [18, 90], [8, 8], [8, 40], [18, 18], [18, 90]]
    assert crops.batch(30, seeded(), 18).shape == (30, 3, 18, 18)


def test_whole_pictures_join_dead_leaves_and_leave_the_others(tmp_path):
    path = save(tmp_path / "a.png", gradual(300, 300))
    plain, all_three = Crops([path], 16), Crops([path], 16, whole=0.25, dead_leaves=0.25)
    assert torch.equal(all_three._pixels[: len(plain._pixels)], plain._pixels)
    assert len(all_three) == len(plain) + 2 + 1
    shares = torch.diff(all_three._drawn[16][1], prepend=torch.zeros(1))
    parts = [float(part.sum()) for part in shares.split([len(plain), 2, 1])]
    assert parts == pytest.approx([0.5, 0.25, 0.25])


def test_a_share_of_the_crops_show_parts_of_large_pictures(tmp_path):
    """Pictures of four times a crop's side are kept at two, three and four times it, smaller ones are not."""
    share = 0.4
    paths = [save(tmp_path / "a.png", gradual(200, 300)), save(tmp_path / "b.png", gradual(60, 90))]
    crops = Crops(paths, (16, 48), scales=0, scenes=share)
    assert crops._shapes.tolist() == [
        [200, 300],
        [60, 90],
        *([n, round(1.5 * n)] for n in (32, 48, 64, 96, 144, 192)),
    ]
    for side, own in {16: slice(2, 5), 48: slice(5, 8)}.items():
        chances = torch.zeros(len(crops), dtype=torch.float64)
        which, edges = crops._drawn[side]
        chances[which] = torch.diff(edges, prepend=torch.zeros(1))
        assert float(chances[own].sum()) == pytest.approx(share)
        assert float(chances[:2].sum()) == pytest.approx(1 - share)
        # The larger, the more there is to see.
        assert float(chances[own][2] / chances[own][0]) == pytest.approx(2)


def test_scenes_need_large_pictures(tmp_path):
    path = save(tmp_path / "a.png", gradual(60, 90))
    with pytest.raises(
        ValueError, match=r"scenes \(0.5\) are of pictures of at least 64 pixels a side, for crops of 16"
    ):
        Crops([path], 16, scenes=0.5)


# ------------------------------------------------------------------------------------------- dead leaves


def test_a_share_of_the_crops_are_dead_leaves(tmp_path):
    """In the colours of the photograph, which is red; the photograph itself is flat."""
    shape, share, count = (300, 400), 0.25, 4000
    path = save(tmp_path / "red.png", np.full((*shape, 3), (200, 10, 10), np.uint8))
    for side in (16, 32):
        crops = Crops([path], (16, 32), scales=0, dead_leaves=share)
        # A quarter of 300 x 400 pixels is less than one picture of 256 x 256.
        assert crops._shapes.tolist() == [list(shape), [256, 256]]
        batch = levels(crops.batch(count, seeded(2), side))
        photograph = (batch == torch.tensor([200, 10, 10])[:, None, None]).flatten(1).all(1)
        found = 1 - float(photograph.double().mean())
        # Some crops of leaves are flat, too: a little fewer than the share, within four deviations otherwise.
        assert share - 0.06 < found < share + 4 * math.sqrt(share * (1 - share) / count)
        leaves = batch[~photograph].double()
        assert leaves[:, 0].mean() > 5 * leaves[:, 1].mean()


def test_dead_leaves_follow_their_seed_and_leave_the_photographs(tmp_path):
    path = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    one, same, other = (Crops([path], 16, dead_leaves=0.1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one._pixels, same._pixels)
    assert not torch.equal(one._pixels, other._pixels)
    plain = Crops([path], 16)
    assert torch.equal(one._pixels[: len(plain._pixels)], plain._pixels)
    assert len(one) == len(plain) + 1


def test_grey_dead_leaves(tmp_path):
    path = save(tmp_path / "a.png", located(40, 40))
    crops = Crops([path], 16, channels=1, dead_leaves=0.5)
    assert crops.channels == 1
    assert crops.batch(4, seeded()).shape == (4, 1, 16, 16)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none(tmp_path, share):
    path = save(tmp_path / "a.png", located(20, 20))
    for name in ("dead_leaves", "whole"):
        with pytest.raises(ValueError, match=f"{name} is a share of the crops"):
            Crops([path], 8, **{name: share})


def test_shares_that_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="leave no crops for other pictures"):
        Crops([save(tmp_path / "a.png", located(20, 20))], 8, whole=0.5, dead_leaves=0.5)


# ------------------------------------------------------------------------------------------- kinds of files


def test_grey_from_colour_is_luma(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    grey = only_picture(save(tmp_path / "a.png", pixels), channels=1)
    assert grey.shape == (9, 9, 1)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 1


def test_colour_from_grey_repeats(tmp_path):
    pixels = located(9, 9)[..., 0] * 20
    colour = only_picture(save(tmp_path / "a.png", pixels))
    assert np.array_equal(colour, np.repeat(pixels[..., None], 3, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(tmp_path, orientation):
    pixels = located(8, 12, 5)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", pixels, exif=exif)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert upright.shape[:2] == ((8, 12) if orientation < 5 else (12, 8))
    crops = Crops([path], 8, flip=False, scales=0)
    assert crops._shapes.tolist() == [list(upright.shape[:2])]
    assert np.array_equal(crops._pixels.numpy(), upright.reshape(-1))


def test_palette_files(tmp_path):
    pixels = located(8, 8) * 30
    image = Image.fromarray(pixels).quantize(64)
    image.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert np.array_equal(only_picture(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_transparency_lies_on_white(tmp_path):
    """What nobody sees in a picture is not learned: hidden colours under full transparency."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    pixels[:4, :, 3], pixels[4:, :, 3] = 255, 0
    seen = only_picture(save(tmp_path / "a.png", pixels))
    assert np.array_equal(seen[:4], pixels[:4, :, :3])
    assert (seen[4:] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_cut(tmp_path, channels):
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    path = tmp_path / "a.png"
    Image.fromarray(deep).save(path)
    assert Image.open(path).mode.startswith("I")
    seen = only_picture(path, channels)
    assert np.array_equal(seen, np.repeat(np.arange(256).reshape(16, 16, 1), channels, -1))


def test_floats_in_the_unit_range(tmp_path):
    path = save(tmp_path / "a.tif", np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16))
    assert np.array_equal(only_picture(path, 1)[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("mode", ["CMYK", "1", "LA", "YCbCr"])
def test_other_modes(tmp_path, mode):
    image = Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).convert(mode)
    # Pillow 12.3 cannot read the YCbCr TIFF that it writes; a JPEG of that mode is what cameras make.
    image.save(tmp_path / {"CMYK": "a.tif", "YCbCr": "a.jpg"}.get(mode, "a.png"))
    assert only_picture(next(tmp_path.iterdir())).min() >= 254


# ------------------------------------------------------------------------------------------- damaged files


def damaged(kind):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG" if kind == "cut.jpg" else "PNG")
    whole = buffer.getvalue()
    return {
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": whole[: len(whole) // 2],
        "flipped.png": whole[:200] + bytes([whole[200] ^ 0xFF]) * 50 + whole[250:],
        "text.png": b"this is no picture",
        "empty.png": b"",
        "html.jpg": b"<html>404</html>",
    }[kind]


@pytest.mark.parametrize("kind", ["cut.png", "cut.jpg", "flipped.png", "text.png", "empty.png", "html.jpg"])
def test_a_damaged_file_is_named(tmp_path, kind):
    good = save(tmp_path / "good.png", located(20, 20))
    bad = tmp_path / f"picture-17-{kind}"
    bad.write_bytes(damaged(kind))
    with pytest.raises(ValueError, match=f"picture-17-{kind}"):
        Crops([good, bad, good], 8)


# ------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    "images",
    [
        [np.zeros((20, 20, 3), np.float32)],
        [np.zeros((20, 20), np.uint8)],
        [np.zeros((20, 20, 3), np.uint8), np.zeros((7, 20, 3), np.uint8)],
        [np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 1), np.uint8)],
        [],
    ],
    ids=["floats", "no channels", "smaller than a crop", "mixed channels", "none"],
)
def test_arrays_that_are_no_pictures_are_refused(images):
    with pytest.raises(ValueError, match="expected"):
        Crops.from_arrays(images, 8)


def test_arrays_need_not_be_contiguous():
    pixels = located(30, 40)
    crops = Crops.from_arrays([pixels[::-1].swapaxes(0, 1)], 8)
    assert np.array_equal(crops._pixels.numpy(), pixels[::-1].swapaxes(0, 1).reshape(-1))
