"""Partial assignment by optimal transport: Sinkhorn in log space, with a dustbin (SuperGlue, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def log_optimal_transport(scores: Tensor, bin_score: Tensor, iterations: int) -> Tensor:
    """Return the log of the optimal partial assignment of rows to columns.

    Every row and column has mass 1 to give, the dustbin row that of all columns, the dustbin column that of all rows
    (SuperGlue, eq. 8 and 9). The couplings are scaled such that a certain match has probability 1.

    Args:
        scores: (B, L, S) similarities.
        bin_score: () score of "not matched", learnt.
        iterations: number of Sinkhorn iterations, each normalises rows, then columns.

    Returns:
        (B, L + 1, S + 1) log probabilities; the last row and column are the dustbins.
    """
    batch, rows, columns = scores.shape
    with_bins = bin_score.to(scores).expand(batch, rows + 1, columns + 1).clone()
    with_bins[:, :rows, :columns] = scores
    log_rows, log_columns = log_marginals(rows, columns, scores)
    u, v = torch.zeros_like(log_rows), torch.zeros_like(log_columns)
    u, v = u.expand(batch, -1), v.expand(batch, -1)
    for _ in range(iterations):
        u = log_rows - torch.logsumexp(with_bins + v[:, None, :], dim=2)
        v = log_columns - torch.logsumexp(with_bins + u[:, :, None], dim=1)
    return with_bins + u[:, :, None] + v[:, None, :] - log_rows[0]


def log_marginals(rows: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return log masses (rows + 1,) and (columns + 1,), dustbin last, each of sum 1; dtype and device of `like`."""
    # Counts as tensors, no numbers, so that an exported network follows the size of its images.
    count_rows, count_columns = (like.new_ones(n, dtype=torch.float32).sum().to(like.dtype) for n in (rows, columns))
    norm = (count_rows + count_columns).log()
    log_rows = torch.cat([like.new_zeros(rows), count_columns.log()[None]]) - norm
    log_columns = torch.cat([like.new_zeros(columns), count_rows.log()[None]]) - norm
    return log_rows, log_columns
