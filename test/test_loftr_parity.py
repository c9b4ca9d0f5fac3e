"""LoFTR against kornia's, and optimal transport against transformers', with the same random weights."""

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')

from loftr_ros.networks.loftr import LoFTR  # noqa: E402
from loftr_ros.networks.sinkhorn import log_optimal_transport  # noqa: E402

pytestmark = pytest.mark.slow

PHOTO = Path(__file__).parents[2] / 'shared' / 'data' / 'motorcycle_stereo' / 'motorcycle_left.png'
SHIFT = (24, 16)  # px, whole cells: with random weights only places that look alike match


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def shifted_photo(width, height):
    """A grey photograph and itself shifted by SHIFT, (1, 1, H, W) in [0, 1]."""
    cv2 = pytest.importorskip('cv2')
    if not PHOTO.exists():
        pytest.skip(f'needs {PHOTO}')
    photo = cv2.resize(cv2.imread(str(PHOTO), cv2.IMREAD_GRAYSCALE), (width + SHIFT[0], height + SHIFT[1]))
    photo = torch.from_numpy(photo)[None, None] / 255
    return photo[..., :height, :width].contiguous(), photo[..., SHIFT[1] :, SHIFT[0] :].contiguous()


def peers(variant='original'):
    """kornia's LoFTR and ours with the same random weights, made such that a shifted photograph has many matches."""
    kornia = pytest.importorskip('kornia.feature', reason='needs kornia: make test-slow installs it')
    from kornia.feature.loftr.loftr import default_cfg

    torch.manual_seed(0)
    coarse = {**default_cfg['coarse'], 'temp_bug_fix': variant == 'fixed'}
    theirs = kornia.LoFTR(pretrained=None, config={**default_cfg, 'coarse': coarse})
    for name, parameter in theirs.named_parameters():
        if 'norm2' in name:
            parameter.mul_(0.1)  # a random transformer at full strength makes all features alike
    theirs.fine_preprocess.merge_feat.weight *= 0.5  # else a few of a thousand heat maps turn on rounding
    calibrate(theirs.backbone, shifted_photo(640, 480)[0])
    ours = LoFTR(positional_encoding=variant)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.eval(), ours.eval()


def calibrate(backbone, image):
    """Give batch norms the statistics of `image`, take the mean off the coarse features, make the fine ones smaller."""
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    before = []
    hook = backbone.layer3_outconv.register_forward_hook(lambda _module, inputs, _output: before.append(inputs[0]))
    backbone.train()(image)
    hook.remove()
    mean = torch.nn.functional.normalize(before[0].mean((0, 2, 3)), dim=0)
    weight = backbone.layer3_outconv.weight[:, :, 0, 0]
    weight -= (weight @ mean)[:, None] * mean
    backbone.layer1_outconv2[3].weight *= 0.3


def prepared(network):
    """The network as loaded, with batch norms folded, and with Winograd convolutions too."""
    return (
        network,
        copy.deepcopy(network).prepare_for_inference(plain=True),
        copy.deepcopy(network).prepare_for_inference(),
    )


def relative(have, want):
    return ((have - want).abs().max() / want.abs().max()).item()


@pytest.mark.parametrize('size', [(320, 240), (640, 480), (328, 248)])
@pytest.mark.parametrize('variant', ['original', 'fixed'])
def test_loftr_gives_the_matches_of_kornia(variant, size):
    theirs, ours = peers(variant)
    images = shifted_photo(*size)
    wanted = theirs(dict(zip(('image0', 'image1'), images, strict=True)))
    for network in prepared(ours):
        found = network(*images)
        assert len(found.index0) > 500
        assert torch.equal(found.keypoints0, wanted['keypoints0'])
        # Right cells; random fine weights do not find the middle of a window exactly.
        assert (found.keypoints0 - found.keypoints1).median(0).values.tolist() == pytest.approx(SHIFT, abs=0.5)
        # Float32 sums in another order; offsets spread over a pixel.
        assert (found.keypoints1 - wanted['keypoints1']).abs().max() < 1e-3
        assert (found.confidence - wanted['confidence']).abs().max() < 1e-4


@pytest.mark.parametrize('variant', ['original', 'fixed'])
def test_every_stage_gives_the_tensors_of_kornia(variant):
    theirs, ours = peers(variant)
    image0, image1 = shifted_photo(328, 248)
    wanted = [theirs.extract_features(image) for image in (image0, image1)]
    tokens = [feature['coarse'].flatten(2).transpose(1, 2) for feature in wanted]
    wanted_tokens = theirs.loftr_coarse(*tokens)
    # Winograd's transforms round ten times as much as the definition, in each of some ten layers.
    for network, tolerance in zip(prepared(ours), (1e-5, 1e-5, 3e-5), strict=True):
        features = [network.extract(image) for image in (image0, image1)]
        for have, want in zip(features, wanted, strict=True):
            assert relative(have.fine.permute(0, 3, 1, 2), want['fine']) < tolerance
        for have, want in zip(network.transform(*features), wanted_tokens, strict=True):
            assert relative(have, want) < tolerance


def test_padding_gives_the_matches_of_kornia():
    theirs, ours = peers()
    image0, image1 = shifted_photo(320, 240)
    padded1 = torch.nn.functional.pad(image1[..., :200, :280], (0, 40, 0, 40))
    mask0, mask1 = torch.ones(1, 240, 320, dtype=torch.bool), torch.zeros(1, 240, 320, dtype=torch.bool)
    mask1[:, :200, :280] = True
    coarse_masks = {'mask0': mask0[:, ::8, ::8], 'mask1': mask1[:, ::8, ::8]}
    theirs.coarse_matching.register_forward_pre_hook(lambda _module, inputs: inputs[2].update(coarse_masks))
    wanted = theirs({'image0': image0, 'image1': padded1, 'mask0': mask0, 'mask1': mask1})
    found = ours(image0, padded1, mask0=mask0, mask1=mask1)
    assert len(found.index0) > 300
    assert torch.equal(found.keypoints0, wanted['keypoints0'])
    assert (found.keypoints1 - wanted['keypoints1']).abs().max() < 1e-3
    assert (found.confidence - wanted['confidence']).abs().max() < 1e-4


@pytest.mark.parametrize('iterations', [3, 20, 100])
def test_optimal_transport_equals_that_of_transformers(iterations):
    superglue = pytest.importorskip(
        'transformers.models.superglue.modeling_superglue', reason='needs transformers: make test-slow installs it'
    )
    torch.manual_seed(0)
    scores, bin_score = 5 * torch.randn(2, 150, 130), torch.tensor(1.3)
    wanted = superglue.log_optimal_transport(scores, bin_score, iterations)
    torch.testing.assert_close(log_optimal_transport(scores, bin_score, iterations), wanted, atol=1e-5, rtol=1e-5)
