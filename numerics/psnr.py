"""Peak signal-to-noise ratio of two images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def compute_psnr(reference: NDArray[np.uint8], image: NDArray[np.uint8]) -> float | None:
    """Computes the PSNR of two 8-bit images.

    Args:
        reference: Reference image of any shape.
        image: Image of the same shape.

    Returns:
        The PSNR in dB, or None if the images are identical and the PSNR is infinite.
    """
    from skimage.metrics import peak_signal_noise_ratio

    if np.array_equal(reference, image):
        return None
    return float(peak_signal_noise_ratio(reference, image, data_range=255))
