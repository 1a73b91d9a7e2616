"""Reads the config and the weights of BERT, and defines the video tower that is built around it.

`dataset.bert_name` is a folder, or the name of a model on the Hugging Face hub. The video tower
runs transformers' `BertModel`, unchanged, on [CLS], one token per feature row, and [SEP]. It passes
input embeddings, positions and a mask to `BertModel`.

Legend: N clips, F feature rows, I their width, D hidden size, R real rows of all clips.
"""

from functools import partial
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import BertConfig, BertModel

from mmpt.batch import FEATURE_DIM
from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import CheckpointError, ConfigError, DataError, first_line
from mmpt.modules import run_packed
from mmpt.processors.tokenizer import read_folder_config
from mmpt.utils.checkpoint_file import require_finite
from mmpt.utils.hub_probe import load_from_hub
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

KEY = "dataset.bert_name"
WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""Names of weight files in a folder, in the order in which they are looked for."""
NUM_COIN_CLASSES = 779
"""Number of classes in the released checkpoint for COIN: 778 steps, and class 0 for times that
belong to no step."""


def read_bert_config(bert_name: str) -> BertConfig:
    """Returns the config of `bert_name`.

    Raises:
        ConfigError: the config belongs to another kind of model, or its sizes are inconsistent.
        DataError: config.json is missing or damaged.
        CheckpointError: `bert_name` is not a folder, and the hub does not provide it.
    """
    try:
        if Path(bert_name).is_dir():
            entries = read_folder_config(Path(bert_name))
        else:
            entries, _ = load_from_hub(bert_name, BertConfig.get_config_dict)
    except OSError as err:
        raise _unreachable_error(bert_name, err) from err
    kind = entries.get("model_type", "bert")
    if kind != "bert":
        problem = f"the towers are made of BERT, but {bert_name} is a `{kind}` model."
        raise ConfigError(KEY, [problem])
    try:
        config = BertConfig.from_dict(entries)
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads` "
                f"({config.num_attention_heads}), but is {config.hidden_size}"
            )
    except (StrictDataclassError, ValueError, TypeError, ZeroDivisionError) as err:
        reason = " ".join(str(err).split())
        problem = f"the config.json of {bert_name} is not BERT's: {reason}. Download it again."
        raise ConfigError(KEY, [problem]) from err
    return config


def find_size_problems(
    bert: BertConfig, dataset: DatasetConfig, model: ModelConfig
) -> list[str]:
    """Returns a sentence for each setting of a YAML that exceeds the size of BERT."""
    assert dataset.max_video_len is not None, "checked by the config"
    # (setting, its value, the limit, what the limit counts)
    num_layers = model.num_hidden_video_layers or 0
    num_positions = bert.max_position_embeddings
    video_slots = "dataset.max_video_len"
    if dataset.feature_fps != 1:
        video_slots += " * dataset.feature_fps"
    limits = [
        ("model.num_hidden_video_layers", num_layers, bert.num_hidden_layers, "layers"),
        (
            f"{video_slots} + 2",
            dataset.num_video_slots + 2,
            num_positions,
            "positions",
        ),
    ]
    if dataset.max_len is not None:
        setting = "dataset.max_len - dataset.max_video_len - 1"
        limits.append((setting, dataset.max_text_len - 1, num_positions, "positions"))
    problems = []
    for setting, value, most, kind in limits:
        if value > most:
            problems.append(
                f"`{setting}` must be at most the {most} {kind} of {dataset.bert_name}, but is "
                f"{value}."
            )
    return problems


def read_bert_weights(
    bert_name: str, config: BertConfig, *, random_init: bool
) -> BertModel | None:
    """Returns BERT with its published weights, or None; see `random_init`.

    Args:
        config: BERT's config, as `read_bert_config` returns it.
        random_init: return None for a folder that holds no weights.
    Raises:
        CheckpointError: the weights are missing, damaged, not finite or of another shape, or the
            hub does not provide them.
    """
    folder = Path(bert_name)
    files = [folder / name for name in WEIGHT_FILES]
    file = next(filter(Path.is_file, files), None)
    if folder.is_dir() and file is None:
        if not random_init:
            raise CheckpointError(
                f"`{KEY}`: the folder {folder} must hold weights "
                f"({' or '.join(WEIGHT_FILES[:2])}), but has none; put them there, or set "
                "`model.random_init: true` to start from random ones."
            )
        logger.warning(
            "%s holds no weights: both towers start from random ones (`model.random_init`)",
            folder,
        )
        return None
    load = partial(BertModel.from_pretrained, config=config, output_loading_info=True)
    try:
        if folder.is_dir():
            bert, info = load(bert_name)
        else:
            bert, info = load_from_hub(bert_name, load)
    except (RuntimeError, ValueError) as err:
        # transformers raises these for weights of another shape.
        raise CheckpointError(
            f"`{KEY}`: the weights of {bert_name} do not fit its config.json: {err}"
        ) from err
    except Exception as err:
        # Damaged files: safetensors, torch and pickle have different errors.
        if file is None and isinstance(err, OSError):
            raise _unreachable_error(bert_name, err) from err
        message = (
            f"{file or bert_name}: damaged ({first_line(err)}); download it again."
        )
        raise CheckpointError(message) from err

    # The pooler may be missing, because it is never used.
    missing = sorted(
        key for key in info["missing_keys"] if not key.startswith("pooler.")
    )
    if missing:
        raise CheckpointError(
            f"`{KEY}`: the weights of {bert_name} must be a whole BERT, but {len(missing)} tensors "
            f"are missing, among them `{missing[0]}`."
        )
    require_finite(
        bert.state_dict(), file or bert_name, "Download it again, or use another BERT."
    )
    return bert


def _unreachable_error(bert_name: str, err: OSError) -> CheckpointError:
    return CheckpointError(
        f"`{KEY}`: {bert_name} is not a folder, and it cannot be downloaded from the Hugging Face "
        f"hub ({first_line(err)}). On a machine with network run `hf download "
        f"{bert_name} --local-dir <folder>` and set `{KEY}` to that folder, or point HF_HOME to a "
        "cache that holds it."
    )


class VideoTokenMLP(nn.Module):
    """A network that maps features to tokens: Linear, GELU, LayerNorm and Linear.

    The order of the layers, the names of the parameters and the norm's epsilon of 1e-5 are the
    same as in VideoCLIP, so that its checkpoints load.

    Args:
        input_dim: I.
        hidden_size: D.
        initializer_range: standard deviation of the initial weights. Biases start at 0.
    """

    def __init__(
        self, input_dim: int, hidden_size: int, initializer_range: float = 0.02
    ):
        super().__init__()
        self.linear1 = nn.Linear(input_dim, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.linear2 = nn.Linear(hidden_size, hidden_size)
        for linear in (self.linear1, self.linear2):
            nn.init.normal_(linear.weight, std=initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, vfeats: Tensor) -> Tensor:
        """Returns tokens [..., D] for features [..., I].

        Features are cast to the dtype of the weights. (On disk they are float16.)
        """
        features = vfeats.to(self.linear1.weight.dtype)
        hidden = gelu(self.linear1(features))
        return self.linear2(self.LayerNorm(hidden))


class MMBertForEncoder(nn.Module):
    """A VideoTokenMLP followed by BERT.

    State-dict keys are `videomlp.*` and `bert.*`, as in released checkpoints.

    Args:
        config: BERT's config. It may have an additional entry `input_dim`, the width of the
            features. The default is 512, that of S3D.
        max_video_len: largest number of feature rows of a clip. [SEP] always has position
            `max_video_len + 1`.
    """

    def __init__(self, config: BertConfig, *, max_video_len: int):
        super().__init__()
        self.input_dim: int = getattr(config, "input_dim", FEATURE_DIM)
        self.max_video_len = max_video_len
        self.videomlp = VideoTokenMLP(
            self.input_dim, config.hidden_size, config.initializer_range
        )
        self.bert = BertModel(config)

    def forward(
        self, ids_N2: Tensor, vfeats_NFI: Tensor, mask: Tensor, *, packed: bool = False
    ) -> Tensor:
        """Returns the last hidden states, float [N, F + 2, D].

        Args:
            ids_N2: int64, the ids of [CLS] and [SEP].
            vfeats_NFI: float, the features.
            mask: bool [N, F + 2], True where a position may be attended to.
            packed: compute only the positions where `mask` is True. All other states are zero.
        Raises:
            DataError: the features have another width than `input_dim`.
        """
        num_rows, width = vfeats_NFI.shape[1:]
        if width != self.input_dim:
            raise DataError(
                f"video features must be {self.input_dim}-d, but are {width}-d; extract them with "
                "the network the model was trained on (S3D gives 512), or set `model.input_dim`."
            )
        assert num_rows <= self.max_video_len, "aligners cut clips"

        # One token per row. With `packed`, the tokens of padded rows are zero.
        if packed:
            is_real_NF = mask[:, 1:-1]
            real_RI = vfeats_NFI[is_real_NF]
            tokens_RD = self.videomlp(real_RI)
            hidden_size = tokens_RD.shape[1]
            empty_NFD = tokens_RD.new_zeros(*is_real_NF.shape, hidden_size)
            video_NFD = empty_NFD.masked_scatter(is_real_NF[..., None], tokens_RD)
        else:
            video_NFD = self.videomlp(vfeats_NFI)
        words_N2D = self.bert.embeddings.word_embeddings(ids_N2)
        cls_N1D, sep_N1D = words_N2D.split(1, dim=1)
        inputs_embeds = torch.cat([cls_N1D, video_NFD, sep_N1D], dim=1)

        # [SEP] has the same position in clips of every length.
        positions = torch.arange(num_rows + 2, device=mask.device)
        positions[-1] = self.max_video_len + 1
        if packed:
            position_ids = positions.expand_as(mask)
            return run_packed(
                self.bert, mask, position_ids, inputs_embeds=inputs_embeds
            )
        states = self.bert(
            inputs_embeds=inputs_embeds,
            position_ids=positions[None],
            attention_mask=mask,
        )
        return states.last_hidden_state


class MMBertForTokenClassification(MMBertForEncoder):
    """The video tower with a `classifier` for the steps of COIN.

    `forward` returns the hidden states, as in the base class; the caller applies the classifier to
    them. (The original also has a dropout module, which it never applies.)
    """

    def __init__(self, config: BertConfig, *, max_video_len: int):
        super().__init__(config, max_video_len=max_video_len)
        self.classifier = nn.Linear(config.hidden_size, NUM_COIN_CLASSES)
        nn.init.normal_(self.classifier.weight, std=config.initializer_range)
        nn.init.zeros_(self.classifier.bias)
