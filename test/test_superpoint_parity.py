"""SuperPoint compared with that of transformers, with the same random weights."""

from pathlib import Path

import pytest

torch = pytest.importorskip('torch')

from loftr_ros.networks.superpoint import SuperPoint  # noqa: E402
from loftr_ros.weights.layouts import to_official  # noqa: E402

pytestmark = pytest.mark.slow

PHOTO = Path(__file__).parents[2] / 'shared' / 'data' / 'motorcycle_stereo' / 'motorcycle_left.png'


@pytest.fixture(autouse=True)
def no_gradient():
    with torch.no_grad():
        yield


def photo(width, height):
    """A grey photograph, (1, 1, H, W) in [0, 1]."""
    cv2 = pytest.importorskip('cv2')
    if not PHOTO.exists():
        pytest.skip(f'needs {PHOTO}')
    grey = cv2.resize(cv2.imread(str(PHOTO), cv2.IMREAD_GRAYSCALE), (width, height))
    return torch.from_numpy(grey)[None, None] / 255


def peers(threshold=0.0153, budget=-1):
    """transformers' SuperPoint and ours with the same random weights. Its scores are near 1 / 65 = 0.0154."""
    transformers = pytest.importorskip('transformers', reason='needs transformers: make test-slow installs it')
    torch.manual_seed(0)
    # Without border: transformers removes the right and the bottom one at eight times the size of the image.
    config = transformers.SuperPointConfig(
        keypoint_threshold=threshold, max_keypoints=budget, border_removal_distance=0
    )
    theirs = transformers.SuperPointForKeypointDetection(config).eval()
    for module in theirs.modules():  # its own random weights make all scores equal to 1e-6
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
    ours = SuperPoint().eval()
    ours.load_state_dict(to_official(theirs.state_dict()), strict=True)
    return theirs, ours


@pytest.mark.parametrize('size', [(320, 240), (328, 248), (640, 480)])
def test_superpoint_gives_the_keypoints_and_descriptors_of_transformers(size):
    theirs, ours = peers()
    image = photo(*size)
    wanted = theirs(image.expand(-1, 3, -1, -1))
    scale = torch.tensor(size)
    found = ours(image, threshold=0.0153, budget=20000, border=0)
    count = int(found.valid.sum())
    assert count == int(wanted.mask.sum()) > 500
    order = wanted.scores[0].argsort(descending=True, stable=True)
    assert torch.equal(found.scores[0, :count], wanted.scores[0, order])
    # Equal scores may change places.
    ours_sorted, theirs_sorted = (
        torch.unique(points.round().long() @ torch.tensor([1, 10000]))
        for points in (found.points[0, :count], wanted.keypoints[0] * scale)
    )
    assert torch.equal(ours_sorted, theirs_sorted)
    same = (found.points[0, :count] - wanted.keypoints[0, order] * scale).abs().amax(1) < 0.01
    assert same.float().mean() > 0.99
    difference = (found.descriptors[0, :count] - wanted.descriptors[0, order])[same]
    assert difference.abs().max() < 1e-5


def test_the_budget_keeps_the_keypoints_that_transformers_keeps():
    theirs, ours = peers(budget=300)
    image = photo(320, 240)
    wanted = theirs(image.expand(-1, 3, -1, -1))
    found = ours(image, threshold=0.0153, budget=300, border=0)
    torch.testing.assert_close(found.scores[0], wanted.scores[0].sort(descending=True).values)
