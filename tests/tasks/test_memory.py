"""From `memory` to a plan: choices, the message when nothing fits, and the memory that a process then takes."""

import logging
import multiprocessing
import re
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from mmpt.config import DatasetConfig, ModelConfig, RunConfig
from mmpt.config.memory import parse_memory
from mmpt.errors import ConfigError
from mmpt.models import MMFusionSeparate
from mmpt.models.freezing import freeze_all_but_layernorm
from mmpt.models.memory import MemoryPlan
from mmpt.tasks import Task
from mmpt.utils.memory import memory_in_use
from tests.norton import norton_loss
from tests.ranks import run_ranks

F, T, VIDEOS, CLIPS = 16, 32, 8, 16
MB = 1_000_000
CPU = torch.device("cpu")
CONFIG = RunConfig(
    dataset=DatasetConfig(
        meta_processor="ShardedHow2VideoRetriMetaProcessor",
        video_processor="ShardedVideoRetriVideoProcessor",
        text_processor="ShardedVideoRetriTextProcessor",
        aligner="VideoRetriOverlappedAligner",
        num_video_per_batch=VIDEOS,
        clip_per_video=CLIPS,
        max_video_len=F,
        max_len=F + T,
    ),
    model=ModelConfig(model_cls="MMFusionSeparate"),
    loss=norton_loss(sinkhorn_iterations=10),
    path="run.yaml",
)


def towers() -> MMFusionSeparate:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
    model = MMFusionSeparate(BertConfig(vocab_size=1000, **sizes), num_hidden_video_layers=2, max_video_len=F)
    model.packed = True
    freeze_all_but_layernorm(model)
    return model.train()


def draw(num: int, longest: bool) -> dict[str, torch.Tensor]:
    seconds, slots = torch.randint(3, F + 1, (num, 1)), torch.randint(11, T + 1, (num, 1))
    if longest:
        seconds[:], slots[:] = F, T
    return {
        "caps": torch.randint(5, 1000, (num, T)),
        "cmasks": torch.arange(T) < slots,
        "vfeats": torch.randn(num, F, 512),
        "vmasks": torch.arange(F) < seconds,
    }


def plan(memory: float | None, *, spare: int = 0, **model: bool) -> MemoryPlan:
    """The plan with `memory`, or with so many bytes more than the process holds."""
    task = Task(replace(CONFIG, memory=memory or memory_in_use(CPU) + spare, model=replace(CONFIG.model, **model)))
    return task.plan_memory(towers(), CPU)


def test_what_fits_is_computed_once_and_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = plan(None, spare=2000 * MB)
    assert (found.clips_per_chunk, found.tile_bytes, found.clips_per_forward) == (None, None, 256)
    assert "activations of 128 clips take at most 1" in caplog.text
    assert "; loss tiles 2 MB; embedding pass 256 clips at once" in caplog.text
    assert "recomputed" not in caplog.text


def test_less_memory_means_more_again_and_less_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plans = [plan(None, spare=spare * MB) for spare in (200, 150, 110)]
    assert all(found.clips_per_chunk for found in plans)
    assert plans[0].clips_kept > plans[1].clips_kept > plans[2].clips_kept
    assert plans[0].clips_per_forward > plans[2].clips_per_forward
    assert plans[2].tile_bytes == 1 << 20
    assert "so they are recomputed beyond those of" in caplog.text


def test_checkpointing_can_be_asked_for_and_refused(caplog: pytest.LogCaptureFixture) -> None:
    always = plan(None, spare=2000 * MB, checkpoint_activations=True)
    assert (always.clips_per_chunk, always.clips_kept) == (32, 0)
    assert plan(None, spare=150 * MB, checkpoint_activations=False).clips_per_chunk is None
    assert "`model.checkpoint_activations: false` may take more than the" in caplog.text


def test_too_little_memory_is_told_with_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"run.yaml: .*\n.*`memory` must be at least .* for 128 clips") as found:
        plan(None, spare=40 * MB)
    assert "dataset.num_video_per_batch" in str(found.value)
    with pytest.raises(ConfigError, match=r"for 128 clips, .* but is 100 MB; weights, .* take .*\. Raise it") as found:
        plan(100 * MB)
    told = re.search(r"at least ([\d.,]+ [MG]B) for", str(found.value))
    assert told
    assert plan(parse_memory(told[1].replace(",", "")))
    monkeypatch.setattr("mmpt.utils.memory._spare_cpu_memory", lambda: 40 * MB)
    with pytest.raises(ConfigError, match=r"at least .* but what this process can have is [\d.]+ [MG]B; "):
        plan(10**12)


def test_a_share_that_is_too_small_is_named() -> None:
    with pytest.raises(ConfigError, match=r"for 128 clips, .*, but as the share 1e-05 is [\d.]+ [MG]B; weights"):
        plan(1e-5)


def test_an_evaluation_needs_no_room_for_training() -> None:
    with pytest.raises(ConfigError, match=r"for one clip at a time, but is 100 MB; weights and .* take .*\. Raise"):
        Task(replace(CONFIG, dataset=replace(CONFIG.dataset, split="test"), memory=100 * MB)).plan_memory(towers(), CPU)
    config = replace(CONFIG, dataset=replace(CONFIG.dataset, split="test"), memory=memory_in_use(CPU) + 80 * MB)
    found = Task(config).plan_memory(towers(), CPU)
    assert (found.clips_per_chunk, found.tile_bytes) == (None, None)
    assert 16 <= found.clips_per_forward <= 256


def test_a_plan_is_made_once_and_other_models_are_left_alone() -> None:
    task, model = Task(CONFIG), towers()
    assert task.plan_memory(model, CPU) is task.plan_memory(model, CPU)
    other = torch.nn.Linear(2, 2)
    plain = Task(CONFIG).plan_memory(other, CPU)
    plain.apply(other)
    assert (plain.clips_per_chunk, plain.clips_per_forward) == (None, 1024)


def plan_in_process(rank: int, folder: Path) -> None:
    """Every process asks, once the second for less than the first, once for more."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = towers()
    for poor in (0, 1):
        spare = 150 if rank == poor else 2000
        found = Task(replace(CONFIG, memory=memory_in_use(CPU) + spare * MB)).plan_memory(model, CPU)
        (folder / f"{poor}{rank}.txt").write_text(str(found))
    torch.distributed.destroy_process_group()


def test_the_process_with_the_least_memory_decides(tmp_path: Path) -> None:
    run_ranks(plan_in_process, tmp_path, size=2)
    for poor in (0, 1):
        first, second = ((tmp_path / f"{poor}{rank}.txt").read_text() for rank in (0, 1))
        assert first == second
        assert "clips_per_chunk=None" not in first  # which the other would have chosen


def test_what_an_optimizer_holds_already_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmpt.tasks.memory.memory_in_use", lambda device: 100 * MB)
    model = towers().requires_grad_(True)
    needed = []
    for goes_on in (False, True):
        task = Task(replace(CONFIG, memory=100 * MB))
        task.goes_on = goes_on
        with pytest.raises(ConfigError) as found:
            task.plan_memory(model, CPU)
        told = re.search(r"take (\d+) MB of it", str(found.value))
        assert told
        needed.append(int(told[1]))
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert needed == [round((100 * MB + each * numbers) / MB) for each in (16, 8)]


def train(spare: int, longest: bool, out: Connection) -> None:
    """In a fresh process: two steps and a pass without gradient; send the limit, the peak and the plan."""
    torch.set_num_threads(1)
    model, loss = towers(), Task(CONFIG).build_loss()
    batches = [draw(VIDEOS * CLIPS, longest) for _ in range(2)]
    many = draw(1024, longest)
    limit = memory_in_use(CPU) + spare
    found = Task(replace(CONFIG, memory=limit)).plan_memory(model, CPU)
    found.apply(model, loss)
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad])
    for batch in batches:
        output = model(**batch)
        loss(**{**batch, **output}).total.backward()
        del output
        optimizer.step()
        optimizer.zero_grad()
    after_training = peak()
    model.eval()
    with torch.no_grad():
        for begin in range(0, 1024, found.clips_per_forward):
            model(**{name: value[begin : begin + found.clips_per_forward] for name, value in many.items()})
    out.send((limit, after_training, peak(), found))


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize(("spare", "longest"), [(110, True), (170, False), (400, True)])
def test_a_process_stays_within_its_memory(spare: int, longest: bool) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(spare * MB, longest, send))
    process.start()
    send.close()
    limit, trained, embedded, found = receive.recv()
    process.join()
    assert trained <= limit  # measured 80 of 110, 94 of 170 and 227 of 400 MB beyond the start
    assert embedded <= limit  # measured 82, 143 and 227
    assert (found.clips_per_chunk is None) == (spare == 400)
