"""The epoch refresh: embed every training video, find neighbours, and plan batches of hard negatives.

Chosen here: chunks of videos are fixed by position and dealt to processes, so that a video's vector does not depend on
how many processes there are; rank 0 builds the one index over all videos and the others receive its plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.batch import Split
from mmpt.datasets import MMDataset, collate
from mmpt.errors import DataError
from mmpt.models.checkpoint import weights_fingerprint
from mmpt.processors import ShardedHow2MetaProcessor, ShardedHow2VideoRetriMetaProcessor
from mmpt.retrieval import (
    RETRIEVERS,
    VECTOR_POOLS,
    Plan,
    VideoVectorPool,
    plan_fingerprint,
    refresh_plan,
    video_vectors,
)
from mmpt.tasks.task import TASKS, Task, _merge_first_two, squeeze_leading
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger, progress
from mmpt.utils.rng import stable_seed

logger = get_logger(__name__)
CLIPS_PER_FORWARD = 1024


@TASKS.register
class RetriTask(Task):
    """A task whose training batches are planned anew before each epoch."""

    _embedding_dataset: MMDataset | None = None
    _plan: Plan | None = None

    def flatten(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Drop the axis that collating one item adds: an item is a batch already."""
        return squeeze_leading(batch)

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
            wanted: identity of the plan that a checkpoint was training on; taken up when its file is at hand.
        """
        retrieval, meta = self.config.retrieval, dataset.meta
        assert isinstance(meta, ShardedHow2VideoRetriMetaProcessor)
        if retrieval.retri_epoch is None or epoch < retrieval.retri_epoch:
            meta.random_candidates(random.Random(stable_seed("grouping", self.seed, epoch)))
            return f"random-{epoch}-{self.seed}"
        plan_epoch = retrieval.retri_epoch if retrieval.freeze_plan else epoch
        if self._plan is None or self._plan.epoch != plan_epoch:
            self._plan = self._stored_plan(plan_epoch, world, wanted) or self.refresh(model, plan_epoch, world)
        meta.set_candidates(self._plan.batches)
        return f"plan-{plan_epoch}-{self._plan.fingerprint}"

    def _stored_plan(self, epoch: int, world: World, wanted: str | None) -> Plan | None:
        """The plan file of `epoch`, if `wanted` names exactly that plan; read by rank 0 only."""
        prefix = f"plan-{epoch}-"
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
        if world.is_main:
            dataset, retrieval = self.config.dataset, self.config.retrieval
            assert dataset.num_video_per_batch, "checked by the config"
            assert retrieval.num_cands, "checked by the config"
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
                fingerprint=self._fingerprint(model, epoch),
                keep_centre=retrieval.keep_centre,
            )
            plan.save(self.plan_dir)
        return world.broadcast_object(plan)

    @property
    def embedding_dataset(self) -> MMDataset:
        """The training list one video at a time, with text-driven clips (built once)."""
        if self._embedding_dataset is None:
            parts = ("ShardedHow2MetaProcessor", "ShardedVideoProcessor", "ShardedTextProcessor", "VariedLenAligner")
            self._embedding_dataset = self._compose(Split.TRAIN, *parts)
        return self._embedding_dataset

    def _video_ids(self) -> list[str]:
        """All usable training videos, in list order: the order of vectors and plans."""
        meta = self.embedding_dataset.meta
        assert isinstance(meta, ShardedHow2MetaProcessor)
        return meta.video_ids

    def embed_videos(self, model: nn.Module, epoch: int, world: World) -> np.ndarray:
        """Return the float32 [N, D] vectors of all training videos, in list order, in every process.

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
            pin_memory=device.type == "cuda",
        )
        mine = sum(map(len, chunks))
        for batch in progress(loader, mine, "videos embedded", logger, unit=size):
            flat = {key: _merge_first_two(value) for key, value in batch.items() if key in _MODEL_INPUTS}
            pieces = []
            for begin in range(0, len(flat["caps"]), CLIPS_PER_FORWARD):
                piece = {key: value[begin : begin + CLIPS_PER_FORWARD].to(device) for key, value in flat.items()}
                output = model(**piece)
                pieces.append(torch.stack([output["pooled_video"], output["pooled_text"]]).float())
            video_BD, text_BD = torch.cat(pieces, dim=1)
            yield batch["idx"], video_vectors(video_BD, text_BD, self.config.dataset.clip_per_video or 1)

    def _fingerprint(self, model: nn.Module, epoch: int) -> str:
        """Identity of the plan: epoch, settings, list of videos, and the weights that embed them."""
        dataset = self.config.dataset
        keys = ("max_video_len", "max_len", "clip_per_video", "num_video_per_batch", "sampled_min_len")
        settings = {key: getattr(dataset, key) for key in (*keys, "sampled_max_len", "vfeat_dir", "tfeat_dir")}
        return plan_fingerprint(
            epoch=epoch,
            ids=self._video_ids(),
            weights=weights_fingerprint(model),
            seed=self.seed,
            **settings,
            **asdict(self.config.retrieval),
        )


@TASKS.register
class VideoRetriTask(RetriTask):
    """Retrieval with several clips per video: [V, C, ...] becomes [V*C, ...] after the item axis is dropped."""

    def flatten(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Drop the item axis, then merge videos and clips; clip c of video v is row v*C + c."""
        batch = squeeze_leading(batch)
        if (self.config.dataset.clip_per_video or 1) <= 1:
            return batch
        return {key: _merge_first_two(value) for key, value in batch.items()}


_MODEL_INPUTS = ("caps", "cmasks", "vfeats", "vmasks")
