"""Coarse matching of two sets of features (LoFTR, section 3.3) without an L x S matrix in memory.

Similarities are computed in blocks of rows of image 0 (similarity.py). A match depends only on sums and maxima of rows
and columns. Those of a row are complete after its block; those of a column are accumulated over all blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loftr_ros.networks.coarse_cells import CoarseMatches
from loftr_ros.networks.log_sum_exp import ColumnSums, RunningLogSumExp, exponentiate_rows_
from loftr_ros.networks.similarity import CPU_BLOCK, MASKED, Similarity, dense_similarity
from loftr_ros.networks.sinkhorn import log_marginals, log_optimal_transport

SPARSE_THRESHOLD = 0.02
"""With this threshold or a larger one at most 1 / 0.02 = 50 columns of a row can match: one pass collects them."""

SURPLUS = 4 / 3
"""Matches of the rows searched so far, relative to those that are needed: some lose their column to another row."""

FOLDING_DEVICES = ('cpu',)
"""Devices on which the few large similarities are searched in two steps, see `_where_above`."""


class CoarseMatching(nn.Module):
    """Coarse matching with the settings of a network, and the learned score of the dustbin.

    Args:
        match_type: 'dual_softmax', with `temperature`, or 'optimal_transport', with `sinkhorn_iterations` and
            `dustbin_prefilter` (see match_optimal_transport).
    """

    def __init__(self, match_type: str, temperature: float, sinkhorn_iterations: int, dustbin_prefilter: bool):
        super().__init__()
        self.match_type, self.temperature = match_type, temperature
        self.sinkhorn_iterations, self.dustbin_prefilter = sinkhorn_iterations, dustbin_prefilter
        if match_type == 'optimal_transport':
            self.bin_score = nn.Parameter(torch.tensor(1.0))

    def forward(
        self, tokens0, tokens1, mask0, mask1, threshold, eligible0, eligible1, parts=(), enough=0
    ) -> CoarseMatches:
        """Return the matches of (B, L, C) with (B, S, C); masks and eligible cells are (B, L) and (B, S) bool.

        Args:
            parts, enough: see match_dual_softmax; optimal transport searches all rows.
        """
        similarity = self._similarity(tokens0, tokens1, mask0, mask1)
        if self.match_type == 'dual_softmax':
            return match_dual_softmax(similarity, threshold, eligible0, eligible1, parts, enough)
        return match_optimal_transport(
            similarity, self.bin_score, self.sinkhorn_iterations, threshold, eligible0, eligible1,
            self.dustbin_prefilter,
        )  # fmt: skip

    def log_confidence(self, tokens0, tokens1, mask0=None, mask1=None) -> Tensor:
        """Return the dense, differentiable log P (B, L, S), or (B, L + 1, S + 1) with the dustbins last."""
        similarity = self._similarity(tokens0, tokens1, mask0, mask1)
        if self.match_type == 'dual_softmax':
            return log_dual_softmax(similarity)
        return log_optimal_transport(dense_similarity(similarity), self.bin_score, self.sinkhorn_iterations)

    def _similarity(self, tokens0, tokens1, mask0, mask1) -> Similarity:
        # Optimal transport has no temperature: the score of the dustbin is learned at the scale of the similarities.
        temperature = self.temperature if self.match_type == 'dual_softmax' else 1.0
        return Similarity(tokens0, tokens1, temperature, mask0, mask1)


@torch.no_grad()
def match_dual_softmax(
    similarity: Similarity,
    threshold: float,
    eligible0: Tensor | None = None,
    eligible1: Tensor | None = None,
    parts: Sequence[Tensor] = (),
    enough: int = 0,
) -> CoarseMatches:
    """Return mutual nearest neighbours in P(i, j) = soft-max of row i at j * soft-max of column j at i.

    Args:
        threshold: a match has P > threshold.
        eligible0, eligible1: (B, L) and (B, S) bool, cells that may be matched (`away_from_border`). The other cells
            still compete as neighbours.
        parts: rows (R,) int64 of each part; together all rows. Parts are searched until every pair has `enough`
            matches, after the rows that are left have competed for the columns of these matches by their similarity;
            confidences are those of all rows. Empty: all rows are searched.
    """
    if threshold < SPARSE_THRESHOLD:
        log_rows, log_columns = _log_rows(similarity), _log_columns(similarity)
        log_best, column, mutual = _mutual_maxima(similarity, 2.0, -log_rows, -log_columns)
        return _select(similarity, log_best.exp(), column, mutual, threshold, eligible0, eligible1)
    small = similarity.is_small()
    sums, found = ColumnSums(), []
    parts = parts or (torch.arange(similarity.rows, device=similarity.features0.device),)
    for number, part in enumerate(parts, start=1):
        found += _row_candidates(similarity.of_rows(part), threshold, small, sums, part)
        if small or sums.is_exact(similarity.valid1):  # small exponentials are never near underflow
            log_columns = sums.value()
        else:
            log_columns = _log_columns(similarity.of_rows(torch.cat(tuple(parts[:number]))))
        batch_index, row, column, score, log_row = (torch.cat(fields) for fields in zip(*found, strict=True))
        confidence = (log_row + (score - log_columns[batch_index, column])).exp()
        candidates = CoarseMatches(batch_index, row, column, confidence)
        keep = (confidence > threshold) & _may_match(candidates, similarity, eligible0, eligible1)
        matches = _mutual_best(candidates, keep, similarity)
        if number < len(parts) and _fewest(matches, similarity) >= SURPLUS * enough:
            matches = _compete(similarity, torch.cat(tuple(parts[number:])), matches, log_columns, threshold, small)
            if _fewest(matches, similarity) >= enough:
                break
    return matches


def _fewest(matches: CoarseMatches, similarity: Similarity) -> int:
    """Return the number of matches of the pair with fewest."""
    return int(matches.batch_index.bincount(minlength=similarity.batch).min())


def _compete(
    similarity: Similarity, rows: Tensor, matches: CoarseMatches, log_columns: Tensor, threshold: float, small: bool
) -> CoarseMatches:
    """Return the matches that remain if rows (R,) int64 compete for their columns too.

    Args:
        matches: no two of a pair have the same column.
        log_columns: (B, S) log-sum-exp of the columns, without the rows.
    """
    largest = torch.full_like(matches.confidence, -math.inf)
    log_total = largest.clone()
    for pair in range(similarity.batch):
        mine = (matches.batch_index == pair).nonzero()[:, 0]
        columns = similarity.columns1[pair][:, matches.cell1[mine]]  # (C, M)
        own = rows if similarity.valid0 is None else rows[similarity.valid0[pair, rows]]
        sums = ColumnSums()
        for part in own.split(max(1, CPU_BLOCK // max(1, len(mine)))) if len(own) else ():
            block = similarity.features0[pair, part] @ columns
            largest[mine] = torch.maximum(largest[mine], block.amax(0))
            sums.add(exponentiate_rows_(block, small)[0], block)
            log_total[mine] = sums.value()
    batch_index, row, column, confidence = matches
    score = torch.einsum(
        'mc,mc->m', similarity.features0[batch_index, row], similarity.columns1[batch_index, :, column]
    )
    before = log_columns[batch_index, column]
    confidence = confidence * (before - torch.logaddexp(before, log_total)).exp()
    keep = (largest <= score) & (confidence > threshold)
    return CoarseMatches(batch_index, row, column, confidence).where(keep)


def _row_candidates(similarity: Similarity, threshold: float, small: bool, sums: ColumnSums, rows: Tensor) -> list:
    """Add the rows to `sums`; return pair, row, column, similarity and log soft-max of the row of possible matches.

    P is at most the soft-max of the row: no entry below the threshold can be a match or exceed one.

    Args:
        rows: (L,) int64 number of each row of `similarity`.
    """
    found = []
    for part, block in similarity.blocks():
        reference, total = exponentiate_rows_(block, small)
        sums.add(reference, block)
        least = (threshold * (1 - 1e-4)) * total  # tolerance for rounding; the sum of a masked row is 0
        batch_index, row, column = _where_above(block, least)
        exponential = block[batch_index, row, column]
        score = exponential.log() + reference[batch_index, row]
        log_row = exponential.log() - total[batch_index, row].log()
        found.append((batch_index, rows[part][row], column, score, log_row))
    return found


def _where_above(block: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return pair, row and column (N,) of the elements of block (B, R, S) that are larger than least (B, R).

    They are few. A CPU finds them much faster in the maxima of groups of up to 8 columns at equal distances; a GPU
    would have to wait for the number of groups.
    """
    size = math.gcd(block.shape[2], 8) if block.device.type in FOLDING_DEVICES else 1
    groups = block.unflatten(2, (size, -1)).amax(2) if size > 1 else block
    batch_index, row, column = (groups > least[..., None]).nonzero().unbind(1)
    if size == 1:
        return batch_index, row, column
    columns = column[:, None] + torch.arange(0, block.shape[2], groups.shape[2], device=block.device)
    member, place = (
        (block[batch_index[:, None], row[:, None], columns] > least[batch_index, row, None]).nonzero().unbind(1)
    )
    return batch_index[member], row[member], columns[member, place]


def _log_rows(similarity: Similarity) -> Tensor:
    """Return the log-sum-exp of every row (B, L)."""
    return torch.cat([torch.logsumexp(block, 2) for _, block in similarity.blocks()], 1)


def _log_columns(similarity: Similarity) -> Tensor:
    """Return the log-sum-exp of every column (B, S), for similarities of any range."""
    columns = RunningLogSumExp(similarity.new_full((similarity.batch, similarity.columns), -math.inf))
    for _, block in similarity.blocks():
        columns.add_(block)
    return columns.value()


@torch.no_grad()
def match_optimal_transport(
    similarity: Similarity,
    bin_score: Tensor,
    iterations: int,
    threshold: float,
    eligible0=None,
    eligible1=None,
    dustbin_prefilter: bool = False,
) -> CoarseMatches:
    """Return mutual nearest neighbours in the optimal partial assignment (sinkhorn.py) with P > threshold.

    Similarities are computed again in each iteration. u is complete for the rows of a block; v is accumulated over
    blocks.

    Args:
        bin_score: () learned score of the dustbin.
        dustbin_prefilter: first remove rows and columns whose probability is largest at the dustbin.
    """
    rows_total, columns_total = similarity.rows, similarity.columns
    bin_score = bin_score.float()
    log_mass0, log_mass1 = log_marginals(rows_total, columns_total, similarity.features0)
    u = similarity.new_full((similarity.batch, rows_total + 1), 0.0)
    v = similarity.new_full((similarity.batch, columns_total + 1), 0.0)
    for _ in range(iterations):
        u[:, -1] = log_mass0[-1] - bin_score - torch.logsumexp(v, 1)
        columns = RunningLogSumExp((bin_score + u[:, -1:]).expand(-1, columns_total))  # the dustbin's row
        for rows, block in similarity.blocks():
            row = torch.logsumexp(block + v[:, None, :-1], 2)
            u[:, rows] = log_mass0[rows] - torch.logaddexp(row, bin_score + v[:, -1:])
            columns.add_(block.add_(u[:, rows, None]))
        v[:, -1] = log_mass1[-1] - bin_score - torch.logsumexp(u, 1)
        v[:, :-1] = log_mass1[:-1] - columns.value()
    row_bias, column_bias = u[:, :-1] + math.log(rows_total + columns_total), v[:, :-1]
    if dustbin_prefilter:
        best0, best1 = _best_of_rows_and_columns(similarity, u[:, :-1], v[:, :-1])
        row_bias = row_bias.masked_fill(best0 < bin_score + v[:, -1:], MASKED)
        column_bias = column_bias.masked_fill(best1 < bin_score + u[:, -1:], MASKED)
    log_best, column, mutual = _mutual_maxima(similarity, 1.0, row_bias, column_bias)
    return _select(similarity, log_best.exp(), column, mutual, threshold, eligible0, eligible1)


@torch.no_grad()
def match_raw_similarity(similarity: Similarity, threshold: float, eligible0=None, eligible1=None) -> CoarseMatches:
    """Return mutual nearest neighbours in the similarity itself where it is above `threshold`.

    For networks without a soft-max at inference (Efficient LoFTR, section 3.3). `confidence` is the similarity,
    not within [0, 1].
    """
    zero = similarity.new_full((1, 1), 0.0)
    row_bias, column_bias = (zero.expand(similarity.batch, n) for n in (similarity.rows, similarity.columns))
    best, column, mutual = _mutual_maxima(similarity, 1.0, row_bias, column_bias)
    return _select(similarity, best, column, mutual, threshold, eligible0, eligible1)


def log_dual_softmax(similarity: Similarity) -> Tensor:
    """Return the dense log P (B, L, S) of `match_dual_softmax`, differentiable, for the loss (LoFTR, eq. 3)."""
    scores = dense_similarity(similarity)
    return F.log_softmax(scores, 1) + F.log_softmax(scores, 2)


def _mutual_maxima(similarity: Similarity, scale: float, row_bias: Tensor, column_bias: Tensor):
    """Return maximum, its column and whether it is also the maximum of its column, (B, L) each, for the rows of log P.

    log P = scale * similarity + row_bias (B, L) + column_bias (B, S).
    """
    best = similarity.new_full((similarity.batch, similarity.rows), 0.0)
    best_column = torch.zeros_like(best, dtype=torch.int64)
    column_best = similarity.new_full((similarity.batch, similarity.columns), -math.inf)
    column_row = torch.zeros_like(column_best, dtype=torch.int64)
    for rows, block in similarity.blocks():
        log_p = block.mul_(scale).add_(row_bias[:, rows, None]).add_(column_bias[:, None])
        best[:, rows], best_column[:, rows] = log_p.max(2)
        value, row = log_p.max(1)
        better = value > column_best
        column_best = torch.where(better, value, column_best)
        column_row = torch.where(better, row + rows.start, column_row)
    mutual = column_row.gather(1, best_column) == torch.arange(similarity.rows, device=best.device)
    return best, best_column, mutual


def _best_of_rows_and_columns(similarity: Similarity, row_bias: Tensor, column_bias: Tensor):
    """Return (B, L), the maxima over columns of similarity + column_bias, and (B, S), those over rows of + row_bias."""
    best0 = similarity.new_full((similarity.batch, similarity.rows), 0.0)
    best1 = similarity.new_full((similarity.batch, similarity.columns), -math.inf)
    for rows, block in similarity.blocks():
        best0[:, rows] = (block + column_bias[:, None]).amax(2)
        best1 = torch.maximum(best1, block.add_(row_bias[:, rows, None]).amax(1))
    return best0, best1


def _select(similarity, confidence, column, mutual, threshold, eligible0, eligible1) -> CoarseMatches:
    """Return the mutual matches (B, L) above the threshold."""
    batch_index = torch.arange(similarity.batch, device=column.device)[:, None].expand_as(column)
    row = torch.arange(similarity.rows, device=column.device).expand_as(column)
    matches = CoarseMatches(*(field.flatten() for field in (batch_index, row, column, confidence)))
    keep = mutual.flatten() & (matches.confidence > threshold)
    return matches.where(keep & _may_match(matches, similarity, eligible0, eligible1))


def _mutual_best(candidates: CoarseMatches, keep: Tensor, similarity: Similarity) -> CoarseMatches:
    """Return the candidates that are the first best of their row and of their column, and `keep` (M,) bool."""
    row = candidates.batch_index * similarity.rows + candidates.cell0
    column = candidates.batch_index * similarity.columns + candidates.cell1
    keep = keep & _is_first_best(row, candidates.confidence, similarity.batch * similarity.rows)
    keep &= _is_first_best(column, candidates.confidence, similarity.batch * similarity.columns)
    index = keep.nonzero()[:, 0]
    index = index[row[index].argsort()]
    return CoarseMatches(*(field[index] for field in candidates))


def _is_first_best(group: Tensor, value: Tensor, groups: int) -> Tensor:
    """Return (M,) bool, True for the first of those entries whose value is the largest of their group."""
    largest = value.new_full((groups,), -math.inf).scatter_reduce(0, group, value, 'amax')
    index = torch.arange(len(value), device=value.device)
    candidate = torch.where(value == largest[group], index, len(value))
    first = index.new_full((groups,), len(value)).scatter_reduce(0, group, candidate, 'amin')
    return first[group] == index


def _may_match(matches: CoarseMatches, similarity: Similarity, eligible0, eligible1) -> Tensor:
    """Return (M,) bool, False where a cell may not be matched or is padding."""
    keep = torch.ones_like(matches.batch_index, dtype=torch.bool)
    for cells0 in (similarity.valid0, eligible0):
        if cells0 is not None:
            keep &= cells0[matches.batch_index, matches.cell0]
    for cells1 in (similarity.valid1, eligible1):
        if cells1 is not None:
            keep &= cells1[matches.batch_index, matches.cell1]
    return keep
