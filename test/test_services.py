"""What a service answers when the matcher fails: an exception in a service callback would end the node."""

import logging
import types

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('loftr_ros.srv')

from loftr_ros.srv import MatchImages

from loftr_ros.config import Config
from loftr_ros.ros.compat import CvBridge
from loftr_ros.ros.services import Services

pytestmark = pytest.mark.ros


def test_a_fault_of_the_matcher_is_an_answer():
    def fail(*_):
        raise RuntimeError('out of memory')

    offered = {}
    node = types.SimpleNamespace(
        get_logger=lambda: logging.getLogger('services'),
        create_service=lambda kind, name, callback: offered.update({name: callback}),
    )
    Services(node, types.SimpleNamespace(match_pair=fail), Config, fail)
    image = CvBridge().cv2_to_imgmsg(np.zeros((8, 8), np.uint8), 'mono8')
    answer = offered['~/match_pair'](MatchImages.Request(image0=image, image1=image), MatchImages.Response())
    assert not answer.success and answer.message == 'please report this: RuntimeError: out of memory'
