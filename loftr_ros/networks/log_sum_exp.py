"""Log-sum-exp over the rows and over the columns of the same similarities, with one exponential for each element.

A dual soft-max needs both. Exponentials are most of its time on a CPU, and those relative to the best of each row serve
the columns as well: sum_i exp(s_ij) = sum_i exp(best_i) exp(s_ij - best_i) is a matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = -80.0
"""Smaller exponents count as this one, exp(-80) = 2e-35: denormal results would take ten times as long."""

TINY = 1e-30
"""Sums of columns below this share of the largest exponential have lost digits to underflow."""


def exponentiate_rows_(scores: Tensor, best: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Overwrite scores (..., L, S) by exp(scores - best of the row); return the best and the log-sum-exp (..., L).

    `best` (..., L) is the largest of each row, if it is known already.
    """
    best = scores.amax(-1) if best is None else best
    total = scores.sub_(best[..., None]).clamp_(min=LEAST).exp_().sum(-1)
    return best, best + total.log()


class ColumnSums:
    """Log-sum-exp over rows that arrive in blocks."""

    def __init__(self):
        self.scale, self.total = None, None

    def add(self, best: Tensor, exponentials: Tensor) -> None:
        """Take in rows as `exponentiate_rows_` leaves them: best (..., R), exponentials (..., R, S)."""
        scale = best.amax(-1, keepdim=True)  # (..., 1)
        if self.total is not None:
            scale = torch.maximum(scale, self.scale)
        added = ((best - scale).exp()[..., None, :] @ exponentials)[..., 0, :]
        self.total = added if self.total is None else added + self.total * (self.scale - scale).exp()
        self.scale = scale

    def is_exact(self, valid: Tensor | None = None) -> bool:
        """Return whether no column (of those that are `valid` (..., S)) lost digits to underflow."""
        kept = self.total > TINY
        return bool((kept if valid is None else kept | ~valid).all())

    def value(self) -> Tensor:
        """Return (..., S)."""
        return self.scale + self.total.log()
