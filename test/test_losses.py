"""Losses against values computed by hand."""

import math

import numpy as np
import pytest
import torch

from loftr_ros.networks.coarse_matching import log_dual_softmax
from loftr_ros.networks.efficient_loftr import EfficientLoFTR, EfficientLoftrTraining
from loftr_ros.networks.loftr import LoFTR, LoftrRefinement
from loftr_ros.networks.similarity import Similarity
from loftr_ros.networks.sinkhorn import log_optimal_transport
from loftr_ros.networks.two_stage_refinement import TwoStageRefinement
from loftr_ros.training.losses import (
    LEAST_DEVIATION,
    coarse_focal,
    coarse_nll,
    descriptor_distillation,
    fine_l2,
    optimal_transport_nll,
    superglue_nll,
    two_stage_fine,
)
from loftr_ros.training.supervision import (
    CoarseMatch,
    CoarseTruth,
    PixelTruth,
    coarse_truth,
    pixel_truth,
    sample,
    window_offset,
)

torch.set_num_threads(1)


def matches(*rows):
    """Return CoarseMatch of rows (batch_index, cell0, cell1)."""
    return CoarseMatch(*torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1))


def log_of(probabilities):
    return torch.tensor(probabilities).log().requires_grad_()


NOTHING = matches()


# --- coarse ---------------------------------------------------------------------------------------------------------


def test_coarse_nll_is_the_mean_negative_logarithm_of_the_true_cells():
    """-(ln 0.5 + ln 0.2) / 2; the other cells count for nothing."""
    log_confidence = log_of([[[0.5, 0.9], [0.1, 0.3]], [[0.7, 0.2], [0.6, 0.4]]])
    loss = coarse_nll(log_confidence, matches((0, 0, 0), (1, 0, 1)))
    assert loss.item() == pytest.approx((math.log(2) + math.log(5)) / 2)
    loss.backward()
    expected = torch.zeros(2, 2, 2)
    expected[0, 0, 0] = expected[1, 0, 1] = -0.5
    assert log_confidence.grad.equal(expected)


def test_coarse_nll_of_a_dual_softmax_pulls_the_true_cells_together():
    """One token against two alike: P = 1 * 1/2. Descent raises the true similarity and lowers the other."""
    tokens1 = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], requires_grad=True)
    similarity = Similarity(torch.ones(1, 1, 2), tokens1, 1.0, None, None)
    loss = coarse_nll(log_dual_softmax(similarity), matches((0, 0, 0)))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert (tokens1.grad[0, 0] < 0).all() and (tokens1.grad[0, 1] > 0).all()


def test_coarse_focal_weighs_a_match_by_its_miss_to_the_power_of_gamma():
    """P 0.5 and 0.9, alpha 0.25, gamma 2: -0.25 (0.25 ln 0.5 + 0.01 ln 0.9) / 2."""
    loss = coarse_focal(log_of([[[0.5, 0.1], [0.2, 0.9]]]), matches((0, 0, 0), (0, 1, 1)), alpha=0.25, gamma=2.0)
    assert loss.item() == pytest.approx(-0.25 * (0.25 * math.log(0.5) + 0.01 * math.log(0.9)) / 2)


def test_coarse_focal_of_a_certain_match_is_zero_with_a_finite_gradient():
    log_confidence = torch.tensor([[[0.0, 1e-7]]], requires_grad=True)  # the second: P above 1 by rounding
    for gamma in (0.0, 2.0):
        loss = coarse_focal(log_confidence, matches((0, 0, 0), (0, 0, 1)), gamma=gamma)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-6) and log_confidence.grad.isfinite().all()


# --- optimal transport ----------------------------------------------------------------------------------------------

# Cells 0 and 1 of image 0, cells 0 and 1 of image 1, dustbins last.
ASSIGNMENT = [[[0.8, 0.1, 0.1], [0.1, 0.4, 0.5], [0.1, 0.25, 0.65]]]


def truth_of_assignment():
    """0 matches 0; cell 1 of both images matches nothing."""
    return CoarseTruth(matches((0, 0, 0)), torch.tensor([[False, True]]), torch.tensor([[False, True]]))


def test_optimal_transport_nll_is_the_mean_of_matches_plus_the_mean_of_dustbins():
    """-ln 0.8 - (ln 0.5 + ln 0.25) / 2."""
    loss = optimal_transport_nll(log_of(ASSIGNMENT), truth_of_assignment())
    assert loss.item() == pytest.approx(-math.log(0.8) - (math.log(0.5) + math.log(0.25)) / 2)


def test_optimal_transport_focal_weighs_matches_and_dustbins():
    """0.25 (0.2^2 (-ln 0.8) + (0.5^2 (-ln 0.5) + 0.75^2 (-ln 0.25)) / 2)."""
    loss = optimal_transport_nll(log_of(ASSIGNMENT), truth_of_assignment(), alpha=0.25, gamma=2.0)
    dustbins = (0.25 * math.log(2) + 0.5625 * math.log(4)) / 2
    assert loss.item() == pytest.approx(0.25 * (-0.04 * math.log(0.8) + dustbins))


def test_superglue_nll_is_the_mean_of_matches_and_unmatched_together():
    """-(ln 0.8 + ln 0.5 + ln 0.25) / 3 (eq. 10, divided by the number of terms)."""
    loss = superglue_nll(log_of(ASSIGNMENT), truth_of_assignment())
    assert loss.item() == pytest.approx(-math.log(0.8 * 0.5 * 0.25) / 3)


def test_superglue_nll_ignores_keypoints_that_are_neither_matched_nor_unmatched():
    truth = CoarseTruth(matches((0, 0, 0)), torch.zeros(1, 2, dtype=torch.bool), torch.tensor([[False, True]]))
    assert superglue_nll(log_of(ASSIGNMENT), truth).item() == pytest.approx(-math.log(0.8 * 0.25) / 2)


def test_the_dustbin_learns_from_unmatched_cells():
    """Two alike cells in each image, nothing matches: a larger dustbin score lowers the loss."""
    bin_score = torch.tensor(1.0, requires_grad=True)
    assignment = log_optimal_transport(torch.zeros(1, 2, 2), bin_score, 3)
    all_cells = torch.ones(1, 2, dtype=torch.bool)
    optimal_transport_nll(assignment, CoarseTruth(NOTHING, all_cells, all_cells)).backward()
    assert bin_score.grad < 0


# --- LoFTR's fine loss ----------------------------------------------------------------------------------------------


def refinement_of(expectation, deviation):
    return LoftrRefinement(torch.tensor(expectation, requires_grad=True), torch.tensor(deviation, requires_grad=True))


def test_fine_l2_divides_the_squared_error_by_the_variance_and_stops_its_gradient():
    """Errors (0.3, 0.4) and (0, -0.2), deviations 0.5 and 0.2: (0.25 / 0.25 + 0.04 / 0.04) / 2 = 1."""
    refinement = refinement_of([[0.5, 0.5], [0.0, 0.1]], [0.5, 0.2])
    loss = fine_l2(refinement, torch.tensor([[0.2, 0.1], [0.0, 0.3]]))
    assert loss.item() == pytest.approx(1.0)
    loss.backward()
    assert refinement.deviation.grad is None
    # d/dx of x^2 / sigma^2 / 2 is x / sigma^2.
    torch.testing.assert_close(refinement.expectation.grad, torch.tensor([[1.2, 1.6], [0.0, -5.0]]))


def test_fine_l2_in_relative_weights_does_not_grow_with_sharpness():
    """Weights 4 and 25 become 8/29 and 50/29: (0.25 * 8 + 0.04 * 50) / 29 / 2."""
    target = torch.tensor([[0.2, 0.1], [0.0, 0.3]])
    loss = fine_l2(refinement_of([[0.5, 0.5], [0.0, 0.1]], [0.5, 0.2]), target, relative=True)
    assert loss.item() == pytest.approx(4 / 29 / 2)
    sharper = fine_l2(refinement_of([[0.5, 0.5], [0.0, 0.1]], [0.25, 0.1]), target, relative=True)
    assert sharper.item() == pytest.approx(loss.item())


def test_fine_l2_leaves_out_targets_that_are_hidden_or_outside_the_window():
    refinement = refinement_of([[0.0, 0.0], [0.0, 0.0], [0.5, 0.0]], [1.0, 1.0, 1.0])
    loss = fine_l2(refinement, torch.tensor([[math.nan, math.nan], [0.0, 1.01], [0.0, 0.0]]))
    assert loss.item() == pytest.approx(0.25)
    loss.backward()
    assert refinement.expectation.grad.tolist() == [[0, 0], [0, 0], [1.0, 0]]


def test_fine_l2_bounds_the_weight_of_a_sharp_heat_map():
    loss = fine_l2(refinement_of([[0.1, 0.0]], [1e-5]), torch.zeros(1, 2))
    assert loss.item() == pytest.approx(0.01 / LEAST_DEVIATION**2)


# --- Efficient LoFTR's fine loss ------------------------------------------------------------------------------------


def two_stage_by_hand(spike):
    """Two matches, of the second: pixel 19 (row 2, column 3) of image 0 with pixel 20 (row 2, column 4) of image 1.

    In the widened window of 10 x 10 pixels, pixel 20 is row 3, column 5; `spike` is how far right of it the
    similarity of stage 2 peaks.
    """
    log_confidence = torch.full((2, 64, 64), math.log(0.01))
    log_confidence[1, 19, 20] = math.log(0.3)
    similarity = torch.zeros(2, 64, 100)
    if spike is not None:
        similarity[1, 19, 35 + spike] = 1e5
    return EfficientLoftrTraining(torch.zeros(1, 1, 1), log_confidence.requires_grad_(), similarity.requires_grad_())


def one_pixel_pair(offset):
    index = torch.tensor([[1], [19], [20]])
    return PixelTruth(*index, torch.tensor([offset]))


REFINEMENT = TwoStageRefinement(window=8, subpixel_channels=8, temperature=10.0, subpixel_offset=0)


def test_stage_one_is_the_negative_logarithm_of_the_true_pixel_pair():
    loss = two_stage_fine(two_stage_by_hand(None), REFINEMENT, one_pixel_pair([0.0, 0.0]))
    assert loss.pixel.item() == pytest.approx(-math.log(0.3))


@pytest.mark.parametrize(('spike', 'expected_offset'), [(None, 0.0), (0, 0.0), (1, 1.0), (-1, -1.0)])
def test_stage_two_is_the_squared_distance_of_expected_and_true_offset(spike, expected_offset):
    """Without a spike all 3 x 3 pixels are alike and their mean is the middle; the true offset is (0.3, 0.4)."""
    loss = two_stage_fine(two_stage_by_hand(spike), REFINEMENT, one_pixel_pair([0.3, 0.4]))
    assert loss.subpixel.item() == pytest.approx((expected_offset - 0.3) ** 2 + 0.4**2)


# --- distillation ---------------------------------------------------------------------------------------------------


def test_distillation_is_one_minus_the_absolute_cosine_over_all_pixels():
    """Pixels at 0, 90, 180 and 60 degrees to the teacher: 1 - |cos| = 0, 1, 0, 1/2; the lengths do not matter."""
    student = torch.tensor([[3.0, 0], [0, 2], [-1, 0], [0.5, 0.75**0.5]]).T.reshape(1, 2, 2, 2).requires_grad_()
    teacher = torch.tensor([[5.0, 0]] * 4).T.reshape(1, 2, 2, 2).requires_grad_()
    loss = descriptor_distillation(student, teacher)
    assert loss.item() == pytest.approx(1.5 / 4)
    loss.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


# --- all ------------------------------------------------------------------------------------------------------------


def losses_of(log_confidence, assignment, refinement, target, output, truth, pixels, **kwargs):
    unmatched = {} if not kwargs else {'count': (kwargs['count'], kwargs['count'])}
    return [
        coarse_nll(log_confidence, truth.match, **kwargs),
        coarse_focal(log_confidence, truth.match, **kwargs),
        optimal_transport_nll(assignment, truth, **unmatched),
        superglue_nll(assignment, truth, **kwargs),
        fine_l2(refinement, target, **kwargs),
        fine_l2(refinement, target, relative=True, **kwargs),
        *two_stage_fine(output, REFINEMENT, pixels, **kwargs),
    ]


@pytest.mark.parametrize('kwargs', [{}, {'count': 0}, {'count': torch.tensor(0.0)}])
def test_without_matches_every_loss_is_zero_with_a_gradient_of_zero(kwargs):
    log_confidence, assignment = log_of([[[0.5, 0.5]]]), log_of(ASSIGNMENT)
    refinement = LoftrRefinement(torch.empty(0, 2, requires_grad=True), torch.empty(0))
    output = two_stage_by_hand(None)
    none = torch.zeros(1, 2, dtype=torch.bool)
    empty = torch.empty(0, dtype=torch.int64)
    truth, pixels = CoarseTruth(NOTHING, none, none), PixelTruth(empty, empty, empty, torch.empty(0, 2))
    values = losses_of(log_confidence, assignment, refinement, torch.empty(0, 2), output, truth, pixels, **kwargs)
    assert [value.item() for value in values] == [0.0] * 8
    sum(values).backward()
    for tensor in (log_confidence, assignment, output.pixel_log_confidence, output.subpixel_similarity):
        assert not tensor.grad.any()  # NaN would be true
    assert refinement.expectation.grad.shape == (0, 2)


def test_losses_of_two_processes_by_their_mean_count_average_to_that_of_the_joined_batch():
    """Three matches in the first pair, one in the second: each divides by 2."""
    log_confidence = log_of([[[0.5, 0.1, 0.2], [0.2, 0.9, 0.3], [0.3, 0.2, 0.4]], [[0.7] * 3] * 3])
    first, second = matches((0, 0, 0), (0, 1, 1), (0, 2, 2)), matches((1, 1, 1))
    joined = coarse_nll(log_confidence, matches((0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 1, 1)))
    parts = [coarse_nll(log_confidence, part, count=torch.tensor(2.0)) for part in (first, second)]
    assert (sum(parts) / 2).item() == pytest.approx(joined.item())
    alone = [coarse_nll(log_confidence, part, count=torch.tensor(0.5)) for part in (second, NOTHING)]
    assert (sum(alone) / 2).item() == pytest.approx(-math.log(0.7))


# --- with the networks ----------------------------------------------------------------------------------------------


def shifted_batch(dx, size=(64, 64)):
    """Return images (1, 1, H, W) of noise and points of a shift by dx whole pixels to the right."""
    height, width = size
    generator = np.random.default_rng(3)
    wide = generator.random((height, width + abs(dx)), dtype=np.float32)
    image0, image1 = wide[:, dx:], wide[:, :width]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))

    def points(step):
        inside = (x + step >= 0) & (x + step < width)
        return torch.from_numpy(np.where(inside[..., None], np.stack([x + step, y], axis=-1), np.float32(np.nan)))[None]

    images = [torch.from_numpy(image.copy())[None, None] for image in (image0, image1)]
    return *images, points(dx), points(-dx)


def test_efficient_loftr_gets_a_finite_gradient_in_every_parameter():
    torch.manual_seed(0)
    network = EfficientLoFTR((4, 4, 8, 16), (1, 1, 1), layers=1, heads=2, subpixel_channels=2, subpixel_offset=0)
    image0, image1, points01, points10 = shifted_batch(3)
    match = sample(coarse_truth(points01, points10).match, 8, torch.Generator().manual_seed(0))
    output = network.training_output(image0, image1, *match)
    pixels = pixel_truth(points01, points10, match)
    fine = two_stage_fine(output, network.refinement, pixels)
    (coarse_nll(output.coarse_log_confidence, match) + fine.pixel + fine.subpixel).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize('match_type', ['dual_softmax', 'optimal_transport'])
def test_loftr_gets_a_finite_gradient_in_every_parameter(match_type):
    torch.manual_seed(0)
    network = LoFTR(8, (8, 8, 16), ('self', 'cross'), heads=2, match_type=match_type)
    image0, image1, points01, points10 = shifted_batch(3)
    truth = coarse_truth(points01, points10)
    match = sample(truth.match, 8, torch.Generator().manual_seed(0))
    output = network.training_output(image0, image1, *match)
    target = window_offset(points01, match, columns1=8, half_window_px=4.0)
    assert (target == torch.tensor([0.75, 0.0])).all()
    coarse = (
        coarse_nll(output.log_confidence, truth.match)
        if match_type == 'dual_softmax'
        else optimal_transport_nll(output.log_confidence, truth)
    )
    (coarse + fine_l2(output.refinement, target)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
