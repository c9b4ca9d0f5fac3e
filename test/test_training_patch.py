"""Training steps of patch descriptors, on maps and pairs whose answer is known."""

import math

import numpy as np
import pytest
import torch
from test_matchers import texture

from loftr_ros.errors import ConfigError
from loftr_ros.networks.gcm import GradientDescriptor
from loftr_ros.networks.patch_descriptor import PatchDescriptor
from loftr_ros.training import patch_descriptor as steps
from loftr_ros.training.batch import Pair, collate
from loftr_ros.training.settings import OptimizerConfig, TrainingConfig
from loftr_ros.training.steps import make_step
from loftr_ros.training.superpoint import Correspondences
from loftr_ros.weights import Checkpoint, save

torch.set_num_threads(1)

SMALL = {'widths': (8, 8, 16), 'convolutions': 1, 'descriptor': 16, 'colours': 1}
SIZE = 64


def shifted_batch(shift=6):
    """Image 1 shows what is `shift` px to the right in image 0."""
    large = texture(SIZE, SIZE + shift)
    x, y = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
    points = []
    for sign in (-1, 1):
        moved = np.stack([x + sign * shift, y], axis=-1)
        inside = ((moved >= 0) & (moved <= SIZE - 1)).all(axis=-1)
        points.append(np.where(inside[..., None], moved, np.nan).astype(np.float32))
    return collate([Pair(large[:, :SIZE].copy(), large[:, shift:].copy(), *points)])


def one_hot_maps(height=32, width=32):
    """Return maps (1, H * W, H, W) in which every pixel has a direction of its own."""
    return torch.eye(height * width).T.reshape(1, height * width, height, width)


def correspondences(places0, places1):
    points = [torch.tensor(places, dtype=torch.float32)[None] for places in (places0, places1)]
    return Correspondences(*points, torch.ones(1, len(places0), dtype=torch.bool))


def test_the_loss_of_perfect_descriptors_is_that_of_orthogonal_wrong_ones():
    """Cosine 1 against N - 1 + 24 cosines of 0: log(1 + wrong e^(-1 / T)) in each direction."""
    maps = one_hot_maps()
    points = correspondences([(12, 12), (20, 20)], [(12, 12), (20, 20)])
    terms, right = steps.info_nce(maps, maps, points)
    # Pixels of the ring at 2 px, at 45 degrees, are between pixels; none has a share of the centre.
    wrong = 1 + len(steps.RING)
    expected = 2 * math.log1p(wrong * math.exp(-1 / steps.TEMPERATURE))  # 3e-5, of differences of 14 in float32
    assert terms.tolist()[0] == pytest.approx([expected] * 2, abs=2e-6)
    assert right.all()


def test_a_descriptor_that_prefers_a_pixel_of_the_ring_is_wrong():
    maps0, maps1 = one_hot_maps(), one_hot_maps()
    own = maps0[0, :, 12, 12]
    maps1[0, :, 12, 14] = own  # 2 px beside the true place, which is only at a cosine of 0.8
    maps1[0, :, 12, 12] = 0.8 * own + 0.6 * maps0[0, :, 0, 0]
    terms, right = steps.info_nce(maps0, maps1, correspondences([(12, 12), (20, 20)], [(12, 12), (20, 20)]))
    assert right.tolist() == [[False, True]]
    # In the other direction the ring is in the maps of image 0, where nothing else is like it.
    assert terms[0, 0] == pytest.approx(math.log1p(math.exp(0.2 / steps.TEMPERATURE)), abs=1e-3)


def test_points_near_each_other_are_not_each_others_wrong_pixels():
    maps = torch.ones(1, 4, 32, 32) / 2  # all alike
    near, apart = ([(12.0, 12.0), (12.0 + step, 12.0)] for step in (3, 5))
    loss_near, loss_apart = (steps.info_nce(maps, maps, correspondences(p, p))[0][0, 0].item() for p in (near, apart))
    assert loss_near == pytest.approx(2 * math.log(1 + len(steps.RING)), rel=1e-4)
    assert loss_apart == pytest.approx(2 * math.log(2 + len(steps.RING)), rel=1e-4)


def test_the_ring_ends_at_the_border_of_the_image():
    maps = torch.ones(1, 4, 32, 32) / 2
    points = correspondences([(0, 0)], [(0, 0)])
    inside = sum(x >= -1e-6 and y >= -1e-6 for x, y in steps.RING)
    similarity = steps.ring_similarity(steps.descriptors_at(maps, points.points0), maps, points.points0)
    assert 0 < similarity.isfinite().sum() <= inside == 9


def cell_maps(order):
    """Return maps (1, 16, 32, 32) whose 16 cells of 8 x 8 px have a direction each: cell n has that of order[n]."""
    cells = torch.eye(16)[list(order)].T.reshape(1, 16, 4, 4)
    return cells.repeat_interleave(steps.CELL, 2).repeat_interleave(steps.CELL, 3)


def test_points_are_compared_by_the_means_of_their_cells():
    # Cells 0 and 3 of image 0 are in the cells 5 and 3 of image 1; 20 px apart, so each is wrong for the other.
    points = correspondences([(2, 5), (28, 1)], [(9, 15), (25, 6)])
    order = list(range(16))
    order[5], order[0] = 0, 5
    alike = steps.pooled_info_nce(cell_maps(range(16)), cell_maps(order), points)
    wrong = steps.pooled_info_nce(cell_maps(range(16)), cell_maps(range(16)), points)
    assert alike.max() < 1e-5
    # Cosines of 0 with the true and with the wrong cell: log 2 in each direction.
    assert wrong[0, 0] == pytest.approx(2 * math.log(2), rel=1e-3)


def test_cells_near_each_other_are_not_each_others_wrong_ones():
    maps = torch.ones(1, 4, 32, 32) / 2  # all alike
    near, apart = ([(4.0, 4.0), (4.0 + step, 4.0)] for step in (11, 13))
    assert steps.pooled_info_nce(maps, maps, correspondences(near, near)).tolist() == [[0, 0]]
    loss = steps.pooled_info_nce(maps, maps, correspondences(apart, apart))
    assert loss[0].tolist() == pytest.approx([2 * math.log(2)] * 2)


def test_both_steps_learn_and_the_teacher_stays_as_it_is(tmp_path):
    torch.manual_seed(0)
    teacher = PatchDescriptor(**SMALL)
    save(tmp_path / 'teacher.safetensors', teacher.state_dict(), Checkpoint('teacher', 'patch_descriptor', SMALL))
    batch = shifted_batch()
    for config in (
        TrainingConfig(optimizer=OptimizerConfig(descriptor_points=64)),
        TrainingConfig(teacher=str(tmp_path / 'teacher.safetensors')),
    ):
        torch.manual_seed(1)
        step = make_step(PatchDescriptor(**SMALL), config)
        assert type(step).__name__ == ('DistillationStep' if config.teacher else 'ContrastiveStep')
        trained = [name for name, parameter in step.named_parameters() if parameter.requires_grad]
        assert all(name.startswith('network.') for name in trained)
        optimizer = torch.optim.Adam(step.network.parameters(), lr=1e-2)
        losses = []
        for _ in range(25):
            truth = step.truth(batch, [0])
            output = step(batch, truth, truth.counts)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            losses.append(output.loss.item())
        assert losses[-1] < 0.7 * losses[0]


def test_a_student_of_the_descriptor_by_rules_gets_its_maps():
    config = TrainingConfig(teacher='gradient')
    batch = shifted_batch()
    teacher = steps.load_teacher(config, 128)
    maps = teacher(torch.cat([batch.image0, batch.image1]))
    assert maps.shape == (2, 128, SIZE, SIZE)
    assert torch.equal(maps[1].permute(1, 2, 0), GradientDescriptor()(batch.image1))


def test_a_teacher_of_another_length_is_refused():
    with pytest.raises(ConfigError, match=r'network\.descriptor is 16, .* of teacher gradient have length 128'):
        make_step(PatchDescriptor(**SMALL), TrainingConfig(teacher='gradient'))


class Perfect:
    """A network whose descriptors of a pixel are its column and row in image 0, as directions."""

    def __init__(self, shift):
        self.shifts = iter((0, shift))

    def dense(self, image):
        height, width = image.shape[2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width) + next(self.shifts), indexing='ij')
        angles = torch.stack([x, y]) * (math.pi / 160)  # less than a half turn
        return torch.cat([angles.cos(), angles.sin()])[None] / 2**0.5


@pytest.mark.parametrize(('error', 'within_1px', 'within_3px'), [(0, True, True), (2, False, True), (4, False, False)])
def test_validation_counts_the_pixels_that_are_found(error, within_1px, within_3px):
    # Points whose place would be outside image 1 by the error are found at its border; they are few.
    found = steps.count_nearest_pixels(Perfect(6 + error), shifted_batch())
    assert found.found == found.possible == steps.VALIDATION_POINTS
    assert (found.within_1px > 0.9 * found.found) == within_1px
    assert (found.within_3px > 0.9 * found.found) == within_3px
