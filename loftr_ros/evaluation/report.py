"""report.html of an evaluation: one file with figures, pictures and tables that needs no network."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np

from loftr_ros.datatypes import Scale
from loftr_ros.evaluation.html_parts import figure_html, picture_html, section, table, write_document
from loftr_ros.evaluation.odometry_run import OdometryRun, OdometryScore
from loftr_ros.evaluation.plots import draw_matches, new_figure
from loftr_ros.evaluation.trajectory import path_lengths
from loftr_ros.geometry import epipolar_error_px
from loftr_ros.odometry.base_frame import BASE_FROM_FORWARD_CAMERA

TRUTH = {'color': '0.45', 'linewidth': 4, 'alpha': 0.5, 'label': 'truth'}
ESTIMATE = {'color': 'tab:blue', 'label': 'estimated'}
STATUS_COLOURS = {'TOO_FEW': 'tab:red', 'LOST': 'darkred', 'PURE_ROTATION': 'tab:orange', 'STATIC': 'tab:green'}
PICTURE_WIDTH = 1100


def write_report(
    path: Path, title: str, run: OdometryRun, score: OdometryScore | None, summary: dict, circumstances: dict
) -> None:
    """Write the report of a run of odometry.

    Args:
        summary, circumstances: as of results.summarise and results.circumstances.
    """
    parts = [_headline(run, summary)]
    parts += section('Trajectory', figure_html(_trajectory(run, score)), _trajectory_note(run, score))
    parts += section('Position and orientation over time', figure_html(_over_time(run, score)))
    if score is not None:
        parts += section('Errors along the path', figure_html(_errors(run, score)), _error_note(run))
    parts += section('Matches and times', figure_html(_counts(run)))
    for name, pair in run.examples.items():
        parts += section(f'Matches of the pair {name}', *_pair(pair))
    parts += section('All figures', table(summary))
    parts += section('Circumstances', table(circumstances), 'The settings are in config.yaml beside this file.')
    write_document(path, title, parts)


def _headline(run: OdometryRun, summary: dict) -> str:
    text = f'{summary["matcher"]}: {summary["frames_with_pose"]} of {summary["frames"]} frames have a pose'
    if 'ate_m' in summary:
        text += (
            f'; ATE {summary["ate_m"]:.4g} m ({summary["ate_percent_of_path"]:.2f} % of {summary["path_m"]:.4g} m, '
            f'{summary["alignment"]} alignment), drift {summary["drift_translation_percent"]:.2f} % and '
            f'{summary["drift_rotation_deg_per_m"]:.4f} deg/m'
        )
        if not summary['drift_is_kitti']:
            text += ' over 10 to 80 % of the path (too short for the lengths of KITTI)'
    else:
        text += '; without a true trajectory there are no errors'
    return f'<p><b>{html.escape(text)}.</b></p>'


# --- figures ---------------------------------------------------------------------------------------------------------


def _forward_left_up(poses: np.ndarray) -> np.ndarray:
    """Return poses whose first camera looks along x, in the axes of a robot."""
    return BASE_FROM_FORWARD_CAMERA @ poses @ BASE_FROM_FORWARD_CAMERA.T


def in_first_camera(run: OdometryRun, score: OdometryScore | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return estimated (N) and true (M) poses, forward, left, up of the first true camera or of the first one."""
    if score is None:
        return _forward_left_up(run.poses[run.has_pose]), None
    first = np.linalg.inv(score.truth[0])
    return _forward_left_up(first @ score.errors.aligned), _forward_left_up(first @ score.truth)


def _unit(run: OdometryRun, score: OdometryScore | None) -> str:
    return 'm' if score is not None or run.scale is not Scale.UP_TO_SCALE else 'unit of the map'


def _trajectory(run: OdometryRun, score: OdometryScore | None):
    estimate, truth = in_first_camera(run, score)
    figure = new_figure(11, 5)
    unit = _unit(run, score)
    for axes, (across, up), (x, y) in zip(
        figure.subplots(1, 2), (('forward', 'left'), ('forward', 'up')), ((0, 1), (0, 2)), strict=True
    ):
        if truth is not None:
            axes.plot(truth[:, x, 3], truth[:, y, 3], **TRUTH)
        axes.plot(estimate[:, x, 3], estimate[:, y, 3], **ESTIMATE)
        if len(estimate):
            axes.plot(*estimate[0, [x, y], 3], 'o', color='k', label='start')
        axes.set_xlabel(f'{across} [{unit}]')
        axes.set_ylabel(f'{up} [{unit}]')
        axes.set_title('from above' if up == 'left' else 'from the side', fontsize=10)
        axes.set_aspect('equal', adjustable='datalim')
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _trajectory_note(run: OdometryRun, score: OdometryScore | None) -> str:
    if score is None:
        return 'In the axes of the first camera: forward, left, up.'
    aligned = 'position, orientation and scale' if run.scale is Scale.UP_TO_SCALE else 'position and orientation'
    return f'In the axes of the first camera: forward, left, up. The estimate is aligned with the truth ({aligned}).'


def _angles_deg(poses: np.ndarray) -> np.ndarray:
    """Return roll, pitch and yaw (3, N)."""
    rotation = poses[:, :3, :3]
    roll = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    pitch = np.arcsin(np.clip(-rotation[:, 2, 0], -1, 1))
    yaw = np.unwrap(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))
    return np.degrees([roll, pitch, yaw])


def _over_time(run: OdometryRun, score: OdometryScore | None):
    estimate, truth = in_first_camera(run, score)
    rows = np.flatnonzero(run.has_pose) if score is None else score.rows
    seconds = (run.stamps_ns - run.stamps_ns[0])[rows] / 1e9
    figure = new_figure(11, 6)
    grid = figure.subplots(3, 2, sharex=True)
    for column, (values, names) in enumerate(
        (
            (lambda poses: poses[:, :3, 3].T, [f'{name} [{_unit(run, score)}]' for name in ('forward', 'left', 'up')]),
            (_angles_deg, ('roll [deg]', 'pitch [deg]', 'yaw [deg]')),
        )
    ):
        for axes, name, estimated in zip(grid[:, column], names, values(estimate), strict=True):
            axes.plot(seconds, estimated, **ESTIMATE)
            axes.set_ylabel(name)
            axes.grid(alpha=0.3)
        if truth is not None:
            for axes, true in zip(grid[:, column], values(truth), strict=True):
                axes.plot(seconds, true, zorder=0, **TRUTH)
        grid[2, column].set_xlabel('time [s]')
    grid[0, 0].legend()
    return figure


def _errors(run: OdometryRun, score: OdometryScore):
    along = path_lengths(score.truth)
    figure = new_figure(11, 6 if len(score.nees) else 4)
    grid = figure.subplots(2 if len(score.nees) else 1, 2, squeeze=False)
    for axes, values, name in (
        (grid[0, 0], score.errors.position_m, 'position error [m]'),
        (grid[0, 1], score.errors.rotation_deg, 'rotation error [deg]'),
    ):
        axes.plot(along, values, color='tab:red')
        axes.set_xlabel('path [m]')
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
    if len(score.nees):
        grid[1, 0].hist(np.clip(score.nees, 0, 10), bins=40, range=(0, 10), color='tab:purple')
        grid[1, 0].axvline(score.nees.mean(), color='k', label=f'mean {score.nees.mean():.2f}')
        grid[1, 0].set_xlabel('squared error / covariance, for each of 6 (above 10 at 10)')
        grid[1, 0].set_ylabel('frames')
        grid[1, 0].legend()
        deviation = 3 * np.sqrt(np.trace(run.covariances[score.rows, :3, :3], axis1=1, axis2=2))
        grid[1, 1].plot(along, score.from_first_m, color='tab:red', label='position error')
        grid[1, 1].plot(along, deviation, color='0.4', linestyle='--', label='3 standard deviations')
        grid[1, 1].set_xlabel('path [m]')
        grid[1, 1].set_ylabel('relative to the first frame [m]')
        grid[1, 1].set_ylim(bottom=0)
        grid[1, 1].legend()
    for axes in grid.flat:
        axes.grid(alpha=0.3)
    return figure


def _error_note(run: OdometryRun) -> str:
    if run.scale is Scale.UP_TO_SCALE:
        return 'After alignment of all positions and, apart from that, of all orientations.'
    return (
        'Above after alignment of all positions and, apart from that, of all orientations. Below relative to the first '
        'frame. The mean of the squared errors over the covariance (NEES) is 1 where the covariance is right, and '
        'larger where it is too small.'
    )


def _counts(run: OdometryRun):
    seconds = (run.stamps_ns - run.stamps_ns[0]) / 1e9
    figure = new_figure(11, 5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, colour, style in (('matches', '0.6', '-'), ('tracks', 'tab:green', '-'), ('inliers', 'tab:blue', '--')):
        upper.plot(seconds[1:], [getattr(row, name) for row in run.rows[1:]], style, color=colour, label=name)
    keyframes = [s for s, row in zip(seconds, run.rows, strict=True) if row.is_keyframe]
    upper.plot(keyframes, np.zeros(len(keyframes)), '|', color='k', markersize=10, label='keyframe')
    for status, colour in STATUS_COLOURS.items():
        marked = [s for s, row in zip(seconds, run.rows, strict=True) if row.status == status]
        if marked:
            upper.plot(marked, np.zeros(len(marked)), 's', color=colour, markersize=5, label=status)
    upper.set_ylabel('number')
    upper.legend(ncols=4, fontsize=9)
    lower.plot(seconds[1:], 1e3 * run.match_s[1:], color='tab:blue', label='extraction and matching')
    lower.plot(seconds[1:], 1e3 * run.compute_s[1:], color='tab:orange', label='everything else')
    lower.set_ylabel('time [ms]')
    lower.set_xlabel('time of the recording [s]')
    lower.legend()
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    return figure


def _pair(pair) -> tuple[str, str]:
    """Return the picture of a pair and a note about it."""
    picture = draw_matches(pair.frame0.image, pair.frame1.image, pair.matches, pair.inliers, PICTURE_WIDTH)
    note = f'Frames {pair.id0} and {pair.id1}: {pair.inliers.sum()} of {len(pair.matches)} matches are inliers'
    pose = pair.pose
    if hasattr(pose, 'reason'):
        note += f'; no pose: {pose.reason}'
    elif pair.inliers.any():
        inliers = pair.matches.select(pair.inliers)
        cameras = pair.frame0.camera, pair.frame1.camera
        errors = epipolar_error_px(pose.cam1_from_cam0, inliers.keypoints0, inliers.keypoints1, *cameras)
        if np.isfinite(errors).all():
            note += f', whose epipolar error is {np.median(errors):.2f} px in the median'
    return picture_html(picture), note + '.'
