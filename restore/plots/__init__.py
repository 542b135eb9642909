"""Pictures of pictures: comparison sheets, grids of samples, maps of deviation and difference.

Everything is drawn with numpy and PIL and comes back as a PIL image; `restore.images.write_image` saves it.

>>> import numpy as np
>>> y, x = np.zeros((16, 16)), np.ones((64, 64, 3))
>>> sheet({"measured": y, "restored": x}, height=96).mode
'RGB'
"""

from __future__ import annotations

from restore.plots.arrangement import grid, sheet
from restore.plots.maps import deviation_map, difference_map

__all__ = ["deviation_map", "difference_map", "grid", "sheet"]
