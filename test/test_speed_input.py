"""What the node does with messages of the robot's speed, and without."""

import types

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('nav_msgs')

from geometry_msgs.msg import TwistStamped, TwistWithCovarianceStamped
from nav_msgs.msg import Odometry

from loftr_ros.config import Config
from loftr_ros.geometry import transform
from loftr_ros.ros import speed_input
from loftr_ros.settings import override


class Node:
    def __init__(self):
        self.warnings = []

    def get_logger(self):
        return types.SimpleNamespace(warning=lambda text, throttle_duration_sec: self.warnings.append(text))

    def resolve_topic_name(self, name):
        return f'/robot/{name}'

    def create_subscription(self, message_type, topic, callback, _depth, callback_group):
        self.message_type, self.topic, self.callback = message_type, topic, callback


def make(kind, base_from_cam=None):
    node, heard = Node(), []
    config = override(Config(), {'odometry.speed': kind.__name__})
    made = speed_input.SpeedInput(node, config, lambda: base_from_cam, lambda *speed: heard.append(speed))
    return made, node, heard


@pytest.mark.parametrize('kind', [Odometry, TwistStamped, TwistWithCovarianceStamped])
def test_each_type_gives_the_speed_of_the_camera(kind):
    _, node, heard = make(kind, transform(np.eye(3), (0.0, -0.5, 0.2)))
    assert node.message_type is kind and node.topic == 'speed'
    message = kind()
    message.header.stamp.sec = 7
    twist = message.twist if kind is TwistStamped else message.twist.twist
    twist.linear.x, twist.angular.z = 1.0, 1.0
    node.callback(message)
    assert heard == [(7_000_000_000, pytest.approx(1.5))]
    twist.linear.x = float('nan')
    node.callback(message)
    assert len(heard) == 1 and 'must be finite' in node.warnings[0]


def test_silence_is_told(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(speed_input.time, 'monotonic', lambda: now[0])
    made, node, _ = make(TwistStamped)
    assert made.fault == ''
    now[0] += 6
    assert 'no speed on /robot/speed for 6 s' in made.fault
    node.callback(TwistStamped())
    assert made.fault == ''
