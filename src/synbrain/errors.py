"""The one error that users see: it says what is wrong and how to mend it."""

from __future__ import annotations

import errno


class SynBrainError(ValueError):
    """Bad input, told so that the user can mend it.

    The command line prints the message and exits with code 2; anything else that is raised is a
    bug and keeps its traceback.

    Args:
        problem: what is wrong, with the values that show it.
        mend: what to do about it, as an instruction.

    >>> str(SynBrainError("data/me is not a dataset", "make one with `synbrain prepare`"))
    'data/me is not a dataset: make one with `synbrain prepare`'
    """

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}: {mend}" if mend else problem)
        self.problem = problem
        self.mend = mend


class SynBrainWarning(UserWarning):
    """Something that a user should know, and that is no error; the command line prints it as a note."""


def of_os_error(error: OSError) -> SynBrainError:
    """An error of the operating system, with what to do about it.

    >>> import errno
    >>> str(of_os_error(OSError(errno.ENOSPC, "No space left on device", "out.npy")))
    'out.npy: No space left on device: free some space, or choose an output on another disk'
    """
    mends = {
        errno.EACCES: "check who may read and write there, or choose another place",
        errno.EPERM: "check who may read and write there, or choose another place",
        errno.EROFS: "the disk is read-only: choose an output elsewhere",
        errno.ENOSPC: "free some space, or choose an output on another disk",
        errno.EDQUOT: "your quota is used up: free some space, or choose an output on another disk",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "a file stands where a folder is needed: choose another path",
        errno.EISDIR: "a folder stands where a file is needed: choose another path",
        errno.EEXIST: "choose another output",
    }
    where = f"{error.filename}: " if error.filename else ""
    return SynBrainError(
        f"{where}{error.strerror or error}", mends.get(error.errno or 0, "check the path and its disk")
    )
