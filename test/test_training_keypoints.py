"""Labels of keypoints, drawn shapes, and SuperPoint's training step, on data whose keypoints are known."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
cv2 = pytest.importorskip('cv2')

from loftr_ros.networks.superpoint import DUSTBIN, SuperPoint  # noqa: E402
from loftr_ros.training.augmentation import paste_occluders  # noqa: E402
from loftr_ros.training.batch import UNKNOWN, Pair, collate  # noqa: E402
from loftr_ros.training.data import PairDataset  # noqa: E402
from loftr_ros.training.homography import photograph_pair  # noqa: E402
from loftr_ros.training.settings import DataConfig, HomographyConfig, OptimizerConfig  # noqa: E402
from loftr_ros.training.shapes import SHAPES, Canvas, shape_image  # noqa: E402
from loftr_ros.training.superpoint import (  # noqa: E402
    IGNORED,
    SuperPointStep,
    cell_labels,
    correspondences,
    descriptor_nll,
)

SMALL = {'widths': (8, 8, 16, 16), 'head': 16, 'descriptor': 16, 'downsample': 'stride', 'batch_norm': True}


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def plain_pair(size=64, keypoints0=(), keypoints1=(), shift=(0, 0)):
    """Two noisy images, image 1 shifted, with keypoints at the given pixels (x, y)."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (size + 16, size + 16)).astype(np.uint8)
    image0 = ground[:size, :size]
    image1 = ground[shift[1] : shift[1] + size, shift[0] : shift[0] + size]
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    points = []
    for sign in (-1, 1):
        moved = np.stack([x + sign * shift[0], y + sign * shift[1]], axis=-1)
        inside = ((moved >= 0) & (moved <= size - 1)).all(axis=-1)
        points.append(np.where(inside[..., None], moved, np.nan).astype(np.float32))
    labels = []
    for places in (keypoints0, keypoints1):
        label = np.zeros((size, size), np.int8)
        for px, py in places:
            label[py, px] = 1
        labels.append(label)
    return Pair(np.ascontiguousarray(image0), np.ascontiguousarray(image1), *points, *labels)


# Shapes


def test_a_shape_has_an_edge_at_every_keypoint_and_the_same_seed_draws_the_same():
    for seed in range(30):
        drawing = shape_image((128, 160), np.random.default_rng(seed))
        assert drawing.image.shape == (128, 160) and drawing.image.dtype == np.uint8
        again = shape_image((128, 160), np.random.default_rng(seed))
        assert np.array_equal(drawing.image, again.image) and np.array_equal(drawing.keypoints, again.keypoints)
        for x, y in np.rint(drawing.keypoints).astype(int):
            window = drawing.image[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9].astype(int)
            assert np.ptp(window) > 20, f'nothing to see at ({x}, {y}) of seed {seed}'


@pytest.mark.parametrize('make', SHAPES)
def test_shapes_on_one_canvas_do_not_touch(make):
    canvas = Canvas((200, 200), np.random.default_rng(3))
    for _ in range(40):
        before, keypoints = canvas.image.copy(), len(canvas.keypoints)
        occupied = canvas.occupied.astype(bool)
        canvas.add(make)
        assert np.array_equal(canvas.image[occupied], before[occupied])
        assert len(canvas.keypoints) >= keypoints
    assert canvas.occupied.any()


# Labels


def test_labels_follow_the_photograph_into_both_views():
    photograph = np.full((200, 240), 30, np.uint8)
    keypoints = np.array([[60.0, 50], [150, 60], [70, 140], [160, 130]])
    for x, y in keypoints.astype(int):
        cv2.circle(photograph, (int(x), int(y)), 4, 255, -1)
    labelled = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pair = photograph_pair(photograph, (96, 96), rng, HomographyConfig(), keypoints)
        for image, labels in ((pair.image0, pair.keypoints0), (pair.image1, pair.keypoints1)):
            assert (image[labels == 1] > 150).all()  # the middle of a bright dot
            labelled += int((labels == 1).sum())
        y, x = np.nonzero(pair.keypoints0 == 1)
        for place in pair.points01[y, x]:
            if np.isfinite(place).all():
                px, py = np.rint(place).astype(int)
                near = pair.keypoints1[max(py - 2, 0) : py + 3, max(px - 2, 0) : px + 3]
                assert (near == 1).any()
    assert labelled > 40


def test_labels_outside_the_photograph_are_unknown():
    pair = next(
        pair
        for pair in (
            photograph_pair(np.full((64, 64), 90, np.uint8), (64, 64), np.random.default_rng(seed), HomographyConfig(),
                            np.empty((0, 2)))
            for seed in range(50)
        )
        if (pair.image1 == 0).any()
    )  # fmt: skip
    assert (pair.keypoints1[pair.image1 == 0] == UNKNOWN).mean() > 0.95  # a border pixel may be a black mixture
    assert set(np.unique(pair.keypoints1)) <= {0, UNKNOWN}


def test_labels_under_and_beside_an_occluder_are_unknown():
    every = np.ones((64, 64), np.int8)
    pair = plain_pair()
    pair = Pair(pair.image0, pair.image1, pair.points01, pair.points10, every, every)
    for seed in range(10):
        occluded = paste_occluders(pair, np.random.default_rng(seed), most=3)
        changed = occluded.image0 != pair.image0
        assert (occluded.keypoints0[changed] == UNKNOWN).all()
    assert (occluded.keypoints0 == 1).any()


def test_a_pair_without_labels_among_labelled_ones_is_unknown():
    labelled = plain_pair(keypoints0=[(5, 6)])
    without = Pair(labelled.image0, labelled.image1, labelled.points01, labelled.points10)
    batch = collate([labelled, without])
    assert batch.keypoints0[0, 6, 5] == 1 and (batch.keypoints0[1] == UNKNOWN).all()
    assert collate([without]).keypoints0 is None


def test_the_label_of_a_cell_is_its_keypoint_s_pixel_or_the_dustbin_or_nothing():
    keypoints = torch.zeros(1, 24, 32, dtype=torch.int8)
    keypoints[0, 8 + 3, 16 + 5] = 1  # cell in row 1, column 2; pixel in row 3, column 5
    keypoints[0, 0, 0] = UNKNOWN  # spoils cell (0, 0)
    keypoints[0, 16, 24], keypoints[0, 17, 24] = 1, UNKNOWN  # a keypoint is known although its neighbour is not
    labels = cell_labels(keypoints, generators(1))[0]
    assert labels[1, 2] == 3 * 8 + 5
    assert labels[0, 0] == IGNORED
    assert labels[2, 3] == 0
    assert (labels == DUSTBIN).sum() == 12 - 3


def test_of_two_keypoints_in_a_cell_each_is_chosen_sometimes():
    keypoints = torch.zeros(1, 8, 8, dtype=torch.int8)
    keypoints[0, 0, 1] = keypoints[0, 7, 7] = 1
    chosen = {int(cell_labels(keypoints, [torch.Generator().manual_seed(seed)])) for seed in range(20)}
    assert chosen == {1, 63}


def test_correspondences_are_keypoints_first_and_only_what_both_images_show():
    pair = plain_pair(keypoints0=[(20, 30), (40, 10), (2, 50)], shift=(5, 0))  # x = 2 is outside image 1
    found = correspondences(collate([pair]), 6, generators(1))
    assert found.valid.all()
    assert {tuple(point) for point in found.points0[0, :2].tolist()} == {(20, 30), (40, 10)}
    assert torch.equal(found.points1, found.points0 - torch.tensor([5.0, 0]))


# Losses


def test_equal_descriptors_have_no_loss_and_permuted_ones_have_one():
    batch = collate([plain_pair(keypoints0=[(x, y) for x in (8, 24, 40) for y in (8, 24, 40)])])
    points = correspondences(batch, 12, generators(1))
    points = points._replace(valid=torch.arange(12)[None] < 9)
    own = torch.eye(12)[None]
    terms, right = descriptor_nll(own, own, points)
    assert terms.max() < 1e-3 and right.sum() == 9 and not terms[0, 9:].any()
    terms, right = descriptor_nll(own, own.roll(1, dims=1), points)
    assert terms[0, :9].min() > 1 and not right.any()


@pytest.mark.parametrize('descriptor_weight', [0.0, 1.0])
def test_some_steps_lower_the_loss(descriptor_weight):
    torch.manual_seed(0)
    network = SuperPoint(**SMALL, sampling='exact')
    step = SuperPointStep(network, OptimizerConfig(descriptor_weight=descriptor_weight, descriptor_points=32))
    batch = collate([plain_pair(keypoints0=[(20, 30), (40, 10)], keypoints1=[(12, 30), (32, 10)], shift=(8, 0))] * 2)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(25):
        truth = step.truth(batch, [0, 1])
        output = step(batch, truth, truth.counts)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    assert ('descriptor' in output.terms) == bool(descriptor_weight)
    if descriptor_weight:
        assert output.right > 0.9 * output.found


def test_a_batch_without_a_label_trains_the_descriptors_alone():
    step = SuperPointStep(SuperPoint(**SMALL, sampling='exact'), OptimizerConfig())
    pair = plain_pair(shift=(8, 0))
    batch = collate([Pair(pair.image0, pair.image1, pair.points01, pair.points10)])
    truth = step.truth(batch, [0])
    output = step(batch, truth, truth.counts)
    assert output.terms['detector'] == 0 and output.terms['descriptor'] > 0


def test_validation_counts_what_the_detector_and_the_descriptors_find():
    keypoints = [(x, y) for x in (12, 28, 44) for y in (12, 28, 44)]
    pair = plain_pair(keypoints0=keypoints, keypoints1=[(x - 8, y) for x, y in keypoints], shift=(8, 0))
    network = SuperPoint(**SMALL, sampling='exact').eval()
    plain = network.dense

    def dense(image):
        """A detector that knows the answer, and the descriptors of a cell from one image for both."""
        shift = 8 if torch.equal(image, batch.image1) else 0
        features = plain(batch.image0)
        logits = torch.zeros_like(features.logits)
        logits[:, DUSTBIN] = 20
        for x, y in keypoints:
            if x >= shift:
                cell = logits[0, :, y // 8, (x - shift) // 8]
                cell[DUSTBIN], cell[y % 8 * 8 + (x - shift) % 8] = 0, 10
        return features._replace(logits=logits, descriptors=features.descriptors.roll(-shift // 8, dims=3))

    batch = collate([pair])
    network.dense = dense
    detector = SuperPointStep(network, OptimizerConfig(descriptor_weight=0.0)).count_matches(batch)
    assert (detector.found, detector.within_1px, detector.possible) == (18, 18, 18)
    both = SuperPointStep(network, OptimizerConfig()).count_matches(batch)
    assert both.possible == 9 and both.within_1px == both.found >= 6  # the leftmost are in the border of image 1


def test_the_data_set_gives_shapes_with_labels():
    config = DataConfig(
        photograph_weight=0.0, panorama_weight=0.0, scene_weight=0.0, shape_weight=1.0, width=64, height=64, occluders=0
    )
    pairs = [PairDataset(config, 0, 20)[index] for index in range(20)]
    assert sum(int((pair.keypoints0 == 1).sum()) for pair in pairs) > 20
    assert not PairDataset(config, 0, 4, held_back=True).is_empty
