"""List what is installed and works, what is missing, and how to install it."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import import_module, metadata

REQUIREMENTS = 'pip install -r requirements.txt'
PACKAGES = (
    # import name, distribution name, oldest version, what for, needed, remedy
    ('numpy', 'numpy', '1.21', 'everything', True, 'pip install numpy'),
    ('cv2', 'opencv-python', '4.5', 'images', True, 'apt install python3-opencv, or pip install opencv-python'),
    ('torch', 'torch', '2.1', 'the matchers', True, f'{REQUIREMENTS} (torch==2.13.0 is a build without CUDA)'),
    ('safetensors', 'safetensors', '0.4', 'weights of the networks', True, REQUIREMENTS),
    ('yaml', 'PyYAML', '5.4', 'parameter files', True, 'pip install PyYAML'),
    ('poselib', 'poselib', '2.0.5', 'the relative pose', True, REQUIREMENTS),
    ('matplotlib', 'matplotlib', '3.5', 'plots', False, 'pip install matplotlib'),
    ('tqdm', 'tqdm', '4.57', 'progress bars', False, 'pip install tqdm'),
    ('pooch', 'pooch', '1.6', '`loftr_ros weights get`', False, 'pip install pooch'),
    ('rosbags', 'rosbags', '0.11', 'reading bags', False, 'pip install rosbags'),
    ('mcap', 'mcap', '1.2', 'reading bags of the storage mcap', False, 'pip install mcap'),
)


def add_arguments(parser) -> None:
    pass


def run(options) -> int:
    """Print the report; return 1 if something that the node needs is missing."""
    from loftr_ros.config import Config
    from loftr_ros.settings import flatten

    print(f'python        {platform.python_version()} at {sys.executable}')
    print(f'machine       {platform.machine()}, {os.cpu_count()} cores, {platform.platform()}')
    missing = [not _report_package(*package) for package in PACKAGES]
    _report_device()
    missing.append(not _report_ros())
    print(f'settings      {len(flatten(Config()))}, see `loftr_ros parameters`')
    print('the node can run' if not any(missing) else 'the node cannot run yet: see MISSING above')
    return int(any(missing))


def _report_package(module: str, distribution: str, oldest: str, purpose: str, needed: bool, remedy: str) -> bool:
    word = 'MISSING' if needed else 'absent'
    try:
        version = getattr(import_module(module), '__version__', None) or metadata.version(distribution)
    except Exception as error:  # importing a broken build may raise anything
        reason = '' if isinstance(error, ModuleNotFoundError) else f' ({type(error).__name__}: {error})'
        print(f'{module:<13} {word}: for {purpose}; {remedy}{reason}')
        return not needed
    if _numbers(version) < _numbers(oldest):
        print(f'{module:<13} {word}: {version} is too old for {purpose}, {oldest} or later is needed; {remedy}')
        return not needed
    print(f'{module:<13} {version}')
    return True


def _numbers(version: str) -> list[int]:
    """Return the leading numbers of a version: [2, 13, 0] of 2.13.0+cpu, [1, 9, 0] of v1.9.0."""
    return [int(number) for number in re.match(r'v?([\d.]*)', version)[1].split('.') if number]


def _report_device() -> None:
    try:
        import torch
    except Exception:
        return
    if torch.cuda.is_available():
        print(f'device        cuda: {torch.cuda.get_device_name()}, torch built for CUDA {torch.version.cuda}')
    elif torch.version.cuda:
        print(f'device        cpu: torch is built for CUDA {torch.version.cuda} but finds no GPU; check nvidia-smi')
    else:
        print('device        cpu: this torch is built without CUDA')


def _report_ros() -> bool:
    try:
        import_module('rclpy')
    except Exception as error:
        print(f'rclpy         MISSING ({type(error).__name__}: {error}); source /opt/ros/DISTRO/setup.bash,')
        print('              in a virtual environment made with --system-site-packages, or run `make build` in the')
        print('              checkout and `. scripts/environment.sh`')
        return False
    try:
        report = import_module('loftr_ros.ros.report')
    except ImportError as error:
        print(f'ROS           not checked: install the packages above first ({error})')
        return False
    for line in report.describe():
        print(line)
    return report.has_messages()
