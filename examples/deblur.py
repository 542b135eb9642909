"""Undo a known blur: a Gaussian one of a given width, or any kernel drawn in a picture.

    python examples/deblur.py blurred.png --sigma 3
    python examples/deblur.py blurred.png --kernel kernel.png --noise 0.02

In Python this is

    image = restore.images.read_image("blurred.png")
    sharp = restore.deblur(image, operators.gaussian_kernel(3.0), noise=0.01 * 255, seed=0)
"""

import sys

from restore.cli import main

if __name__ == "__main__":
    sys.exit(main(["deblur", *sys.argv[1:]], prog="deblur.py"))
