"""A text as it is learnt from and predicted: one spelling of each sign, one kind of line end, no blanks around it."""

from unicodedata import normalize


def clean_text(text: str) -> str:
    """In Unicode's normal form NFC, with line ends as \\n, without blanks, byte order marks and the like around it."""
    lines = normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    return "" if is_empty(lines) else lines.strip().strip("\ufeff").strip()


def is_empty(text: str) -> bool:
    """Whether nothing of it can be seen: blanks and signs without a shape."""
    return not any(sign.isprintable() and not sign.isspace() for sign in text)
