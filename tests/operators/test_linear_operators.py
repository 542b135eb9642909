"""The mathematics that every linear operator keeps, against dense matrices; odd, non-square, batched."""

import copy
import io
import pickle

import pytest
import torch

import operators
from operators import (
    Blur,
    Composition,
    Downsample,
    FromCallable,
    GaussianNoise,
    Grayscale,
    Identity,
    LinearComposition,
    LinearOperator,
    Mask,
    Matrix,
    Saturation,
    gaussian_kernel,
    random_mask,
)

BATCH = 3


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def kernel(*shape, seed=0):
    """Positive, lopsided, and dominated by one entry, so that it has an inverse."""
    k = draw(*shape, seed=seed).abs()
    k /= k.sum((-2, -1), keepdim=True)
    k[..., shape[-2] // 2, shape[-1] // 2] += 0.7
    return k


class Differences(LinearOperator):
    """A user's operator: ``forward`` and the shape, and nothing else."""

    def forward(self, x):
        return x[..., 1:] - 0.5 * x[..., :-1]

    def image_shape(self, measurement_shape):
        return (*measurement_shape[:2], measurement_shape[2] + 1)


class Weighted(LinearOperator):
    """A user's operator with a parameter per image, and measurements of another rank."""

    per_image = ("weights",)

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", draw(BATCH, 4, 3 * 7 * 5, seed=3))

    def forward(self, x):
        return torch.einsum("bmn,bn->bm", self.weights.to(x.dtype).expand(len(x), -1, -1), x.flatten(1))

    def image_shape(self, measurement_shape):
        return (3, 7, 5)


CASES = {
    "identity": (lambda: Identity(), (3, 7, 5)),
    "mask": (lambda: Mask(random_mask((7, 5), seed=0)), (3, 7, 5)),
    "mask-channels": (lambda: Mask(draw(3, 7, 5) > 0), (3, 7, 5)),
    "mask-per-image": (lambda: Mask(random_mask((7, 5), batch=BATCH, seed=0)), (3, 7, 5)),
    "mask-weights": (lambda: Mask(draw(BATCH, 1, 7, 5) * (draw(BATCH, 1, 7, 5, seed=1) > 0)), (2, 7, 5)),
    "blur-circular": (lambda: Blur(kernel(3, 4)), (3, 7, 5)),
    "blur-circular-fft": (lambda: Blur(kernel(3, 4), method="fft"), (3, 7, 6)),
    "blur-circular-prime": (lambda: Blur(kernel(3, 4), method="fft"), (1, 11, 7)),
    "blur-circular-larger": (lambda: Blur(kernel(10, 9)), (2, 7, 5)),
    "blur-circular-per-image": (lambda: Blur(kernel(BATCH, 3, 5, 3), method="fft"), (3, 6, 5)),
    "blur-singular": (lambda: Blur(torch.tensor([[0.5, 0.5]]), method="fft"), (1, 3, 6)),
    "blur-reflect": (lambda: Blur(kernel(4, 3), "reflect"), (2, 7, 5)),
    "blur-reflect-fft": (lambda: Blur(kernel(BATCH, 1, 5, 4), "reflect", method="fft"), (2, 7, 5)),
    "blur-replicate": (lambda: Blur(kernel(9, 4), "replicate", method="direct"), (2, 7, 5)),
    "blur-replicate-fft": (lambda: Blur(kernel(9, 4), "replicate", method="fft"), (2, 7, 5)),
    "blur-zero": (lambda: Blur(kernel(BATCH, 2, 3, 4), "zero"), (2, 7, 5)),
    "blur-zero-fft": (lambda: Blur(kernel(3, 11), "zero", method="fft"), (2, 7, 5)),
    "blur-valid": (lambda: Blur(kernel(3, 2), "valid"), (2, 7, 5)),
    "blur-valid-fft": (lambda: Blur(kernel(2, 2, 4), "valid", method="fft"), (2, 7, 5)),
    "bicubic": (lambda: Downsample(3, image_size=(7, 5)), (3, 7, 5)),
    "bicubic-symmetric": (lambda: Downsample((2, 3), boundary="symmetric"), (2, 6, 9)),
    "bilinear": (lambda: Downsample(2, "bilinear", image_size=(7, 5)), (2, 7, 5)),
    "lanczos": (lambda: Downsample((1, 2), "lanczos"), (2, 5, 8)),
    "box": (lambda: Downsample(2, "box"), (3, 6, 4)),
    "luma": (lambda: Grayscale(), (3, 7, 5)),
    "mean": (lambda: Grayscale("mean"), (3, 5, 4)),
    "channels": (lambda: Grayscale([-1.0, 0.5, 0.0, 2.0]), (4, 5, 4)),
    "matrix": (lambda: Matrix(draw(4, 30) / 5, shape=(2, 3, 5)), (2, 3, 5)),
    "matrix-tall": (lambda: Matrix(draw(9, 6) / 5), (1, 1, 6)),
    "matrix-rank": (lambda: Matrix(draw(5, 2) @ draw(2, 6, seed=1) / 5, shape=(1, 2, 3)), (1, 2, 3)),
    "matrix-per-image": (lambda: Matrix(draw(BATCH, 4, 12) / 5, shape=(3, 2, 2)), (3, 2, 2)),
    "mask-of-blur": (
        lambda: Mask(random_mask((7, 5), 0.6, batch=BATCH, seed=1)) @ Blur(kernel(3, 3)),
        (2, 7, 5),
    ),
    "small-grey-blur": (
        lambda: Downsample(2) @ Grayscale() @ Blur(kernel(BATCH, 1, 3, 3), "reflect"),
        (3, 6, 4),
    ),
    "user-differences": (lambda: Differences(), (2, 4, 7)),
    "user-per-image": (lambda: Weighted(), (3, 7, 5)),
    "user-callable": (lambda: FromCallable(lambda x: x + 0.3 * x.roll(1, -1), linear=True), (2, 4, 5)),
}

CLOSED = [name for name, (make, _) in CASES.items() if make().has_svd]
parametrize = pytest.mark.parametrize("name", CASES)
in_both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def setting(name, dtype=torch.float64):
    """An operator, a batch of images, their measurements, and other measurements (not in the range)."""
    make, shape = CASES[name]
    operator = make()
    if dtype == torch.float64:
        operator = operator.double()
    x = draw(BATCH, *shape, seed=7, dtype=dtype)
    y = operator(x)
    return operator, x, y, draw(*y.shape, seed=8, dtype=dtype)


def matrices(operator, image_shape):
    """A dense matrix per image, one column per pixel."""
    columns = torch.eye(torch.Size(image_shape).numel(), dtype=torch.float64).reshape(-1, *image_shape)
    singles = [operator.select(torch.tensor([i])) for i in range(BATCH)]
    return torch.stack([single(columns).flatten(1).T for single in singles])


def apply(matrix, z, shape):
    return torch.einsum("bij,bj->bi", matrix, z.flatten(1).double()).reshape(shape)


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12))


LAMBDAS = [0.3, torch.tensor([0.01, 0.3, 5.0])]


@parametrize
@in_both_precisions
def test_adjoint_is_the_transpose(name, dtype):
    operator, x, y, other = setting(name, dtype)
    back = operator.adjoint(other)
    assert back.dtype == y.dtype == dtype
    assert back.shape == x.shape
    left = (y.double() * other.double()).flatten(1).sum(1)
    right = (x.double() * back.double()).flatten(1).sum(1)
    size = y.double().flatten(1).norm(dim=1) * other.double().flatten(1).norm(dim=1)
    assert ((left - right).abs() / size).max() < (1e-12 if dtype == torch.float64 else 1e-6)


@parametrize
def test_float64_images_do_not_need_a_float64_operator(name):
    make, shape = CASES[name]
    assert operators.dot_test(make(), shape, dtype=torch.float64) < 1e-12


@parametrize
def test_what_is_linear_is_found_linear(name):
    make, shape = CASES[name]
    assert operators.linearity_test(make(), shape, dtype=torch.float64) < 1e-12


@pytest.mark.parametrize(
    "make",
    [lambda: operators.JPEG(30), operators.Clip, operators.PhaseRetrieval, lambda: operators.Gamma(2.2)],
)
def test_what_is_not_linear_is_found_out(make):
    assert operators.linearity_test(make(), (3, 16, 16)) > 0.05


def test_linearity_test_measures_a_known_departure():
    # x + c departs by 2 c. The three terms have mean squares 5, 1 and 4.
    shape, size = (1, 64, 64), 10**0.5
    assert operators.linearity_test(FromCallable(lambda x: x + 0.01), shape) == pytest.approx(
        0.02 / size, rel=0.1
    )
    # x + e x^2 departs by e (6 v^2 - 4 u v), whose mean square is e^2 (36 * 3 + 16).
    assert operators.linearity_test(FromCallable(lambda x: x + 0.001 * x**2), shape) == pytest.approx(
        0.001 * 124**0.5 / size, rel=0.1
    )
    assert operators.linearity_test(FromCallable(torch.zeros_like), shape) == 0


@parametrize
def test_adjoint_by_autograd_is_the_same(name):
    operator, _, _, other = setting(name)
    by_autograd = LinearOperator.adjoint(operator, other)
    torch.testing.assert_close(by_autograd, operator.adjoint(other), rtol=0, atol=1e-12)


@parametrize
def test_shapes_are_known_without_work(name):
    operator, x, y, _ = setting(name)
    assert operator.measurement_shape(tuple(x.shape[1:])) == tuple(y.shape[1:])
    assert operator.image_shape(tuple(y.shape[1:])) == tuple(x.shape[1:])


@parametrize
def test_linear(name):
    operator, x, y, _ = setting(name)
    z = draw(*x.shape, seed=9)
    torch.testing.assert_close(operator(x + 2 * z), y + 2 * operator(z), rtol=0, atol=1e-12)


@parametrize
@in_both_precisions
def test_pseudo_inverse_of_a_measurement_fits_it(name, dtype):
    operator, _, y, _ = setting(name, dtype)
    assert relative(operator(operator.pinv(y)), y) < (1e-9 if dtype == torch.float64 else 2e-5)


@parametrize
def test_pseudo_inverse_is_the_dense_one(name):
    operator, x, y, other = setting(name)
    dense = torch.linalg.pinv(matrices(operator, x.shape[1:]), rtol=1e-10)
    for measurement in (y, other):  # what no image explains, too
        expected = apply(dense, measurement, x.shape)
        torch.testing.assert_close(operator.pinv(measurement), expected, rtol=1e-7, atol=1e-7)


@parametrize
@pytest.mark.parametrize("lam", LAMBDAS, ids=["number", "per-image"])
@in_both_precisions
def test_gram_solve_inverts(name, lam, dtype):
    operator, x, y, other = setting(name, dtype)
    a = matrices(operator, x.shape[1:])
    eye = torch.as_tensor(lam, dtype=torch.float64).reshape(-1, 1, 1) * torch.eye(a.shape[1])
    solved = operator.gram_solve(other, lam)
    assert solved.dtype == dtype
    again = apply(a @ a.mT + eye, solved, y.shape)
    assert relative(again, other) < (1e-9 if dtype == torch.float64 else 2e-5)


@parametrize
def test_gram_solve_without_damping(name):
    """The pseudo-inverse, of what no image explains as well; beside images with damping."""
    operator, x, y, other = setting(name)
    a = matrices(operator, x.shape[1:])
    dense = torch.linalg.pinv(a @ a.mT, rtol=1e-12, hermitian=True)
    for measurement in (y, other):
        expected = apply(dense, measurement, y.shape)
        torch.testing.assert_close(operator.gram_solve(measurement, 0.0), expected, rtol=1e-6, atol=1e-6)
    mixed = operator.gram_solve(other, torch.tensor([0.0, 2.0, 0.0]))
    torch.testing.assert_close(mixed[::2], expected[::2], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mixed[1], operator.gram_solve(other, 2.0)[1])


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("lam", [0.0, *LAMBDAS, torch.tensor([0.0, 0.1, 0.0])], ids=str)
def test_closed_forms_agree_with_conjugate_gradients(name, lam, monkeypatch):
    operator, _, y, other = setting(name)
    for measurement in (y, other):
        ridge, solved = operator.ridge(measurement, lam), operator.gram_solve(measurement, lam)
        with monkeypatch.context() as patch:
            patch.setattr(type(operator), "has_svd", False)
            patch.setattr(type(operator), "gram_solve", LinearOperator.gram_solve)
            patch.setattr(type(operator), "ridge", LinearOperator.ridge)
            torch.testing.assert_close(operator.ridge(measurement, lam), ridge, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(operator.gram_solve(measurement, lam), solved, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("lam", [0.0, *LAMBDAS, torch.tensor([0.0, 0.1, 0.0])], ids=str)
def test_generic_closed_form_agrees_with_the_operators_own(name, lam):
    """An operator that gives ``svd`` alone gets the same inverses from it."""
    operator, _, _, other = setting(name)
    ridge, solved = operator.ridge(other, lam), operator.gram_solve(other, lam)
    torch.testing.assert_close(LinearOperator.ridge(operator, other, lam), ridge, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(LinearOperator.gram_solve(operator, other, lam), solved, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", CLOSED)
@in_both_precisions
def test_svd(name, dtype):
    operator, x, y, other = setting(name, dtype)
    svd = operator.svd(tuple(x.shape[1:]))
    tolerance = {"rtol": 0, "atol": 1e-11 if dtype == torch.float64 else 1e-5}
    coefficients = svd.vt(x)
    assert svd.s.dtype == coefficients.dtype == dtype
    assert len(svd.s) in (1, BATCH)
    assert bool((svd.s >= 0).all())
    s = svd.s.expand(coefficients.shape)
    # The layout is the image's: one coefficient per value, unmeasured ones included.
    assert coefficients.shape == x.shape
    torch.testing.assert_close(svd.u(s * coefficients), y, **tolerance)
    torch.testing.assert_close(svd.v(s * svd.ut(other)), operator.adjoint(other), **tolerance)
    # V is orthogonal.
    torch.testing.assert_close(svd.v(coefficients), x, **tolerance)
    torch.testing.assert_close(coefficients.square().sum(), x.square().sum(), rtol=1e-5, atol=0)
    z = draw(*x.shape, seed=11, dtype=dtype)
    torch.testing.assert_close(svd.vt(svd.v(z)), z, **tolerance)
    # U has orthonormal columns where s > 0, and U^T is zero elsewhere.
    measured = torch.where(s > 0, z, 0)
    torch.testing.assert_close(svd.ut(svd.u(z)), measured, **tolerance)
    torch.testing.assert_close(svd.u(z), svd.u(measured), **tolerance)
    assert not svd.ut(other)[s == 0].any()


@pytest.mark.parametrize("name", CLOSED)
def test_svd_has_the_dense_singular_values(name):
    operator, x, _, _ = setting(name)
    s = operator.svd(tuple(x.shape[1:])).s.expand(x.shape).flatten(1).sort(descending=True).values
    expected = torch.linalg.svdvals(matrices(operator, x.shape[1:]))
    torch.testing.assert_close(s[:, : expected.shape[1]], expected, rtol=0, atol=1e-12)
    assert not s[:, expected.shape[1] :].any()


@parametrize
@pytest.mark.parametrize("lam", LAMBDAS, ids=["number", "per-image"])
def test_prox_is_optimal(name, lam):
    operator, x, _, other = setting(name)
    z = operator.prox(other, x, lam)
    column = torch.as_tensor(lam, dtype=torch.float64).reshape(-1, 1, 1, 1)
    gradient = operator.adjoint(operator(z) - other) + column * (z - x)
    assert gradient.abs().max() < 1e-9


@parametrize
def test_prox_without_damping_projects(name):
    operator, x, _, _ = setting(name)
    y = operator(draw(*x.shape, seed=5))
    z = operator.prox(y, x, 0.0)
    torch.testing.assert_close(operator(z), y, rtol=0, atol=1e-7)
    # The nearest such image: the step has no part that A does not see.
    step = z - x
    torch.testing.assert_close(operator.pinv(operator(step)), step, rtol=0, atol=1e-6)


@parametrize
def test_an_image_does_not_depend_on_its_batch(name):
    operator, x, y, other = setting(name)
    lam = torch.tensor([1e-3, 0.3, 5.0], dtype=torch.float64)
    together = [operator(x), operator.adjoint(other), operator.pinv(other), operator.prox(other, x, lam)]
    together.append(operator.gram_solve(y, lam))
    for i in range(BATCH):
        row = slice(i, i + 1)
        alone = operator.select(torch.tensor([i]))
        single = [alone(x[row]), alone.adjoint(other[row]), alone.pinv(other[row])]
        single.append(alone.prox(other[row], x[row], lam[row]))
        single.append(alone.gram_solve(y[row], lam[row]))
        for whole, part in zip(together, single, strict=True):
            torch.testing.assert_close(whole[row], part, rtol=0, atol=1e-11)


@parametrize
def test_select(name):
    operator, x, y, _ = setting(name)
    operator.svd(tuple(x.shape[1:]))  # what is remembered must not be the copy's
    before = operator.batch_size
    indices = torch.tensor([2, 0, 2, 1])
    chosen = operator.select(indices)
    torch.testing.assert_close(chosen(x[indices]), y[indices])
    torch.testing.assert_close(chosen.pinv(y[indices]), operator.pinv(y)[indices], rtol=0, atol=1e-10)
    assert operator.batch_size == before
    assert chosen.batch_size == (None if before is None else 4)
    torch.testing.assert_close(operator(x), y)


@parametrize
@pytest.mark.parametrize("what", ["forward", "adjoint", "pinv", "gram_solve", "prox"])
def test_gradients(name, what):
    operator, x, y, other = setting(name)
    functions = {
        "forward": (operator, x),
        "adjoint": (operator.adjoint, other),
        "pinv": (operator.pinv, other),
        "gram_solve": (lambda r: operator.gram_solve(r, 0.2), other),
        "prox": (lambda z: operator.prox(y, z, torch.tensor([0.1, 0.5, 2.0])), x),
    }
    function, point = functions[what]
    assert torch.autograd.gradcheck(
        function, point.clone().requires_grad_(), fast_mode=True, atol=1e-6, rtol=1e-5
    )


@parametrize
def test_what_was_computed_in_inference_mode_is_usable_with_gradients(name):
    make, _ = CASES[name]
    with torch.inference_mode():
        operator = make()
        x = draw(BATCH, *CASES[name][1], dtype=torch.float32)
        operator.prox(operator(x), x, 0.5)
        operator.svd(tuple(x.shape[1:]))
    x = x.clone().requires_grad_()
    operator.prox(operator(x).detach(), x, 0.5).square().sum().backward()
    (gradient,) = torch.autograd.grad(operator(x).square().sum(), x)
    torch.testing.assert_close(gradient, 2 * operator.adjoint(operator(x)).detach(), rtol=1e-4, atol=1e-5)


@parametrize
def test_copies_and_files(name):
    operator, x, y, _ = setting(name)
    operator.pinv(y)
    torch.testing.assert_close(copy.deepcopy(operator)(x), y)
    if not name.startswith("user"):  # a class defined in a test, or a lambda, cannot be pickled
        torch.testing.assert_close(pickle.loads(pickle.dumps(operator))(x), y)
    file = io.BytesIO()
    torch.save(operator.state_dict(), file)
    assert all("remembered" not in key and "_here" not in key for key in operator.state_dict())


def test_svd_is_computed_once_and_again_after_a_change():
    operator = Blur(kernel(5, 5))
    first = operator.svd((1, 8, 9))
    assert operator.svd((3, 8, 9)) is first
    assert operator.svd((1, 9, 8)) is not first
    operator.kernel.mul_(2)
    torch.testing.assert_close(operator.svd((1, 8, 9)).s, 2 * first.s)
    x = draw(1, 1, 8, 9)
    before = operator(x)
    operator.load_state_dict({"kernel": operator.kernel * 3})
    torch.testing.assert_close(operator(x), 3 * before)
    assert operator.double().svd((1, 8, 9)).s.dtype == torch.float64


def test_selected_operators_do_not_share_what_they_remember():
    operator = Blur(kernel(BATCH, 1, 9, 9))
    whole = operator.svd((1, 8, 9)).s
    part = operator.select(torch.tensor([2])).svd((1, 8, 9)).s
    torch.testing.assert_close(part, whole[2:])
    assert operator.svd((1, 8, 9)).s is whole


def test_cutting_small_singular_values():
    """`rtol` decides what the pseudo-inverse amplifies."""
    operator = Blur(gaussian_kernel(2.0))
    x = draw(1, 1, 32, 31, dtype=torch.float32)
    y = operator(x) + 1e-3 * draw(1, 1, 32, 31, seed=1, dtype=torch.float32)
    assert (operator.pinv(y) - x).square().mean() > 5
    operator.rtol = 0.03
    assert (operator.pinv(y) - x).square().mean() < 1
    assert operator.svd((1, 32, 31)).s[operator.svd((1, 32, 31)).s > 0].min() > 0.03


class TestComposition:
    def test_kinds(self):
        linear, other = Blur(kernel(3, 3)), Saturation(2.0)
        assert isinstance(Mask(torch.ones(4, 4)) @ linear, LinearComposition)
        both = other @ linear
        assert isinstance(both, Composition)
        assert not both.linear
        assert not isinstance(both, LinearOperator)
        x = draw(1, 1, 4, 5)
        torch.testing.assert_close(both(x), (2 * linear(x)).clamp(0, 1))

    def test_with_something_else(self):
        with pytest.raises(TypeError, match="@"):
            Identity() @ torch.ones(3, 3)

    def test_parts_for_different_batches(self):
        with pytest.raises(ValueError, match=r"different batch sizes.*2.*3"):
            Mask(torch.ones(2, 1, 4, 4)) @ Blur(torch.ones(3, 1, 2, 2))

    def test_batch_size_is_the_one_that_some_part_has(self):
        a = Mask(torch.ones(4, 4)) @ (Blur(torch.ones(3, 1, 2, 2)) @ Identity())
        assert a.batch_size == 3
        assert Identity().batch_size is None

    def test_one_operator_twice(self):
        blur = Blur(kernel(BATCH, 1, 3, 3))
        twice, x = blur @ blur, draw(BATCH, 1, 5, 6)
        row = torch.tensor([1])
        torch.testing.assert_close(twice.select(row)(x[row]), twice(x)[row])

    def test_moves_as_one(self):
        a = (Mask(torch.ones(4, 4)) @ Blur(torch.ones(2, 2))).double()
        assert a.dtype == a.inner.kernel.dtype == a.outer.mask.dtype == torch.float64


class TestRefusals:
    """Each error says what was given and what to do."""

    def test_batch(self):
        operator = Mask(torch.ones(2, 1, 4, 4))
        with pytest.raises(ValueError, match=r"2 images.*batch of 3.*select"):
            operator(torch.ones(3, 1, 4, 4))
        with pytest.raises(ValueError, match=r"2 images.*batch of 1"):
            operator.adjoint(torch.ones(1, 1, 4, 4))

    @pytest.mark.parametrize("operator", [Identity(), Blur(torch.ones(3, 3)), Downsample(2), Grayscale()])
    def test_images(self, operator):
        with pytest.raises(ValueError, match=r"\(B, C, H, W\).*\(3, 8, 8\)"):
            operator(torch.ones(3, 8, 8))
        with pytest.raises(TypeError, match=r"floating.*uint8.*255"):
            operator(torch.ones(1, 3, 8, 8, dtype=torch.uint8))
        with pytest.raises(TypeError, match="list"):
            operator([1.0])

    @pytest.mark.parametrize("lam", [-0.1, float("nan"), float("inf"), torch.tensor([1.0, -1.0])])
    def test_lam(self, lam):
        for operator in (Mask(torch.ones(4, 4)), Blur(torch.ones(3, 3), "zero"), Downsample(2)):
            with pytest.raises(ValueError, match="lam should be finite and not negative"):
                operator.gram_solve(operator(torch.ones(2, 1, 4, 4)), lam)

    def test_lam_of_another_batch(self):
        with pytest.raises(ValueError, match=r"one per image, shape \(2,\); got shape \(3,\)"):
            Identity().gram_solve(torch.ones(2, 1, 4, 4), torch.ones(3))

    def test_select(self):
        for wrong in (torch.tensor([0.5]), torch.tensor([True]), torch.tensor(1), torch.ones(1, 1).long()):
            with pytest.raises(ValueError, match="1-D tensor of integer positions"):
                Identity().select(wrong)

    def test_affine_is_not_linear(self):
        with pytest.raises(ValueError, match="does not measure a blank image as zero"):
            FromCallable(lambda x: x + 1, linear=True).adjoint(torch.ones(1, 1, 2, 2))

    def test_image_shape_missing(self):
        with pytest.raises(ValueError, match="override image_shape"):
            FromCallable(lambda x: x[..., :1], linear=True).adjoint(torch.ones(1, 1, 2, 2))

    def test_a_matrix_that_does_not_fit(self):
        with pytest.raises(ValueError, match=r"\(m, n\) or \(B, m, n\); got \(4,\)"):
            Matrix([1.0, 2.0, 3.0, 4.0])
        with pytest.raises(ValueError, match=r"C H W = 4, the matrix's columns; got \(1, 2, 3\)"):
            Matrix(torch.ones(2, 4), shape=(1, 2, 3))
        with pytest.raises(ValueError, match=r"images of shape \(1, 2, 2\); got \(1, 1, 4\)"):
            Matrix(torch.ones(2, 4), shape=(1, 2, 2))(torch.ones(1, 1, 1, 4))

    def test_no_gradient(self):
        with pytest.raises(ValueError, match="override adjoint"):
            FromCallable(lambda x: x.detach(), linear=True).adjoint(torch.ones(1, 1, 2, 2))

    def test_forward_missing(self):
        class Nothing(operators.Operator):
            pass

        with pytest.raises(NotImplementedError, match="Nothing does not define forward"):
            Nothing()(torch.ones(1, 1, 2, 2))


def test_adjoint_of_a_measurement_of_another_size():
    with pytest.raises(ValueError, match="mask is 4 x 4"):
        Mask(torch.ones(4, 4)).adjoint(torch.ones(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"\(B, 1, 4, 5\).*got \(1, 2, 4, 5\)"):
        Grayscale().adjoint(torch.ones(1, 2, 4, 5))


@pytest.mark.gpu
@parametrize
def test_on_a_gpu(name):
    operator, x, y, other = setting(name, torch.float32)
    expected = [y, operator.adjoint(other), operator.prox(other, x, 0.3), operator.pinv(y)]
    operator, x, y, other = operator.cuda(), x.cuda(), y.cuda(), other.cuda()
    lam = torch.full((BATCH,), 0.3, device="cuda")
    results = [operator(x), operator.adjoint(other), operator.prox(other, x, lam), operator.pinv(y)]
    for result, right in zip(results, expected, strict=True):
        assert result.device.type == "cuda"
        torch.testing.assert_close(result.cpu(), right, rtol=1e-3, atol=1e-3)
    if operator.has_svd:
        svd = operator.svd(tuple(x.shape[1:]))
        torch.testing.assert_close(svd.u(svd.s * svd.vt(x)), y, rtol=1e-4, atol=1e-4)
    generator = torch.Generator("cuda").manual_seed(0)
    assert GaussianNoise(0.1).cuda().sample(y, generator).device.type == "cuda"
