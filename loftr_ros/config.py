"""Every setting of the node and the matchers, declared once: its default, meaning, unit and range.

ROS parameters and their descriptors, `--config` and `--set` of the command line, config/default.yaml and
docs/parameters.md are all made from these fields.
"""

from __future__ import annotations

import dataclasses

from loftr_ros.settings import Checked, setting


@dataclasses.dataclass(frozen=True, slots=True)
class GcmConfig(Checked):
    """Parts and switches of the matcher `gcm` (Generalized Correspondence Matching)."""

    backbone: str = setting(
        'efficient_loftr',
        'source of the feature maps F_1..F_k: efficient_loftr, loftr, or weights of theirs; pool averages the patch '
        'descriptor; ARCHITECTURE=FILE of torchvision; timm:NAME; onnx:FILE',
    )
    levels: str = setting(
        '',
        'strides of the maps to use [px], each dividing the next, such as 2,4,8; of an ONNX file also OUTPUT:STRIDE; '
        'empty: those of the backbone',
    )
    descriptor: str = setting(
        'patch_descriptor_small',
        'patch descriptor F_0 at full resolution: weights of one, as in matcher.weights; gradient is hand-written; '
        'none: the finest map of the backbone is used',
    )
    align: bool = setting(True, 'warp image 1 by a homography before refinement (step 1 of the paper)')
    refinement: str = setting(
        'widened',
        'paper: regions of 2 x 2 places in both images, all pixels (III-D); widened: a larger region in image 1, '
        'one sub-pixel match for each block of 4 x 4 pixels',
        choices=('widened', 'paper'),
    )
    ratios: str = setting(
        '',
        'paper: largest ratio of distances at each level as in DFM, the coarsest first, such as 0.95,0.9,0.6; empty: '
        'only match_threshold, 1 - ratio of the last level',
    )


@dataclasses.dataclass(frozen=True, slots=True)
class KeypointConfig(Checked):
    """Keypoints of the matchers `superglue`, `superpoint_nn`, `nearest_neighbours`, `sift`, `orb` and `akaze`."""

    detector: str = setting(
        'superpoint',
        'detector of nearest_neighbours and superglue: superpoint, sift, orb, akaze, or one that another package '
        'registers in the entry-point group loftr_ros.matchers.detectors',
    )
    max_keypoints: int = setting(
        0, 'keep at most this number of keypoints, the best; 0: 1024 for superglue, 2048 for the others', minimum=0
    )
    threshold: float = setting(0.001, 'keypoints with a lower score are dropped', minimum=0, maximum=1)
    nms_radius_px: int = setting(
        4,
        'a keypoint is dropped if a better one is at most this far away in x and y [px of the resized image]',
        minimum=0,
    )
    border_px: int = setting(4, 'width of the border without keypoints [px of the resized image]', minimum=0)
    subpixel: bool = setting(True, 'place keypoints between pixels, at the mean of the scores around them')
    max_ratio: float = setting(
        1.0,
        'superpoint_nn: largest ratio of the distances to the nearest and to the second descriptor; 1: no test',
        minimum=0,
        maximum=1,
    )
    min_cosine: float = setting(
        -1.0, 'superpoint_nn: least cosine of two descriptors that match; -1: no test', minimum=-1, maximum=1
    )


@dataclasses.dataclass(frozen=True, slots=True)
class SuperGlueConfig(Checked):
    """Settings of the matcher `superglue`."""

    detector: str = setting(
        '',
        'weights of SuperPoint, in the forms of matcher.weights; empty: those with which matcher.weights were trained',
    )
    sinkhorn_iterations: int = setting(0, 'iterations of the optimal transport; 0: as trained', minimum=0)


@dataclasses.dataclass(frozen=True, slots=True)
class MatcherConfig(Checked):
    """Choice and settings of the matcher."""

    name: str = setting(
        'default',
        'default, efficient_loftr, loftr, superpoint_nn, superglue, gcm, sift, orb, akaze, nearest_neighbours, or a '
        'matcher that another package registers',
    )
    weights: str = setting(
        '', 'name of `loftr_ros weights list`, a path, or NAME=path of your own file; empty: the default of the matcher'
    )
    accept_license: bool = setting(False, 'true: weights whose licence forbids commercial use may be loaded')
    device: str = setting('auto', 'auto, cpu, cuda or cuda:N; auto uses a GPU if there is one')
    precision: str = setting(
        'auto',
        'arithmetic of the networks; auto uses bf16 on a CPU with instructions for it, otherwise fp32',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
    )
    engine: str = setting(
        'torch',
        'program that computes the features of an image; all except torch take some seconds to start',
        choices=('torch', 'compile', 'onnxruntime', 'openvino'),
    )
    resize_max: int = setting(
        1024, 'longer side to which a larger image is reduced [px]; 0: never reduced', minimum=0, maximum=16384
    )
    match_threshold: float = setting(0.2, 'matches with a lower confidence are dropped', minimum=0, maximum=1)
    max_matches: int = setting(
        1000, 'keep at most this number of matches, the most confident of each part of image 0; 0: all', minimum=0
    )
    subpixel: str = setting(
        'lucas_kanade',
        'refinement of the points of image 1 after matching: lucas_kanade compares the grey values around both points '
        'of a match; none keeps the points of the matcher',
        choices=('lucas_kanade', 'none'),
    )
    rotation_search: str = setting(
        'on_failure',
        'turns and zooms of image 1 that the matcher does not find by itself: on_failure looks for one with keypoints '
        'of ORB if few matches agree, always for each pair; without effect for sift, orb and akaze',
        choices=('off', 'on_failure', 'always'),
    )
    keep_memory: bool = setting(
        True, 'let glibc keep freed memory: networks on a CPU run up to 1.3 times as fast', fixed=True
    )
    gcm: GcmConfig = dataclasses.field(default_factory=GcmConfig)
    keypoints: KeypointConfig = dataclasses.field(default_factory=KeypointConfig)
    superglue: SuperGlueConfig = dataclasses.field(default_factory=SuperGlueConfig)


@dataclasses.dataclass(frozen=True, slots=True)
class PoseConfig(Checked):
    """Estimation of the relative pose."""

    estimator: str = setting(
        'poselib', 'robust estimator; opencv needs no poselib and is less accurate', choices=('poselib', 'opencv')
    )
    max_epipolar_error_px: float = setting(
        2.0, 'Sampson error up to which a match is an inlier [px]', minimum=0.01, maximum=100
    )
    confidence: float = setting(
        0.9999,
        'the search stops when it has found the best model with this probability',
        minimum=0.5,
        maximum=0.9999999,
    )
    min_inliers: int = setting(20, 'with fewer inliers there is no pose', minimum=6)
    max_log10_false_alarms: float = setting(
        -3.0,
        'a pose is accepted if wrong matches alone would support at most 10^x motions equally well, where x is this '
        'value; lower is stricter',
        maximum=100,
    )
    min_parallax_deg: float = setting(
        0.2, 'median parallax of the inliers below which the status is LOW_PARALLAX [deg]', minimum=0, maximum=90
    )
    seed: int = setting(0, 'seed of the random search; the same seed and matches give the same pose', minimum=0)


@dataclasses.dataclass(frozen=True, slots=True)
class SyncConfig(Checked):
    """Synchronization of images and camera_info."""

    approximate_sync: bool = setting(False, 'pair messages with nearly equal stamps, not only equal ones', fixed=True)
    approximate_sync_tolerance_seconds: float = setting(
        0.01,
        'largest difference of the stamps of one set with approximate_sync [s]',
        minimum=0,
        maximum=10,
        fixed=True,
    )
    queue_size: int = setting(
        5, 'messages of each topic that wait for their partners', minimum=1, maximum=1000, fixed=True
    )


@dataclasses.dataclass(frozen=True, slots=True)
class InputConfig(Checked):
    """Subscriptions of the node."""

    pairing: str = setting(
        'temporal',
        'stereo: left with right; temporal: keyframe with current frame of one camera; odometry: the same for the '
        'cameras of odometry.rig, with the motion over all frames',
        choices=('stereo', 'temporal', 'odometry'),
        fixed=True,
    )
    image_transport: str = setting(
        'raw',
        'raw: sensor_msgs/Image; compressed: CompressedImage on <topic>/compressed',
        choices=('raw', 'compressed'),
        fixed=True,
    )
    depth_transport: str = setting(
        'raw',
        'raw: sensor_msgs/Image on depth/image; compressed: CompressedImage on depth/image/compressedDepth',
        choices=('raw', 'compressed'),
        fixed=True,
    )
    image_qos: str = setting(
        'SENSOR_DATA',
        'quality of service of the subscriptions; SENSOR_DATA also receives from reliable publishers',
        choices=('SENSOR_DATA', 'SYSTEM_DEFAULT', 'DEFAULT', 'RELIABLE'),
        fixed=True,
    )
    rectified: bool = setting(
        True, 'true: images are rectified, P of camera_info is used; false: images are raw, K and D are used'
    )
    process_every_frame: bool = setting(
        False, 'true: queue frames while the worker is busy (replay); false: keep only the newest frame'
    )


@dataclasses.dataclass(frozen=True, slots=True)
class KeyframeConfig(Checked):
    """Replacement of the keyframe (image 0) with pairing temporal."""

    max_frames: int = setting(
        10,
        'the keyframe is replaced after this number of frames; frames with the status STATIC do not count',
        minimum=1,
    )
    max_failures: int = setting(
        2,
        'the keyframe is replaced after more than this number of frames in a row without a pose (a covered lens, a '
        'blurred frame); one that never gave a pose is replaced after one',
        minimum=0,
    )
    min_inlier_ratio: float = setting(
        0.5,
        'the keyframe is replaced if the number of inliers is below this share of that of its first pair',
        minimum=0,
        maximum=1,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class OdometryConfig(Checked):
    """Motion over many frames, with input.pairing odometry."""

    rig: str = setting(
        'mono',
        'mono: one camera, the unit of length is unknown; stereo: depth from a pair of known extrinsics; rgbd: depth '
        'from a registered depth image',
        choices=('mono', 'stereo', 'rgbd'),
        fixed=True,
    )
    depth_noise_per_m: float = setting(
        0.003,
        'rgbd: standard deviation of the inverse depth [1/m]; that of a depth z is this times z squared',
        minimum=1e-6,
        maximum=1,
    )
    camera_from_depth: str = setting(
        '',
        'rgbd: pose of the depth camera in the optical frame of the image, "x y z roll pitch yaw" [m, rad], or tf: '
        'from TF; depth is then registered by it and its own camera_info. Empty: depth is registered (aligned) already',
        fixed=True,
    )
    min_start_parallax_deg: float = setting(
        1.0,
        'mono: median parallax of the first two keyframes, which decides when the map starts [deg]',
        minimum=0.05,
        maximum=45,
    )
    speed: str = setting(
        'none',
        'mono: type of the messages on the topic speed, whose linear velocity gives the unit of length: the lengths '
        'are metres from then on',
        choices=('none', 'Odometry', 'TwistStamped', 'TwistWithCovarianceStamped'),
        fixed=True,
    )
    speed_noise: float = setting(
        0.02,
        'relative standard deviation that all speeds share, for example of the radius of the wheels',
        minimum=0,
        maximum=1,
    )
    max_keyframes: int = setting(
        5, 'number of keyframes that are kept to find the pose again after frames without one', minimum=1, maximum=100
    )
    restart_after: int = setting(
        20,
        'after this number of frames in a row without a pose the motion starts again at the last pose, with an unknown '
        'covariance, as soon as two frames match',
        minimum=1,
    )
    base_frame: str = setting('base_link', 'frame of the robot, child_frame_id of ~/odometry', fixed=True)
    odom_frame: str = setting('odom', 'frame of the robot at the first image; the parent of base_frame', fixed=True)
    base_from_camera: str = setting(
        '',
        'pose of the optical frame of the (left) camera in base_frame: "x y z roll pitch yaw" or "x y z qx qy qz qw" '
        '[m, rad]; forward: at its origin, looking along x; empty: from TF. Nothing is published before it is known',
        fixed=True,
    )
    publish_odom_tf: bool = setting(
        False, 'publish the transform odom_frame -> base_frame on /tf; only one node may do so', fixed=True
    )
    invert_odom_tf: bool = setting(
        False, 'publish it as base_frame -> odom_frame, where base_frame has another parent already', fixed=True
    )
    publish_null_when_lost: bool = setting(
        True,
        'without a pose ~/odometry has a quaternion of zeros and variances of 9999, as rtabmap; false: no message',
        fixed=True,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class OutputConfig(Checked):
    """Publishers of the node."""

    queue_size: int = setting(10, 'depth of the publishers of arrays and poses', minimum=1, maximum=1000, fixed=True)
    image_max_width: int = setting(
        1280, 'width to which the picture on ~/matches_image is reduced [px]', minimum=64, maximum=16384
    )
    diagnostics_period_s: float = setting(
        1.0, 'time between two messages on /diagnostics [s]', minimum=0.1, maximum=60, fixed=True
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Config(Checked):
    """All settings."""

    matcher: MatcherConfig = dataclasses.field(default_factory=MatcherConfig)
    pose: PoseConfig = dataclasses.field(default_factory=PoseConfig)
    sync: SyncConfig = dataclasses.field(default_factory=SyncConfig)
    input: InputConfig = dataclasses.field(default_factory=InputConfig)
    keyframe: KeyframeConfig = dataclasses.field(default_factory=KeyframeConfig)
    odometry: OdometryConfig = dataclasses.field(default_factory=OdometryConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)
