"""A desired state in a file, in Paddler 4's form: `{"balancer_desired_state": {...}, "version": "1"}`.

Written whole beside the file and renamed over it, so that whoever reads finds the old or the new one, also after a
crash.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, cast

import msgspec

from paddler.desired.document import MAX_STATE, document_of, state_from
from paddler.desired.schema import BalancerDesiredState
from paddler.errors import InvalidField

FORM = "1"
"""The version of the form, not of the state."""


class UnusableFile(Exception):
    """The message says what is wrong with the file and what to do."""


class StateFile:
    def __init__(self, path: Path) -> None:
        # What a link points to is written, not the link.
        self.path = path.resolve()

    def load(self) -> BalancerDesiredState | None:
        """None: there is none yet, or it is empty. Raises `UnusableFile`."""
        try:
            with self.path.open("rb") as file:
                data = file.read(2 * MAX_STATE)
        except FileNotFoundError:
            self._check_folder()
            return None
        except OSError as error:
            raise UnusableFile(f"{self.path} cannot be read: {error.strerror}") from None
        self._check_folder()
        if not data.strip():
            return None
        try:
            return _state_in(msgspec.json.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnusableFile(f"{self.path} is no JSON: {error}; mend it, or move it away") from None
        except InvalidField as error:
            raise UnusableFile(f"{self.path}: {error.message.rstrip('.')}") from None

    def save(self, state: BalancerDesiredState) -> bool:
        """False: it says so already. Raises `OSError`."""
        document = {"balancer_desired_state": document_of(state), "version": FORM}
        data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        mode = 0o666
        with contextlib.suppress(OSError):
            if self.path.read_bytes() == data:
                return False
            mode = self.path.stat().st_mode & 0o777
        # Beside it: only within a file system is a rename atomic. Its own name: several balancers may write one file.
        beside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}")
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return True

    def _check_folder(self) -> None:
        """Raises `UnusableFile` where the first change could not be written."""
        folder = self.path.parent
        if not folder.is_dir():
            raise UnusableFile(f"the directory {folder} does not exist: make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UnusableFile(f"the directory {folder} cannot be written to, as every change of the state must be")


def _state_in(document: object) -> BalancerDesiredState:
    """Raises `InvalidField`."""
    if not isinstance(document, dict):
        raise InvalidField('the file must be a JSON object, {"balancer_desired_state": {...}, "version": "1"}')
    fields = cast("dict[str, Any]", document)
    if unknown := sorted(fields.keys() - {"balancer_desired_state", "version"}):
        raise InvalidField(f"unknown field `{unknown[0][:60]}`")
    if fields.get("version") != FORM:
        told = repr(fields.get("version"))[:40]
        raise InvalidField(f'`version` is {told}, but this Paddler reads files of the version "{FORM}"')
    if "balancer_desired_state" not in fields:
        raise InvalidField("`balancer_desired_state` is required")
    return state_from(fields["balancer_desired_state"], at="balancer_desired_state")
