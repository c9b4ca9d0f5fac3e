"""SuperPoint on images and heat maps whose keypoints are known."""

import pytest

torch = pytest.importorskip('torch')

from loftr_ros.networks.superpoint import (  # noqa: E402
    CELL,
    DUSTBIN,
    SuperPoint,
    heat_map,
    refine,
    strongest,
    suppress_non_maxima,
    window_maximum,
)

SMALL = {'widths': (8, 16, 16, 24), 'head': 24, 'descriptor': 16, 'downsample': 'stride', 'batch_norm': True}


@pytest.fixture(autouse=True)
def no_gradient():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def with_random_statistics(network):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def test_the_paper_s_size_has_the_24_tensors_of_the_published_file():
    state = SuperPoint().state_dict()
    assert len(state) == 24
    assert state['conv1a.weight'].shape == (64, 1, 3, 3)
    assert state['conv4b.weight'].shape == (128, 128, 3, 3)
    assert state['convPb.weight'].shape == (65, 256, 1, 1)
    assert state['convDb.weight'].shape == (256, 256, 1, 1)


@pytest.mark.parametrize('settings', [{}, SMALL])
def test_maps_have_an_eighth_of_the_size_and_descriptors_length_1(settings):
    network = SuperPoint(**settings).eval()
    features = network.dense(torch.rand(2, 1, 48, 64))
    assert features.logits.shape == (2, 65, 6, 8)
    assert features.descriptors.shape == (2, network.descriptor_channels, 6, 8)
    torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(2, 6, 8))


def test_folded_batch_norms_change_no_value():
    network = with_random_statistics(SuperPoint(**SMALL))
    image = torch.rand(1, 1, 64, 64)
    before = network.dense(image)
    after = network.prepare_for_inference().dense(image)
    assert not any('bn' in name for name in network.state_dict())
    torch.testing.assert_close(after.logits, before.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.descriptors, before.descriptors, atol=1e-4, rtol=1e-4)


def test_a_channel_is_the_pixel_of_its_cell_row_by_row():
    logits = torch.zeros(1, DUSTBIN + 1, 2, 3)
    logits[0, 3 * CELL + 5, 1, 2] = 50  # row 3, column 5 of the cell in row 1, column 2
    logits[0, DUSTBIN, 0, 0] = 50
    heatmap = heat_map(logits)
    assert heatmap.shape == (1, 16, 24)
    assert heatmap[0, 8 + 3, 16 + 5] == pytest.approx(1)
    assert heatmap[0, :8, :8].max() < 1e-6  # all of it is in the dustbin
    assert heatmap[0, :8, 8:16].max() == pytest.approx(1 / 65)


@pytest.mark.parametrize('radius', [1, 2, 3, 4, 7])
def test_window_maximum_equals_max_pool(radius):
    values = torch.rand(2, 20, 33)
    expected = torch.nn.functional.max_pool2d(values, 2 * radius + 1, 1, radius)
    assert torch.equal(window_maximum(values, radius), expected)


def test_only_the_best_of_near_keypoints_stays_and_what_it_suppressed_suppresses_nothing():
    heatmap = torch.zeros(1, 32, 32)
    for x, score in ((5, 0.9), (9, 0.8), (13, 0.7), (20, 0.6)):  # 9 is suppressed by 5, so 13 stays although 9 is near
        heatmap[0, 10, x] = score
    kept = suppress_non_maxima(heatmap, 4)
    assert kept.nonzero()[:, 2].tolist() == [5, 13, 20]


def test_the_strongest_come_first_and_the_rest_of_the_budget_is_padding():
    heatmap = torch.zeros(2, 4, 6)
    heatmap[0, 1, 2], heatmap[0, 3, 5], heatmap[0, 0, 0] = 0.5, 0.7, 0.005
    points, scores, valid = strongest(heatmap, 0.005, 4)
    assert points[0].tolist() == [[5, 3], [2, 1], [0, 0], [0, 0]]
    assert scores[0].tolist() == pytest.approx([0.7, 0.5, 0, 0])
    assert valid.tolist() == [[True, True, False, False], [False] * 4]


def detector_of(places, width=64, height=48):
    """A SuperPoint whose detector finds exactly `places`, whatever the image."""
    logits = torch.zeros(1, DUSTBIN + 1, height // CELL, width // CELL)
    logits[:, DUSTBIN] = 20
    for x, y in places:
        cell = logits[0, :, y // CELL, x // CELL]
        cell[DUSTBIN], cell[y % CELL * CELL + x % CELL] = 0, 10
    network = SuperPoint(**SMALL, sampling='exact').eval()
    plain = network.dense
    network.dense = lambda image: plain(image)._replace(logits=logits.expand(len(image), -1, -1, -1))
    return network


def test_no_keypoint_is_in_the_border_or_in_the_padding():
    network = detector_of([(3, 20), (20, 3), (4, 20), (36, 20), (35, 27), (35, 28)])
    image = torch.rand(1, 1, 48, 64)
    found = network(image, border=4, nms_radius=0, size=(32, 40))
    assert sorted(found.points[found.valid].tolist()) == [[4, 20], [35, 27]]


def test_each_image_of_a_batch_is_as_alone_and_has_the_budget_of_rows():
    network = with_random_statistics(SuperPoint(**SMALL))
    images = torch.rand(3, 1, 64, 96)
    together = network(images, threshold=1 / 65, budget=40)
    assert together.points.shape == (3, 40, 2) and together.descriptors.shape == (3, 40, 16)
    for number in range(3):
        alone = network(images[number : number + 1], threshold=1 / 65, budget=40)
        assert torch.equal(alone.points[0], together.points[number])
        torch.testing.assert_close(alone.descriptors[0], together.descriptors[number], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (8, 48)])
def test_an_image_that_is_all_border_has_no_keypoint(size):
    network = with_random_statistics(SuperPoint(**SMALL))
    found = network(torch.rand(1, 1, 8, 48), threshold=0.0, budget=5, size=size)
    assert not found.valid.any()


def test_an_image_without_keypoints_gives_padding_alone():
    found = detector_of([])(torch.zeros(1, 1, 48, 64), budget=5)
    assert not found.valid.any() and not found.points.any() and not found.descriptors.any()


def test_a_descriptor_at_the_centre_of_a_cell_is_that_of_the_cell():
    network = SuperPoint(**SMALL, sampling='exact')
    maps = torch.nn.functional.normalize(torch.randn(1, 16, 6, 8), dim=1)
    centres = torch.tensor([[[3.5, 3.5], [8 * 5 + 3.5, 8 * 2 + 3.5], [8 * 7 + 3.5, 8 * 5 + 3.5]]])
    sampled = network.descriptors_at(maps, centres)[0]
    expected = torch.stack([maps[0, :, 0, 0], maps[0, :, 2, 5], maps[0, :, 5, 7]])
    torch.testing.assert_close(sampled, expected, atol=1e-6, rtol=1e-5)


def test_a_sub_pixel_keypoint_is_at_the_mean_of_the_scores_around_it():
    heatmap = torch.zeros(1, 16, 16)
    heatmap[0, 8, 8], heatmap[0, 8, 9], heatmap[0, 7, 8] = 0.5, 0.25, 0.25
    assert refine(heatmap, torch.tensor([[[8, 8]]]))[0, 0].tolist() == pytest.approx([8.25, 7.75])


def test_padding_has_no_heat_and_changes_nothing_far_from_it():
    network = with_random_statistics(SuperPoint(**SMALL))
    image, mask = torch.rand(1, 1, 64, 96), torch.ones(1, 64, 96, dtype=torch.bool)
    mask[:, 50:], mask[:, :, 70:] = False, False
    plain, masked = network.extract(image), network.extract(image, mask)
    assert torch.equal(masked.heatmap[:, :50, :70], plain.heatmap[:, :50, :70])
    assert not masked.heatmap[:, 50:].any() and not masked.heatmap[:, :, 70:].any()


def test_in_half_precision_keypoints_and_descriptors_stay_nearly_the_same():
    network = with_random_statistics(SuperPoint(**SMALL, sampling='exact')).prepare_for_inference()
    image = torch.rand(1, 1, 64, 96)
    full = network.extract(image)
    half = network.prepare_for_inference(dtype=torch.bfloat16).extract(image.bfloat16())
    assert half.heatmap.dtype == half.descriptors.dtype == torch.float32
    assert (half.descriptors * full.descriptors).sum(1).min() > 0.99
    assert (half.heatmap - full.heatmap).norm() < 0.1 * full.heatmap.norm()
