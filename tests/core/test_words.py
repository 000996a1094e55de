"""Numbers agree with their nouns."""

from sparsefield.core.words import counted


def test_one_is_alone():
    words = [counted(n, "day") for n in (0, 1, 2, 1000)]
    assert words == ["0 days", "1 day", "2 days", "1,000 days"]
