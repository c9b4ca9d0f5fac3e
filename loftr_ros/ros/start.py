"""The executable `matcher_node`: it ends without a traceback on Ctrl-C, also while torch is being imported."""

from __future__ import annotations

import sys

from loftr_ros.ros.signals import end_on_signal


def main() -> int:
    """Start the node."""
    end_on_signal()
    from loftr_ros.ros import matcher_node

    return matcher_node.main()


if __name__ == '__main__':
    sys.exit(main())
