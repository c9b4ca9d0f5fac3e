"""SuperGlue compared with that of transformers, with the same random weights and SuperPoint."""

from pathlib import Path

import pytest

torch = pytest.importorskip('torch')

from loftr_ros.networks.keypoints import Keypoints  # noqa: E402
from loftr_ros.networks.superglue import SuperGlue  # noqa: E402
from loftr_ros.networks.superpoint import SuperPoint  # noqa: E402
from loftr_ros.weights.layouts import to_official  # noqa: E402

pytestmark = pytest.mark.slow

PHOTO = Path(__file__).parents[2] / 'shared' / 'data' / 'motorcycle_stereo' / 'motorcycle_left.png'
WIDTH, HEIGHT, SHIFT = 320, 240, (24, 16)
COUNT = 400


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def peers():
    """transformers' SuperGlue with its SuperPoint and ours, with the same random weights.

    They are made such that a shifted photograph has many matches: the layers change little, and the final projection
    keeps the descriptors.
    """
    transformers = pytest.importorskip('transformers', reason='needs transformers: make test-slow installs it')
    torch.manual_seed(0)
    # Its own default threshold is 0, the authors' is 0.2.
    theirs = transformers.SuperGlueForKeypointMatching(transformers.SuperGlueConfig(matching_threshold=0.2)).eval()
    detector = theirs.keypoint_detector
    for module in detector.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_normal_(module.weight)
    projection = theirs.final_projection.final_proj
    projection.weight.mul_(0.5).add_(20 * torch.eye(len(projection.bias)))
    for layer in theirs.gnn.layers:
        layer.mlp[-1].weight *= 0.05
    theirs.keypoint_encoder.encoder[-1].weight *= 0.05
    ours = SuperGlue().eval()
    ours.load_state_dict(to_official(theirs.state_dict()), strict=True)
    superpoint = SuperPoint().eval()
    superpoint.load_state_dict(to_official(detector.state_dict()), strict=True)
    # Random descriptors are alike; without their mean they differ.
    centre = raw_descriptors(superpoint, shifted_photo()[0]).mean((0, 2, 3))
    for last in (superpoint.convDb, detector.descriptor_decoder.conv_descriptor_b):
        last.bias -= centre
    return theirs, ours, superpoint


def raw_descriptors(superpoint, image):
    """The descriptors before they get length 1."""
    found = []
    with superpoint.convDb.register_forward_hook(lambda *call: found.append(call[-1])):
        superpoint.dense(image)
    return found[0]


def shifted_photo():
    """A grey photograph and itself shifted by SHIFT, (1, 1, H, W) in [0, 1]."""
    cv2 = pytest.importorskip('cv2')
    if not PHOTO.exists():
        pytest.skip(f'needs {PHOTO}')
    photo = cv2.resize(cv2.imread(str(PHOTO), cv2.IMREAD_GRAYSCALE), (WIDTH + SHIFT[0], HEIGHT + SHIFT[1]))
    photo = torch.from_numpy(photo)[None, None] / 255
    return photo[..., :HEIGHT, :WIDTH].contiguous(), photo[..., SHIFT[1] :, SHIFT[0] :].contiguous()


def shifted_keypoints(superpoint):
    """The keypoints of a photograph and of itself shifted by SHIFT, without padding."""
    for image in shifted_photo():
        found = superpoint(image, threshold=0.0153, budget=COUNT)
        assert found.valid.all()
        yield Keypoints(found.points, found.scores, found.descriptors)


@pytest.mark.parametrize('prepared', [False, True])
def test_superglue_gives_the_matches_of_transformers(prepared):
    theirs, ours, superpoint = peers()
    first, second = shifted_keypoints(superpoint)
    pair = [torch.stack(fields, dim=1) for fields in zip(first[:3], second[:3], strict=True)]  # (1, 2, N, ...)
    matches, scores, *_ = theirs._match_image_pair(pair[0], pair[2], pair[1], HEIGHT, WIDTH)
    if prepared:
        ours.prepare_for_inference()
    found = ours.match(first, second, (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    matched = found.partner0[0] >= 0
    moved = first.points[0, matched] - second.points[0, found.partner0[0, matched]]
    assert matched.sum() > 100
    assert moved.median(0).values.tolist() == pytest.approx(SHIFT, abs=0.5)
    assert torch.equal(found.partner0, matches[:, 0].long())
    assert torch.equal(found.partner1, matches[:, 1].long())
    # 18 layers and 100 iterations in float32 sums of another order.
    torch.testing.assert_close(found.confidence0, scores[:, 0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.confidence1, scores[:, 1], atol=1e-4, rtol=1e-3)
