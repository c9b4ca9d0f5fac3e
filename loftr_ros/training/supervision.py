"""Ground truth from dense points: corresponding coarse cells, pixels in their windows, sub-pixel offsets.

Coordinates are (x, y) [px], the centre of the top-left pixel at (0, 0). The position of the coarse cell in column c and
row r is (8 c, 8 r), both in LoFTR and in Efficient LoFTR. A place belongs to the nearest cell, floor(x / 8 + 1 / 2).
Cells and pixels are numbered row by row. `points01` and `points10` are those of batch.py: NaN where not visible.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loftr_ros.camera import Camera
from loftr_ros.errors import InputError
from loftr_ros.geometry import project, undistort_points

CELL = 8
"""Side of a coarse cell and of Efficient LoFTR's window around it [px]."""


class CoarseMatch(NamedTuple):
    """Row i of every tensor is one true match of coarse cells; sorted by batch_index, then by cell0."""

    batch_index: Tensor  # (M,) int64
    cell0: Tensor  # (M,) int64
    cell1: Tensor  # (M,) int64


class CoarseTruth(NamedTuple):
    """True matches and unmatched coarse cells of a batch."""

    match: CoarseMatch
    unmatched0: Tensor  # (B, L) bool, cells of image 0 without a match: they belong to the dustbin
    unmatched1: Tensor  # (B, S) bool, cells of image 1


class PixelTruth(NamedTuple):
    """Row k of every tensor is one pair of pixels in the windows of a coarse match (Efficient LoFTR, section 3.3)."""

    match: Tensor  # (K,) int64, which coarse match
    pixel0: Tensor  # (K,) int64, number of the pixel in the 8 x 8 window of image 0
    pixel1: Tensor  # (K,) int64, of image 1
    offset: Tensor  # (K, 2) float32, from the centre of pixel1 to the true place [px], within half a pixel


def coarse_truth(points01: Tensor, points10: Tensor) -> CoarseTruth:
    """Return the cells that are mutually nearest when their places are warped (LoFTR, section 3.5 and supplement).

    A cell without such a partner is unmatched: its place is NaN or outside, or a neighbour is nearer.

    Args:
        points01: (B, H0, W0, 2), sides multiples of 8. points10: (B, H1, W1, 2).
    """
    _check_sides(points01, points10)
    nearest1, visible0 = _nearest_cell(points01, points10.shape[1:3])  # (B, L)
    nearest0, visible1 = _nearest_cell(points10, points01.shape[1:3])  # (B, S)
    back = nearest0.gather(1, nearest1)  # (B, L)
    own = torch.arange(back.shape[1], device=back.device)
    mutual = visible0 & visible1.gather(1, nearest1) & (back == own)
    batch_index, cell0 = mutual.nonzero(as_tuple=True)
    cell1 = nearest1[batch_index, cell0]
    unmatched1 = torch.ones_like(visible1)
    unmatched1[batch_index, cell1] = False
    return CoarseTruth(CoarseMatch(batch_index, cell0, cell1), ~mutual, unmatched1)


def sample(match: CoarseMatch, most: int, generator: torch.Generator | None = None) -> CoarseMatch:
    """Return at most `most` matches, drawn at random without repetition, in the same order.

    `generator` is on the CPU, so that every device draws the same numbers.
    """
    count = len(match.cell0)
    if count <= most:
        return match
    index = torch.randperm(count, generator=generator)[:most].sort().values.to(match.cell0.device)
    return CoarseMatch(*(field[index] for field in match))


def window_offset(points01: Tensor, match: CoarseMatch, columns1: int, half_window_px: float) -> Tensor:
    """Return the offset (M, 2) of the place of cell0 from that of cell1 [half windows] (LoFTR, section 3.4).

    NaN where cell0 is not visible; outside [-1, 1] if a predicted match is wrong by more than the window.

    Args:
        columns1: coarse cells in a row of image 1.
        half_window_px: LoFTR's `window // 2 * FINE_STRIDE`, 4 for a window of 5.
    """
    place0 = cell_place(match.cell0, points01.shape[2] // CELL)
    target = points01[match.batch_index, place0[:, 1], place0[:, 0]]  # (M, 2)
    return (target - cell_place(match.cell1, columns1)) / half_window_px


def pixel_truth(points01: Tensor, points10: Tensor, match: CoarseMatch) -> PixelTruth:
    """Return the mutually nearest pixels in the windows of coarse matches, and the sub-pixel rest.

    The window of a cell covers its place from -4 to +3 px (networks/efficient_loftr.py); the part of a window outside
    its image has no pairs.
    """
    corner0 = cell_place(match.cell0, points01.shape[2] // CELL) - CELL // 2  # (M, 2)
    corner1 = cell_place(match.cell1, points10.shape[2] // CELL) - CELL // 2
    number = torch.arange(CELL * CELL, device=corner0.device)
    pixel0 = corner0[:, None] + cell_place(number, CELL) // CELL  # (M, 64, 2)
    batch = match.batch_index[:, None].expand(pixel0.shape[:2])

    target, inside0 = _at_pixel(points01, batch, pixel0)
    pixel1, finite = _nearest(target, 1)
    back, inside1 = _at_pixel(points10, batch, pixel1)
    returned, back_finite = _nearest(back, 1)
    local1 = pixel1 - corner1[:, None]
    in_window = ((local1 >= 0) & (local1 < CELL)).all(-1)
    mutual = inside0 & finite & inside1 & back_finite & in_window & (returned == pixel0).all(-1)

    index, number0 = mutual.nonzero(as_tuple=True)
    local1 = local1[index, number0]
    offset = target[index, number0] - pixel1[index, number0]
    return PixelTruth(index, number0, local1[:, 1] * CELL + local1[:, 0], offset)


def look_up(points: Tensor, batch_index: Tensor, places: Tensor) -> Tensor:
    """Return `points` (B, H, W, 2) at `places` (M, 2) [px] of images `batch_index` (M,): (M, 2), bilinear.

    NaN outside the image and where one of the pixels around is not visible.
    """
    height, width = points.shape[1:3]
    limit = places.new_tensor([width - 1, height - 1])
    inside = ((places >= 0) & (places <= limit)).all(-1)  # False for NaN
    places = torch.where(inside[:, None], places, torch.zeros_like(places))
    first = places.floor()
    share = places - first
    result = torch.zeros_like(places)
    for step_x in (0, 1):
        for step_y in (0, 1):
            step = places.new_tensor([step_x, step_y])
            weight = (1 - step - share).abs().prod(-1, keepdim=True)
            x, y = torch.minimum(first + step, limit).long().unbind(-1)
            # NaN of a pixel with weight 0 must not change the result.
            result = result + torch.where(weight > 0, weight * points[batch_index, y, x], torch.zeros_like(result))
    return torch.where(inside[:, None], result, torch.full_like(result, float('nan')))


def points_from_depth(
    depth0: np.ndarray,
    depth1: np.ndarray,
    camera0: Camera,
    camera1: Camera,
    cam1_from_cam0: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """Return `points01` float32 (H0, W0, 2) [px] from depth and pose, NaN where occluded, outside or without depth.

    A point is visible in image 1 when its depth there agrees with depth1. depth1 is interpolated as inverse depth,
    which is linear over a plane. At the edge of an object the interpolated depth agrees with neither side, so the edge
    is left out.

    Args:
        depth0, depth1: (H, W) z at the pixel centres [m]; 0 or not finite where unknown.
        camera0, camera1: of the sizes of the depth maps.
        cam1_from_cam0: (4, 4), in the unit of the depth.
        tolerance: largest relative difference of depth; 0.01 for rendered, 0.2 for MegaDepth (LoFTR's code).
    """
    for name, depth, camera in (('depth0', depth0, camera0), ('depth1', depth1, camera1)):
        if depth.shape != (camera.height, camera.width):
            raise InputError(
                f'{name} must have the size of its camera, {(camera.height, camera.width)}, got {depth.shape}'
            )
    height, width = depth0.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    z = np.where(np.isfinite(depth0) & (depth0 > 0), depth0, np.nan).astype(np.float64).reshape(-1, 1)
    rays = undistort_points(camera0, np.column_stack([x.ravel(), y.ravel()]))
    pose = np.asarray(cam1_from_cam0, np.float64)
    in_camera1 = np.hstack([rays * z, z]) @ pose[:3, :3].T + pose[:3, 3]
    points = project(camera1, in_camera1)
    inverse = bilinear(inverse_depth(depth1), points)
    with np.errstate(invalid='ignore'):
        visible = np.abs(inverse * in_camera1[:, 2] - 1) <= tolerance  # False for NaN
    return np.where(visible[:, None], points, np.nan).astype(np.float32).reshape(height, width, 2)


def cell_place(cell: Tensor, columns: int) -> Tensor:
    """Return the pixels (..., 2) int64 at the positions of cells (...) of a grid with `columns`."""
    return torch.stack([cell % columns, cell.div(columns, rounding_mode='floor')], dim=-1) * CELL


def _nearest(points: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return the whole numbers (..., 2) int64 nearest to points / stride, and (...) bool where those are finite."""
    finite = points.isfinite().all(-1)
    nearest = torch.floor(points / stride + 0.5)
    return torch.where(finite[..., None], nearest, torch.zeros_like(nearest)).long(), finite


def _nearest_cell(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the cell (B, L) in an image of `size` nearest to the place of every cell, and whether there is one."""
    place, finite = _nearest(points[:, ::CELL, ::CELL].flatten(1, 2), CELL)
    x, y = place.unbind(-1)
    rows, columns = size[0] // CELL, size[1] // CELL
    inside = finite & (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    return torch.where(inside, y * columns + x, torch.zeros_like(x)), inside


def _at_pixel(points: Tensor, batch: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Return points (..., 2) at whole pixels (..., 2) of images `batch` (...), and (...) bool inside the image."""
    height, width = points.shape[1:3]
    x, y = pixel.unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return points[batch, y.clamp(0, height - 1), x.clamp(0, width - 1)], inside


def _check_sides(*points: Tensor) -> None:
    for tensor in points:
        if tensor.dim() != 4 or tensor.shape[3] != 2 or tensor.shape[1] % CELL or tensor.shape[2] % CELL:
            raise InputError(
                f'points must be (B, H, W, 2) with sides that are multiples of 8, got {tuple(tensor.shape)}'
            )


def inverse_depth(depth: np.ndarray) -> np.ndarray:
    """Return 1 / depth, which is linear over a plane; NaN where the depth is 0, negative or not finite."""
    known = np.isfinite(depth) & (depth > 0)
    return np.divide(1.0, depth, out=np.full(depth.shape, np.nan), where=known)


def bilinear(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return `values` (H, W) at points (N, 2): (N,), NaN outside and beside a NaN that has weight."""
    height, width = values.shape
    x, y = np.ascontiguousarray(points.T)
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)  # False for NaN
    x, y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
    left, top = x.astype(int), y.astype(int)
    share_x, share_y = x - left, y - top
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    result = np.where(inside, 0.0, np.nan)
    for column, weight_x in ((left, 1 - share_x), (right, share_x)):
        for row, weight_y in ((top, 1 - share_y), (bottom, share_y)):
            weight = weight_x * weight_y
            result += np.where(weight > 0, weight * values[row, column], 0.0)
    return result
