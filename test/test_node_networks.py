"""The node with a network: only `matcher.name` and `matcher.weights` differ."""

import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.msg')

import numpy as np  # noqa: E402
import torch  # noqa: E402
from camera_driver import SECOND_NS, Camera  # noqa: E402
from rcl_interfaces.msg import ParameterType, ParameterValue  # noqa: E402
from test_matchers import texture  # noqa: E402
from tiny_networks import save_tiny  # noqa: E402

from loftr_ros.camera import Camera as Calibration  # noqa: E402
from loftr_ros.matchers.precision import cpu_has_units  # noqa: E402

pytestmark = pytest.mark.ros

SHIFT = 32  # px


@pytest.mark.parametrize(
    ('name', 'shipped'),
    [
        ('loftr', ''),
        ('efficient_loftr', ''),
        ('superpoint_nn', 'superpoint_small'),
        ('superglue', 'superglue_small'),
    ],
)
def test_a_network_matches_over_dds(tmp_path, name, shipped):
    calibration = Calibration(np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]]), 160, 120)
    image = texture(120, 160 + SHIFT)
    weights = shipped or save_tiny(name, tmp_path)
    parameters = {'matcher.name': name, 'matcher.weights': weights, 'matcher.match_threshold': '0.05'}
    with Camera(tmp_path, parameters) as robot:
        for number in range(2):
            view = image[:, number * SHIFT : number * SHIFT + 160].copy()
            robot.send(view, calibration, (number + 1) * SECOND_NS, 'mono8')
        robot.wait(lambda: robot.matches, 'matches')
        message = robot.matches[0]
        assert message.matcher == f'{name}:{shipped or f"tiny_{name}"}'
        points0, points1 = (np.reshape(points, (-1, 2)) for points in (message.points0, message.points1))
        assert len(points0) > 10
        # Random fine weights choose anywhere in a window, of 4 px each way.
        np.testing.assert_allclose(np.median(points0 - points1, axis=0), [SHIFT, 0], atol=3)
        robot.wait(lambda: robot.diagnostics.get('matcher') == message.matcher, 'the matcher in the diagnostics')
        assert (robot.diagnostics['processed'], robot.diagnostics['dropped']) == ('2', '0')


@pytest.mark.skipif(not cpu_has_units(torch.bfloat16), reason='needs a CPU with bf16 units')
def test_the_diagnostics_have_the_precision_of_the_current_matcher_only(tmp_path):
    calibration = Calibration(np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]]), 160, 120)
    image = texture(120, 160)
    parameters = {'matcher.name': 'loftr', 'matcher.weights': save_tiny('loftr', tmp_path), 'matcher.precision': 'bf16'}
    with Camera(tmp_path, parameters) as robot:
        for number in range(2):
            robot.send(image, calibration, (number + 1) * SECOND_NS, 'mono8')
        robot.wait(lambda: 'precision' in robot.diagnostics, 'the precision in the diagnostics')
        assert robot.diagnostics['precision'].startswith('bf16, drift')
        text = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value='fp32')
        assert robot.set('matcher.precision', text).successful
        for number in range(2, 4):
            robot.send(image, calibration, (number + 1) * SECOND_NS, 'mono8')
        robot.wait(lambda: 'precision' not in robot.diagnostics, 'the precision to leave the diagnostics')
        assert robot.diagnostics['matcher'] == 'loftr:tiny_loftr'
