"""Multiple choice in pictures: the questions answered wrongly with the greatest conviction."""

from __future__ import annotations

import numpy as np

from mmpt.endtasks.msrvtt_qa import QAOutputs
from mmpt.evaluators import ClipId
from mmpt.reporting.markup import Section, escape, tag
from mmpt.reporting.pictures import pictures
from mmpt.reporting.run import Run

NUM_FAILURES = 12


@pictures.register
def choice_sections(outputs: QAOutputs, run: Run) -> list[Section]:
    """Return the wrong answers by how far the chosen answer is above the right one."""
    rows = np.arange(len(outputs.answers))
    margins = outputs.scores[rows, outputs.predictions] - outputs.scores[rows, outputs.answers]
    num_wrong = int((outputs.predictions != outputs.answers).sum())
    worst = np.argsort(-margins, kind="stable")[:NUM_FAILURES]
    shown = [
        _question(outputs, run, int(row), margins[row])
        for row in worst
        if outputs.predictions[row] != outputs.answers[row]
    ]
    text = f"{num_wrong:,} of {len(rows):,} questions are answered wrongly; these by the greatest margin."
    return [Section("Worst failures", "".join(shown) or tag("p", "Every answer is right."), text)]


def _question(outputs: QAOutputs, run: Run, row: int, margin: float) -> str:
    video, (_, answers) = run.item(row)
    picture = run.frames.uri(ClipId(outputs.video_ids[row]))
    cards = [f'<figure class="card"><img src="{picture}" alt="key frame">{escape(video)}</figure>'] if picture else []
    for place, (answer, score) in enumerate(zip(answers, outputs.scores[row], strict=True)):
        chosen = "chosen, " if place == outputs.predictions[row] else ""
        words = f"<span class='rank'>{chosen}score {score:.2f}</span><br><b>{escape(answer)}</b>"
        cards.append(tag("figure", words, class_="card right" if place == outputs.answers[row] else "card"))
    head = f"{tag('span', escape(video), class_='words')} {tag('span', f'wrong by {margin:.2f}', class_='badge')}"
    return tag("article", tag("p", head) + tag("div", "".join(cards), class_="cards"), class_="query")
