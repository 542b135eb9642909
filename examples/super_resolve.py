"""Enlarge a picture, four times by default.

    python examples/super_resolve.py examples/images/coffee-small.png --scale 4

The result, made smaller again by bicubic interpolation, is the given picture. In Python this is

    image = restore.images.read_image("img.png")
    large = restore.super_resolve(image, scale=4, seed=0)
"""

import sys

from restore.cli import main

if __name__ == "__main__":
    sys.exit(main(["super-resolve", *sys.argv[1:]], prog="super_resolve.py"))
