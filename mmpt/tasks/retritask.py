"""The refresh before an epoch: embeds every video, finds neighbours, plans batches of hard
negatives.

Every process embeds its share of the videos. Rank 0 then searches the neighbours and plans. The
other processes receive its plan. Until the plan is saved, the vectors are in files of
`<save_dir>/retri/`, so that a refresh that was killed continues when the same command is run again.
"""

import random
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from torch import nn

from mmpt import processors, retrieval
from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.datasets import MMDataset
from mmpt.errors import DataError
from mmpt.models.mmfusion import CLIPS_PER_FORWARD
from mmpt.modules.chunks import ALL, ChunkSize
from mmpt.tasks.embedding import (
    assign_pieces,
    device_of,
    fill_pool,
    speed_of_pass,
    vector_settings,
    vector_size,
)
from mmpt.tasks.task import TASKS, Task, index_settings
from mmpt.utils.artefact import weights_fingerprint
from mmpt.utils.distributed import World
from mmpt.utils.log import ON_SCREEN, get_logger
from mmpt.utils.rng import stable_seed
from mmpt.utils.stopwatch import Stopwatch

logger = get_logger(__name__)
SETTINGS_DIGITS = 16
"""Number of digits of the settings' hash in a plan's identity."""


@TASKS.register
class RetriTask(Task):
    """A task that plans the training batches before each epoch."""

    plans_batches = True

    Config = processors.VariedLenAligner.Config

    def __init__(self, config: RunConfig, *, seed: int = 1):
        super().__init__(config, seed=seed)
        self._train_set: MMDataset | None = None
        # epoch and identity of the plan that the training set holds
        self._planned_epoch: int | None = None
        self._identity = ""

    def build_dataset(self, split: Split) -> MMDataset | None:
        """Returns the data set of `split`. Keeps the training set for the embedding pass."""
        dataset = super().build_dataset(split)
        if split is Split.TRAIN:
            self._train_set = dataset
        return dataset

    @property
    def plan_dir(self) -> Path:
        """Folder of the plans."""
        return Path(self.config.save_dir) / "retri"

    def plan_epoch(
        self,
        dataset: MMDataset,
        model: nn.Module,
        epoch: int,
        world: World,
        wanted: str | None = None,
    ) -> str:
        """Sets the batches of the training set for `epoch` and returns the identity of the plan.

        Before `retri_epoch`, the videos are grouped at random. Later, batches are planned by
        retrieval. A plan is computed again for each epoch, unless `freeze_plan` is set.

        Args:
            dataset: the training set. Its candidates are replaced.
            model: two-tower model on the device to embed with.
            wanted: identity of the plan that a checkpoint was training on. It is read from its file
                if it was made from the same settings and list, and the file still exists.
        """
        settings = self.config.retrieval
        meta = dataset.meta
        assert isinstance(meta, processors.ShardedHow2VideoRetriMetaProcessor), (
            "checked by check_classes"
        )
        if settings.retri_epoch is None or epoch < settings.retri_epoch:
            grouping_seed = stable_seed("grouping", self.seed, epoch)
            meta.random_candidates(random.Random(grouping_seed))
            return f"random-{epoch}-{self.seed}"
        plan_epoch = settings.retri_epoch if settings.freeze_plan else epoch
        if plan_epoch == self._planned_epoch:
            return self._identity

        # An identity consists of a hash of epoch, settings and list, and of the fingerprint of the
        # plan, which also covers the weights. The weights change during the epoch. So when an
        # interrupted epoch continues, only the first hash can be computed again and compared.
        settings_hash = self._fingerprint(plan_epoch)[:SETTINGS_DIGITS]
        prefix = f"plan-{plan_epoch}-{settings_hash}-"
        plan = None
        if world.is_main:
            # The fingerprint is empty if settings or list have changed.
            _, _, wanted_plan = (wanted or "").partition(prefix)
            plan = self._read_plan(model, plan_epoch, wanted_plan)
        plan = world.broadcast_object(plan)
        if plan is None:
            plan = self.refresh(model, plan_epoch, world)
        meta.set_candidates(plan.batches)
        self._planned_epoch = plan_epoch
        self._identity = prefix + plan.fingerprint
        return self._identity

    def _read_plan(
        self, model: nn.Module, epoch: int, wanted: str
    ) -> retrieval.Plan | None:
        """Returns the plan of an interrupted run, or None if there is none to continue with.

        Args:
            wanted: fingerprint of the plan that a checkpoint was training on. Empty at the
                beginning of an epoch. There may be a plan even then, if a run was killed before the
                first checkpoint of the epoch. It is used if it was made from the current weights.
        """
        path = retrieval.Plan.path(self.plan_dir, epoch)
        if not wanted and not path.exists():
            return None
        name = wanted or self._fingerprint(epoch, weights_fingerprint(model))
        try:
            plan = retrieval.Plan.load(
                self.plan_dir, epoch, name, self._ids_fingerprint
            )
        except DataError as err:
            logger.warning("%s", err)
            return None
        retrieval.remove_other_vectors(self.plan_dir, key="")
        message = "epoch %d: using the plan that an interrupted run has made"
        logger.info(message, epoch, extra=ON_SCREEN)
        return plan

    def refresh(self, model: nn.Module, epoch: int, world: World) -> retrieval.Plan:
        """Embeds all videos and plans the epoch; returns the same plan in every process."""
        watch = Stopwatch()
        pool, vectors_ND = self._collect(model, epoch, world, watch)
        plan = None
        if vectors_ND is not None:
            plan = self._make_plan(model, epoch, vectors_ND, watch)
        plan = world.broadcast_object(plan)
        pool.discard()
        return plan

    def _make_plan(
        self, model: nn.Module, epoch: int, vectors_ND: np.ndarray, watch: Stopwatch
    ) -> retrieval.Plan:
        """Plans the epoch from the vectors of all videos, and saves the plan."""
        settings = self.config.retrieval
        videos_per_batch = self.config.dataset.num_video_per_batch
        assert videos_per_batch is not None, "checked by the config"
        assert settings.num_cands is not None, "checked by the config"
        hidden_size = vectors_ND.shape[1]
        retriever = self.build_retriever(hidden_size, epoch, device_of(model))
        weights = weights_fingerprint(model)
        plan = retrieval.refresh_plan(
            vectors_ND,
            epoch=epoch,
            videos_per_batch=videos_per_batch,
            num_cands=settings.num_cands,
            retriever=retriever,
            fingerprint=self._fingerprint(epoch, weights),
            list_fingerprint=self._ids_fingerprint,
            watch=watch,
        )
        assert plan.hardness is not None, "the plan is new"
        figures = plan.hardness | {"refresh_s": round(watch.total, 3)}
        plan = replace(plan, hardness=figures)
        with watch.timed("save"):
            plan.save(self.plan_dir, self._video_ids)
        summary = f"{plan.num_videos} videos in {watch.total:.1f} s: {watch}"
        logger.info("refresh of epoch %d: %s", epoch, summary)
        # It fits in a terminal of 80 columns.
        logger.info(
            f"epoch {epoch}: refreshed in {figures['refresh_s']:.1f} s, "
            f"{figures['coverage']:.1%} of videos, cosine {figures['mean_cosine']:.3f} "
            f"(random {figures['random_mean_cosine']:.3f})",
            extra=ON_SCREEN,
        )
        return plan

    @cached_property
    def embedding_dataset(self) -> MMDataset:
        """The training videos, one per item, read by the processors of the training set.

        The aligner is a fixed one, with which the two windows of a clip cover the same time.
        """
        config = self.config.dataset
        assert isinstance(config, self.Config), "checked by the config"
        training = self._train_set
        if training is None:
            training = self.build_dataset(Split.TRAIN)
        assert training is not None, "a training run has a list"
        assert isinstance(
            training.meta, processors.ShardedHow2VideoRetriMetaProcessor
        ), "checked by check_classes"
        return MMDataset(
            training.meta.one_by_one(),
            training.video,
            training.text,
            processors.VideoRetriAligner(config, Split.TRAIN),
            seed=self.seed,
        )

    @property
    def _clips_per_video(self) -> int:
        clips = self.config.dataset.clip_per_video
        assert clips is not None, "checked by the config"
        return clips

    @property
    def _video_ids(self) -> list[str]:
        """The usable training videos. Positions of vectors and plans refer to this order."""
        meta = self.embedding_dataset.meta
        assert isinstance(meta, processors.ShardedHow2VideoRetriMetaProcessor)
        return meta.videos.name_list()

    def embed_videos(
        self, model: nn.Module, epoch: int, world: World
    ) -> np.ndarray | None:
        """Returns the vectors of all training videos in rank 0, and None in the other processes.

        A vector is the mean over C clips of (pooled_video + pooled_text) / 2, not normalised. The
        draws of the clips depend only on the epoch and the video's position.

        Returns:
            float16 [N, D], in list order.
        """
        pool, vectors_ND = self._collect(model, epoch, world, Stopwatch())
        pool.discard()
        return vectors_ND

    def _collect(
        self, model: nn.Module, epoch: int, world: World, watch: Stopwatch
    ) -> tuple[retrieval.VideoVectorPool, np.ndarray | None]:
        """Returns the pool of this process and, in rank 0, all vectors."""
        config = self.config
        dataset = self.embedding_dataset
        was_training = model.training
        # All processes must cut the same pieces. The model's own chunk size may have been halved in
        # one of them, so a fresh one is made.
        chunk = ChunkSize(
            "clips_per_forward", config.clips_per_forward, CLIPS_PER_FORWARD
        )
        clips = self._clips_per_video
        clips_per_piece = chunk.size(ALL, device_of(model))
        per_piece = max(1, clips_per_piece // clips)
        videos_per_batch = config.dataset.num_video_per_batch or 1
        per_chunk = videos_per_batch * config.retrieval.infer_scale
        pieces = assign_pieces(len(dataset), per_piece, per_chunk, world)
        dataset.set_epoch(epoch)
        model.eval()
        try:
            with watch.timed("embed"):
                pool = self._open_pool(
                    model, epoch, world, pieces, per_piece, per_chunk
                )
                done, waited_s = fill_pool(
                    pool,
                    model,
                    dataset,
                    pieces,
                    clips_per_video=clips,
                    num_workers=config.num_workers,
                )
        finally:
            model.train(was_training)
        seconds = watch.seconds["embed"]
        speed = speed_of_pass(done, clips, seconds, world)
        watch.remark("embed", f"{speed}, {waited_s / seconds:.0%} waiting for data")
        with watch.timed("gather"):
            vectors_ND = pool.gather(world)
        return pool, vectors_ND

    def _open_pool(
        self,
        model: nn.Module,
        epoch: int,
        world: World,
        pieces: list[range],
        per_piece: int,
        per_chunk: int,
    ) -> retrieval.VideoVectorPool:
        """Returns the pool of this process, with the vectors that an interrupted pass has left.

        The key of the files covers epoch, list, settings of the vectors and all weights. It also
        covers the number of processes and the sizes of pieces, which decide the videos that each
        process embeds.

        Args:
            per_piece: videos per piece.
            per_chunk: videos that a process gets at a time.
        """
        key = ""
        if world.is_main:
            weights = weights_fingerprint(model, trainable_only=False)
            shares = (world.size, per_piece, per_chunk)
            key = self._fingerprint(epoch, weights, of_plan=False, shares=shares)
        key = world.broadcast_object(key)
        retrieval.remove_other_vectors(self.plan_dir, key)
        positions = list(chain.from_iterable(pieces))
        hidden_size = vector_size(model, self.embedding_dataset, self._clips_per_video)
        name = self.config.retrieval.vectorpool_cls or "VideoVectorPool"
        pool_cls = retrieval.VECTOR_POOLS.get(name, "vectorpool_cls")
        positions_n = np.array(positions, np.int64)
        return pool_cls(
            positions_n, hidden_size, self.plan_dir, key, world.rank, per_piece
        )

    def _fingerprint(
        self,
        epoch: int,
        weights: str = "",
        *,
        of_plan: bool = True,
        **more: object,
    ) -> str:
        """Returns a hash of epoch, list, settings and weights, which identifies plans or vectors.

        Args:
            weights: fingerprint of the weights. Empty: the hash does not depend on them.
            of_plan: the hash covers the settings of the index, on which the vectors do not depend.
            more: other values that it covers.
        """
        dataset = self.embedding_dataset
        readers = (dataset.video, dataset.text)
        settings = vector_settings(self.config.dataset, readers)
        if of_plan:
            settings |= index_settings(self.config.retrieval)
        return retrieval.plan_fingerprint(
            epoch=epoch,
            ids=self._ids_fingerprint,
            weights=weights,
            seed=self.seed,
            **settings,
            **more,
        )

    @cached_property
    def _ids_fingerprint(self) -> str:
        return retrieval.ids_fingerprint(self._video_ids)


VideoRetriTask = RetriTask
"""The name by which pre-training YAMLs select `RetriTask`."""
TASKS.register(RetriTask, "VideoRetriTask")
