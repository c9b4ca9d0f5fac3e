"""Learned image matching for ROS 2: match arrays, relative pose and odometry from camera topics.

The names in `__all__` are the interface for Python programs. Each is imported at its first use (PEP 562), so that
`import loftr_ros` loads neither torch nor OpenCV.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# colcon installs the generated loftr_ros.msg in another folder; this joins the two.
__path__ = __import__('pkgutil').extend_path(__path__, __name__)

if TYPE_CHECKING:
    from loftr_ros.api import match
    from loftr_ros.camera import Camera
    from loftr_ros.config import Config
    from loftr_ros.matchers import create_matcher
    from loftr_ros.odometry.odometer import Odometer
    from loftr_ros.pose import estimate_relative_pose

__all__ = ['Camera', 'Config', 'Odometer', 'create_matcher', 'estimate_relative_pose', 'match']

_MODULE_OF = {
    'Camera': 'loftr_ros.camera',
    'Config': 'loftr_ros.config',
    'Odometer': 'loftr_ros.odometry.odometer',
    'create_matcher': 'loftr_ros.matchers',
    'estimate_relative_pose': 'loftr_ros.pose',
    'match': 'loftr_ros.api',
}


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
