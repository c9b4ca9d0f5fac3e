"""Assignment of calibration files to the cameras of a bag."""

import pytest

pytest.importorskip('rclpy')

from loftr_ros.datasets.bag_cameras import assign, cameras
from loftr_ros.errors import InputError

PAIR = ('/left/image_raw', '/right/image_raw')


def test_depth_topics_and_copies_of_images_are_not_cameras():
    images = {
        '/left/image_raw': False,
        '/left/image_raw/compressed': True,
        '/left/image_rect': False,
        '/aligned_depth_to_color/image_raw': False,
        '/right/image_raw/compressed': True,
        '/right/image_raw/zstd': True,
    }
    assert cameras(images) == {
        '/left/image_raw': '/left/camera_info',
        '/right/image_raw/compressed': '/right/camera_info',
    }


def test_camera_info_is_in_the_namespace_of_the_image_without_its_transport():
    images = {'/image/compressed': True, '/a/b/picture': True}
    assert cameras(images) == {'/image/compressed': '/camera_info', '/a/b/picture': '/a/b/camera_info'}


@pytest.mark.parametrize('order', [1, -1])
def test_calibration_files_are_assigned_by_their_names_in_any_order(order, tmp_path):
    files = [tmp_path / 'my_left.yaml', tmp_path / 'my_right.yaml']
    assert assign(PAIR, files[::order]) == dict(zip(PAIR, files, strict=True))


def test_calibration_files_of_one_name_are_assigned_by_their_folders(tmp_path):
    files = [tmp_path / 'cam1' / 'sensor.yaml', tmp_path / 'cam0' / 'sensor.yaml']
    assert assign(['/cam0/image_raw', '/cam1/image_raw'], files) == {
        '/cam0/image_raw': files[1],
        '/cam1/image_raw': files[0],
    }


def test_the_one_camera_takes_a_file_of_any_name(tmp_path):
    assert assign(['/image'], [tmp_path / 'ost.yaml']) == {'/image': tmp_path / 'ost.yaml'}


def test_one_topic_can_be_named_and_the_others_are_assigned():
    found = assign(PAIR, ['/right/image_raw=a.yaml', 'b.yaml'])
    assert {topic: str(path) for topic, path in found.items()} == {PAIR[1]: 'a.yaml', PAIR[0]: 'b.yaml'}
    assert list(assign(PAIR, ['right/image_raw=a.yaml'])) == [PAIR[1]]


@pytest.mark.parametrize(
    ('files', 'words'),
    [
        (['left.yaml'], '1 files for 2 cameras'),
        (['left.yaml', 'right.yaml', 'left.yaml'], '3 files for 2 cameras'),
        (['a.yaml', 'b.yaml'], 'does not tell'),
        (['left.yaml', 'left2_left.yaml'], 'does not tell'),
        (['left_right.yaml', 'left.yaml'], 'does not tell'),
        (['/depth/image_raw=left.yaml'], 'is no camera without camera_info'),
        (['/left/image_raw=a.yaml', '/left/image_raw=b.yaml'], 'is named twice'),
    ],
)
def test_a_wrong_number_of_files_and_ambiguous_names_are_refused(files, words):
    with pytest.raises(InputError, match=words):
        assign(PAIR, files)


def test_a_file_for_a_bag_with_all_camera_infos_is_refused():
    with pytest.raises(InputError, match='every camera has its camera_info'):
        assign([], ['left.yaml'])
