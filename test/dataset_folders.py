"""Small folders in the layouts of data sets, with poses that are easy to check."""

import json

import cv2
import numpy as np

EUROC_HEADER = (
    '#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], '
    'v_RS_R_x [m s^-1], v_RS_R_y [m s^-1], v_RS_R_z [m s^-1]\n'
)


def write(folder, text, name='poses.txt'):
    """Write a text file, and return its path."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def write_images(folder, names, size=(64, 48)):
    """Write grey images of `size` (width, height); all pixels of image i have the value i."""
    folder.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full(size[::-1], value, np.uint8))


def row(matrix):
    """Return the numbers of a matrix in one line."""
    return ' '.join(f'{x:.6e}' for x in np.ravel(matrix))


KITTI_CALIBRATION = 'P0: 7.0e+02 0 3.2e+01 0 0 7e2 24 0 0 0 1 0\nP1: 700 0 32 -350 0 700 24 0 0 0 1 0\n'


def kitti(root, names=('000000.png', '000001.png', '000002.png')):
    write_images(root / 'image_0', names)
    write(root, KITTI_CALIBRATION, 'calib.txt')
    write(root, '0.0\n1.0e-1\n2.0e-1\n', 'times.txt')
    write(root, ''.join(f'1 0 0 0 0 1 0 0 0 0 1 {i}\n' for i in range(3)))
    return root


def euroc(root):
    names = [f'{1403636579763555584 + i * 50_000_000}.png' for i in range(3)]
    write_images(root / 'mav0/cam0/data', names)
    write(
        root,
        'resolution: [64, 48]\nintrinsics: [50, 50, 32, 24]\ndistortion_model: none\n'
        'T_BS: {data: [1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1]}\n',
        'mav0/cam0/sensor.yaml',
    )
    rows = ''.join(f'{name[:-4]},{i},0,0,1,0,0,0\n' for i, name in enumerate(names))
    write(root, EUROC_HEADER + rows.replace('0\n', '0,0,0,0\n'), 'mav0/state_groundtruth_estimate0/data.csv')
    return root


def tum(root):
    write_images(root / 'rgb', ['100.5.png', '100.25.png', '100.75.png'])
    write(root, 'intrinsics: [[50, 0, 32], [0, 50, 24], [0, 0, 1]]\n', 'camera_intrinsics.yaml')
    write(root, ''.join(f'{t} {t} 0 0 0 0 0 1\n' for t in (100.25, 100.5, 100.75)), 'groundtruth.txt')
    return root


def tum_json(root):
    write_images(root / 'rgb', ['0.png', '1.png'])
    write(root, json.dumps({str(i): {'transformation': np.eye(4).tolist()} for i in range(2)}), 'ground_truth.json')
    return root


def tartanair(root):
    write_images(root / 'image_lcam_front', ['000000_lcam.png', '000002_lcam.png'], (64, 64))
    write(root, ''.join(f'{i} 0 0 0 0 0 1\n' for i in range(3)), 'pose_lcam_front.txt')
    return root


def colmap(root):
    write_images(root / 'images', ['a.png', 'b.png'])
    write(root, '1 PINHOLE 64 48 50 50 32.5 24.5\n', 'sparse/0/cameras.txt')
    write(root, '1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 1 0 0 1 b.png\n1 2 -1\n', 'sparse/0/images.txt')
    return root


def scannet(root):
    write_images(root / 'color', ['0.png', '1.png'])
    (root / 'depth').mkdir()
    for i in range(2):
        cv2.imwrite(str(root / f'depth/{i}.png'), np.full((48, 64), 1000, np.uint16))
        write(root, '\n'.join(row(r) for r in np.eye(4)) + '\n', f'pose/{i}.txt')
    for kind in ('color', 'depth'):
        write(root, '50 0 32 0\n0 50 24 0\n0 0 1 0\n0 0 0 1\n', f'intrinsic/intrinsic_{kind}.txt')
    return root


def saved(root):
    write_images(root / 'left', ['0.png', '1.png'])
    write(root, '1000000000\n2e9\n', 'stamps.txt')
    write(root, '1 0 0 0 0 0 0 1\n2 1 0 0 0 0 0 1\n')
    return root


LAYOUTS = {make.__name__: make for make in (kitti, euroc, tum, tum_json, tartanair, colmap, scannet, saved)}
"""Functions that write a small folder of each layout, with poses."""


def positions(sequence):
    """Return the positions of the camera as a list of x, y, z [m]."""
    return sequence.world_from_cam0[:, :3, 3].tolist()
