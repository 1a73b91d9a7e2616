"""The tests mirror the package: `mmpt/a/b.py` is tested by `tests/a/test_b.py`, or listed here."""

from tests.support.paths import ROOT

# Folders of tests/ that belong to no package of mmpt/.
OTHERS = {"benchmarks", "docs", "e2e", "experiments", "parity", "support"}

# Modules without a test file of their name, and where they are tested instead.
ELSEWHERE = {
    # Names, types and plain values.
    "batch.py": "names of fields and splits; used by the tests of every aligner",
    "train.py": "runs cli/rank.py; tested by e2e/test_launching.py",
    "registry.py": "tested by tasks/test_task.py with the classes that YAMLs name",
    "evaluators/base.py": "base classes; tested by evaluators/test_evaluator.py",
    "losses/base.py": "base class; tested by losses/test_nce.py and parity/test_losses.py",
    "processors/base.py": "base classes; tested by processors/test_how2.py",
    "prepare/demo_corpus/settings.py": "settings; tested by prepare/demo_corpus/test_corpus.py",
    "reporting/page.py": "tested by reporting/test_report.py",
    "reporting/run.py": "plain classes; tested by reporting/test_report.py",
    # Commands, tested together with the package that does their work.
    "cli/check.py": "tested by prepare/check/test_dataset_check.py",
    "cli/finding.py": "a plain class; tested by cli/test_doctor.py",
    "cli/output.py": "tested by cli/test_doctor.py, which prints a table",
    "cli/dedup.py": "tested by prepare/captions/test_dedup.py",
    "cli/extract.py": "tested by prepare/features/test_extraction.py",
    "cli/extract_options.py": "tested by prepare/features/test_extraction.py",
    "cli/index.py": "tested by cli/test_search.py, which builds what it searches",
    "cli/make_demo_data.py": "tested by prepare/demo_corpus/test_corpus.py",
    "cli/pack.py": "tested by prepare/shards/test_packing.py",
    "cli/prepare_options.py": "tested by cli/test_prepare.py and test_prepare_features.py",
    "cli/result_tables.py": "tested by cli/test_compare.py",
    "cli/scoring_checks.py": "tested by cli/test_scoring.py",
    "cli/tokenize.py": "tested by prepare/captions/test_pretokenise.py",
    "processors/dedupprocessor.py": "runs `mmpt dedup`; tested by prepare/captions/test_dedup.py",
    # Parts of a larger module, tested through it.
    "config/checks.py": "tested by config/test_loader.py, which expects every message",
    "config/mistakes.py": "tested by config/test_loader.py and test_schema.py",
    "config/run.py": "tested by config/test_loader.py",
    "endtasks/coin/report.py": "tested by reporting/test_report.py",
    "endtasks/crosstask/report.py": "tested by reporting/test_report.py",
    "endtasks/didemo/report.py": "tested by reporting/test_report.py",
    "endtasks/msrvtt_qa/data.py": "tested by endtasks/msrvtt/test_data.py, on the same files",
    "endtasks/msrvtt_qa/evaluation.py": "tested by endtasks/msrvtt/test_data.py",
    "endtasks/msrvtt_qa/report.py": "tested by reporting/test_report.py",
    "endtasks/didemo/moments.py": "tested by endtasks/didemo/test_evaluation.py",
    "inference/embedding.py": "tested by inference/test_mmptmodel.py and test_inputs.py",
    "inference/index_folder.py": "tested by inference/test_moment_writer.py",
    "inference/pretrained.py": "tested by inference/test_mmptmodel.py",
    "inference/video_features.py": "tested by inference/test_mmptmodel.py and test_inputs.py",
    "inference/videos.py": "tested by inference/test_inputs.py",
    "media/clip_stream.py": "tested by media/test_video_reader.py",
    "media/frame_graph.py": "tested by media/test_video_reader.py",
    "media/encoders.py": "tested by prepare/features/test_encoders.py, with `mmpt extract`",
    "media/custom_encoder.py": "tested by prepare/features/test_custom_encoder.py",
    "media/s3d_layers.py": "tested by media/test_s3d.py and parity/test_s3d.py",
    "models/mismatch.py": "tested by models/test_checkpoint.py",
    "prepare/user_data/captions.py": "tested by cli/test_prepare.py, with the whole command",
    "prepare/user_data/features.py": "tested by cli/test_prepare_features.py",
    "prepare/captions/caption_list.py": "tested by prepare/captions/test_reader.py",
    "prepare/captions/corpus.py": "tested by prepare/captions/test_dedup.py",
    "prepare/captions/cue.py": "tested by prepare/captions/test_scrolling.py",
    "prepare/captions/cue_comparison.py": "tested by prepare/captions/test_scrolling.py",
    "prepare/captions/timing.py": "tested by prepare/captions/test_subtitles.py",
    "prepare/check/shard_captions.py": "tested by prepare/check/test_dataset_check.py",
    "prepare/check/shard_features.py": "tested by prepare/check/test_plausible.py",
    "prepare/check/shard_report.py": "tested by prepare/check/test_dataset_check.py",
    "prepare/check/shard_reader.py": "tested by prepare/check/test_dataset_check.py",
    "prepare/check/statistics.py": "tested by prepare/check/test_dataset_check.py",
    "prepare/demo_corpus/narration.py": "tested by prepare/demo_corpus/test_video.py",
    "prepare/demo_corpus/words.py": "tested by prepare/demo_corpus/test_corpus.py",
    "prepare/demo_corpus/world.py": "tested by prepare/demo_corpus/test_video.py",
    "prepare/download/catalogue.py": "tested by prepare/download/test_downloader.py",
    "prepare/download/contents.py": "tested by prepare/download/test_downloader.py",
    "prepare/features/encoder_run.py": "tested by prepare/features/test_extraction.py",
    "prepare/features/feature_files.py": "tested by prepare/features/test_extraction_breaks.py",
    "prepare/shard_jobs.py": "tested by prepare/shards/test_packing_breaks.py",
    "processors/tensorise.py": "tested by processors/test_aligner.py",
    "reporting/retrieval.py": "tested by reporting/test_report.py and test_alignments.py",
    "reporting/timelines.py": "tested by reporting/test_report.py",
    "shards/writer.py": "tested by prepare/shards/test_packing.py",
    "utils/checkpoint_file.py": "tested by models/test_checkpoint.py",
    "utils/tables.py": "tested by evaluators/test_table.py",
    "utils/workers.py": "tested by utils/test_killed.py and prepare/shards/test_packing_breaks.py",
}

MODULES = {
    path.relative_to(ROOT / "mmpt")
    for path in (ROOT / "mmpt").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
}


def test_every_module_has_a_test_file_of_its_name_or_is_listed() -> None:
    without = set()
    for module in MODULES:
        if not (ROOT / "tests" / module.with_name(f"test_{module.name}")).is_file():
            without.add(module.as_posix())
    assert without == set(ELSEWHERE), "of one side only: " + str(
        without ^ set(ELSEWHERE)
    )


def test_every_folder_of_tests_is_one_of_the_package() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        is_other = folder.parts[:1] and folder.parts[0] in OTHERS
        assert is_other or (ROOT / "mmpt" / folder).is_dir(), path
