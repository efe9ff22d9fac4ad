"""The array type of images in an evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
"""An 8-bit RGB image of shape ``(height, width, 3)``."""
