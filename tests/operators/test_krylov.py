import pytest
import torch

from operators import Blur, ConvergenceWarning, conjugate_gradients, damped_least_squares, gaussian_kernel


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def definite(batch, n, seed=0):
    a = draw(batch, n, n, seed=seed)
    return a @ a.mT + 0.1 * torch.eye(n)


def times(matrix):
    return lambda z: torch.einsum("bij,bj->bi", matrix, z)


def test_solves():
    m, b = definite(4, 12), draw(4, 12, seed=1)
    expected = torch.linalg.solve(m, b)
    torch.testing.assert_close(conjugate_gradients(times(m), b), expected, rtol=1e-8, atol=1e-8)


def test_least_squares_is_the_damped_pseudo_inverse():
    a, y = draw(3, 9, 6), draw(3, 9, seed=1)
    a[:, :, 5] = a[:, :, 4]  # rank 5
    damping = torch.tensor([0.0, 0.1, 10.0], dtype=torch.float64)
    x = damped_least_squares(times(a), times(a.mT), y, damping)
    gram = a.mT @ a + damping.reshape(-1, 1, 1) * torch.eye(6)
    expected = (torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ (a.mT @ y[..., None]))[..., 0]
    torch.testing.assert_close(x, expected, rtol=1e-8, atol=1e-8)


def test_images_do_not_mix():
    """An easy system beside hard ones stops where it would stop alone."""
    m = torch.stack([torch.eye(20, dtype=torch.float64), *definite(2, 20)])
    b = draw(3, 20, seed=1)
    together = conjugate_gradients(times(m), b)
    for i in range(3):
        alone = conjugate_gradients(times(m[i : i + 1]), b[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together[0], b[0], rtol=1e-15, atol=0)


def test_singular_but_consistent():
    m = torch.diag_embed(torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64))
    b = torch.tensor([[1.0, 3.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(conjugate_gradients(times(m), b), b / torch.tensor([2.0, 1.0, 1.0]))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_any_scale_in_float32(scale):
    m = definite(1, 6).float()
    b = draw(1, 6, seed=1).float() * scale
    expected = torch.linalg.solve(m, b)
    torch.testing.assert_close(
        conjugate_gradients(times(m), b) / scale, expected / scale, rtol=1e-3, atol=1e-4
    )
    again = damped_least_squares(times(m), times(m), b, torch.zeros(1)) / scale
    torch.testing.assert_close(again, expected / scale, rtol=1e-2, atol=1e-2)


def test_zero_and_nan():
    m = definite(3, 6)
    b = draw(3, 6, seed=1)
    b[0] = 0
    b[1, 2] = torch.nan
    for x in (
        conjugate_gradients(times(m), b),
        damped_least_squares(times(m), times(m), b, torch.zeros(3)),
    ):
        assert not x[0].any()
        assert x[1].isnan().all()
        torch.testing.assert_close(x[2], torch.linalg.solve(m[2], b[2]), rtol=1e-6, atol=1e-6)


def test_says_so_when_it_is_far_from_done():
    blur = Blur(gaussian_kernel(2.0), "replicate")
    y = draw(1, 1, 24, 20).float()
    blur.cg_iterations = 5
    with pytest.warns(ConvergenceWarning, match="after 5 iterations: raise"):
        blur.gram_solve(y, 1e-6)


@pytest.mark.filterwarnings("error")
def test_no_warning_when_it_is_done():
    blur = Blur(gaussian_kernel(1.0), "replicate")
    y = draw(1, 1, 24, 20).float()
    blur.gram_solve(y, 0.01)


def test_iterations_are_counted():
    calls = []
    m = definite(1, 30)

    def apply(z):
        calls.append(1)
        return times(m)(z)

    conjugate_gradients(apply, torch.zeros(1, 30, dtype=torch.float64))
    assert not calls
    conjugate_gradients(apply, draw(1, 30), iterations=40, tolerance=1e-2)
    few = len(calls)
    calls.clear()
    conjugate_gradients(apply, draw(1, 30), iterations=40, tolerance=1e-5)
    assert few < len(calls) <= 40
