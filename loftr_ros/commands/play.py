"""Publish images with camera_info as a camera driver does, or the messages of a rosbag.

SOURCE is a rosbag (folder, .db3, .mcap), a folder of images, a sequence that `loftr_ros demo` wrote, or a data set
folder (KITTI odometry, EuRoC, TartanAir, TUM RGB-D, ScanNet). Topics of a bag have the recorded quality of service;
outputs of a matcher node in it are not played. Arguments after --ros-args are for ROS, for example
-r /image:=/camera/image_rect.
"""

from __future__ import annotations

from pathlib import Path


def add_arguments(parser) -> None:
    parser.add_argument('source', type=Path)
    parser.add_argument(
        '--rig',
        choices=('auto', 'mono', 'stereo', 'rgbd'),
        default='auto',
        help='what of a folder of images is published; auto: stereo where there are two cameras, otherwise mono',
    )
    parser.add_argument(
        '--camera-info',
        type=Path,
        nargs='+',
        default=[],
        metavar='YAML',
        help='calibration files of the cameras if the source has none: for a sequence in the order of the cameras; for '
        'a bag TOPIC=YAML, or one file for each camera, assigned by its name (left.yaml for /left/image_raw)',
    )
    parser.add_argument('--topics', nargs='+', default=[], metavar='TOPIC', help='play only these topics of a bag')
    parser.add_argument(
        '--rate', type=float, default=0.0, help='images a second; of a bag: speed factor; 0: as recorded'
    )
    parser.add_argument('--loop', type=int, default=1, help='number of times to play; 0: until interrupted')
    parser.add_argument('--clock', action='store_true', help='publish /clock and stamp with the recorded time')
    parser.add_argument('--compressed', action='store_true', help='publish JPEG on <topic>/compressed')
    parser.add_argument('--wait', type=int, default=0, metavar='N', help='start when N nodes have subscribed')
    parser.add_argument('--stamps', type=Path, metavar='CSV', help='write index and stamp of each image to this file')


def run(options) -> int:
    from loftr_ros.ros.player import play

    return play(options)
