"""The data set of training pairs: its images, its kinds of pairs, and repeatability."""

import dataclasses

import cv2
import numpy as np
import pytest
from smooth_images import smooth_panorama, smooth_photograph

from loftr_ros.errors import ConfigError, InputError
from loftr_ros.training.data import PairDataset, find_images, is_held_back
from loftr_ros.training.settings import DataConfig, SceneConfig


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
        for name in ('image0', 'image1', 'points01', 'points10'):
            assert np.array_equal(getattr(first[index], name), getattr(again, name), equal_nan=True)
    other = PairDataset(config, seed=6, length=1)[0]
    assert not np.array_equal(first[0].image0, other.image0)


def test_training_and_validation_share_no_image(config):
    training, validation = PairDataset(config, 0, 1), PairDataset(config, 0, 1, held_back=True)
    assert training.photographs and validation.photographs
    assert not set(training.photographs) & set(validation.photographs)
    assert len(training.photographs) + len(validation.photographs) == 30, 'panoramas are no photographs'
    assert all(is_held_back(path) for path in validation.photographs + validation.panoramas)


def test_missing_images_and_odd_sizes_are_named(config, tmp_path):
    with pytest.raises(InputError, match='contains no image'):
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
    with pytest.raises(ConfigError, match='all weights of data are 0'):
        PairDataset(few_photographs(tmp_path, 1, photograph_weight=0.0), 0, 1)
