"""Which documents, dialogues, pairs or prompts a step of a training stage saw, told from the stage's record."""

from __future__ import annotations

from typing import Any

from datalake.errors import UserError
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.records import StageRecord

# A stage that trains in steps -> the table whose rows a step sees, by their `id`.
TABLES = {"pretrain": "documents", "sft": "conversations", "reward": "preferences", "ppo": "conversations"}


def rows_of_step(lake: Lake, record: StageRecord, step: int) -> list[dict[str, Any]]:
    """What a step (from 1, as `runs.metrics` counts) of a training stage saw, row by row: `id` and `tokens`.

    Of a document also `first_token`: tokens are a stretch of it. Ids are those of the table in `TABLES`. Tokens of a
    dialogue are those that fit, of a pair both answers' with their prompts, of PPO the prompt's.

    Raises:
        UserError: for a stage without steps, a step it didn't take, or one that an earlier version of the code trained.
    """
    from models.methods import order
    from models.training import config as configs
    from tasks.dialogues import HoldOut, dialogues, pairs, prompts
    from tasks.ppo import ppo
    from tasks.pretrain import pretrain
    from tasks.reward import reward
    from tasks.sft import sft
    from tasks.tokens import token_indices, training_documents

    stages = {stage.name: stage for stage in (pretrain, sft, reward, ppo)}
    name = record.stage
    if name not in stages:
        raise UserError(f"{name} trains no model, so it has no steps: give one of {', '.join(stages)}")
    if record.version != stages[name].version:
        raise UserError(
            f"this {name} was trained by another version of Headwater, which took other batches: run its recipe again"
        )
    settings = record.payload["config"]

    def folder(input: str) -> Any:
        return lake.path(record.inputs[input][0])  # type: ignore[arg-type]

    def table(input: str) -> Any:
        ref = record.inputs[input][0]
        assert isinstance(ref, TableRef)
        return ref

    if name == "pretrain":
        tokens = record.inputs["tokens"][0]
        assert isinstance(tokens, FolderRef)
        seed = int(record.payload["inputs"]["repetition_seed"])
        train, _ = training_documents(lake, table("mixture"), tokens, seed)
        shards = order.TokenShards(token_indices(lake, tokens))
        seen = order.pretrain_step(configs.PretrainConfig.model_validate(settings), shards, train, step)
        return [{"id": id, "first_token": first, "tokens": count} for id, first, count in seen]
    holdout = HoldOut.model_validate(record.payload["inputs"]["holdout"])
    if name == "reward":
        items, _ = pairs(lake, table("preferences"), holdout)
        config = configs.RewardConfig.model_validate(settings)
        found = order.reward_step(config, folder("base"), items, step)
    else:
        items, _ = dialogues(lake, table("conversations"), holdout)
        if name == "sft":
            messages = [row["messages"] for row in items]
            found = order.sft_step(configs.SftConfig.model_validate(settings), folder("base"), messages, step)
        else:
            found = order.ppo_step(
                configs.PpoConfig.model_validate(settings),
                folder("policy"),
                folder("reward_model"),
                prompts(items),
                step,
            )
    return [{"id": items[number]["id"], "tokens": tokens} for number, tokens in found]
