r"""Train a prior on a folder of pictures, as the one in the package was trained, but for its last updates.

    python examples/train_prior.py PHOTOS -o my-prior
    python examples/inpaint.py img.png mask.png --prior my-prior

The options below are the recipe of the photo prior (see restore/priors/photo/README.md); what is given on the
command line comes after them and overrides them: --dead-leaves 0.1 mixes in synthetic pictures, --per-octave 2 keeps
the photographs at more sizes, --crop 64 takes crops of one size alone.

It took twelve hours of a CPU's core with bf16 instructions to make 44,400 updates, about one a second. --steps says how
many there are to be (100,000 by default): --steps 20000 is a night. Where a CPU or GPU has no bf16
instructions, the same is done in float32, which takes longer.

The photo prior was trained in several legs, the last of them with half of its crops from nearly whole pictures; the
same after a training, from its weights:

    python examples/train_prior.py PHOTOS -o last --init my-prior --steps 3400 --learning-rate 1.6e-4 --warmup 1 \
        --decay 1 --crop 64,64,96 --whole 0.5

An interrupted training goes on with --resume. Several GPUs:

    torchrun --nproc_per_node 4 examples/train_prior.py PHOTOS -o my-prior
"""

import sys

from restore.cli import main

RECIPE = [
    "--batch",
    "32",
    "--crop",
    "64,64,128",
    "--learning-rate",
    "1e-3",
    "--warmup",
    "300",
    "--ema",
    "0.999",
    "--spectrum",
]

if __name__ == "__main__":
    # A training that goes on has its options, the recipe or what overrode it, in its state.
    goes_on = any(len(word) > 2 and "--resume".startswith(word) for word in sys.argv[1:])
    recipe = [] if goes_on else RECIPE
    sys.exit(main(["train", *recipe, *sys.argv[1:]], prog="train_prior.py"))
