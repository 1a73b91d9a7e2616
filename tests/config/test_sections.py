"""The keys of a section belong to the classes that the YAML names."""

import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mmpt.config import (
    DatasetConfig,
    LossConfig,
    ModelConfig,
    RunConfig,
    load_config,
    save_resolved,
)
from mmpt.config.sections import (
    READERS,
    SHIPPED,
    config_of,
    joined,
    readers_of,
    resolve_name,
)
from mmpt.errors import ConfigError
from mmpt.losses import Loss
from mmpt.models import MODELS, MMFusionSeparate
from mmpt.processors import (
    DSAligner,
    MetaProcessor,
    OverlappedAligner,
    VariedLenAligner,
)
from mmpt.tasks import TASKS

TRAINING = "projects/retri/norton/how2_pretrain.yaml"
TEST = "projects/retri/norton/test_vtt_zs.yaml"


class OwnAligner(DSAligner):
    """A user-defined aligner with a key."""

    class Config(DatasetConfig):
        shift_s: int = 3
        """Seconds."""


class OwnMeta(MetaProcessor):
    """A user-defined meta processor with another key."""

    class Config(DatasetConfig):
        column: str | None = None
        """Name."""


class OwnLoss(Loss):
    """A user-defined loss."""

    class Config(LossConfig):
        margin: float = 0.5
        """Difference of scores."""


class OwnModel(MMFusionSeparate):
    """A user-defined model."""

    class Config(ModelConfig):
        depth: int = 1
        """Number of layers."""


class NoDefault(DSAligner):
    """An aligner with a key that has no default."""

    class Config(DatasetConfig):
        wanted: int
        """Number."""


class Broken(DSAligner):
    """An aligner whose keys do not extend the shared keys."""

    Config = dict  # type: ignore[assignment]


PARTS = (OwnAligner, OwnMeta, OwnLoss, OwnModel, NoDefault, Broken)


@pytest.fixture(autouse=True)
def _own_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_parts")
    vars(module).update({each.__name__: each for each in PARTS})
    monkeypatch.setitem(sys.modules, "own_parts", module)


def load(*overrides: str, base: str = TEST) -> RunConfig:
    return load_config(base, overrides, import_fairseq=False)


def problems_of(*overrides: str, base: str = TEST) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*overrides, base=base)
    return caught.value.problems


OWN = (
    "dataset.aligner=own_parts.OwnAligner",
    "dataset.meta_processor=own_parts.OwnMeta",
)


def test_a_section_is_the_config_of_every_class_that_reads_it() -> None:
    dataset: Any = load(*OWN, "dataset.shift_s=4", "dataset.column=a").dataset
    assert isinstance(dataset, OwnAligner.Config)
    assert isinstance(dataset, OwnMeta.Config)
    assert (dataset.shift_s, dataset.column) == (4, "a")
    loss: Any = load("loss.loss_cls=own_parts.OwnLoss", "loss.margin=0.1").loss
    assert isinstance(loss, OwnLoss.Config)
    assert loss.margin == 0.1


def test_keys_of_a_user_defined_class_have_defaults_and_are_checked() -> None:
    dataset: Any = load(*OWN, "dataset.shift_s=null").dataset
    assert (dataset.shift_s, dataset.column) == (3, None)
    assert problems_of(
        *OWN, "dataset.shift_s=far", "dataset.colum=a", "dataset.max_len=x"
    ) == [
        "`dataset.max_len` must be a whole number, but is 'x'.",
        "`dataset.shift_s` must be a whole number, but is 'far'.",
        "`dataset.colum` is not a known key. Did you mean `column`?",
    ]


def test_a_saved_file_is_read_back_as_the_same_settings(tmp_path: Path) -> None:
    config = load(*OWN, "dataset.shift_s=4")
    save_resolved(config, tmp_path / "config.yaml")
    again = load(base=str(tmp_path / "config.yaml"))
    assert again.dataset == config.dataset


def test_a_section_can_be_pickled() -> None:
    aligner = "dataset.aligner=COINActionSegmentationAligner"
    dataset = load(aligner, "dataset.sliding_window=4").dataset
    assert pickle.loads(pickle.dumps(dataset)) == dataset


def test_the_error_for_a_key_of_another_class_names_its_readers() -> None:
    assert problems_of("dataset.n_train=3", "dataset.max_ln=3") == [
        "`dataset.n_train` is a key of `CrossTaskMetaProcessor`, but this file names no such "
        "class; leave the key out, or set it to null.",
        "`dataset.max_ln` is not a known key. Did you mean `max_len`?",
    ]
    (problem,) = problems_of("dataset.sliding_window=3")
    assert (
        "is a key of `COINActionSegmentationAligner`, `COINPredictor` and 5 more,"
        in problem
    )


def test_null_unsets_a_key_of_an_included_file() -> None:
    sampled = [f"dataset.sampled_video_{end}_len" for end in ("min", "max")]
    override = "dataset.aligner=VideoRetriAligner"
    assert len(problems_of(override, base=TRAINING)) == 2
    load(override, *(f"{key}=null" for key in sampled), base=TRAINING)


def test_keys_of_an_unknown_class_are_accepted() -> None:
    """The unknown name is the mistake. It is reported when the classes are built."""
    dataset: Any = load("dataset.aligner=MyAligner", "dataset.my_key=3").dataset
    assert dataset.my_key == 3
    (problem,) = problems_of("dataset.aligner=3", "dataset.sliding_window=3")
    assert problem == "`dataset.aligner` must be text, but is 3."


def test_a_missing_loss_section_is_none() -> None:
    assert load().loss is None


def test_a_config_must_extend_the_shared_keys() -> None:
    (problem,) = problems_of("dataset.aligner=own_parts.Broken")
    assert problem.startswith(
        "`Broken.Config` must be a subclass of `mmpt.config.DatasetConfig`, "
    )


def test_every_key_must_have_a_default() -> None:
    (problem,) = problems_of("dataset.aligner=own_parts.NoDefault")
    assert problem.startswith(
        "`NoDefault.Config` must have a default for each key, such as None"
    )


def test_joined_sections_omit_classes_that_others_extend() -> None:
    configs = (DatasetConfig, VariedLenAligner.Config, OverlappedAligner.Config)
    assert joined(*configs) is OverlappedAligner.Config
    both = joined(OwnAligner.Config, OwnMeta.Config)
    assert both is joined(OwnAligner.Config, OwnMeta.Config)
    assert {"shift_s", "column", "bert_name"} <= both.model_fields.keys()


def test_every_key_of_a_class_is_described_by_a_sentence() -> None:
    for section, registries in READERS.items():
        for place in registries.values():
            registry = resolve_name(place)
            for name in list(registry):
                fields = config_of(section, registry.get(name, section)).model_fields
                for key, field in fields.items():
                    assert (field.description or "").endswith("."), f"{name}: {key}"


def test_the_table_of_shipped_sections_is_complete() -> None:
    declared: dict[str, dict[str, Any]] = {"task": {}, "model.model_cls": {}}
    for name in list(TASKS):
        declared["task"][name] = TASKS.get(name, "task").Config
    for name in list(MODELS):
        declared["model.model_cls"][name] = config_of(
            "model", MODELS.get(name, "model")
        )
    for key, configs in SHIPPED.items():
        found = {name: resolve_name(place) for name, place in configs.items()}
        assert found == declared[key]


def test_a_user_defined_model_may_have_keys() -> None:
    model: Any = load("model.model_cls=own_parts.OwnModel", "model.depth=2").model
    assert model.depth == 2
    (problem,) = problems_of("model.depth=2")
    assert problem.startswith("`model.depth` is not a known key.")


@pytest.mark.spawn
def test_reading_a_yaml_does_not_import_transformers() -> None:
    program = (
        "import sys; from mmpt.config import load_config; "
        f"load_config({TRAINING!r}); load_config({TEST!r}); "
        "from mmpt.config.sections import readers_of; assert readers_of('dataset', 'n_train'); "
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr


def test_all_classes_read_a_shared_key() -> None:
    assert "DSAligner" in readers_of("dataset", "bert_name")
    assert readers_of("dataset", "n_train") == ["CrossTaskMetaProcessor"]
    assert readers_of("dataset", "nobody") == []
