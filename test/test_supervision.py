"""Ground truth on pairs whose correspondence is known by construction."""

import numpy as np
import pytest
import torch

from loftr_ros.camera import Camera
from loftr_ros.errors import InputError
from loftr_ros.rendering.render import render
from loftr_ros.rendering.scene import Face, Scene, Texture
from loftr_ros.training.batch import Pair, collate
from loftr_ros.training.supervision import (
    CoarseMatch,
    coarse_truth,
    look_up,
    pixel_truth,
    points_from_depth,
    sample,
    window_offset,
)

torch.set_num_threads(1)


def pixel_grid(height, width):
    """Return (H, W, 2) the place (x, y) of every pixel's centre."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def identity_pair(height=32, width=48, level=51):
    image = np.full((height, width), level, np.uint8)
    return Pair(image, image, pixel_grid(height, width), pixel_grid(height, width))


# --- batch ----------------------------------------------------------------------------------------------------------


def test_a_batch_holds_images_in_0_to_1_and_points_in_pixels():
    batch = collate([identity_pair(level=51), identity_pair(level=255)]).to('cpu')
    assert len(batch) == 2 and batch.image0.shape == (2, 1, 32, 48) and batch.points01.shape == (2, 32, 48, 2)
    assert batch.image1[:, 0, 3, 4].tolist() == pytest.approx([0.2, 1.0])
    assert batch.points10[1, 5, 7].tolist() == [7.0, 5.0]


def test_a_pair_refuses_points_of_another_size_and_a_batch_images_of_two_sizes():
    image = np.zeros((16, 16), np.uint8)
    with pytest.raises(InputError, match='points10 must be float32'):
        Pair(image, image, pixel_grid(16, 16), pixel_grid(16, 8))
    with pytest.raises(InputError, match='pairs of one size'):
        collate([identity_pair(16, 16), identity_pair(16, 24)])


# --- coarse ---------------------------------------------------------------------------------------------------------


def warp(homography, points):
    """Return points (..., 2) under a (3, 3) homography."""
    mapped = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1) @ np.transpose(homography)
    return mapped[..., :2] / mapped[..., 2:]


def visible_only(points, height, width):
    """Return float32 (1, H, W, 2) tensor with NaN for what is outside an image of height x width."""
    x, y = points[..., 0], points[..., 1]
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    return torch.from_numpy(np.where(inside[..., None], points, np.nan).astype(np.float32))[None]


def homography_points(homography, height=64, width=96):
    grid = pixel_grid(height, width).astype(np.float64)
    return (
        visible_only(warp(homography, grid), height, width),
        visible_only(warp(np.linalg.inv(homography), grid), height, width),
    )


def shift(dx, dy):
    return np.array([[1.0, 0, dx], [0, 1, dy], [0, 0, 1]])


TILTED = np.array([[0.95, 0.12, 4.0], [-0.1, 1.04, 3.0], [4e-4, -2e-4, 1.0]])


def test_identical_images_match_every_cell_with_itself():
    truth = coarse_truth(*homography_points(np.eye(3)))
    assert truth.match.cell0.tolist() == truth.match.cell1.tolist() == list(range(8 * 12))
    assert not truth.unmatched0.any() and not truth.unmatched1.any()


def test_a_shift_by_whole_cells_matches_shifted_cells_and_leaves_the_others_to_the_dustbin():
    """16 px to the right and 8 up: row r, column c goes to r - 1, c + 2, in a grid of 8 x 12 cells."""
    truth = coarse_truth(*homography_points(shift(16, -8)))
    expected = [(12 * r + c, 12 * (r - 1) + c + 2) for r in range(1, 8) for c in range(10)]
    assert list(zip(truth.match.cell0.tolist(), truth.match.cell1.tolist(), strict=True)) == expected
    cells = np.arange(96)
    assert truth.unmatched0[0].tolist() == ((cells < 12) | (cells % 12 >= 10)).tolist()
    assert truth.unmatched1[0].tolist() == ((cells >= 84) | (cells % 12 < 2)).tolist()


def test_zoom_by_two_matches_every_second_cell_once():
    """Of image 1 the odd cells are half-way between two cells of image 0, whose nearest is an even one."""
    truth = coarse_truth(*homography_points(np.diag([2.0, 2.0, 1.0])))
    expected = [(12 * r + c, 24 * r + 2 * c) for r in range(4) for c in range(6)]
    assert list(zip(truth.match.cell0.tolist(), truth.match.cell1.tolist(), strict=True)) == expected


def test_matches_of_a_homography_are_those_of_a_search_over_all_pairs_of_cells():
    places = pixel_grid(64, 96)[::8, ::8].reshape(-1, 2).astype(np.float64)
    distance01 = np.linalg.norm(warp(TILTED, places)[:, None] - places, axis=2)
    distance10 = np.linalg.norm(warp(np.linalg.inv(TILTED), places)[:, None] - places, axis=2)
    nearest1, nearest0 = distance01.argmin(1), distance10.argmin(1)
    points01, points10 = homography_points(TILTED)
    seen0, seen1 = (points[0, ::8, ::8].isfinite().all(-1).flatten().numpy() for points in (points01, points10))
    # Beyond the middle of the last cells no cell is near, though the nearest of all exists.
    close = (np.abs(warp(TILTED, places) - places[nearest1]) <= 4).all(1)
    close1 = (np.abs(warp(np.linalg.inv(TILTED), places) - places[nearest0]) <= 4).all(1)
    mutual = (nearest0[nearest1] == np.arange(96)) & seen0 & seen1[nearest1] & close & close1[nearest1]
    match = coarse_truth(points01, points10).match
    assert match.cell0.tolist() == np.flatnonzero(mutual).tolist() and mutual.sum() > 40
    assert match.cell1.tolist() == nearest1[mutual].tolist()


def test_a_cell_hidden_in_either_image_is_unmatched_in_both():
    points01, points10 = homography_points(np.eye(3))
    points01[0, 8, 16] = float('nan')  # row 1, column 2: cell 14
    points10[0, 16, 24] = float('nan')  # row 2, column 3: cell 27
    truth = coarse_truth(points01, points10)
    assert truth.unmatched0[0].nonzero().flatten().tolist() == [14, 27]
    assert truth.unmatched1[0].nonzero().flatten().tolist() == [14, 27]
    assert not {14, 27} & set(truth.match.cell0.tolist())


def test_pairs_of_a_batch_are_independent():
    first, second = homography_points(np.eye(3)), homography_points(shift(8, 0))
    match = coarse_truth(*(torch.cat(points) for points in zip(first, second, strict=True))).match
    assert match.batch_index.bincount().tolist() == [96, 88]
    assert (match.cell1 - match.cell0)[match.batch_index == 1].unique().tolist() == [1]


def test_a_pair_without_overlap_has_no_matches_and_no_pixels():
    points01, points10 = homography_points(shift(500, 0))
    truth = coarse_truth(points01, points10)
    assert len(truth.match.cell0) == 0 and truth.unmatched0.all() and truth.unmatched1.all()
    assert len(pixel_truth(points01, points10, truth.match).match) == 0
    assert window_offset(points01, truth.match, 12, 4.0).shape == (0, 2)


def test_a_sample_is_drawn_without_repetition_in_order_and_by_its_seed():
    match = coarse_truth(*homography_points(np.eye(3))).match
    drawn = [sample(match, 10, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert len(drawn[0].cell0.unique()) == 10 and drawn[0].cell0.tolist() == sorted(drawn[0].cell0.tolist())
    assert drawn[0].cell0.tolist() == drawn[1].cell0.tolist() == drawn[0].cell1.tolist()
    assert sample(match, 96) is match


def test_sides_that_are_no_multiples_of_eight_are_refused():
    with pytest.raises(InputError, match='multiples of 8'):
        coarse_truth(torch.zeros(1, 60, 64, 2), torch.zeros(1, 64, 64, 2))


# --- fine -----------------------------------------------------------------------------------------------------------


def test_the_window_offset_is_the_shift_in_half_windows():
    points01, points10 = homography_points(shift(2.5, -1.0))
    match = coarse_truth(points01, points10).match
    offset = window_offset(points01, match, columns1=12, half_window_px=4.0)
    torch.testing.assert_close(offset, torch.tensor([[0.625, -0.25]]).expand(len(offset), 2))


def test_the_window_offset_of_a_wrong_match_lies_beyond_the_window_and_that_of_a_hidden_cell_is_nan():
    points01, _ = homography_points(np.eye(3))
    points01[0, 0, 0] = float('nan')
    wrong = CoarseMatch(torch.tensor([0, 0]), torch.tensor([0, 5]), torch.tensor([0, 4]))
    offset = window_offset(points01, wrong, columns1=12, half_window_px=4.0)
    assert offset[0].isnan().all() and offset[1].tolist() == [2.0, 0.0]


def test_pixels_of_a_shift_lie_that_many_columns_apart_and_leave_the_sub_pixel_rest():
    """2.25 px to the right: two columns, 0.25 px rest; two of eight columns leave the window: 48 of 64 pairs."""
    points01, points10 = homography_points(shift(2.25, 0))
    match = coarse_truth(points01, points10).match
    inner = sample(CoarseMatch(*(field[match.cell0 == 12 * 3 + 5] for field in match)), 1)
    truth = pixel_truth(points01, points10, inner)
    assert len(truth.match) == 48 and set(truth.match.tolist()) == {0}
    assert (truth.pixel1 - truth.pixel0).unique().tolist() == [2] and (truth.pixel0 % 8).max() == 5
    # 1e-5 px: float32 holds places below 128 px to 4e-6.
    torch.testing.assert_close(truth.offset, torch.tensor([[0.25, 0.0]]).expand(48, 2), atol=1e-5, rtol=0)


def test_the_part_of_a_window_outside_the_image_has_no_pixels():
    """The window of cell 0 covers -4..3: 4 x 4 of its pixels exist."""
    points01, points10 = homography_points(np.eye(3))
    truth = pixel_truth(points01, points10, CoarseMatch(*torch.zeros(3, 1, dtype=torch.int64)))
    expected = [8 * row + column for row in range(4, 8) for column in range(4, 8)]
    assert truth.pixel0.tolist() == truth.pixel1.tolist() == expected


def test_pixels_and_offsets_of_a_homography_add_up_to_the_warped_pixel():
    points01, points10 = homography_points(TILTED)
    match = coarse_truth(points01, points10).match
    truth = pixel_truth(points01, points10, match)
    assert len(truth.match) > 20 * len(match.cell0)

    def place(cell, pixel):
        corner = torch.stack([cell % 12, cell // 12], dim=1) * 8 - 4
        return (corner[truth.match] + torch.stack([pixel % 8, pixel // 8], dim=1)).double().numpy()

    expected = warp(TILTED, place(match.cell0, truth.pixel0))
    # 1e-4 px: places are float32.
    np.testing.assert_allclose(place(match.cell1, truth.pixel1) + truth.offset.numpy(), expected, atol=1e-4)
    assert truth.offset.abs().max() <= 0.5
    one_to_one = torch.stack([truth.match, truth.pixel1]).unique(dim=1)
    assert one_to_one.shape[1] == len(truth.match)


def test_a_place_is_interpolated_and_nan_beside_a_nan_pixel():
    points01, _ = homography_points(shift(1.5, 0))
    points01[0, 10, 11] = float('nan')
    places = torch.tensor([[4.25, 7.5], [10.0, 10.0], [10.5, 10.0], [-0.1, 3.0], [float('nan'), 3.0]])
    found = look_up(points01, torch.zeros(5, dtype=torch.int64), places)
    torch.testing.assert_close(found[:2], torch.tensor([[5.75, 7.5], [11.5, 10.0]]))
    assert found[2:].isnan().all()


# --- depth ----------------------------------------------------------------------------------------------------------

CAMERA = Camera(np.array([[64.0, 0, 47.5], [0, 64, 31.5], [0, 0, 1]]), 96, 64)


def textured(seed):
    return Texture(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8), tileable=True)


def wall_and_plate():
    """A wall at 4 m; before it, at 2 m, a plate over the columns 30..60 of a camera at the origin (64 px focal length).

    The plate's sides lie half-way between two pixels, at 29.5 and 60.5: x = (column - 47.5) / 64 * 2 m.
    """
    wall = Face([-20, -20, 4], [40, 0, 0], [0, 40, 0], textured(0), tiles=(20, 20))
    left, right = (29.5 - 47.5) / 32, (60.5 - 47.5) / 32
    return Scene((wall, Face([left, -5, 2], [right - left, 0, 0], [0, 10, 0], textured(1), tiles=(2, 20))))


def rendered_pair(baseline_m):
    world_from_cam1 = np.eye(4)
    world_from_cam1[0, 3] = baseline_m
    scene = wall_and_plate()
    _, depth0 = render(scene, CAMERA, np.eye(4), supersample=1)
    _, depth1 = render(scene, CAMERA, world_from_cam1, supersample=1)
    return depth0, depth1, np.linalg.inv(world_from_cam1)


def test_a_rendered_pixel_moves_by_its_disparity_and_the_wall_that_the_plate_hides_is_nan():
    """Baseline 0.25 m: the plate moves 64 * 0.25 / 2 = 8 px to the left, the wall 4; columns 26..29 go behind it."""
    depth0, depth1, cam1_from_cam0 = rendered_pair(0.25)
    points = points_from_depth(depth0, depth1, CAMERA, CAMERA, cam1_from_cam0, tolerance=0.01)
    columns = np.arange(96.0)
    expected = np.where((columns >= 30) & (columns <= 60), columns - 8, columns - 4)
    expected[(columns >= 26) & (columns <= 29)] = np.nan
    expected[:4] = np.nan  # outside image 1
    # 1e-4 px: depth is float32.
    np.testing.assert_allclose(points[..., 0], np.broadcast_to(expected, (64, 96)), atol=1e-4)
    seen = ~np.isnan(expected)
    np.testing.assert_allclose(
        points[:, seen, 1], np.broadcast_to(np.arange(64.0)[:, None], (64, seen.sum())), atol=1e-4
    )


def test_points_from_depth_there_and_back_are_the_same_pixel():
    depth0, depth1, cam1_from_cam0 = rendered_pair(0.25)
    there = points_from_depth(depth0, depth1, CAMERA, CAMERA, cam1_from_cam0, 0.01)
    back = points_from_depth(depth1, depth0, CAMERA, CAMERA, np.linalg.inv(cam1_from_cam0), 0.01)
    seen = np.isfinite(there).all(-1)
    target = np.rint(there[seen]).astype(int)
    np.testing.assert_allclose(back[target[:, 1], target[:, 0]], pixel_grid(64, 96)[seen], atol=2e-4)
    truth = coarse_truth(torch.from_numpy(there)[None], torch.from_numpy(back)[None])
    # Row 2: the plate's cells at columns 32..56 move by one cell, those of the wall by half a cell, to the nearer.
    pairs = dict(zip(truth.match.cell0.tolist(), truth.match.cell1.tolist(), strict=True))
    assert [pairs[24 + column] for column in (4, 5, 6, 7)] == [24 + column for column in (3, 4, 5, 6)]


def test_a_pixel_without_depth_in_either_image_is_nan_and_so_is_the_edge_between_two_depths():
    flat, camera = np.full((16, 16), 2.0, np.float32), Camera(np.array([[16.0, 0, 8], [0, 16, 8], [0, 0, 1]]), 16, 16)
    shifted = np.eye(4)
    shifted[0, 3] = 0.0625  # half a pixel at 2 m
    depth0, depth1 = flat.copy(), flat.copy()
    depth0[3, 4], depth1[5, 6], depth1[9, 10:] = 0, np.nan, 3.0
    points = points_from_depth(depth0, depth1, camera, camera, shifted, 0.01)
    hidden = np.isnan(points[..., 0])
    assert hidden[3, 4] and hidden[5, 5] and hidden[5, 6] and hidden[9, 9:15].all()
    assert hidden[:, 15].all()  # half a pixel beyond the last centre
    assert hidden[:, :15].sum() == 1 + 2 + 6


def test_the_tolerance_is_relative():
    near = np.full((8, 8), 2.0, np.float32)
    camera = Camera(np.array([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]), 8, 8)
    points = [points_from_depth(near, near * 1.05, camera, camera, np.eye(4), tolerance) for tolerance in (0.04, 0.06)]
    assert np.isnan(points[0]).all()
    np.testing.assert_allclose(points[1], pixel_grid(8, 8), atol=1e-6)
