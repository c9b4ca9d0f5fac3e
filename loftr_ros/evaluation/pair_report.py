"""report.html of an evaluation of pairs."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path

import numpy as np

from loftr_ros.datasets.pair_lists import ImagePair
from loftr_ros.datatypes import Matches
from loftr_ros.evaluation.html_parts import figure_html, picture_html, section, table, write_document
from loftr_ros.evaluation.pair_run import BINS, MMA_PX, PairRow, PairRun, correct_px, errors_px
from loftr_ros.evaluation.plots import draw_matches, new_figure

PICTURE_WIDTH = 1100
RED_PX = 5.0
"""Error of a match that is drawn in red; one without an error is green."""

CURVE_DEG, CURVE_CORNER_PX = 20.0, 10.0


def examples(run: PairRun) -> dict[str, int]:
    """Return the rows of the pairs to show: best, median, worst; of those without a result that with fewest correct."""
    errors = [(_error(run, row), -row.correct) for row in run.rows]
    order = sorted(range(len(errors)), key=errors.__getitem__)
    return {'best': order[0], 'median': order[len(order) // 2], 'worst': order[-1]} if order else {}


def _error(run: PairRun, row: PairRow) -> float:
    return row.pose_deg if run.has_motion else row.corner_px


def write_pair_report(
    path: Path,
    title: str,
    run: PairRun,
    shown: dict[str, tuple[PairRow, ImagePair, Matches]],
    summary: dict,
    circumstances: dict,
) -> None:
    """Write the report of a run over pairs.

    Args:
        shown: the pairs of `examples`, by what they are.
        summary, circumstances: as of pair_run.summarise and results.circumstances.
    """
    parts = [f'<p><b>{html.escape(_headline(summary))}.</b></p>']
    parts += section('Errors', figure_html(_curves(run)), _curves_note(run))
    parts += section('Each pair', figure_html(_each_pair(run)))
    parts += section('Confidence', figure_html(_reliability(run)), _reliability_note(run))
    for name, (row, pair, matches) in shown.items():
        parts += section(f'The {name} pair: {pair.name}', *_picture(row, pair, matches))
    parts += section('All figures', table(summary))
    parts += section('Circumstances', table(circumstances), 'The settings are in config.yaml beside this file.')
    write_document(path, title, parts)


def _headline(summary: dict) -> str:
    text = f'{summary["matcher"]}: '
    if 'pose_auc_5_10_20_deg' in summary:
        auc = ' / '.join(f'{value:.3f}' for value in summary['pose_auc_5_10_20_deg'])
        return text + f'{summary["pairs_with_pose"]} of {summary["pairs"]} pairs have a pose; AUC@5/10/20 deg {auc}'
    auc = ' / '.join(f'{value:.3f}' for value in summary['homography_auc_3_5_10_px'])
    mma = summary['mma_1_to_10_px']
    return text + (
        f'{summary["pairs"]} pairs; AUC@3/5/10 px of the corners {auc}; mean matching accuracy within 1, 3 and 5 px '
        f'{mma[0]:.3f}, {mma[2]:.3f} and {mma[4]:.3f}'
    )


def _curves(run: PairRun):
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2)
    if run.has_motion:
        _cumulative(left, [row.pose_deg for row in run.rows], CURVE_DEG, 'loftr_ros.pose')
        _cumulative(left, [row.pose_deg_opencv for row in run.rows], CURVE_DEG, "OpenCV's RANSAC, 0.5 px")
        left.set_xlabel('pose error [deg]')
        known = [row.rotation_nees for row in run.rows if np.isfinite(row.rotation_nees)]
        right.hist(np.clip(known, 0, 10), bins=40, range=(0, 10), color='tab:purple')
        if known:
            mean, median = np.mean(known), np.median(known)
            right.axvline(min(mean, 10), color='k', label=f'mean {mean:.2f}, median {median:.2f}')
            right.legend()
        right.set_xlim(0, 10)
        right.set_xlabel('squared rotation error / covariance, for each of 3 (above 10 at 10)')
        right.set_ylabel('pairs')
    else:
        _cumulative(left, [row.corner_px for row in run.rows], CURVE_CORNER_PX, "OpenCV's RANSAC, 3 px")
        left.set_xlabel('mean error of the corners [px]')
        right.plot(MMA_PX, np.mean([row.accuracy for row in run.rows], axis=0), 'o-')
        right.set_xlabel('threshold [px]')
        right.set_ylabel('mean matching accuracy')
        right.set_ylim(0, 1)
    left.set_ylabel('share of the pairs')
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _cumulative(axes, errors: list[float], limit: float, label: str) -> None:
    """Plot the share of all pairs with at most each error; a pair without a result is never reached."""
    known = np.sort([error for error in errors if error <= limit])
    share = np.arange(len(known) + 1) / len(errors)
    axes.step([0.0, *known, limit], [*share, share[-1]], where='post', label=label)
    axes.set_xlim(0, limit)
    axes.set_ylim(0, 1.02)
    axes.legend(loc='lower right')


def _curves_note(run: PairRun) -> str:
    if run.has_motion:
        return (
            'Pose error: the larger of the errors of rotation and direction, the sign of the translation forgiven; a '
            'pair without a pose counts as never reached. The mean of the squared rotation errors over the covariance '
            '(NEES) is 1 where the covariance is right, and larger where it is too small.'
        )
    return 'A pair without a homography counts as never reached.'


def _each_pair(run: PairRun):
    figure = new_figure(11, 5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    number = np.arange(len(run.rows))
    for name, colour, style in (('matches', '0.6', '-'), ('correct', 'tab:green', '-'), ('inliers', 'tab:blue', '--')):
        upper.plot(number, [getattr(row, name) for row in run.rows], style, color=colour, label=name)
    failed = [index for index, row in enumerate(run.rows) if not np.isfinite(_error(run, row))]
    if failed:
        upper.plot(failed, np.zeros(len(failed)), 's', color='tab:red', label='without a result')
    upper.set_ylabel('number')
    lower.plot(number, 1e3 * run.match_s, color='tab:blue', label='extraction and matching')
    if run.has_motion:
        lower.plot(number, 1e3 * run.pose_s, color='tab:orange', label='pose')
    lower.set_ylabel('time [ms]')
    lower.set_xlabel('pair')
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(ncols=4, fontsize=9)
    return figure


def _reliability(run: PairRun):
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2)
    edges = np.arange(BINS) / BINS
    filled = run.count_of_confidence > 0
    share = run.correct_of_confidence[filled] / run.count_of_confidence[filled]
    left.bar(edges[filled], share, 1 / BINS, align='edge', color='tab:blue', edgecolor='white')
    left.plot([0, 1], [0, 1], '--', color='0.4', label='confidence = share')
    left.set_ylim(0, 1.02)
    left.set_ylabel('share of correct matches')
    left.legend(loc='lower right')
    right.bar(edges, run.count_of_confidence, 1 / BINS, align='edge', color='0.6', edgecolor='white')
    right.set_ylabel('matches')
    for axes in (left, right):
        axes.set_xlim(0, 1)
        axes.set_xlabel('confidence')
        axes.grid(alpha=0.3)
    return figure


def _reliability_note(run: PairRun) -> str:
    what = 'Sampson error under the true motion' if run.has_motion else 'error under the true homography'
    return f'A match is correct up to {correct_px(run.has_motion):g} px of {what}.'


def _picture(row: PairRow, pair: ImagePair, matches: Matches) -> tuple[str, str]:
    errors = np.nan_to_num(errors_px(pair, matches), nan=np.inf)
    coloured = dataclasses.replace(matches, confidence=1 - np.minimum(errors / RED_PX, 1))
    picture = draw_matches(pair.frame0.image, pair.frame1.image, coloured, max_width=PICTURE_WIDTH)
    note = f'{row.correct} of {row.matches} matches are correct'
    if np.isfinite(row.pose_deg):
        note += f'; the pose is {row.pose_deg:.2g} deg off ({row.inliers} inliers)'
    elif np.isfinite(row.corner_px):
        note += f'; the corners are {row.corner_px:.2g} px off'
    else:
        note += '; there is no result'
    return picture_html(picture), f'{note}. Green: no error under the truth, red: {RED_PX:g} px and more.'
