"""Multiple choice in pictures: wrong answers that score furthest above the right one."""

from __future__ import annotations

import numpy as np

from mmpt.endtasks.msrvtt_qa import QAOutputs
from mmpt.evaluators import ClipId
from mmpt.reporting.run import Run, Section, pictures

NUM_FAILURES = 12


@pictures.register
def choice_sections(outputs: QAOutputs, run: Run) -> list[Section]:
    """Returns the wrong answers by how far the chosen answer is above the right one."""
    rows = np.arange(len(outputs.answers))
    right, chosen = outputs.answers, outputs.predictions
    margins = outputs.scores[rows, chosen] - outputs.scores[rows, right]
    questions = []
    for row in np.argsort(-margins, kind="stable")[:NUM_FAILURES]:
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
    return [Section("Worst failures", "choices.html", data)]
