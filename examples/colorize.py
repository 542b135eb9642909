"""Give a grey picture plausible colours; of a colour picture, the luma is taken first.

    python examples/colorize.py examples/images/cat.png --samples 3

The luma of the result is the given picture. In Python this is

    grey = restore.images.read_image("img.png", mode="L")
    colour = restore.colorize(grey, seed=0)
"""

import sys

from restore.cli import main

if __name__ == "__main__":
    sys.exit(main(["colorize", *sys.argv[1:]], prog="colorize.py"))
