"""What can go wrong with Git, in one line each, by Git's own words."""

from __future__ import annotations

from gitmodel.errors import ExitCode, GitmodelError

#: How Git says that it does not know who commits.
_NOBODY = ("tell me who you are", "unable to auto-detect email", "empty ident name", "auto-detection is disabled")


class NotARepository(GitmodelError):
    """The folder is in no Git repository."""

    code = "not-a-repository"


class UnknownRevision(GitmodelError):
    """Git knows no such commit, branch or tag."""

    code = "unknown-revision"


class GitFailed(GitmodelError):
    """Git refused; the message carries its own words."""

    code = "git-failed"
    exit_code = ExitCode.INCOMPLETE


def failed(command: str, stderr: str) -> GitFailed:
    """What a Git command wrote to stderr, as an error."""
    text = stderr.strip().removeprefix("stderr:").strip().strip("'").strip()
    if "index.lock" in text:
        return GitFailed("another Git process holds index.lock", hint="wait for it, or remove a stale .git/index.lock")
    if any(words in text for words in _NOBODY):
        return GitFailed("Git does not know your name", hint="run 'git config user.name' and 'git config user.email'")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("hint:")]
    return GitFailed(
        f"git {command} failed ({'; '.join(lines[:3]) or 'no message'})", hint="mend what Git names and run again"
    )
