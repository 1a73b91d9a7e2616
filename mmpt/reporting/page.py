"""Renders sections as one HTML page, which loads no other files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from mmpt.reporting.run import Section
from mmpt.utils.io import atomic_write


def write_page(
    path: str | Path,
    title: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
) -> Path:
    """Writes sections as one HTML file that loads no other files. Returns its path.

    Args:
        title: the title of the page.
        facts: the facts above the sections, title -> text. Empty texts are not shown.
        sections: the sections, in order.
    """
    # A template of a benchmark is named with its folder, as in `coin/segments.html`.
    loader = ChoiceLoader(
        [PackageLoader("mmpt.reporting"), PackageLoader("mmpt", "endtasks")]
    )
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    bodies = []
    for section in sections:
        template = templates.get_template(section.template)
        bodies.append((section.title, template.render(section.data)))
    page = templates.get_template("report.html").render(
        title=title, facts=facts, sections=bodies
    )
    # Captions may contain lone surrogates, which JSON allows and UTF-8 does not.
    with atomic_write(path, errors="replace") as file:
        file.write(page)
    return Path(path)
