"""What the node does with messages of the robot's speed, and without."""

import types

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('nav_msgs')

from geometry_msgs.msg import TwistStamped, TwistWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.qos import ReliabilityPolicy

from loftr_ros.config import Config
from loftr_ros.geometry import transform
from loftr_ros.ros import speed_input
from loftr_ros.ros.inputs import unused_settings
from loftr_ros.settings import override


class Node:
    def __init__(self):
        self.warnings = []

    def get_logger(self):
        return types.SimpleNamespace(warning=lambda text, throttle_duration_sec: self.warnings.append(text))

    def resolve_topic_name(self, name):
        return f'/robot/{name}'

    def create_subscription(self, message_type, topic, callback, profile, callback_group):
        self.message_type, self.topic, self.callback, self.profile = message_type, topic, callback, profile

    def get_publishers_info_by_topic(self, topic):
        return [types.SimpleNamespace(topic_type='nav_msgs/msg/Odometry')]

    def get_topic_names_and_types(self):
        return []


def make(kind, base_from_cam=None):
    node, heard = Node(), []
    config = override(Config(), {'odometry.speed': kind.__name__})
    made = speed_input.SpeedInput(node, config, lambda: base_from_cam, lambda *speed: heard.append(speed))
    return made, node, heard


@pytest.mark.parametrize('kind', [Odometry, TwistStamped, TwistWithCovarianceStamped])
def test_each_type_gives_the_speed_of_the_camera(kind):
    made, node, heard = make(kind, transform(np.eye(3), (0.0, -0.5, 0.2)))
    assert node.message_type is kind and node.topic == 'speed'
    assert node.profile.reliability == ReliabilityPolicy.BEST_EFFORT  # receives from both kinds of publishers
    message = kind()
    message.header.stamp.sec = 7
    twist = message.twist if kind is TwistStamped else message.twist.twist
    twist.linear.x, twist.angular.z = 1.0, 1.0
    node.callback(message)
    assert heard == [(7_000_000_000, pytest.approx(1.5))]
    twist.linear.x = float('nan')
    node.callback(message)
    assert len(heard) == 1 and 'must be finite' in node.warnings[0]
    assert (made.topic, made.received) == ('/robot/speed', 1)


def test_silence_is_told(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(speed_input.time, 'monotonic', lambda: now[0])
    made, node, _ = make(TwistStamped)
    assert made.fault == ''
    now[0] += 6
    assert 'no speed for 6 s' in made.fault
    assert '/robot/speed has the type nav_msgs/msg/Odometry, needs geometry_msgs/msg/TwistStamped' in made.fault
    node.callback(TwistStamped())
    assert made.fault == ''


@pytest.mark.parametrize(
    ('settings', 'count'),
    [
        ({'odometry.rig': 'mono', 'odometry.speed': 'Odometry'}, 0),
        ({'odometry.rig': 'stereo', 'odometry.speed': 'Odometry'}, 1),
        ({'odometry.rig': 'rgbd', 'odometry.camera_from_depth': 'tf'}, 0),
        ({'odometry.rig': 'mono', 'odometry.camera_from_depth': 'tf', 'odometry.speed': 'Odometry'}, 1),
        ({'input.pairing': 'temporal', 'odometry.speed': 'Odometry'}, 1),
    ],
)
def test_settings_without_effect_are_named(settings, count):
    lines = unused_settings(override(Config(), {'input.pairing': 'odometry', **settings}))
    assert len(lines) == count and all('has no effect' in line for line in lines)
