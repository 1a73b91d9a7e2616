"""The epoch refresh: embeds every video, finds neighbours, plans batches of hard negatives.

Every process embeds its share of the videos. Rank 0 then searches all of them and plans; the others
receive its plan. Until the plan is saved, the vectors are in files of `<save_dir>/retri/`, so that
a refresh that was killed continues when the same command is run again.
"""

from __future__ import annotations

import random
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.datasets import MMDataset
from mmpt.errors import DataError
from mmpt.models.checkpoint import weights_fingerprint
from mmpt.processors import (
    ShardedHow2MetaProcessor,
    ShardedHow2VideoRetriMetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
    VariedLenAligner,
)
from mmpt.retrieval import (
    RETRIEVERS,
    VECTOR_POOLS,
    Plan,
    VectorRetriever,
    VideoVectorPool,
    ids_fingerprint,
    plan_fingerprint,
    refresh_plan,
    remove_other_vectors,
)
from mmpt.shards.video_table import VideoTable
from mmpt.tasks.embedding import EmbeddingPass, clips_per_forward, device_of
from mmpt.tasks.task import TASKS, Task
from mmpt.utils.distributed import World
from mmpt.utils.log import get_logger
from mmpt.utils.rng import stable_seed
from mmpt.utils.stopwatch import Stopwatch

logger = get_logger(__name__)
SETTINGS_DIGITS = 16
"""Digits of the settings' hash in a plan's identity."""
PLAN_DATASET_KEYS = (
    "max_video_len",
    "max_len",
    "clip_per_video",
    "num_video_per_batch",
    "sampled_min_len",
    "sampled_max_len",
    "sort_clips",
    "bert_name",
    "vfeat_dir",
    "tfeat_dir",
)
PLAN_RETRIEVAL_KEYS = (
    "num_cands",
    "centroids",
    "examples_per_cent_to_train",
    "db_type",
    "nprobe",
    "recall",
    "retriever_cls",
)


@TASKS.register
class RetriTask(Task):
    """A task whose training batches are planned anew before each epoch."""

    def __init__(self, config: RunConfig, *, seed: int = 1):
        super().__init__(config, seed=seed)
        self._videos: VideoTable | None = None
        self._embedding_dataset: MMDataset | None = None
        # epoch and identity of the plan that the training set holds
        self._planned: tuple[int, str] | None = None

    def find_misfits(self) -> list[str]:
        """As for every task; besides, the training items must be batches that can be planned."""
        meta = self._part_classes()["meta_processor"]
        if self.config.is_test or issubclass(meta, ShardedHow2VideoRetriMetaProcessor):
            return super().find_misfits()
        wanted = ShardedHow2VideoRetriMetaProcessor.__name__
        found = f"`task: {self.config.task}`, but is `{meta.__name__}`"
        return [f"`dataset.meta_processor` must be `{wanted}` with {found}."]

    def build_dataset(self, split: Split) -> MMDataset | None:
        """Builds the data set of `split`; keeps the training videos for the embedding pass."""
        dataset = super().build_dataset(split)
        if dataset is not None and split is Split.TRAIN:
            self._videos = _planned_meta(dataset).videos
        return dataset

    @property
    def plan_dir(self) -> Path:
        """Where plans are kept."""
        return Path(self.config.save_dir) / "retri"

    def plan_epoch(
        self,
        dataset: MMDataset,
        model: nn.Module,
        epoch: int,
        world: World,
        wanted: str | None = None,
    ) -> str:
        """Gives the training set its batches for `epoch` and returns the identity of the plan.

        Args:
            dataset: the training set; its candidates are replaced.
            model: two-tower model on the device to embed with.
            wanted: identity of the plan that a checkpoint was training on. It is used if it was
                made from the same settings and list, and its file is there.
        """
        retrieval, meta = self.config.retrieval, _planned_meta(dataset)
        if retrieval.retri_epoch is None or epoch < retrieval.retri_epoch:
            meta.random_candidates(random.Random(stable_seed("grouping", self.seed, epoch)))
            return f"random-{epoch}-{self.seed}"
        plan_epoch = retrieval.retri_epoch if retrieval.freeze_plan else epoch
        if self._planned is None or self._planned[0] != plan_epoch:
            prefix = f"plan-{plan_epoch}-{self._fingerprint(plan_epoch)[:SETTINGS_DIGITS]}-"
            plan = self._stored_plan(plan_epoch, world, prefix, wanted) or self.refresh(
                model, plan_epoch, world
            )
            meta.set_candidates(plan.batches)
            self._planned = plan_epoch, prefix + plan.fingerprint
        return self._planned[1]

    def _stored_plan(
        self, epoch: int, world: World, prefix: str, wanted: str | None
    ) -> Plan | None:
        """The plan file of `epoch`, if `wanted` names exactly that plan; read by rank 0 only."""
        if wanted is None or not wanted.startswith(prefix):
            return None
        plan = None
        if world.is_main:
            try:
                plan = Plan.load(
                    self.plan_dir,
                    epoch,
                    fingerprint=wanted.removeprefix(prefix),
                    ids=self._video_ids(),
                )
            except DataError as err:
                logger.warning("%s", err)
        return world.broadcast_object(plan)

    def refresh(self, model: nn.Module, epoch: int, world: World) -> Plan:
        """Embeds all videos and plans the epoch; returns the same plan in every process."""
        watch = Stopwatch()
        pool, vectors_ND = self._collect(model, epoch, world, watch)
        plan = None
        if vectors_ND is not None:
            dataset, retrieval = self.config.dataset, self.config.retrieval
            assert dataset.num_video_per_batch is not None, "checked by the config"
            assert retrieval.num_cands is not None, "checked by the config"
            plan = refresh_plan(
                vectors_ND,
                self._video_ids(),
                epoch=epoch,
                videos_per_batch=dataset.num_video_per_batch,
                num_cands=retrieval.num_cands,
                retriever=self._retriever(vectors_ND.shape[1], epoch, device_of(model)),
                fingerprint=self._fingerprint(epoch, weights_fingerprint(model)),
                watch=watch,
            )
            with watch.timed("save"):
                plan.save(self.plan_dir)
            said = f"{plan.num_videos} videos in {watch.total:.1f} s: {watch}"
            logger.info("refresh of epoch %d: %s", epoch, said)
        plan = world.broadcast_object(plan)
        pool.discard()
        return plan

    def _retriever(self, hidden_size: int, epoch: int, device: torch.device) -> VectorRetriever:
        """Returns an empty index."""
        retrieval = self.config.retrieval
        retriever_cls = RETRIEVERS.get(
            retrieval.retriever_cls or "VectorRetriever", "retriever_cls"
        )
        return retriever_cls(
            hidden_size,
            retrieval.centroids,
            db_type=retrieval.db_type,
            examples_per_cent_to_train=retrieval.examples_per_cent_to_train,
            nprobe=retrieval.nprobe,
            seed=epoch,
            recall=retrieval.recall,
            device=device,
        )

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
        """Returns the vectors of all training videos in rank 0, and None in the other processes.

        A vector is the mean over C clips of (pooled_video + pooled_text) / 2, not normalised. The
        clip draws depend on the epoch and the video's position only.

        Returns:
            float16 [N, D], in list order.
        """
        pool, vectors_ND = self._collect(model, epoch, world, Stopwatch())
        pool.discard()
        return vectors_ND

    def _collect(
        self, model: nn.Module, epoch: int, world: World, watch: Stopwatch
    ) -> tuple[VideoVectorPool, np.ndarray | None]:
        """Returns the pool of this process and, in rank 0, all vectors."""
        dataset, was_training = self.embedding_dataset, model.training
        dataset.set_epoch(epoch)
        model.eval()
        try:
            with watch.timed("embed"):
                embedding = self._embedding_pass(model)
                pool = self._open_pool(embedding, model, epoch, world)
                done = embedding.fill(pool, model, world)
        finally:
            model.train(was_training)
        watch.remarks["embed"] = embedding.pace(done, watch.seconds["embed"], world)
        with watch.timed("gather"):
            return pool, pool.gather(world)

    def _embedding_pass(self, model: nn.Module) -> EmbeddingPass:
        dataset = self.config.dataset
        return EmbeddingPass(
            self.embedding_dataset,
            clips_per_video=dataset.clip_per_video or 1,
            clips_per_forward=clips_per_forward(self.config, device_of(model)),
            videos_per_chunk=(dataset.num_video_per_batch or 1) * self.config.retrieval.infer_scale,
            num_workers=self.config.num_workers,
        )

    def _open_pool(
        self, embedding: EmbeddingPass, model: nn.Module, epoch: int, world: World
    ) -> VideoVectorPool:
        """Returns the pool of this process, with the vectors that an interrupted pass has left."""
        key = ""
        if world.is_main:
            key = self._vectors_key(embedding, model, epoch, world)
        key = world.broadcast_object(key)
        remove_other_vectors(self.plan_dir, key)
        pool_cls = VECTOR_POOLS.get(
            self.config.retrieval.vectorpool_cls or "VideoVectorPool", "vectorpool_cls"
        )
        positions = [place for piece in embedding.pieces(world) for place in piece]
        size = embedding.vector_size(model)
        return pool_cls(np.array(positions, np.int64), size, self.plan_dir, key, world.rank)

    def _vectors_key(
        self, embedding: EmbeddingPass, model: nn.Module, epoch: int, world: World
    ) -> str:
        """Identity of the vectors and of who embeds which: epoch, videos, settings, all weights."""
        settings = {key: getattr(self.config.dataset, key) for key in PLAN_DATASET_KEYS}
        return plan_fingerprint(
            epoch=epoch,
            ids=self._ids_fingerprint,
            weights=weights_fingerprint(model, trainable_only=False),
            seed=self.seed,
            shares=(world.size, embedding.videos_per_piece, embedding.videos_per_chunk),
            **settings,
        )

    def _fingerprint(self, epoch: int, weights: str = "") -> str:
        """Identity of a plan: epoch, list of videos, settings, and the weights that embed."""
        settings = {key: getattr(self.config.dataset, key) for key in PLAN_DATASET_KEYS}
        retrieval = {key: getattr(self.config.retrieval, key) for key in PLAN_RETRIEVAL_KEYS}
        return plan_fingerprint(
            epoch=epoch,
            ids=self._ids_fingerprint,
            weights=weights,
            seed=self.seed,
            **settings,
            **retrieval,
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
