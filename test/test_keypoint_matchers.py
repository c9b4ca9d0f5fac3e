"""The matchers `superpoint_nn` and `superglue` on images and descriptors whose matches are known."""

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from tiny_networks import save_tiny  # noqa: E402

from loftr_ros.config import KeypointConfig, MatcherConfig, SuperGlueConfig  # noqa: E402
from loftr_ros.errors import ConfigError, InputError  # noqa: E402
from loftr_ros.matchers import create_matcher, match_images  # noqa: E402
from loftr_ros.matchers.superpoint import nearest_neighbours  # noqa: E402

SHIFT = (24, 16)  # px, whole cells: random weights give the same descriptors there


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    superpoint = save_tiny('superpoint', folder)
    return {'superpoint_nn': superpoint, 'superglue': save_tiny('superglue', folder, detector=superpoint)}


def make(name, weights, **settings):
    own = {'device': 'cpu', 'weights': weights[name], 'precision': 'fp32', 'subpixel': 'none', 'rotation_search': 'off'}
    return create_matcher(MatcherConfig(name=name, **{**own, **settings}))


def shifted_texture(height=192, width=256):
    rng = np.random.default_rng(0)
    image = np.zeros((height + SHIFT[1], width + SHIFT[0]), np.float32)
    for sigma in (1.5, 4, 10):
        noise = cv2.GaussianBlur(rng.standard_normal(image.shape).astype(np.float32), (0, 0), sigma)
        image += noise / noise.std()
    image = np.clip(128 + 40 * image, 0, 255).astype(np.uint8)
    return image[:height, :width], image[SHIFT[1] :, SHIFT[0] :]


both = pytest.mark.parametrize('name', ['superpoint_nn', 'superglue'])


@both
def test_a_shifted_image_is_matched_with_its_shift(name, weights):
    matches = match_images(make(name, weights, match_threshold=0.5), *shifted_texture())
    moved = matches.keypoints0 - matches.keypoints1
    assert len(matches) > 50
    assert np.median(moved, axis=0) == pytest.approx(SHIFT, abs=0.01)
    assert (np.abs(moved - SHIFT).max(axis=1) < 0.5).mean() > 0.8


@both
def test_the_number_in_image_1_is_that_of_the_same_point_where_it_is_image_0(name, weights):
    matcher = make(name, weights)
    features0, features1 = (matcher.extract(image) for image in shifted_texture())
    there, back = matcher.match(features0, features1), matcher.match(features1, features0)
    points = dict(zip(back.point_id0.tolist(), back.keypoints0.tolist(), strict=True))
    common = [i for i, number in enumerate(there.point_id1.tolist()) if number in points]
    assert len(common) > 0.8 * len(there) > 20
    for i in common:
        assert points[there.point_id1[i]] == there.keypoints1[i].tolist()


@both
def test_the_id_of_a_point_is_the_number_of_its_keypoint_whatever_image_1_is(name, weights):
    matcher = make(name, weights)
    image0, image1 = shifted_texture()
    features0 = matcher.extract(image0)
    places = {}
    for image in (image1, image0, image1[::-1]):
        matches = matcher.match(features0, matcher.extract(image))
        for number, point in zip(matches.point_id0.tolist(), matches.keypoints0.tolist(), strict=True):
            assert places.setdefault(number, point) == point
        assert len(set(matches.point_id0.tolist())) == len(matches)
    points = features0.features.points[0].numpy()
    assert all(places[number] == pytest.approx(points[number], abs=1e-4) for number in places)


@both
def test_settings_of_keypoints_are_used(name, weights):
    image, _ = shifted_texture()
    settings = KeypointConfig(max_keypoints=40, nms_radius_px=8, border_px=20, subpixel=False)
    points = make(name, weights, keypoints=settings).extract(image).features.points[0]
    assert len(points) == 40
    assert torch.equal(points, points.round())
    height, width = image.shape
    assert points.amin() >= 20 and (points.amax(0) < torch.tensor([width - 20, height - 20])).all()
    apart = (points[:, None] - points).abs().amax(-1) + 100 * torch.eye(len(points))
    assert apart.min() > 8
    few = make(name, weights, keypoints=KeypointConfig(threshold=1.0)).extract(image).features
    assert few.points.shape == (1, 0, 2)


@both
def test_more_matches_pass_a_lower_threshold(name, weights):
    pair = shifted_texture()
    counts = [len(match_images(make(name, weights, match_threshold=threshold), *pair)) for threshold in (0.0, 0.5, 1.0)]
    assert counts[0] >= counts[1] > counts[2]


def test_neighbours_must_be_mutual():
    def unit(degrees):
        angle = np.deg2rad(degrees)
        return torch.tensor(np.stack([np.cos(angle), np.sin(angle)], axis=1), dtype=torch.float32)

    first, second = unit(np.array([0.0, 10, 90])), unit(np.array([11.0, 170]))
    pairs = nearest_neighbours(first, second, KeypointConfig())
    # 0 degrees prefers 11 too, which prefers 10; 90 is nearer to 11 than to 170, which has nobody else.
    assert list(zip(pairs.index0.tolist(), pairs.index1.tolist(), strict=True)) == [(1, 0)]
    assert 0.2 < pairs.confidence[0] < 1


def test_ratio_and_cosine_tests_drop_doubtful_neighbours():
    first = torch.eye(3)[:2]
    second = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0.1], [1, 0, 0.11], [0.1, 0.5, 1]]), dim=1)

    def found(**settings):
        return nearest_neighbours(first, second, KeypointConfig(**settings)).index0.tolist()

    assert found() == [0, 1]
    assert found(max_ratio=0.8) == [1]  # the first one has two neighbours that are alike
    assert found(min_cosine=0.9) == [0]  # the second one has none that is near


@pytest.mark.parametrize(('count0', 'count1'), [(0, 3), (3, 0), (0, 0)])
def test_without_descriptors_there_are_no_neighbours(count0, count1):
    pairs = nearest_neighbours(torch.eye(4)[:count0], torch.eye(4)[:count1], KeypointConfig())
    assert not len(pairs.index0) and not len(pairs.confidence)


def test_superglue_uses_the_superpoint_that_a_setting_names(weights, tmp_path):
    other = save_tiny('superpoint', tmp_path, head=16)
    matcher = make('superglue', weights, superglue=SuperGlueConfig(detector=other))
    assert matcher.detector.network.convPa.out_channels == 16
    assert matcher.name == 'superglue:tiny_superglue'


def test_a_superpoint_with_other_descriptors_is_refused(weights, tmp_path):
    other = save_tiny('superpoint', tmp_path, descriptor=16)
    with pytest.raises(ConfigError, match=r'length 32.* have length 16; set matcher\.superglue\.detector'):
        make('superglue', weights, superglue=SuperGlueConfig(detector=other))


def test_sinkhorn_iterations_can_be_set(weights):
    assert make('superglue', weights).network.sinkhorn_iterations == 20
    other = make('superglue', weights, superglue=SuperGlueConfig(sinkhorn_iterations=50))
    assert other.network.sinkhorn_iterations == 50


def test_official_weights_need_their_licence_accepted(tmp_path):
    own = tmp_path / 'own.pth'
    own.write_bytes(b'not read before the licence is accepted')
    for name, weights in (('superglue', 'superglue_outdoor'), ('superpoint_nn', 'superpoint_v1')):
        with pytest.raises(ConfigError, match=r'forbids commercial use.*matcher\.accept_license'):
            create_matcher(MatcherConfig(name=name, weights=f'{weights}={own}'))


@both
def test_no_image_is_refused(name, weights):
    with pytest.raises(InputError, match='must be uint8'):
        make(name, weights).extract(np.zeros((64, 64), np.float32))
