"""Which grammars are let through to llama.cpp. That it takes or survives them: `tests/engine/test_grammar.py`."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest

from paddler.structure.gbnf import MAX_CHARS, check_gbnf
from paddler.structure.rules import GrammarError

JSON = r"""
# From llama.cpp's own examples.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
FAN = "root ::= a0\n" + "\n".join(f"a{n} ::= a{n + 1} | a{n + 1}" for n in range(60)) + '\na60 ::= "x"'
CHAIN = "root ::= a0\n" + "\n".join(f"a{n} ::= a{n + 1}" for n in range(2000)) + '\na2000 ::= "x"'


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a"',
        JSON,
        "root ::= .* [^a-z\\]] [\\x41-\\u0042\\U0001F600] \"\\\"\\\\\\n\"",
        'root ::= ("a" |\n "b"\n)+ | ""\r\nother-1 ::= root\n',
        'root ::= "a"{2} "b"{2,} "c"{0,3} "d"{ 1 , 2 }',
        'root ::= "(" root ")" | "x"',
        'root ::= "a" tail\ntail ::= "" | "b" tail',
        'root ::= ("a" | "b"){0,1000}',
    ],
)  # fmt: skip
def test_taken(grammar: str) -> None:
    check_gbnf(grammar)


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ("", "no rule `root`"),
        ('rot ::= "a"', "no rule `root`"),
        ("root ::= a", "no rule `a`"),
        ('root ::= "a', "line 1: expected a literal"),
        ('root ::= "a"\n| "b"', "line 2: expected the name of a rule"),
        ("root ::= [a-z", "a class of characters"),
        ("root ::= [^]", "a class of characters"),
        ('root ::= ("a"', "expected `)`"),
        ('root ::= "a")', "the end of the line"),
        ('root = "a"', "expected `::=`"),
        ("root ::= *", "something to repeat"),
        ('root ::= "\\q"', "a literal"),
        ('root ::= "a"{}', "a number of repetitions"),
        ('root ::= "a"{2,1}', "at least 2 and at most 1"),
        ('root ::= "a"{9999}', "9999 times"),
        ('root ::= "a"{0,2001}', "2001 times"),
        ('root ::= "a"**', "repeats a repetition"),
        ("root ::= <[12]>", "names tokens"),
        ("root ::= !<think>", "names tokens"),
        ('root ::= "a\0b"', "NUL"),
        ('root ::= root "a" | "b"', "`root` is left-recursive"),
        ('root ::= empty root "z" | "x"\nempty ::= also\nalso ::= | "y"', "`root` is left-recursive"),
        ('root ::= ("y"?)* root "z"', "`root` is left-recursive"),
        ("root ::= " + "(" * 60 + '"a"' + ")" * 60, "within each other"),
        ('root ::= (("a"{100}){100}){100}', "elements"),
        ('root ::= (("a" | "b"){0,50}){0,50}', "repetitions within each other"),
        ("root ::= " + ' "abcdefgh"{2000}' * 100, "elements"),
        ("root ::= " + '"a" |' * 3000, "ways"),
        (FAN, "ways"),
        (CHAIN, "begin with each other"),
        ('root ::= "' + "a" * MAX_CHARS + '"', "characters"),
    ],
)
def test_refused(grammar: str, says: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(says)):
        check_gbnf(grammar)


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= " + "|" * 30_000,
        "root ::= " + "a " * 15_000 + '\na ::= "b" |',
        "root ::= a0\n" + "\n".join(f'a{n} ::= "x" a{n + 1}' for n in range(1200)) + '\na1200 ::= "x"',
        "\n".join(f"a{n} ::= a{n + 1}" for n in range(1500)),
        "root ::= " + "(" * 30_000,
        FAN,
    ],
    ids=range(6),
)
def test_a_hostile_grammar_costs_little(grammar: str) -> None:
    """A balancer does this while others wait. It takes a fifth of a second at most; the bound is for a busy machine."""
    begun_at = time.process_time()
    with suppress(GrammarError):
        check_gbnf(grammar)
    assert time.process_time() - begun_at < 1.5
