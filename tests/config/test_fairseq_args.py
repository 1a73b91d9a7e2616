"""fairseq_flags against argv written by hand."""

from mmpt.config import RunConfig
from mmpt.config.fairseq_args import RESUME_DROPS, fairseq_flags


def flags(options, **kwargs):
    return fairseq_flags(RunConfig(fairseq={"optimization": options}), **kwargs)


def test_values():
    assert flags({"lr": [1e-05], "adam_betas": "(0.9, 0.98)"}) == [
        "--lr",
        "1e-05",
        "--adam-betas",
        "(0.9, 0.98)",
    ]
    assert flags({"adam_betas": [0.9, 0.98]}) == ["--adam-betas", "(0.9, 0.98)"]
    assert flags({"clip_norm": 2.0, "max_epoch": 6}) == ["--clip-norm", "2.0", "--max-epoch", "6"]
    assert flags({"update_freq": [4]}) == ["--update-freq", "[4]"]


def test_only_true_switches_and_set_values_give_flags():
    assert flags({"sentence_avg": False, "use_bmuf": True, "max_update": None}) == ["--use-bmuf"]


def test_order_of_groups_and_keys_is_kept():
    fairseq = {"checkpoint": {"save_dir": "b", "restore_file": "a"}, "common": {"seed": 1}}
    expected = ["--save-dir", "b", "--restore-file", "a", "--seed", "1"]
    assert fairseq_flags(RunConfig(fairseq=fairseq)) == expected


def test_leaving_out():
    fairseq = {"checkpoint": {"save_dir": "b", "restore_file": "a", "reset_optimizer": True}}
    assert fairseq_flags(RunConfig(fairseq=fairseq), without=RESUME_DROPS) == ["--save-dir", "b"]
