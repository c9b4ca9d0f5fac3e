"""The node with a network: nothing but `matcher.name` and `matcher.weights` differ."""

import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')

import numpy as np  # noqa: E402
from test_matchers import texture  # noqa: E402
from test_node import SECOND_NS, Camera  # noqa: E402
from tiny_networks import SETTINGS, save_tiny  # noqa: E402

from loftr_ros.datatypes import Camera as Calibration  # noqa: E402

pytestmark = pytest.mark.ros

SHIFT = 32  # px


@pytest.mark.parametrize('name', SETTINGS)
def test_a_network_matches_over_dds(tmp_path, name):
    calibration = Calibration(np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]]), 160, 120)
    image = texture(120, 160 + SHIFT)
    parameters = {'matcher.name': name, 'matcher.weights': save_tiny(name, tmp_path), 'matcher.match_threshold': '0.05'}
    with Camera(tmp_path, parameters) as robot:
        for number in range(2):
            view = image[:, number * SHIFT : number * SHIFT + 160].copy()
            robot.send(view, calibration, (number + 1) * SECOND_NS, 'mono8')
        robot.wait(lambda: robot.matches, 'matches')
        message = robot.matches[0]
        assert message.matcher == f'{name}:tiny_{name}'
        points0, points1 = (np.reshape(points, (-1, 2)) for points in (message.points0, message.points1))
        assert len(points0) > 10
        # Random fine weights choose anywhere in a window, of 4 px each way.
        np.testing.assert_allclose(np.median(points0 - points1, axis=0), [SHIFT, 0], atol=3)
        robot.wait(lambda: robot.diagnostics.get('matcher') == message.matcher, 'the matcher in the diagnostics')
        assert (robot.diagnostics['processed'], robot.diagnostics['dropped']) == ('2', '0')
