"""Tells a working cv_bridge from a broken or a different one. Also runs as a script, in a process that may crash."""

from __future__ import annotations

import importlib
import subprocess
import sys

TIMEOUT_S = 30


def load_cv_bridge():
    """Return the installed cv_bridge, or raise what is wrong with it."""
    import numpy as np

    module = importlib.import_module('cv_bridge')
    if not hasattr(module, 'CvBridge'):
        raise ImportError(f'{module.__file__} has no CvBridge: another package of the same name')
    pixel = np.array([[[10, 20, 250]]], np.uint8)
    message = module.CvBridge().cv2_to_imgmsg(pixel, 'bgr8')
    if (message.height, message.width, message.step, bytes(message.data)) != (1, 1, 3, pixel.tobytes()):
        raise ImportError(f'it turns the bgr8 pixel (10, 20, 250) into {list(message.data)} with step {message.step}')
    return module


def try_in_child() -> None:
    """Raise ImportError unless `load_cv_bridge` survives in a process of its own."""
    child = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ['no error message'])[-1]
        raise ImportError(f'a trial run ended with {child.returncode}: {last}')


if __name__ == '__main__':
    load_cv_bridge()
