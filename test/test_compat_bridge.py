"""The replacement of cv_bridge, and the choice between it and an installed one."""

import os
import sys

import numpy as np
import pytest

pytest.importorskip('sensor_msgs.msg', reason='sensor_msgs is not installed')

from std_msgs.msg import Header

from loftr_ros.messages import image_from_msg
from loftr_ros.ros import compat
from loftr_ros.ros.compat.bridge import CvBridge

pytestmark = pytest.mark.ros
BGR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.mark.parametrize('bridge', [CvBridge(), compat.CvBridge()], ids=['stand-in', 'chosen'])
@pytest.mark.parametrize(('image', 'encoding'), [(BGR, 'bgr8'), (BGR[..., 1], 'mono8')])
def test_a_message_made_of_an_image_gives_the_image_back(bridge, image, encoding):
    message = bridge.cv2_to_imgmsg(image, encoding, Header(frame_id='camera_optical'))
    assert (message.encoding, message.header.frame_id) == (encoding, 'camera_optical')
    np.testing.assert_array_equal(image_from_msg(message), image)
    np.testing.assert_array_equal(image_from_msg(bridge.cv2_to_compressed_imgmsg(image, 'png')), image)


def test_jpeg_is_the_default_and_similar():
    smooth = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
    message = CvBridge().cv2_to_compressed_imgmsg(smooth)
    assert message.format == 'jpg' and bytes(message.data[:2]) == b'\xff\xd8'
    assert np.abs(image_from_msg(message).astype(int) - smooth).max() < 8


# The choice

MODULE = """
from types import SimpleNamespace
class CvBridge:
    def cv2_to_imgmsg(self, image, encoding='passthrough', header=None):
        {body}
"""
WORKS = 'return SimpleNamespace(height=1, width=1, step=3, data=image.tobytes())'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that puts a module on the path, also of child processes."""

    def write(name, text):
        (tmp_path / f'{name}.py').write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield write
    for name in ('cv_bridge', 'message_filters'):
        if getattr(sys.modules.get(name), '__file__', '').startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_working_installed_cv_bridge_is_used(install):
    install('cv_bridge', MODULE.format(body=WORKS))
    module, reason = compat.choose_bridge()
    assert module.__name__ == 'cv_bridge'
    assert reason.startswith('cv_bridge: installed one, ')


@pytest.mark.parametrize('numpy_version', ['1.26.4', '2.4.0'])
@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (MODULE.format(body='raise AttributeError("_ARRAY_API not found")'), '_ARRAY_API not found'),
        ('raise ImportError("numpy.core.multiarray failed to import")', 'numpy.core.multiarray failed to import'),
        (
            MODULE.format(body='return SimpleNamespace(height=1, width=1, step=3, data=b"abc")'),
            'the bgr8 pixel',
        ),
        ('class Bridge: pass', 'has no CvBridge: another package of the same name'),
    ],
)
def test_a_broken_cv_bridge_is_replaced_and_the_reason_logged(install, monkeypatch, numpy_version, text, words):
    monkeypatch.setattr(compat.np, '__version__', numpy_version)
    install('cv_bridge', text)
    module, reason = compat.choose_bridge()
    assert module.__name__ == 'loftr_ros.ros.compat.bridge'
    assert 'own stand-in, the installed one does not work' in reason
    assert words in reason


def test_a_cv_bridge_that_crashes_with_numpy_2_is_replaced(install, monkeypatch):
    monkeypatch.setattr(compat.np, '__version__', '2.4.0')
    install('cv_bridge', MODULE.format(body='import os; os.abort()'))
    module, reason = compat.choose_bridge()
    assert module.__name__ == 'loftr_ros.ros.compat.bridge'
    assert 'a trial run ended with -6' in reason


def test_message_filters_without_the_needed_classes_are_replaced(install):
    install('message_filters', 'class Subscriber: pass')
    module, reason = compat.choose_filters()
    assert module.__name__ == 'loftr_ros.ros.compat.filters'
    assert 'has no TimeSynchronizer, ApproximateTimeSynchronizer' in reason


def test_message_filters_that_need_rospy_are_replaced(install):
    install('message_filters', 'import rospy_of_ros_1')
    module, reason = compat.choose_filters()
    assert module.__name__ == 'loftr_ros.ros.compat.filters'
    assert "No module named 'rospy_of_ros_1'" in reason


def test_the_choice_is_logged_in_a_line_for_each_package():
    lines = compat.describe()
    assert [line.split(':')[0] for line in lines] == ['message_filters', 'cv_bridge']
