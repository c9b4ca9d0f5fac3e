"""Similarities of two sets of features, computed block by block without an L x S matrix in memory.

They are float32 for features of any type: a confidence is the exponential of a difference of large numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from loftr_ros.networks.log_sum_exp import are_small

MASKED = -1e9
"""Similarity of a pair with a padded cell. It is finite, so that a completely masked row does not become NaN."""

CPU_BLOCK, GPU_BLOCK = 2**20, 2**26
"""Similarities in a block: 4 MiB fit into the cache of a CPU; a GPU is faster with fewer, larger blocks."""


class Similarity:
    """Scaled inner products of two sets of features, computed block by block.

    Args:
        features0, features1: (B, L, C) and (B, S, C).
        temperature: the similarity is <f0, f1> / (C * temperature).
        valid0, valid1: (B, L) and (B, S) bool, False for padding; None without padding.
        block_elements: similarities in one block; None chooses by device.
    """

    def __init__(self, features0, features1, temperature=1.0, valid0=None, valid1=None, block_elements=None):
        channels = features0.shape[-1]
        self.features0 = features0.float() / (math.sqrt(channels) * temperature)
        self.columns1 = (features1.float() / math.sqrt(channels)).transpose(1, 2)  # (B, C, S)
        self.valid0, self.valid1 = valid0, valid1
        self.batch, self.rows = features0.shape[:2]
        self.columns = features1.shape[1]
        if block_elements is None:
            block_elements = CPU_BLOCK if features0.device.type == 'cpu' else GPU_BLOCK
        self.block_rows = max(1, block_elements // max(1, self.batch * self.columns))

    def of_rows(self, rows: Tensor) -> Similarity:
        """Return the similarities of some rows (R,) int64 only."""
        some = copy.copy(self)
        some.features0, some.rows = self.features0[:, rows], len(rows)
        some.valid0 = None if self.valid0 is None else self.valid0[:, rows]
        return some

    def new_full(self, shape, value) -> Tensor:
        return self.features0.new_full(shape, value)

    def is_small(self) -> bool:
        """Return whether the exponential of every similarity is in the range of float32."""
        return are_small(self.features0, self.columns1.transpose(1, 2))

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of rows and their similarities (B, rows, S), which the caller may overwrite."""
        for start in range(0, self.rows, self.block_rows):
            rows = slice(start, min(start + self.block_rows, self.rows))
            block = self.features0[:, rows] @ self.columns1
            if self.valid1 is not None:
                block.masked_fill_(~self.valid1[:, None, :], MASKED)
            if self.valid0 is not None:
                block.masked_fill_(~self.valid0[:, rows, None], MASKED)
            yield rows, block


def dense_similarity(similarity: Similarity) -> Tensor:
    """Return all similarities (B, L, S) at once, differentiable."""
    return torch.cat([block for _, block in similarity.blocks()], 1)
