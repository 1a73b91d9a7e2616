"""Tests on a GPU: agreement with the CPU, synchronisation, half precision, compilation and NCCL.

Tests that compare with a float64 reference also run on the CPU, so that errors in their code are
found without a GPU.
"""

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo import config as dynamo
from transformers import BertConfig

from mmpt.losses import MMContraLoss
from mmpt.media.clip_encoder import ClipEncoder, open_network
from mmpt.media.encoders import S3DEncoder
from mmpt.models import MMFusionSeparate
from mmpt.models.compilation import compile_layers
from mmpt.modules.packing import plan_packing
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.jobs import NORTON, ONE_EPOCH, VIDEOCLIP, train
from tests.support.norton import norton_loss

pytestmark = pytest.mark.e2e

needs_two = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"
)
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))
HALF = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16")
NORTON_LOSS = norton_loss()
SECONDS, SLOTS = 6, 14


@contextmanager
def count_syncs() -> Iterator[list[warnings.WarningMessage]]:
    """Collects a warning for each time that the CPU waits for the GPU."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("always", message=".*synchronizing CUDA operation")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            torch.cuda.set_sync_debug_mode(mode)


def states_on_gpu(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Returns random outputs of the towers for four videos of 16 clips."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "pooled_video": (64, 48),
        "pooled_text": (64, 48),
        "video_outputs": (64, 10, 48),
        "text_outputs": (64, 12, 48),
    }
    states = {}
    for name, shape in shapes.items():
        drawn = torch.randn(*shape, generator=generator).to("cuda", dtype)
        states[name] = drawn.requires_grad_()
    for name, width in (("video", 10), ("text", 12)):
        mask = torch.rand(64, width, generator=generator) < 0.7
        mask[:, -1] = True
        states[f"{name}_mask_outputs"] = mask.to("cuda")
    return states


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_synchronises_twice(
    dtype: torch.dtype,
) -> None:
    loss, batch = MMContraLoss(NORTON_LOSS), states_on_gpu(dtype)
    loss(**batch).total.backward()  # the first step may sync
    with count_syncs() as in_forward:
        total = loss(**batch).total
    with count_syncs() as in_backward:
        total.backward()
    assert (len(in_forward), len(in_backward)) == (2, 0)


def towers(**changes: float) -> MMFusionSeparate:
    torch.manual_seed(0)
    sizes = {"vocab_size": 120, "hidden_size": 64, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 128}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = MMFusionSeparate(
        BertConfig(**sizes, **no_dropout | changes),
        num_hidden_video_layers=2,
        max_video_len=SECONDS,
        packed=True,
    )
    return model.train()


def clips(num: int = 64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(num)
    pieces = torch.randint(3, SLOTS + 1, (num, 1), generator=generator)
    seconds = torch.randint(1, SECONDS + 1, (num, 1), generator=generator)
    return {
        "caps": torch.randint(1, 120, (num, SLOTS), generator=generator),
        "cmasks": torch.arange(SLOTS) < pieces,
        "vfeats": torch.randn(
            num, SECONDS, 512, generator=generator, dtype=torch.float64
        ),
        "vmasks": torch.arange(SECONDS) < seconds,
    }


def train_once(
    model: MMFusionSeparate, num: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the loss of a step and all gradients in one vector, float64 on the CPU."""
    first = next(model.parameters())
    batch = {name: value.to(first.device) for name, value in clips(num).items()}
    batch["vfeats"] = batch["vfeats"].to(first.dtype)
    model.zero_grad()
    loss = MMContraLoss(NORTON_LOSS).to(first.device)
    total = loss(**batch | model(**batch)).total
    total.backward()
    gradients = []
    for parameter in model.parameters():
        if parameter.grad is not None:
            gradients.append(parameter.grad.flatten().double().cpu())
    return total.detach().double().cpu(), torch.cat(gradients)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_step_is_close_to_one_in_float64(device: str, dtype: torch.dtype) -> None:
    model = towers().to(dtype)
    loss, gradients = train_once(copy.deepcopy(model).to(device))
    wanted_loss, wanted = train_once(model.double())
    # Measured on the CPU: loss 0.21 eps, gradients 5.2 eps or less. Exponentials and square roots
    # of a GPU are less exact in float32. TF32 would differ by more than 1,000 eps.
    slack = 8 if device == "cuda" and dtype == torch.float32 else 1
    eps = slack * torch.finfo(dtype).eps
    assert abs(loss - wanted_loss) < 4 * eps * wanted_loss
    assert (gradients - wanted).norm() < 16 * eps * wanted.norm()


@pytest.mark.gpu
def test_packed_layers_do_not_synchronise() -> None:
    model = towers(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).to("cuda")
    batch = clips()
    mask = batch["cmasks"].to("cuda")
    packing = plan_packing(mask, max_padding=8)
    ids, positions = (
        batch["caps"].to("cuda"),
        torch.arange(SLOTS, device="cuda").expand_as(mask),
    )
    packed = {
        "input_ids": packing.pack(ids)[None],
        "position_ids": packing.pack(positions)[None],
    }
    for _ in range(2):  # the first step may sync
        with count_syncs() as seen:
            hidden = model.text_encoder(
                **packed, groups=packing.groups
            ).last_hidden_state
            packing.unpack(hidden[0]).sum().backward()
    assert len(seen) == 0


@pytest.mark.gpu
def test_compiled_layers_equal_eager_ones_and_compile_once() -> None:
    eager = towers().to("cuda")
    compiled = copy.deepcopy(eager)
    compile_layers(compiled, torch.device("cuda"))
    train_once(compiled, 32)
    for num in (48, 64, 80):
        with dynamo.patch(error_on_recompile=True):
            loss, gradients = train_once(compiled, num)
        wanted_loss, wanted = train_once(eager, num)
        assert abs(loss - wanted_loss) < 1e-5 * wanted_loss
        assert (gradients - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("fp32", 1e-4), ("fp16", 2e-2), ("bf16", 1e-1)]
)
def test_extracted_features_equal_the_features_of_the_cpu(
    dtype: str, tolerance: float
) -> None:
    network, _ = open_network(Path(), random_weights=True)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, 30, 224, 224, 3), dtype=np.uint8)
    rows = list(torch.from_numpy(pixels))
    on_cpu = ClipEncoder(S3DEncoder(copy.deepcopy(network)), torch.device("cpu"))
    wanted = np.concatenate([on_cpu.start([row]).result() for row in rows])
    encoder = S3DEncoder(network)
    on_gpu = ClipEncoder(encoder, torch.device("cuda"), dtype, batch_size=4)
    ours = on_gpu.start(rows).result()
    assert np.linalg.norm(ours - wanted) < tolerance * np.linalg.norm(wanted)


@pytest.mark.gpu
@needs_two
def test_features_of_the_second_gpu_equal_the_features_of_the_first() -> None:
    network, _ = open_network(Path(), random_weights=True)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (16, 30, 224, 224, 3), dtype=np.uint8)
    rows = list(torch.from_numpy(pixels))
    encoders = []
    for number in (0, 1):
        encoder = S3DEncoder(copy.deepcopy(network))
        device = torch.device("cuda", number)
        encoders.append(ClipEncoder(encoder, device, batch_size=16))
    first, second = (encoder.start(rows).result().copy() for encoder in encoders)
    np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-5)


ON_GPU = "fairseq.common.cpu=false"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", HALF)
def test_a_run_in_half_precision_trains_refreshes_and_continues(
    corpus: Path, tmp_path: Path, precision: str
) -> None:
    options = [ON_GPU, f"fairseq.common.{precision}=true", "model.compile=true"]
    log = train(
        VIDEOCLIP, corpus, tmp_path, *options, "fairseq.optimization.max_epoch=2"
    )
    losses = re.findall(r"\| valid \| epoch 00\d .*? loss ([\d.]+)", log)
    first, second = map(float, losses)
    assert second < first
    saved = load_checkpoint(tmp_path / "checkpoint_last.pt")
    assert saved["extra_state"]["train_iterator"]["epoch"] == 3
    more = "fairseq.optimization.max_epoch=3"
    assert "continuing from" in train(VIDEOCLIP, corpus, tmp_path, *options, more)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_norton_starts_in_half_precision_from_a_float32_checkpoint(
    corpus: Path, tmp_path: Path, precision: str
) -> None:
    train(VIDEOCLIP, corpus, tmp_path / "start", ON_GPU, ONE_EPOCH)
    start = (
        f"fairseq.checkpoint.restore_file={tmp_path / 'start' / 'checkpoint_last.pt'}"
    )
    options = [
        start,
        f"fairseq.common.{precision}=true",
        "loss.learnable_temperature=true",
    ]
    log = train(NORTON, corpus, tmp_path / "norton", ON_GPU, ONE_EPOCH, *options)
    terms = r"clip_caption [\d.]+ .*video_paragraph [\d.]+ .*memory_gb "
    assert re.search(rf"\| train \| .*{terms}", log)


@pytest.mark.gpu
@needs_two
def test_two_gpus_make_the_same_updates_as_one_with_twice_the_batches(
    corpus: Path, tmp_path: Path
) -> None:
    common = [ON_GPU, ONE_EPOCH, "fairseq.common.seed=5"]
    train(VIDEOCLIP, corpus, tmp_path / "two", *common, jobtype="local_small")
    train(
        VIDEOCLIP,
        corpus,
        tmp_path / "one",
        *common,
        "fairseq.optimization.update_freq=[2]",
    )
    one = load_checkpoint(tmp_path / "one" / "checkpoint_last.pt")["model"]
    two = load_checkpoint(tmp_path / "two" / "checkpoint_last.pt")["model"]
    differences = [float((one[name] - two[name]).abs().mean()) for name in one]
    assert np.mean(differences) < 1e-4


@pytest.mark.gpu
@needs_two
def test_two_gpus_gather_their_clips_as_negatives(corpus: Path, tmp_path: Path) -> None:
    options = [
        ON_GPU,
        ONE_EPOCH,
        "loss.gather_negatives=true",
        "fairseq.common.bf16=true",
    ]
    log = train(VIDEOCLIP, corpus, tmp_path, *options, jobtype="local_small")
    assert re.search(r"\| train \| .*clip_caption [\d.]+", log)
