"""What keeps `paddler up` from starting."""


class CannotStart(Exception):
    """The message says what is wrong and what to do about it; nothing has been started."""
