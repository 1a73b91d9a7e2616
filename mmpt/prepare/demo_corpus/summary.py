"""What a demo corpus turned out to be, counted from its videos rather than from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpt.prepare.demo_corpus.video import Video

ROWS = {
    "videos": "videos",
    "hours": "hours",
    "performances": "performed steps",
    "captions": "captions",
    "words": "words",
}
SHARES = {
    "irrelevant": "captions about nothing seen",
    "misaligned": "others, said while their step is not seen",
    "silent": "performed steps without a caption",
}


def count_videos(videos: Sequence[Video]) -> dict[str, Any]:
    """Return the counts of one split; shares are of 1 and rounded to four decimals."""
    captions = [(video, caption) for video in videos for caption in video.captions]
    about = [
        (video.performances[caption.about], caption)
        for video, caption in captions
        if caption.about is not None
    ]
    apart = [
        not shown.start <= (caption.start + caption.end) / 2 <= shown.end
        for shown, caption in about
    ]
    performed = sum(len(video.performances) for video in videos)
    told = sum(len({caption.about for caption in video.captions} - {None}) for video in videos)
    return {
        "videos": len(videos),
        "hours": round(sum(video.num_seconds for video in videos) / 3600, 2),
        "performances": performed,
        "captions": len(captions),
        "words": sum(len(caption.text.split()) for _, caption in captions),
        "irrelevant": round(1 - len(about) / len(captions), 4),
        "misaligned": round(sum(apart) / max(len(apart), 1), 4),
        "silent": round(1 - told / performed, 4),
    }


def summary_rows(counts: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of a table: one per count, one column per split."""
    lines = [f"{'':<42}" + "".join(f"{split:>10}" for split in counts)]
    for key, label in ROWS.items():
        lines.append(f"{label:<42}" + "".join(f"{count[key]:>10,}" for count in counts.values()))
    for key, label in SHARES.items():
        lines.append(f"{label:<42}" + "".join(f"{count[key]:>10.1%}" for count in counts.values()))
    return lines
