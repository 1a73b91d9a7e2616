"""A small corpus, made once per test session by the project's own script; signals that tests send
are heeded.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def pytest_configure() -> None:
    """Ignore what nohup or a script's `&` has us ignore in a way that the commands of tests do not
    inherit.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 training and 8 validation videos with a BERT of width 32, two layers and no dropout."""
    out = tmp_path_factory.mktemp("corpus") / "demo"
    sizes = ["--num-videos", "32", "--num-val", "8", "--shard-size", "20"]
    command = [sys.executable, "scripts/make_demo_data.py", "--out", str(out), "--seed", "3"]
    subprocess.run([*command, *sizes], cwd=ROOT, check=True, capture_output=True)
    config_path = out / "bert" / "config.json"
    bert = json.loads(config_path.read_text())
    bert |= {"hidden_size": 32, "intermediate_size": 64}
    bert |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    bert |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config_path.write_text(json.dumps(bert))
    return out
