"""Warping of images by depth and pose, to check that both agree with the images."""

import cv2
import numpy as np


def warp(image1, camera, depth0, cam1_from_cam0):
    """Image 1 as camera 0 would see it, by the depth of image 0."""
    y, x = np.indices(depth0.shape)
    rays = np.linalg.solve(camera.matrix, np.stack([x, y, np.ones_like(x)]).reshape(3, -1).astype(float))
    points = cam1_from_cam0[:3, :3] @ (rays * depth0.ravel()) + cam1_from_cam0[:3, 3:]
    u, v = ((camera.matrix @ points)[:2] / np.maximum(points[2], 1e-6)).reshape(2, *depth0.shape).astype(np.float32)
    return cv2.remap(image1, u, v, cv2.INTER_LINEAR), (u >= 0) & (u < x.max()) & (v >= 0) & (v < y.max())


def errors_of_warp_and_of_identity(sequence, index0, index1):
    """Median grey difference after the warp from frame index1 into index0, and without one."""
    grey0, grey1 = (cv2.cvtColor(sequence.frames(i)[0].image, cv2.COLOR_BGR2GRAY) for i in (index0, index1))
    cam1_from_cam0 = np.linalg.inv(sequence.world_from_cam0[index1]) @ sequence.world_from_cam0[index0]
    depth0 = sequence.depth0(index0)
    warped, valid = warp(grey1, sequence.camera0, depth0, cam1_from_cam0)
    valid &= depth0 > 0
    difference = np.abs(warped.astype(int) - grey0)[valid]
    return difference.mean(), np.abs(grey1.astype(int) - grey0)[valid].mean()
