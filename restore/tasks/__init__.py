"""The common repairs in one call each, with everything practical around :func:`restore.solve`.

They take grey pictures too, keep what was measured, and get along with photographs of many megapixels.
"""

from __future__ import annotations

from restore.tasks.colouring import colorize
from restore.tasks.deblurring import deblur
from restore.tasks.enlarging import super_resolve
from restore.tasks.filling import inpaint
from restore.tasks.windows import hole_windows

__all__ = ["colorize", "deblur", "hole_windows", "inpaint", "super_resolve"]
