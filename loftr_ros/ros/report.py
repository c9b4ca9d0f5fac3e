"""The part of `loftr_ros doctor` about the ROS installation."""

from __future__ import annotations

import os

from rclpy.utilities import get_rmw_implementation_identifier

from loftr_ros.ros import compat

VARIABLES = ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY', 'FASTDDS_DEFAULT_PROFILES_FILE')


def describe() -> list[str]:
    """Return distribution, middleware, stand-ins and messages, one line each."""
    distribution = os.environ.get('ROS_DISTRO', 'from PyPI wheels (ROS_DISTRO is not set)')
    lines = [f'ros           {distribution}, DDS {get_rmw_implementation_identifier()}']
    lines += [f'              {name}={os.environ[name]}' for name in VARIABLES if os.environ.get(name)]
    lines += [f'compat        {line}' for line in compat.describe()]
    remedy = 'MISSING: build the package (colcon build, or make build) and source install/setup.bash'
    return [*lines, f'messages      {"built" if has_messages() else remedy}']


def has_messages() -> bool:
    """Whether the messages of this package are built and found."""
    try:
        import loftr_ros.msg  # noqa: F401
    except ImportError:
        return False
    return True
