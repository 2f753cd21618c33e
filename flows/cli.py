"""The `headwater` command. Each lives in `flows/commands/`, imported when it is called, so `--help` is quick.

Errors a user can cause are one line on stderr, exit 2; a failed run exits 1. With `--json` stdout carries JSON alone.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from flows.stages import StageName

app = App(
    name="headwater",
    help="From raw Common Crawl, Wikipedia and code to an aligned chat model, in one tracked run.",
    version="0.1.0",
    suppress_keyboard_interrupt=False,
)

app.register_install_completion_command(
    help="Teach your shell (bash, zsh, fish) to complete headwater's commands and options."
)


@Parameter(name="*")
@dataclass
class Common:
    """What every command takes."""

    lake: Annotated[Path, Parameter(env_var="HEADWATER_LAKE", help="Folder of the lake")] = Path("lake")
    json: Annotated[bool, Parameter(negative="", help="Print JSON alone on stdout; logs go to stderr")] = False

    @property
    def folder(self) -> Path:
        """The lake as an absolute path, where it really lies."""
        return Path(os.path.realpath(self.lake.expanduser()))


COMMON = Common()


@app.command
def run(
    recipe: Path,
    *,
    until: StageName | None = None,
    set: Annotated[
        tuple[str, ...], Parameter(name="--set", negative="", help="Override a value: --set deduplicate.threshold=0.7")
    ] = (),
    workers: Annotated[int | None, Parameter(help="Shards worked on at once")] = None,
    dry: Annotated[bool, Parameter(negative="", help="Only say what is done already and what would run")] = False,
    common: Common = COMMON,
) -> int:
    """Run a recipe, or up to a stage; what was done before is taken from the cache.

    Parameters
    ----------
    recipe
        A YAML file; see recipes/.
    until
        The last stage to run.
    """
    if dry:
        from flows.commands.dry import dry_run

        return dry_run(recipe, common.folder, until, set, common.json)
    from flows.commands.run import run_recipe

    return run_recipe(recipe, common.folder, until, set, workers, common.json)


@app.command
def query(
    sql: str,
    *,
    run: Annotated[str | None, Parameter(name="--run")] = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    allow_files: Annotated[
        bool, Parameter(negative="", help="Let SQL read and write files: COPY ... TO, read_csv, ATTACH")
    ] = False,
    common: Common = COMMON,
) -> int:
    """DuckDB over the lake: every corpus as its last finished run left it.

    Parameters
    ----------
    sql
        Such as "SELECT verdict, count(*) FROM demo.ledger GROUP BY ALL"; "SHOW TABLES" lists what there is.
    run
        Show the tables as this run left them: its id, or the beginning of it.
    full
        Print values whole in a terminal too, however long; a pipe and --json always have them whole.
    """
    from flows.commands.look import query_lake

    return query_lake(sql, common.folder, run, full, common.json, allow_files)


@app.command
def explain(document: str, *, common: Common = COMMON) -> int:
    """What became of a document, and why.

    Parameters
    ----------
    document
        Its address (`uri`) or its id in hex.
    """
    from flows.commands.look import explain_document

    return explain_document(document, common.folder, common.json)


@app.command
def what_if(
    recipe: Path,
    *,
    set: Annotated[
        tuple[str, ...],
        Parameter(name="--set", negative="", help="What to change: --set curate.thresholds.min_words=30"),
    ] = (),
    common: Common = COMMON,
) -> int:
    """What another threshold, preset or list of languages would keep, from the ledger, without rerunning.

    Parameters
    ----------
    recipe
        A YAML file that has been run; the answer is about its last finished run.
    """
    from flows.commands.what_if import what_if as answer

    return answer(recipe, set, common.folder, common.json)


@app.command
def trace(checkpoint: str, *, step: int | None = None, common: Common = COMMON) -> int:
    """Ancestors of a model, or what one of its training steps saw.

    Parameters
    ----------
    checkpoint
        A stage of the last run (`ppo`), a checkpoint's folder, or a fingerprint.
    step
        Show what this step of the stage saw, counted from 1: documents of pretrain, dialogues of sft, pairs of reward,
        the dialogues of ppo's prompts.
    """
    from flows.commands.trace import trace_checkpoint

    return trace_checkpoint(checkpoint, step, common.folder, common.json)


@app.command
def chat(
    checkpoint: str = "last",
    *,
    message: Annotated[str | None, Parameter(name=("--message", "-m"))] = None,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_tokens: int = 200,
    seed: int | None = None,
    trust_remote_code: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> int:
    """Talk to a model.

    Parameters
    ----------
    checkpoint
        A stage of the last run (`ppo`), a checkpoint's folder, or `last`: the last model of the last complete run.
    message
        Ask this one thing and end.
    temperature
        0 takes the likeliest token each time.
    top_p
        Draw from the likeliest tokens that have this share of the probability.
    max_tokens
        Longest answer, in tokens.
    seed
        For an answer that can be repeated.
    trust_remote_code
        Run the Python code that a checkpoint's folder brings along. It can do all that you can: know who made it.
    """
    from flows.commands.chat import Sampling, chat_with

    sampling = Sampling(temperature, top_p, max_tokens, seed)
    return chat_with(checkpoint, message, sampling, trust_remote_code, common.folder, common.json)


@app.command
def report(
    run: str = "last",
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), help="Where to write it")] = None,
    common: Common = COMMON,
) -> int:
    """One HTML page about a run: funnel, samples of what was dropped, curves, evaluations.

    Parameters
    ----------
    run
        A run's id or its beginning; `last` for the last one.
    """
    from flows.report.page import write_report

    return write_report(run, out, common.folder, common.json)


@app.command
def runs(*names: str, common: Common = COMMON) -> int:
    """The runs of the lake: when, how long, how far, with which figures; two named ones compared.

    Parameters
    ----------
    names
        Two runs, each by its id or the beginning of it: what differs in recipe, counts and figures.
    """
    from flows.commands.runs import show_runs

    return show_runs(names, common.folder, common.json)


@app.command
def up(*, port: int = 4200, common: Common = COMMON) -> int:
    """Start the Prefect server, apply the deployments and run a worker; doing it again changes nothing.

    Parameters
    ----------
    port
        Where the server listens, on this machine only.
    """
    from flows.commands.service import start

    return start(common.folder, port, common.json)


@app.command
def down(*, common: Common = COMMON) -> int:
    """Stop what `up` started."""
    from flows.commands.service import stop

    return stop(common.folder, common.json)


@app.command
def doctor(
    *,
    deep: Annotated[bool, Parameter(negative="", help="Compare all files of the lake with their digests")] = False,
    common: Common = COMMON,
) -> int:
    """What is installed, reachable and configured, and what to do about what isn't."""
    from flows.commands.doctor import examine

    return examine(common.folder, common.json, deep)


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
