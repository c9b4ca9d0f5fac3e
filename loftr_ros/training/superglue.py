"""SuperGlue's training step: keypoints of a fixed SuperPoint, their true partners, the loss, validation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loftr_ros.errors import ConfigError
from loftr_ros.networks.keypoints import Keypoints
from loftr_ros.networks.superglue import SuperGlue
from loftr_ros.networks.superpoint import SuperPoint
from loftr_ros.training.adaptation import load_detector
from loftr_ros.training.batch import PairBatch
from loftr_ros.training.losses import superglue_nll
from loftr_ros.training.settings import OptimizerConfig, TrainingConfig
from loftr_ros.training.step import CONFIDENCE, MatchCount, StepOutput, TrainingStep
from loftr_ros.training.supervision import CoarseMatch, CoarseTruth, look_up

MATCHED_PX, UNMATCHED_PX = 3.0, 5.0
"""Keypoints with a smaller distance are partners; with a larger distance to all, unmatched; else uncertain [px]."""

DETECTION_THRESHOLD = 0.005


class SuperGlueTruth(NamedTuple):
    """Keypoints of a batch and their true matches."""

    keypoints0: Keypoints
    keypoints1: Keypoints
    partners: CoarseTruth  # numbers of keypoints for cells

    @property
    def counts(self) -> Tensor:
        """(1,) float64: matches and unmatched keypoints of both images; the loss is divided by it."""
        partners = self.partners
        unmatched = partners.unmatched0.sum() + partners.unmatched1.sum()
        return torch.tensor([partners.match.cell0.numel() + int(unmatched)], dtype=torch.float64)


class SuperGlueStep(TrainingStep):
    """The network with its loss as one module; the detector is not trained."""

    def __init__(self, network: SuperGlue, config: OptimizerConfig, detector: SuperPoint):
        super().__init__(network, config)
        self.detector = detector.eval().requires_grad_(False)

    @classmethod
    def from_config(cls, network: SuperGlue, config: TrainingConfig) -> SuperGlueStep:
        if not config.detector:
            raise ConfigError(
                'detector is empty; SuperGlue is trained with the keypoints of a SuperPoint: give its weights'
            )
        detector = load_detector(config.detector)
        if detector.descriptor_channels != network.final_proj.in_channels:
            raise ConfigError(
                f'network.descriptor is {network.final_proj.in_channels}, the descriptors of {config.detector} have '
                f'length {detector.descriptor_channels}; make them equal'
            )
        return cls(network, config.optimizer, detector)

    @torch.no_grad()
    def truth(self, batch: PairBatch, _seeds: list[int]) -> SuperGlueTruth:
        """Return the keypoints of a batch with their partners."""
        keypoints0, keypoints1 = (self._detect(image) for image in (batch.image0, batch.image1))
        return SuperGlueTruth(keypoints0, keypoints1, true_partners(keypoints0, keypoints1, batch))

    def _detect(self, image: Tensor) -> Keypoints:
        return self.detector(image, threshold=DETECTION_THRESHOLD, budget=self.config.keypoints)

    def forward(self, batch: PairBatch, truth: SuperGlueTruth, counts: Tensor) -> StepOutput:
        """Return the loss. `counts`: of `SuperGlueTruth.counts`, averaged over processes."""
        assignment = self.network.log_assignment(truth.keypoints0, truth.keypoints1, *_sizes(batch))
        loss = superglue_nll(assignment, truth.partners, counts.to(batch.image0)[0])
        found, right = assignment_precision(assignment.detach(), truth, batch)
        return StepOutput(loss, {'assignment': loss.detach()}, found, right)

    @torch.no_grad()
    def count_matches(self, batch: PairBatch) -> MatchCount:
        """Return how well the network, in eval mode, matches a batch; `possible` are the true partners."""
        truth = self.truth(batch, [])
        found = self.network.match(truth.keypoints0, truth.keypoints1, *_sizes(batch), threshold=CONFIDENCE)
        number, index0 = (found.partner0 >= 0).nonzero(as_tuple=True)
        target = look_up(batch.points01, number, truth.keypoints0.points[number, index0])
        error = (target - truth.keypoints1.points[number, found.partner0[number, index0]]).norm(dim=-1)
        within = (int((error <= limit).sum()) for limit in (1, 3))  # NaN: no partner there, so wrong
        return MatchCount(len(error), *within, len(truth.partners.match.cell0))


def true_partners(keypoints0: Keypoints, keypoints1: Keypoints, batch: PairBatch) -> CoarseTruth:
    """Return which keypoints show the same point (SuperGlue, section 4 and supplement).

    Partners are mutually nearest and within MATCHED_PX in both images. A keypoint is unmatched when the other image
    does not show its point, or has no keypoint within UNMATCHED_PX of it.
    """
    distance01 = _distances(batch.points01, keypoints0, keypoints1)  # (B, N0, N1) in image 1
    distance10 = _distances(batch.points10, keypoints1, keypoints0).transpose(1, 2)  # in image 0
    distance = torch.maximum(distance01, distance10)
    best0, partner0 = distance.min(2)
    partner1 = distance.argmin(1)
    own = torch.arange(distance.shape[1], device=distance.device)
    mutual = (partner1.gather(1, partner0) == own) & (best0 < MATCHED_PX)
    batch_index, index0 = mutual.nonzero(as_tuple=True)
    match = CoarseMatch(batch_index, index0, partner0[batch_index, index0])
    unmatched0 = keypoints0.valid & (distance01.amin(2) > UNMATCHED_PX)
    unmatched1 = keypoints1.valid & (distance10.amin(1) > UNMATCHED_PX)
    # A partner found with the map of the other image is valid even if its own map has none.
    unmatched0[match.batch_index, match.cell0] = False
    unmatched1[match.batch_index, match.cell1] = False
    return CoarseTruth(match, unmatched0, unmatched1)


def assignment_precision(assignment: Tensor, truth: SuperGlueTruth, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Return how many keypoints are mutually best with enough confidence, and how many of them are correct."""
    inner = assignment[:, :-1, :-1]
    best, partner = inner.max(2)
    own = torch.arange(inner.shape[1], device=inner.device)
    found = (inner.argmax(1).gather(1, partner) == own) & (best.exp() > CONFIDENCE)
    number, index0 = found.nonzero(as_tuple=True)
    target = look_up(batch.points01, number, truth.keypoints0.points[number, index0])
    error = (target - truth.keypoints1.points[number, partner[number, index0]]).norm(dim=-1)
    return found.sum().cpu(), (error <= MATCHED_PX).sum().cpu()


def _distances(points: Tensor, of: Keypoints, to: Keypoints) -> Tensor:
    """Return distances (B, N, M) [px] in the other image from the positions of keypoints `of` to keypoints `to`.

    Infinite where it does not show them, and for padding.
    """
    number, index = of.valid.nonzero(as_tuple=True)
    target = torch.full_like(of.points, float('inf'))
    found = look_up(points, number, of.points[number, index])
    target[number, index] = torch.where(found.isfinite(), found, torch.full_like(found, float('inf')))
    distance = (target[:, :, None] - to.points[:, None]).norm(dim=-1)
    return distance.masked_fill(~to.valid[:, None], float('inf'))


def _sizes(batch: PairBatch) -> tuple[tuple[int, int], tuple[int, int]]:
    return tuple(batch.image0.shape[2:]), tuple(batch.image1.shape[2:])
