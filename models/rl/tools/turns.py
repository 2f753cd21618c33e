"""Turns with tools: the calls in what a policy wrote, and the observation that answers them, as ids.

A call counts where the policy wrote the token that opens one, in its last turn: a text that spells it, in what a user
says or a tool gives, is a text. What tools give is encoded as any other text of somebody's: without control tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.rl.answers import Answer, Observe
from models.rl.tools.tool import Tool
from models.text.rendering import observation
from models.text.tokenizer import beginning, encode
from models.text.tool_calls import CALL, CALL_END, Call, calls_in, frames_calls, read_call

_CALLS = 8  # of one turn that are answered


def observer(tools: Mapping[str, Tool], tokenizer: Any, turns: int, longest: int = 512) -> Observe:
    """What an engine asks when a row has written a stop token: the results of the calls in its turn, up to where the
    assistant is to speak again, or None where it called nothing or has had `turns` observations.

    longest: tokens of one result at most; it is cut behind them. A call that can't be read, of a tool that isn't there,
    or that fails is answered with what was wrong.

    Raises:
        UserError: for a tokenizer whose chat template knows no results of tools; what a tool says to the user.
    """
    observation(["-"], tokenizer)  # said before any answer

    def observe(_: int, answer: Answer) -> list[int] | None:
        turn, had = _last_turn(answer)
        calls = _calls(turn, tokenizer) if had < turns else []
        if not calls:
            return None
        results = [
            _result(call, tools) if place < _CALLS else "error: too many calls" for place, call in enumerate(calls)
        ]
        return observation([_cut(result, tokenizer, longest) for result in results], tokenizer)

    return observe


def _last_turn(answer: Answer) -> tuple[list[int], int]:
    """What the policy wrote since the last observation, and how many there were."""
    written = answer.written
    start = len(written)
    while start and written[start - 1]:
        start -= 1
    had = sum(not now and (not place or written[place - 1]) for place, now in enumerate(written))
    return answer.tokens[start:], had


def _calls(turn: list[int], tokenizer: Any) -> list[Call | None]:
    """The calls of a turn; None for one that can't be read."""
    opens, closes = (tokenizer.get_vocab().get(name) for name in (CALL, CALL_END))
    if opens is None or closes is None:  # another model's tokenizer, whose calls are text
        text = tokenizer.decode(turn, skip_special_tokens=False)
        return calls_in(text, frames_calls(tokenizer.chat_template))
    calls = []
    while opens in turn:
        turn = turn[turn.index(opens) + 1 :]
        ends = [place for place, number in enumerate(turn) if number in (opens, closes)]
        calls.append(read_call(tokenizer.decode(turn[: ends[0] if ends else None], skip_special_tokens=True)))
    return calls


def _result(call: Call | None, tools: Mapping[str, Tool]) -> str:
    if call is None:
        return 'error: this is no call: write {"name": ..., "arguments": {...}}'
    if call.name not in tools:
        return f"error: there is no tool {call.name[:40]!r}: there is {', '.join(tools)}"
    return tools[call.name].result(call.arguments)


def _cut(text: str, tokenizer: Any, longest: int) -> str:
    ids = encode(tokenizer, [text])[0]
    if len(ids) <= longest:
        return text
    _, size = beginning(tokenizer, text, ids, longest)
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")
