"""SuperPoint's training step: labels of cells, correspondences for the descriptors, both losses, validation.

The detector learns by cross-entropy over the 65 channels of a cell (arXiv 1712.07629, eq. 2 and 3). The descriptors do
not use the hinge loss of the paper over all pairs of cells, which has two margins and two weights to balance about a
thousand wrong pairs against each right one. They use the dual soft-max of LoFTR and XFeat: descriptors are sampled at
keypoints as they are for matching, and the likelihood of each true pair is normalised over its row and its column.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from loftr_ros.networks.superpoint import CELL, DUSTBIN, SuperPoint
from loftr_ros.training.batch import UNKNOWN, PairBatch
from loftr_ros.training.settings import OptimizerConfig
from loftr_ros.training.step import MatchCount, StepOutput, TrainingStep
from loftr_ros.training.supervision import look_up

IGNORED = -100
"""Label of a cell without a loss."""

TEMPERATURE = 0.07
"""Temperature of the soft-max over cosines of descriptors, as in contrastive learning (InfoNCE)."""

NEAR_PX = CELL
"""Points at a smaller distance have similar descriptors and are not a wrong pair [px]; eq. 4 of the paper."""

VALIDATION_BUDGET, VALIDATION_THRESHOLD = 256, 0.005


class Correspondences(NamedTuple):
    """N points of each pair of a batch, most of them keypoints of image 0."""

    points0: Tensor  # (B, N, 2) [px]
    points1: Tensor  # (B, N, 2) [px], where they are in image 1
    valid: Tensor  # (B, N) bool, False for padding


class SuperPointTruth(NamedTuple):
    """Ground truth of a batch."""

    labels0: Tensor  # (B, H / 8, W / 8) int64, channel of the detector or IGNORED
    labels1: Tensor
    correspondences: Correspondences

    @property
    def counts(self) -> Tensor:
        """(2,) float64: labelled cells of both images, correspondences; the losses are divided by them."""
        labelled = sum(int((labels != IGNORED).sum()) for labels in (self.labels0, self.labels1))
        return torch.tensor([labelled, int(self.correspondences.valid.sum())], dtype=torch.float64)


class SuperPointStep(TrainingStep):
    """The network with its loss as one module; see `training.step.TrainingStep`."""

    def __init__(self, network: SuperPoint, config: OptimizerConfig):
        super().__init__(network, config)
        if not config.descriptor_weight:  # DistributedDataParallel refuses parameters that get no gradient
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(not name.startswith(('convD', 'bnD')))

    def truth(self, batch: PairBatch, seeds: list[int]) -> SuperPointTruth:
        """Return the ground truth of a batch; random choices of a pair depend on its own seed."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        labels = (
            cell_labels(_labels_or_unknown(keypoints, image), generators)
            for keypoints, image in ((batch.keypoints0, batch.image0), (batch.keypoints1, batch.image1))
        )
        return SuperPointTruth(*labels, correspondences(batch, self.config.descriptor_points, generators))

    def forward(self, batch: PairBatch, truth: SuperPointTruth, counts: Tensor) -> StepOutput:
        """Return the loss. `counts`: of `SuperPointTruth.counts`, averaged over processes."""
        counts = counts.to(batch.image0).clamp(min=1e-6)
        both = self.network.dense(torch.cat([batch.image0, batch.image1]))
        labels = torch.cat([truth.labels0, truth.labels1])
        logits = both.logits.float()
        detector = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction='sum') / counts[0]
        if not self.config.descriptor_weight:
            found, right = detection_precision(logits.detach(), labels)
            return StepOutput(detector, {'detector': detector.detach()}, found, right)
        maps0, maps1 = both.descriptors.chunk(2)
        points = truth.correspondences
        descriptors0 = self.network.descriptors_at(maps0, points.points0)
        descriptors1 = self.network.descriptors_at(maps1, points.points1)
        terms, right = descriptor_nll(descriptors0, descriptors1, points)
        descriptor = terms.sum() / counts[1]
        loss = detector + self.config.descriptor_weight * descriptor
        named = {'detector': detector.detach(), 'descriptor': descriptor.detach()}
        return StepOutput(loss, named, points.valid.sum().cpu(), right.sum().cpu())

    @torch.no_grad()
    def count_matches(self, batch: PairBatch) -> MatchCount:
        """Return how well the network, in eval mode, finds labelled keypoints, or with descriptors matches pairs."""
        if self.config.descriptor_weight:
            return count_nearest_neighbours(self.network, batch)
        images = ((batch.image0, batch.keypoints0), (batch.image1, batch.keypoints1))
        counts = [count_detections(self.network, *pair) for pair in images]
        return counts[0].plus(counts[1])


def cell_labels(keypoints: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Return the label of every cell (B, H / 8, W / 8): of several keypoints one at random (section 3.3).

    A cell without a keypoint is IGNORED if it has UNKNOWN pixels.

    Args:
        keypoints: (B, H, W) int8 as in Pair.
        generators: one of each image, on the CPU.
    """
    pixels = F.pixel_unshuffle(keypoints[:, None].float(), CELL)  # (B, 64, H / 8, W / 8)
    order = torch.stack([torch.rand(pixels.shape[1:], generator=generator) for generator in generators])
    is_keypoint = pixels == 1
    label = torch.where(is_keypoint, 1 + order.to(pixels), torch.zeros_like(pixels)).argmax(1)
    without = torch.where((pixels == UNKNOWN).any(1), IGNORED, DUSTBIN)
    return torch.where(is_keypoint.any(1), label, without)


def correspondences(batch: PairBatch, count: int, generators: list[torch.Generator]) -> Correspondences:
    """Return up to `count` points of every pair that both images show: keypoints of image 0, then other pixels."""
    visible = batch.points01.isfinite().all(-1)  # (B, H, W)
    points0 = batch.points01.new_zeros(len(batch), count, 2)
    points1, valid = torch.zeros_like(points0), torch.zeros(points0.shape[:2], dtype=torch.bool, device=points0.device)
    for number, generator in enumerate(generators):
        rank = torch.rand(visible.shape[1:], generator=generator).to(points0)
        if batch.keypoints0 is not None:
            rank = rank + (batch.keypoints0[number] == 1)
        rank = torch.where(visible[number], rank, torch.full_like(rank, -1)).flatten()
        best, index = rank.topk(min(count, rank.numel()))
        index = index[best >= 0]
        width = visible.shape[2]
        points0[number, : len(index)] = torch.stack([index % width, index // width], dim=1).to(points0)
        points1[number, : len(index)] = batch.points01[number].flatten(0, 1)[index]
        valid[number, : len(index)] = True
    return Correspondences(points0, points1, valid)


def descriptor_nll(descriptors0: Tensor, descriptors1: Tensor, points: Correspondences) -> tuple[Tensor, Tensor]:
    """Return -log P (B, N) of the true pairs, 0 for padding, and (B, N) bool: the pair is mutually the nearest.

    P is the dual soft-max of cosines over TEMPERATURE; -log P is the symmetric InfoNCE loss.

    Args:
        descriptors0, descriptors1: (B, N, D) of length 1, at the points.
    """
    similarity = descriptors0.float() @ descriptors1.float().transpose(1, 2) / TEMPERATURE  # (B, N, N)
    own = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
    near = (_distances(points.points0) < NEAR_PX) | (_distances(points.points1) < NEAR_PX)
    excluded = (near | ~points.valid[:, None] | ~points.valid[:, :, None]) & ~own
    similarity = similarity.masked_fill(excluded, -1e4)
    log_confidence = similarity.log_softmax(2) + similarity.log_softmax(1)
    terms = -log_confidence.diagonal(dim1=1, dim2=2)
    number = torch.arange(similarity.shape[1], device=similarity.device)
    right = (similarity.argmax(2) == number) & (similarity.argmax(1) == number) & points.valid
    return torch.where(points.valid, terms, torch.zeros_like(terms)), right


def detection_precision(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return in how many labelled cells the network finds a keypoint, and how many of these are correct."""
    predicted = logits.argmax(1)
    found = (predicted != DUSTBIN) & (labels != IGNORED)
    return found.sum().cpu(), (found & (labels != DUSTBIN)).sum().cpu()


def count_detections(network: SuperPoint, image: Tensor, keypoints: Tensor) -> MatchCount:
    """Return how many of the N best detections are within 1 and 3 px of one of the N labels."""
    total = MatchCount(0, 0, 0, 0)
    for one, labels in zip(image, keypoints, strict=True):
        y, x = (labels == 1).nonzero(as_tuple=True)
        if not len(x):
            continue
        found = network(one[None], threshold=0.0, budget=len(x), border=0)
        points = found.points[0][found.valid[0]]
        nearest = torch.cdist(points, torch.stack([x, y], dim=1).to(points)).amin(1)
        # A keypoint rounded to the nearest pixel has an error of up to 0.7 px.
        within = (int((nearest <= limit).sum()) for limit in (1.5, 3))
        total = total.plus(MatchCount(len(points), *within, len(x)))
    return total


def count_nearest_neighbours(network: SuperPoint, batch: PairBatch) -> MatchCount:
    """Return figures of the matches by mutual nearest neighbours of the keypoints of both images.

    `possible` are the keypoints of image 0 that image 1 shows, whether or not the detector found them there.
    """
    first, second = (
        network(image, threshold=VALIDATION_THRESHOLD, budget=VALIDATION_BUDGET)
        for image in (batch.image0, batch.image1)
    )
    total = MatchCount(0, 0, 0, 0)
    for number in range(len(batch)):
        points0, descriptors0, points1, descriptors1 = (
            field[number][found.valid[number]]
            for found in (first, second)
            for field in (found.points, found.descriptors)
        )
        truth = look_up(batch.points01, torch.full((len(points0),), number, device=points0.device), points0)
        possible = int(truth.isfinite().all(-1).sum())
        if not len(points0) or not len(points1):
            total = total.plus(MatchCount(0, 0, 0, possible))
            continue
        similarity = descriptors0 @ descriptors1.T
        best = similarity.argmax(1)
        mutual = similarity.argmax(0)[best] == torch.arange(len(points0), device=points0.device)
        error = (truth - points1[best]).norm(dim=-1)[mutual]  # NaN: no match there, so wrong
        total = total.plus(MatchCount(len(error), int((error <= 1).sum()), int((error <= 3).sum()), possible))
    return total


def _distances(points: Tensor) -> Tensor:
    return torch.cdist(points, points)


def _labels_or_unknown(keypoints: Tensor | None, image: Tensor) -> Tensor:
    return torch.full_like(image[:, 0], UNKNOWN, dtype=torch.int8) if keypoints is None else keypoints
