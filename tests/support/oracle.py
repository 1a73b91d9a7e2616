"""A model whose answers are known.

The vector of a sentence is a fixed function of its words. The vector of a second is its feature. A
test that makes features from sentence vectors knows every score that the real commands must give on
annotation files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmpt.batch import FEATURE_DIM, ModelOutput
from mmpt.config import DatasetConfig, ModelConfig
from mmpt.processors.tokenizer import load_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ORACLE = "tests.support.oracle.OracleTowers"
ORACLE_BG = "tests.support.oracle.OracleWholeVideo"


class OracleTowers(nn.Module):
    """Two towers: fixed unit vectors of sentences, and means of the features of videos."""

    def __init__(self, num_words: int):
        super().__init__()
        table = np.random.default_rng(0).standard_normal((num_words, FEATURE_DIM))
        self.words = nn.Parameter(torch.from_numpy(table).float())

    @classmethod
    def from_config(
        cls, dataset: DatasetConfig, model: ModelConfig, *, pretrained: bool
    ) -> OracleTowers:
        """Builds the model for the vocabulary of `dataset.bert_name`."""
        words = (
            (Path(str(dataset.bert_name)) / "vocab.txt")
            .read_text(encoding="utf-8")
            .splitlines()
        )
        return cls(len(words))

    def forward_text(
        self, caps: torch.Tensor, cmasks: torch.Tensor
    ) -> tuple[torch.Tensor]:
        """Returns unit vectors [N, 512] that depend on the words and on their order."""
        # Another factor for each slot, [T, 512].
        slots = torch.cos(
            torch.arange(caps.shape[1])[:, None] * torch.arange(FEATURE_DIM)
        )
        states = self.words[caps] * slots * cmasks[..., None]
        return (nn.functional.normalize(states[:, 2:].sum(dim=1), dim=-1),)

    def forward_video(
        self,
        vfeats: torch.Tensor,
        vmasks: torch.Tensor,
        caps: torch.Tensor,
        cmasks: torch.Tensor,
        output_hidden_states: bool = False,
    ) -> tuple[torch.Tensor] | torch.Tensor:
        """Returns the mean features of the real seconds, [N, 512].

        With `output_hidden_states`: all features with a zero before and after, [N, F + 2, 512].
        """
        assert len(caps) == len(vfeats)
        if output_hidden_states:
            return nn.functional.pad(vfeats, (0, 0, 1, 1))
        return (
            (vfeats * vmasks[..., None]).sum(dim=1) / vmasks.sum(dim=1, keepdim=True),
        )

    def forward(
        self,
        caps: torch.Tensor,
        cmasks: torch.Tensor,
        vfeats: torch.Tensor,
        vmasks: torch.Tensor,
    ) -> ModelOutput:
        """Returns the pooled vectors of both towers."""
        return {
            "pooled_text": self.forward_text(caps, cmasks)[0],
            "pooled_video": self.forward_video(vfeats, vmasks, caps, cmasks)[0],
        }


class OracleWholeVideo(OracleTowers):
    """The oracle for whole videos: S captions and W windows of one video at a time."""

    def forward(
        self,
        caps: torch.Tensor,
        cmasks: torch.Tensor,
        vfeats: torch.Tensor,
        vmasks: torch.Tensor,
    ) -> ModelOutput:
        """Returns pooled_text [S, 512] and pooled_video [W, 512] of a batch of one video."""
        assert len(caps) == len(vfeats) == 1
        return {
            "pooled_text": self.forward_text(caps[0], cmasks[0])[0],
            "pooled_video": self.forward_video(
                vfeats[0], vmasks[0], vfeats[0], vmasks[0]
            )[0],
        }


def make_oracle(folder: Path, texts: Sequence[str]) -> list[str]:
    """Writes a vocabulary of the words of `texts` and a checkpoint.

    Returns:
        Overrides that select them.
    """
    words = sorted({word for text in texts for word in split_words(text)})
    bert = folder / "bert"
    bert.mkdir(parents=True)
    bert.joinpath("vocab.txt").write_text(
        "\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8"
    )
    config = {
        "model_type": "bert",
        "vocab_size": len(SPECIAL) + len(words),
        "hidden_size": 64,
    }
    bert.joinpath("config.json").write_text(
        json.dumps(config | {"num_attention_heads": 2, "num_hidden_layers": 2})
    )
    path = folder / "oracle" / "checkpoint_best.pt"
    path.parent.mkdir()
    torch.save(OracleTowers(len(SPECIAL) + len(words)).state_dict(), path)
    return [
        f"dataset.bert_name={bert}",
        f"model.model_cls={ORACLE}",
        f"fairseq.common_eval.path={path}",
        f"eval.save_path={folder}/results",
        "fairseq.dataset.num_workers=0",
    ]


def split_words(text: str) -> list[str]:
    """Returns the words of a text, split nearly as BERT does. Any other words become [UNK]."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def sentence_vectors(bert: Path, texts: Sequence[str]) -> np.ndarray:
    """Returns the oracle's vectors of `texts`, float64 [n, 512]."""
    tokenizer = load_tokenizer(str(bert))
    oracle = OracleTowers(len(tokenizer)).double()
    # 61 word pieces fit into the 64 text slots of the YAMLs with [CLS] and twice [SEP].
    rows = [
        [
            *tokenizer(text, add_special_tokens=False)["input_ids"][:61],
            tokenizer.sep_token_id,
        ]
        for text in texts
    ]
    lengths = torch.tensor([[len(row)] for row in rows])
    caps = torch.zeros(len(rows), 2 + int(lengths.max()), dtype=torch.int64)
    for cap, row in zip(caps, rows, strict=True):
        cap[2 : 2 + len(row)] = torch.tensor(row)
    with torch.no_grad():
        return oracle.forward_text(caps, torch.arange(caps.shape[1]) < lengths + 2)[
            0
        ].numpy()
