"""Reading outputs: what the pieces of each format become, and that it does not matter how the text was cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddler.chat_formats.families import CALLS, THOUGHTS
from paddler.chat_formats.reading import Arguments, CallBegun, Content, OutputReader, Reasoning, Said, read_all
from paddler.wire.balancer import TextFormat

LOOK = ("look", '{"at": "a \\"}{\\" {fox}", "n": [1, {}]}')
GO = ("go", "{}")
LOOK_JSON = f'"name": "look", "arguments": {LOOK[1]}'

FORMATS = {
    "hermes": TextFormat("hermes"),
    "llama3": TextFormat("llama3"),
    "mistral": TextFormat("mistral"),
    "args": TextFormat("mistral-args"),
    "think": TextFormat("", "think"),
    "thinking": TextFormat("", "think", True),
    "both": TextFormat("hermes", "think"),
    "bracket": TextFormat("mistral", "bracket"),
    "llama3+": TextFormat("llama3", "think"),
}

READ: list[tuple[str, str, Said]] = [
    ("hermes", "plain < text <tool", Said("plain < text <tool")),
    ("hermes", f"<tool_call>\n{{{LOOK_JSON}}}\n</tool_call>", Said(calls=[LOOK])),
    ("hermes", f"So: \n<tool_call>{{{LOOK_JSON}}}</tool_call>\n", Said("So:", calls=[LOOK])),
    (
        "hermes",
        f'<tool_call>{{{LOOK_JSON}}}</tool_call>\n<tool_call>\n{{"name":"go","arguments":{{}}}}</tool_call>',
        Said(calls=[LOOK, GO]),
    ),
    ("hermes", "a <tool_call> is what?", Said("a <tool_call> is what?")),
    ("hermes", '<tool_call>{"name": "lo', Said('<tool_call>{"name": "lo')),
    ("hermes", '<tool_call>{"name": "go", "arguments": []}', Said('<tool_call>{"name": "go", "arguments": []}')),
    ("hermes", '<tool_call>{"name": "go", "arguments": {"a', Said(calls=[("go", '{"a')])),
    ("hermes", '<tool_call>{"name": "go", "arguments": {}}</to', Said(calls=[GO])),
    ("hermes", '<tool_call>{"name": "go", "arguments": {}} and', Said("} and", calls=[GO])),
    ("hermes", f"x <tool_call><tool_call>{{{LOOK_JSON}}}</tool_call>", Said("x <tool_call>", calls=[LOOK])),
    ("hermes", "<think>x</think>y", Said("<think>x</think>y")),
    ("llama3", f' {{"name": "look", "parameters": {LOOK[1]}}}', Said(calls=[LOOK])),
    ("llama3", '<|python_tag|>{"name": "go", "parameters": {}}', Said(calls=[GO])),
    ("llama3", 'Yes.<|python_tag|>{"name": "go", "parameters": {}}', Said("Yes.", calls=[GO])),
    ("llama3", '{"nam": 1}', Said('{"nam": 1}')),
    ("llama3", '{"name": "Joe X"}', Said('{"name": "Joe X"}')),
    ("llama3", 'So {"name": "go", "parameters": {}}', Said('So {"name": "go", "parameters": {}}')),
    ("mistral", f"[TOOL_CALLS] [{{{LOOK_JSON}}}]", Said(calls=[LOOK])),
    ("mistral", f'[TOOL_CALLS][{{{LOOK_JSON}}}, {{"name": "go", "arguments": {{}}}}]', Said(calls=[LOOK, GO])),
    ("mistral", "see [TOOL_CALLS]", Said("see [TOOL_CALLS]")),
    ("args", f"[TOOL_CALLS]look[ARGS]{LOOK[1]}", Said(calls=[LOOK])),
    ("args", f"[TOOL_CALLS]look[CALL_ID]a1b2c3d4e[ARGS]{LOOK[1]}[TOOL_CALLS]go[ARGS]{{}}", Said(calls=[LOOK, GO])),
    ("args", "[TOOL_CALLS]look[ARGS]5", Said("[TOOL_CALLS]look[ARGS]5")),
    ("think", "\n<think>\nhm \n</think>\n\nyes\n", Said("yes\n", "hm")),
    ("think", "<think>\n\n</think>\n\nyes", Said("yes")),
    ("think", "\n no thought", Said("\n no thought")),
    ("think", "<thi", Said("<thi")),
    ("think", "<think> never </th", Said("", "never </th")),
    ("thinking", "hm <think> </think> a </think>", Said("a </think>", "hm <think>")),
    (
        "both",
        f"<think>a <tool_call> </think>So: <tool_call>{{{LOOK_JSON}}}</tool_call>",
        Said("So:", "a <tool_call>", [LOOK]),
    ),
    ("both", f"<tool_call>{{{LOOK_JSON}}}</tool_call>", Said(calls=[LOOK])),
    ("bracket", f"[THINK]a[/THINK][TOOL_CALLS][{{{LOOK_JSON}}}]", Said("", "a", [LOOK])),
    ("llama3+", f'<think>a</think>\n\n{{"name": "look", "parameters": {LOOK[1]}}}', Said("", "a", [LOOK])),
]


@pytest.mark.parametrize(("format", "text", "said"), READ)
def test_what_a_text_becomes(format: str, text: str, said: Said) -> None:
    assert read_all(FORMATS[format], [text]) == said
    assert read_all(FORMATS[format], text) == said


MARKS = [
    *(mark for calls in CALLS.values() for mark in calls.markers),
    *(mark for thought in THOUGHTS.values() for mark in (thought.opening, thought.closing)),
]
PIECES = st.sampled_from(
    [*MARKS, '{"name": "', "look", '", "arguments": ', '", "parameters": ', "{}",
      '{"a": "}"}', "}", "[", "]", ",", "\n", " ", "é"]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(PIECES, max_size=14).map("".join),
    st.tuples(st.sampled_from([text for _, text, _ in READ]), st.lists(PIECES, max_size=4).map("".join)).map("".join),
)


@settings(deadline=None)
@given(text=TEXTS, format=st.sampled_from(list(FORMATS.values())), data=st.data())
def test_cuts_make_no_difference_and_anybody_can_go_on(text: str, format: TextFormat, data: st.DataObject) -> None:
    """What has come out after each piece is what comes out of the text so far at once, so an offset says it all."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reader, said = OutputReader(format), Said()
    last = 0
    for cut in [*cuts, len(text)]:
        said.add(reader.push(text[last:cut]))
        last = cut
        again = Said()
        again.add(OutputReader(format).push(text[:cut]))
        assert said == again
        assert reader.has_whole_calls == said.has_whole_calls
    said.add(reader.finish())
    assert said == read_all(format, [text])
    assert reader.has_whole_calls == said.has_whole_calls


@settings(deadline=None)
@given(text=TEXTS, format=st.sampled_from(list(FORMATS.values())))
def test_nothing_is_lost_but_marks_and_white_space(text: str, format: TextFormat) -> None:
    said = read_all(format, [text])
    if not said.calls and not said.reasoning:
        told = said.content
        for thought in THOUGHTS.values():
            text = text.replace(thought.opening, "").replace(thought.closing, "")
            told = told.replace(thought.opening, "").replace(thought.closing, "")
        assert "".join(told.split()) == "".join(text.split())


def test_arguments_come_as_they_are_written() -> None:
    reader = OutputReader(TextFormat("hermes", "think"))
    pieces = [
        "<think>a",
        " b</think>",
        "Yes ",
        '<tool_call>{"name": "look", "arg',
        'uments": {"at',
        '": 1',
        "}}</tool_call>",
    ]
    assert [reader.push(piece) for piece in pieces] == [
        [Reasoning("a")],
        [Reasoning(" b")],
        [Content("Yes")],
        [],
        [CallBegun(0, "look"), Arguments(0, '{"at')],
        [Arguments(0, '": 1')],
        [Arguments(0, "}")],
    ]
    assert reader.finish() == []
