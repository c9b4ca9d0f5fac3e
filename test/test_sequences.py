"""Saved and rendered sequences: what is saved is opened again, and rendered views fit depth and poses."""

import numpy as np
import pytest
from dataset_folders import write_images
from warping import errors_of_warp_and_of_identity, warp

from loftr_ros.camera import Camera
from loftr_ros.datasets import Sequence, open_sequence, rendered_drive, save_sequence
from loftr_ros.errors import InputError
from loftr_ros.geometry import rotation_from_vector, transform

CAMERA = Camera([[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]], 32, 24)


def small_sequence(count=3, stereo=True):
    """Noise images, poses with every digit used, uneven stamps with nanoseconds."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, count, 24, 32, 3), dtype=np.uint8)
    poses = [transform(rotation_from_vector(rng.normal(size=3)), rng.normal(size=3)) for _ in range(count)]
    return Sequence(
        name='small',
        rate_hz=20.0,
        stamps_ns=1_700_000_000_123_456_789 + np.cumsum(rng.integers(45_000_000, 55_000_000, count)),
        load=tuple((lambda i, side=side: images[side][i]) for side in range(2 if stereo else 1)),
        camera0=CAMERA,
        camera1=CAMERA if stereo else None,
        world_from_cam0=np.stack(poses),
        cam1_from_cam0=transform(np.eye(3), (-0.123456789, 0, 0)) if stereo else None,
    )


def test_a_sequence_without_depth_or_with_too_few_frames_says_so():
    with pytest.raises(InputError, match='no depth'):
        small_sequence().depth0(0)
    with pytest.raises(IndexError):
        small_sequence().frames(3)


@pytest.mark.parametrize('stereo', [True, False])
def test_what_is_saved_is_opened_again(tmp_path, stereo):
    sequence, done = small_sequence(stereo=stereo), []
    save_sequence(sequence, tmp_path / 'drive', progress=done.append)
    again = open_sequence(tmp_path / 'drive')
    assert done == [1, 2, 3]
    assert again.name == 'drive' and len(again) == 3 and again.is_stereo == stereo
    assert (again.stamps_ns == sequence.stamps_ns).all(), 'nanoseconds survive'
    assert np.allclose(again.world_from_cam0, sequence.world_from_cam0, atol=1e-10)  # written with 12 decimals
    assert again.rate_hz == pytest.approx(1e9 / np.median(np.diff(sequence.stamps_ns)))
    for index in range(3):
        for have, want in zip(again.frames(index), sequence.frames(index), strict=True):
            assert (have.image == want.image).all()
            assert (have.stamp_ns, have.frame_id) == (want.stamp_ns, want.frame_id)
            assert (have.camera.matrix == CAMERA.matrix).all() and not have.camera.is_distorted
    if stereo:
        assert np.allclose(again.cam1_from_cam0, sequence.cam1_from_cam0, atol=1e-12)


def test_a_shorter_sequence_saved_over_a_longer_one_leaves_no_images_of_it(tmp_path):
    save_sequence(small_sequence(count=5), tmp_path)
    save_sequence(small_sequence(count=2, stereo=False), tmp_path)
    again = open_sequence(tmp_path)
    assert len(again) == 2 and not again.is_stereo
    assert sorted(file.name for file in tmp_path.iterdir()) == ['left', 'left.yaml', 'poses.txt', 'stamps.txt']


def test_a_sequence_is_not_saved_over_images_of_another_origin(tmp_path):
    write_images(tmp_path / 'left', ['holiday.png'])
    with pytest.raises(InputError, match=r'contains holiday\.png.*choose another folder'):
        save_sequence(small_sequence(), tmp_path)
    assert (tmp_path / 'left' / 'holiday.png').is_file()


def test_the_right_yaml_holds_the_baseline_as_ros_does(tmp_path):
    import yaml

    save_sequence(small_sequence(), tmp_path)
    document = yaml.safe_load((tmp_path / 'right.yaml').read_text())
    assert document['projection_matrix']['data'][3] == pytest.approx(-50 * 0.123456789)  # Tx = -fx * baseline
    assert document['image_width'] == 32 and document['camera_matrix']['cols'] == 3


def test_only_a_rectified_pair_can_be_saved(tmp_path):
    turned = small_sequence()
    object.__setattr__(turned, 'cam1_from_cam0', transform(rotation_from_vector((0, 0.1, 0)), (-0.1, 0, 0)))
    with pytest.raises(InputError, match='not rectified'):
        save_sequence(turned, tmp_path)


def test_a_rendered_drive_opens_at_once_and_is_consistent():
    sequence = rendered_drive(seed=2, num_frames=5, baseline_m=0.2, size=(160, 120))
    assert (len(sequence), sequence.is_stereo, sequence.rate_hz, sequence.has_depth) == (5, True, 10.0, True)
    assert (np.diff(sequence.stamps_ns) == 100_000_000).all()
    left, right = sequence.frames(0)
    assert left.image.shape == (120, 160, 3) and left.stamp_ns == right.stamp_ns
    assert left.frame_id != right.frame_id
    # The right view agrees with the left one by depth and the stated extrinsics.
    depth = sequence.depth0(0)
    warped, valid = warp(right.image, left.camera, depth, sequence.cam1_from_cam0)
    aligned = np.abs(warped.astype(int) - left.image)[valid].mean()
    assert aligned < 0.5 * np.abs(right.image.astype(int) - left.image)[valid].mean()
    after, before = errors_of_warp_and_of_identity(sequence, 0, 2)
    assert after < 0.6 * before
    assert (sequence.frames(0)[0].image == left.image).all(), 'noise is drawn from the seed'
