"""Pictures of matches and of trajectories. matplotlib is imported only by what plots with it."""

from __future__ import annotations

import cv2
import numpy as np

from loftr_ros.datatypes import Matches, check_image
from loftr_ros.errors import InputError, MissingDependencyError
from loftr_ros.geometry import rotation_angle
from loftr_ros.image import scale_points
from loftr_ros.output_files import writing

MAX_LINES = 250
LINE_OPACITY = 0.55
COLOUR_STEPS = 12
INLIER, OUTLIER = (80, 220, 60), (60, 60, 240)  # blue, green, red
GAP_PX = 4
BAR_PX = 26
SHIFT = 4
"""cv2 draws at sixteenths of a pixel when coordinates are given with this many fractional bits."""


def draw_matches(
    image0: np.ndarray,
    image1: np.ndarray,
    matches: Matches,
    inliers: np.ndarray | None = None,
    max_width: int = 1280,
    title: str = '',
) -> np.ndarray:
    """Return both images side by side (uint8 (H, W, 3), blue first) with lines between matching points.

    Lines are green for inliers and red for outliers; without `inliers` they go from red (confidence 0) to green (1). At
    most 250 are drawn, spread over image 0; the numbers in the bar on top count all.

    Args:
        inliers: (N,) bool.
        max_width: the picture is made smaller where it would be wider [px].
    """
    check_image('image0', image0)
    check_image('image1', image1)
    if inliers is not None and np.shape(inliers) != (len(matches),):
        raise InputError(f'inliers must have shape ({len(matches)},) as the matches, got {np.shape(inliers)}')
    if max_width < 64:
        raise InputError(f'max_width must be at least 64 px, got {max_width}')
    scale = min(1.0, (max_width - GAP_PX) / (image0.shape[1] + image1.shape[1]))
    small0, small1 = (_shrunk(image, scale) for image in (image0, image1))
    left = small0.shape[1] + GAP_PX
    height = max(small0.shape[0], small1.shape[0])
    picture = np.zeros((BAR_PX + height, left + small1.shape[1], 3), np.uint8)
    picture[BAR_PX : BAR_PX + small0.shape[0], : small0.shape[1]] = small0
    picture[BAR_PX : BAR_PX + small1.shape[0], left:] = small1

    chosen = _spread(matches.keypoints0, image0.shape, MAX_LINES)
    ends = [scale_points(points[chosen], scale) for points in (matches.keypoints0, matches.keypoints1)]
    segments = np.stack([ends[0] + (0, BAR_PX), ends[1] + (left, BAR_PX)], axis=1)
    shown_inliers = None if inliers is None else np.asarray(inliers)[chosen]
    groups = [(colour, segments[group]) for colour, group in _groups(matches.confidence[chosen], shown_inliers)]
    lines = picture.copy()
    for colour, group in groups:
        cv2.polylines(lines, list(_fixed_point(group)), False, colour, 1, cv2.LINE_AA, SHIFT)
    cv2.addWeighted(lines, LINE_OPACITY, picture, 1 - LINE_OPACITY, 0, dst=picture)
    for colour, group in groups:
        for centre in _fixed_point(group).reshape(-1, 2).tolist():
            cv2.circle(picture, tuple(centre), 2 << SHIFT, colour, -1, cv2.LINE_8, SHIFT)
    _write_bar(picture, title, _counts(matches, inliers, len(chosen)))
    return picture


def _shrunk(image: np.ndarray, scale: float) -> np.ndarray:
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if scale == 1.0:
        return image
    size = (max(int(image.shape[1] * scale), 1), max(int(image.shape[0] * scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _spread(points: np.ndarray, shape, count: int) -> np.ndarray:
    """Return at most `count` indices that cover the image as the points do: every k-th in the order of a grid."""
    if len(points) <= count:
        return np.arange(len(points))
    cells = np.clip(points / (shape[1], shape[0]) * 24, 0, 23).astype(int)
    order = np.lexsort((cells[:, 0], cells[:, 1]))
    return order[np.linspace(0, len(points) - 1, count).astype(int)]


def _groups(confidence: np.ndarray, inliers: np.ndarray | None):
    """Yield (colour, indices) in the order of drawing, the best on top."""
    if inliers is not None:
        yield OUTLIER, np.flatnonzero(~inliers.astype(bool))
        yield INLIER, np.flatnonzero(inliers)
        return
    steps = np.clip(confidence * COLOUR_STEPS, 0, COLOUR_STEPS - 1).astype(int)
    for step in range(COLOUR_STEPS):
        share = step / (COLOUR_STEPS - 1)
        # Through yellow, so that the middle is not brown.
        colour = (40, int(255 * min(1.0, 2 * share)), int(255 * min(1.0, 2 - 2 * share)))
        yield colour, np.flatnonzero(steps == step)


def _fixed_point(segments: np.ndarray) -> np.ndarray:
    """(N, 2 ends, x y) in the fixed-point numbers of cv2."""
    return np.round(segments * 2**SHIFT).astype(np.int32)


def _counts(matches: Matches, inliers: np.ndarray | None, drawn: int) -> str:
    text = f'{len(matches)} matches'
    if inliers is not None:
        number = int(np.count_nonzero(inliers))
        text += f', {number} inliers' + (f' ({100 * number / len(matches):.0f} %)' if len(matches) else '')
    return text if drawn == len(matches) else f'{text}, {drawn} drawn'


def _write_bar(picture: np.ndarray, title: str, counts: str) -> None:
    """Write the title on the left and the counts on the right of the bar, the title smaller where both do not fit."""
    picture[:BAR_PX] = 32
    size, width = 0.5, picture.shape[1]
    text_width = cv2.getTextSize(counts, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]
    size = min(size, size * (width - 12) / max(text_width, 1))
    right = max(width - text_width - 6, 6)
    cv2.putText(picture, counts, (right, 18), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    title_width = cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0] if title else 0
    if title_width and right > 60:
        size = min(0.5, 0.5 * (right - 18) / title_width)
        cv2.putText(picture, title, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, size, (190, 210, 255), 1, cv2.LINE_AA)


def trajectory_plot(estimated, truth, path, unit: str = 'm', title: str = '') -> None:
    """Write a picture of two trajectories from above and of their difference frame by frame.

    Args:
        estimated, truth: (N, 4, 4) world_from_cam in the same world, row by row of the same time.
        unit: of the positions; '' labels them as known up to scale.
    """
    estimated, truth = np.asarray(estimated, np.float64), np.asarray(truth, np.float64)
    if estimated.ndim != 3 or estimated.shape[1:] != (4, 4) or estimated.shape != truth.shape or not len(truth):
        raise InputError(
            f'estimated and truth must both have shape (N, 4, 4), N > 0, got {estimated.shape} and {truth.shape}; '
            'select the frames that both have'
        )
    position_error = np.linalg.norm(estimated[:, :3, 3] - truth[:, :3, 3], axis=1)
    rotation_error = [
        np.degrees(rotation_angle(e[:3, :3].T @ t[:3, :3])) for e, t in zip(estimated, truth, strict=True)
    ]
    length = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()

    figure = new_figure(10, 4.6)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
    _draw_from_above(figure.add_subplot(grid[:, 0]), estimated, truth, unit)
    of_unit = f' [{unit}]' if unit else ' (up to scale)'
    upper = figure.add_subplot(grid[0, 1])
    upper.plot(position_error, color='tab:red')
    share = f', {100 * position_error[-1] / length:.1f} % of {length:.2f} {unit}'.rstrip() if length > 0 else ''
    upper.set_title(f'at the end {position_error[-1]:.3g} {unit}'.rstrip() + share, fontsize=10)
    upper.set_ylabel(f'position error{of_unit}')
    lower = figure.add_subplot(grid[1, 1], sharex=upper)
    lower.plot(rotation_error, color='tab:purple')
    lower.set_ylabel('rotation error [deg]')
    lower.set_xlabel('frame')
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    if title:
        figure.suptitle(title)
    with writing(path) as file:
        figure.savefig(file, dpi=110)


def _draw_from_above(axes, estimated: np.ndarray, truth: np.ndarray, unit: str) -> None:
    """Plot the two world axes along which the truth extends most: x and y of ROS, x and z of an optical frame."""
    positions = truth[:, :3, 3]
    first, second = sorted(np.argsort(np.ptp(positions, axis=0), kind='stable')[-2:])
    axes.plot(positions[:, first], positions[:, second], color='0.45', linewidth=4, alpha=0.5, label='truth')
    axes.plot(estimated[:, first, 3], estimated[:, second, 3], color='tab:blue', label='estimated')
    axes.plot(*positions[0, [first, second]], 'o', color='k', label='start')
    for axis, set_label in ((first, axes.set_xlabel), (second, axes.set_ylabel)):
        set_label('xyz'[axis] + (f' [{unit}]' if unit else ' (up to scale)'))
    axes.set_aspect('equal', adjustable='datalim')
    axes.grid(alpha=0.3)
    axes.legend(loc='best')


def new_figure(width: float, height: float):
    """Return a figure [inch] that is drawn without a display, with any backend of the user."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError('plots need the package matplotlib: pip install matplotlib') from error

    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure
