"""Peak memory of a DPS gradient of guided-diffusion's 553 M parameters, with and without checkpointing.

    python tests/benchmarks/gradient_memory.py                     # 1 and 2 pictures of 256 x 256
    python tests/benchmarks/gradient_memory.py --pictures 1 3 --size 256 --device cuda

Every figure is of a process of its own: what the process held at most, above what it held before the gradient
(the weights, 2.1 GiB, among it). Weights are random: memory does not ask for their values.
"""

import argparse
import resource
import subprocess
import sys
import time

ADM = {
    "in_channels": 3,
    "out_channels": 6,
    "block_out_channels": [256, 256, 512, 512, 1024, 1024],
    "layers_per_block": 2,
    "down_block_types": ["ResnetDownsampleBlock2D"] * 3 + ["AttnDownBlock2D"] * 3,
    "up_block_types": ["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"] * 3,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 64,
    "attn_norm_num_groups": 32,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}


def resident() -> int:
    """Bytes of memory that the process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measure(pictures: int, size: int, device: str, checkpointing: bool) -> None:
    """Prints GiB above the weights, and seconds, of one gradient of ``||y - A x_hat(x_t)||``."""
    import torch
    from diffusers import UNet2DModel

    import restore

    torch.manual_seed(0)
    prior = restore.Prior(UNet2DModel(**ADM), restore.Schedule.linear()).to(device)
    if checkpointing:
        prior = prior.with_checkpointing()
    operator = restore.Downsample(4)
    x = torch.randn(pictures, 3, size, size, device=device, requires_grad=True)
    y = torch.zeros(pictures, 3, size // 4, size // 4, device=device)
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else resident()
    start = time.perf_counter()
    (gradient,) = torch.autograd.grad((y - operator(prior(x, 0.5))).flatten(1).norm(dim=1).sum(), x)
    assert bool(gradient.isfinite().all())
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # What Linux counts in.
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * kib
    print(f"{(peak - before) / 2**30:.1f} GiB, {time.perf_counter() - start:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", choices=["plain", "checkpointing"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return measure(args.pictures[0], args.size, args.device, args.one == "checkpointing")
    print("| pictures | plain | checkpointing |\n|---|---|---|")
    for count in args.pictures:
        cells = []
        for kind in ("plain", "checkpointing"):
            own = ["--pictures", str(count), "--size", str(args.size), "--device", args.device, "--one", kind]
            done = subprocess.run([sys.executable, __file__, *own], stdout=subprocess.PIPE, text=True)
            cells.append(done.stdout.strip() or f"ended with {done.returncode}")
        print(f"| {count} of {args.size} x {args.size} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
