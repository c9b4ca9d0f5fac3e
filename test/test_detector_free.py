"""LoFTR and Efficient LoFTR as matchers: image sizes, number formats, GPU memory, and ids of points."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from test_matchers import texture
from tiny_networks import save_tiny

from loftr_ros.config import MatcherConfig
from loftr_ros.errors import ConfigError, InputError
from loftr_ros.image import prepare
from loftr_ros.matchers import create_matcher, inference, match_images, precision
from loftr_ros.matchers.image_features import PreparedMatches
from loftr_ros.networks import efficient_loftr
from loftr_ros.networks.coarse_cells import CoarseMatches
from loftr_ros.networks.efficient_loftr import EfficientLoFTR
from loftr_ros.networks.loftr import LoFTR

NETWORKS = {'loftr': LoFTR, 'efficient_loftr': EfficientLoFTR}
each_network = pytest.mark.parametrize('name', NETWORKS)
SHIFT = 32  # px, a whole token of both networks: cells see the same image


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    return {name: save_tiny(name, folder) for name in NETWORKS}


@pytest.fixture
def make(files):
    def make(name, **settings):
        own = {'name': name, 'weights': files[name], 'device': 'cpu', 'precision': 'fp32', 'subpixel': 'none'}
        own['rotation_search'] = 'off'
        return create_matcher(MatcherConfig(**{**own, **settings}))

    return make


def shifted_pair(height=240, width=320):
    """A texture and the same further left by SHIFT."""
    image = texture(height, width + SHIFT)
    return image[:, :width], image[:, SHIFT:]


@each_network
def test_a_shift_is_found_in_original_pixels_of_any_size(name, make):
    matcher = make(name)
    for height, width in ((240, 320), (245, 333)):
        matches = match_images(matcher, *shifted_pair(height, width))
        assert len(matches) > 20
        moved = np.median(matches.keypoints0 - matches.keypoints1, axis=0)
        # Random fine weights choose anywhere in a window, of 4 px each way.
        np.testing.assert_allclose(moved, [SHIFT, 0], atol=2)


@each_network
def test_points_and_their_sigma_grow_with_the_reduction(name, make):
    """A reduction by two of an image doubled exactly is the image."""
    small = shifted_pair()
    large = [image.repeat(2, axis=0).repeat(2, axis=1) for image in small]
    wanted = match_images(make(name), *small)
    found = match_images(make(name, resize_max=320), *large)
    np.testing.assert_allclose(found.keypoints0, 2 * wanted.keypoints0 + 0.5)
    np.testing.assert_allclose(found.keypoints1, 2 * wanted.keypoints1 + 0.5)
    np.testing.assert_allclose(found.sigma_px, 2 * wanted.sigma_px)
    np.testing.assert_array_equal(found.point_id0, wanted.point_id0)


@each_network
def test_padding_matches_nothing(name, make):
    """The padding repeats the last column and row, which would match well with the same in the other image."""
    matcher = make(name, match_threshold=0.0, max_matches=0)
    image = texture(97, 129)
    features = matcher.extract(image)
    assert features.image.pixels.shape > (97, 129)
    with torch.inference_mode():
        found = matcher.network.match(features.features, features.features, threshold=-1.0, border=0)
    assert len(found.index0)
    assert (found.index0 % (features.image.pixels.shape[1] // 8)).max() < -(-129 // 8)
    assert (found.index0 // (features.image.pixels.shape[1] // 8)).max() < -(-97 // 8)


@each_network
def test_a_picture_that_fills_the_grid_needs_no_mask(name, make):
    matcher = make(name)
    assert matcher.extract(texture(96, 128)).features.mask is None


@each_network
def test_the_network_runs_once_for_each_image(name, make, monkeypatch):
    sizes = []
    extract = NETWORKS[name].extract
    monkeypatch.setattr(
        NETWORKS[name], 'extract', lambda self, image, *a: (sizes.append(1), extract(self, image, *a))[1]
    )
    matcher = make(name)
    features = [matcher.extract(image) for image in shifted_pair()]
    for _ in range(3):
        matcher.match(*features)
    assert len(sizes) == 2


def test_cells_of_loftr_are_numbered_row_by_row(make):
    matches = match_images(make('loftr'), *shifted_pair())
    columns = 320 // 8
    np.testing.assert_array_equal(matches.point_id0 % columns * 8, matches.keypoints0[:, 0])
    np.testing.assert_array_equal(matches.point_id0 // columns * 8, matches.keypoints0[:, 1])


def test_numbers_of_efficient_loftr_are_pixels(make):
    matches = match_images(make('efficient_loftr'), *shifted_pair(256, 320))
    np.testing.assert_array_equal(matches.point_id0 % 320, matches.keypoints0[:, 0])
    np.testing.assert_array_equal(matches.point_id0 // 320, matches.keypoints0[:, 1])


def test_similarities_without_a_bound_become_confidences_in_the_same_order(tmp_path, monkeypatch):
    """Known similarities through the whole way: the official threshold of 25 is 0.2."""
    asked = []

    def match_raw_similarity(_similarity, least, *_eligible):
        asked.append(least)
        cells = torch.tensor([17, 18, 34, 35])  # beyond the border
        return CoarseMatches(torch.zeros_like(cells), cells, cells, torch.tensor([24.0, 25.0, 100.0, 900.0]))

    monkeypatch.setattr(efficient_loftr, 'match_raw_similarity', match_raw_similarity)
    path = save_tiny('efficient_loftr', tmp_path, mode='optimized')
    matcher = create_matcher(MatcherConfig(name='efficient_loftr', weights=path, device='cpu'))
    matches = match_images(matcher, texture(96, 128), texture(96, 128))
    assert matches.confidence.tolist() == pytest.approx([0.9, 0.5, 0.2])
    assert 24.999 < asked[0] < 25


def test_optimized_mode_finds_the_shift(tmp_path):
    path = save_tiny('efficient_loftr', tmp_path, mode='optimized', temperature=0.01)
    config = MatcherConfig(name='efficient_loftr', weights=path, device='cpu', match_threshold=0.0, subpixel='none')
    matches = match_images(create_matcher(config), *shifted_pair())
    assert len(matches) > 20 and matches.confidence.min() > 0 and matches.confidence.max() < 1
    np.testing.assert_allclose(np.median(matches.keypoints0 - matches.keypoints1, axis=0), [SHIFT, 0], atol=2)
    assert len(match_images(create_matcher(dataclasses.replace(config, match_threshold=1.0)), *shifted_pair())) == 0


@each_network
def test_matches_that_are_no_numbers_are_dropped(name, make, monkeypatch):
    matcher = make(name)
    points0 = np.full((3, 2), 9.0)
    points1 = np.array([[9.0, 9], [np.nan, 9], [9, 9]])
    found = PreparedMatches(points0, points1, np.array([0.5, 0.5, np.nan]), np.arange(3), 24.0, np.ones(3))
    monkeypatch.setattr(matcher, '_match', lambda *_: found)
    assert len(match_images(matcher, texture(96, 128), texture(96, 128))) == 1


def test_a_heat_map_in_one_pixel_does_not_claim_to_be_exact(make, monkeypatch):
    matcher = make('efficient_loftr')
    point = np.full((1, 2), 9.0)
    found = PreparedMatches(point, point, np.array([0.5]), np.array([3]), 24.0, np.zeros(1))
    monkeypatch.setattr(matcher, '_match', lambda *_: found)
    assert match_images(matcher, texture(96, 128), texture(96, 128)).sigma_px.tolist() == pytest.approx([0.01])


def test_the_threshold_is_compared_with_the_confidence_that_is_published(make, monkeypatch):
    threshold = float(np.float32(0.3))  # seen by a user in the messages
    matcher = make('efficient_loftr', match_threshold=threshold)
    points = np.full((2, 2), 9.0)
    found = PreparedMatches(points, points, np.array([threshold - 1e-10, threshold - 1e-6]), np.arange(2), 24.0)
    monkeypatch.setattr(matcher, '_match', lambda *_: found)
    confidence = match_images(matcher, texture(96, 128), texture(96, 128)).confidence
    assert confidence.tolist() == [np.float32(threshold)]


@pytest.mark.parametrize('name, weights', [('loftr', 'outdoor_ds'), ('efficient_loftr', 'eloftr_outdoor')])
def test_missing_weights_are_answered_with_the_remedy(name, weights, tmp_path, monkeypatch):
    monkeypatch.setenv('LOFTR_ROS_CACHE', str(tmp_path))
    with pytest.raises(InputError, match='loftr_ros weights get'):
        create_matcher(MatcherConfig(name=name, weights=weights))


def test_points_of_a_keyframe_stay_where_its_first_match_put_them():
    matcher = create_matcher(MatcherConfig())
    keyframe, *others = (
        matcher.extract(texture(160, 192)[dy : dy + 128, dx : dx + 160]) for dy, dx in ((8, 8), (9, 11), (13, 6))
    )
    first = matcher.match(keyframe, others[0])
    free = matcher.match(keyframe, others[1])
    second = matcher.match(matcher.keep_points(keyframe, first), others[1])
    places = dict(zip(first.point_id0.tolist(), map(tuple, first.keypoints0.tolist()), strict=True))
    common = [
        (number, tuple(point))
        for number, point in zip(second.point_id0.tolist(), second.keypoints0.tolist(), strict=True)
    ]
    kept = [places[number] == point for number, point in common if number in places]
    assert len(kept) > 0.5 * min(len(first), len(second)) > 20
    assert all(kept)
    assert len(set(free.point_id0) & set(places)) < len(kept)  # without `keep_points` many would be other pixels


def test_weights_of_the_other_network_are_refused(files):
    with pytest.raises(ConfigError, match=r'matcher\.name: efficient_loftr'):
        create_matcher(MatcherConfig(name='loftr', weights=files['efficient_loftr']))


@each_network
def test_the_name_contains_the_weights(name, make):
    assert make(name).name == f'{name}:tiny_{name}'


# Precision. This machine may lack the units; that its CPU has them is said to it, and it computes slowly but rightly.


@pytest.mark.parametrize('kind', ['fp16', 'bf16'])
def test_half_precision_is_refused_on_a_cpu_without_units_for_it(kind, make, monkeypatch):
    monkeypatch.setattr(precision, 'cpu_flags', lambda: {'avx2', 'avx512f'})
    with pytest.raises(ConfigError, match=f'matcher.precision is {kind} on a CPU.*set matcher.precision: fp32'):
        make('loftr', precision=kind)


@pytest.fixture
def cpu_with_units(monkeypatch):
    monkeypatch.setattr(precision, 'cpu_flags', lambda: {'avx512_bf16', 'avx512_fp16'})


@each_network
@pytest.mark.parametrize('kind', ['fp16', 'bf16'])
def test_half_precision_reports_its_drift_and_finds_the_shift(name, kind, make, cpu_with_units):
    matcher = make(name, precision=kind)
    assert next(matcher.network.parameters()).dtype is precision.DTYPES[kind]
    assert matcher.notes['precision'].startswith(f'{kind}, drift 0.0')
    matches = match_images(matcher, *shifted_pair())
    assert len(matches) > 20
    np.testing.assert_allclose(np.median(matches.keypoints0 - matches.keypoints1, axis=0), [SHIFT, 0], atol=2)


@each_network
@pytest.mark.parametrize('spoil', [lambda t: t * 1.3, lambda t: t * float('nan')], ids=['drifted', 'not a number'])
def test_half_precision_that_drifts_too_far_is_not_used(name, spoil, make, cpu_with_units, monkeypatch, caplog):
    extract = NETWORKS[name].extract

    def drifting(self, image, *arguments):
        maps = extract(self, image, *arguments)
        return maps if image.dtype is torch.float32 else maps._replace(coarse=spoil(maps.coarse))

    monkeypatch.setattr(NETWORKS[name], 'extract', drifting)
    with caplog.at_level(logging.WARNING):
        matcher = make(name, precision='bf16')
    assert next(matcher.network.parameters()).dtype is torch.float32
    assert matcher.notes['precision'].startswith('fp32: bf16 drifts by') and 'drifts by' in caplog.text


@each_network
def test_precision_is_chosen_by_the_units_of_the_cpu(name, make, cpu_with_units, monkeypatch):
    assert make(name, precision='auto').notes['precision'].startswith('bf16, drift')
    monkeypatch.setattr(precision, 'cpu_flags', lambda: {'avx2'})
    assert make(name, precision='auto').notes == {}


def test_precision_is_full_where_another_engine_or_device_computes(cpu_with_units):
    for device, engine in (('cpu', 'compile'), ('cuda', 'torch')):
        assert precision.choose_dtype('auto', torch.device(device), engine) is torch.float32


@each_network
def test_only_the_matches_that_are_kept_are_refined(name, make, monkeypatch):
    all_of_them = match_images(make(name, max_matches=0), *shifted_pair())
    refined = []
    network = NETWORKS[name]
    refine = network.refine if name == 'loftr' else network._refine

    def counting(self, *arguments):
        result = refine(self, *arguments)
        refined.append(len(result[0]))
        return result

    monkeypatch.setattr(network, refine.__name__, counting)
    few = match_images(make(name, max_matches=12), *shifted_pair())
    assert sum(refined) == len(few) == 12 < len(all_of_them)
    assert set(few.point_id0) < set(all_of_them.point_id0)


@each_network
def test_full_precision_has_nothing_to_note(name, make):
    assert make(name).notes == {}


# Want of memory, as CUDA reports it.


def lacks_memory_above(monkeypatch, network, pixels, method='extract'):
    """Make `method` raise for images with more `pixels` than that."""
    original = getattr(network, method)

    def limited(self, first, *arguments, **keywords):
        rows, columns = first.shape[2:] if method == 'extract' else [8 * n for n in first.coarse.shape[1:3]]
        if rows * columns > pixels:
            raise inference.OUT_OF_MEMORY('CUDA out of memory. Tried to allocate 2.00 GiB.')
        return original(self, first, *arguments, **keywords)

    monkeypatch.setattr(network, method, limited)


@each_network
def test_an_image_too_large_for_the_memory_is_reduced_from_then_on(name, make, monkeypatch, caplog):
    lacks_memory_above(monkeypatch, NETWORKS[name], 400 * 300)
    matcher = make(name)
    with caplog.at_level(logging.WARNING):
        matches = match_images(matcher, *shifted_pair(480, 640))
    assert caplog.text.count('continues with matcher.resize_max') == 2  # 640 -> 480 -> 360, not again for image 1
    assert matcher.notes['resize_max'].startswith('360, lowered from 480')
    assert len(matches) > 5 and matches.keypoints0.max() > 360
    assert matcher.extract(texture(480, 640)).image.width == 360


@each_network
def test_a_keyframe_from_before_the_reduction_still_matches(name, make, monkeypatch):
    matcher = make(name, match_threshold=0.0)
    images = shifted_pair(480, 640)
    keyframe = matcher.extract(images[0])
    lacks_memory_above(monkeypatch, NETWORKS[name], 500 * 400, 'match')
    matches = matcher.match(keyframe, matcher.extract(images[1]))
    assert len(matches) > 5
    assert matches.keypoints0.max() > 480 and (matches.keypoints0 <= [639, 479]).all()
    # Places of the reduced image have other numbers than before; the same number must not mean two places.
    assert (matches.point_id0 == -1).all()
    assert (matcher.match(matcher.extract(images[0]), matcher.extract(images[1])).point_id0 >= 0).all()


@each_network
def test_features_of_two_sizes_match(name, make):
    matcher = make(name)
    image0, image1 = shifted_pair(240, 320)
    large = matcher.extract(image0)
    matcher.images.resize_max = 256
    small = matcher.extract(image1)
    assert (large.image.width, small.image.width) == (320, 256)
    matches = matcher.match(large, small)
    for points in (matches.keypoints0, matches.keypoints1):
        assert (points >= 0).all() and (points <= [319, 239]).all()


@each_network
def test_too_little_memory_for_any_size_is_an_error_with_the_remedy(name, make, monkeypatch):
    lacks_memory_above(monkeypatch, NETWORKS[name], 0)
    with pytest.raises(InputError, match=r'has not enough GPU memory.*set matcher\.device: cpu'):
        make(name).extract(texture(240, 320))


def test_reducing_twice_leads_back_to_the_same_pixels(make, monkeypatch):
    matcher = make('loftr')
    features = matcher.extract(texture(480, 640))
    matcher.images.resize_max = 480
    matcher.images.reduce(features)
    matcher.images.resize_max = 200
    matcher.images.reduce(features)
    once = prepare(texture(480, 640), resize_max=200, multiple=8)
    assert (features.image.width, features.image.height) == (once.width, once.height)
    corners = np.array([[0.0, 0], [199, 149]])
    np.testing.assert_allclose(features.image.to_original(corners), once.to_original(corners))
