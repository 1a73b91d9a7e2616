"""The count of operations against torch's own counter on whole steps."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from mmpt.models import MMFusionSeparate
from mmpt.models.freezing import freeze_all_but_layernorm
from mmpt.utils.peak import PEAK_TFLOPS, peak_tflops


@pytest.mark.parametrize("frozen", [False, True])
def test_operations_of_a_step_are_those_that_torch_counts(frozen: bool) -> None:
    config = BertConfig(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=96,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = MMFusionSeparate(config, num_hidden_video_layers=2, max_video_len=9)
    if frozen:
        freeze_all_but_layernorm(model)
    num, seconds, slots = 6, 9, 12
    batch = {
        "caps": torch.randint(0, 50, (num, slots)),
        "cmasks": torch.ones(num, slots, dtype=torch.bool),
        "vfeats": torch.randn(num, seconds, 512),
        "vmasks": torch.ones(num, seconds, dtype=torch.bool),
    }
    for tower in (model.video_encoder.bert, model.text_encoder):
        tower.set_attn_implementation("eager")  # torch counts plain matrix products on any device
    with FlopCounterMode(display=False) as counter:
        output = model(**batch)
        (output["pooled_video"] + output["pooled_text"]).sum().backward()
    layers = sum(
        sum(counter.get_flop_counts()[name].values())
        for name in counter.get_flop_counts()
        if name.endswith(("BertEncoder", "bert.encoder", "text_encoder.encoder"))
    )
    ours = float(model.flops(batch["cmasks"], batch["vmasks"]))
    assert ours == pytest.approx(layers, rel=0.02)
    assert float(model.flops(batch["cmasks"][None], batch["vmasks"][None])) == ours  # a whole video


def test_the_peak_of_a_cpu_is_not_known() -> None:
    assert peak_tflops(torch.device("cpu")) is None
    assert min(PEAK_TFLOPS.values()) > 0
