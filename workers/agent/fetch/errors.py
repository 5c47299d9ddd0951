"""Why the files of a model are not there."""

from __future__ import annotations

from paddler.engine import ModelError
from paddler.issues import Issue, IssueKind, course_of, issue_of
from paddler.remedies import Course


class FetchError(ModelError):
    """`course` is what is done about it, if not what is usual for this kind. `asked_s`: the server does not want to be
    asked again any sooner. `lock_path` is the lock that another process holds."""

    def __init__(
        self,
        kind: IssueKind,
        message: str,
        *,
        course: Course | None = None,
        asked_s: float | None = None,
        lock_path: str = "",
    ) -> None:
        super().__init__(message, kind=kind)
        self.course = course or course_of(kind)
        self.asked_s = asked_s
        self.lock_path = lock_path


class Stopped(Exception):
    """Nobody wants these files any more."""


def issue_of_error(error: ModelError, model_path: str) -> Issue:
    """For an agent that stays up. `model_path` is how the model is called where issues are shown."""
    if isinstance(error, FetchError):
        lock = error.lock_path
        return issue_of(error.kind, str(error), model_path, waits=True, course=error.course, lock_path=lock)
    return issue_of(error.kind, str(error), model_path, waits=True)
