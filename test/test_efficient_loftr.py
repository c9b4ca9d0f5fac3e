"""Efficient LoFTR on inputs whose answer is known by construction, with networks of a few channels."""

import math

import pytest
import torch
from torch.nn import functional as F

from loftr_ros.errors import InputError
from loftr_ros.networks import two_stage_refinement
from loftr_ros.networks.efficient_loftr import (
    AggregatedAttention,
    CoarseTransformer,
    EfficientLoFTR,
    EfficientLoftrFeatures,
)
from loftr_ros.networks.repvgg import RepVGGBlock, StageMaps
from loftr_ros.networks.two_stage_refinement import FineFusion, full_windows

SUBPIXEL = 4


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)
    torch.set_num_threads(2)


def randomize_batch_norms(module):
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_(std=0.2)
            norm.running_mean.normal_(std=0.2)
            norm.running_var.uniform_(0.5, 1.5)
    return module.eval()


def tiny_network(**overrides):
    settings = {'widths': (8, 8, 16, 32), 'blocks': (1, 1, 2), 'layers': 1, 'heads': 2, 'subpixel_channels': SUBPIXEL}
    return randomize_batch_norms(EfficientLoFTR(**{**settings, **overrides}))


def distinct_network(**overrides):
    """Return a network with random weights whose coarse features differ from cell to cell.

    Most of them are cut off by the last ReLU, and attention, which averages, adds little.
    """
    network = tiny_network(**{'widths': (16, 16, 32, 64), **overrides})
    for norm in network.backbone.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None
            norm.reset_running_stats()
    network.backbone.train()
    network.backbone(torch.rand(1, 1, 160, 192))
    network.eval()
    network.backbone.layer3[-1].rbr_identity.bias.data -= 2.0
    for layer in network.loftr_coarse.layers:
        layer.norm2.weight.data *= 0.1
    return network


def without_attention(network):
    """Let every transformer layer return its input."""
    for layer in network.loftr_coarse.layers:
        layer.norm2.weight.data.zero_()
        layer.norm2.bias.data.zero_()
    return network


def fine_from_half_only(network, gain):
    """Let the fused map be the backbone's map at 1/2, times `gain`."""
    fusion = network.fine_preprocess
    for norm in (fusion.layer2_outconv2[1], fusion.layer1_outconv2[1]):
        norm.reset_running_stats()
        torch.nn.init.ones_(norm.weight)
        torch.nn.init.zeros_(norm.bias)
    for parameter in (fusion.layer3_outconv.weight, fusion.layer2_outconv.weight, fusion.layer1_outconv2[3].weight):
        parameter.data.zero_()
    channels = fusion.layer1_outconv.weight.shape[1]
    identity = torch.eye(channels)
    both_signs = torch.cat([identity, -identity])  # leaky(u) - leaky(-u) = 1.01 u passes the activation
    fusion.layer1_outconv.weight.data = both_signs[..., None, None]
    torch.nn.init.dirac_(fusion.layer1_outconv2[0].weight)
    fusion.layer1_outconv2[3].weight.data[..., 1, 1] = both_signs.T * (gain / 1.01)
    return network


def waves(height, width, shift_x, shift_y):
    """Return (1, 8, H / 2, W / 2), waves of period 60 px along x and y of the scene moved by the shift [px], twice.

    The scalar product of two pixels falls with their distance alone. Pixel k at 1/2 lies at 2 k + 0.5 px.
    """
    y = (2 * torch.arange(height // 2) + 0.5 - shift_y)[:, None].expand(-1, width // 2) * (2 * math.pi / 60)
    x = (2 * torch.arange(width // 2) + 0.5 - shift_x)[None].expand(height // 2, -1) * (2 * math.pi / 60)
    stage = [x.cos(), x.sin(), y.cos(), y.sin()]
    return torch.stack(stage + stage)[None]


def scene(height, width, cell_shift=(0, 0), shift=(0.0, 0.0)):
    """Return EfficientLoftrFeatures of a scene of 12 x 16 cells, each with a code of its own, whose pixels are `waves`.

    Cell (i, j) of the image shows cell (i, j) - cell_shift of the scene; `shift` x, y [px] is added for the pixels.
    """
    rows = torch.arange(height // 8) - cell_shift[0]
    columns = torch.arange(width // 8) - cell_shift[1]
    number = rows[:, None] * 16 + columns
    known = (rows >= 0)[:, None] & (columns >= 0)
    coarse = F.one_hot(number.clamp(min=0), 192).float() * known[..., None] * 60
    half = waves(height, width, 8 * cell_shift[1] + shift[0], 8 * cell_shift[0] + shift[1])
    return EfficientLoftrFeatures(coarse[None], StageMaps(half, torch.zeros(1, 16, height // 4, width // 4), None))


def wave_network(**overrides):
    # With this gain and the official temperature of 10 a pixel next to the right one is e^-2.7 as likely in stage 2.
    network = tiny_network(widths=(8, 8, 16, 192), subpixel_offset=0, **overrides)
    return without_attention(fine_from_half_only(network, gain=100.0))


@pytest.mark.parametrize('stride, channels', [(1, 6), (1, 9), (2, 9)])
def test_a_fused_block_equals_its_branches(stride, channels):
    block = randomize_batch_norms(RepVGGBlock(6, channels, stride))
    x = torch.randn(2, 6, 10, 12)
    with torch.no_grad():
        before = block(x)
        block.reparameterize()
        after = block(x)
    assert list(block.state_dict()) == ['rbr_reparam.weight', 'rbr_reparam.bias']
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)  # rounding of another order of sums


def test_a_fused_network_finds_the_same_matches():
    network = distinct_network()
    image0, image1 = torch.rand(2, 1, 1, 96, 128)
    with torch.no_grad():
        before = network(image0, image1, threshold=1e-4, border=0)
        after = network.prepare_for_inference()(image0, image1, threshold=1e-4, border=0)
    assert len(before.index0) > 10
    assert torch.equal(before.index0, after.index0) and torch.equal(before.index1, after.index1)
    torch.testing.assert_close(after.confidence, before.confidence, rtol=1e-3, atol=1e-5)


def test_the_official_key_layout_is_kept():
    network = EfficientLoFTR()
    state = network.state_dict()
    assert len(state) == 447
    assert sum(p.numel() for p in network.parameters()) == 16_025_216
    for key, shape in {
        'backbone.layer0.rbr_dense.conv.weight': (64, 1, 3, 3),
        'backbone.layer0.rbr_1x1.bn.running_var': (64,),
        'backbone.layer1.0.rbr_identity.weight': (64,),
        'backbone.layer3.13.rbr_1x1.conv.weight': (256, 256, 1, 1),
        'loftr_coarse.layers.7.aggregate.weight': (256, 1, 4, 4),
        'loftr_coarse.layers.0.mlp.2.weight': (256, 512),
        'fine_preprocess.layer3_outconv.weight': (256, 256, 1, 1),
        'fine_preprocess.layer1_outconv2.3.weight': (64, 128, 3, 3),
    }.items():
        assert tuple(state[key].shape) == shape, key


@pytest.mark.parametrize('shape', [(1, 1, 48, 64), (1, 3, 64, 64), (64, 64)])
def test_an_image_of_the_wrong_shape_is_refused_with_the_shape_that_is_needed(shape):
    with pytest.raises(InputError, match='multiples of 32'):
        tiny_network().extract(torch.zeros(shape))


def test_an_unknown_mode_is_refused():
    with pytest.raises(InputError, match='optimized'):
        EfficientLoFTR(mode='fast')


def test_attention_equals_the_layer_written_as_in_the_paper():
    layer = AggregatedAttention(16, 2, 4).eval()
    x, source = torch.randn(1, 8, 12, 16), torch.randn(1, 12, 4, 16)
    with torch.no_grad():
        query = layer.norm1(layer.aggregate(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).flatten(1, 2)
        token = layer.norm1(F.max_pool2d(source.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)).flatten(1, 2)
        heads = [
            torch.softmax(q @ k.transpose(1, 2) / math.sqrt(8), -1) @ v
            for q, k, v in zip(
                layer.q_proj(query).split(8, 2),
                layer.k_proj(token).split(8, 2),
                layer.v_proj(token).split(8, 2),
                strict=True,
            )
        ]
        message = layer.merge(torch.cat(heads, 2)).transpose(1, 2).view(1, 16, 2, 3)
        message = F.interpolate(message, scale_factor=4.0, mode='bilinear', align_corners=False).permute(0, 2, 3, 1)
        expected = x + layer.norm2(layer.mlp(torch.cat([x, message], -1)))
        torch.testing.assert_close(layer(x, source), expected, rtol=1e-5, atol=1e-5)


def test_image_1_attends_to_the_updated_image_0():
    transformer = CoarseTransformer(16, 2, 1, 4, trained_cells=104).eval()
    x0, x1 = torch.randn(2, 1, 8, 8, 16)
    cross = transformer.layers[1]
    with torch.no_grad():
        updated0, updated1 = transformer(x0, x1)
        assert torch.equal(updated0, cross(x0, x1))
        assert torch.equal(updated1, cross(x1, updated0))


def test_rotary_positions_of_an_image_twice_the_trained_size_are_squeezed_by_two():
    transformer = CoarseTransformer(16, 2, 1, 1, trained_cells=8)
    small = transformer._rotary(torch.zeros(1, 8, 8, 16))[0].view(8, 8, 8)
    large = transformer._rotary(torch.zeros(1, 16, 16, 16))[0].view(16, 16, 8)
    smaller = transformer._rotary(torch.zeros(1, 4, 4, 16))[0].view(4, 4, 8)
    torch.testing.assert_close(large[1::2, 1::2], small)
    assert torch.equal(smaller, small[:4, :4])


def test_windows_are_cut_out_of_the_upsampled_map():
    fused = torch.randn(2, 4, 12, 16)
    batch, cell = torch.arange(2).repeat_interleave(12), torch.arange(12).repeat(2)
    full = F.interpolate(fused, scale_factor=2.0, mode='bilinear', align_corners=False)
    for margin in (0, 1):
        side = 8 + 2 * margin
        expected = F.unfold(full, side, stride=8, padding=margin).view(2, 4, side * side, 12).permute(0, 3, 2, 1)
        torch.testing.assert_close(full_windows(fused, 8, batch, cell, margin), expected.flatten(0, 1))


@pytest.mark.parametrize('dense_above', [-1.0, 0.5, 2.0])
def test_fusion_around_cells_equals_fusion_everywhere(monkeypatch, dense_above):
    monkeypatch.setattr(two_stage_refinement, 'DENSE_ABOVE', dense_above)
    monkeypatch.setattr(two_stage_refinement, 'NARROW', 0)
    fusion = randomize_batch_norms(FineFusion((8, 16, 24)))
    coarse = torch.randn(2, 24, 8, 12)
    pyramid = StageMaps(torch.randn(2, 8, 32, 48), torch.randn(2, 16, 16, 24), None)
    batch = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    cell = torch.tensor([0, 11, 84, 95, 40, 50, 51])  # the four corners, one inside; two inside the other image
    with torch.no_grad():
        everywhere = fusion(coarse, pyramid)
        around = fusion.around_cells(coarse, pyramid, batch, cell)
        for margin in (0, 1):
            torch.testing.assert_close(
                full_windows(around, 8, batch, cell, margin),
                full_windows(everywhere, 8, batch, cell, margin),
                rtol=1e-5,  # sums in another order
                atol=1e-5,
            )
        if dense_above == 2.0:
            assert (around == 0).all(1).any(), 'pixels far from every cell were computed'


def test_no_matches_give_empty_tensors():
    network = tiny_network()
    image = torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        matches = network(image, image, threshold=2.0)
    assert [tuple(field.shape) for field in matches] == [(0,), (0,), (0,), (0, 2), (0, 2), (0,), (0,)]


@pytest.mark.parametrize('mode, threshold', [('full', 0.9), ('optimized', 0.5)])
@pytest.mark.parametrize('shift', [(0.0, 0.0), (2.0, 0.0), (-1.0, 3.0), (0.5, -0.5), (1.5, 0.0)])
def test_a_scene_moved_by_whole_and_half_pixels_is_found_there(mode, threshold, shift):
    network = wave_network(mode=mode)
    with torch.no_grad():
        matches = network.match(scene(64, 96), scene(64, 96, (1, 2), shift), threshold, border=1)
    # Rows 1..5 and columns 1..8 of image 0 are inside the border of both images.
    expected0 = (torch.arange(1, 6)[:, None] * 12 + torch.arange(1, 9)).flatten()
    assert torch.equal(matches.index0, expected0)
    assert torch.equal(matches.index1, expected0 + 12 + 2)
    moved = matches.keypoints1 - matches.keypoints0
    expected = torch.tensor([16.0 + shift[0], 8.0 + shift[1]]).expand_as(moved)
    # Bilinear upsampling shifts the waves by up to 0.02 px, and the far pixel of the 3x3 keeps 0.4 % of the heat.
    torch.testing.assert_close(moved, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize('size0, size1', [((96, 128), (64, 96)), ((64, 96), (96, 128))])
def test_images_of_two_sizes_match_where_they_show_the_same(size0, size1):
    network = wave_network()
    with torch.no_grad():
        matches = network.match(scene(*size0), scene(*size1), 0.9, border=1)
    rows, columns = torch.meshgrid(torch.arange(1, 7), torch.arange(1, 11), indexing='ij')  # in the smaller image
    assert torch.equal(matches.index0, (rows * (size0[1] // 8) + columns).flatten())
    assert torch.equal(matches.index1, (rows * (size1[1] // 8) + columns).flatten())
    torch.testing.assert_close(matches.keypoints1, matches.keypoints0, rtol=0, atol=0.05)


def test_a_cell_stands_for_the_pixels_around_its_corner():
    with torch.no_grad():
        matches = wave_network().match(scene(64, 96), scene(64, 96), 0.9, border=0)
    corner = torch.stack([matches.index0 % 12, matches.index0 // 12], 1) * 8
    offset = matches.keypoints0 - corner
    assert offset.min() >= -4 and offset.max() <= 3 and torch.equal(offset, offset.round())


def test_padding_matches_nothing_and_the_border_is_counted_from_it():
    network = wave_network()
    valid = torch.zeros(1, 8, 12, dtype=torch.bool)
    valid[:, :6, :10] = True
    features = scene(64, 96)._replace(mask=valid)
    with torch.no_grad():
        matches = network.match(features, features, 0.9, border=2)
    rows, columns = torch.meshgrid(torch.arange(2, 4), torch.arange(2, 8), indexing='ij')
    assert torch.equal(matches.index0, (rows * 12 + columns).flatten())


@pytest.mark.parametrize('mode, threshold', [('full', 1e-4), ('optimized', 0.0)])
def test_a_batch_of_pairs_gives_what_the_pairs_give_alone(mode, threshold):
    network = distinct_network(mode=mode)
    images0 = torch.rand(3, 1, 96, 128)
    images1 = images0[..., 32:, 32:]
    with torch.no_grad():
        together = network(images0, images1, threshold, border=1)
        for index in range(3):
            alone = network(images0[index : index + 1], images1[index : index + 1], threshold, border=1)
            mine = [field[together.batch_index == index] for field in together]
            assert len(alone.index0) > 5
            assert torch.equal(mine[1], alone.index0) and torch.equal(mine[2], alone.index1)
            assert torch.equal(mine[3], alone.keypoints0)
            torch.testing.assert_close(mine[4], alone.keypoints1, rtol=0, atol=1e-3)
            torch.testing.assert_close(mine[5], alone.confidence, rtol=1e-4, atol=1e-6)


def test_an_image_matches_itself_moved_by_whole_tokens_through_the_whole_network():
    network = without_attention(distinct_network())
    scene_image = torch.rand(1, 1, 160, 192)
    with torch.no_grad():
        matches = network(scene_image[..., :128, :160], scene_image[..., 32:160, 32:192], threshold=0.01, border=3)
    # Convolutions see the image's border: away from it the maps are the same, and equal features are mutual nearest.
    right = matches.index1 == matches.index0 - 4 * 20 - 4
    assert right.sum() > 10 and right.float().mean() > 0.9
    moved = (matches.keypoints1 - matches.keypoints0)[right]
    assert ((moved + 32).abs().amax(1) < 2).float().mean() > 0.9


def test_the_training_output_equals_the_scores_of_inference():
    network = tiny_network().eval()
    image0, image1 = torch.rand(2, 2, 1, 64, 96)
    with torch.no_grad():
        matches = network(image0, image1, threshold=1e-4, border=0)
        output = network.training_output(image0, image1, *matches[:3])
        log_confidence = output.coarse_log_confidence[matches.batch_index, matches.index0, matches.index1]
        torch.testing.assert_close(log_confidence.exp(), matches.confidence, rtol=1e-4, atol=1e-6)
        best = output.pixel_log_confidence.flatten(1).argmax(1)
        pixel0, pixel1 = best // 64, best % 64
        index = torch.arange(len(pixel0))
        offset = network.refinement.expected_offset(output.subpixel_similarity, index, pixel0, pixel1)
    for pixel, cell, keypoints in (
        (pixel0, matches.index0, matches.keypoints0),
        (pixel1, matches.index1, matches.keypoints1),
    ):
        place = torch.stack([cell % 12 * 8 - 4 + pixel % 8, cell // 12 * 8 - 4 + pixel // 8], 1)
        expected = keypoints if pixel is pixel0 else keypoints - offset
        torch.testing.assert_close(place.float(), expected, rtol=0, atol=1e-3)


def test_every_weight_gets_a_gradient():
    network = tiny_network().train()
    index = torch.tensor([0, 1, 1])
    cell = torch.tensor([13, 20, 40])
    output = network.training_output(*torch.rand(2, 2, 1, 64, 96), index, cell, cell)
    offset = network.refinement.expected_offset(output.subpixel_similarity, torch.arange(3), cell, cell)
    loss = -output.coarse_log_confidence[index, cell, cell].mean() - output.pixel_log_confidence[:, 9, 9].mean()
    (loss + offset.square().sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert all(p.grad.abs().sum() > 0 for p in network.backbone.parameters())
