"""Every YAML key as a frozen, keyword-only dataclass: type, default, a sentence under each field.

Attribute names are the YAML keys. Components take the section they read and never see YAML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """`dataset:` which videos, features and captions, and how an item is made of them."""

    meta_processor: str | None = None
    """Class that maps an index to a video key and a text key."""
    video_processor: str | None = None
    """Class that reads the features of a video key."""
    text_processor: str | None = None
    """Class that reads the captions of a text key."""
    aligner: str | None = None
    """Class that samples clips and makes tensors."""
    bert_name: str | None = None
    """BERT to take weights and word pieces from: a hub name, or a folder with config.json and vocab.txt."""
    use_fast: bool | None = None
    """Use the fast tokenizer."""
    train_path: str | None = None
    """List of training videos; when set, the training split is built."""
    val_path: str | None = None
    """List of validation videos; when set, the validation split is built."""
    test_path: str | None = None
    """List or annotation file of the test videos."""
    split: str | None = None
    """`test` makes this an evaluation config; leave it out for training."""
    vfeat_dir: str | None = None
    """Folder of feature shards (How2) or of one `<id>.npy` per video."""
    tfeat_dir: str | None = None
    """Path prefix ending in `.` of the caption shards."""
    max_video_len: int | None = None
    """F: video slots of a clip, in seconds."""
    max_len: int | None = None
    """F + T: all slots of a clip; the text part T holds at most T - 3 word pieces."""
    subsampling: int | None = None
    """Clips per item of the single-video aligners; fairseq's batch size is divided by it."""
    clip_per_video: int | None = None
    """C: clips drawn from one video."""
    num_video_per_batch: int | None = None
    """V: videos in one item, which is one batch."""
    sampled_min_len: int | None = None
    """Smallest target length of a text window, in word pieces."""
    sampled_max_len: int | None = None
    """Largest target length of a text window, in word pieces."""
    sampled_video_min_len: int | None = None
    """Smallest length of a video window, in seconds."""
    sampled_video_max_len: int | None = None
    """Largest length of a video window, in seconds."""
    max_missing: float = 0.01
    """Largest share of listed videos that may be absent from the shards before it is an error."""
    sort_clips: bool | None = None
    """Sort the clips of a video by time; None: as Norton does."""
    sliding_window: int | None = None
    """Stride of evaluation windows, in seconds."""
    sliding_window_size: int | None = None
    """Width of evaluation windows, in seconds."""
    trainval_annotation: str | None = None
    """YouCook2: `youcookii_annotations_trainval.json`."""
    use_annotation_text: bool | None = None
    """YouCook2: take the sentence from the annotation, not from the pickle."""
    json_path: str | None = None
    """MSR-VTT: captions for training."""
    jsfusion_path: str | None = None
    """MSR-VTT: ids of the test split, to be left out of training."""
    full_test_path: str | None = None
    """MSR-VTT: full test split, whose other ids extend training."""
    dup: int | None = None
    """MSR-VTT: how often the training table is repeated."""
    anno_path: str | None = None
    """HTM-Align: `htm_align.json`."""
    train_csv_path: str | None = None
    """CrossTask: `videos.csv`."""
    val_csv_path: str | None = None
    """CrossTask: `videos_val.csv`."""
    primary_path: str | None = None
    """CrossTask: `tasks_primary.txt`."""
    related_path: str | None = None
    """CrossTask: `tasks_related.txt`."""
    annotation_path: str | None = None
    """CrossTask: folder of annotation CSVs."""
    n_train: int | None = None
    """CrossTask: training videos per primary task."""
    num_iso_layer: int | None = None
    """Isolation depth of single-encoder models; inert for two towers."""
    lazy_vfeat_mask: bool | None = None
    """VLM only; inert elsewhere."""
    mfm_probability: float | None = None
    """VLM only; inert elsewhere."""
    mlm_probability: float | None = None
    """VLM only; inert elsewhere."""
    mm_prob: float | None = None
    """VLM only; inert elsewhere."""
    keep_prob: float | None = None
    """VLM only; inert elsewhere."""
    mm_type: str | None = None
    """VLM only; inert elsewhere."""
    caption_pkl_path: str | None = None
    """Pre-tokenisation: the caption file."""
    target_dir: str | None = None
    """Pre-tokenisation: where caption shards go."""
    options: dict[str, Any] = field(default_factory=dict)
    """Free settings for processors and aligners of your own; nothing of ours reads them."""

    @property
    def max_text_len(self) -> int:
        """T: text slots of a clip."""
        assert self.max_len is not None and self.max_video_len is not None
        return self.max_len - self.max_video_len


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """`model:` the network."""

    model_cls: str | None = None
    """Model class."""
    mm_encoder_cls: str | None = None
    """Single encoder of VLM models; null means two towers."""
    video_encoder_cls: str | None = None
    """Video tower."""
    text_encoder_cls: str | None = None
    """Text tower."""
    num_hidden_video_layers: int | None = None
    """Layers of the video tower: the first of BERT."""
    layernorm_only: bool | None = None
    """Train LayerNorm parameters only."""
    use_seg_emb: bool | None = None
    """VLM only."""
    random_init: bool = False
    """Start from random weights when `bert_name` is a folder without weights (the demo's small BERT)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Free settings for a model of your own."""


@dataclass(frozen=True, kw_only=True)
class SequenceContrastConfig:
    """`loss.sequence_contrast:` the video-paragraph term of Norton."""

    sequence_contrast_weight: float | None = None
    """lambda: weight of the term; null leaves it out."""
    threshold: int | None = None
    """L: clips per sequence."""
    prompt_ratio: float | None = None
    """r: the bucket value is the diagonal's bottom r quantile; null: transport without a bucket."""
    scale: float | None = None
    """epsilon: smoothness of the transport."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """`loss:` the objective. Options marked (released | paper) choose between the published code and the article."""

    loss_cls: str | None = None
    """Loss class."""
    sequence_contrast: SequenceContrastConfig | None = None
    """Video-paragraph term; null leaves it out."""
    sinkhorn_iterations: int | None = None
    """Transport iterations; null selects the plain VideoCLIP loss."""
    beta: float | None = None
    """Weight of the transport in the soft targets."""
    alpha_lse: float | None = None
    """alpha of the log-sum-exp score."""
    fusion_weight: float | None = None
    """w: weight of the mean-pooled similarity beside the fine-grained one."""
    masked_outer_sum: str = "released"
    """Outer sums of the log-sum-exp score: `released` counts masked positions, `paper` does not."""
    similarity_norm: str = "released"
    """Min-max normalisation of similarities over the batch: `released` does it, `paper` does not."""
    transport_mass: str = "released"
    """Mass of a block's transport: `released` rescales it to L, `paper` leaves it."""
    clip_temperature: str = "released"
    """Temperature of the clip-caption term: `released` has none, `paper` divides by tau."""
    learnable_temperature: bool = False
    """Make the temperature a trained, saved parameter (the paper) instead of the constant 0.07 (released)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Free settings for a loss of your own."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """The top-level keys of the epoch refresh."""

    retri_epoch: int | None = None
    """First epoch (1-based) whose batches are retrieved; earlier ones group videos at random."""
    vectorpool_cls: str | None = None
    """Where video vectors are collected."""
    retriever_cls: str | None = None
    """The nearest-neighbour index."""
    centroids: int = 512
    """IVF lists."""
    examples_per_cent_to_train: int = 48
    """Training vectors per IVF list."""
    num_cands: int | None = None
    """Neighbours asked for each centre."""
    infer_scale: int = 16
    """The embedding pass takes num_video_per_batch * infer_scale videos at once."""
    db_type: str = "flatl2"
    """`flatl2` (IVF, L2), `innerproduct` (IVF, dot product), `pq` (IVF-PQ) or `exact` (flat L2)."""
    nprobe: int | str = "auto"
    """IVF lists searched per query; `auto`: as many as full candidate lists and recall 0.95 need; 1 is the release."""
    keep_centre: bool = False
    """Always keep the centre video in its batch (the release may drop it)."""
    freeze_plan: bool = False
    """Train every epoch on the first plan, as the release did by accident."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """`eval:` where results go."""

    save_path: str | None = None
    """Folder of results; released models are looked for in it."""
