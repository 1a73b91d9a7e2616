"""The number of operations against torch's own counter, for a whole training step."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmpt.models.freezing import freeze_all_but_layernorm
from mmpt.utils.device_figures import PEAK_TFLOPS, peak_tflops
from tests.support.towers import draw, towers


@pytest.mark.parametrize("frozen", [False, True])
def test_operations_of_a_step_equal_torchs_count(frozen: bool) -> None:
    model, batch = towers(packed=False, hidden_size=64, intermediate_size=96), draw(6)
    if frozen:
        freeze_all_but_layernorm(model)
    batch["cmasks"][:], batch["vmasks"][:] = True, True
    for tower in (model.video_encoder.bert, model.text_encoder):
        tower.set_attn_implementation("eager")  # torch counts plain matrix products on any device
    with FlopCounterMode(display=False) as counter:
        output = model(**batch)
        (output["pooled_video"] + output["pooled_text"]).sum().backward()
    layers = sum(
        sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name.endswith(("BertEncoder", "bert.encoder", "text_encoder.encoder"))
    )
    ours = float(model.flops(batch["cmasks"], batch["vmasks"]))
    assert ours == pytest.approx(layers, rel=0.02)
    assert float(model.flops(batch["cmasks"][None], batch["vmasks"][None])) == ours  # a whole video


def test_the_peak_of_a_cpu_is_unknown() -> None:
    assert peak_tflops(torch.device("cpu")) is None
    assert min(PEAK_TFLOPS.values()) > 0
