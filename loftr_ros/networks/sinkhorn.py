"""Partial assignment by optimal transport: Sinkhorn in log space, with a dustbin (SuperGlue, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def log_optimal_transport(scores: Tensor, bin_score: Tensor, iterations: int) -> Tensor:
    """Return the log of the optimal partial assignment of rows to columns.

    Every row and column has mass 1. The dustbin row has the mass of all columns, the dustbin column that of all rows
    (SuperGlue, eq. 8 and 9). The couplings are scaled such that a certain match has probability 1.

    Args:
        scores: (B, L, S) similarities.
        bin_score: () learned score of "not matched".
        iterations: number of Sinkhorn iterations; each normalises rows, then columns.

    Returns:
        (B, L + 1, S + 1) log probabilities; the last row and column are the dustbins.
    """
    with_bins = _with_dustbins(scores, bin_score)
    log_rows, log_columns = log_marginals(*scores.shape[1:], scores)
    u, v = _scale_in_log_space(with_bins, log_rows, log_columns, iterations)
    return with_bins + u[:, :, None] + v[:, None, :] - log_rows[0]


def log_marginals(rows: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return log masses (rows + 1,) and (columns + 1,), dustbin last, each of sum 1; dtype and device of `like`."""
    # Counts as tensors instead of numbers, so that an exported network takes images of any size.
    count_rows, count_columns = (like.new_ones(n, dtype=torch.float32).sum().to(like.dtype) for n in (rows, columns))
    norm = (count_rows + count_columns).log()
    log_rows = torch.cat([like.new_zeros(rows), count_columns.log()[None]]) - norm
    log_columns = torch.cat([like.new_zeros(columns), count_rows.log()[None]]) - norm
    return log_rows, log_columns


ABSENT = -1e4
"""Score and log mass of padding: exp(ABSENT) is 0, and ABSENT - ABSENT is not NaN."""

MAX_RANGE = 60.0
"""Largest range of scores for which their exponentials and the products of these are in the range of float32."""


def masked_log_optimal_transport(
    scores: Tensor, bin_score: Tensor, iterations: int, valid0: Tensor | None = None, valid1: Tensor | None = None
) -> Tensor:
    """Return `log_optimal_transport` of batches in which some rows (valid0 (B, L) False) and columns are padding.

    Padding has the value ABSENT or less; all other values are the same as without padding.
    """
    batch, rows, columns = scores.shape
    if valid0 is None and valid1 is None:
        log_rows, log_columns = (masses[None] for masses in log_marginals(rows, columns, scores))
        norm = log_rows[:, :1]
    else:
        valid0 = scores.new_ones(batch, rows, dtype=torch.bool) if valid0 is None else valid0
        valid1 = scores.new_ones(batch, columns, dtype=torch.bool) if valid1 is None else valid1
        scores = scores.masked_fill(~(valid0[:, :, None] & valid1[:, None]), ABSENT)
        count0, count1 = valid0.sum(1, keepdim=True).to(scores), valid1.sum(1, keepdim=True).to(scores)
        norm = -(count0 + count1).clamp(min=1).log()
        log_rows = torch.cat([torch.where(valid0, norm, ABSENT), count1.clamp(min=1e-30).log() + norm], dim=1)
        log_columns = torch.cat([torch.where(valid1, norm, ABSENT), count0.clamp(min=1e-30).log() + norm], dim=1)
    with_bins = _with_dustbins(scores, bin_score)
    if valid0 is not None:
        with_bins[:, :rows, columns].masked_fill_(~valid0, ABSENT)
        with_bins[:, rows, :columns].masked_fill_(~valid1, ABSENT)
    solve = _scale_in_log_space
    if not torch.is_grad_enabled() and iterations > 5 and _range(with_bins) < MAX_RANGE:
        solve = _scale
    u, v = solve(with_bins, log_rows, log_columns, iterations)
    return with_bins + u[:, :, None] + v[:, None, :] - norm[:, :, None]


def _with_dustbins(scores: Tensor, bin_score: Tensor) -> Tensor:
    """Return scores (B, L + 1, S + 1) whose last row and column are those of the dustbins."""
    batch, rows, columns = scores.shape
    with_bins = bin_score.to(scores).expand(batch, rows + 1, columns + 1).clone()
    with_bins[:, :rows, :columns] = scores
    return with_bins


def _scale_in_log_space(scores: Tensor, log_rows: Tensor, log_columns: Tensor, iterations: int):
    u, v = torch.zeros_like(scores[:, :, 0]), torch.zeros_like(scores[:, 0])
    for _ in range(iterations):
        u = log_rows - torch.logsumexp(scores + v[:, None, :], dim=2)
        v = log_columns - torch.logsumexp(scores + u[:, :, None], dim=1)
    return u, v


def _scale(scores: Tensor, log_rows: Tensor, log_columns: Tensor, iterations: int):
    """Return the same as `_scale_in_log_space`, with two matrix products and no exponential in each iteration.

    Each row is first divided by its largest element; the element of the dustbin keeps every column above zero.
    """
    tiny = torch.finfo(scores.dtype).tiny
    best = scores.amax(2)  # (B, L + 1)
    kernel = (scores - best[:, :, None]).exp()
    transposed = kernel.transpose(1, 2).contiguous()
    mass_rows, mass_columns = log_rows.exp()[..., None], log_columns.exp()[..., None]
    b = torch.ones_like(scores[:, 0])[..., None]
    for _ in range(iterations):
        a = mass_rows / (kernel @ b).clamp(min=tiny)
        b = mass_columns / (transposed @ a).clamp(min=tiny)
    return (a[..., 0].log() - best).clamp(min=ABSENT), b[..., 0].log().clamp(min=ABSENT)


def _range(scores: Tensor) -> float:
    """Return the largest difference of scores, without padding."""
    present = scores > 0.5 * ABSENT
    low = torch.where(present, scores, torch.full_like(scores, float('inf'))).amin()
    return float(torch.where(present, scores, torch.full_like(scores, -float('inf'))).amax() - low)
