"""Log-sum-exp over the rows and over the columns of the same similarities, with one exponential for each element.

A dual soft-max needs both. Exponentials take most of its time on a CPU. Those relative to the maximum of each row are
also used for the columns: sum_i exp(s_ij) = sum_i exp(best_i) exp(s_ij - best_i) is a matrix product. If the lengths of
the features limit all exponentials to the range of float32, no maximum has to be subtracted.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = -80.0
"""Smaller exponents are replaced by this one, exp(-80) = 2e-35: denormal results would take ten times as long."""

TINY = 1e-30
"""Sums of columns below this share of the largest exponential have lost digits to underflow."""


MAX_EXPONENT = 75.0
"""exp(75), exp(-75) and sums of many thousands of them are in the range of float32."""


def are_small(features0: Tensor, features1: Tensor) -> bool:
    """Return whether no inner product of rows of (..., L, C) and (..., S, C) can exceed MAX_EXPONENT."""
    longest0, longest1 = (
        features.norm(dim=-1).max() if features.numel() else 0.0 for features in (features0, features1)
    )
    return bool(longest0 * longest1 <= MAX_EXPONENT)


def exponentiate_rows_(scores: Tensor, small: bool) -> tuple[Tensor, Tensor]:
    """Overwrite scores (..., L, S) by exp(scores - reference of the row); return references and sums (..., L).

    The reference is the maximum of the row. If the scores are `small` (see `are_small`) it is 0, which takes half the
    time.
    """
    if small:
        return scores.new_zeros(scores.shape[:-1]), scores.exp_().sum(-1)
    best = scores.amax(-1)
    return best, scores.sub_(best[..., None]).clamp_(min=LEAST).exp_().sum(-1)


class ColumnSums:
    """Log-sum-exp over rows that arrive in blocks."""

    def __init__(self):
        self.scale, self.total = None, None

    def add(self, reference: Tensor, exponentials: Tensor) -> None:
        """Add rows of `exponentiate_rows_`: references (..., R), exponentials (..., R, S)."""
        scale = reference.amax(-1, keepdim=True)  # (..., 1)
        if self.total is not None:
            scale = torch.maximum(scale, self.scale)
        added = ((reference - scale).exp()[..., None, :] @ exponentials)[..., 0, :]
        self.total = added if self.total is None else added + self.total * (self.scale - scale).exp()
        self.scale = scale

    def is_exact(self, valid: Tensor | None = None) -> bool:
        """Return whether no column (of those that are `valid` (..., S)) lost digits to underflow."""
        kept = self.total > TINY
        return bool((kept if valid is None else kept | ~valid).all())

    def value(self) -> Tensor:
        """Return (..., S)."""
        return self.scale + self.total.log()


class RunningLogSumExp:
    """log sum exp over rows that arrive in blocks (B, rows, S), by the running maximum and the sum relative to it."""

    def __init__(self, first: Tensor):
        """`first`: (B, S), values of an initial row; -inf without one."""
        self.maximum = first
        self.total = torch.isfinite(first).to(first.dtype)

    def add_(self, block: Tensor) -> None:
        """Add `block`, which is overwritten."""
        maximum = torch.maximum(self.maximum, block.amax(1))
        self.total = self.total * (self.maximum - maximum).exp() + block.sub_(maximum[:, None]).exp_().sum(1)
        self.maximum = maximum

    def value(self) -> Tensor:
        return self.maximum + self.total.log()
