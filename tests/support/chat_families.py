"""A chat template in the style of each family, and the marks that its models have tokens for."""

from __future__ import annotations

from msgspec import Struct

_CHATML = """{%- for message in messages %}
{%- if message.role == 'system' %}{{ '<|im_start|>system\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'user' %}{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}{{ '<|im_start|>assistant\n' + message.content + '<|im_end|>\n' }}
{%- else %}{{ raise_exception('unknown role ' + message.role) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"""

_HERMES = """{%- if tools %}
{{- '<|im_start|>system\nFunctions, in <tools>:\n<tools>' }}
{%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}
{{- '\n</tools>\nCall one as <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
{%- for call in message.tool_calls %}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}THINK{%- endif %}"""

_CLOSED = """{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\n\n</think>\n\n' }}
{%- endif %}"""

_LLAMA3 = """{%- for message in messages %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{- raise_exception('only one call at once') }}{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}
{{- call.arguments | tojson }}
{{- '}<|eot_id|>' }}
{%- elif message.role in ('tool', 'ipython') %}
{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + message.content + '<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}
{%- if tools and message.role == 'user' and loop.last %}
{{- 'Answer with a call as {"name": ..., "parameters": ...} of one of:\n' }}
{%- for tool in tools %}{{- (tool | tojson) + '\n' }}{%- endfor %}
{%- endif %}
{{- message.content + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""

_MISTRAL = """{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools and loop.last %}{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}
{{- '[INST] ' + message.content + '[/INST]' }}
{%- elif message.role == 'tool' %}
{%- if message.tool_call_id | length != 9 %}{{- raise_exception('ids have length 9') }}{%- endif %}
{{- '[TOOL_RESULTS] ' + ({'content': message.content, 'call_id': message.tool_call_id} | tojson) + '[/TOOL_RESULTS]' }}
{%- elif message.tool_calls is defined %}
CALLS
{{- eos_token }}
{%- else %}
{{- ' ' + message.content + eos_token }}
{%- endif %}
{%- endfor %}"""

_ARRAY = """{{- '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{- raise_exception('ids have length 9') }}{%- endif %}
{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}
{%- endfor %}{{- ']' }}"""
_ARGS = """{%- for call in message.tool_calls %}
{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson) }}
{%- endfor %}"""

_INST = ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")
_TOOL_CALL = ("<tool_call>", "</tool_call>")
_THINK = ("<think>", "</think>")


class Family(Struct, frozen=True):
    """`calls` and `thought` are how its texts are read; `mark` begins calls, `told` is in prompts with them."""

    template: str
    calls: str
    thought: str = ""
    control: tuple[str, ...] = ()
    user_defined: tuple[str, ...] = ()
    mark: str = "<tool_call>"
    told: str = "<tools>"


FAMILIES = {
    "hermes": Family(_HERMES.replace("THINK", ""), "hermes", user_defined=_TOOL_CALL),
    "hermes-control": Family(_HERMES.replace("THINK", ""), "hermes", control=_TOOL_CALL),
    "hermes-text": Family(_HERMES.replace("THINK", ""), "hermes"),
    "qwen3": Family(_HERMES.replace("THINK", _CLOSED), "hermes", "think", user_defined=(*_TOOL_CALL, *_THINK)),
    "opened": Family(
        _HERMES.replace("THINK", "{{- '<think>\n' }}{#- </think> #}"), "hermes", "think", control=(*_TOOL_CALL, *_THINK)
    ),
    "llama3": Family(
        _LLAMA3,
        "llama3",
        control=("<|python_tag|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
        mark="<|python_tag|>",
        told="Answer with a call",
    ),
    "mistral": Family(
        _MISTRAL.replace("CALLS", _ARRAY),
        "mistral",
        control=("[TOOL_CALLS]", *_INST),
        mark="[TOOL_CALLS]",
        told="[AVAILABLE_TOOLS]",
    ),
    "mistral-args": Family(
        _MISTRAL.replace("CALLS", _ARGS),
        "mistral-args",
        control=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", *_INST),
        mark="[TOOL_CALLS]",
        told="[AVAILABLE_TOOLS]",
    ),
    "plain": Family(_CHATML, "hermes", told="You have tools."),
    "xml": Family(_HERMES.replace("THINK", "{#- <function=f> #}"), "hermes", told="You have tools."),
}
