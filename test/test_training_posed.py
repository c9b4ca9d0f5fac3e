"""Folders with depth and poses: two views of a plane, written in every layout, whose correspondence is a shift."""

import dataclasses
import json
import pickle
import sys
import types

import cv2
import numpy as np
import pytest

from loftr_ros.camera import Camera
from loftr_ros.datasets.posed import PosedSet, View
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.geometry import quaternion_from_matrix
from loftr_ros.rendering import Face, Scene, Texture, render
from loftr_ros.training.data import PairDataset
from loftr_ros.training.homography import homography_points
from loftr_ros.training.posed import crop_pair, open_posed, posed_pair
from loftr_ros.training.settings import DataConfig, PosedConfig

DISTANCE_M, STEP_M = 2.0, 0.2
SIZE = (64, 96)


def camera(layout, scale=1):
    if layout == 'tartanair':  # 90 degrees, always
        return Camera([[64, 0, 64], [0, 64, 64], [0, 0, 1]], 128, 96)
    centre = [(scale * 128 - 1) / 2, (scale * 96 - 1) / 2]
    return Camera([[100 * scale, 0, centre[0]], [0, 100 * scale, centre[1]], [0, 0, 1]], 128 * scale, 96 * scale)


def world_from_cam(index):
    pose = np.eye(4)
    pose[0, 3] = index * STEP_M
    return pose


def scene():
    noise = np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 12)
    image = np.clip(128 + 45 * noise / noise.std(), 0, 255).astype(np.uint8)
    return Scene((Face((-6, -6, DISTANCE_M), (12, 0, 0), (0, 12, 0), Texture(image)),))


def views(layout, count, scale=1):
    return [render(scene(), camera(layout, scale), world_from_cam(index), supersample=1) for index in range(count)]


def write(folder, name, image):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(folder / name), image)


def write_tum(folder, count):
    truth = {f'{index:03d}': {'transformation': world_from_cam(index).tolist()} for index in range(count)}
    for index, (image, depth) in enumerate(views('tum', count)):
        write(folder, f'rgb/{index:03d}.png', image)
        write(folder, f'depth/{index:03d}.png', np.rint(5000 * depth).astype(np.uint16))
    (folder / 'ground_truth.json').write_text(json.dumps(truth))
    matrix = camera('tum').matrix.tolist()
    (folder / 'camera_intrinsics.yaml').write_text(f'intrinsics: {matrix}\n')


def write_tartanair(folder, count):
    ros_from_ned = np.diag([1.0, -1, -1, 1])
    ned_from_optical = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    rows = []
    for index, (image, depth) in enumerate(views('tartanair', count)):
        write(folder, f'image_lcam_front/{index:06d}_lcam_front.png', image)
        write(folder, f'depth_lcam_front/{index:06d}_lcam_front_depth.png', depth[..., None].view(np.uint8))
        pose = ros_from_ned @ world_from_cam(index) @ ned_from_optical.T
        rows.append([*pose[:3, 3], *quaternion_from_matrix(pose[:3, :3])])
    np.savetxt(folder / 'pose_lcam_front.txt', rows)


def write_scannet(folder, count):
    """Colour twice as large as depth, and a last frame whose pose was lost."""
    for kind, scale in (('color', 2), ('depth', 1)):
        matrix = np.eye(4)
        matrix[:3, :3] = camera('scannet', scale).matrix
        (folder / 'intrinsic').mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / 'intrinsic' / f'intrinsic_{kind}.txt', matrix)
    (folder / 'pose').mkdir()
    for index in range(count + 1):
        view = min(index, count - 1)
        write(folder, f'color/{index}.jpg', views('scannet', count, 2)[view][0])
        write(folder, f'depth/{index}.png', np.rint(1000 * views('scannet', count)[view][1]).astype(np.uint16))
        pose = world_from_cam(index) if index < count else np.full((4, 4), -np.inf)
        np.savetxt(folder / 'pose' / f'{index}.txt', pose)


def write_megadepth(folder, count):
    for index, (image, depth) in enumerate(views('megadepth', count)):
        write(folder, f'images/{index}.jpg', image)
        (folder / f'{index}.h5').write_bytes(pickle.dumps({'depth': depth}))
    infos = [((i, i + 1), 0.9, None) for i in range(count - 1)]
    (folder / 'scene_info').mkdir()
    np.savez(
        folder / 'scene_info' / '0000.npz',
        image_paths=np.array([f'images/{i}.jpg' for i in range(count)], object),
        depth_paths=np.array([f'{i}.h5' for i in range(count)], object),
        intrinsics=np.array([camera('megadepth').matrix] * count),
        poses=np.array([np.linalg.inv(world_from_cam(i)) for i in range(count)]),
        pair_infos=np.array([*infos, None], object)[:-1],
    )


@pytest.fixture
def h5py(monkeypatch):
    """Stands in for h5py, which is optional: its File reads what write_megadepth wrote."""

    class File:
        def __init__(self, path, mode):
            assert mode == 'r'
            self.path = path

        def __enter__(self):
            return pickle.loads(self.path.read_bytes())

        def __exit__(self, *_):
            pass

    monkeypatch.setitem(sys.modules, 'h5py', types.SimpleNamespace(File=File))


WRITERS = {'tum': write_tum, 'tartanair': write_tartanair, 'scannet': write_scannet, 'megadepth': write_megadepth}


@pytest.fixture(params=WRITERS)
def layout(request, tmp_path, h5py):
    WRITERS[request.param](tmp_path, 3)
    return request.param, tmp_path


def image1_from_0(layout):
    """Return the homography (3, 3) [px] of the plane between two views one step apart: a shift to the left."""
    focal_px = camera(layout, 2 if layout == 'scannet' else 1).matrix[0, 0]
    return np.array([[1, 0, -focal_px * STEP_M / DISTANCE_M], [0, 1, 0], [0, 0, 1]])


def test_points_of_two_crops_are_those_of_the_plane(layout):
    name, folder = layout
    (views,) = open_posed(str(folder))
    assert views.count == 3
    crop0 = np.array([[0.75, 0, -3.0], [0, 0.75, 2.0], [0, 0, 1]])
    crop1 = np.array([[0.8, 0, 1.5], [0, 0.8, -4.0], [0, 0, 1]])
    pair = crop_pair(views.view(0), views.view(1), crop0, crop1, SIZE, 0.05)
    crop1_from_0 = crop1 @ image1_from_0(name) @ np.linalg.inv(crop0)
    for points, homography in ((pair.points01, crop1_from_0), (pair.points10, np.linalg.inv(crop1_from_0))):
        truth = homography_points(homography, SIZE, SIZE)
        seen = np.isfinite(points[..., 0])
        # Depth in steps of a millimetre (ScanNet) moves a point by up to 1e-3 / 2 * 20 px.
        assert np.abs(points - truth)[seen].max() < 0.012
        # Nothing is hidden; only the rows and columns that the crops have beyond the images are lost.
        assert seen.sum() > 0.8 * np.isfinite(truth[..., 0]).sum() > 1000


def test_a_random_pair_shows_the_same_at_corresponding_places(layout):
    (views,) = open_posed(str(layout[1]))
    for seed in range(4):
        pair = posed_pair(views, SIZE, np.random.default_rng(seed), PosedConfig())
        seen = np.isfinite(pair.points01[..., 0])
        assert seen.mean() > 0.2
        x, y = np.nan_to_num(pair.points01).transpose(2, 0, 1)
        there = cv2.remap(pair.image1.astype(np.float32), x, y, cv2.INTER_LINEAR)
        assert np.median(np.abs(there - pair.image0)[seen]) < 2.5  # JPEG, and two resamplings
        assert np.median(np.abs(pair.image1.astype(float) - pair.image0)[seen]) > 4, 'the test saw no motion'


def test_a_nearer_surface_hides_the_plane():
    image, depth = views('tum', 1)[0]
    grey, depth1 = image[..., 0], depth.copy()
    depth1[:, 64:] = 1.0
    matrix = camera('tum').matrix
    view0, view1 = (View(grey, matrix, d, matrix, np.eye(4)) for d in (depth, depth1))
    pair = crop_pair(view0, view1, np.eye(3), np.eye(3), (96, 128), 0.05)
    assert np.isfinite(pair.points01[:, :63]).all() and np.isnan(pair.points01[:, 64:]).all()


def test_the_last_tenth_of_the_views_and_pairs_within_it_are_held_back():
    views = PosedSet('a', 20, lambda index: index)
    training, validation = (views.part(held_back, 10) for held_back in (False, True))
    assert [part.view(0) for part in (training, validation)] == [0, 18]
    assert (training.count, validation.count) == (18, 2)
    listed = dataclasses.replace(views, pairs=np.array([[0, 17], [17, 18], [19, 18]]))
    assert listed.part(False, 10).pairs.tolist() == [[0, 17]]
    assert listed.part(True, 10).pairs.tolist() == [[19, 18]]
    assert PosedSet('b', 9, views.view).part(True, 10) is None


def test_posed_images_are_a_kind_of_training_data(tmp_path):
    write_tum(tmp_path, 3)
    data = DataConfig(
        posed=str(tmp_path), posed_weight=1.0, photograph_weight=0, panorama_weight=0, scene_weight=0,
        width=96, height=64, light_change=0, occluders=0,
    )  # fmt: skip
    first, again = (pickle.loads(pickle.dumps(PairDataset(data, 3, 4)))[2] for _ in range(2))
    assert np.array_equal(first.points01, again.points01, equal_nan=True) and first.image0.shape == SIZE
    assert np.isfinite(first.points01).any()
    with pytest.raises(ConfigError, match=r'data.posed_weight is 1 but data.posed is empty'):
        PairDataset(dataclasses.replace(data, posed=''), 0, 1)


def test_missing_depth_poses_or_folders_are_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match='which is not a folder'):
        open_posed(str(tmp_path / 'nowhere'))
    write(tmp_path / 'plain', '0.png', np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match='has no depth and no poses and no camera'):
        open_posed(str(tmp_path / 'plain'))
    write_megadepth(tmp_path, 2)
    monkeypatch.setitem(sys.modules, 'h5py', None)  # as if it were not installed
    with pytest.raises(ConfigError, match='pip install h5py'):
        open_posed(str(tmp_path))
