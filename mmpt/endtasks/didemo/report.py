"""The report's section about moment retrieval: moments found and moments that people chose."""

import numpy as np

from mmpt.endtasks.didemo.evaluation import MomentOutputs
from mmpt.endtasks.didemo.moments import MOMENTS, NUM_SECONDS, PIECE_S, agreement
from mmpt.evaluators import ClipId
from mmpt.reporting.figures import COLOURS, Bar, bars
from mmpt.reporting.run import Run, Section

NUM_MOMENTS = 10


def moment_sections(outputs: MomentOutputs, run: Run) -> list[Section]:
    """Returns the descriptions whose first moment overlaps least with the chosen moments."""
    ranking_NM = outputs.ranking("released")
    found = agreement(ranking_NM, outputs.times)
    worst = np.lexsort((-found.ranks, found.ious))[:NUM_MOMENTS]
    queries = []
    for place in worst[found.ious[worst] < 1].tolist():
        times = [time for time in outputs.times[place].tolist() if time[0] >= 0]
        moments = [("found", MOMENTS[ranking_NM[place, 0]], COLOURS[1])]
        moments += [(f"person {n}", time, COLOURS[0]) for n, time in enumerate(times, 1)]
        rows = [
            (name, [Bar(PIECE_S * pieces[0], PIECE_S * (pieces[-1] + 1), colour, "moment")])
            for name, pieces, colour in moments
        ]
        video = outputs.video_ids[place]
        query = {
            "words": run.item(place)[1],
            "rank": found.ranks[place],
            "overlap": abs(found.ious[place]),
            "video": video,
            "num_seconds": outputs.num_seconds[place],
            "frame": run.frames.uri(ClipId(video)),
            "figure": bars("moments found and chosen", rows, NUM_SECONDS),
        }
        queries.append(query)
    return [Section("Worst failures", "didemo/moments.html", {"queries": queries})]
