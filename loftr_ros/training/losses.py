"""The losses of the papers as functions of tensors; each returns one differentiable number.

M matches are given as index tensors (M,) int64. Without matches, a loss and its gradient are 0, not NaN.

`count`: a sum over matches is divided by this number instead of their number. With several processes it is the mean of
their numbers of matches. Then the average of their gradients (DistributedDataParallel) is that of the joint batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from loftr_ros.networks.efficient_loftr import EfficientLoftrTraining
from loftr_ros.networks.loftr import LoftrRefinement
from loftr_ros.networks.two_stage_refinement import TwoStageRefinement
from loftr_ros.training.supervision import CoarseMatch, CoarseTruth, PixelTruth

LEAST_DEVIATION = 0.05
"""Floor of a fine match's deviation [half windows], 0.2 px at LoFTR's 4: one sharp heat map must not dominate."""


class TwoStageLoss(NamedTuple):
    """Terms of Efficient LoFTR's fine loss, unweighted."""

    pixel: Tensor  # () stage 1
    subpixel: Tensor  # () stage 2 [px^2]


# --- coarse ---------------------------------------------------------------------------------------------------------


def coarse_nll(log_confidence: Tensor, match: CoarseMatch, count: float | Tensor | None = None) -> Tensor:
    """Return -1/M sum log P(cell0, cell1) of the dual soft-max (LoFTR, section 3.5, coarse-level supervision).

    Args:
        log_confidence: (B, L, S).
    """
    return _mean(-_at_matches(log_confidence, match), count)


def coarse_focal(
    log_confidence: Tensor,
    match: CoarseMatch,
    alpha: float = 0.25,
    gamma: float = 2.0,
    count: float | Tensor | None = None,
) -> Tensor:
    """Return -1/M sum alpha (1 - P)^gamma log P of the true matches (Lin et al., ICCV 2017, eq. 5; LoFTR's code).

    Args:
        log_confidence: (B, L, S) of the dual soft-max.
    """
    return _mean(_focal(_at_matches(log_confidence, match), alpha, gamma), count)


def optimal_transport_nll(
    log_assignment: Tensor,
    truth: CoarseTruth,
    alpha: float = 1.0,
    gamma: float = 0.0,
    count: tuple | None = None,
) -> Tensor:
    """Return the mean over matches plus the mean over unmatched cells of -alpha (1 - P)^gamma log P (LoFTR, 3.5).

    Unmatched cells of both images have the same weight and P of their dustbin. There are two means, as in the authors'
    code, because there are many more unmatched cells than matches. gamma 0 is the negative log-likelihood.

    Args:
        log_assignment: (B, L + 1, S + 1) of networks/sinkhorn.py, the dustbins last.
        count: of matches and of unmatched cells.
    """
    matched, unmatched = _assignment_terms(log_assignment, truth)
    count_matched, count_unmatched = count or (None, None)
    loss = _mean(_focal(matched, alpha, gamma), count_matched)
    return loss + _mean(_focal(unmatched, alpha, gamma), count_unmatched)


def superglue_nll(log_assignment: Tensor, truth: CoarseTruth, count: float | Tensor | None = None) -> Tensor:
    """Return -sum log P over matches and unmatched keypoints (SuperGlue, eq. 10), divided by the number of terms.

    The division, which the paper lacks, makes the loss independent of the number of keypoints.

    Args:
        log_assignment: (B, N + 1, M + 1), the dustbins last.
        truth: numbers of keypoints for cells. A keypoint that is neither in `match` nor unmatched (padding, or
            uncertain) has no term.
    """
    return _mean(-torch.cat(_assignment_terms(log_assignment, truth)), count)


# --- fine -----------------------------------------------------------------------------------------------------------


def fine_l2(
    refinement: LoftrRefinement, target: Tensor, relative: bool = False, count: float | Tensor | None = None
) -> Tensor:
    """Return 1/M sum |expectation - target|^2 / sigma^2 (LoFTR, section 3.5, fine-level supervision).

    sigma is the deviation of the heat map, at least LEAST_DEVIATION; it gets no gradient, because otherwise the network
    could reduce its loss by blurring. Matches whose target is NaN or outside the window are left out of sum and M.

    Args:
        refinement: of M matches.
        target: (M, 2) of `supervision.window_offset` [half windows].
        relative: divide the weights 1 / sigma^2 by their mean, so that sharp heat maps do not enlarge the loss.
    """
    supervised = (target.abs() <= 1).all(-1)  # False for NaN
    error = (refinement.expectation[supervised].float() - target[supervised]).square().sum(-1)
    weight = refinement.deviation[supervised].detach().float().clamp(min=LEAST_DEVIATION) ** -2
    if relative and len(weight):
        weight = weight / weight.mean()
    return _mean(weight * error, count)


def two_stage_fine(
    output: EfficientLoftrTraining,
    refinement: TwoStageRefinement,
    truth: PixelTruth,
    count: float | Tensor | None = None,
) -> TwoStageLoss:
    """Return the fine losses of Efficient LoFTR (section 3.4): log-likelihood of pixel pairs, L2 of their offsets.

    Args:
        output: of `EfficientLoFTR.training_output` at the coarse matches that `truth` was made for.
        refinement: that network's `refinement`.
    """
    log_confidence = output.pixel_log_confidence[truth.match, truth.pixel0, truth.pixel1].float()
    offset = refinement.expected_offset(output.subpixel_similarity.float(), truth.match, truth.pixel0, truth.pixel1)
    return TwoStageLoss(_mean(-log_confidence, count), _mean((offset - truth.offset).square().sum(-1), count))


# --- distillation ---------------------------------------------------------------------------------------------------


def descriptor_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1/|P| sum over all pixels of 1 - |cos(teacher, student)| (GCM, eq. 3); the teacher has no gradient.

    Args:
        student, teacher: (B, C, H, W) features of the same images.
    """
    return _mean(1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=1).abs())


def _mean(terms: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Return the sum over `count`, or over the number of terms; an empty sum keeps its (zero) gradient."""
    count = torch.as_tensor(terms.numel() if count is None else count, dtype=terms.dtype, device=terms.device)
    # Not clamped at 1: one match in two processes gives a count of 0.5.
    return terms.sum() / torch.where(count > 0, count, torch.ones_like(count))


def _focal(log_probability: Tensor, alpha: float, gamma: float) -> Tensor:
    # (1 - P)^gamma by expm1: exact near P = 1. The clamp avoids NaN if rounding makes P larger than 1.
    missing = -torch.expm1(log_probability.clamp(max=0))
    return -alpha * missing**gamma * log_probability


def _at_matches(log_probability: Tensor, match: CoarseMatch) -> Tensor:
    return log_probability[match.batch_index, match.cell0, match.cell1].float()


def _assignment_terms(log_assignment: Tensor, truth: CoarseTruth) -> tuple[Tensor, Tensor]:
    """Return log P (M,) of the matches and (U,) of the unmatched of both images."""
    dustbin0, dustbin1 = log_assignment[:, :-1, -1], log_assignment[:, -1, :-1]  # (B, L), (B, S)
    unmatched = torch.cat([dustbin0[truth.unmatched0], dustbin1[truth.unmatched1]]).float()
    return _at_matches(log_assignment, truth.match), unmatched
