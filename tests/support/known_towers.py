"""A model whose vectors are known: the mean of word embeddings, and the mean of features.

A second of a video that shows a word has the embedding of the word as its features. A text is
therefore most similar to the window that shows its words.
"""

from pathlib import Path

import numpy as np
import torch

from mmpt.inference.mmptmodel import MMPTModel
from mmpt.models import MMFusionSeparate


class KnownTowers(MMFusionSeparate):
    """Towers that only average. The first columns of the features are used."""

    @property
    def words(self) -> torch.Tensor:
        """The embeddings of all word pieces, float [vocabulary, D]."""
        return self.text_encoder.embeddings.word_embeddings.weight

    def forward_text(self, caps, cmasks, **_):
        inner = cmasks.clone()
        inner[:, 0] = False  # [CLS]
        lengths = cmasks.sum(dim=1)
        inner[torch.arange(len(caps)), lengths - 1] = False  # [SEP]
        shares = inner / inner.sum(dim=1, keepdim=True)
        pooled = torch.einsum("nt,ntd->nd", shares, self.words[caps])
        return pooled, None, None

    def forward_video(self, vfeats, vmasks, caps, cmasks, **_):
        states = vfeats[..., : self.words.shape[1]]
        shares = vmasks / vmasks.sum(dim=1, keepdim=True)
        pooled = torch.einsum("nf,nfd->nd", shares, states)
        with_cls = torch.cat([states[:, :1], states, states[:, :1]], dim=1)
        return pooled, with_cls, None


def known_model(run: Path) -> MMPTModel:
    """Returns the model with the BERT and the configuration of a run's folder."""
    tiny = MMPTModel.from_pretrained(run)
    torch.manual_seed(0)
    towers = KnownTowers.from_config(
        tiny.dataset_config, tiny.model_config, pretrained=False
    )
    torch.nn.init.normal_(towers.words)
    return MMPTModel(
        towers.eval(), tiny.dataset_config, tiny.model_config, normalise=False
    )


def seconds_of(model: MMPTModel, *shown: tuple[str, int]) -> np.ndarray:
    """Returns the features of a video that shows each text for a number of seconds."""
    parts = []
    for text, num_seconds in shown:
        vector = model.encode_text(text)[0].numpy()
        rows = np.zeros((num_seconds, 512), dtype=np.float32)
        rows[:, : len(vector)] = vector
        parts.append(rows)
    return np.concatenate(parts)
