"""The report's section about multiple choice: the wrong answers, the worst first."""

import numpy as np

from mmpt.endtasks.msrvtt_qa.evaluation import QAOutputs
from mmpt.evaluators import ClipId
from mmpt.reporting.run import EvaluationRun, Section

NUM_QUESTIONS = 12


def choice_sections(outputs: QAOutputs, run: EvaluationRun) -> list[Section]:
    """Returns the wrong answers, sorted by how far the chosen answer scores above the right one."""
    right, chosen = outputs.answers, outputs.predictions
    rows = np.arange(len(right))
    chosen_scores = outputs.scores[rows, chosen]
    right_scores = outputs.scores[rows, right]
    margins = chosen_scores - right_scores
    wrong = chosen != right
    worst = np.argsort(-margins, kind="stable")[:NUM_QUESTIONS]
    questions = []
    for row in worst[wrong[worst]].tolist():
        video, (_, answers) = run.item(row)
        clip = ClipId(outputs.video_ids[row])
        question = {
            "video": video,
            "frame": run.frames.uri(clip),
            "answers": list(zip(answers, outputs.scores[row], strict=True)),
            "chosen": chosen[row],
            "right": right[row],
            "margin": margins[row],
        }
        questions.append(question)
    data = {
        "questions": questions,
        "num_questions": len(wrong),
        "num_wrong": int(wrong.sum()),
    }
    return [Section("Worst failures", "msrvtt_qa/choices.html", data)]
