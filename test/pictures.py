"""Pictures in the forms of files and messages, with the expected decoded image."""

import numpy as np


def forms(bgr):
    """Return stored pixels and the uint8 image that they mean, by form; `bgr` uint8 (H, W, 3)."""
    grey = bgr[..., 1]
    alpha = np.dstack([bgr, grey])
    return {
        'grey': (grey, grey),
        'colour': (bgr, bgr),
        'alpha': (alpha, bgr),
        '16 bits': (grey.astype(np.uint16) * 257, grey),
        '16 bits colour': (bgr.astype(np.uint16) * 257, bgr),
        '16 bits alpha': (alpha.astype(np.uint16) * 257, bgr),
    }
