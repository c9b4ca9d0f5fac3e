"""The part of a training step that depends on the network: ground truth of a batch, loss, validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from loftr_ros.networks.base import MatchingNetwork
from loftr_ros.networks.loftr import COARSE_STRIDE, FINE_STRIDE
from loftr_ros.training import losses
from loftr_ros.training.batch import PairBatch
from loftr_ros.training.settings import OptimizerConfig, TrainingConfig
from loftr_ros.training.supervision import (
    CELL,
    CoarseMatch,
    CoarseTruth,
    PixelTruth,
    cell_place,
    coarse_truth,
    look_up,
    pixel_truth,
    sample,
    window_offset,
)

CONFIDENCE = 0.2
"""Least confidence of a match in the figures of the training, as in the matchers (matcher.match_threshold)."""


class StepOutput(NamedTuple):
    """Loss of a batch, its terms, and the coarse matches of the network."""

    loss: Tensor
    terms: dict[str, Tensor]  # parts of the loss by name, for the log
    found: Tensor  # () coarse matches of sufficient confidence
    right: Tensor  # () those of them within a cell of the truth


class MatchCount(NamedTuple):
    """Figures of a set of pairs; they are sums, so they can be added."""

    found: int  # matches of the network
    within_1px: int
    within_3px: int
    possible: int  # true coarse matches

    @property
    def precision_1px(self) -> float:
        return self.within_1px / max(self.found, 1)

    @property
    def precision_3px(self) -> float:
        return self.within_3px / max(self.found, 1)

    @property
    def score(self) -> float:
        """Harmonic mean of precision and recall at 3 px."""
        return 2 * self.within_3px / max(self.found + self.possible, 1)

    def plus(self, other: MatchCount) -> MatchCount:
        return MatchCount(*(a + b for a, b in zip(self, other, strict=True)))


class TrainingStep(nn.Module):
    """A network with its loss as one module, so that DistributedDataParallel sees one forward."""

    def __init__(self, network: nn.Module, config: OptimizerConfig):
        super().__init__()
        self.network, self.config = network, config

    @classmethod
    def from_config(cls, network: nn.Module, config: TrainingConfig) -> TrainingStep:
        """Return the step of a run."""
        return cls(network, config.optimizer)

    def truth(self, batch: Any, seeds: list[int]) -> Any:
        """Return the ground truth of a batch; random choices of each item depend on its own seed.

        Therefore the supervision of an item is the same in every batch and process. The result has `counts` (K,)
        float64, the numbers of terms by which the losses are divided.
        """
        raise NotImplementedError

    def forward(self, batch: Any, truth: Any, counts: Tensor) -> StepOutput:
        """Return the loss. `counts` (K,): those of the truth, averaged over processes."""
        raise NotImplementedError

    def count_matches(self, batch: Any) -> MatchCount:
        """Return how well the network, in eval mode, matches a batch."""
        raise NotImplementedError


class CoarseToFineTruth(NamedTuple):
    """Ground truth of a batch for a coarse-to-fine network."""

    coarse: CoarseTruth
    picked: CoarseMatch  # the matches that are refined
    fine: PixelTruth | Tensor  # for `picked`; see the classes below
    num_fine: int  # supervised fine terms

    @property
    def counts(self) -> Tensor:
        """(3,) float64: true matches, unmatched cells, supervised fine terms."""
        unmatched = self.coarse.unmatched0.sum() + self.coarse.unmatched1.sum()
        return torch.tensor([self.coarse.match.cell0.numel(), int(unmatched), self.num_fine], dtype=torch.float64)


class CoarseToFineStep(TrainingStep):
    """Base class of the steps of networks with coarse cells and a fine stage."""

    network: MatchingNetwork

    def truth(self, batch: PairBatch, seeds: list[int]) -> CoarseToFineTruth:
        coarse = coarse_truth(batch.points01, batch.points10)
        picked = _sample_each_pair(coarse.match, seeds, self.config.fine_matches, self.config.fine_every)
        return CoarseToFineTruth(coarse, picked, *self._fine_truth(batch, picked))

    def forward(self, batch: PairBatch, truth: CoarseToFineTruth, counts: Tensor) -> StepOutput:
        output = self.network.training_output(batch.image0, batch.image1, *truth.picked)
        log_confidence, coarse, fine = self._losses(output, truth, counts.to(batch.image0))
        found, right = coarse_precision(log_confidence.detach(), batch.points01, batch.image1.shape[3] // CELL)
        return StepOutput(coarse + fine, {'coarse': coarse.detach(), 'fine': fine.detach()}, found, right)

    @torch.no_grad()
    def count_matches(self, batch: PairBatch) -> MatchCount:
        matches = self.network(batch.image0, batch.image1, threshold=CONFIDENCE, border=0)
        truth = look_up(batch.points01, matches.batch_index, matches.keypoints0.float())
        error = (truth - matches.keypoints1).norm(dim=-1)  # NaN: no match there, so wrong
        possible = coarse_truth(batch.points01, batch.points10).match.cell0
        return MatchCount(len(error), int((error <= 1).sum()), int((error <= 3).sum()), len(possible))

    def _fine_truth(self, batch: PairBatch, picked: CoarseMatch) -> tuple[PixelTruth | Tensor, int]:
        """Return the fine truth of the picked matches and the number of its terms."""
        raise NotImplementedError

    def _losses(self, output: Any, truth: CoarseToFineTruth, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log of the coarse confidence (B, L, S), the coarse and the weighted fine loss."""
        raise NotImplementedError

    def _coarse_loss(self) -> Callable:
        return losses.coarse_focal if self.config.coarse_loss == 'focal' else losses.coarse_nll


class TwoStageStep(CoarseToFineStep):
    """Efficient LoFTR: pixel pairs, then their sub-pixel offsets. The fine truth is a PixelTruth."""

    def _fine_truth(self, batch, picked):
        pixels = pixel_truth(batch.points01, batch.points10, picked)
        return pixels, pixels.match.numel()

    def _losses(self, output, truth, counts):
        coarse = self._coarse_loss()(output.coarse_log_confidence, truth.coarse.match, count=counts[0])
        pixel, subpixel = losses.two_stage_fine(output, self.network.refinement, truth.fine, counts[2])
        fine = self.config.fine_weight * pixel + self.config.subpixel_weight * subpixel
        return output.coarse_log_confidence, coarse, fine


class WindowStep(CoarseToFineStep):
    """LoFTR: the offset in a window of the fine map. The fine truth is (M, 2) [half windows]."""

    def _fine_truth(self, batch, picked):
        half_window = self.network.fine_preprocess.window // 2 * FINE_STRIDE
        columns1 = batch.image1.shape[3] // COARSE_STRIDE
        offset = window_offset(batch.points01, picked, columns1, half_window)
        return offset, int((offset.abs() <= 1).all(-1).sum())

    def _losses(self, output, truth, counts):
        log_confidence = output.log_confidence
        if self.network.coarse_matching.match_type == 'optimal_transport':
            gamma = 2.0 if self.config.coarse_loss == 'focal' else 0.0
            coarse = losses.optimal_transport_nll(
                log_confidence, truth.coarse, gamma=gamma, count=(counts[0], counts[1])
            )
            log_confidence = log_confidence[:, :-1, :-1]
        else:
            coarse = self._coarse_loss()(log_confidence, truth.coarse.match, count=counts[0])
        fine = losses.fine_l2(output.refinement, truth.fine, relative=True, count=counts[2])
        return log_confidence, coarse, self.config.fine_weight * fine


def coarse_precision(log_confidence: Tensor, points01: Tensor, columns1: int) -> tuple[Tensor, Tensor]:
    """Return how many cells are mutually best with enough confidence, and how many of them are right within a cell.

    Args:
        log_confidence: (B, L, S) without dustbins. columns1: coarse cells in a row of image 1.
    """
    best, column = log_confidence.max(2)  # (B, L)
    mutual = log_confidence.argmax(1).gather(1, column) == torch.arange(best.shape[1], device=best.device)
    batch_index, cell0 = (mutual & (best.exp() > CONFIDENCE)).nonzero(as_tuple=True)
    truth = points01[:, ::CELL, ::CELL].flatten(1, 2)[batch_index, cell0]
    error = (truth - cell_place(column[batch_index, cell0], columns1)).abs().amax(-1)
    return torch.tensor(len(cell0)), (error <= CELL).sum().cpu()  # NaN is no match: not within


def _sample_each_pair(match: CoarseMatch, seeds: list[int], most: int, every: int) -> CoarseMatch:
    parts = []
    for number in range(0, len(seeds), every):
        seed = seeds[number]
        own = match.batch_index == number
        generator = torch.Generator().manual_seed(seed)
        parts.append(sample(CoarseMatch(*(field[own] for field in match)), most, generator))
    return CoarseMatch(*(torch.cat(field) for field in zip(*parts, strict=True)))
