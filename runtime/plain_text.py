"""Texts that another made, for a terminal."""


def plain(text: str) -> str:
    """The text with every control character and other one that is not printable spelt out."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
