"""The epoch refresh: embed every training video, find neighbours, and plan batches of hard negatives.

Chosen here: chunks of videos are fixed by position and dealt to processes, so that a video's vector does not depend on
how many processes there are; rank 0 builds the one index over all videos and the others receive its plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.datasets import MMDataset, collate
from mmpt.errors import DataError
from mmpt.models.checkpoint import weights_fingerprint
from mmpt.processors import (
    ShardedHow2MetaProcessor,
    ShardedHow2VideoRetriMetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
    VariedLenAligner,
)
from mmpt.processors.video_table import VideoTable
from mmpt.retrieval import (
    RETRIEVERS,
    VECTOR_POOLS,
    Plan,
    VideoVectorPool,
    ids_fingerprint,
    plan_fingerprint,
    refresh_plan,
    video_vectors,
)
from mmpt.tasks.task import TASKS, Task, merge_leading
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger, progress
from mmpt.utils.rng import stable_seed

logger = get_logger(__name__)
CLIPS_PER_FORWARD = 1024
SETTINGS_DIGITS = 16
"""Digits of the settings' hash in a plan's identity."""
PLAN_DATASET_KEYS = (
    "max_video_len", "max_len", "clip_per_video", "num_video_per_batch", "sampled_min_len", "sampled_max_len",
    "sort_clips", "bert_name", "vfeat_dir", "tfeat_dir",
)  # fmt: skip
PLAN_RETRIEVAL_KEYS = (
    "num_cands", "centroids", "examples_per_cent_to_train", "db_type", "nprobe", "keep_centre", "retriever_cls"
)  # fmt: skip


@TASKS.register
class RetriTask(Task):
    """A task whose training batches are planned anew before each epoch."""

    def __init__(self, config: RunConfig, *, seed: int = 1):
        super().__init__(config, seed=seed)
        self._videos: VideoTable | None = None
        self._embedding_dataset: MMDataset | None = None
        self._planned: tuple[int, str] | None = None  # epoch and identity of the plan that the training set holds

    def find_misfits(self) -> list[str]:
        """As for every task; besides, the training items must be batches that can be planned."""
        meta = self._part_classes()["meta_processor"]
        if self.config.is_test or issubclass(meta, ShardedHow2VideoRetriMetaProcessor):
            return super().find_misfits()
        wanted = ShardedHow2VideoRetriMetaProcessor.__name__
        found = f"`task: {self.config.task}`, but is `{meta.__name__}`"
        return [f"`dataset.meta_processor` must be `{wanted}` with {found}."]

    def build_dataset(self, split: Split) -> MMDataset | None:
        """Build the data set of `split`; the table of training videos is kept for the embedding pass."""
        dataset = super().build_dataset(split)
        if dataset is not None and split is Split.TRAIN:
            self._videos = _planned_meta(dataset).videos
        return dataset

    @property
    def plan_dir(self) -> Path:
        """Where plans are kept."""
        return Path(self.config.save_dir) / "retri"

    def plan_epoch(
        self, dataset: MMDataset, model: nn.Module, epoch: int, world: World, wanted: str | None = None
    ) -> str:
        """Give the training set its batches for `epoch` and return the identity of the plan.

        Args:
            dataset: the training set; its candidates are replaced.
            model: two-tower model on the device to embed with.
            wanted: identity of the plan that a checkpoint was training on; taken up when it was made by today's
                settings and list, and its file is at hand.
        """
        retrieval, meta = self.config.retrieval, _planned_meta(dataset)
        if retrieval.retri_epoch is None or epoch < retrieval.retri_epoch:
            meta.random_candidates(random.Random(stable_seed("grouping", self.seed, epoch)))
            return f"random-{epoch}-{self.seed}"
        plan_epoch = retrieval.retri_epoch if retrieval.freeze_plan else epoch
        if self._planned is None or self._planned[0] != plan_epoch:
            prefix = f"plan-{plan_epoch}-{self._fingerprint(plan_epoch)[:SETTINGS_DIGITS]}-"
            plan = self._stored_plan(plan_epoch, world, prefix, wanted) or self.refresh(model, plan_epoch, world)
            meta.set_candidates(plan.batches)
            self._planned = plan_epoch, prefix + plan.fingerprint
        return self._planned[1]

    def _stored_plan(self, epoch: int, world: World, prefix: str, wanted: str | None) -> Plan | None:
        """The plan file of `epoch`, if `wanted` names exactly that plan; read by rank 0 only."""
        if wanted is None or not wanted.startswith(prefix):
            return None
        plan = None
        if world.is_main:
            try:
                plan = Plan.load(self.plan_dir, epoch, fingerprint=wanted.removeprefix(prefix), ids=self._video_ids())
            except DataError as err:
                logger.warning("%s", err)
        return world.broadcast_object(plan)

    def refresh(self, model: nn.Module, epoch: int, world: World) -> Plan:
        """Embed all videos, build one index over them, plan the epoch's batches; the same plan in every process."""
        vectors_ND = self.embed_videos(model, epoch, world)
        plan = None
        if vectors_ND is not None:
            dataset, retrieval = self.config.dataset, self.config.retrieval
            assert dataset.num_video_per_batch is not None, "checked by the config"
            assert retrieval.num_cands is not None, "checked by the config"
            retriever_cls = RETRIEVERS.get(retrieval.retriever_cls or "VectorRetriever", "retriever_cls")
            plan = refresh_plan(
                vectors_ND,
                self._video_ids(),
                epoch=epoch,
                videos_per_batch=dataset.num_video_per_batch,
                num_cands=retrieval.num_cands,
                retriever=retriever_cls(
                    vectors_ND.shape[1],
                    retrieval.centroids,
                    db_type=retrieval.db_type,
                    examples_per_cent_to_train=retrieval.examples_per_cent_to_train,
                    nprobe=retrieval.nprobe,
                    seed=epoch,
                ),
                fingerprint=self._fingerprint(epoch, weights_fingerprint(model)),
                keep_centre=retrieval.keep_centre,
            )
            plan.save(self.plan_dir)
        return world.broadcast_object(plan)

    @property
    def embedding_dataset(self) -> MMDataset:
        """The training list one video at a time, with text-driven clips (built once)."""
        if self._embedding_dataset is None:
            config, split = self.config.dataset, Split.TRAIN
            self._embedding_dataset = MMDataset(
                ShardedHow2MetaProcessor(config, split, videos=self._videos),
                ShardedVideoProcessor(config, split),
                ShardedTextProcessor(config, split),
                VariedLenAligner(config, split),
                seed=self.seed,
            )
        return self._embedding_dataset

    def _video_ids(self) -> list[str]:
        """All usable training videos, in list order: the order of vectors and plans."""
        meta = self.embedding_dataset.meta
        assert isinstance(meta, ShardedHow2MetaProcessor)
        return meta.video_ids

    def embed_videos(self, model: nn.Module, epoch: int, world: World) -> np.ndarray | None:
        """Return the float32 [N, D] vectors of all training videos, in list order; None in other processes than rank 0.

        A vector is the mean over C clips of (pooled_video + pooled_text) / 2, not normalised. The clip draws depend on
        the epoch and the video's position only.
        """
        dataset = self.embedding_dataset
        dataset.set_epoch(epoch)
        pool_cls = VECTOR_POOLS.get(self.config.retrieval.vectorpool_cls or "VideoVectorPool", "vectorpool_cls")
        pool: VideoVectorPool | None = None
        was_training = model.training
        model.eval()
        try:
            for positions, vectors_nD in self._embed_chunks(model, dataset, world):
                pool = pool or pool_cls(len(dataset), vectors_nD.shape[1])
                pool.add(positions, vectors_nD)
        finally:
            model.train(was_training)
        assert pool is not None, "every process embeds at least one video"
        return pool.gather(world)

    @torch.no_grad()
    def _embed_chunks(
        self, model: nn.Module, dataset: MMDataset, world: World
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (positions [n], vectors [n, D]) of this process's chunks of consecutive videos."""
        device = next(model.parameters()).device
        size = (self.config.dataset.num_video_per_batch or 1) * self.config.retrieval.infer_scale
        starts = range(world.rank * size, len(dataset), world.size * size)
        chunks = [list(range(begin, min(begin + size, len(dataset)))) for begin in starts]
        chunks = chunks or [[0]]  # more processes than chunks: the pool takes each video once
        loader = DataLoader(
            dataset,
            batch_sampler=chunks,
            collate_fn=collate,
            num_workers=self.config.num_workers,
            prefetch_factor=1 if self.config.num_workers else None,  # a chunk is large, and waits in shared memory
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else the loader would advance the global one
        )
        mine = sum(map(len, chunks))
        for batch in progress(loader, mine, "videos embedded", logger, unit=size):
            flat = merge_leading({key: batch[key] for key in _MODEL_INPUTS}, 2)
            pieces = []
            for begin in range(0, len(flat["caps"]), CLIPS_PER_FORWARD):
                end = begin + CLIPS_PER_FORWARD
                piece = {key: value[begin:end].to(device, non_blocking=True) for key, value in flat.items()}
                output = model(**piece)
                pieces.append(torch.stack([output["pooled_video"], output["pooled_text"]]).float())
            video_BD, text_BD = torch.cat(pieces, dim=1)
            yield batch["idx"], video_vectors(video_BD, text_BD, self.config.dataset.clip_per_video or 1)

    def _fingerprint(self, epoch: int, weights: str = "") -> str:
        """Identity of a plan: epoch, list of videos, every setting that it depends on, and the weights that embed."""
        settings = {key: getattr(self.config.dataset, key) for key in PLAN_DATASET_KEYS}
        retrieval = {key: getattr(self.config.retrieval, key) for key in PLAN_RETRIEVAL_KEYS}
        return plan_fingerprint(
            epoch=epoch, ids=self._ids_fingerprint, weights=weights, seed=self.seed, **settings, **retrieval
        )

    @cached_property
    def _ids_fingerprint(self) -> str:
        return ids_fingerprint(self._video_ids())


def _planned_meta(dataset: MMDataset) -> ShardedHow2VideoRetriMetaProcessor:
    assert isinstance(dataset.meta, ShardedHow2VideoRetriMetaProcessor), "checked by check_classes"
    return dataset.meta


@TASKS.register
class VideoRetriTask(RetriTask):
    """The same by the name that pre-training YAMLs use: several clips of every video."""


_MODEL_INPUTS = ("caps", "cmasks", "vfeats", "vmasks")
