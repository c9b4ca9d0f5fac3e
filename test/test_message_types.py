"""Bytes of a bag are published only if the installed type has the recorded fields."""

import pytest
from bag_files import X, mcap

pytest.importorskip('rclpy')
pytest.importorskip('rosbags')

from rosbags.typesys import Stores, get_typestore

from loftr_ros.datasets.bags import open_bag
from loftr_ros.errors import InputError
from loftr_ros.ros.message_types import difference, layout_of, message_class


def compared(tmp_path, text, name='std_msgs/msg/String', schema='ros2msg'):
    """Return how the type of a bag differs from the installed one."""
    path = mcap(
        tmp_path / 'a.mcap', [('/t', name, schema, text, 'ros1' if schema == 'ros1msg' else 'cdr')], [(1, 1, X)]
    )
    with open_bag(path) as bag:
        return difference(bag.layout('/t'), layout_of(message_class(name)))


@pytest.mark.parametrize('distribution', [Stores.LATEST, Stores.ROS1_NOETIC])
@pytest.mark.parametrize('name', ['CameraInfo', 'Image', 'CompressedImage', 'Imu', 'PointCloud2', 'NavSatFix'])
def test_standard_types_of_both_ros_are_those_installed(tmp_path, distribution, name):
    store = get_typestore(distribution)
    name = f'sensor_msgs/msg/{name}'
    one = distribution is Stores.ROS1_NOETIC
    text, _ = store.generate_msgdef(name, ros_version=1 if one else 2)
    assert compared(tmp_path, text, name, 'ros1msg' if one else 'ros2msg') == ''


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('string text', 'text in place of data'),
        ('wstring data', 'data is wstring in place of string'),
        ('string[] data', 'data is sequence in place of string'),
        ('builtin_interfaces/Time data', 'data is a message in place of string'),
        ('string data\nint8 more', '2 fields in place of 1'),
    ],
)
def test_a_definition_with_another_byte_layout_is_reported(tmp_path, text, words):
    assert compared(tmp_path, text) == words


def test_a_difference_in_a_nested_message_is_reported_with_its_path(tmp_path):
    path = mcap(tmp_path / 'a.mcap', [('/t', 'a_msgs/msg/A', 'ros2msg', 'int32[3] a', 'cdr')], [(1, 1, X)])
    with open_bag(path) as bag:
        array = bag.layout('/t')
    assert array == (('a', ('array', 3, 'int32')),)
    assert difference((('h', array),), (('h', (('a', 'int32'),)),)) == 'h.a is array in place of int32'


@pytest.mark.parametrize('text', ['string', 'absent_msgs/Of data'])
def test_a_definition_that_cannot_be_read_says_so(tmp_path, text):
    with pytest.raises(InputError, match='definition of std_msgs/msg/String'):
        compared(tmp_path, text)


@pytest.mark.parametrize('name', ['absent_msgs/msg/Of', 'std_msgs/msg/Absent', 'std_srvs/srv/Empty_Event', 'odd'])
def test_a_type_that_is_not_installed_says_so(name):
    with pytest.raises(InputError, match=f'{name} is not installed'):
        message_class(name)
