"""Constant transforms of the rig from a parameter, and from a tf2_ros that the test plays."""

import sys
import types

import numpy as np
import pytest

pytest.importorskip('rclpy')

from loftr_ros.config import Config
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.ros.extrinsics import BaseFromCamera, CameraFromDepth
from loftr_ros.settings import override


class Node:
    def __init__(self):
        self.warnings = []

    def get_logger(self):
        return types.SimpleNamespace(warning=self.warnings.append)


class NotThereError(Exception):
    pass


@pytest.fixture
def known(monkeypatch):
    """The transforms that TF knows, by parent and child: z of the translation; the rotation is that of `forward`."""
    transforms = {}

    def look_up(parent, child, _time):
        if (parent, child) not in transforms:
            raise NotThereError(f'"{child}" does not exist')
        place = types.SimpleNamespace(x=0.0, y=0.0, z=transforms[parent, child])
        turn = types.SimpleNamespace(x=-0.5, y=0.5, z=-0.5, w=0.5)
        return types.SimpleNamespace(transform=types.SimpleNamespace(translation=place, rotation=turn))

    tf2_ros = types.SimpleNamespace(
        Buffer=lambda node: types.SimpleNamespace(lookup_transform=look_up),
        TransformListener=lambda buffer, node: None,
        TransformException=NotThereError,
    )
    monkeypatch.setitem(sys.modules, 'tf2_ros', tf2_ros)
    return transforms


def test_the_mounting_is_unknown_until_tf_has_it_and_then_constant(known):
    mounting = BaseFromCamera(Node(), Config())
    assert mounting.of('') is None and 'no frame_id' in mounting.fault
    assert mounting.of('cam') is None and 'TF does not know cam in base_link' in mounting.fault
    known['base_link', 'cam'] = 0.4
    np.testing.assert_allclose(mounting.of('cam')[:3], [[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.4]], atol=1e-9)
    assert mounting.fault == ''
    known.clear()
    assert mounting.of('cam')[2, 3] == 0.4


def test_a_camera_that_looks_up_is_warned_about():
    node = Node()
    BaseFromCamera(node, override(Config(), {'odometry.base_from_camera': '0 0 1 0 0 0'}))
    assert 'up to the sky' in node.warnings[0]


def test_sets_are_refused_until_the_place_of_the_depth_camera_is_known(known):
    cam_from_depth = CameraFromDepth(Node(), override(Config(), {'odometry.camera_from_depth': 'tf'}))
    with pytest.raises(InputError, match=r'TF does not know depth in cam .*set odometry\.camera_from_depth'):
        cam_from_depth('cam', 'depth')
    known['cam', 'depth'] = 0.1
    assert cam_from_depth('cam', 'depth')[2, 3] == 0.1


def test_without_tf2_the_parameter_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    with pytest.raises(ConfigError, match=r'set odometry\.base_from_camera'):
        BaseFromCamera(Node(), Config())
    with pytest.raises(ConfigError, match=r'set odometry\.camera_from_depth'):
        CameraFromDepth(Node(), override(Config(), {'odometry.camera_from_depth': 'tf'}))
    with pytest.raises(ConfigError, match=r'odometry\.camera_from_depth: .*"tf"'):
        CameraFromDepth(Node(), override(Config(), {'odometry.camera_from_depth': 'forward'}))
    pose = CameraFromDepth(Node(), override(Config(), {'odometry.camera_from_depth': '0.015 0 0 0 0 0'}))
    assert pose('cam', 'depth')[0, 3] == 0.015
