"""Git hooks: installed and removed, and what they do when Git calls them."""

from gitmodel.hooks.sending import before_push
from gitmodel.hooks.shims import LOCAL, SERVER, HookStatus, WrongRepository, install, is_ours, status, uninstall
from gitmodel.hooks.telling import LOCAL_WAIT, PUSH_WAIT, Say, after_receive, after_tag

__all__ = [
    "LOCAL",
    "LOCAL_WAIT",
    "PUSH_WAIT",
    "SERVER",
    "HookStatus",
    "Say",
    "WrongRepository",
    "after_receive",
    "after_tag",
    "before_push",
    "install",
    "is_ours",
    "status",
    "uninstall",
]
