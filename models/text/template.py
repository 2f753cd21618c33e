"""The chat template: how a dialogue becomes one sequence of tokens, in the manner of ChatML.

    <|bos|><|system|>...<|end|><|user|>...<|end|><|assistant|>...<|end|>

It is stored with the tokenizer, so that any program that applies chat templates writes dialogues as training did. The
`generation` block marks what the assistant says, its <|end|> included; Transformers reads it as the assistant mask.
A tool's message is shown as the user's: it comes from outside and is never learned.
"""

from __future__ import annotations

from models.text.config import ASSISTANT, BOS, END, SYSTEM, USER

# Role -> the special token its message opens with.
ROLES = {"system": SYSTEM, "user": USER, "tool": USER, "assistant": ASSISTANT}

CHAT_TEMPLATE = (
    "{{- '" + BOS + "' -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '" + ASSISTANT + "' -}}"
    "{%- generation -%}{{- message['content'] + '" + END + "' -}}{%- endgeneration -%}"
    "{%- elif message['role'] == 'system' -%}"
    "{{- '" + SYSTEM + "' + message['content'] + '" + END + "' -}}"
    "{%- elif message['role'] in ['user', 'tool'] -%}"
    "{{- '" + USER + "' + message['content'] + '" + END + "' -}}"
    "{%- else -%}"
    "{{- raise_exception('unknown role ' + message['role'] + ': use system, user, assistant or tool') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '" + ASSISTANT + "' -}}{%- endif -%}"
)
