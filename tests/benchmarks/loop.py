"""What the sampling loop costs beside the bare network: ratios, measured in one run.

    python tests/benchmarks/loop.py [--size 256] [--steps 10] [--device cpu]

For every method and operator: milliseconds a step; those of a bare network call (with its input's gradient, for
methods that take it); their ratio; and what the loop adds to a step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

import restore
from operators import box_mask, gaussian_kernel

CASES = [
    ("sdedit", "mask", {"strength": 1.0}),
    ("repaint", "mask", {"resamplings": 1}),
    ("dps", "mask", {}),
    ("dps", "blur circular 61x61", {}),
    ("dps", "blur reflect 61x61", {}),
    ("dps", "downsample x4", {}),
    ("dps", "grayscale", {}),
]


def seconds(run: Callable[[], object], repeat: int, device: torch.device) -> float:
    """The least of several timings: what else the machine does can only add."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device, size = torch.device(args.device), args.size
    kernel = gaussian_kernel(3.0, 61)
    operators = {
        "mask": restore.Mask(box_mask(size, size // 4)),
        "blur circular 61x61": restore.Blur(kernel),
        "blur reflect 61x61": restore.Blur(kernel, boundary="reflect"),
        "downsample x4": restore.Downsample(4),
        "grayscale": restore.Grayscale(),
    }
    prior = restore.load_prior("photo", device=device)
    x = torch.rand(1, 3, size, size, device=device)

    def plain() -> None:
        with torch.inference_mode():
            for _ in range(args.steps):
                prior(x, 0.5)

    def with_gradient() -> None:
        for _ in range(args.steps):
            x_t = x.clone().requires_grad_()
            torch.autograd.grad(prior(x_t, 0.5).sum(), x_t)

    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {size} x {size}\n")
    print("| method | operator | ms a step | bare network | ratio | added ms |\n|---|---|---|---|---|---|")
    for method, name, options in CASES:
        operator = operators[name].to(device)
        y = operator(x)

        def run(operator=operator, y=y, method=method, options=options) -> None:
            restore.solve(
                y,
                operator,
                method,
                prior=prior,
                steps=args.steps,
                seed=0,
                device=device,
                progress=False,
                **options,
            )

        bare = with_gradient if method == "dps" else plain
        bare(), run()  # Both warm, then by turns: the machine's moods meet both.
        base = took = float("inf")
        for _ in range(args.repeat):
            base = min(base, seconds(bare, 1, device))
            took = min(took, seconds(run, 1, device))
        a, b = 1000 * took / args.steps, 1000 * base / args.steps
        print(f"| {method} | {name} | {a:.1f} | {b:.1f} | {a / b:.3f} | {a - b:.2f} |", flush=True)


if __name__ == "__main__":
    main()
