"""What the rows of a run's metrics say of its health, in plain words, each with the figure and the steps that show it.

    for finding in findings(read_metrics(path)): print(finding)
    # the critic isn't learning (explained variance 0.02 over steps 31-60): raise its learning rate

A rule is a function from the curves so far to a finding or nothing, and a line in `RULES`; its name there is what
`stop_when` takes. Rules compare stretches of steps, never single ones: a tenth of the run each, ten steps at least. A
figure that a method doesn't report answers nothing. Thresholds are meant to be silent on a run that learns: most are
those below which PPO is called healthy (Huang et al. 2024, "The N Implementation Details of RLHF with PPO"; Schulman
2020 on KL estimators); where a rule has its own it says where it is from.

Only sums and comparisons of Python's floats: the same rows give the same findings in every process, and a run that
stops by them is resumed bit-equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

LEAST = 10  # steps of the shortest stretch: fewer are luck


class Finding(NamedTuple):
    """What a rule found: its name, what is the matter, by which metric, over which steps, and what to do about it.

    A `note` is worth knowing and nothing to mend; a `warning` is.
    """

    rule: str
    what: str
    metric: str
    first: int
    last: int
    advice: str
    level: Literal["warning", "note"] = "warning"

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}" if self.advice else self.what


class Stretch(NamedTuple):
    """The mean of a metric over some steps, and which."""

    mean: float
    first: int
    last: int

    def __str__(self) -> str:
        return f"steps {self.first}-{self.last}" if self.last > self.first else f"step {self.first}"


@dataclass
class Curve:
    """A metric where it was finite: steps, from 1 and rising, and its values."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def width(self) -> int:
        """Points of a stretch."""
        return max(LEAST, len(self.steps) // 10)

    def stretch(self, first: int, last: int) -> Stretch:
        """The points from one place to before another."""
        values = self.values[first:last]
        return Stretch(sum(values) / len(values), self.steps[first], self.steps[last - 1])

    @property
    def early(self) -> Stretch:
        """The first stretch."""
        return self.stretch(0, self.width)

    @property
    def late(self) -> Stretch:
        """The last one."""
        return self.stretch(len(self) - self.width, len(self))

    @property
    def before(self) -> Stretch:
        """The one before the last."""
        return self.stretch(len(self) - 2 * self.width, len(self) - self.width)

    @property
    def long(self) -> bool:
        """Whether first, last and the one before are three."""
        return len(self) >= 3 * LEAST

    def since(self, holds: Callable[[float], bool]) -> Stretch:
        """The last stretch, with those before it in a row whose means hold as well."""
        first = len(self) - self.width
        while first > 0 and holds(self.stretch(max(0, first - self.width), first).mean):
            first = max(0, first - self.width)
        return self.stretch(first, len(self))


class Curves:
    """The curves of a run, row by row as they come. A metric that was never reported is one without points."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.named: dict[str, Curve] = {}
        self.lost: dict[str, list[int]] = {}  # the steps at which a metric wasn't finite
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """One more step's metrics, as they are written: what isn't finite is None."""
        for name, value in row.items():
            if name == "step":
                continue
            if value is None:
                self.lost.setdefault(name, []).append(int(row["step"]))
                continue
            curve = self.named.setdefault(name, Curve())
            curve.steps.append(int(row["step"]))
            curve.values.append(float(value))

    def __getitem__(self, name: str) -> Curve:
        return self.named.get(name, Curve())

    def starting(self, prefix: str) -> dict[str, Curve]:
        """The curves whose names begin so."""
        return {name: curve for name, curve in self.named.items() if name.startswith(prefix)}

    @property
    def rises(self) -> float:
        """By how much the score rose from the first to the last stretch, in deviations of its answers; 0 where no
        score is, or too short a one."""
        return self.rise(self["score"].early.mean, self["score"].late.mean) if self["score"].long else 0.0

    def rise(self, before: float, after: float) -> float:
        """A difference of scores in deviations of a batch's answers, as they were at first."""
        spread = self["score_std"].early.mean if len(self["score_std"]) >= LEAST else 0.0
        return (after - before) / max(spread, 1e-6)


def findings(rows: Iterable[Mapping[str, Any]] | Curves) -> list[Finding]:
    """What there is to say of a run's metrics, warnings first, in the order of `RULES`."""
    curves = rows if isinstance(rows, Curves) else Curves(rows)
    found = [finding for rule in RULES.values() if (finding := rule(curves)) is not None]
    return sorted(found, key=lambda finding: finding.level != "warning")


# Whatever is learned ---------------------------------------------------------------------------------------------


def not_finite(curves: Curves) -> Finding | None:
    """A loss or a score that is no number."""
    for name in ("loss", "score", "reward", "kl_per_token"):
        if steps := curves.lost.get(name):
            what = f"{name} is no number at {len(steps)} steps, the first {steps[0]}"
            return Finding("not_finite", what, name, steps[0], steps[-1], "lower the learning rate")
    return None


def refused(curves: Curves) -> Finding | None:
    """Updates that the spike guard refuses."""
    skipped = curves["skipped"]
    if len(skipped) < LEAST or skipped.late.mean < 0.1:  # once in ten steps is no accident any more
        return None
    late = skipped.since(lambda mean: mean >= 0.1)
    what = f"updates are refused ({late.mean:.2g} a step over {late})"
    return Finding("refused", what, "skipped", late.first, late.last, "lower the learning rate, or look at the data")


def rising_loss(curves: Curves) -> Finding | None:
    """A training loss that goes up. PPO's has no trend."""
    loss = curves["loss"]
    if "score" in curves.named or not loss.long or not loss.before.mean < loss.late.mean > 1.05 * loss.early.mean:
        return None
    early, late = loss.early, loss.late
    what = f"the loss rises ({early.mean:.3g} over {early}, {late.mean:.3g} over {late})"
    return Finding("rising_loss", what, "loss", late.first, late.last, "lower the learning rate")


def flat_loss(curves: Curves) -> Finding | None:
    """A training loss that stays where it began."""
    loss = curves["loss"]
    if "score" in curves.named or not loss.long or abs(loss.late.mean - loss.early.mean) > 0.01 * abs(loss.early.mean):
        return None
    early, late = loss.early, loss.late
    what = f"nothing changes (loss {early.mean:.4g} over {early}, {late.mean:.4g} over {late})"
    return Finding("flat_loss", what, "loss", 1, late.last, "raise the learning rate")


def overfitting(curves: Curves) -> Finding | None:
    """Held-out loss that has risen by 2% from its best while the training loss fell on."""
    held, loss = curves["heldout_loss"], curves["loss"]
    if len(held) < 3:
        return None
    best = min(range(len(held)), key=lambda place: held.values[place])
    lowest, step = held.values[best], held.steps[best]
    behind = [value for at, value in zip(loss.steps, loss.values, strict=True) if at <= step][-LEAST:]
    rest = [value for at, value in zip(loss.steps, loss.values, strict=True) if at > step][-LEAST:]
    if len(held) - best < 3 or min(held.values[-2:]) < lowest + 0.02 * abs(lowest):  # two in a row are no luck
        return None
    if not behind or not rest or sum(rest) / len(rest) >= sum(behind) / len(behind):
        return None
    what = (
        f"the held-out loss rises since step {step} ({lowest:.3g} then, {held.values[-1]:.3g} at step {held.steps[-1]})"
        " while the training loss falls"
    )
    return Finding("overfitting", what, "heldout_loss", step, held.steps[-1], "take fewer epochs, or more data")


# Pairs -----------------------------------------------------------------------------------------------------------


def chance(curves: Curves) -> Finding | None:
    """A model of preferences that tells pairs apart no better than a coin: within 5 points of one half."""
    held = curves["heldout_accuracy"]
    accuracy = held if len(held) >= 2 else curves["accuracy"]
    if not curves["margin"].long or not len(accuracy):
        return None
    late = accuracy.stretch(max(0, len(accuracy) - (2 if accuracy is held else accuracy.width)), len(accuracy))
    if abs(late.mean - 0.5) >= 0.05:
        return None
    what = f"{'held-out ' * (accuracy is held)}accuracy is chance ({late.mean:.2f} over {late})"
    metric = "heldout_accuracy" if accuracy is held else "accuracy"
    return Finding("chance", what, metric, late.first, late.last, "give more or clearer pairs, or a better base")


def both_fall(curves: Curves) -> Finding | None:
    """DPO that widens the margin by making both answers less likely (Pal et al. 2024, arXiv 2402.13228)."""
    chosen, rejected, margin = (curves[name] for name in ("reward_chosen", "reward_rejected", "margin"))
    if not (chosen.long and rejected.long and margin.long):
        return None
    # the chosen answer's fall counts where it is half of the margin's growth: some of it comes with every margin
    fall = chosen.early.mean - chosen.late.mean
    if fall < 0.5 * (margin.late.mean - margin.early.mean) or rejected.late.mean >= rejected.early.mean or fall <= 0:
        return None
    late = chosen.late
    what = (
        f"the margin grows while both answers become less likely (chosen {late.mean:.3g}, rejected"
        f" {rejected.late.mean:.3g}, margin {margin.late.mean:.3g} over {late})"
    )
    return Finding("both_fall", what, "reward_chosen", late.first, late.last, "lower the rate, or raise beta")


# Rollouts: is anything learned? ----------------------------------------------------------------------------------


def critic(curves: Curves) -> Finding | None:
    """A critic that explains under a tenth of the returns, where these vary at all: solved tasks have none to explain.

    A critic that learns is at 0.3 to 0.9 by step 50.
    """
    explained, spread = curves["explained_variance"], curves["score_std"]
    if not explained.long or explained.late.mean >= 0.1:
        return None
    if len(spread) and spread.late.mean < 0.25 * max(spread.early.mean, 1e-9):
        return None
    late = explained.since(lambda mean: mean < 0.1)
    what = f"the critic isn't learning (explained variance {late.mean:.2f} over {late})"
    advice = "raise critic_learning_rate, or the passes over each batch"
    return Finding("critic", what, "explained_variance", late.first, late.last, advice)


def no_gradient(curves: Curves) -> Finding | None:
    """Steps that move nothing: all groups without variance, or all answers masked."""
    norm = curves["grad_norm"]
    if "score" not in curves.named or len(norm) < LEAST or norm.late.mean > 1e-8:
        return None
    late = norm.since(lambda mean: mean <= 1e-8)
    what = f"nothing is learned (gradient norm {late.mean:.1g} over {late})"
    return Finding(
        "no_gradient", what, "grad_norm", late.first, late.last, "give prompts whose answers score unequally"
    )


def flat_score(curves: Curves) -> Finding | None:
    """A score that is after thirty steps where it began, within a tenth of its answers' deviation, and no higher
    between. Nothing to mend where answers score all the same from the first step on: `constant` says so."""
    score = curves["score"]
    if not score.long or not len(curves["score_std"]) or curves["score_std"].early.mean < 1e-6:
        return None
    early, late, before = score.early, score.late, score.before
    if max(curves.rise(early.mean, late.mean), curves.rise(early.mean, before.mean)) >= 0.1 or curves.rises < -0.5:
        return None
    moved = curves["kl_per_token"]
    still = moved.long and abs(moved.late.mean) < 1e-3  # nats: a policy that learns is beyond after a few steps
    more = f", KL {moved.late.mean:.1g} nats a token" if moved.long else ""
    what = f"the score doesn't rise ({early.mean:.3g} over {early}, {late.mean:.3g} over {late}{more})"
    advice = "the policy stays where it was: raise the learning rate" if still else "look at the sampled answers"
    return Finding("flat_score", what, "score", early.first, late.last, advice)


def falling_score(curves: Curves) -> Finding | None:
    """A score that has lost half a deviation, and half of what it had gained, since its best stretch."""
    score = curves["score"]
    if not score.long:
        return None
    width, late = score.width, score.late
    stretches = [score.stretch(first, first + width) for first in range(0, len(score) - width + 1, width)]
    best = max(stretches, key=lambda stretch: stretch.mean)
    lost, gained = curves.rise(late.mean, best.mean), curves.rise(score.early.mean, best.mean)
    if lost < max(0.5, 0.5 * gained):
        return None
    what = f"the score falls ({best.mean:.3g} over {best}, {late.mean:.3g} over {late})"
    return Finding("falling_score", what, "score", best.last, late.last, "lower the learning rate, or stop at its best")


def constant(curves: Curves) -> Finding | None:
    """A part of the reward that is the same for every batch: it teaches nothing."""
    parts = {
        name: curve
        for name, curve in curves.starting("reward_").items()
        if name not in ("reward_chosen", "reward_rejected") and len(curve) >= 2 * LEAST
    }
    same = [name for name, curve in parts.items() if max(curve.values) - min(curve.values) < 1e-9]
    if not same:
        return None
    name, curve = same[0], parts[same[0]]
    others = f", and {len(same) - 1} more" if len(same) > 1 else ""
    what = (
        f"the reward {name.removeprefix('reward_')} is always {curve.values[0]:.3g}{others} ({curve.late.last} steps)"
    )
    level: Literal["warning", "note"] = "warning" if len(same) == len(parts) else "note"
    return Finding("constant", what, name, curve.steps[0], curve.steps[-1], "it teaches nothing: look at it", level)


def zero_variance(curves: Curves) -> Finding | None:
    """Groups whose answers all score alike, which teach nothing: more than half of them."""
    share, score = curves["zero_variance"], curves["score"]
    if len(share) < 2 * LEAST or share.late.mean <= 0.5:
        return None
    late = share.since(lambda mean: mean > 0.5)
    what = f"in most groups all answers score alike ({late.mean:.0%} over {late}"
    if len(score) < 2 * LEAST:
        return Finding("zero_variance", f"{what})", "zero_variance", late.first, late.last, "too easy or too hard")
    what += f", score {score.late.mean:.3g})"
    if curves.rise(score.early.mean, score.late.mean) >= 1:  # learned: nothing to mend
        return Finding("zero_variance", what, "zero_variance", late.first, late.last, "the task is solved", "note")
    spread = score.values
    # without learning it can only be told by where the score lies among all that were seen
    hard = score.late.mean - min(spread) <= max(spread) - score.late.mean
    if min(spread) >= 0 and max(spread) <= 1:  # shares of right answers
        hard = score.late.mean < 0.5
    advice = "the task is too hard: give easier prompts, or a better start" if hard else "the task is too easy"
    return Finding("zero_variance", what, "zero_variance", late.first, late.last, advice)


# Rollouts: is it what was meant? ---------------------------------------------------------------------------------


def length(curves: Curves) -> Finding | None:
    """A score that rose by what longer answers score more, and by nothing else.

    What a token more is worth within a batch is correlation x deviation of scores / deviation of lengths; what is left
    of the rise beyond that, times the growth, is the rise at equal length. Singhal et al. 2023 (arXiv 2310.03716) find
    most of RLHF's gain to be length.
    """
    score, tokens, together = curves["score"], curves["answer_tokens"], curves["length_correlation"]
    spread, widths = curves["score_std"], curves["answer_tokens_std"]
    if not (score.long and tokens.long and together.long and spread.long and widths.long):
        return None
    rose, grew = score.late.mean - score.early.mean, tokens.late.mean - tokens.early.mean
    related = (together.early.mean + together.late.mean) / 2
    if curves.rises < 0.5 or grew <= 0.1 * tokens.early.mean or related < 0.3:
        return None
    worth = [c.mean * s.mean / max(w.mean, 1e-9) for c, s, w in
             ((together.early, spread.early, widths.early), (together.late, spread.late, widths.late))]  # fmt: skip
    left = rose - grew * sum(worth) / 2
    if left > 0.25 * rose:
        return None
    late = score.late
    what = (
        f"the score grows with length only (answers grew from {tokens.early.mean:.3g} to {tokens.late.mean:.3g} tokens;"
        f" score-length correlation {related:.2f}; of a rise of {rose:.2g}, {max(left, 0.0):.2g} at equal length)"
    )
    return Finding("length", what, "length_correlation", tokens.early.first, late.last, "penalise length in the reward")


def hacked(curves: Curves) -> Finding | None:
    """A score that rises while that of another reward model on held-out prompts has fallen from its best (Gao et al.
    2023, arXiv 2210.10760): by a quarter of a deviation, twice in a row."""
    score = curves["score"]
    if not score.long:
        return None
    for name, other in curves.starting("heldout_other_").items():
        if len(other) < 4:
            continue
        best = max(range(len(other)), key=lambda place: other.values[place])
        highest, step = other.values[best], other.steps[best]
        then = [value for at, value in zip(score.steps, score.values, strict=True) if at <= step][-LEAST:]
        lost = [curves.rise(value, highest) for value in other.values[-2:]]
        if len(other) - best < 3 or min(lost) < 0.25 or not then:
            continue
        if curves.rise(sum(then) / len(then), score.late.mean) < 0.25:
            continue
        by = name.removeprefix("heldout_other_")
        what = (
            f"the reward is hacked: since step {step} the score rises ({sum(then) / len(then):.3g} to"
            f" {score.late.mean:.3g}) while that by {by} falls ({highest:.3g} to {other.values[-1]:.3g})"
        )
        return Finding("hacked", what, name, step, other.steps[-1], f"stop at step {step}, or mend the reward")
    return None


def memorised(curves: Curves) -> Finding | None:
    """A score that rises on the prompts that train, and by less than a tenth of that on those held out."""
    score, held = curves["score"], curves["heldout_score"]
    if not score.long or len(held) < 4 or curves.rises < 0.5:
        return None
    rose, gained = score.late.mean - score.early.mean, sum(held.values[-2:]) / 2 - held.values[0]
    if gained > 0.1 * rose:
        return None
    what = (
        f"the score rises on prompts that train only (by {rose:.2g}; on those held out {held.values[0]:.3g} at step"
        f" {held.steps[0]}, {held.values[-1]:.3g} at step {held.steps[-1]})"
    )
    return Finding("memorised", what, "heldout_score", held.steps[0], held.steps[-1], "give more prompts")


# Rollouts: does it hold together? --------------------------------------------------------------------------------


def kl(curves: Curves) -> Finding | None:
    """KL to the reference that has grown by half since the stretch before, beyond 0.1 nats a token, for nothing: the
    score rose by less than a quarter of a deviation meanwhile. Or that is beyond 10 nats a token, for whatever: then
    the two have nothing in common."""
    moved, score = curves["kl_per_token"], curves["score"]
    if not moved.long:
        return None
    late, before = moved.late, moved.before
    paid = score.long and curves.rise(score.before.mean, score.late.mean) >= 0.25
    if not late.mean > 10 and (late.mean < 0.1 or late.mean < 1.5 * before.mean or paid):
        return None
    what = f"KL runs away ({before.mean:.2g} nats a token over {before}, {late.mean:.2g} over {late})"
    advice = "raise kl_coefficient, or lower the learning rate"
    return Finding("kl", what, "kl_per_token", late.first, late.last, advice)


def negative_kl(curves: Curves) -> Finding | None:
    """KL below 0, which none is: answers were not drawn from what their log-probabilities say (top-p, another
    temperature, a stop that is forced)."""
    moved = curves["kl_per_token"]
    if len(moved) < LEAST or moved.late.mean > -0.01:  # k1's mean over ten batches is within 0.01 of it
        return None
    late = moved.since(lambda mean: mean <= -0.01)
    what = f"KL is negative ({late.mean:.2g} nats a token over {late}), which it can't be"
    advice = "answers aren't drawn from the policy's own distribution: look at how they are sampled"
    return Finding("negative_kl", what, "kl_per_token", late.first, late.last, advice)


def entropy(curves: Curves) -> Finding | None:
    """Entropy under a tenth of the first while the task isn't solved: answers to unlike prompts still score unlike, or
    the score has gained less than a deviation."""
    spread, deviation = curves["entropy"], curves["score_std"]
    if not spread.long or spread.early.mean <= 0 or spread.late.mean >= 0.1 * spread.early.mean:
        return None
    if not (deviation.long and curves["score"].long):
        return None
    if deviation.late.mean < 0.5 * deviation.early.mean and curves.rises >= 1:
        return None
    late = spread.since(lambda mean: mean < 0.1 * spread.early.mean)
    what = f"entropy collapses ({spread.early.mean:.3g} nats at first, {spread.late.mean:.2g} over {late})"
    advice = "lower the learning rate, raise entropy_coefficient or kl_coefficient"
    return Finding("entropy", what, "entropy", late.first, late.last, advice)


def noise(curves: Curves) -> Finding | None:
    """Entropy that has doubled while the score fell: answers become random."""
    spread = curves["entropy"]
    if not spread.long or spread.late.mean < 2 * max(spread.early.mean, 0.05) or curves.rises > -0.25:
        return None
    late = spread.late
    what = f"answers become random (entropy {spread.early.mean:.3g} nats at first, {late.mean:.3g} over {late})"
    return Finding("noise", what, "entropy", late.first, late.last, "lower the learning rate and entropy_coefficient")


def mismatch(curves: Curves) -> Finding | None:
    """Sampling and training that disagree about a token by more than 0.2 nats: as far as the clip lets an update go."""
    gap = curves["logprob_gap"]
    if len(gap) < LEAST or gap.late.mean <= 0.2:
        return None
    late = gap.since(lambda mean: mean > 0.2)
    what = f"sampling and training disagree (log-probabilities up to {late.mean:.2g} nats apart over {late})"
    advice = "the ratio isn't 1 at the first update: turn on the truncated importance weight"
    return Finding("mismatch", what, "logprob_gap", late.first, late.last, advice)


def ratio(curves: Curves) -> Finding | None:
    """A mean ratio that leaves 1. Over samples of the old policy it is 1 in expectation, whatever was learned."""
    mean = curves["ratio"]
    if len(mean) < LEAST or abs(mean.late.mean - 1) <= 0.1:
        return None
    late = mean.since(lambda value: abs(value - 1) > 0.1)
    what = f"the ratio leaves 1 ({late.mean:.3g} over {late})"
    return Finding("ratio", what, "ratio", late.first, late.last, "lower the learning rate, or take fewer updates")


def clipped(curves: Curves) -> Finding | None:
    """More than three tenths of the tokens clipped: most of a step is thrown away. Healthy is under two."""
    share = curves["clip_fraction"]
    if len(share) < LEAST or share.late.mean <= 0.3:
        return None
    late = share.since(lambda mean: mean > 0.3)
    what = f"the clip share is high ({late.mean:.2f} over {late})"
    return Finding("clipped", what, "clip_fraction", late.first, late.last, "lower the learning rate")


def endless(curves: Curves) -> Finding | None:
    """Fewer than half of the answers end, and no more of them than before."""
    ended = curves["eos_rate"]
    if len(ended) < 2 * LEAST or ended.late.mean >= 0.5 or ended.late.mean - ended.before.mean >= 0.05:
        return None
    late = ended.since(lambda mean: mean < 0.5)
    none = "answers never end" if late.mean < 0.02 else "most answers don't end"
    what = f"{none} ({late.mean:.0%} do over {late})"
    advice = "raise new_tokens or missing_eos_penalty, or tune on dialogues first"
    return Finding("endless", what, "eos_rate", late.first, late.last, advice)


Rule = Callable[[Curves], Finding | None]

RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        not_finite,
        hacked,
        length,
        memorised,
        kl,
        negative_kl,
        entropy,
        noise,
        mismatch,
        ratio,
        critic,
        falling_score,
        flat_score,
        no_gradient,
        zero_variance,
        constant,
        clipped,
        endless,
        overfitting,
        both_fall,
        chance,
        rising_loss,
        flat_loss,
        refused,
    )
}


def named(names: Sequence[str]) -> Sequence[str]:
    """These names of rules, each of which there is. Raises ValueError for another."""
    for name in names:
        if name not in RULES:
            raise ValueError(f"no rule {name!r}: choose among {', '.join(RULES)}")
    return names
