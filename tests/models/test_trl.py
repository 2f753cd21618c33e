"""Losses of tuning and preferences equal those of TRL's trainers on the same weights and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import base, words
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from models.network import checkpoint
from models.network.build import ScalarHead
from models.objectives import assistant_tokens as sft
from models.objectives import bradley_terry, dpo, kto
from models.objectives.answers import answer_log_probs, as_rows
from models.text.packing import Answers

trl: Any = pytest.importorskip("trl")
datasets: Any = pytest.importorskip("datasets")

PAIRS = [
    Answers([1, 20, 21, 30, 31, 6], [1, 20, 21, 32], 3),
    Answers([1, 40, 50], [1, 40, 41, 42, 43, 44, 6], 2),
    Answers([1, 60, 61, 62, 63, 6], [1, 60, 64, 65, 6], 2),
]
CLOSE: dict[str, Any] = {"abs": 1e-6, "rel": 1e-6}


class World:
    """A tuned model and its reference, as ours and as Transformers has them; TRL's trainers around the latter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words = words(folder / "tokenizer")
        start = base(folder / "reference", self.words)
        model, _ = checkpoint.load(start)
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        checkpoint.save(model, self.words, folder / "tuned")
        self.model, self.reference = model, checkpoint.load(start)[0]

    def theirs(self, name: str, kind: Any = AutoModelForCausalLM) -> Any:
        return kind.from_pretrained(self.folder / name).eval()

    def trainer(self, made: Any, settings: Any, rows: list[dict[str, Any]], **more: Any) -> Any:
        words: PreTrainedTokenizerBase = self.words
        model = more.pop("model", None) or self.theirs("tuned")
        shared = {"output_dir": str(self.folder / "out"), "report_to": [], "use_cpu": True, "bf16": False}
        args = settings(**shared, **more.pop("args", {}))
        return made(
            model=model, args=args, train_dataset=datasets.Dataset.from_list(rows), processing_class=words, **more
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("trl"))


def loss_of(trainer: Any, examples: list[dict[str, Any]]) -> float:
    with torch.no_grad():
        trainer.model.eval()
        return float(trainer.compute_loss(trainer.model, trainer.data_collator(examples)))


@torch.no_grad()
def ours(world: World, objective: Any, batch: Any) -> float:
    loss = objective(world.model, batch)
    return float(loss.total) / int(loss.targets)


@pytest.mark.parametrize(
    ("theirs", "settings"),
    [
        ("sigmoid", {}),
        ("ipo", {"kind": "ipo"}),
        ("sigmoid_norm", {"per_token": True}),
        # of one pair at a time this is plain DPO with its labels smoothed (theirs has no smoothing of `sigmoid` itself)
        ("aot", {"label_smoothing": 0.2}),
    ],
)
def test_dpo(world: World, theirs: str, settings: dict[str, Any]) -> None:
    args = {"beta": 0.3, "loss_type": [theirs], "label_smoothing": settings.get("label_smoothing", 0.0)}
    rows = [{"prompt": "the cat", "chosen": " sees", "rejected": " eats"}]
    trainer = world.trainer(trl.DPOTrainer, trl.DPOConfig, rows, args=args, ref_model=world.theirs("reference"))
    for pairs in [[pair] for pair in PAIRS] if theirs == "aot" else [PAIRS]:
        wanted = loss_of(
            trainer,
            [
                {
                    "prompt_ids": pair.chosen[: pair.start],
                    "chosen_ids": pair.chosen[pair.start :],
                    "rejected_ids": pair.rejected[pair.start :],
                }
                for pair in pairs
            ],
        )
        mean = settings.get("per_token", False) or settings.get("kind") == "ipo"
        with torch.no_grad():
            rows = as_rows([(ids, pair.start) for pair in pairs for ids in pair[:2]])
            before = answer_log_probs(world.reference, *rows, mean).view(-1, 2)
        assert ours(world, dpo.dpo(0.3, **settings), dpo.collate(pairs, before)) == pytest.approx(wanted, **CLOSE)


def test_sft(world: World) -> None:
    dialogues = [
        ([1, 20, 21, 30, 31, 6], [False, False, False, True, True, True]),
        ([1, 40, 50, 51, 6, 7, 60, 6], [False, False, True, True, True, False, True, True]),
    ]
    trainer = world.trainer(trl.SFTTrainer, trl.SFTConfig, [{"text": "the cat sees the tree."}])
    wanted = loss_of(
        trainer,
        [
            {"input_ids": ids, "labels": [id if on else -100 for id, on in zip(ids, mask, strict=True)]}
            for ids, mask in dialogues
        ],
    )
    assert ours(world, sft.assistant_tokens, sft.collate(dialogues)) == pytest.approx(wanted, **CLOSE)


KTO_WEIGHTS = {"desirable_weight": 1.3, "undesirable_weight": 0.7}


def test_kto(world: World) -> None:
    judged = [
        kto.Judged(ids, pair.start, good)
        for pair in PAIRS
        for ids, good in ((pair.chosen, True), (pair.rejected, False))
    ]
    judged = [*judged[::2], *judged[1::2]]  # no two neighbours have one prompt, so that theirs are mismatched too
    others = kto.mismatched(judged, 24)
    theirs = [(one.tokens[: one.start], one.tokens[one.start :]) for one in judged]
    assert others[0] == (theirs[0][0] + theirs[1][1], len(theirs[0][0]))
    trainer = world.trainer(
        trl.KTOTrainer,
        trl.KTOConfig,
        [{"prompt": "the cat", "completion": " sees", "label": label} for label in (True, False)],
        args={"beta": 0.3, **KTO_WEIGHTS},
        ref_model=world.theirs("reference"),
    )
    for sign in (1, -1):  # the model away from its reference, and the reference away from the model: a point of 0
        now, before = (world.model, world.reference) if sign == 1 else (world.reference, world.model)
        trainer.model.load_state_dict(world.theirs("tuned" if sign == 1 else "reference").state_dict())
        trainer.ref_model.load_state_dict(world.theirs("reference" if sign == 1 else "tuned").state_dict())
        wanted = loss_of(
            trainer,
            [
                {
                    "prompt_ids": prompt,
                    "completion_ids": answer,
                    "KL_completion_ids": ids[start:],
                    "label": one.desirable,
                }
                for (prompt, answer), (ids, start), one in zip(theirs, others, judged, strict=True)
            ],
        )
        with torch.no_grad():
            said = [answer_log_probs(model, *as_rows(others)) for model in (now, before)]
            point = kto.baseline(*said)
            reference = answer_log_probs(before, *as_rows([one[:2] for one in judged]))
            loss = kto.kto(0.3, **KTO_WEIGHTS)(now, kto.collate(judged, reference, point))
        assert float(loss.total) / int(loss.targets) == pytest.approx(wanted, **CLOSE)


@pytest.mark.parametrize(("margins", "centring"), [(None, 0.0), ([0.3, 1.0, 0.0], 0.0), ([0.3, 1.0, 0.0], 0.05)])
def test_reward(world: World, margins: list[float] | None, centring: float) -> None:
    model = ScalarHead(world.model, "normal", torch.Generator().manual_seed(1))
    classifier = AutoModelForSequenceClassification.from_pretrained(world.folder / "tuned", num_labels=1)
    with torch.no_grad():
        classifier.score.weight.copy_(model.head.weight)
    classifier.config.pad_token_id = 0
    trainer = world.trainer(
        trl.RewardTrainer,
        trl.RewardConfig,
        [{"chosen": "the cat sees", "rejected": "the cat eats"}],
        args={"center_rewards_coefficient": centring or None, "disable_dropout": True},
        model=classifier,
    )
    told = [{} if margins is None else {"margin": margin} for margin in margins or [0.0] * len(PAIRS)]
    examples = [
        {"chosen_ids": pair.chosen, "rejected_ids": pair.rejected, **more}
        for pair, more in zip(PAIRS, told, strict=True)
    ]
    trainer.model.config.pad_token_id = trainer.data_collator.pad_token_id
    wanted = loss_of(trainer, examples)
    with torch.no_grad():
        loss = bradley_terry.bradley_terry(centring=centring)(model, bradley_terry.collate(PAIRS, margins))
    assert float(loss.total) / int(loss.targets) == pytest.approx(wanted, **CLOSE)
