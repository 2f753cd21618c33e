"""Methods that learn from their own answers: the prompts, who answers and who judges. One more is a config and a line.

grpo = learned("grpo", GrpoConfig, title="Group-relative policy optimisation", after="ppo")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.rl.config import RolloutConfig
from models.training.method import Begun, Ended, Method, Prepared, Seen

if TYPE_CHECKING:
    from torch import nn

    from models.rl.answers import Sampling
    from models.rl.iterations import Prompts
    from models.rl.tools.search import Library
    from models.rl.tools.tool import Tool
    from models.text.packing import Fitted

Row = Mapping[str, Any]  # of a prompt: messages, id, source, the dialogue's own answer, attributes
Critic = Callable[[Any, Path, Any], Any]  # config, the policy's folder, the reward model or None -> a network


def learned(name: str, config: type[RolloutConfig], critic: Critic | None = None, **more: Any) -> Method[Any]:
    """The method of a config, with the network that says what states are worth where it has one; more: of `Method`."""
    prepare = partial(prepared, name, critic)
    prepare.__doc__ = prepared.__doc__  # which is its stage's as well
    return Method(name, config, partial(prompted, name), prepare, **more)


@dataclass
class Prompted:
    """The prompts that leave room for an answer, as tokens, at most `room` of them, and those held out; `tools` are
    what the policy may call."""

    config: RolloutConfig
    fitted: Fitted[list[int]]
    heldout: Fitted[list[int]]
    room: int
    words: Any
    tools: Mapping[str, Tool]

    @property
    def steps(self) -> int:
        """Iterations."""
        return self.config.steps

    @cached_property
    def order(self) -> Prompts:
        """Which prompts each step answers."""
        from models.rl.iterations import Prompts

        return Prompts(len(self.fitted.items), self.config.seed, self.config.batch, self.config.group)

    def seen(self, step: int) -> list[Seen]:
        """The prompts of a step, answer by answer: (number in the list given, tokens of the prompt)."""
        fitted = self.fitted
        return [(fitted.numbers[item], len(fitted.items[item])) for item in self.order.items(step)]


def prompted(
    name: str,
    config: RolloutConfig,
    policy: Path,
    prompts: Sequence[Row],
    heldout: Sequence[Row],
    reward_model: Path | None = None,
    documents: Library | None = None,
) -> Prompted:
    """Prompts are messages ending with the user's, cut to leave room for an answer as `models.text.packing` has it.
    Raises UserError when none is left, or a tool has no `documents` to look through."""
    from datalake.errors import UserError
    from models.network.checkpoint import context_of
    from models.rl.tools.tool import build, schemas
    from models.text import tokenizer as tokenizers
    from models.text.packing import fit_all, fit_prompt

    words = tokenizers.load(policy)
    folders = [folder for folder in (policy, reward_model) if folder is not None]
    room = min(map(context_of, folders)) - config.new_tokens
    tools = build(config.tools, documents)
    offered = schemas(tools)
    fitted, held = (
        fit_all([row["messages"] for row in rows], lambda prompt: fit_prompt(prompt, words, room, offered))
        for rows in (prompts, heldout)
    )
    if not fitted.items:
        raise UserError(
            f"none of {len(prompts)} prompts leaves room for {config.new_tokens} new tokens: lower {name}.new_tokens"
        )
    return Prompted(config, fitted, held, room, words, tools)


def prepared(
    name: str,
    critic: Critic | None,
    config: Any,
    data: Prompted,
    policy: Path,
    prompts: Sequence[Row],
    heldout: Sequence[Row],
    reward_model: Path | None = None,
    documents: Library | None = None,
) -> Prepared:
    """The model in `policy` learns from its own answers; `reward_model` is a folder that `reward` wrote, with the
    policy's tokenizer.

    Each step's metrics hold the score, KL to the reference, entropy, clip fraction, approximate KL, the share of
    answers that end, that of groups that taught nothing, and the explained variance of a critic. Raises UserError where
    there is nothing to judge answers by, or tokenizers differ.
    """
    from datalake.errors import UserError
    from datalake.files import folder_version
    from models.network.checkpoint import load_language_model
    from models.rl.engine import Engine
    from models.rl.engines import engine_of
    from models.rl.heldout import heldout as on_heldout
    from models.rl.heldout import other_reward_model
    from models.rl.iterations import Iterations
    from models.rl.policy import ActorCritic, PolicyLoss
    from models.rl.policy import policy as objective
    from models.rl.recorder import Recorder
    from models.rl.reward_model import load_reward_model
    from models.rl.rewards import MODEL, Rewards
    from models.rl.tools.turns import observer
    from models.training.metrics import read_metrics

    actor, reference = load_language_model(policy), load_language_model(policy)
    judge = None
    if reward_model is not None and config.judged:
        judge, judges_words = load_reward_model(reward_model)
        if data.words.get_vocab() != judges_words.get_vocab():
            raise UserError(
                f"{policy} and {reward_model} have different tokenizers: train the reward model from this policy"
            )
    elif config.judged:
        raise UserError(f"nothing judges the answers: name functions in {name}.rewards, or train a reward model")
    weight = 1.0 if config.reward_model_weight is None else config.reward_model_weight
    rewards = Rewards(config.rewards, {MODEL: weight} if judge is not None else {}, f"{name}.rewards")
    frozen = [network.eval().requires_grad_(False) for network in (reference, judge) if network is not None]
    model: nn.Module = actor
    units = {"policy": actor}
    if critic is not None:
        model = ActorCritic(actor, critic(config, policy, judge))
        units["critic"] = model.critic
    rendered, chosen = data.fitted.items, [prompts[number] for number in data.fitted.numbers]
    sampling = sampling_of(config, data.words, actor, data.room + config.new_tokens)
    recorder = Recorder(data.words, config.seed, config.samples_every, config.samples)
    observe = observer(data.tools, data.words, config.turns) if data.tools else None
    engine = Engine(actor, sampling)  # until it is known where answers are written
    iterations = Iterations(
        config, model, reference, engine, rendered, chosen, data.words, rewards, judge, observe, recorder
    )
    held = [heldout[number] for number in data.heldout.numbers][: config.eval_rows]
    questions = data.heldout.items[: config.eval_rows]

    def score(answers: Sequence[Any]) -> list[float]:
        return rewards.total(iterations.scores(answers, held))

    scorers: dict[str, Any] = {"score": score}
    if config.other_reward_model is not None and held:
        folder = Path(config.other_reward_model.paths[0])
        longest = (data.room if data.tools else max(map(len, questions))) + config.new_tokens
        other, by_other, network = other_reward_model(folder, data.words, config.rows, longest)
        scorers[other] = by_other
        frozen.append(network)

    def begin(begun: Begun) -> None:
        iterations.computing = begun.device.computing
        iterations.engine = engine_of(config, actor, sampling, data.words, begun.device, begun.actors)

    def finish(ended: Ended) -> dict[str, Any]:
        rows = read_metrics(ended.metrics)
        few = max(1, len(rows) // 5)
        last = ("kl_per_answer", "kl_per_token", "entropy", "eos_rate", "explained_variance", "zero_variance")
        return {
            "rollouts": ended.step * config.batch,
            "prompts": len(rendered),
            **data.fitted.figures(data.room),
            "score_first": sum(row["score"] for row in rows[:few]) / few,
            "score_last": sum(row["score"] for row in rows[-few:]) / few,
            "kl_per_answer_largest": max(row["kl_per_answer"] for row in rows),
            "logprob_gap_largest": max(row["logprob_gap"] for row in rows),
            **{figure: ended.last[figure] for figure in last if figure in ended.last},
            **{f"heldout_{name}_before": value for name, value in ended.before.items()},
            **{f"heldout_{name}": value for name, value in ended.heldout.items()},
        }

    names = set(PolicyLoss.__dataclass_fields__) & set(type(config).model_fields)
    return Prepared(
        model=model,
        objective=objective(
            PolicyLoss(vocabulary=iterations.vocabulary, **{field: getattr(config, field) for field in names})
        ),
        batches=iterations,
        words=data.words,
        inputs={
            "policy": folder_version(policy),
            "reward_model": reward_model and folder_version(reward_model),
            "prompts": rendered,
            "rows": chosen if config.rewards else [],
            **({} if documents is None else {"documents": documents.version}),
        },
        written=actor,
        units=units,
        rates={"critic": config.critic_learning_rate} if critic is not None else {},
        callbacks=[iterations, recorder],
        measure=on_heldout(iterations.answers, questions, scorers, config.seed) if held else None,
        frozen=frozen,
        finish=finish,
        begin=begin,
    )


def sampling_of(config: RolloutConfig, words: Any, model: Any = None, longest: int | None = None) -> Sampling:
    """How a config samples; longest: as of `models.rl.answers.Sampling`."""
    from models.rl.answers import Sampling
    from models.text.tokenizer import stop_ids, vocabulary_size

    stops = tuple(stop_ids(words, model))
    return Sampling(config.new_tokens, config.temperature, stops, vocabulary_size(words), longest)
