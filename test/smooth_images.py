"""Images so smooth that errors of interpolation are small."""

import cv2
import numpy as np


def smooth_photograph(height=300, width=500, seed=0):
    """Return an image so smooth that bilinear samples of it are its values."""
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 16)
    return np.rint(np.clip(128 + 45 * noise / noise.std(), 0, 255)).astype(np.uint8)


def smooth_panorama():
    """Return an equirectangular image without a seam: a smooth function of the direction."""
    longitude = ((np.arange(1024) + 0.5) / 1024 - 0.5) * 2 * np.pi
    latitude = (((np.arange(512) + 0.5) / 512 - 0.5) * np.pi)[:, None]
    x, y, z = np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)
    value = np.sin(9 * x + 2) + np.sin(8 * y + 5 * z) + np.cos(11 * z - 6 * x)
    return np.rint(128 + 40 * value).astype(np.uint8)
