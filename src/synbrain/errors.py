"""The one error that users see: it says what is wrong and how to mend it."""

from __future__ import annotations


class SynBrainError(ValueError):
    """Bad input, told so that the user can mend it.

    The command line prints the message and exits with code 2; anything else that is raised is a
    bug and keeps its traceback.

    Args:
        problem: what is wrong, with the values that show it.
        mend: what to do about it, as an instruction.
    """

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}: {mend}" if mend else problem)
        self.problem = problem
        self.mend = mend
