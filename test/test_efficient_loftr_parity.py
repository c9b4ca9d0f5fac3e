"""Efficient LoFTR against transformers' with the same random weights, up to the coarse matches.

Not beyond: in transformers 5.23 the fine stage divides by another scale, takes one soft-max over the wrong axis, and
its two lists of keypoints are not of the same pairs.
"""

import pytest

torch = pytest.importorskip('torch')

from data import shared_data  # noqa: E402

from loftr_ros.networks.efficient_loftr import EfficientLoFTR  # noqa: E402
from loftr_ros.weights.layouts import to_official  # noqa: E402

pytestmark = pytest.mark.slow

SHIFT = (64, 32)  # px, whole tokens of attention: with random weights only places that look exactly alike match

THRESHOLD = 0.1


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def shifted_photo(width, height):
    """A grey photograph and itself shifted by SHIFT, (1, 1, H, W) in [0, 1]."""
    cv2 = pytest.importorskip('cv2')
    photo = cv2.imread(str(shared_data('motorcycle_stereo') / 'motorcycle_left.png'), cv2.IMREAD_GRAYSCALE)
    photo = torch.from_numpy(cv2.resize(photo, (width + SHIFT[0], height + SHIFT[1])))[None, None] / 255
    return photo[..., :height, :width].contiguous(), photo[..., SHIFT[1] :, SHIFT[0] :].contiguous()


def peers():
    """transformers' network and ours with the same random weights, made such that a shifted photograph matches."""
    transformers = pytest.importorskip('transformers', reason='needs transformers: make test-slow installs it')
    torch.manual_seed(0)
    theirs = transformers.EfficientLoFTRForKeypointMatching(
        transformers.EfficientLoFTRConfig(coarse_matching_threshold=THRESHOLD)
    )
    for name, tensor in theirs.named_parameters():
        if tensor.dim() == 4:
            torch.nn.init.kaiming_normal_(tensor)
        elif 'norm' in name or 'identity' in name:
            (torch.nn.init.ones_ if name.endswith('weight') else torch.nn.init.zeros_)(tensor)
        elif tensor.dim() == 2:
            torch.nn.init.xavier_uniform_(tensor)
        if 'mlp.layer_norm.weight' in name:
            tensor.mul_(0.1)  # a random transformer at full strength makes all features alike
    backbone = theirs.efficientloftr.backbone
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    for block in (block for stage in backbone.stages for block in stage.blocks if block.identity is not None):
        for norm in (block.conv1.norm, block.conv2.norm):
            norm.weight *= 0.1  # else 14 blocks spread the image's border over all of it
    backbone.train()(shifted_photo(640, 480)[0])
    backbone.stages[-1].blocks[-1].identity.bias -= 1.0  # cuts off what all cells have in common
    ours = EfficientLoFTR()
    ours.load_state_dict(to_official(theirs.state_dict()), strict=True)
    return theirs.eval(), ours.eval()


def relative(have, want):
    return ((have - want).abs().max() / want.abs().max()).item()


@pytest.mark.parametrize('size', [(320, 256), (640, 480)])
def test_efficient_loftr_gives_the_coarse_matches_of_transformers(size):
    theirs, ours = peers()
    images = shifted_photo(*size)
    pair = torch.stack(images, 1).expand(1, 2, 3, *images[0].shape[2:])
    wanted_coarse, wanted_half, wanted_quarter = theirs.efficientloftr(pair).feature_maps
    wanted_cell1 = theirs(pair).matches[0, 1]  # of each cell of image 0, -1 for none
    expected = (wanted_cell1 >= 0).nonzero()[:, 0]
    assert len(expected) > 100
    for fused in (False, True):
        if fused:
            ours.prepare_for_inference()
        features = [ours.extract(image) for image in images]
        coarse = ours.loftr_coarse(*(f.coarse for f in features))
        for index in range(2):
            # Sums in another order, over up to 14 blocks and 8 layers.
            assert relative(features[index].maps.half, wanted_half[index : index + 1]) < 1e-5
            assert relative(features[index].maps.quarter, wanted_quarter[index : index + 1]) < 1e-5
            assert relative(coarse[index].permute(0, 3, 1, 2), wanted_coarse[:, index]) < 1e-5
        found = ours.match(*features, THRESHOLD, border=2)
        assert torch.equal(found.index0, expected)
        assert torch.equal(found.index1, wanted_cell1[expected])
        moved = (found.keypoints0 - found.keypoints1).median(0).values
        assert moved.tolist() == pytest.approx(SHIFT, abs=1.0)
