import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from operators import Grayscale, Mask, box_mask, freeform_mask, mask_from_image, random_mask

HOLE = np.zeros((6, 9), dtype=bool)
HOLE[1:4, 2:7] = True
KEEP = torch.from_numpy(~HOLE)


class TestMask:
    @pytest.mark.parametrize(
        "shape", [(4, 5), (1, 4, 5), (3, 4, 5), (1, 1, 4, 5), (2, 1, 4, 5), (2, 3, 4, 5)]
    )
    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
    def test_shapes_and_types(self, shape, dtype):
        mask = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5).to(dtype)
        x = torch.rand(2, 3, 4, 5)
        y = Mask(mask)(x)
        torch.testing.assert_close(y, x * mask.float(), rtol=0, atol=0)
        assert y.dtype == x.dtype

    def test_from_numpy(self):
        x = torch.rand(1, 3, 6, 9)
        assert not Mask(~HOLE)(x)[..., ~KEEP].any()
        torch.testing.assert_close(Mask(~HOLE)(x)[..., KEEP], x[..., KEEP])

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: Mask(torch.ones(4)), r"\(H, W\).*got \(4,\)"),
            (lambda: Mask(torch.full((4, 4), float("nan"))), "mask has NaN"),
            (lambda: Mask(torch.tensor([[0, 255]])), "255.*from_hole_image"),
            (lambda: Mask(torch.ones(4, 4))(torch.ones(1, 3, 4, 5)), r"4 x 4.*\(3, 4, 5\)"),
            (
                lambda: Mask(torch.ones(2, 4, 4))(torch.ones(1, 3, 4, 4)),
                r"2 channels, the image 3.*\(B, 1, H, W\)",
            ),
        ],
    )
    def test_refusals(self, make, match):
        with pytest.raises(ValueError, match=match):
            make()


class TestMakers:
    def test_box(self):
        assert (~box_mask((8, 10), 4)).sum() == 16
        assert not box_mask((8, 10), (2, 4))[3:5, 3:7].any()
        assert not box_mask((8, 10), (0, 7, 2, 3))[0:2, 7:10].any()
        places = {tuple((~box_mask(32, 4, seed=s)).nonzero()[0].tolist()) for s in range(20)}
        assert len(places) > 15
        assert torch.equal(box_mask(32, 4, seed=0), box_mask(32, 4, seed=0))
        with pytest.raises(ValueError, match="does not lie within an image of 8 x 10"):
            box_mask((8, 10), (6, 0, 4, 4))
        with pytest.raises(ValueError, match="does not lie within"):
            box_mask((8, 10), 9, seed=0)

    @pytest.mark.parametrize("keep", [0.0, 0.08, 0.3, 1.0])
    def test_random(self, keep):
        mask = random_mask((50, 40), keep, seed=0)
        assert mask.dtype == torch.bool
        assert mask.sum() == round(keep * 2000)

    @pytest.mark.parametrize("make", [random_mask, freeform_mask])
    def test_seeds_and_batches(self, make):
        one, same, other = make((20, 30), seed=0), make((20, 30), seed=0), make((20, 30), seed=1)
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        several = make((20, 30), batch=3, seed=0)
        assert several.shape == (3, 1, 20, 30)
        assert torch.equal(several[0, 0], one)
        assert not torch.equal(several[0], several[1])
        assert not torch.equal(make((20, 30)), make((20, 30)))
        generator = torch.Generator().manual_seed(0)
        assert torch.equal(make((20, 30), seed=generator), one)
        assert not torch.equal(make((20, 30), seed=generator), one)
        with pytest.raises(ValueError, match="from 0 to 1; got 70"):
            make((20, 30), 70)

    @pytest.mark.parametrize("size", [(64, 64), (33, 71), (1, 9), (300, 200)])
    @pytest.mark.parametrize("keep", [0.5, 0.9])
    def test_freeform(self, size, keep):
        mask = freeform_mask(size, keep, seed=3)
        assert mask.shape == size
        kept = float(mask.float().mean())
        assert kept <= keep
        if min(size) > 30:
            assert kept > keep - 0.25
            # Strokes, not dust: most pixels of a hole have a neighbour in it.
            inner = ~mask[1:] & ~mask[:-1]
            assert inner.sum() > 0.7 * (~mask).sum()
        assert freeform_mask(size, 1.0).all()
        assert not freeform_mask((8, 8), 0.0, seed=0).any()


def pictures():
    """The same hole, white on black, in every way that an editor may save it."""
    level = HOLE.astype(np.uint8) * 255
    grey = Image.fromarray(level)
    clear = np.dstack([np.full((*HOLE.shape, 3), 255, np.uint8), level])  # white strokes on a clear layer
    palette = grey.convert("RGB").quantize(2)
    return {
        "L": grey,
        "1": grey.convert("1"),
        "RGB": grey.convert("RGB"),
        "RGBA": grey.convert("RGBA"),
        "LA": grey.convert("LA"),
        "P": palette,
        "CMYK": grey.convert("CMYK"),
        "I": grey.convert("I"),
        "I;16": Image.fromarray(HOLE.astype(np.uint16) * 65535),
        "F": Image.fromarray(HOLE.astype(np.float32)),
        "clear": Image.fromarray(clear),
        "bool": HOLE,
        "uint8": level,
        "int64": level.astype(np.int64),
        "binary": HOLE.astype(np.uint8),
        "float": HOLE.astype(np.float64),
        "tensor": torch.from_numpy(level),
        "channels": np.dstack([level] * 3),
        "soft": (HOLE * 140 + ~HOLE * 110).astype(np.uint8),
    }


class TestPictures:
    @pytest.mark.parametrize("kind", pictures())
    def test_white_is_filled_in(self, kind):
        picture = pictures()[kind]
        assert torch.equal(mask_from_image(picture), KEEP)
        assert torch.equal(mask_from_image(picture, (6, 9), white="keep"), ~KEEP)

    @pytest.mark.parametrize("kind", ["L", "1", "RGB", "RGBA", "LA", "P", "I;16", "clear"])
    def test_files(self, kind, tmp_path):
        path = tmp_path / "mask.png"
        pictures()[kind].save(path)
        assert torch.equal(mask_from_image(path), KEEP)
        assert torch.equal(mask_from_image(str(path)), KEEP)

    def test_names_of_the_two_conversions(self):
        x = torch.rand(1, 3, 6, 9)
        level = HOLE.astype(np.uint8) * 255
        assert not Mask.from_hole_image(level)(x)[..., ~KEEP].any()
        assert not Mask.from_keep_image(level, (6, 9))(x)[..., KEEP].any()

    def test_erased(self):
        rgba = np.random.default_rng(0).integers(0, 255, (6, 9, 4), dtype=np.uint8)
        rgba[..., 3] = np.where(HOLE, 0, 255)
        assert torch.equal(mask_from_image(rgba, transparent="fill"), KEEP)
        with pytest.raises(ValueError, match="this one has none"):
            mask_from_image(HOLE, transparent="fill")

    def test_black_and_white_alone(self):
        assert mask_from_image(np.zeros((4, 4), np.uint8)).all()
        assert not mask_from_image(np.full((4, 4), 255, np.uint8)).any()

    def test_another_size(self):
        with pytest.raises(ValueError, match=r"6 x 9 .* 12 x 18.*resize=True"):
            mask_from_image(HOLE, (12, 18))
        doubled = mask_from_image(HOLE, (12, 18), resize=True)
        assert torch.equal(doubled, KEEP.repeat_interleave(2, 0).repeat_interleave(2, 1))

    @given(st.tuples(*[st.integers(1, 40)] * 4), st.integers(0, 2**32 - 1))
    def test_resizing_loses_no_scratch_and_no_place(self, sides, seed):
        def stands_for(old, new):
            """``(new, old)``: which old pixels each new one stands for, in one direction."""
            first = np.arange(new) * old // new
            if new >= old:
                return first[:, None] == np.arange(old)  # The nearest.
            return np.searchsorted(first, np.arange(old), "right") - 1 == np.arange(new)[:, None]

        shape, wanted = sides[:2], sides[2:]
        hole = np.random.default_rng(seed).random(shape) < 0.1
        rows, columns = (stands_for(*pair) for pair in zip(shape, wanted, strict=True))
        resized = ~mask_from_image(hole, wanted, resize=True).numpy()
        np.testing.assert_array_equal(resized, rows.astype(int) @ hole @ columns.T > 0)
        kept = mask_from_image(~hole, wanted, "keep", resize=True).numpy()
        np.testing.assert_array_equal(kept, ~resized)
        assert resized.any() == hole.any()

    def test_a_photograph_in_place_of_a_mask(self):
        photograph = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        with pytest.warns(UserWarning, match=r"\d+% of the picture is neither black nor white.*swapped\?"):
            mask_from_image(photograph)
        erased = np.dstack([photograph, np.where(HOLE, 0, 255).astype(np.uint8)])
        erased[~HOLE, :3] = 128 + np.arange((~HOLE).sum())[:, None] // 2
        with pytest.warns(UserWarning, match='transparent="fill" if the hole was made with an eraser'):
            mask_from_image(erased)

    def test_soft_edges_are_no_photograph(self, recwarn):
        ramp = np.linspace(0, 255, 9).astype(np.uint8)[None].repeat(6, 0)
        ramp[:, 6:], ramp[:, :3] = 255, 0
        mask_from_image(ramp)
        mask_from_image(np.where(KEEP, 128, 0).astype(np.uint8))  # A brush of half its strength.
        assert not recwarn

    @pytest.mark.parametrize(
        ("picture", "options", "match"),
        [
            (np.array([[0.0, 255.0]]), {}, "Divide by 255"),
            (np.array([[0.0, np.nan]]), {}, r"is in \[0, 1\]"),
            (np.array([[-1, 1]]), {}, "got values from -1 to 1"),
            (np.zeros((3, 6, 9)), {}, "permute"),
            (HOLE, {"white": "hole"}, '"fill".*"keep"'),
            (HOLE, {"transparent": "keep"}, '"black" or "fill"'),
        ],
    )
    def test_refusals(self, picture, options, match):
        with pytest.raises(ValueError, match=match):
            mask_from_image(picture, **options)


class TestGrayscale:
    def test_luma_is_pils(self):
        picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        expected = torch.from_numpy(np.array(Image.fromarray(picture).convert("L")))
        assert (Grayscale()(x)[0, 0] * 255 - expected).abs().max() < 0.51

    def test_mean(self):
        x = torch.rand(2, 3, 4, 5)
        torch.testing.assert_close(Grayscale("mean")(x), x.mean(1, keepdim=True))

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: Grayscale("lightness"), 'weights should be "luma", "mean"'),
            (lambda: Grayscale([0.0, 0.0, 0.0]), "not all 0"),
            (lambda: Grayscale([[1.0]]), "one number per channel"),
            (lambda: Grayscale([1.0, float("nan"), 0.0]), "NaN"),
            (lambda: Grayscale()(torch.ones(1, 1, 4, 4)), r"\(3, H, W\); got \(1, 4, 4\)"),
        ],
    )
    def test_refusals(self, make, match):
        with pytest.raises(ValueError, match=match):
            make()


def test_paths_are_told_apart_from_masks(tmp_path):
    with pytest.raises(TypeError, match=r"path, 'hole.png': use Mask.from_hole_image"):
        Mask("hole.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text.png' is not a picture that PIL can read"):
        Mask.from_hole_image(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Mask.from_hole_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError, match="is a folder; expected the file"):
        Mask.from_hole_image(tmp_path)
