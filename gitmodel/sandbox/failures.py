"""How it can go wrong to have something done in a child."""

from __future__ import annotations

from gitmodel.errors import ExitCode, GitmodelError

#: The exit code of a child that had not even memory enough to say so.
NO_MEMORY = 12
#: What a child says instead of an answer that is larger than one may be.
TOO_LARGE = "answer-too-large"


class SandboxFailed(GitmodelError):
    """A child did not do what it was asked: it crashed, or was ended because it took too much."""

    code = "sandbox-failed"
    exit_code = ExitCode.INCOMPLETE


class SandboxIncomplete(GitmodelError):
    """A whole sandbox was asked for, and this machine has no whole one."""

    code = "sandbox-incomplete"
    exit_code = ExitCode.INCOMPLETE


class OutOfMemory(GitmodelError):
    """A request needed more memory than the child may have."""

    code = "out-of-memory"
    exit_code = ExitCode.INCOMPLETE


class Refused(Exception):
    """The function raised an error of its own: ``code`` is a GitmodelError's, or empty."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
