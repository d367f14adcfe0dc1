"""Texts of others as they can be shown: what turns the reading direction around, or is no sign at
all, is a mark in its place, so that a name cannot make the number behind it read backwards."""

_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")}
_MARKS = dict.fromkeys((*_DIRECTIONS, *_CONTROLS), "\N{REPLACEMENT CHARACTER}")


def plain(text: str) -> str:
    """The text with marks; a language that is written from the right needs none of what goes."""
    return text.translate(_MARKS)
