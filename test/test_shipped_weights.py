"""The shipped weights: entries of the table, and matches of real structure."""

import dataclasses
import sys

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from loftr_ros.camera import Camera  # noqa: E402
from loftr_ros.config import Config  # noqa: E402
from loftr_ros.datasets import rendered_drive  # noqa: E402
from loftr_ros.datatypes import PoseFailure  # noqa: E402
from loftr_ros.errors import MissingDependencyError  # noqa: E402
from loftr_ros.evaluation.metrics import pose_error_deg, transfer_errors_px  # noqa: E402
from loftr_ros.matchers import create_matcher, match_images  # noqa: E402
from loftr_ros.networks import NETWORKS  # noqa: E402
from loftr_ros.pose import estimate_relative_pose  # noqa: E402
from loftr_ros.rendering import textures  # noqa: E402
from loftr_ros.settings import override  # noqa: E402
from loftr_ros.weights import CHECKPOINTS, find, load_state  # noqa: E402
from loftr_ros.weights.locate import SHIPPED, sha256_of  # noqa: E402
from loftr_ros.weights.metadata import read_metadata  # noqa: E402

FILES = sorted(SHIPPED.glob('*.safetensors'))


@pytest.fixture(scope='module', params=[path.stem for path in FILES])
def config(request):
    checkpoint = CHECKPOINTS[request.param]
    entry = NETWORKS[checkpoint.matcher]
    name = entry.matcher or checkpoint.matcher
    settings = {'matcher.name': name, f'matcher.{entry.setting}': checkpoint.name}
    return override(Config(), settings).matcher


@pytest.fixture(scope='module')
def matcher(config):
    return create_matcher(config)


def test_the_default_matcher_is_the_first_shipped_entry():
    assert Config().matcher.name == 'default'
    checkpoint, path = find('', 'efficient_loftr')
    assert path.parent == SHIPPED
    matcher = create_matcher(Config().matcher)
    assert matcher.name == f'efficient_loftr:{checkpoint.name}'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_shipped_file_is_what_its_entry_says(path):
    entry = CHECKPOINTS[path.stem]
    assert (entry.file, entry.sha256, entry.licence) == (path.name, sha256_of(path), 'Apache-2.0')
    assert not entry.non_commercial
    own = read_metadata(path)
    assert (own.name, own.matcher) == (entry.name, entry.matcher)
    assert {**entry.network, **own.network} == entry.network
    assert path.stat().st_size <= 8e6
    assert sum(tensor.numel() for tensor in load_state(path).values()) <= 2e6


def test_without_the_safetensors_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(MissingDependencyError, match='package safetensors: pip install'):
        load_state(FILES[0])


def test_turned_and_scaled_planes_are_matched_within_pixels(matcher):
    turn = cv2.getRotationMatrix2D((310, 230), 12, 1.1)
    errors = []
    for seed in (3, 4, 5):
        picture = cv2.cvtColor(textures.poster(np.random.default_rng(seed), 640, 480), cv2.COLOR_BGR2GRAY)
        height, width = picture.shape
        matches = match_images(matcher, picture, cv2.warpAffine(picture, turn, (width, height)))
        assert len(matches) > 300
        errors.append(transfer_errors_px(np.vstack([turn, [0, 0, 1]]), matches.keypoints0, matches.keypoints1))
    errors = np.concatenate(errors)
    # The shipped SuperGlue falls short of the others (docs/models.md).
    share, median_px = (0.75, 2.0) if matcher.name == 'superglue:superglue_small' else (0.8, 1.5)
    assert np.mean(errors < 3) > share
    assert np.median(errors) < median_px


def test_unrelated_images_give_few_matches_and_no_pose(matcher):
    camera = Camera.from_focal(300, 320, 240)
    for pair in range(3):
        noise = [np.random.default_rng(2 * pair + i).integers(0, 255, (240, 320), dtype=np.uint8) for i in (0, 1)]
        matches = match_images(matcher, *noise)
        # Of 1200 cells, 76800 pixels; the shipped SuperGlue falls short of the others here too (docs/models.md).
        assert len(matches) < (150 if matcher.name == 'superglue:superglue_small' else 50)
        assert isinstance(estimate_relative_pose(matches, camera, camera, Config().pose), PoseFailure)


def test_a_rendered_drive_gives_its_motion(matcher):
    drive = rendered_drive(seed=5, num_frames=4)
    frame0, frame1 = (drive.frames(index)[0] for index in (0, 3))
    truth = np.linalg.inv(drive.world_from_cam0[3]) @ drive.world_from_cam0[0]
    pose = estimate_relative_pose(
        match_images(matcher, frame0.image, frame1.image), frame0.camera, frame1.camera, Config().pose
    )
    assert pose_error_deg(pose.cam1_from_cam0, truth) < 2


def test_a_higher_threshold_keeps_the_surer_matches(matcher, config):
    image = textures.poster(np.random.default_rng(1), 320, 240)
    strict = create_matcher(dataclasses.replace(config, match_threshold=0.6))
    few, many = (match_images(m, image, image) for m in (strict, matcher))
    assert 0 < len(few) <= len(many)
    assert few.confidence.min() >= 0.6
