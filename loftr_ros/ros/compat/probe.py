"""Checks that the installed cv_bridge works. Also runs as a script, because a broken one may crash the process."""

from __future__ import annotations

import importlib
import subprocess
import sys

TIMEOUT_S = 30


def load_cv_bridge():
    """Return the installed cv_bridge, or raise an exception that says what is wrong with it."""
    import numpy as np

    module = importlib.import_module('cv_bridge')
    if not hasattr(module, 'CvBridge'):
        raise ImportError(f'{module.__file__} has no CvBridge: another package of the same name')
    pixel = np.array([[[10, 20, 250]]], np.uint8)
    message = module.CvBridge().cv2_to_imgmsg(pixel, 'bgr8')
    if (message.height, message.width, message.step, bytes(message.data)) != (1, 1, 3, pixel.tobytes()):
        found = f'{list(message.data)} with step {message.step}'
        raise ImportError(f'it converts the bgr8 pixel (10, 20, 250) to {found}')
    return module


def try_in_child() -> None:
    """Raise ImportError unless `load_cv_bridge` succeeds in a separate process."""
    child = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ['no error message'])[-1]
        raise ImportError(f'a trial run ended with {child.returncode}: {last}')


if __name__ == '__main__':
    load_cv_bridge()
