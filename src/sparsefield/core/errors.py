"""The errors a user can cause; the command line prints them as one line, without a traceback."""


class InputError(ValueError):
    """Bad input: the message says in one line what was wrong, where, and what to do.

    Args:
        message: The message. Line ends, which names from a file may hold, become spaces.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(str(message).split()))


def unknown_name(kind: str, name: str, choices: list[str]) -> InputError:
    """Return the error for a name that is in no registry, listing what is."""
    return InputError(f"unknown {kind} '{name}'; choose one of: {', '.join(sorted(choices))}")
