"""The report's section about moment retrieval: moments found and moments that people chose."""

import numpy as np

from mmpt.endtasks.didemo.data import Moment
from mmpt.endtasks.didemo.evaluation import MomentOutputs
from mmpt.endtasks.didemo.moments import MOMENTS, NUM_SECONDS, PIECE_S, agreement
from mmpt.evaluators import ClipId
from mmpt.reporting.figures import COLOURS, Bar, bars
from mmpt.reporting.run import EvaluationRun, Section

NUM_MOMENTS = 10


def moment_sections(outputs: MomentOutputs, run: EvaluationRun) -> list[Section]:
    """Returns the section about the queries whose first moment overlaps least with chosen ones."""
    ranking_NM = outputs.ranking("released")
    found = agreement(ranking_NM, outputs.times)
    # The smallest overlap comes first; among equal ones, the largest rank.
    order = np.lexsort((-found.ranks, found.ious))
    worst = order[:NUM_MOMENTS]
    queries = []
    for place in worst.tolist():
        if found.ious[place] == 1:
            continue
        best = ranking_NM[place, 0]
        rows = [_row("found", MOMENTS[best], COLOURS[1])]
        for person, moment in enumerate(outputs.times[place], start=1):
            first, last = moment.tolist()
            if first >= 0:
                rows.append(_row(f"person {person}", (first, last), COLOURS[0]))
        _, words = run.item(place)
        video = outputs.video_ids[place]
        query = {
            "words": words,
            "rank": found.ranks[place],
            "overlap": abs(found.ious[place]),
            "video": video,
            "num_seconds": outputs.num_seconds[place],
            "frame": run.frames.uri(ClipId(video)),
            "figure": bars("moments found and chosen", rows, NUM_SECONDS),
        }
        queries.append(query)
    return [Section("Worst failures", "didemo/moments.html", {"queries": queries})]


def _row(name: str, moment: Moment, colour: str) -> tuple[str, list[Bar]]:
    """Returns a row with a bar from the start of a moment's first piece to the end of its last."""
    first, last = moment
    start_s = PIECE_S * first
    end_s = PIECE_S * (last + 1)
    return name, [Bar(start_s, end_s, colour, "moment")]
