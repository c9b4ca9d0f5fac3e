"""The executable `matcher_node`: ends quietly on Ctrl-C from the first moment on, also while torch is imported."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Start the node."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    from loftr_ros.ros import matcher_node

    return matcher_node.main()


if __name__ == '__main__':
    sys.exit(main())
