"""The main paths on a GPU: `python -m pytest -m gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import restore
from operators import Blur, Downsample, Grayscale, Mask, box_mask, gaussian_kernel
from restore.data import Crops
from restore.networks import photo_unet
from restore.training import Trainer, TrainingOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

OPERATORS = {
    "mask": Mask(box_mask((40, 36), 8)),
    "blur": Blur(gaussian_kernel(1.0)),
    "downsample": Downsample(2),
    "grayscale": Grayscale(),
}


@pytest.mark.parametrize("method", [m.name for m in restore.methods()])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_method_runs_where_the_measurement_is(method, name):
    operator = OPERATORS[name]
    if method == "repaint" and name != "mask":
        pytest.skip("RePaint is for masks")
    x = torch.rand(2, 3, 40, 36, generator=torch.Generator().manual_seed(0))
    y = operator(x).cuda()
    result = restore.solve(y, operator, method, steps=3, seed=[0, 1], progress=False)
    assert result.device == y.device
    assert result.shape == (2, 3, 40, 36)
    assert torch.isfinite(result).all()
    assert operator.device.type == "cpu"  # The user's operator stays where it was.
    alone = restore.solve(y[1:], operator, method, steps=3, seed=[1], progress=False)
    torch.testing.assert_close(result[1:], alone, atol=2e-2, rtol=0)  # TF32 may differ between batch sizes.


def test_a_numpy_picture_is_repaired_on_the_gpu_by_default():
    x = np.full((32, 32, 3), 120, np.uint8)
    kept = box_mask(32, 4).numpy()
    devices = []
    restore.solve(
        x,
        Mask(kept),
        "ddnm",
        steps=2,
        seed=0,
        progress=False,
        callback=lambda state: devices.append(state.x.device),
    )
    assert {device.type for device in devices} == {"cuda"}


@pytest.mark.parametrize("compiled", [False, True])
def test_training_runs_in_bf16_and_resumes(tmp_path, compiled):
    pictures = [np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)]
    crops = Crops.from_arrays(pictures, 32, device="cuda")
    options = TrainingOptions(steps=4, batch=4, crop=32, save_every=2, sample_every=0, compile=compiled)
    for until, resume in ((2, False), (4, True)):
        torch.manual_seed(0)
        trainer = Trainer(
            photo_unet((16, 24), attention=True),
            crops,
            tmp_path / "prior",
            options,
            resume=resume,
            progress=False,
        )
        assert trainer.bf16
        trainer.run(until)
    assert restore.load_prior(tmp_path / "prior", device="cuda").device.type == "cuda"
