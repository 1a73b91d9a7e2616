"""HTML by hand: escaped text, sections and the page around them; one file that loads nothing and runs no script."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# A file on disk may show its own pictures and styles, and nothing else: the browser enforces it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Section(NamedTuple):
    """A part of a report."""

    title: str
    body: str
    """HTML."""
    intro: str = ""
    """Plain text under the title."""


def escape(text: object) -> str:
    """Return `text` fit for HTML, also inside of attributes."""
    return html.escape(str(text), quote=True)


def shorten(text: str, most: int) -> str:
    """Return `text` cut to at most `most` characters, plain."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def tag(name: str, content: str = "", **attributes: object) -> str:
    """Return `<name ...>content</name>`; `content` is HTML, attributes are escaped (`class_` is `class`)."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{content}</{name}>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], class_: str = "") -> str:
    """Return a table of HTML cells; the first cell of a row is its heading."""
    head = tag("tr", "".join(tag("th", cell, scope="col") for cell in header))
    body = "".join(
        tag("tr", tag("th", first, scope="row") + "".join(tag("td", cell) for cell in rest)) for first, *rest in rows
    )
    return tag("div", tag("table", tag("thead", head) + tag("tbody", body), class_=class_), class_="scroll")


def note(text: str) -> str:
    """Return a small paragraph of plain text."""
    return tag("p", escape(text), class_="note")


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the whole document.

    Args:
        title: plain text.
        lead: HTML below the title.
        sections: in order; the page begins with links to them.
    """
    links = "".join(tag("a", escape(s.title), href=f"#s{place}") for place, s in enumerate(sections))
    parts = "".join(
        tag("section", tag("h2", escape(s.title)) + (note(s.intro) if s.intro else "") + s.body, id=f"s{place}")
        for place, s in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body><header><h1>{escape(title)}</h1>{lead}</header><nav>{links}</nav><main>{parts}</main></body></html>\n"
    )


_STYLE = """
:root { --ink:#1f2933; --soft:#616e7c; --line:#dde3ea; --ground:#f5f7fa; --good:#15803d; --bad:#b91c1c; --mark:#2563eb }
* { box-sizing:border-box }
body { margin:0 auto; max-width:1200px; padding:24px; color:var(--ink); background:var(--ground);
  font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif }
h1 { font-size:26px; margin:0 0 4px } h2 { font-size:20px; margin:0 0 4px } h3 { font-size:16px; margin:18px 0 6px }
header dl { display:grid; grid-template-columns:max-content 1fr; gap:2px 16px; margin:10px 0 0 }
dt { color:var(--soft) } dd { margin:0; overflow-wrap:anywhere }
nav { display:flex; flex-wrap:wrap; gap:8px; margin:16px 0 }
nav a { padding:4px 12px; border:1px solid var(--line); border-radius:99px; background:#fff; color:var(--mark);
  text-decoration:none }
section { background:#fff; border:1px solid var(--line); border-radius:10px; padding:18px 20px; margin:0 0 18px }
.note { color:var(--soft); margin:2px 0 12px; max-width:95ch }
.warning { background:#fef3c7; border:1px solid #f59e0b; border-radius:6px; padding:6px 12px; margin:8px 0 }
.scroll { overflow-x:auto }
table { border-collapse:collapse; font-variant-numeric:tabular-nums }
th, td { padding:4px 14px; text-align:right; border-bottom:1px solid var(--line); font-weight:400; white-space:nowrap }
thead th { color:var(--soft); font-weight:600; vertical-align:bottom }
th:first-child { text-align:left; padding-left:0 } td.plain { white-space:normal; text-align:left }
.charts { display:flex; flex-wrap:wrap; gap:14px }
svg text { font-family:inherit } svg { max-width:100%; height:auto; display:block }
.query { border-top:1px solid var(--line); padding:12px 0 } .query:first-of-type { border-top:0 }
.query > p { margin:0 0 8px }
.scroll + .note, .scroll + details { margin-top:10px }
.words, .card b { unicode-bidi:isolate }
.words { font-weight:600; overflow-wrap:anywhere } .where, .rank { color:var(--soft); font-size:13px }
.badge { display:inline-block; border-radius:99px; padding:0 9px; font-size:13px; color:#fff; background:var(--bad) }
.badge.good { background:var(--good) } .badge.near { background:#b45309 }
.cards { display:grid; grid-template-columns:repeat(auto-fill,minmax(165px,1fr)); gap:10px }
.card { margin:0; border:1px solid var(--line); border-radius:8px; padding:8px 10px; font-size:13px; overflow:hidden;
  overflow-wrap:anywhere }
.card.right { border:2px solid var(--good); background:#f0fdf4 } .card b { font-weight:600 }
.frame { display:block; width:185px; border-radius:5px; margin:0 0 6px }
.card img { display:block; width:100%; aspect-ratio:16/9; object-fit:cover; border-radius:5px;
  margin-bottom:6px }
.legend { display:flex; flex-wrap:wrap; gap:4px 14px; font-size:13px; margin:6px 0 }
.legend i { display:inline-block; width:12px; height:12px; border-radius:3px; margin-right:5px; vertical-align:-1px }
@media print { body { background:#fff; padding:0 } nav { display:none } section { break-inside:avoid } }
""".replace("\n", " ")
