"""Registration of depth images that another camera took, against the true depth of the image."""

import numpy as np
import pytest

from loftr_ros.camera import Camera
from loftr_ros.datatypes import Frame, FrameSet
from loftr_ros.depth import depth_of_image, register_depth
from loftr_ros.errors import InputError
from loftr_ros.geometry import rotation_from_vector, transform
from loftr_ros.rendering.render import render
from loftr_ros.rendering.rooms import furnished_room, room_trajectory

CAMERA = Camera([[260, 0, 161], [0, 262, 118], [0, 0, 1]], 320, 240)
CAM_FROM_DEPTH = transform(rotation_from_vector((0.01, -0.02, 0.015)), (0.03, -0.01, 0.005))


@pytest.fixture(scope='module')
def room():
    return furnished_room(3, light=False), room_trajectory(30, 3)


@pytest.mark.parametrize(('focal', 'size'), [(120, (160, 120)), (330, (480, 360))], ids=['coarser', 'finer'])
def test_registered_depth_is_the_depth_that_the_camera_would_see(room, focal, size):
    scene, poses = room
    depth_camera = Camera([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]], *size)
    for world_from_cam in poses[::15]:
        _, true = render(scene, CAMERA, world_from_cam)
        _, seen = render(scene, depth_camera, world_from_cam @ CAM_FROM_DEPTH)
        found = register_depth(seen, depth_camera, CAMERA, CAM_FROM_DEPTH)
        assert found.shape == true.shape and found.dtype == np.float32
        known = np.isfinite(found)
        assert known.mean() > 0.93  # the rest is hidden from the depth camera, or outside of its image
        error = np.abs(found / true - 1)[known]
        assert np.median(error) < 0.002
        assert np.mean(error < 0.02) > 0.96  # the rest are edges, which a pixel of the depth camera covers partly


def test_a_near_surface_hides_the_one_behind_it():
    depth = np.full((40, 40), 4.0)
    depth[:, 10:20] = 1.0
    camera = Camera.from_focal(40, 40, 40)
    found = register_depth(depth, camera, camera, transform(np.eye(3), (0.25, 0, 0)))
    # The near surface moves by 40 * 0.25 / 1 = 10 px, the far one by 2.5 px.
    assert (found[:, 20:30] == 1.0).all() and (found[:, 30:] == 4.0).all()
    assert np.isnan(found[:, 13:20]).any()  # what the near surface hid from the depth camera


def test_unknown_depth_stays_unknown():
    camera = Camera.from_focal(40, 8, 6)
    depth = np.array([0.0, np.nan, np.inf, -1.0, 2.0, 2.0, 2.0, 2.0]) * np.ones((6, 1))
    found = register_depth(depth, camera, camera, np.eye(4))
    np.testing.assert_array_equal(found, np.where(np.isfinite(depth) & (depth > 0), depth, np.nan))
    behind = transform(np.eye(3), (0, 0, -3.0))
    assert np.isnan(register_depth(depth, camera, camera, behind)).all()
    assert np.isnan(register_depth(np.zeros((6, 8)), camera, camera, np.eye(4))).all()


def test_frames_say_of_which_camera_their_depth_is():
    frame = Frame(np.zeros((6, 8), np.uint8), Camera.from_focal(40, 8, 6))
    small = Camera.from_focal(20, 4, 3)
    depth = np.full((3, 4), 2.0, np.float32)
    frames = FrameSet(frame, depth_m=depth, depth_camera=small, cam0_from_depth=np.eye(4))
    np.testing.assert_allclose(depth_of_image(frames), 2.0)
    with pytest.raises(InputError, match=r'\(3, 4\), needed is \(6, 8\).*or give its camera'):
        FrameSet(frame, depth_m=depth)
    with pytest.raises(InputError, match='both depth_camera and cam0_from_depth'):
        FrameSet(frame, depth_m=depth, depth_camera=small)
    with pytest.raises(InputError, match='calibration of this depth'):
        FrameSet(frame, depth_m=depth[:2], depth_camera=small, cam0_from_depth=np.eye(4))
    with pytest.raises(InputError, match='finite'):
        FrameSet(frame, depth_m=depth, depth_camera=small, cam0_from_depth=np.full((4, 4), np.nan))
