"""What a match would cost a GPU in waits, and on which device its tensors are created; both without a GPU."""

import pytest

torch = pytest.importorskip('torch')

from test_matchers import texture  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

from loftr_ros.config import MatcherConfig  # noqa: E402
from loftr_ros.image import prepare  # noqa: E402
from loftr_ros.matchers.detector_free import EfficientLoftrMatcher  # noqa: E402
from loftr_ros.networks import coarse_matching, efficient_loftr, similarity  # noqa: E402

WAITING = ('__bool__', '__int__', '__float__', '__index__', 'item', 'tolist', 'cpu', 'numpy')
WAITING += ('nonzero', 'masked_select', 'bincount', 'unique', '_return_output')
"""Functions whose result, or its size, the host needs before it can go on; the last is that of torch.unique."""


class Waits(TorchFunctionMode):
    """Records each call for which the host would wait."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, arguments=(), named=None):
        name = function.__name__
        if name in WAITING:
            self.names.append(name)
        if name in ('__getitem__', '__setitem__'):  # an index of bool is a nonzero
            indices = arguments[1] if isinstance(arguments[1], tuple) else (arguments[1],)
            self.names += [name for index in indices if isinstance(index, torch.Tensor) and index.dtype == torch.bool]
        return function(*arguments, **(named or {}))


@pytest.fixture
def network_and_features(monkeypatch):
    """The shipped network and the features of two overlapping images; all rows are searched at once, as on a GPU."""
    monkeypatch.setattr(efficient_loftr, 'parts_of_rows', lambda *_: [])
    monkeypatch.setattr(similarity, 'CPU_BLOCK', similarity.GPU_BLOCK)
    monkeypatch.setattr(coarse_matching, 'FOLDING_DEVICES', ())
    matcher = EfficientLoftrMatcher(MatcherConfig(device='cpu', precision='fp32'))
    image = texture(256, 336)
    views = [prepare(view, multiple=matcher.network.side_multiple) for view in (image[:240, :320], image[16:, 16:])]
    return matcher.network, [matcher._features(view) for view in views]


def test_the_calls_that_the_host_waits_for_are_recorded():
    values = torch.arange(4.0)
    with Waits() as waits:
        values[values > 1]
        float(values[0])
        if values[0] < 1:
            values.tolist()
        values.nonzero()
        values[torch.tensor([0, 1])]
    assert waits.names == ['__getitem__', '__float__', '__bool__', 'tolist', 'nonzero']


def test_a_match_waits_no_more_often_than_it_must(network_and_features):
    network, features = network_and_features
    with torch.inference_mode(), Waits() as waits:
        matches = network.match(*features, threshold=0.2, max_matches=300)
    assert len(matches.confidence) == 300
    # Range of the similarities, candidates, matches.
    assert len(waits.names) <= 3, waits.names


def test_all_tensors_of_a_match_are_created_on_the_device_of_the_features(network_and_features):
    network, features = network_and_features
    expected = network.match(*features, threshold=0.2, max_matches=300)
    # A tensor that is created without a device is now on another one, and every operation with it fails.
    with torch.inference_mode(), torch.device('meta'):
        found = network.match(*features, threshold=0.2, max_matches=300)
    assert found.keypoints1.device.type == 'cpu'
    torch.testing.assert_close(found.keypoints1, expected.keypoints1)


def test_a_tensor_without_a_device_fails_in_the_test_above():
    features = torch.ones(3)
    with torch.device('meta'), pytest.raises(RuntimeError, match='meta'):
        features + torch.arange(3)
