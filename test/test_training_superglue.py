"""SuperGlue's training step, on keypoints whose partners are known."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('cv2')

from loftr_ros.errors import ConfigError  # noqa: E402
from loftr_ros.networks.keypoints import Keypoints  # noqa: E402
from loftr_ros.networks.superglue import SuperGlue  # noqa: E402
from loftr_ros.networks.superpoint import SuperPoint  # noqa: E402
from loftr_ros.training.batch import Pair, collate  # noqa: E402
from loftr_ros.training.settings import OptimizerConfig, TrainingConfig  # noqa: E402
from loftr_ros.training.superglue import SuperGlueStep, true_partners  # noqa: E402
from loftr_ros.weights import Checkpoint, save  # noqa: E402

SIZE, SHIFT = 64, 8
SMALL_SUPERPOINT = {
    'widths': (8, 8, 16, 16), 'head': 16, 'descriptor': 16, 'downsample': 'stride', 'batch_norm': True,
    'sampling': 'exact',
}  # fmt: skip
SMALL = {'descriptor': 16, 'encoder': (8,), 'layers': ('self', 'cross'), 'heads': 4, 'sinkhorn_iterations': 10}


def shifted_batch():
    """Image 1 shows what is SHIFT to the right in image 0; its left part and image 1's right part have no partner."""
    x, y = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
    points = []
    for sign in (-1, 1):
        moved = np.stack([x + sign * SHIFT, y], axis=-1)
        inside = ((moved >= 0) & (moved <= SIZE - 1)).all(axis=-1)
        points.append(np.where(inside[..., None], moved, np.nan).astype(np.float32))
    image = np.zeros((SIZE, SIZE), np.uint8)
    return collate([Pair(image, image, *points)])


def keypoints(places, count=None):
    """Keypoints at places (x, y), padded to `count`, with descriptors that say which is which."""
    count = count or len(places)
    points = torch.zeros(1, count, 2)
    points[0, : len(places)] = torch.tensor(places, dtype=torch.float32).reshape(-1, 2)
    valid = torch.arange(count)[None] < len(places)
    return Keypoints(points, torch.ones(1, count), torch.eye(16)[None, :count], valid)


def test_partners_are_mutually_nearest_and_a_keypoint_that_is_not_shown_is_unmatched():
    keypoints0 = keypoints([(20, 10), (40, 30), (2, 50), (30, 50), (50, 20)], count=6)
    # Partners of 1 and 0; 4 px beside that of 3, too near to tell; nothing near that of 4; what image 0 does not show.
    keypoints1 = keypoints([(33, 31), (12, 10), (26, 50), (60, 40)], count=5)
    found = true_partners(keypoints0, keypoints1, shifted_batch())
    assert found.match.cell0.tolist() == [0, 1] and found.match.cell1.tolist() == [1, 0]
    assert found.unmatched0[0].tolist() == [False, False, True, False, True, False]
    assert found.unmatched1[0].tolist() == [False, False, False, True, False]


def test_of_two_keypoints_near_a_place_only_the_nearer_is_the_partner():
    found = true_partners(keypoints([(20, 10)]), keypoints([(13, 12), (12, 11)]), shifted_batch())
    assert found.match.cell1.tolist() == [1]
    assert not found.unmatched1.any()  # the other one is too near to be called unmatched


def test_without_keypoints_there_is_nothing_to_learn():
    found = true_partners(keypoints([], count=3), keypoints([(5, 5)], count=3), shifted_batch())
    assert not len(found.match.cell0) and not found.unmatched0.any()
    assert found.unmatched1[0].tolist() == [True, False, False]


class KnownDetector(torch.nn.Module):
    """Finds given keypoints in image 0 and others in image 1."""

    def __init__(self, *sets):
        super().__init__()
        self.sets, self.calls = sets, 0

    def forward(self, _image, threshold, budget):
        found = self.sets[self.calls % 2]
        self.calls += 1
        return Keypoints(*found)


def test_some_steps_teach_which_keypoints_are_partners_and_which_are_unmatched():
    torch.manual_seed(0)
    places0 = [(20, 10), (40, 30), (30, 50), (50, 20), (2, 40)]
    order = [3, 0, 2]
    first = keypoints(places0, count=7)
    second = keypoints([(places0[number][0] - SHIFT, places0[number][1]) for number in order], count=4)
    second = second._replace(descriptors=first.descriptors[:, [*order, 6]])
    network = SuperGlue(**SMALL)
    step = SuperGlueStep(network, OptimizerConfig(), KnownDetector(first, second))
    batch = shifted_batch()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        truth = step.truth(batch, [0])
        output = step(batch, truth, truth.counts)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert truth.counts.tolist() == [3 + 2]
    assert losses[-1] < 0.2 * losses[0]
    assert output.found == output.right == 3
    network.eval()
    count = step.count_matches(batch)
    assert (count.found, count.within_1px, count.possible) == (3, 3, 3)


def test_superglue_without_a_detector_says_what_it_needs():
    with pytest.raises(ConfigError, match='detector is empty'):
        SuperGlueStep.from_config(SuperGlue(**SMALL), TrainingConfig())


def test_descriptors_of_another_length_are_refused(tmp_path):
    path = tmp_path / 'superpoint.safetensors'
    settings = {**SMALL_SUPERPOINT, 'descriptor': 24}
    save(path, SuperPoint(**settings).state_dict(), Checkpoint('superpoint', 'superpoint', settings))
    with pytest.raises(ConfigError, match=r'network\.descriptor is 16.* length 24'):
        SuperGlueStep.from_config(SuperGlue(**SMALL), TrainingConfig(detector=str(path)))


def test_the_detector_is_not_trained_and_keeps_its_statistics(tmp_path):
    path = tmp_path / 'superpoint.safetensors'
    save(path, SuperPoint(**SMALL_SUPERPOINT).state_dict(), Checkpoint('superpoint', 'superpoint', SMALL_SUPERPOINT))
    step = SuperGlueStep.from_config(SuperGlue(**SMALL), TrainingConfig(detector=str(path)))
    before = {name: tensor.clone() for name, tensor in step.detector.state_dict().items()}
    batch = shifted_batch()
    step.network.train()
    truth = step.truth(batch, [0])
    assert truth.keypoints0.valid.any()
    step(batch, truth, truth.counts).loss.backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.detector.state_dict().items())
    assert not any(parameter.requires_grad for parameter in step.detector.parameters())
