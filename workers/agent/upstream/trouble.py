"""What can go wrong with another server, by what is to be done about it.

UpstreamTrouble
├── Unreachable    nobody answers, or the server says that it cannot serve yet
├── KeyRefused     401 or 403: it wants another key
├── EndpointOff    404, 405, 501, or a redirection: it does not offer what was asked for
├── Busy           429, 503, 529: it takes nothing now
├── Broken         it failed, broke off, fell silent, or said what nobody understands
└── Refused        the request itself is at fault, and no other server would take it
"""

from __future__ import annotations

from paddler.errors import PaddlerError


class UpstreamTrouble(Exception):
    """The message says what was met. It may have words of the server in it, which may quote a prompt: it goes to the
    client, never to a log (`brief` does)."""

    def __init__(self, message: str, *, brief: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.brief = brief or message


class Unreachable(UpstreamTrouble):
    pass


class KeyRefused(UpstreamTrouble):
    pass


class EndpointOff(UpstreamTrouble):
    pass


class Busy(UpstreamTrouble):
    """`retry_after_s`: when it wants to be asked again."""

    def __init__(self, message: str, *, brief: str = "", retry_after_s: float) -> None:
        super().__init__(message, brief=brief)
        self.retry_after_s = retry_after_s


class Broken(UpstreamTrouble):
    pass


class Refused(UpstreamTrouble):
    def __init__(self, error: PaddlerError) -> None:
        super().__init__(error.message, brief=f"it refused the request ({error.code})")
        self.error = error
