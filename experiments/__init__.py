"""Experiments on what Norton's loss does: one module per question.

    python -m experiments.control            # run one experiment; run it again to continue
    python -m experiments.control --plan     # list its runs and the estimated time
    python -m experiments                    # run all
    python -m experiments.report             # write the tables and figures of docs/ablations.md

An experiment is a list of arms (arms.py): overrides of a YAML of the demo, on a corpus
(corpora.py). Every arm is trained with several seeds by the commands of the project (runner.py) and
scored (measures.py). The results are appended to results.jsonl, one run per line. All files of the
runs are in runs/experiments/.
"""
