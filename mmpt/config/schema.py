"""The keys of a YAML file as pydantic models: type, bounds, default and a sentence for each.

Attribute names are the YAML keys. The keys that a single class reads are declared there; see
`sections.py`. Checks over several keys are in `checks.py`. Components take the section that they
read, and never see YAML.
"""

import math
import re
from contextlib import suppress
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    model_validator,
)

from mmpt.batch import FEATURE_DIM

MAX_INT = 2**31 - 1
"""Largest absolute value of a whole number: the largest int32."""


class Section(BaseModel):
    """A frozen mapping of settings. Unknown keys are mistakes; null stands for the default."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        known = cls.model_fields
        return {
            key: value
            for key, value in values.items()
            if value is not None or key not in known
        }

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with other values for some fields, which are checked like a YAML's."""
        return type(self)(**{**dict(self), **changes})


def _read_number(value: Any) -> Any:
    """Returns the number that a text such as `'1e-5'` stands for."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _read_whole_number(value: Any) -> Any:
    """Returns an int for `3`, `3.0` and `'3'`."""
    number = _read_number(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, int) and abs(number) > MAX_INT:
        raise ValueError(f"be at most {MAX_INT} in size")
    return number


def _refuse_all_but_false(value: Any) -> Any:
    if value is not False:  # `==` would accept 0
        raise ValueError("be false")
    return value


# `strict` refuses true and false, which Python takes for 1 and 0.
Natural = Annotated[int, Field(strict=True, ge=0), BeforeValidator(_read_whole_number)]
Count = Annotated[int, Field(strict=True, ge=1), BeforeValidator(_read_whole_number)]
NotNegative = Annotated[float, Field(strict=True, ge=0), BeforeValidator(_read_number)]
Positive = Annotated[float, Field(strict=True, gt=0), BeforeValidator(_read_number)]
Share = Annotated[float, Field(strict=True, ge=0, le=1), BeforeValidator(_read_number)]
PositiveShare = Annotated[
    float, Field(strict=True, gt=0, le=1), BeforeValidator(_read_number)
]
Switch = StrictBool
Off = Annotated[
    bool, BeforeValidator(_refuse_all_but_false), WithJsonSchema({"const": False})
]

INPUT = "input"
"""Marks a path that must exist before a job starts."""
INERT = "inert"
"""Marks a key of released YAMLs that nothing reads."""
InputPath = Annotated[str | None, INPUT]
VlmKey = Annotated[bool | int | float | str | None, INERT]
"""Setting of VLM, which has a single encoder."""
LauncherKey = Annotated[Any, INERT, Field(exclude=True)]
"""Setting of a cluster launcher or of a job file."""
Released = Literal["released", "paper"]
CUSTOM_CLASS_KEYS = (
    "your class declares its keys in a section `Config` (see README.md), and the YAML has them "
    "next to the others"
)
REMOVED_KEYS = {
    "memory": "its work is done by `model.checkpoint_activations` (`auto`, false or clips per "
    "chunk) and `clips_per_forward` (`auto` or a number of clips); leave `memory` out",
    "model.tf32": "float32 is computed in float32; to let torch multiply in TF32, leave the key "
    "out and set TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 in the environment",
    **dict.fromkeys(
        ("dataset.options", "model.options", "loss.options"), CUSTOM_CLASS_KEYS
    ),
    "bank": "the vectors of all videos are kept in files; leave it out",
    "keep_centre": "a batch is a sample of a centre's neighbours, as in the release; leave it out",
    "resolved": "leave it out, and give the `batch_size` that `subsampling` has not divided yet",
}
"""Keys of earlier versions -> what to use instead."""
FairseqOptions = dict[str, dict[str, Any]]
"""`fairseq:` group -> option -> value, in the order of the YAML."""


class DatasetConfig(Section):
    """`dataset:` the videos, features and captions, and how an item is made of them.

    These keys are shared. Further ones are declared by the classes that read them; see
    `sections.py`. A key without a default is not set unless the YAML sets it.
    """

    meta_processor: str | None = None
    """Class that maps an index to a video key and a text key."""
    video_processor: str | None = None
    """Class that reads the features of a video key."""
    text_processor: str | None = None
    """Class that reads the captions of a text key."""
    aligner: str | None = None
    """Class that samples clips and builds tensors."""
    bert_name: str | None = None
    """BERT whose weights and word pieces are used: a name on the Hugging Face hub, or a folder
    with config.json and vocab.txt."""
    use_fast: Switch = True
    """Use the fast tokenizer. Default: true."""
    train_path: InputPath = None
    """List of training videos. Without it there is no training split."""
    val_path: InputPath = None
    """List of validation videos. Without it there is no validation split."""
    test_path: InputPath = None
    """List or annotation file of the test videos."""
    split: Literal["train", "valid", "test"] | None = None
    """`test` makes this an evaluation config. Leave it out of training configs."""
    vfeat_dir: InputPath = None
    """Folder with feature shards (How2), or with one `<id>.npy` per video."""
    tfeat_dir: str | None = None
    """Path prefix of the caption shards; it ends in `.`."""
    feature_fps: Positive = 1.0
    """Feature rows per second of video. Default: 1, as S3D has. Row i is about the time from
    i / feature_fps to (i + 1) / feature_fps. All other keys and files give times in seconds."""
    feature_dim: Annotated[Count, Field(exclude=True)] = FEATURE_DIM
    """Width of the features. It is derived from `model.input_dim`."""
    max_video_len: Count | None = None
    """Longest clip, in seconds. The model has F = max_video_len * feature_fps video slots."""
    max_len: Count | None = None
    """max_video_len + T. The T text slots of a clip hold at most T - 3 word pieces."""
    subsampling: Count | None = None
    """Clips per item of single-video aligners. fairseq's batch size is divided by it."""
    clip_per_video: Count | None = None
    """C: clips drawn from one video."""
    num_video_per_batch: Count | None = None
    """V: videos per item. An item is one batch."""
    max_missing: Share = 0.01
    """Share of the listed training or validation videos that may lack features. More is an
    error. Default: one in a hundred."""
    num_iso_layer: VlmKey = None
    """Isolation depth of single-encoder models. No effect on two towers."""
    lazy_vfeat_mask: VlmKey = None
    """A key of VLM without effect here."""
    mfm_probability: VlmKey = None
    """A key of VLM without effect here."""
    mlm_probability: VlmKey = None
    """A key of VLM without effect here."""
    mm_prob: VlmKey = None
    """A key of VLM without effect here."""
    keep_prob: VlmKey = None
    """A key of VLM without effect here."""
    mm_type: VlmKey = None
    """A key of VLM without effect here."""

    @property
    def max_text_len(self) -> int:
        """T: text slots of a clip."""
        assert self.max_len is not None
        assert self.max_video_len is not None
        return self.max_len - self.max_video_len

    @property
    def num_video_slots(self) -> int:
        """F: video slots of a clip, one for each feature row."""
        assert self.max_video_len is not None
        return self.num_rows(self.max_video_len)

    def num_rows(self, duration_s: float) -> int:
        """Returns the number of feature rows of a duration, rounded up, at least 1."""
        # 70 s of 0.1 rows a second are 7 rows, but 7.000000000000001 in floating point.
        rows = round(duration_s * self.feature_fps, ndigits=6)
        return max(1, math.ceil(rows))


class ModelConfig(Section):
    """`model:` the network."""

    model_cls: str | None = None
    """Model class."""
    mm_encoder_cls: str | None = None
    """Single encoder of VLM models. Default: none, that is two towers."""
    video_encoder_cls: str | None = None
    """Class of the video tower."""
    text_encoder_cls: str | None = None
    """Class of the text tower."""
    input_dim: Count = FEATURE_DIM
    """Width of the features. Default: 512, as S3D has."""
    num_hidden_video_layers: Count | None = None
    """Number of layers of the video tower, which are the first layers of BERT."""
    layernorm_only: Switch | None = None
    """Train the parameters of LayerNorm only. Default: train all parameters."""
    use_seg_emb: VlmKey = None
    """A key of VLM without effect here."""
    packed: Switch = True
    """Compute real tokens only. False computes the padding too, with equal results."""
    compile: Switch = False
    """Compile the token-wise parts of BERT's layers with `torch.compile`, which needs a compiler.
    Results are equal up to rounding."""
    checkpoint_activations: Literal["auto"] | Off | Count = "auto"
    """Number of clips whose activations training keeps at once; the backward pass computes them
    again, chunk by chunk. False keeps all activations. `auto` starts like false (on a CPU, with 256
    clips), and halves the number of clips whenever the device is out of memory."""
    random_init: Switch = False
    """Start from random weights if `bert_name` is a folder without weights, as in the demo."""


class SequenceContrastConfig(Section):
    """`loss.sequence_contrast:` the video-paragraph term of Norton."""

    sequence_contrast_weight: NotNegative | None = None
    """lambda: weight of the term. Default: the loss does not have the term."""
    threshold: Count | None = None
    """L: clips per sequence."""
    prompt_ratio: PositiveShare | None = None
    """r: the prompt bucket's value is the bottom r quantile of the diagonal. Default: no bucket."""
    scale: Positive | None = None
    """epsilon: smoothness of the transport."""


class LossConfig(Section):
    """`loss:` the objective. These keys are shared by all losses."""

    loss_cls: str | None = None
    """Loss class."""
    gather_negatives: Switch = False
    """Contrast each clip with the clips of all processes. Default: with the clips of its
    own process, as released."""
    learnable_temperature: Switch = False
    """Train the temperature and save it, as in the paper. Default: 0.07, as released."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Action if the loss of a batch is NaN or infinite. `stop` ends training with exit code 2.
    `skip` leaves out the update, in all processes. Both list the videos in a file of `save_dir`."""
    max_skipped: Count = 10
    """Largest number of updates that `on_nonfinite: skip` leaves out in a run."""


def _default_centroids(known: dict[str, Any]) -> int:
    return 4096 if known.get("vectorpool_cls") == "DistributedVideoVectorPool" else 512


class RetrievalConfig(Section):
    """The epoch refresh. Its keys are at the top level, or in a section `retrieval`."""

    retri_epoch: Count | None = None
    """First epoch, counted from 1, with retrieved batches. Earlier ones group videos at random."""
    vectorpool_cls: str | None = None
    """Class that collects the video vectors."""
    retriever_cls: str | None = None
    """Class of the nearest-neighbour index."""
    centroids: Count = Field(default_factory=_default_centroids)
    """IVF lists. Default: 512, or 4096 with `vectorpool_cls: DistributedVideoVectorPool`."""
    examples_per_cent_to_train: Count = 48
    """Training vectors per IVF list."""
    num_cands: Count | None = None
    """Neighbours searched for each centre."""
    infer_scale: Count = 16
    """A process embeds num_video_per_batch * infer_scale consecutive videos at a time. Memory does
    not depend on it."""
    db_type: Literal["flatl2", "innerproduct", "pq", "exact"] = "flatl2"
    """Index: `flatl2` (IVF, L2 distance), `innerproduct` (IVF, dot product), `pq` (IVF with product
    quantisation) or `exact` (all vectors, L2 distance)."""
    nprobe: Count | Literal["auto"] = "auto"
    """IVF lists searched per query. `auto` takes as many as full candidate lists and `recall` need;
    1 is the release's value."""
    recall: PositiveShare = 0.95
    """Share of the true neighbours that `nprobe: auto` must find, estimated on a sample of the
    centres. With `db_type: pq` the true neighbours are the nearest codes."""
    freeze_plan: Switch = False
    """Train every epoch on the first plan, as the release did by accident."""


class EvalConfig(Section):
    """`eval:` where results are written."""

    save_path: str | None = None
    """Folder for results. `MMPTModel.from_pretrained` also looks for checkpoints in it. A released
    evaluation YAML that names no checkpoint scores `checkpoint_best.pt` in it.
    """


def _read_time(value: Any) -> Any:
    """Returns the seconds of a SLURM time, such as `24:00:00` or `1-12:00:00`.

    YAML itself reads an unquoted 24:00:00 as a number of seconds.
    """
    if not (
        isinstance(value, str)
        and re.fullmatch(r"\d+-\d+(:\d+){0,2}|\d+(:\d+){1,2}", value)
    ):
        return _read_whole_number(value)
    days, dash, rest = value.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    # After days, the first number is hours. Without days, the last number is seconds.
    hours, minutes, seconds = (*parts, 0, 0)[:3] if dash else (0, *parts)[-3:]
    all_hours = int(days or 0) * 24 + hours
    return (all_hours * 60 + minutes) * 60 + seconds


def _check_line(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError("be one line of text")
    return text


def _check_memory(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[KMGT]", text):
        raise ValueError("be a number with a unit, such as 64G")
    return text


Line = Annotated[str, AfterValidator(_check_line)]


class SlurmConfig(Section):
    """`slurm:` the job that `--jobtype slurm` submits. Other job types do not read it."""

    nodes: Count = 1
    """Number of machines."""
    gpus_per_node: Annotated[Natural, Field(le=64)] | None = None
    """GPUs of each machine, and processes on it. Default: 8 or 2 for a released YAML that names the
    size `big` or `small`, else 1."""
    processes_per_node: Annotated[Count, Field(le=1024)] = 1
    """Processes on each machine with `gpus_per_node: 0`."""
    cpus_per_task: Count | None = None
    """CPU cores of each machine. Default: one for each process and each of its loader workers."""
    partition: Line | None = None
    """Partition of the cluster, or several with commas. Default: the cluster's."""
    account: Line | None = None
    """Account that is charged. Default: the cluster's."""
    qos: Line | None = None
    """Quality of service. Default: the cluster's."""
    constraint: Line | None = None
    """Features that the machines must have, such as `a100`."""
    time: Annotated[Count, Field(ge=60), BeforeValidator(_read_time)] = 86400
    """Time limit: `HH:MM:SS`, `D-HH:MM:SS` or seconds. When it is reached, the job is
    requeued and continues. Default: one day."""
    signal: Annotated[Count, Field(le=65535)] = 120
    """Seconds before the time limit when training is asked to save its state. SLURM may ask up to a
    minute earlier."""
    mem: Annotated[str, AfterValidator(_check_memory)] | None = None
    """Memory of each machine, such as `64G`. Default: the cluster's."""
    comment: Line | None = None
    """Comment that SLURM shows with the job."""
    setup: list[Line] = Field(default_factory=list)
    """Lines of shell that run on the first machine before the job, such as `module load cuda`."""
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
    """Other options of sbatch, without hyphens in front: `gres: gpu:8`, `exclusive: true`."""


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Settings(Section):
    """All keys of a YAML file."""

    dataset: DatasetConfig = DatasetConfig()
    """The data, and how an item is made of it."""
    model: ModelConfig = ModelConfig()
    """The network."""
    loss: LossConfig | None = None
    """The objective. Evaluation configs have none."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """The epoch refresh."""
    eval: EvalConfig = EvalConfig()
    """Where results are written."""
    slurm: SlurmConfig = SlurmConfig()
    """The job that `--jobtype slurm` submits."""
    fairseq: FairseqOptions = Field(default_factory=dict)
    """fairseq's own options by group, in the order of its command line."""
    loggers: (
        Annotated[
            tuple[Literal["tensorboard", "wandb", "trackio", "aim"], ...],
            BeforeValidator(_one_or_several),
        ]
        | None
    ) = None
    """Services that get the metrics of a training run, one or several. Default: none. The metrics
    are in `metrics.jsonl` in any case."""
    clips_per_forward: Count | Literal["auto"] = "auto"
    """Number of clips that the embedding pass, validation and scoring compute at once. `auto` is
    1024, on a CPU 256, and is halved when the device is out of memory."""
    task: str | None = None
    """Class of the inner task. Default: `Task`."""
    task_type: str | None = None
    """Job type that is used without `--jobtype`. Default: `local_single`."""
    metric: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] = ()
    """Metric classes of an evaluation, one or several."""
    predictor: str | None = None
    """Predictor class of an evaluation."""
    slurm_config: Annotated[Any, Field(exclude=True)] = None
    """Size of a released SLURM job: `big` has 8 GPUs per machine, `small` has 2."""
    run_task: LauncherKey = None
    """A key of job files without effect here."""
    project_dir: LauncherKey = None
    """A key of job files without effect here."""
    task_group: LauncherKey = None
    """A key of job files without effect here."""
    task_list: LauncherKey = None
    """A key of job files without effect here."""
