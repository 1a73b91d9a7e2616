"""The report's section about multiple choice: the wrong answers, the worst first."""

import numpy as np

from mmpt.endtasks.msrvtt_qa.evaluation import QAOutputs
from mmpt.evaluators import ClipId
from mmpt.reporting.run import Run, Section

NUM_QUESTIONS = 12


def choice_sections(outputs: QAOutputs, run: Run) -> list[Section]:
    """Returns the wrong answers, sorted by how far the chosen answer scores above the right one."""
    rows = np.arange(len(outputs.answers))
    right, chosen = outputs.answers, outputs.predictions
    margins = outputs.scores[rows, chosen] - outputs.scores[rows, right]
    questions = []
    for row in np.argsort(-margins, kind="stable")[:NUM_QUESTIONS]:
        if chosen[row] != right[row]:
            video, (_, answers) = run.item(int(row))
            question = {
                "video": video,
                "frame": run.frames.uri(ClipId(outputs.video_ids[row])),
                "answers": list(zip(answers, outputs.scores[row], strict=True)),
                "chosen": chosen[row],
                "right": right[row],
                "margin": margins[row],
            }
            questions.append(question)
    num_wrong = int((chosen != right).sum())
    data = {"questions": questions, "num_questions": len(rows), "num_wrong": num_wrong}
    return [Section("Worst failures", "msrvtt_qa/choices.html", data)]
