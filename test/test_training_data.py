"""Training pairs: what image 0 shows at a pixel, image 1 shows at its place."""

import dataclasses

import cv2
import numpy as np
import pytest

from loftr_ros.errors import ConfigError, InputError
from loftr_ros.training.augmentation import change_light, paste_occluders
from loftr_ros.training.batch import Pair
from loftr_ros.training.config import DataConfig, HomographyConfig, PanoramaConfig, SceneConfig
from loftr_ros.training.data import PairDataset, find_images, is_held_back
from loftr_ros.training.homography import homography_points, panorama_pair, photograph_pair
from loftr_ros.training.scenes import boxes, relief, scene_pair

SIZE = (96, 128)


def smooth_photograph(height=300, width=500, seed=0):
    """Return an image so smooth that bilinear samples of it are its values."""
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 16)
    return np.rint(np.clip(128 + 45 * noise / noise.std(), 0, 255)).astype(np.uint8)


def smooth_panorama():
    """Return an equirectangular image without a seam: a smooth function of the direction."""
    longitude = ((np.arange(1024) + 0.5) / 1024 - 0.5) * 2 * np.pi
    latitude = (((np.arange(512) + 0.5) / 512 - 0.5) * np.pi)[:, None]
    x, y, z = np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)
    value = np.sin(9 * x + 2) + np.sin(8 * y + 5 * z) + np.cos(11 * z - 6 * x)
    return np.rint(128 + 40 * value).astype(np.uint8)


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


def test_what_lies_beyond_the_photograph_has_no_place():
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


# --- The mix --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    (root / 'photographs').mkdir()
    (root / 'panoramas').mkdir()
    for number in range(30):
        cv2.imwrite(str(root / 'photographs' / f'photo{number}.png'), smooth_photograph(180, 240, seed=number))
    for number in range(4):
        cv2.imwrite(str(root / 'panoramas' / f'view{number}.png'), smooth_panorama())
    return root


@pytest.fixture(scope='module')
def config(folder):
    scene = dataclasses.replace(SceneConfig(), rooms=0.0)
    return DataConfig(
        photographs=str(folder), panoramas=f'{folder}/pano*', width=96, height=64, scene=scene, scene_weight=0.2
    )


def test_the_same_seed_and_index_give_the_same_pair_in_any_order(config):
    forwards, backwards = PairDataset(config, seed=5, length=8), PairDataset(config, seed=5, length=8)
    first = {index: forwards[index] for index in range(8)}
    for index in reversed(range(3, 8)):
        again = backwards[index]
        for field in dataclasses.fields(Pair):
            assert np.array_equal(getattr(first[index], field.name), getattr(again, field.name), equal_nan=True)
    other = PairDataset(config, seed=6, length=1)[0]
    assert not np.array_equal(first[0].image0, other.image0)


def test_training_and_validation_share_no_image(config):
    training, validation = PairDataset(config, 0, 1), PairDataset(config, 0, 1, held_back=True)
    assert training.photographs and validation.photographs
    assert not set(training.photographs) & set(validation.photographs)
    assert len(training.photographs) + len(validation.photographs) == 30, 'panoramas are no photographs'
    assert all(is_held_back(path) for path in validation.photographs + validation.panoramas)


def test_missing_images_and_odd_sizes_are_named(config, tmp_path):
    with pytest.raises(InputError, match='holds no image'):
        find_images(str(tmp_path))
    with pytest.raises(ConfigError, match=r'data.panorama_weight is 0.1 but data.panoramas is empty'):
        PairDataset(dataclasses.replace(config, panoramas=''), 0, 1)
    with pytest.raises(ConfigError, match='multiples of 32'):
        PairDataset(dataclasses.replace(config, width=100), 0, 1)


def few_photographs(folder, count, **settings):
    """Return settings with photographs IMG_2000.png and on alone, of which the first ten are not held back."""
    for i in range(count):
        cv2.imwrite(str(folder / f'IMG_{2000 + i}.png'), smooth_photograph(120, 160, seed=i))
    weights = {'photograph_weight': 1.0, 'panorama_weight': 0.0, 'scene_weight': 0.0}
    return DataConfig(photographs=str(folder), width=64, height=64, **{**weights, **settings})


def test_a_broken_photograph_is_left_out_and_others_take_its_place(tmp_path):
    config = few_photographs(tmp_path, 3)
    (tmp_path / 'IMG_2001.png').write_text('no image')
    dataset = PairDataset(config, 1, 20)
    pairs = [dataset[index] for index in range(20)]
    assert [path.name for path in dataset.left_out] == ['IMG_2001.png']
    assert 'IMG_2001.png is not an image' in dataset.left_out[tmp_path / 'IMG_2001.png']
    # Whatever was read before, a pair is the same.
    np.testing.assert_array_equal(PairDataset(config, 1, 20)[13].image0, pairs[13].image0)
    assert all(pair.image0.std() > 1 for pair in pairs)


def test_broken_photographs_leave_scenes_their_other_textures(tmp_path):
    config = few_photographs(
        tmp_path, 2, photograph_weight=0.0, scene_weight=1.0, scene=SceneConfig(rooms=0.0, relief=0.0)
    )
    (tmp_path / 'IMG_2000.png').write_text('no image')
    dataset = PairDataset(config, 0, 1)
    assert dataset[0].image0.shape == (64, 64) and [path.name for path in dataset.left_out] == ['IMG_2000.png']


def test_photographs_of_which_none_can_be_read_are_an_error_that_names_one(tmp_path):
    config = few_photographs(tmp_path, 2)
    for file in tmp_path.iterdir():
        file.write_bytes(b'')
    with pytest.raises(InputError, match=r'none of 2 images can be read: .*IMG_2000\.png .*it is empty'):
        PairDataset(config, 0, 1)[0]


def test_without_a_held_back_image_the_validation_is_empty_and_training_is_not(tmp_path):
    config = few_photographs(tmp_path, 10)
    assert not any(is_held_back(path) for path in tmp_path.iterdir())
    assert PairDataset(config, 0, 1, held_back=True).is_empty
    assert not PairDataset(config, 0, 1).is_empty


def test_photographs_that_are_all_held_back_are_named_as_such(tmp_path):
    name = next(f'{i}.png' for i in range(100) if is_held_back(tmp_path / f'{i}.png'))
    config = few_photographs(tmp_path, 1)
    (tmp_path / 'IMG_2000.png').rename(tmp_path / name)
    with pytest.raises(ConfigError, match=r'data\.photographs has only images that are held back for validation'):
        PairDataset(config, 0, 1)


def test_no_weight_at_all_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='no kind of data has a weight'):
        PairDataset(few_photographs(tmp_path, 1, photograph_weight=0.0), 0, 1)
