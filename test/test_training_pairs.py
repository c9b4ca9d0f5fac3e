"""Pairs of photographs, panoramas and scenes show the same at corresponding pixels."""

import dataclasses

import cv2
import numpy as np
import pytest
from smooth_images import smooth_panorama, smooth_photograph

from loftr_ros.training.augmentation import change_light, paste_occluders
from loftr_ros.training.batch import Pair
from loftr_ros.training.homography import homography_points, panorama_pair, photograph_pair
from loftr_ros.training.scenes import boxes, relief, scene_pair
from loftr_ros.training.settings import HomographyConfig, PanoramaConfig, SceneConfig

SIZE = (96, 128)


def at(values, points):
    """Return `values` (H, W[, C]) at points (H, W, 2), bilinear; NaN where a point or one of its neighbours is."""
    x, y = np.nan_to_num(points, nan=-9).astype(np.float32).transpose(2, 0, 1)
    return cv2.remap(
        values.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(np.nan,) * 4
    )


def photometric_error(pair):
    """Return |image1 at points01 - image0| [grey values], NaN where there is no place."""
    return np.abs(at(pair.image1, pair.points01) - pair.image0)


def returning_error_px(pair):
    """Return |points10(points01(x)) - x| where both ways exist."""
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in pair.image0.shape[::-1])), axis=-1)
    error = np.linalg.norm(at(pair.points10, pair.points01) - grid, axis=-1)
    return error[np.isfinite(error)]


def is_seen(pair):
    return np.isfinite(pair.points01).all(axis=-1)


@pytest.mark.parametrize('seed', range(6))
def test_a_photograph_shows_the_same_at_corresponding_places(seed):
    pair = photograph_pair(smooth_photograph(), SIZE, np.random.default_rng(seed), HomographyConfig())
    assert is_seen(pair).mean() > 0.1
    # Two roundings to whole grey values and two bilinear samples; in views of a third of its size 1 px is up to 6.
    assert np.nanquantile(photometric_error(pair), 0.99) < 3
    assert returning_error_px(pair).max() < 0.05


def test_pixels_outside_the_photograph_have_no_place():
    config = dataclasses.replace(HomographyConfig(), shift=0.7, strong=1.0)
    lost = 0
    for seed in range(20):
        bright = np.full((100, 130), 200, np.uint8)  # hardly larger than the views: borders come often
        pair = photograph_pair(bright, SIZE, np.random.default_rng(seed), config)
        for image, points in ((pair.image0, pair.points01), (pair.image1, pair.points10)):
            assert (image[np.isfinite(points).all(axis=-1)] >= 199).all()
            lost += np.count_nonzero(image == 0)
    assert lost > 1000, 'the test saw no border'


def test_points_behind_the_camera_of_a_homography_have_no_place():
    homography = np.array([[1, 0, 0], [0, 1, 0], [-1 / 20, 0, 1.0]])  # the depth is 0 in column 20
    points = homography_points(homography, (8, 64), (8, 64))
    assert np.isnan(points[:, 20:]).all() and np.isfinite(points[0, 0]).all()


@pytest.mark.parametrize('seed', range(4))
def test_a_panorama_shows_the_same_at_corresponding_places(seed):
    config = dataclasses.replace(PanoramaConfig(), rotation_deg=12.0)
    pair = panorama_pair(smooth_panorama(), SIZE, np.random.default_rng(seed), config)
    assert is_seen(pair).mean() > 0.2
    assert np.nanquantile(photometric_error(pair), 0.99) < 3
    assert returning_error_px(pair).max() < 0.05


def photographs():
    return [cv2.cvtColor(smooth_photograph(seed=seed), cv2.COLOR_GRAY2BGR) for seed in range(6)]


@pytest.fixture(scope='module')
def box_scene():
    return boxes(0, photographs())


@pytest.fixture(scope='module')
def relief_scene():
    return relief(0, photographs())


@pytest.mark.parametrize('kind', ['box_scene', 'relief_scene'])
def test_a_photograph_covers_the_ground_once_and_is_not_drawn_out_beyond_its_border(request, kind):
    scene, _where = request.getfixturevalue(kind)
    for face in scene.faces:
        ends = np.array([face.offset, np.add(face.offset, face.tiles)])
        assert face.texture.tileable or (ends.min() > -1e-9 and ends.max() < 1 + 1e-9)


@pytest.mark.parametrize('kind', ['box_scene', 'relief_scene'])
@pytest.mark.parametrize('wide', [0.0, 1.0])
def test_a_rendered_scene_shows_the_same_at_corresponding_places(request, kind, wide):
    scene, where = request.getfixturevalue(kind)
    config = dataclasses.replace(SceneConfig(), wide=wide)
    pair = scene_pair(scene, SIZE, np.random.default_rng(3), config, where)
    assert is_seen(pair).mean() >= config.min_overlap
    # Textures that are seen from nearer in one view are sharper there, and outlines are aliased.
    assert np.nanquantile(photometric_error(pair), 0.9) < 8
    assert np.quantile(returning_error_px(pair), 0.99) < 0.05


def test_wide_baselines_have_parallax_and_occlusion(box_scene):
    scene, where = box_scene
    config = dataclasses.replace(SceneConfig(), wide=1.0)
    residual = []
    for seed in range(8):
        pair = scene_pair(scene, SIZE, np.random.default_rng(seed), config, where)
        seen = is_seen(pair)
        grid = np.argwhere(seen)[:, ::-1].astype(np.float32)
        target = pair.points01[seen]
        homography, _ = cv2.findHomography(grid, target, cv2.RANSAC, 2.0)
        warped = cv2.perspectiveTransform(grid[None], homography)[0]
        residual.append(np.mean(np.linalg.norm(warped - target, axis=1) > 4))
    assert np.mean(residual) > 0.1, residual  # no homography explains these places


def test_occluders_hide_what_they_cover_in_both_maps():
    grid = np.stack(np.meshgrid(np.arange(128), np.arange(96)), axis=-1).astype(np.float32)
    plain = Pair(np.full(SIZE, 7, np.uint8), np.full(SIZE, 7, np.uint8), grid, grid)
    rng = np.random.default_rng(0)
    hidden = 0
    for _ in range(10):
        pair = paste_occluders(plain, rng, most=4)
        changed = (pair.image0 != 7) | (pair.image1 != 7)
        assert np.isnan(pair.points01[changed]).all() and np.isnan(pair.points10[changed]).all()
        hidden += np.count_nonzero(changed)
        same = ~np.isnan(pair.points01[..., 0])
        assert np.array_equal(pair.points01[same], grid[same])
    assert hidden > 500


def test_a_change_of_light_moves_nothing_and_none_changes_nothing():
    image = smooth_photograph(96, 128)
    assert change_light(image, np.random.default_rng(0), 0.0) is image
    shifts = []
    for seed in range(20):
        changed = change_light(image, np.random.default_rng(seed))
        assert changed.shape == image.shape and changed.dtype == np.uint8
        shifts.append(cv2.phaseCorrelate(image.astype(np.float64), changed.astype(np.float64))[0])
    # Phase correlation itself is good to some hundredths of a pixel; half-pixel slips of a kernel would give 0.5.
    assert np.abs(np.median(shifts, axis=0)).max() < 0.1
