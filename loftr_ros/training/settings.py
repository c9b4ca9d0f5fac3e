"""The settings of a training run with their defaults, meanings, units and ranges.

`flatten` and `override` of loftr_ros/config.py accept these classes. The settings of the network are also in the file
of a run, under `network`, because they belong to the weights.
"""

from __future__ import annotations

import dataclasses

from loftr_ros.settings import Checked, setting


@dataclasses.dataclass(frozen=True, slots=True)
class HomographyConfig(Checked):
    """Random homographies between two views of a photograph; normal distributions."""

    rotation_deg: float = setting(25.0, 'sigma of the rotation in the image [deg]', minimum=0, maximum=180)
    scale_octaves: float = setting(0.4, 'sigma of the logarithm to base 2 of the scale', minimum=0, maximum=3)
    perspective: float = setting(
        0.2, 'sigma of the change of depth from centre to border, as a share', minimum=0, maximum=1
    )
    shift: float = setting(0.15, 'sigma of the shift, as a share of the size', minimum=0, maximum=1)
    strong: float = setting(
        0.5, 'share of pairs with these sigmas; the others, as in a video, have a third', minimum=0, maximum=1
    )


@dataclasses.dataclass(frozen=True, slots=True)
class PanoramaConfig(Checked):
    """Two views of a panorama."""

    view_min_deg: float = setting(45.0, 'least angle that the longer side sees [deg]', minimum=10, maximum=120)
    view_max_deg: float = setting(80.0, 'largest angle that the longer side sees [deg]', minimum=10, maximum=120)
    rotation_deg: float = setting(18.0, 'sigma of the rotation between the views [deg]', minimum=0, maximum=90)


@dataclasses.dataclass(frozen=True, slots=True)
class SceneConfig(Checked):
    """Rendered scenes."""

    pairs_per_scene: int = setting(
        32, 'number of consecutive samples that share a scene, if they are rendered', minimum=1
    )
    rooms: float = setting(0.3, 'share of furnished rooms', minimum=0, maximum=1)
    relief: float = setting(
        0.15, 'share of hilly ground; the rest, without `rooms`, are boxes with photographs', minimum=0, maximum=1
    )
    wide: float = setting(0.4, 'share of wide baselines; the others are neighbouring frames', minimum=0, maximum=1)
    min_overlap: float = setting(0.15, 'least share of image 0 that image 1 also shows', minimum=0, maximum=1)


@dataclasses.dataclass(frozen=True, slots=True)
class PosedConfig(Checked):
    """Images with depth and poses."""

    tolerance: float = setting(
        0.05, 'largest relative difference of depths of one surface; 0.2 for MegaDepth', minimum=0, maximum=1
    )
    max_step: int = setting(30, 'most frames from image 0 to image 1 of a sequence', minimum=1)
    min_overlap: float = setting(
        0.15, 'least share of image 0 of a sequence that image 1 also shows', minimum=0, maximum=1
    )


@dataclasses.dataclass(frozen=True, slots=True)
class LabelConfig(Checked):
    """Keypoints of photographs by homographic adaptation (SuperPoint, section 5)."""

    detector: str = setting(
        '',
        'as matcher.weights: a SuperPoint that labels the photographs once, in the folder of the run; empty: no labels',
    )
    side_px: int = setting(384, 'longer side to which a photograph is reduced before [px]', minimum=64)
    views: int = setting(24, 'homographies of a photograph whose detections are averaged', minimum=1)
    threshold: float = setting(0.004, 'least mean probability of a keypoint', minimum=0, maximum=1)
    area_px: int = setting(
        192, 'pixels of the photograph per keypoint, at least; the best keypoints are kept', minimum=1
    )


@dataclasses.dataclass(frozen=True, slots=True)
class DataConfig(Checked):
    """Sources of the pairs and the share of each kind."""

    photographs: str = setting('', 'folders or patterns of images, separated by ":"')
    panoramas: str = setting('', 'folders or patterns of equirectangular images; they are not used as photographs')
    posed: str = setting(
        '', 'folders or patterns of folders with depth and poses: TUM RGB-D, TartanAir, ScanNet, MegaDepth'
    )
    photograph_weight: float = setting(0.4, 'share of homographies of photographs', minimum=0)
    panorama_weight: float = setting(0.1, 'share of views of panoramas', minimum=0)
    scene_weight: float = setting(0.5, 'share of rendered scenes', minimum=0)
    posed_weight: float = setting(0.0, 'share of images with depth and poses', minimum=0)
    shape_weight: float = setting(0.0, 'share of drawn shapes with known corners, for a detector', minimum=0)
    width: int = setting(160, 'width of the training images [px]', minimum=32)
    height: int = setting(160, 'height of the training images [px]', minimum=32)
    light_change: float = setting(0.7, 'strength of changes of light, blur and noise; 0 = none', minimum=0, maximum=2)
    occluders: int = setting(3, 'largest number of occluders that are pasted into an image', minimum=0, maximum=20)
    workers: int = setting(1, 'processes that make pairs in the background; 0 = in the training process', minimum=0)
    homography: HomographyConfig = dataclasses.field(default_factory=HomographyConfig)
    labels: LabelConfig = dataclasses.field(default_factory=LabelConfig)
    panorama: PanoramaConfig = dataclasses.field(default_factory=PanoramaConfig)
    posed_pairs: PosedConfig = dataclasses.field(default_factory=PosedConfig)
    scene: SceneConfig = dataclasses.field(default_factory=SceneConfig)


@dataclasses.dataclass(frozen=True, slots=True)
class OptimizerConfig(Checked):
    """AdamW with a warm-up and a cosine, and the terms of the loss."""

    learning_rate: float = setting(2e-3, 'largest learning rate', minimum=0)
    weight_decay: float = setting(0.01, "AdamW's weight decay", minimum=0)
    warmup_steps: int = setting(100, 'steps in which the learning rate rises from zero', minimum=0)
    clip_norm: float = setting(1.0, 'largest norm of the gradient', minimum=0)
    coarse_loss: str = setting('nll', 'form of the coarse loss', choices=('nll', 'focal'))
    fine_weight: float = setting(1.0, 'weight of the fine loss (Efficient LoFTR: of stage 1)', minimum=0)
    subpixel_weight: float = setting(0.25, 'weight of stage 2 of Efficient LoFTR', minimum=0)
    fine_matches: int = setting(48, 'most true coarse matches of a pair that are refined', minimum=1)
    fine_every: int = setting(
        1, 'one of this number of pairs in a process has a fine loss, which takes half the time', minimum=1
    )
    descriptor_weight: float = setting(
        1.0, 'weight of the descriptor loss of SuperPoint; 0 trains the detector alone', minimum=0
    )
    keypoints: int = setting(192, 'most keypoints of an image that SuperGlue is trained to match', minimum=2)
    descriptor_points: int = setting(128, 'most points of a pair at which descriptors are compared', minimum=2)
    pooled_weight: float = setting(
        1.0, 'weight of the loss of patch descriptors averaged over cells of 8 px, as gcm.backbone pool has', minimum=0
    )
    final_rate: float = setting(0.0, 'learning rate of the last step, as a share of the largest', minimum=0, maximum=1)


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingConfig(Checked):
    """All settings of a run."""

    steps: int = setting(10000, 'optimizer steps of the whole run', minimum=1)
    batch: int = setting(4, 'pairs in a step, over all processes together', minimum=1)
    seed: int = setting(0, 'seed of weights and data', minimum=0)
    device: str = setting('auto', 'auto, cpu, cuda; auto uses a GPU if there is one')
    threads: int = setting(0, 'threads of torch on the CPU; 0 = default of torch', minimum=0)
    checkpoint_minutes: float = setting(5.0, 'time between two checkpoints [min]', minimum=0)
    validate_every: int = setting(1000, 'steps between two validations', minimum=1)
    validation_pairs: int = setting(64, 'held-back pairs in a validation', minimum=1)
    detector: str = setting('', 'as matcher.weights: the SuperPoint whose keypoints SuperGlue is trained to match')
    initial_weights: str = setting('', 'as matcher.weights: weights of the same network to start from')
    teacher: str = setting(
        '',
        'what a patch descriptor imitates: gradient, or as matcher.weights another patch descriptor; empty: it learns '
        'from pairs',
    )
    accept_license: bool = setting(
        False, 'use a teacher whose licence forbids commercial use; the licence also applies to the student'
    )
    bfloat16: bool = setting(
        False, 'compute in bfloat16 on a CPU too, as on a GPU; faster where the CPU has instructions for it'
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
