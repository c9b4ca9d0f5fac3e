"""Frames of bags that this file writes, read without ROS."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bag_files import header, image_message

from loftr_ros.datasets.bag_frames import read_frames
from loftr_ros.errors import InputError

pytest.importorskip('rosbags')
pytest.importorskip('mcap')

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

MS = 1_000_000
MATRIX = np.array([[500.0, 0, 4], [0, 500, 3], [0, 0, 1]])
INFO = 'sensor_msgs/msg/CameraInfo'


def pixels(value):
    return np.full((6, 8), value, np.uint8)


def info(store, stamp_ns, tx=0.0):
    projection = np.column_stack([MATRIX, [tx, 0, 0]])
    roi = store.types['sensor_msgs/msg/RegionOfInterest'](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    upper = 'K' in store.types[INFO].__dataclass_fields__  # as in ROS 1
    values = {'d': np.zeros(5), 'k': MATRIX.ravel(), 'r': np.eye(3).ravel(), 'p': projection.ravel()}
    return store.types[INFO](
        header=header(store, stamp_ns),
        height=6,
        width=8,
        distortion_model='plumb_bob',
        **{name.upper() if upper else name: value for name, value in values.items()},
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def write(path, messages, plugin=StoragePlugin.SQLITE3):
    """Write (topic, function of the store that makes the message, time of the recording [ms])."""
    old = path.suffix == '.bag'
    store = get_typestore(Stores.ROS1_NOETIC if old else Stores.LATEST)
    serialize = store.serialize_ros1 if old else store.serialize_cdr
    with Writer1(path) if old else Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, make, time_ms in messages:
            message = make(store)
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=store)
            writer.write(connections[topic], time_ms * MS, serialize(message, message.__msgtype__))
    return path


def camera(name, stamps_ms, first=0, tx=0.0, delay_ms=0):
    """Return the messages of a camera whose images have the values first, first + 1, ..."""
    found = []
    for number, stamp_ms in enumerate(stamps_ms):
        recorded_ms, stamp_ns, picture = stamp_ms + delay_ms, stamp_ms * MS, pixels(first + number)
        found.append((f'{name}/camera_info', lambda s, t=stamp_ns: info(s, t, tx), recorded_ms))
        found.append(
            (f'{name}/image_rect', lambda s, t=stamp_ns, p=picture: image_message(s, t, p, 'mono8'), recorded_ms + 1)
        )
    return found


@pytest.mark.parametrize('kind', ['sqlite3', 'mcap', 'ros1'])
def test_the_frames_of_a_camera_come_with_stamp_and_calibration(tmp_path, kind):
    path = tmp_path / ('old.bag' if kind == 'ros1' else 'bag')
    write(path, camera('/cam', (100, 200, 300)), StoragePlugin.MCAP if kind == 'mcap' else StoragePlugin.SQLITE3)
    frames = [found.frame0 for found in read_frames(path)]
    assert [frame.stamp_ns for frame in frames] == [100 * MS, 200 * MS, 300 * MS]
    for value, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, pixels(value))
        np.testing.assert_array_equal(frame.camera.matrix, MATRIX)
        assert frame.frame_id == 'cam'


def test_a_bag_is_read_where_ros_is_not_installed(tmp_path):
    path = write(tmp_path / 'bag', camera('/cam', (100, 200)))
    program = (
        'import sys, importlib.abc\n'
        'class NoRos(importlib.abc.MetaPathFinder):\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name == 'rclpy' or name.partition('.')[0].endswith(('_msgs', '_interfaces')):\n"
        "            raise ImportError(f'{name} is hidden')\n"
        'sys.meta_path.insert(0, NoRos())\n'
        f'sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n'
        'from loftr_ros.datasets.bag_frames import read_frames\n'
        f'print([found.frame0.stamp_ns for found in read_frames({str(path)!r})])\n'
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == str([100 * MS, 200 * MS]), result.stderr


def test_a_stereo_pair_is_synchronized_by_its_stamps_for_any_order_of_the_recording(tmp_path):
    right = camera('/stereo/right', (100, 200, 300), first=50, tx=-60.0, delay_ms=120)
    left = camera('/stereo/left', (100, 200, 300))
    path = write(tmp_path / 'bag', sorted(left + right, key=lambda message: message[2]))
    found = list(read_frames(path))
    assert [(int(f.frame0.image[0, 0]), int(f.frame1.image[0, 0])) for f in found] == [(0, 50), (1, 51), (2, 52)]
    assert [f.baseline_m for f in found] == pytest.approx([0.12] * 3)


def test_stamps_that_differ_make_frames_only_within_the_tolerance(tmp_path):
    messages = camera('/stereo/left', (100, 200)) + camera('/stereo/right', (103, 203))
    path = write(tmp_path / 'bag', sorted(messages, key=lambda message: message[2]))
    assert list(read_frames(path)) == []
    assert len(list(read_frames(path, slop_s=0.003))) == 2


def test_a_calibration_file_is_used_where_the_bag_has_none(tmp_path):
    messages = [message for message in camera('/cam', (100, 200)) if message[0].endswith('image_rect')]
    path = write(tmp_path / 'bag', messages)
    with pytest.raises(InputError, match='has no /cam/camera_info for /cam/image_rect; give the calibration as a file'):
        read_frames(path)
    file = tmp_path / 'cam.yaml'
    file.write_text(
        'image_width: 8\nimage_height: 6\ncamera_matrix: {rows: 3, cols: 3, data: [400, 0, 4, 0, 400, 3, 0, 0, 1]}\n'
        'distortion_model: plumb_bob\ndistortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n'
    )
    assert [found.frame0.camera.matrix[0, 0] for found in read_frames(path, camera_files=[file])] == [400, 400]


def test_cameras_that_are_not_a_stereo_pair_must_be_named(tmp_path):
    path = write(tmp_path / 'bag', camera('/front', (100,)) + camera('/rear', (101,)))
    with pytest.raises(InputError, match='has 2 cameras: /front/image_rect, /rear/image_rect; name the image topic'):
        read_frames(path)
    assert [found.frame0.stamp_ns for found in read_frames(path, ['/rear/image_rect'])] == [101 * MS]
    with pytest.raises(InputError, match='has no image topic /side; it has /front/image_rect, /rear/image_rect'):
        read_frames(path, ['/side'])
