"""LoFTR with few channels: properties for any weights, and matches with weights made for them."""

import math

import pytest

torch = pytest.importorskip('torch')

from loftr_ros.errors import InputError  # noqa: E402
from loftr_ros.networks.loftr import EncoderLayer, LoFTR, PositionEncoding, spatial_expectation  # noqa: E402

TINY = {'initial_dim': 8, 'block_dims': (8, 12, 32), 'heads': 2, 'coarse_layers': ('self', 'cross', 'self', 'cross')}


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Tensors are tiny here: a second thread would only wait, for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def tiny(seed=0, **settings) -> LoFTR:
    """A tiny network whose transformers hardly change the features, so that equal places stay most similar."""
    torch.manual_seed(seed)
    network = LoFTR(**{**TINY, 'temperature': 0.02, **settings})
    for name, parameter in network.named_parameters():
        if 'norm2' in name:
            parameter.mul_(0.02)
    network.train()
    network.backbone(noise(height=128, width=128))  # batch norms take the statistics of noise
    return network.eval()


def noise(height=64, width=96, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1, height, width, generator=generator)


def shifted_pair(dx=16, dy=8, height=96, width=128):
    scene = noise(height + dy, width + dx)
    return scene[..., :height, :width], scene[..., dy:, dx:]


@pytest.mark.parametrize('settings', [{}, {'attention': 'full'}])
def test_a_shift_by_whole_cells_is_found(settings):
    network = tiny(**settings)
    # Random weights give all cells a common part, and position would hide the scene: take the mean off instead.
    network.position = lambda like: -like.mean(dim=(1, 2))[0]
    matches = network(*shifted_pair())
    assert len(matches.index0) > 20
    # Columns of 16 cells: a shift by (16, 8) px is 2 columns and 1 row.
    right = matches.index0 - matches.index1 == 16 + 2
    assert right.float().mean() > 0.9
    offset = (matches.keypoints0 - matches.keypoints1)[right]
    assert (offset - torch.tensor([16.0, 8.0])).abs().max() <= 4  # half a window: the fine level may move no further


def test_keypoints0_are_the_cells_of_image_0():
    matches = tiny()(*shifted_pair(), threshold=0.0, border=0)
    assert len(matches.index0) > 0
    assert matches.keypoints0.tolist() == [[8 * (cell % 16), 8 * (cell // 16)] for cell in matches.index0.tolist()]


def test_extracting_once_gives_the_matches_of_extracting_twice():
    network, (image0, image1) = tiny(), shifted_pair()
    both = network(image0, image1, threshold=0.0)
    features0, features1 = network.extract(image0), network.extract(image1)
    for _ in range(2):
        for have, want in zip(network.match(features0, features1, threshold=0.0), both, strict=True):
            assert torch.equal(have, want)


@pytest.mark.parametrize('match_type', ['dual_softmax', 'optimal_transport'])
def test_a_batch_of_pairs_gives_the_matches_of_each_pair(match_type):
    network = tiny(match_type=match_type)
    pairs = [(noise(seed=1), noise(seed=2)), shifted_pair(height=64, width=96), (noise(seed=3), noise(seed=3))]
    batch = network(torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]), threshold=1e-3)
    for i, (image0, image1) in enumerate(pairs):
        alone = network(image0, image1, threshold=1e-3)
        of_pair = batch.batch_index == i
        assert batch.index0[of_pair].tolist() == alone.index0.tolist()
        assert batch.index1[of_pair].tolist() == alone.index1.tolist()
        # float32 products of other shapes add in another order.
        torch.testing.assert_close(batch.keypoints1[of_pair], alone.keypoints1, atol=1e-3, rtol=0)
        torch.testing.assert_close(batch.confidence[of_pair], alone.confidence, atol=1e-4, rtol=0)


def test_images_of_different_sizes_swap_with_their_matches():
    image0, image1 = noise(48, 80), noise(64, 40)
    matches = tiny()(image0, image1, threshold=0.0, border=0)
    assert len(matches.index0) > 0
    assert matches.index0.max() < 6 * 10 and matches.index1.max() < 8 * 5
    half_window = 4
    cell1 = 8 * torch.stack([matches.index1 % 5, matches.index1 // 5], 1)
    assert (matches.keypoints1 - cell1).abs().max() <= half_window


@pytest.mark.parametrize('match_type', ['dual_softmax', 'optimal_transport'])
def test_padding_changes_nothing_but_the_reach_of_convolutions(match_type):
    network = tiny(match_type=match_type)
    features = [network.extract(image) for image in shifted_pair(height=64, width=96)]
    tokens = [network.transform(*features), None]
    padded = []
    for feature in features:  # 3 columns and 2 rows of rubbish at coarse level, which the mask must hide
        coarse = torch.nn.functional.pad(feature.coarse, (0, 0, 0, 3, 0, 2), value=7.0)
        mask = torch.zeros(coarse.shape[:3], dtype=torch.bool)
        mask[:, :8, :12] = True
        padded.append(feature._replace(coarse=coarse, mask=mask))
    tokens[1] = [t.unflatten(1, (10, 15))[:, :8, :12].flatten(1, 2) for t in network.transform(*padded)]
    for plain, masked in zip(*tokens, strict=True):
        torch.testing.assert_close(masked, plain, atol=1e-5, rtol=1e-5)
    if match_type == 'dual_softmax':  # the masses of optimal transport count padded cells, as in the authors' code
        plain, masked = network.match(*features, threshold=0.01), network.match(*padded, threshold=0.01)
        assert len(plain.index0) > 0
        assert masked.keypoints0.tolist() == plain.keypoints0.tolist()
        torch.testing.assert_close(masked.confidence, plain.confidence, atol=1e-4, rtol=0)


def test_a_mask_of_pixels_hides_padded_cells():
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[:, :40, :72] = True
    matches = tiny()(noise(), noise(), threshold=0.0, border=1, mask0=mask, mask1=mask)
    assert len(matches.index0) > 0
    for cell in (matches.index0, matches.index1):
        assert set((cell % 12).tolist()) <= set(range(1, 8)) and set((cell // 12).tolist()) <= set(range(1, 4))


def test_half_precision_stays_finite_with_a_mask():
    network = tiny().half()
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[:, :40, :72] = True
    matches = network(noise().half(), noise().half(), threshold=0.01, mask0=mask, mask1=mask)
    assert len(matches.index0) > 0
    assert all(torch.isfinite(field).all() for field in matches)
    assert matches.keypoints1.dtype == torch.float32


def test_the_border_is_left_out():
    free = tiny()(noise(), noise(), threshold=0.0, border=0)
    kept = tiny()(noise(), noise(), threshold=0.0, border=2)
    assert 0 < len(kept.index0) < len(free.index0)
    for cell in (kept.index0, kept.index1):
        assert (cell % 12).min() >= 2 and (cell % 12).max() <= 9 and (cell // 12).min() >= 2 and (cell // 12).max() <= 5


def test_no_match_gives_empty_tensors_of_the_right_shape():
    matches = tiny()(noise(), noise(seed=5), threshold=1.0)
    assert matches.keypoints0.shape == matches.keypoints1.shape == (0, 2)
    assert matches.confidence.shape == matches.sigma.shape == matches.index0.shape == (0,)


def test_an_image_that_is_no_multiple_of_8_is_refused():
    with pytest.raises(InputError, match=r'multiples of 8, got \(1, 1, 60, 96\)'):
        tiny().extract(noise(60, 96))


def test_an_unknown_match_type_is_refused_with_the_choices():
    with pytest.raises(InputError, match='dual_softmax, optimal_transport'):
        LoFTR(**TINY, match_type='sinkhorn')


def test_fusing_changes_the_maps_by_rounding_only():
    network, image = tiny(), noise()
    plain = network.backbone(image)
    network.prepare_for_inference(plain=True)
    for have, want in zip(network.backbone(image), plain, strict=True):
        # Relative to the largest value: sums of a hundred float32 products in another order.
        assert (have - want).abs().max() < 1e-5 * want.abs().max()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


def test_the_expectation_of_one_peak_is_its_position_without_deviation():
    heatmap = torch.zeros(2, 5, 5)
    heatmap[0, 2, 2] = 1  # centre
    heatmap[1, 0, 3] = 1  # top row, right of the centre
    expectation, deviation = spatial_expectation(heatmap)
    assert expectation.tolist() == [[0, 0], [0.5, -1]]
    assert deviation.tolist() == pytest.approx([2e-5, 2e-5])  # 2 sqrt(1e-10)


def test_the_deviation_of_two_peaks_is_half_their_distance():
    heatmap = torch.zeros(1, 5, 5)
    heatmap[0, 2, 0] = heatmap[0, 2, 4] = 0.5
    expectation, deviation = spatial_expectation(heatmap)
    assert expectation.tolist() == [[0, 0]]
    assert deviation.item() == pytest.approx(1.0, abs=1e-4)


def test_sigma_is_the_deviation_along_one_axis_in_pixels():
    network, pair = tiny(), shifted_pair()
    # Without weights in the last step all positions of a window are equally likely.
    network.fine_preprocess.merge_feat.weight.zero_()
    for layer in network.loftr_fine.layers:
        layer.norm2.weight.zero_()
        layer.norm2.bias.zero_()
    matches = network(*pair, threshold=0.01)
    assert len(matches.index0) > 0
    # 5 positions 2 px apart, equally likely: variance 4 * (25 - 1) / 12 px^2.
    torch.testing.assert_close(matches.sigma, torch.full_like(matches.sigma, math.sqrt(8)), atol=1e-4, rtol=0)


@pytest.mark.parametrize('variant, rate', [('original', math.exp(-2)), ('fixed', 10000 ** (-2 / 8))])
def test_positions_have_the_frequencies_of_their_variant(variant, rate):
    table = PositionEncoding(16, variant)(torch.zeros(1, 3, 4, 16))
    assert table.shape == (3, 4, 16)
    row, column, k = 2, 3, 1
    x, y = (column + 1) * rate**k, (row + 1) * rate**k
    wanted = [math.sin(x), math.cos(x), math.sin(y), math.cos(y)]
    assert table[row, column, 4 * k : 4 * k + 4].tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_larger_map_keeps_the_positions_of_a_smaller_one():
    position = PositionEncoding(16, 'fixed')
    small = position(torch.zeros(1, 3, 4, 16)).clone()
    assert torch.equal(position(torch.zeros(1, 5, 9, 16))[:3, :4], small)


def test_linear_attention_is_the_same_in_both_orders_of_its_products():
    torch.manual_seed(0)
    layer = EncoderLayer(16, 2, 'linear')
    x, source = torch.randn(2, 7, 16), torch.randn(2, 40, 16)
    mask = torch.rand(2, 40) > 0.3
    query, key = (torch.nn.functional.elu(t).unflatten(-1, (2, 8)) + 1 for t in (layer.q_proj(x), layer.k_proj(source)))
    weight = torch.einsum('blhd,bshd->blsh', query, key * mask[:, :, None, None])
    weight = weight / weight.sum(2, keepdim=True)
    message = torch.einsum('blsh,bshd->blhd', weight, layer.v_proj(source).unflatten(-1, (2, 8))).flatten(2)
    # Here with the L x S matrix; a source of 40 is longer than 16 channels, one of 10 is not.
    torch.testing.assert_close(layer._linear_attention(x, source, mask), layer.merge(message), atol=1e-5, rtol=1e-4)
    short = layer._linear_attention(x, source[:, :10], mask[:, :10])
    repeated = layer._linear_attention(x, source[:, :10].repeat(1, 4, 1), mask[:, :10].repeat(1, 4))
    torch.testing.assert_close(short, repeated, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('match_type', ['dual_softmax', 'optimal_transport'])
def test_training_gives_gradients_to_every_weight(match_type):
    network = LoFTR(**TINY, match_type=match_type).train()
    index = torch.arange(6)

    with torch.enable_grad():
        log_confidence, refinement = network.training_output(
            noise(batch=2), noise(batch=2, seed=1), index // 3, 20 + index, 30 + index
        )
        extra = int(match_type == 'optimal_transport')
        assert log_confidence.shape == (2, 96 + extra, 96 + extra)
        assert refinement.expectation.shape == (6, 2) and refinement.deviation.shape == (6,)
        (refinement.expectation.square().sum() - log_confidence[:, 5, 6].sum()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_the_dense_confidence_of_training_is_that_of_matching():
    network, pair = tiny(), shifted_pair()
    matches = network(*pair, threshold=0.05)
    none = torch.zeros(0, dtype=torch.int64)
    log_confidence, _ = network.training_output(*pair, none, none, none)
    assert len(matches.index0) > 0
    torch.testing.assert_close(
        log_confidence.exp()[0, matches.index0, matches.index1], matches.confidence, atol=1e-5, rtol=1e-4
    )
