"""Fill in what is white in a mask: scratches, writing, a passer-by.

    python examples/inpaint.py examples/images/cat.png examples/images/cat-mask.png

Every pixel that is black in the mask stays exactly as it is. In Python this is

    image = restore.images.read_image("img.png")
    kept = operators.mask_from_image("mask.png", white="fill")
    filled = restore.inpaint(image, kept, seed=0)
"""

import sys

from restore.cli import main

if __name__ == "__main__":
    sys.exit(main(["inpaint", *sys.argv[1:]], prog="inpaint.py"))
