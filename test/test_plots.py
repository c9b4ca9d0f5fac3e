"""Plots: pictures with known pixels, and figures that are not blank."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from loftr_ros.datatypes import Matches
from loftr_ros.errors import InputError
from loftr_ros.evaluation.plots import BAR_PX, GAP_PX, INLIER, MAX_LINES, OUTLIER, draw_matches, trajectory_plot
from loftr_ros.geometry import rotation_from_vector, transform


def matches_at(points0, points1, confidence=None):
    count = len(points0)
    confidence = np.ones(count) if confidence is None else confidence
    return Matches(points0, points1, confidence, np.full(count, np.nan), np.arange(count))


def black(width, height):
    return np.zeros((height, width, 3), np.uint8)


def test_images_stand_side_by_side_below_the_bar():
    image0, image1 = np.full((40, 60), 90, np.uint8), np.full((30, 50, 3), (10, 20, 30), np.uint8)
    picture = draw_matches(image0, image1, Matches.empty())
    assert picture.dtype == np.uint8 and picture.shape == (BAR_PX + 40, 60 + GAP_PX + 50, 3)
    assert (picture[BAR_PX:, :60] == 90).all()
    assert (picture[BAR_PX : BAR_PX + 30, 60 + GAP_PX :] == (10, 20, 30)).all()
    assert not picture[BAR_PX + 30 :, 60 + GAP_PX :].any()


def test_a_match_is_a_dot_at_each_end_in_the_colour_of_its_verdict():
    matches = matches_at([[20, 30], [40, 80]], [[50, 30], [70, 80]])
    picture = draw_matches(black(120, 100), black(120, 100), matches, inliers=[True, False])
    for row, colour in ((30, INLIER), (80, OUTLIER)):
        x0, x1 = {30: (20, 50), 80: (40, 70)}[row]
        assert (picture[BAR_PX + row, x0] == colour).all()
        assert (picture[BAR_PX + row, 120 + GAP_PX + x1] == colour).all()
        line = picture[BAR_PX + row, 100].astype(int)
        assert line.argmax() == np.argmax(colour), 'the line between them has a paler tone of it'


def test_confidence_runs_from_red_to_green():
    matches = matches_at([[20, 30], [20, 80]], [[50, 30], [50, 80]], confidence=[0.0, 1.0])
    picture = draw_matches(black(120, 100), black(120, 100), matches).astype(int)
    low, high = picture[BAR_PX + 30, 20], picture[BAR_PX + 80, 20]
    assert low[2] == 255 and low[1] == 0
    assert high[1] == 255 and high[2] == 0


def test_a_smaller_picture_keeps_the_points_on_their_places():
    """White squares mark the points in the images; after the resize a dot must still cover each centre."""
    image = black(1000, 800)
    image[398:403, 698:703] = 255
    matches = matches_at([[700, 400]], [[700, 400]])
    picture = draw_matches(image, image, matches, inliers=[True], max_width=504)
    assert picture.shape[1] <= 504
    x, y = 700.5 / 4 - 0.5, 400.5 / 4 - 0.5
    assert (picture[BAR_PX + round(y), round(x)] == INLIER).all()
    assert (picture[BAR_PX + round(y), 250 + GAP_PX + round(x)] == INLIER).all()


def test_many_matches_are_thinned_evenly():
    rng = np.random.default_rng(0)
    points = rng.uniform((10, 10), (630, 470), (5000, 2))
    picture = draw_matches(black(640, 480), black(640, 480), matches_at(points, points), inliers=np.ones(5000, bool))
    dots = (picture[BAR_PX:, :640] == INLIER).all(axis=2)
    number, _ = cv2.connectedComponents(dots.astype(np.uint8))
    assert 0.7 * MAX_LINES < number - 1 <= MAX_LINES + 10  # some dots touch, a crossing of lines may be as bright
    quarters = [dots[y : y + 240, x : x + 320].sum() for y in (0, 240) for x in (0, 320)]
    assert min(quarters) > 0.6 * max(quarters)


def test_the_bar_carries_title_and_counts_in_any_width():
    matches = matches_at([[2, 2]], [[3, 3]])
    with_title = draw_matches(black(300, 40), black(300, 40), matches, [True], title='left and right')[:BAR_PX]
    without = draw_matches(black(300, 40), black(300, 40), matches, [True])[:BAR_PX]
    assert (with_title[:, :150].max() > 150) and (without[:, :150].max() == 32)
    assert (with_title[:, 450:] == without[:, 450:]).all() and without[:, 450:].max() > 150
    tiny = draw_matches(black(20, 20), black(20, 20), matches, title='a title that is far too long for this picture')
    assert tiny.shape == (BAR_PX + 20, 40 + GAP_PX, 3)


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match='inliers must have shape'):
        draw_matches(black(9, 9), black(9, 9), matches_at([[1, 1]], [[1, 1]]), inliers=[True, True])
    with pytest.raises(InputError, match='max_width'):
        draw_matches(black(9, 9), black(9, 9), Matches.empty(), max_width=0)
    with pytest.raises(InputError, match='image1'):
        draw_matches(black(9, 9), None, Matches.empty())


def drive(count):
    return np.stack(
        [transform(rotation_from_vector((0, 0, 0.02 * i)), (0.1 * i, 0.002 * i * i, 0)) for i in range(count)]
    )


def test_a_trajectory_plot_shows_both_lines(tmp_path):
    truth = drive(30)
    estimated = truth.copy()
    estimated[:, 1, 3] += 0.3
    trajectory_plot(estimated, truth, tmp_path / 'plot.png', title='drive')
    picture = cv2.imread(str(tmp_path / 'plot.png')).astype(int)
    assert picture.shape[0] > 400 and picture.shape[1] > 900
    blue_line = (picture[..., 0] - picture[..., 2] > 100).sum()  # estimated
    red_line = (picture[..., 2] - picture[..., 0] > 100).sum()  # position error
    assert blue_line > 200 and red_line > 200


def test_trajectories_of_unlike_length_are_refused(tmp_path):
    with pytest.raises(InputError, match=r'\(5, 4, 4\) and \(6, 4, 4\)'):
        trajectory_plot(drive(5), drive(6), tmp_path / 'plot.png')


def test_drawing_matches_does_not_load_matplotlib():
    program = 'import sys, loftr_ros.evaluation.plots; assert not any(m.startswith("matplotlib") for m in sys.modules)'
    subprocess.run([sys.executable, '-c', program], check=True)
