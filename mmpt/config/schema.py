"""Every YAML key as a frozen, keyword-only dataclass: type, default, a sentence under each field.

Attribute names are the YAML keys; bounds stand beside the field, checks over several fields in `checks.py`.
Components take the section they read and never see YAML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmpt.config.fields import setting


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
    train_path: str | None = setting(None, is_path=True)
    """List of training videos; when set, the training split is built."""
    val_path: str | None = setting(None, is_path=True)
    """List of validation videos; when set, the validation split is built."""
    test_path: str | None = setting(None, is_path=True)
    """List or annotation file of the test videos."""
    split: str | None = setting(None, one_of=("train", "valid", "test"))
    """`test` makes this an evaluation config; leave it out for training."""
    vfeat_dir: str | None = None
    """Folder of feature shards (How2) or of one `<id>.npy` per video."""
    tfeat_dir: str | None = None
    """Path prefix ending in `.` of the caption shards."""
    max_video_len: int | None = setting(None, at_least=1)
    """F: video slots of a clip, in seconds."""
    max_len: int | None = setting(None, at_least=1)
    """F + T: all slots of a clip; the text part T holds at most T - 3 word pieces."""
    subsampling: int | None = setting(None, at_least=1)
    """Clips per item of the single-video aligners; fairseq's batch size is divided by it."""
    clip_per_video: int | None = setting(None, at_least=1)
    """C: clips drawn from one video."""
    num_video_per_batch: int | None = setting(None, at_least=1)
    """V: videos in one item, which is one batch."""
    sampled_min_len: int | None = setting(None, at_least=1)
    """Smallest target length of a text window, in word pieces."""
    sampled_max_len: int | None = setting(None, at_least=1)
    """Largest target length of a text window, in word pieces."""
    sampled_video_min_len: int | None = setting(None, at_least=1)
    """Smallest length of a video window, in seconds."""
    sampled_video_max_len: int | None = setting(None, at_least=1)
    """Largest length of a video window, in seconds."""
    max_missing: float = setting(0.01, at_least=0, at_most=1)
    """Largest share of listed training or validation videos that may be without features before it is an error."""
    sort_clips: bool | None = None
    """Sort the clips of a video by time; None: as Norton does."""
    sliding_window: int | None = setting(None, at_least=1)
    """Stride of evaluation windows, in seconds."""
    sliding_window_size: int | None = setting(None, at_least=1)
    """Width of evaluation windows, in seconds."""
    trainval_annotation: str | None = None
    """YouCook2: `youcookii_annotations_trainval.json`; not read when the clips come from a CSV."""
    use_annotation_text: bool | None = None
    """YouCook2: take the sentence from the annotation, not from the pickle."""
    json_path: str | None = setting(None, is_path=True)
    """MSR-VTT: captions for training."""
    jsfusion_path: str | None = None
    """MSR-VTT: ids of the test split, to be left out of training."""
    full_test_path: str | None = setting(None, is_path=True)
    """MSR-VTT: full test split, whose other ids extend training."""
    dup: int | None = setting(None, at_least=1)
    """MSR-VTT: how often the training table is repeated."""
    anno_path: str | None = setting(None, is_path=True)
    """HTM-Align: `htm_align.json`."""
    train_csv_path: str | None = setting(None, is_path=True)
    """CrossTask: `videos.csv`."""
    val_csv_path: str | None = setting(None, is_path=True)
    """CrossTask: `videos_val.csv`."""
    primary_path: str | None = setting(None, is_path=True)
    """CrossTask: `tasks_primary.txt`."""
    related_path: str | None = setting(None, is_path=True)
    """CrossTask: `tasks_related.txt`."""
    annotation_path: str | None = setting(None, is_path=True)
    """CrossTask: folder of annotation CSVs."""
    n_train: int | None = setting(None, at_least=1)
    """CrossTask: training videos per primary task."""
    num_iso_layer: int | None = setting(None, at_least=0, inert=True)
    """Isolation depth of single-encoder models; inert for two towers."""
    lazy_vfeat_mask: bool | None = setting(None, inert=True)
    """VLM only; inert elsewhere."""
    mfm_probability: float | None = setting(None, inert=True)
    """VLM only; inert elsewhere."""
    mlm_probability: float | None = setting(None, inert=True)
    """VLM only; inert elsewhere."""
    mm_prob: float | None = setting(None, inert=True)
    """VLM only; inert elsewhere."""
    keep_prob: float | None = setting(None, inert=True)
    """VLM only; inert elsewhere."""
    mm_type: str | None = setting(None, inert=True)
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
        assert self.max_len is not None
        assert self.max_video_len is not None
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
    num_hidden_video_layers: int | None = setting(None, at_least=1)
    """Layers of the video tower: the first of BERT."""
    layernorm_only: bool | None = None
    """Train LayerNorm parameters only."""
    use_seg_emb: bool | None = setting(None, inert=True)
    """VLM only."""
    packed: bool = True
    """Compute real tokens only, not padding; the same numbers with less work."""
    compile: bool = False
    """Compile the token-wise parts of BERT's layers with torch.compile; equal to rounding, and needs a compiler."""
    checkpoint_activations: bool | int | str = setting("auto", at_least=1, one_of=("auto",))
    """Clips whose activations training holds at once; backward computes them again, chunk by chunk.
    false: those of all clips, nothing twice. `auto`: as false, but half as many clips whenever the
    device is out of memory; on a CPU 256."""
    random_init: bool = False
    """Start from random weights when `bert_name` is a folder without weights (the demo's small BERT)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Free settings for a model of your own."""


@dataclass(frozen=True, kw_only=True)
class SequenceContrastConfig:
    """`loss.sequence_contrast:` the video-paragraph term of Norton."""

    sequence_contrast_weight: float | None = setting(None, at_least=0)
    """lambda: weight of the term; null leaves it out."""
    threshold: int | None = setting(None, at_least=1)
    """L: clips per sequence."""
    prompt_ratio: float | None = setting(None, above=0, at_most=1)
    """r: the bucket value is the diagonal's bottom r quantile; null: transport without a bucket."""
    scale: float | None = setting(None, above=0)
    """epsilon: smoothness of the transport."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """`loss:` the objective. Options marked (released | paper) choose between the published code and the article."""

    loss_cls: str | None = None
    """Loss class."""
    sequence_contrast: SequenceContrastConfig | None = None
    """Video-paragraph term; null leaves it out."""
    sinkhorn_iterations: int | None = setting(None, at_least=1)
    """Transport iterations; null selects the plain VideoCLIP loss."""
    beta: float | None = setting(None, at_least=0, at_most=1)
    """Weight of the transport in the soft targets."""
    alpha_lse: float | None = setting(None, above=0)
    """alpha of the log-sum-exp score."""
    fusion_weight: float | None = setting(None, at_least=0)
    """w: weight of the mean-pooled similarity beside the fine-grained one."""
    masked_outer_sum: str = setting("released", one_of=("released", "paper"))
    """Outer sums of the log-sum-exp score: `released` counts masked positions, `paper` does not."""
    similarity_norm: str = setting("released", one_of=("released", "paper"))
    """Min-max normalisation of similarities over the batch: `released` does it, `paper` does not."""
    transport_mass: str = setting("released", one_of=("released", "paper"))
    """Mass of a block's transport: `released` rescales it to L, `paper` leaves it."""
    clip_temperature: str = setting("released", one_of=("released", "paper"))
    """Temperature of the clip-caption term: `released` has none, `paper` divides by tau."""
    gather_negatives: bool = False
    """Contrast clips with those of all processes, as if their batches were one; the release contrasts locally."""
    learnable_temperature: bool = False
    """Make the temperature a trained, saved parameter (the paper) instead of the constant 0.07 (released)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Free settings for a loss of your own."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """The top-level keys of the epoch refresh."""

    retri_epoch: int | None = setting(None, at_least=1)
    """First epoch (1-based) whose batches are retrieved; earlier ones group videos at random."""
    vectorpool_cls: str | None = None
    """Where video vectors are collected."""
    retriever_cls: str | None = None
    """The nearest-neighbour index."""
    centroids: int = setting(512, at_least=1)
    """IVF lists; a YAML with `vectorpool_cls: DistributedVideoVectorPool` and no `centroids` gets 4096."""
    examples_per_cent_to_train: int = setting(48, at_least=1)
    """Training vectors per IVF list."""
    num_cands: int | None = setting(None, at_least=1)
    """Neighbours asked for each centre."""
    infer_scale: int = setting(16, at_least=1)
    """A process embeds num_video_per_batch * infer_scale consecutive videos at a time; memory does not depend on it."""
    db_type: str = setting("flatl2", one_of=("flatl2", "innerproduct", "pq", "exact"))
    """`flatl2` (IVF, L2), `innerproduct` (IVF, dot product), `pq` (IVF-PQ) or `exact` (flat L2)."""
    nprobe: int | str = setting("auto", at_least=1, one_of=("auto",))
    """IVF lists searched per query; `auto`: as many as full candidate lists and `recall` need (on a GPU, all); 1 is the
    release."""
    recall: float = setting(0.95, above=0, at_most=1)
    """Share of the true neighbours that `nprobe: auto` finds, in 19 of 20 cases at least: decided on a sample of the
    centres with its standard error. With `db_type: pq` they are the nearest by the codes, not by the vectors."""
    freeze_plan: bool = False
    """Train every epoch on the first plan, as the release did by accident."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """`eval:` where results go."""

    save_path: str | None = None
    """Folder of results; released models are looked for in it."""
