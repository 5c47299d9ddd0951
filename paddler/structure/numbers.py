"""Decimal numbers between bounds as GBNF: digits compared from the left."""

from __future__ import annotations

from decimal import Decimal

from paddler.structure.writing import literal, one_of

MAX_DIGITS = 15
"""Of a number without a bound on that side: what a double holds exactly."""
MAX_BOUND_DIGITS = 30

INTEGER = '"-"? ("0" | [1-9] [0-9]{0,14})'
NUMBER = INTEGER + ' ("." [0-9]{1,15})? ([eE] [-+]? [0-9] [0-9]?)?'


def integers(low: int | None, high: int | None) -> str | None:
    """The integers from `low` to `high`; None when there are none."""
    parts: list[str] = []
    if high is None or high >= 0:
        parts += _naturals(max(low or 0, 0), high)
    if low is None or low < 0:
        parts += [
            f'"-" {one}' for one in _naturals(max(1, -high if high is not None else 1), None if low is None else -low)
        ]
    return one_of(parts) if parts else None


def decimals(low: Decimal | None, high: Decimal | None, *, above: bool, below: bool) -> str | None:
    """The numbers from `low` to `high`, without an exponent; `above` and `below` leave out the bound itself."""
    parts: list[str] = []
    if high is None or high > 0 or (high == 0 and not below):
        if low is not None and low >= 0:
            parts += _positive(low, high, above, below)
        else:
            parts += _positive(Decimal(0), high, False, below)
    if low is None or low < 0:
        top = None if low is None else -low
        if high is not None and high < 0:
            parts += [f'"-" {one}' for one in _positive(-high, top, below, above)]
        else:
            parts += [f'"-" {one}' for one in _positive(Decimal(0), top, True, above)]
    return one_of(parts) if parts else None


def _naturals(low: int, high: int | None) -> list[str]:
    """One part for each number of digits."""
    most = len(str(high)) if high is not None else max(MAX_DIGITS, len(str(low)) + 1)
    parts: list[str] = []
    for num_digits in range(len(str(low)), most + 1):
        begin = max(low, 10 ** (num_digits - 1) if num_digits > 1 else 0)
        end = 10**num_digits - 1 if high is None else min(high, 10**num_digits - 1)
        if begin <= end:
            parts.append(_between(str(begin), str(end)))
    return parts


def _between(low: str, high: str) -> str:
    """Of as many digits as both have."""
    if low == high:
        return literal(low) if low else '""'
    num = 0
    while low[num] == high[num]:
        num += 1
    if num:
        return f"{literal(low[:num])} {_between(low[num:], high[num:])}"
    rest = len(low) - 1
    begin, end = int(low[0]), int(high[0])
    parts: list[str] = []
    if low[1:] != "0" * rest:
        parts.append(f"{literal(low[0])} {_between(low[1:], '9' * rest)}")
        begin += 1
    if high[1:] != "9" * rest:
        end -= 1
    if begin <= end:
        parts.append(f"[{begin}-{end}]" + (f" [0-9]{{{rest}}}" if rest else ""))
    if high[1:] != "9" * rest:
        parts.append(f"{literal(high[0])} {_between('0' * rest, high[1:])}")
    return parts[0] if len(parts) == 1 else one_of(parts)


def _positive(low: Decimal, high: Decimal | None, above: bool, below: bool) -> list[str]:
    """Numbers from 0 on: the whole parts at the bounds with the fractions that fit, all others with any."""
    if high is not None and high <= low:
        return [f"{literal(str(int(low)))} {_exactly(_fraction(low))}"] if high == low and not (above or below) else []
    first, last = int(low), None if high is None else int(high)
    begin, end = _fraction(low), "" if high is None else _fraction(high)
    if first == last:
        return [f"{literal(str(first))} {one}" for one in _fractions(begin, end, above, below)]
    parts = [f"{literal(str(first))} {_at_least(begin, above)}"]
    if last is None:
        parts += [f'{one} ("." [0-9]{{1,15}})?' for one in _naturals(first + 1, None)]
        return parts
    if first + 1 < last:
        parts += [f'{one} ("." [0-9]{{1,15}})?' for one in _naturals(first + 1, last - 1)]
    if end or not below:
        parts.append(f"{literal(str(last))} {_at_most(end, below)}")
    return parts


def _fraction(number: Decimal) -> str:
    return f"{number:f}".partition(".")[2].rstrip("0")


def _exactly(digits: str) -> str:
    return f'"." {literal(digits)} "0"{{0,15}}' if digits else '("." "0"{1,15})?'


def _at_least(digits: str, is_open: bool) -> str:
    if not digits and not is_open:
        return '("." [0-9]{1,15})?'
    return f'"." {_digits_from(digits, is_open)}'


def _at_most(digits: str, is_open: bool) -> str:
    return f'("." {_digits_to(digits, is_open)})?' if digits else '("." "0"{1,15})?'


def _digits_from(digits: str, is_open: bool) -> str:
    """Fractions of at least, or of more than, these."""
    if not digits:
        return "[0-9]{0,14} [1-9]" if is_open else "[0-9]{0,15}"
    parts = [f"{literal(digits[0])} {_digits_from(digits[1:], is_open)}"]
    if digits[0] != "9":
        parts.append(f"[{int(digits[0]) + 1}-9] [0-9]{{0,14}}")
    return one_of(parts)


def _digits_to(digits: str, is_open: bool) -> str:
    """Fractions of at most, or of less than, these: at least one digit of them."""
    first, rest = digits[0], digits[1:]
    parts = [f"[0-{int(first) - 1}] [0-9]{{0,14}}"] if first != "0" else []
    if rest:
        parts.append(f"{literal(first)} ({_digits_to(rest, is_open)})?")
    elif not is_open:
        parts.append(f'{literal(first)} "0"{{0,14}}')
    return one_of(parts) if parts else '"0"{1,15}'


def _fractions(low: str, high: str, above: bool, below: bool) -> list[str]:
    """What may follow a whole part that both bounds have; `low` is less than `high`."""
    if not low:
        if not above:
            return [_at_most(high, below)]
        return [f'"." {_digits_between("", high, True, below)}']
    return [f'"." {_digits_between(low, high, above, below)}']


def _digits_between(low: str, high: str, above: bool, below: bool) -> str:
    first, last = low[:1] or "0", high[0]
    if first == last:
        rest = _digits_between(low[1:], high[1:], above, below)
        return f"{literal(first)} {rest}"
    parts = [f"{literal(first)} {_digits_from(low[1:], above)}"]
    if int(first) + 1 < int(last):
        parts.append(f"[{int(first) + 1}-{int(last) - 1}] [0-9]{{0,14}}")
    if high[1:]:
        parts.append(f"{literal(last)} ({_digits_to(high[1:], below)})?")
    elif not below:
        parts.append(f'{literal(last)} "0"{{0,14}}')
    return one_of(parts)
