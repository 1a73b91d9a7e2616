"""Fixtures: a small corpus, which the project's own command makes once per test session, and the
default handling of signals, because tests send some.
"""

import json
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")


def pytest_configure() -> None:
    """Ignore what nohup or a script's `&` has us ignore in a way that the commands of tests do not
    inherit.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU on a machine without one."""
    if item.get_closest_marker("gpu"):
        import torch  # late: most single tests start faster without it

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 training and 8 validation videos with a BERT of width 32, two layers and no dropout."""
    from mmpt.cli import make_demo_data

    out = tmp_path_factory.mktemp("corpus") / "demo"
    sizes = ["--num-videos", "32", "--num-val", "8", "--shard-size", "20"]
    assert make_demo_data.main(["--out", str(out), "--seed", "3", *sizes]) == 0
    config_path = out / "bert" / "config.json"
    bert = json.loads(config_path.read_text())
    bert |= {"hidden_size": 32, "intermediate_size": 64}
    bert |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    bert |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config_path.write_text(json.dumps(bert))
    return out
