"""Training steps of patch descriptors: a teacher learns from pairs of views, a student from a teacher.

The teacher learns by InfoNCE (van den Oord et al., arXiv 1807.03748, eq. 4) in both directions. Wrong pixels are the
other points of the pair, and rings around the right place, because GCM must distinguish a pixel from its neighbours.
R2D2's sampler also takes most of its wrong pixels from the surroundings. R2D2's own loss, a differentiable average
precision, needs many more pairs of pixels for each of its histograms. The same loss, for averages over cells, trains
the descriptors for gcm's backbone `pool`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loftr_ros.errors import ConfigError
from loftr_ros.networks.gcm import DESCRIPTORS
from loftr_ros.networks.patch_descriptor import PatchDescriptor
from loftr_ros.training.batch import PairBatch
from loftr_ros.training.losses import descriptor_distillation
from loftr_ros.training.settings import OptimizerConfig, TrainingConfig
from loftr_ros.training.step import MatchCount, StepOutput, TrainingStep
from loftr_ros.training.superpoint import Correspondences, correspondences
from loftr_ros.weights.convert import load_network

TEMPERATURE = 0.07
"""Temperature of the soft-max over cosines."""

RING = tuple(
    (radius * math.cos(k * math.pi / 4), radius * math.sin(k * math.pi / 4)) for radius in (2, 4, 8) for k in range(8)
)
"""Offsets in x and y of the wrong pixels around the true place of a point [px]. Descriptors at 1 px may be similar,
because the maximum of the similarity is interpolated between pixels."""

NEAR_PX = 4.0
"""Points at a smaller distance are not wrong pixels for each other [px]."""

ALIKE = 0.9
"""Cosine from which a student's pixel counts as right in the log."""

CELL = 8
"""Side of the cells over which gcm's backbone `pool` averages descriptors for its first, coarse matches [px]."""

NEAR_CELL_PX = 12.0
"""NEAR_PX for averaged descriptors."""

VALIDATION_POINTS = 256

Dense = Callable[[Tensor], Tensor]
"""Images (B, 1, H, W) in [0, 1] -> descriptors (B, C, H, W)."""


class PatchTruth(NamedTuple):
    """Points whose descriptors are compared."""

    points: Correspondences

    @property
    def counts(self) -> Tensor:
        """(1,) float64: points; the loss is divided by it."""
        return torch.tensor([int(self.points.valid.sum())], dtype=torch.float64)


class ContrastiveStep(TrainingStep):
    """A patch descriptor without a teacher, trained on pairs of views."""

    network: PatchDescriptor

    @classmethod
    def from_config(cls, network: PatchDescriptor, config: TrainingConfig) -> TrainingStep:
        """Return the step of a run: this one, or with a teacher a DistillationStep."""
        if not config.teacher:
            return cls(network, config.optimizer)
        return DistillationStep(network, config.optimizer, load_teacher(config, network.size))

    def truth(self, batch: PairBatch, seeds: list[int]) -> PatchTruth:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return PatchTruth(correspondences(batch, self.config.descriptor_points, generators))

    def forward(self, batch: PairBatch, truth: PatchTruth, counts: Tensor) -> StepOutput:
        maps0, maps1 = self.network.dense(torch.cat([batch.image0, batch.image1])).chunk(2)
        with torch.autocast(maps0.device.type, enabled=False):  # bfloat16 cannot distinguish cosines near 1
            terms, right = info_nce(maps0, maps1, truth.points)
            pooled = pooled_info_nce(maps0, maps1, truth.points)
        contrast, pooled = (part.sum() / counts.to(part)[0].clamp(min=1e-6) for part in (terms, pooled))
        loss = contrast + self.config.pooled_weight * pooled
        named = {'contrast': contrast.detach(), 'pooled': pooled.detach()}
        return StepOutput(loss, named, truth.points.valid.sum().cpu(), right.sum().cpu())

    @torch.no_grad()
    def count_matches(self, batch: PairBatch) -> MatchCount:
        """Return how many points of image 0 have their nearest descriptor at the right pixel of image 1."""
        return count_nearest_pixels(self.network, batch)


class DistillationStep(TrainingStep):
    """A student that imitates a teacher's descriptors at all pixels (GCM, eq. 3). The teacher is not trained."""

    network: PatchDescriptor

    def __init__(self, network: PatchDescriptor, config: OptimizerConfig, teacher: Dense):
        super().__init__(network, config)
        self.teacher = teacher

    def truth(self, batch: PairBatch, seeds: list[int]) -> PatchTruth:
        """Return only a count, because every pixel is supervised."""
        none = batch.points01.new_zeros(len(batch), 1, 2)
        return PatchTruth(Correspondences(none, none, torch.ones(len(batch), 1, dtype=torch.bool)))

    def forward(self, batch: PairBatch, truth: PatchTruth, counts: Tensor) -> StepOutput:
        images = torch.cat([batch.image0, batch.image1])
        with torch.no_grad():
            target = self.teacher(images)
        own = self.network.dense(images)
        with torch.autocast(own.device.type, enabled=False):
            loss = descriptor_distillation(own, target)
        alike = F.cosine_similarity(own.detach(), target.float(), dim=1) > ALIKE
        return StepOutput(loss, {'distillation': loss.detach()}, torch.tensor(alike.numel()), alike.sum().cpu())

    @torch.no_grad()
    def count_matches(self, batch: PairBatch) -> MatchCount:
        return count_nearest_pixels(self.network, batch)


def load_teacher(config: TrainingConfig, size: int) -> Dense:
    """Return the dense descriptor that `config.teacher` names: a hand-made one of gcm, or weights of a PatchDescriptor.

    Raises:
        ConfigError: its descriptors do not have length `size`.
    """
    if config.teacher in DESCRIPTORS:
        rules = DESCRIPTORS[config.teacher]()
        found, teacher = rules.size, _stacked(rules)
    else:
        network, _ = load_network('patch_descriptor', config.teacher, config.accept_license)
        network = network.requires_grad_(False).prepare_for_inference()
        found, teacher = network.size, _DenseOf(network)
    if found != size:
        raise ConfigError(
            f'network.descriptor is {size}, the descriptors of teacher {config.teacher} have length {found}; make them '
            'equal'
        )
    return teacher


class _DenseOf(nn.Module):
    """A network whose forward is its `dense`; a module, so that the step moves it to its device."""

    def __init__(self, network: PatchDescriptor):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.dense(images)


def _stacked(descriptor: nn.Module) -> Dense:
    """Return a descriptor of single images as one of batches."""
    return lambda images: torch.stack([descriptor(image[None]).permute(2, 0, 1) for image in images])


def info_nce(maps0: Tensor, maps1: Tensor, points: Correspondences) -> tuple[Tensor, Tensor]:
    """Return the loss (B, N) of each point, 0 for padding, and (B, N) bool: both directions prefer the right place.

    Args:
        maps0, maps1: (B, C, H, W) of length 1 over C.
    """
    own0, own1 = descriptors_at(maps0, points.points0), descriptors_at(maps1, points.points1)  # (B, N, C)
    similarity = similarity_of_points(own0, own1, points, NEAR_PX)
    true = similarity.diagonal(dim1=1, dim2=2)
    terms, right = 0.0, points.valid
    for own, maps, centres, others in (
        (own0, maps1, points.points1, similarity),
        (own1, maps0, points.points0, similarity.transpose(1, 2)),
    ):
        around = ring_similarity(own, maps, centres) / TEMPERATURE  # (B, N, K)
        candidates = torch.cat([others, around], dim=2)
        terms = terms + candidates.logsumexp(2) - true
        right = right & (candidates.amax(2) == true)
    return torch.where(points.valid, terms, torch.zeros_like(terms)), right


def pooled_info_nce(maps0: Tensor, maps1: Tensor, points: Correspondences) -> Tensor:
    """Return the loss (B, N) of descriptors averaged over cells: each point by the cell that it is in."""
    own = []
    for maps, places in ((maps0, points.points0), (maps1, points.points1)):
        cells = F.avg_pool2d(maps, CELL)
        own.append(descriptors_at(cells, (places - (CELL - 1) / 2) / CELL, mode='nearest'))
    similarity = similarity_of_points(*own, points, NEAR_CELL_PX)
    true = similarity.diagonal(dim1=1, dim2=2)
    terms = similarity.logsumexp(1) + similarity.logsumexp(2) - 2 * true
    return torch.where(points.valid, terms, torch.zeros_like(terms))


def similarity_of_points(own0: Tensor, own1: Tensor, points: Correspondences, near_px: float) -> Tensor:
    """Return cosines over TEMPERATURE (B, N, N) of descriptors (B, N, C); -inf for padding and for points too near."""
    similarity = own0 @ own1.transpose(1, 2) / TEMPERATURE
    same = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
    near0, near1 = (torch.cdist(places, places) < near_px for places in (points.points0, points.points1))
    excluded = (near0 | near1 | ~points.valid[:, None] | ~points.valid[:, :, None]) & ~same
    return similarity.masked_fill(excluded, -torch.inf)


def ring_similarity(own: Tensor, maps: Tensor, centres: Tensor) -> Tensor:
    """Return the cosines (B, N, K) of descriptors (B, N, C) with those of `maps` around `centres`, -inf outside."""
    places = centres[:, :, None] + centres.new_tensor(RING)  # (B, N, K, 2)
    height, width = maps.shape[2:]
    inside = ((places >= 0) & (places <= places.new_tensor([width - 1, height - 1]))).all(-1)
    around = descriptors_at(maps, places.flatten(1, 2)).unflatten(1, places.shape[1:3])  # (B, N, K, C)
    cosine = torch.einsum('bnc,bnkc->bnk', own, around)
    return cosine.masked_fill(~inside, -torch.inf)


def descriptors_at(maps: Tensor, points: Tensor, mode: str = 'bilinear') -> Tensor:
    """Return descriptors (B, N, C) of length 1 at `points` (B, N, 2) [places of `maps` (B, C, H, W)]."""
    height, width = maps.shape[2:]
    grid = points / points.new_tensor([width - 1, height - 1]) * 2 - 1
    sampled = F.grid_sample(maps, grid[:, None], mode=mode, align_corners=True, padding_mode='border')
    return F.normalize(sampled[:, :, 0], dim=1).transpose(1, 2)


def count_nearest_pixels(network: PatchDescriptor, batch: PairBatch) -> MatchCount:
    """Return how many of VALIDATION_POINTS points of each image 0 have their nearest descriptor at the right pixel."""
    generators = [torch.Generator().manual_seed(0) for _ in range(len(batch))]
    points = correspondences(batch, VALIDATION_POINTS, generators)
    maps0, maps1 = network.dense(batch.image0), network.dense(batch.image1)
    own = descriptors_at(maps0, points.points0)
    best = (own @ maps1.flatten(2)).argmax(2)  # (B, N)
    width = maps1.shape[3]
    found = torch.stack([best % width, best.div(width, rounding_mode='floor')], dim=2)
    error = (found - points.points1).norm(dim=2)[points.valid]
    return MatchCount(len(error), int((error <= 1).sum()), int((error <= 3).sum()), len(error))
