"""Paths of files that are installed with the package: parameter files, launch files, DDS profiles."""

from __future__ import annotations

from pathlib import Path

import loftr_ros
from loftr_ros.errors import MissingDependencyError


def share_file(name: str) -> Path:
    """Return the path of a file of share/loftr_ros, such as `config/stereo.yaml`, installed or in a checkout."""
    roots = [Path(folder).parent for folder in loftr_ros.__path__]
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

        roots.append(Path(get_package_share_directory('loftr_ros')))
    except (ImportError, PackageNotFoundError):
        pass
    for root in roots:
        if (root / name).is_file():
            return root / name
    raise MissingDependencyError(
        f'{name} is not in {", ".join(map(str, roots))}; build with colcon or run from a checkout'
    )
