"""Tests of loading complete, old, damaged and malicious checkpoints, also of other models."""

import argparse
import os
import re
from collections import OrderedDict

import pytest
import torch

from mmpt.errors import CheckpointError
from mmpt.models import MMFusionSeparate
from mmpt.models.checkpoint import (
    Use,
    adapt_state,
    check_checkpoint,
    check_optimizer_state,
    load_weights,
)
from mmpt.utils.artefact import weights_fingerprint
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.tiny_bert import smallest_bert_config


def fusion(seed: int = 0, layers: int = 1, **changes) -> MMFusionSeparate:
    torch.manual_seed(seed)
    sizes = {"num_hidden_layers": 2, "max_position_embeddings": 16} | changes
    config = smallest_bert_config(**sizes)
    return MMFusionSeparate(config, num_hidden_video_layers=layers, max_video_len=4)


def saved(path, model, **more):
    """Writes a checkpoint as fairseq does: weights with a prefix, settings and other entries."""
    state = OrderedDict(
        (f"mmmodel.{name}", value) for name, value in model.state_dict().items()
    )
    torch.save(
        {
            "args": None,
            "cfg": {"model": argparse.Namespace(arch="mmarch")},
            "model": state,
            **more,
        },
        path,
    )
    return path


def equal(a, b) -> bool:
    theirs = b.state_dict()
    return all(
        torch.equal(value, theirs[name]) for name, value in a.state_dict().items()
    )


@pytest.mark.parametrize(
    "wrap",
    [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": {"model": s}}],
)
@pytest.mark.parametrize("prefix", ["", "mmmodel."])
def test_weights_are_found_in_every_known_format(tmp_path, wrap, prefix, caplog):
    caplog.set_level("DEBUG")
    source, target = fusion(1), fusion(2)
    torch.save(
        wrap({prefix + name: value for name, value in source.state_dict().items()}),
        tmp_path / "c.pt",
    )
    load_weights(target, tmp_path / "c.pt")
    assert equal(target, source)
    num = len(source.state_dict())
    first = next(iter(source.state_dict()))
    renamed = f", {num} renamed (as {prefix}{first} to {first})" if prefix else ""
    assert caplog.messages == [f"{tmp_path}/c.pt: {num} tensors loaded{renamed}"]


def test_loaded_tensors_are_logged_at_info_only_in_training(caplog):
    caplog.set_level("INFO")
    source, target = fusion(1), fusion(2)
    load_weights(target, source.state_dict())
    assert caplog.messages == []
    for use in (Use.START, Use.RESUME):
        adapt_state(source.state_dict(), target, use=use)
    loaded = f"checkpoint: {len(source.state_dict())} tensors loaded"
    assert caplog.messages == [loaded, loaded]


def test_half_precision_weights_are_cast_and_logged(tmp_path, caplog):
    caplog.set_level("DEBUG")
    source, target = fusion(1).half(), fusion(2)
    load_weights(target, saved(tmp_path / "c.pt", source))
    assert equal(target, source.float())
    assert "tensors loaded, cast float16 to float32, " in caplog.text


def test_position_ids_and_old_layernorm_names_are_accepted(caplog):
    caplog.set_level("DEBUG")
    source, target = fusion(1), fusion(2)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in source.state_dict().items()
    }
    old["text_encoder.embeddings.position_ids"] = torch.arange(16)[None]
    load_weights(target, old)
    assert equal(target, source)
    assert re.search(r"renamed \(as (\S+\.LayerNorm\.)gamma to \1weight\)", caplog.text)
    assert "ignored text_encoder.embeddings.position_ids (a constant" in caplog.text


CLASSIFIER = ["video_encoder.classifier.bias", "video_encoder.classifier.weight"]
CLASSIFIER_REPORT = (
    f"{', '.join(CLASSIFIER)} (the step classifier, which only COIN models have)"
)


def coin() -> MMFusionSeparate:
    model = fusion(2)
    model.video_encoder.classifier = torch.nn.Linear(8, 5)
    return model


def test_a_new_run_may_add_or_drop_the_step_classifier(caplog):
    caplog.set_level("INFO")
    plain, target = fusion(1).half(), coin()
    given = {f"mmmodel.{name}": value for name, value in plain.state_dict().items()}
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = adapt_state(given, target, use=Use.START)
    assert f", kept the model's own {CLASSIFIER_REPORT}" in caplog.text
    assert {value.dtype for value in state.values()} == {torch.float32}
    # Neither the checkpoint nor the model is changed.
    assert all(name.startswith("mmmodel.") for name in given)
    assert all(
        torch.equal(value, before[name]) for name, value in target.state_dict().items()
    )
    target.load_state_dict(state)
    assert all(
        torch.equal(target.state_dict()[name], before[name]) for name in CLASSIFIER
    )
    assert equal(plain.float(), target)
    adapt_state(target.state_dict(), plain, use=Use.START)
    assert f", ignored {CLASSIFIER_REPORT}" in caplog.text


def test_inference_needs_a_trained_step_classifier_and_ignores_an_unused_one(caplog):
    caplog.set_level("DEBUG")
    with pytest.raises(
        CheckpointError,
        match=r"2 in the model only:\n.*video_encoder\.classifier(.*\n)*.*model_cls",
    ):
        load_weights(coin(), fusion(1).state_dict())
    load_weights(fusion(3), coin().state_dict())
    assert f", ignored {CLASSIFIER_REPORT}" in caplog.text


def test_resuming_requires_the_same_step_classifier():
    plain = fusion(1)
    for there, wanted, where in ((plain, coin(), "model"), (coin(), plain, "file")):
        with pytest.raises(CheckpointError, match=f"2 in the {where} only"):
            adapt_state(there.state_dict(), wanted, use=Use.RESUME)
    adapt_state(coin().state_dict(), coin(), use=Use.RESUME)


def test_every_difference_is_listed_with_a_similar_name():
    state = fusion().state_dict()
    state["video_encoder.videomlp.linear_1.weight"] = state.pop(
        "video_encoder.videomlp.linear1.weight"
    )
    state["text_encoder.pooler.dense.bias"] = torch.zeros(9)
    with pytest.raises(CheckpointError) as caught:
        load_weights(fusion(), state)
    message = str(caught.value)
    linear = "video_encoder.videomlp.linear"
    assert f"`{linear}1.weight` (similar to `{linear}_1.weight`)" in message
    assert "`text_encoder.pooler.dense.bias` must be (8,), but is (9,)" in message
    assert "1 in the model only" in message
    assert "1 in the file only" in message
    assert "1 of another shape" in message


def test_another_depth_is_refused_and_the_model_is_unchanged():
    target = fusion(layers=1)
    before = weights_fingerprint(target)
    with pytest.raises(
        CheckpointError,
        match=r"16 in the file only:(.*\n)*.*and 8 more\n.*num_hidden_video_layers",
    ):
        load_weights(target, fusion(1, layers=2).state_dict())
    assert weights_fingerprint(target) == before


@pytest.mark.parametrize("read", [load_checkpoint, check_checkpoint])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_code_is_refused_and_its_code_not_run(tmp_path, zipped, read):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    content = {"model": fusion().state_dict(), "extra_state": Malicious()}
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"the file asks for posix.mkdir, which could run code"
    ):
        read(tmp_path / "c.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("read", [load_checkpoint, check_checkpoint])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share, read):
    content = saved(tmp_path / "c.pt", fusion()).read_bytes()
    (tmp_path / "c.pt").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        CheckpointError, match=r"c\.pt: damaged, cut short or not a checkpoint"
    ):
        read(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must be a dict, but this is a list"),
        ({}, "this one is empty"),
        ({"epoch": 3}, "`epoch` is a int"),
    ],
)
def test_files_without_weights_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=message):
        load_weights(fusion(), tmp_path / "c.pt")


@pytest.mark.parametrize("read", [load_checkpoint, check_checkpoint])
def test_missing_and_text_files_are_refused(tmp_path, read):
    with pytest.raises(CheckpointError, match=r"no such checkpoint\. .*restore_file"):
        read(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello, this is a page that says 404")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read(tmp_path / "text.pt")


def test_fairseq_settings_are_accepted_and_other_classes_refused(tmp_path):
    settings = load_checkpoint(saved(tmp_path / "c.pt", fusion()))["cfg"]["model"]
    assert settings == argparse.Namespace(arch="mmarch")
    saved(tmp_path / "other.pt", fusion(), extra=argparse.ArgumentTypeError("x"))
    with pytest.raises(CheckpointError, match=r"asks for argparse\.ArgumentTypeError"):
        load_checkpoint(tmp_path / "other.pt")


def optimizer_state(path, sizes):
    """Writes a checkpoint after one step of Adam on parameters of these sizes.

    If `sizes` is None, the checkpoint has no optimizer state.
    """
    if sizes is None:
        torch.save({"model": {}}, path)
        return path
    trained = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    optimizer = torch.optim.Adam(trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.save({"model": {}, "last_optimizer_state": optimizer.state_dict()}, path)
    return path


@pytest.mark.parametrize(
    ("saved_sizes", "sizes", "flat", "words"),
    [
        ([2, 3], [2, 3], False, None),
        (
            [2, 3],
            [2],
            False,
            "is for 2 tensors, but 1 are trained now",
        ),
        ([5], [2, 3], True, None),
        (
            [5],
            [2],
            True,
            "is for 5 numbers, but 2 are trained now",
        ),
        # The saved run had half precision, and the current run has not.
        ([5], [2, 3], False, "is for 1 tensors, but 2 are trained now"),
        (None, [2], False, None),
    ],
)
def test_resuming_requires_the_same_trained_parameters(
    tmp_path, saved_sizes, sizes, flat, words
):
    path = optimizer_state(tmp_path / "a.pt", saved_sizes)
    trained = [torch.ones(size) for size in sizes]
    if words is None:
        check_optimizer_state(path, trained, flat=flat)
        return
    with pytest.raises(CheckpointError, match=words) as caught:
        check_optimizer_state(path, trained, flat=flat)
    assert "`model.layernorm_only`" in str(caught.value)


FIRST = "video_encoder.videomlp.linear1"


def test_training_may_start_from_a_model_for_features_of_another_width(caplog):
    caplog.set_level("INFO")
    source, target = fusion(1, input_dim=12), fusion(2, input_dim=20)
    state = adapt_state(source.state_dict(), target, "c.pt", Use.START)
    for name, value in state.items():
        kept = name in (f"{FIRST}.weight", f"{FIRST}.bias")
        expected = target if kept else source
        assert torch.equal(value, expected.state_dict()[name])
    (report,) = caplog.messages
    assert f"kept the model's own {FIRST}.bias, {FIRST}.weight (initialised" in report
    assert "features of width 12, but `model.input_dim` is 20" in report


@pytest.mark.parametrize("use", [Use.RESUME, Use.INFERENCE])
def test_another_width_of_features_is_otherwise_an_error(use):
    source, target = fusion(1), fusion(2, input_dim=20)
    with pytest.raises(CheckpointError) as caught:
        adapt_state(source.state_dict(), target, "c.pt", use)
    text = str(caught.value)
    assert text.startswith(
        "c.pt: takes features of width 512, but `model.input_dim` is 20."
    )
    assert "Set `model.input_dim: 512`" in text


def test_a_new_first_layer_must_be_trained():
    target = fusion(2, input_dim=20)
    target.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"`model.layernorm_only` is true"):
        adapt_state(fusion(1).state_dict(), target, "c.pt", Use.START)
