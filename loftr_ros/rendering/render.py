"""Render the image and the exact depth of a scene, by intersection of rays with planes.

For a face with the columns M = [edge_u, edge_v, origin] in the camera frame, the ray d of a pixel meets its plane at
depth z where M (u, v, 1) = z d. So (u, v, 1) / z = M^-1 K^-1 (x, y, 1) =: (a, b, c) is linear in the pixel: inverse
depth is c, the point is on the face if 0 <= a, b <= c, and the derivatives of the texture have closed forms.
"""

from __future__ import annotations

import cv2
import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.errors import InputError
from loftr_ros.image import pixel_from_fraction, scale_matrix
from loftr_ros.rendering.scene import Face, Scene

NEAR_M = 0.02
"""Near plane: parts of faces with a smaller z are not drawn [m]."""

SHARPNESS = 0.75
"""Share of a pixel's footprint that is averaged; at 1 the bilinear samples of mip levels look blurred."""

LONGEST_ROW = 4096  # cv2.remap does not support images of 32768 columns or more


def render(
    scene: Scene,
    camera: Camera,
    world_from_cam: np.ndarray,
    supersample: int = 2,
    noise_sigma: float = 0.0,
    seed: int | tuple[int, ...] = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return image uint8 (H, W, 3), blue first, and depth float32 (H, W): z at the pixel centre [m], 0 for no face.

    Args:
        camera: without distortion; its width and height are the image's.
        world_from_cam: (4, 4) pose of the optical frame.
        supersample: samples along each axis of a pixel in which faces meet; depth is not averaged.
        noise_sigma: standard deviation of normal sensor noise [grey values], drawn from `seed`.
    """
    if camera.is_distorted:
        raise InputError('the renderer has no distortion, got a distorted camera; use one with distortion=()')
    if supersample < 1:
        raise InputError(f'supersample must be at least 1, got {supersample}')
    cam_from_world = np.linalg.inv(np.asarray(world_from_cam, np.float64))
    frames = cam_from_world[:3, :3] @ scene.frames
    frames[:, :, 2] += cam_from_world[:3, 3]

    size = (camera.height, camera.width)
    inverse_depth, index = _visible(frames, scene.reach, camera.matrix, size, np.float64)
    depth = np.divide(1.0, inverse_depth, out=np.zeros_like(inverse_depth), where=index >= 0).astype(np.float32)
    image = _draw(scene, frames, camera.matrix, index, supersample)
    if noise_sigma > 0:
        image += noise_sigma * np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image, out=image), 0, 255, out=image).astype(np.uint8), depth


def _visible(
    frames: np.ndarray, reach: np.ndarray, matrix: np.ndarray, size: tuple[int, int], dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return inverse depth [1/m] and the number of the nearest face (-1: none), both of `size`."""
    inverse_depth = np.zeros(size, dtype)
    index = np.full(size, -1, np.int32)
    numbers, windows = _windows(frames, matrix, size)
    columns, rows = np.arange(size[1], dtype=dtype), np.arange(size[0], dtype=dtype)[:, None]
    pixel_maps = _pixel_maps(frames[numbers], matrix).astype(dtype)
    for number, (top, bottom, left, right), pixel_map in zip(numbers, windows.tolist(), pixel_maps, strict=True):
        x, y = columns[left:right], rows[top:bottom]
        nearest = inverse_depth[top:bottom, left:right]
        c = pixel_map[2, 0] * x + (pixel_map[2, 1] * y + pixel_map[2, 2])
        hit = (c > nearest) & (c < 1 / NEAR_M)
        if not hit.any():  # hidden by nearer faces
            continue
        a, b = (row[0] * x + (row[1] * y + row[2]) for row in pixel_map[:2])
        hit &= (a >= 0) & (a <= c) & (b >= 0) & (b <= c)
        if reach[number] < 2:
            hit &= a + b <= c
        np.copyto(nearest, c, where=hit)
        np.copyto(index[top:bottom, left:right], number, where=hit)
    return inverse_depth, index


def _corners(frames: np.ndarray) -> np.ndarray:
    """Return (..., 4, 3), the corners of faces, in order around each."""
    edge_u, edge_v, origin = frames[..., 0], frames[..., 1], frames[..., 2]
    return np.stack([origin, origin + edge_u, origin + edge_u + edge_v, origin + edge_v], axis=-2)


def _windows(frames: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers (N,) of the visible faces, and (N, 4) rows [top, bottom) and columns [left, right) of each.

    Faces completely outside one side of the view are left out first, because division and clipping take longer.
    """
    x, y, z = np.moveaxis(_corners(frames) @ matrix.T, -1, 0)  # (F, 4): pixel times depth, and depth
    height, width = size
    outside = (z < NEAR_M, x < -0.5 * z, x > (width - 0.5) * z, y < -0.5 * z, y > (height - 0.5) * z)
    numbers = np.flatnonzero(~np.any([side.all(axis=1) for side in outside], axis=0))
    x, y, z = x[numbers], y[numbers], z[numbers]
    near = np.flatnonzero((z < NEAR_M).any(axis=1))
    z[near] = 1.0  # any value: their bounds are computed from the part in front of the near plane
    pixels = np.stack([x / z, y / z], axis=-1)  # (N, 4, 2)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    for row in near:
        corners = _clip_near(_corners(frames[numbers[row]])) @ matrix.T
        pixels = corners[:, :2] / corners[:, 2:]
        low[row], high[row] = pixels.min(axis=0), pixels.max(axis=0)
    left, top = np.clip(np.floor(low), 0, (width, height)).astype(int).T
    right, bottom = np.clip(np.floor(high) + 1, 0, (width, height)).astype(int).T
    seen = (top < bottom) & (left < right)
    return numbers[seen], np.stack([top, bottom, left, right], axis=1)[seen]


def _pixel_maps(frames: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return (F, 3, 3) from (x, y, 1) to (u, v, 1) / z; NaN, which matches no pixel, for a face seen edge-on."""
    products = matrix @ frames
    thin = np.abs(np.linalg.det(products)) < 1e-12
    products[thin] = np.eye(3)
    maps = np.linalg.inv(products)
    maps[thin] = np.nan
    return maps


def _clip_near(corners: np.ndarray) -> np.ndarray:
    """Return the part of a polygon in front of the near plane (Sutherland-Hodgman for one plane)."""
    kept = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if start[2] >= NEAR_M:
            kept.append(start)
        if (start[2] >= NEAR_M) != (end[2] >= NEAR_M):
            kept.append(start + (end - start) * (NEAR_M - start[2]) / (end[2] - start[2]))
    return np.stack(kept)


def _draw(scene: Scene, frames: np.ndarray, matrix: np.ndarray, index: np.ndarray, supersample: int) -> np.ndarray:
    """Return the float32 (H, W, 3) image whose pixel centres see the faces `index`.

    Mip levels smooth the textures, so only a pixel in which faces meet needs more than one sample.
    """
    height, width = index.shape
    y, x = (grid.ravel() for grid in np.indices(index.shape, np.float32))
    scale = supersample
    fine_matrix = scale_matrix(scale) @ matrix
    fine = (
        index
        if scale == 1
        else _visible(frames, scene.reach, fine_matrix, (scale * height, scale * width), np.float32)[1]
    )
    parts = fine.reshape(height, scale, width, scale).swapaxes(1, 2).reshape(-1, scale * scale)
    mixed = (parts != index.reshape(-1, 1)).any(axis=1)
    offset_y, offset_x = np.divmod(np.arange(scale * scale, dtype=np.float32), scale)
    shift = np.float32((scale - 1) / 2)
    colours = _shade(
        scene,
        frames,
        matrix,
        np.concatenate([index.ravel()[~mixed], parts[mixed].ravel()]),
        np.concatenate([x[~mixed], (x[mixed, None] + (offset_x - shift) / scale).ravel()]),
        np.concatenate([y[~mixed], (y[mixed, None] + (offset_y - shift) / scale).ravel()]),
    )
    whole = int(np.count_nonzero(~mixed))
    image = np.empty((height * width, 3), np.float32)
    image[~mixed] = colours[:whole]
    image[mixed] = colours[whole:].reshape(-1, scale * scale, 3).mean(axis=1)
    return image.reshape(height, width, 3)


def _shade(
    scene: Scene, frames: np.ndarray, matrix: np.ndarray, numbers: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Return the float32 (N, 3) colours of the faces `numbers` (-1: background) at the pixels (x, y)."""
    colours = np.empty((len(numbers), 3), np.float32)
    colours[:] = scene.background
    # One sort finds the samples of every face; a search for each face would read all samples again.
    order = np.argsort(numbers, kind='stable')
    order = order[np.count_nonzero(numbers < 0) :]
    present, starts = np.unique(numbers[order], return_index=True)
    # float32 represents texture coordinates to some thousandths of a texel and takes half the time.
    pixel_maps = _pixel_maps(frames[present], matrix).astype(np.float32)
    for number, pixel_map, chosen in zip(present, pixel_maps, np.split(order, starts)[1:], strict=True):
        colours[chosen] = _face_colours(scene.faces[number], pixel_map, x[chosen], y[chosen])
    return colours


def _face_colours(face: Face, pixel_map: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the float32 (N, 3) colours of a face at the pixels (x, y), from two mip levels each."""
    a, b, c = (row[0] * x + row[1] * y + row[2] for row in pixel_map)
    u, v = a / c, b / c
    height, width = face.texture.image.shape[:2]
    across, down = face.tiles[0] * width, face.tiles[1] * height
    # Texels that one pixel step covers, along x and along y.
    steps = [
        np.hypot(across * (pixel_map[0, k] - u * pixel_map[2, k]), down * (pixel_map[1, k] - v * pixel_map[2, k])) / c
        for k in (0, 1)
    ]
    # Half the longer footprint: a floor seen at a low angle is sharp across, with a little aliasing along.
    footprint = np.maximum(np.minimum(*steps), np.maximum(*steps) / 2)
    level = np.clip(np.log2(np.maximum(SHARPNESS * footprint, 1e-9)), 0, len(face.texture.levels) - 1)
    texture_u = face.offset[0] + face.tiles[0] * u
    texture_v = face.offset[1] + face.tiles[1] * v
    if face.texture.tileable:
        texture_u -= np.floor(texture_u)
        texture_v -= np.floor(texture_v)

    colours = np.empty((len(x), 3), np.float32)
    lower = level.astype(np.int32)
    for number in range(lower.min(), lower.max() + 1):
        chosen = np.flatnonzero(lower == number)
        if len(chosen):
            near = _sample(face, number, texture_u[chosen], texture_v[chosen]).astype(np.float32)
            weight = (level[chosen] - number)[:, None]
            if weight.any():
                near += weight * (_sample(face, number + 1, texture_u[chosen], texture_v[chosen]) - near)
            colours[chosen] = near
    if face.light is not None:
        rows, columns = face.light.shape
        colours *= _remap(face.light, u * (columns - 1), v * (rows - 1), cv2.BORDER_REPLICATE)[:, None]
    return colours


def _sample(face: Face, level: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return colours (N, 3) of a mip level at texture coordinates, bilinear."""
    image = face.texture.levels[min(level, len(face.texture.levels) - 1)]
    border = cv2.BORDER_WRAP if face.texture.tileable else cv2.BORDER_REPLICATE
    height, width = image.shape[:2]
    return _remap(image, pixel_from_fraction(u, width), pixel_from_fraction(v, height), border)


def _remap(image: np.ndarray, x: np.ndarray, y: np.ndarray, border: int) -> np.ndarray:
    """Return image values (N, ...) at N places, by cv2.remap on a padded rectangle of them."""
    count = len(x)
    columns = min(count, LONGEST_ROW)
    rows = -(-count // columns)
    maps = np.zeros((2, rows * columns), np.float32)
    maps[0, :count], maps[1, :count] = x, y
    maps = maps.reshape(2, rows, columns)
    values = cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=border)
    return values.reshape(rows * columns, *image.shape[2:])[:count]
