"""Tells a working cv_bridge from a broken or a foreign one. Runs as a script too, in a process that may crash."""

from __future__ import annotations

import array
import importlib
import subprocess
import sys

TIMEOUT_S = 30


class _RedPixel:
    """The least image message whose conversion goes through the compiled part of cv_bridge."""

    height = width = 1
    encoding = 'rgb8'
    is_bigendian = 0
    step = 3
    data = array.array('B', (250, 20, 10))


def load_cv_bridge():
    """Return the installed cv_bridge, or raise what is wrong with it."""
    module = importlib.import_module('cv_bridge')
    for name in ('CvBridge', 'CvBridgeError'):
        if not hasattr(module, name):
            raise ImportError(f'{module.__file__} has no {name}: another package of the same name')
    image = module.CvBridge().imgmsg_to_cv2(_RedPixel(), 'bgr8')
    if image.tolist() != [[[10, 20, 250]]]:
        raise ImportError(f'it turns the rgb8 pixel (250, 20, 10) into bgr8 {image.tolist()}')
    return module


def try_in_child() -> None:
    """Raise ImportError unless `load_cv_bridge` survives in a process of its own."""
    child = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ['without a word'])[-1]
        raise ImportError(f'a trial run ended with {child.returncode}: {last}')


if __name__ == '__main__':
    load_cv_bridge()
