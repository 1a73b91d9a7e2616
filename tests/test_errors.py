"""Parts of messages of other packages, which our messages quote."""

from mmpt.errors import first_line


def test_the_first_line_has_no_terminal_escapes() -> None:
    assert first_line(ValueError("\n\x1b[1mbold\x1b[0m text\nmore")) == "bold text"
    assert first_line(ValueError("\x1b[0;31m\x1b[0m")) == "ValueError"
