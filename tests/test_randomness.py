import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.randomness import Randomness, stream_seed


def draws(seed, images, samples, shape=(1, 3, 2), rounds=2):
    """``(rounds, samples, images, *shape)``"""
    random = Randomness.for_draws(seed, images, samples)
    assert len(random) == images * samples
    return torch.stack([random.normal(shape) for _ in range(rounds)]).reshape(rounds, samples, images, *shape)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**62), st.integers(1, 5), st.integers(1, 4), st.data())
def test_a_draw_depends_on_seed_and_number_of_the_draw_alone(seed, images, samples, data):
    image = data.draw(st.integers(0, images - 1))
    sample = data.draw(st.integers(0, samples - 1))
    together = draws(seed, images, samples)[:, sample, image]
    alone = draws(seed, 1, sample + 1)[:, sample, 0]
    assert torch.equal(together, alone)


def test_draws_of_an_image_differ_and_go_on():
    values = draws(7, 1, 4)
    flat = values.reshape(8, -1)
    assert all(not torch.equal(flat[i], flat[j]) for i in range(8) for j in range(i))


def test_zero_is_a_seed():
    assert torch.equal(draws(0, 2, 2), draws(0, 2, 2))
    assert not torch.equal(draws(0, 1, 1), draws(1, 1, 1))


def test_none_is_a_new_seed_every_time_and_for_every_image():
    first, second = draws(None, 2, 1), draws(None, 2, 1)
    assert not torch.equal(first, second)
    assert not torch.equal(first[:, 0, 0], first[:, 0, 1])


def test_one_seed_per_image():
    values = draws([5, 0, 5], 3, 2)
    assert torch.equal(values[:, :, 0], values[:, :, 2])
    assert torch.equal(values[:, :, 1], draws(0, 1, 2)[:, :, 0])
    assert torch.equal(values[:, :, 0], draws(np.int64(5), 1, 2)[:, :, 0])


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "whole number of at least 0, not -1"),
        ([1, -2], ValueError, "whole number of at least 0, not -2"),
        ([1, 2, 3], ValueError, "got 3 seeds for 2 images: give one seed, or one per image"),
        (1.5, TypeError, "whole number of at least 0, not 1.5"),
        (True, TypeError, "whole number"),
        ("0", TypeError, "whole number"),
        ([1, None], TypeError, "whole number"),
    ],
)
def test_what_is_no_seed_is_refused(seed, error, message):
    with pytest.raises(error, match=message):
        Randomness.for_draws(seed, 2, 1)


def test_a_part_goes_on_where_the_whole_was():
    whole, other = Randomness([1, 2, 3]), Randomness([1, 2, 3])
    whole.normal((2,))
    parts = torch.cat([whole.part(range(2)).normal((2,)), whole.part(range(2, 3)).normal((2,))])
    other.normal((2,))
    assert torch.equal(parts, other.normal((2,)))


def test_numbers_are_standard_normal_and_independent_between_streams():
    values = Randomness.for_draws(3, 1, 40).normal((2500,))
    assert values.dtype == torch.float32
    n = values.numel()  # 100000
    assert abs(float(values.mean())) < 4 / n**0.5
    assert float(values.var()) == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    correlations = torch.corrcoef(values.double()) - torch.eye(40)
    assert float(correlations.abs().max()) < 5 / 2500**0.5


def test_normal_like_has_shape_and_dtype_of_the_state():
    x = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    z = Randomness([1, 2]).normal_like(x)
    assert z.shape == x.shape
    assert z.dtype == torch.float64
    assert torch.equal(z.float(), Randomness([1, 2]).normal((3, 4, 5)))


def test_stream_seeds_are_distinct_and_fit_torch():
    seeds = {stream_seed(a, b) for a in range(40) for b in range(40)}
    assert len(seeds) == 1600
    assert all(0 <= s < 2**63 for s in seeds)


# ------------------------------------------------------------------------------ several states a picture


def test_one_copy_is_the_stream_itself():
    assert torch.equal(Randomness([1, 2]).part(range(2), 1).normal((3, 2)), Randomness([1, 2]).normal((3, 2)))


def test_copies_of_a_picture_get_numbers_of_their_own():
    values = Randomness([1, 2]).part(range(2), 40).normal((2500,))
    assert values.shape == (80, 2500)
    correlations = torch.corrcoef(values.double()) - torch.eye(80)
    assert float(correlations.abs().max()) < 5.5 / 2500**0.5
    assert float(values.var()) == pytest.approx(1, abs=4 * (2 / values.numel()) ** 0.5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.data())
def test_the_copies_of_a_picture_do_not_depend_on_the_other_pictures(images, copies, data):
    image = data.draw(st.integers(0, images - 1))
    together, alone = (
        Randomness(range(images)).part(range(images), copies),
        Randomness([image]).part([0], copies),
    )
    for shape in ((1, 2, 3), (1,)):  # One after the other: the streams go on alike.
        block = together.normal(shape)[image * copies : (image + 1) * copies]
        assert torch.equal(block, alone.normal(shape))
