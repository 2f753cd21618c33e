"""The `headwater` command: a table of its commands, each a function that is imported when it is called.

A command's signature is its arguments, its docstring their help; the line here is what `headwater --help` shows.
Errors a user can cause are one line on stderr, exit 2; a failed run exits 1. With `--json` stdout carries JSON alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter, Token, convert

COMMANDS = {
    "flows.commands.run:run": "Run a recipe, or up to a stage; what was done before is taken from the cache.",
    "flows.commands.query:query": "DuckDB over the lake: every corpus as its last finished run left it.",
    "flows.commands.explain:explain": "What became of a document, and why.",
    "flows.commands.browse:browse": "Read kept and dropped texts in a browser, with what-if beside them.",
    "flows.commands.similar:similar": "Near duplicates of a text in the lake.",
    "flows.commands.what_if:what_if": "What another threshold, preset or languages would keep, without rerunning.",
    "flows.commands.plan:plan": "What to train for a budget: parameters, tokens, batch, rate, loss, memory, time.",
    "flows.commands.trials:sweep": "Small models fit a law of scaling, and foretell a larger one.",
    "flows.commands.trials:ablate": "The same small model on two mixtures, and which is better.",
    "flows.commands.mask:mask": "Which tokens of a recipe's dialogues would train, before any does.",
    "flows.commands.trace:trace": "Ancestors of a model, or what one of its training steps saw.",
    "flows.commands.chat:chat": "Talk to a model.",
    "flows.commands.eval:eval": "Judge checkpoints by benchmarks, with intervals; compare several.",
    "flows.commands.promote:promote": "Judge a checkpoint beside the current one; once a person agrees, it is current.",
    "flows.commands.tag:tag": "Give a checkpoint a name, or list the names that there are.",
    "flows.commands.export:export": "Write a checkpoint as a Hugging Face folder, or a table as Parquet, with a card.",
    "flows.commands.serve:serve": "OpenAI's API over checkpoints, and a page to chat with them.",
    "flows.commands.label:label": "A page on which people compare answers, or judge documents, for training.",
    "flows.commands.report:report": "One HTML page about a run: funnel, what was dropped, curves, evaluations.",
    "flows.commands.runs:runs": "The runs of the lake: when, how long, how far; two named ones compared.",
    "flows.commands.maintain:maintain": "What the lake holds that nothing needs any more; --apply removes it.",
    "flows.commands.service:up": "Start the Prefect server, apply the deployments and run a worker.",
    "flows.commands.service:down": "Stop what `up` started.",
    "flows.commands.doctor:doctor": "What is installed, reachable and configured, and what to do about what isn't.",
}


def _converted(wanted: Any, tokens: Sequence[Token]) -> Any:
    """What was given as a value of its parameter's type. A part of one is no whole number: cyclopts would round it."""
    if wanted is int and any("." in token.value and float(token.value) % 1 for token in tokens):
        raise ValueError
    return convert(wanted, tokens)


app = App(
    name="headwater",
    help="From raw Common Crawl, Wikipedia and code to an aligned chat model, in one tracked run.",
    version="0.1.0",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(converter=_converted),
)
for place, summary in COMMANDS.items():
    app.command(place, help=summary)

app.register_install_completion_command(
    help="Teach your shell (bash, zsh, fish) to complete headwater's commands and options."
)


def main(arguments: list[str] | None = None) -> None:
    """The command's entry point."""
    from flows.service.environment import pass_proxies
    from flows.streams import silence, steady

    steady()
    pass_proxies(os.environ)
    try:
        status = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        status = _mistake(error)
    except KeyboardInterrupt:
        print("headwater: interrupted; the same command goes on from what is finished", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # as of `| head`: nobody wants the rest
        silence(sys.stdout)
        status = 0
    except ValueError as error:
        from datalake.errors import UserError

        if not isinstance(error, UserError):
            raise
        status = _mistake(error)
    sys.exit(status if isinstance(status, int) else 0)


def _mistake(error: Exception) -> int:
    """Say what a user did wrong, in one line, and give the exit status."""
    from datalake.printable import one_line, write
    from datalake.secrets import masked

    write(f"headwater: {one_line(masked(str(error)))}", sys.stderr)
    return 2


if __name__ == "__main__":
    main()
