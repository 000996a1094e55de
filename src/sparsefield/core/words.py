"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: 1 day, 2 days, 1,000 days."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
