"""The configs of dialogues and of pairs of answers. Imports nothing heavier than pydantic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from datalake.identity import Paths
from datalake.sources.config import HEADER, PATHS, SourceConfig
from datalake.text.language_config import Language


class Conversations(SourceConfig):
    """Dialogues to learn from: Alpaca, ShareGPT and related formats."""

    kind: Literal["conversations"] = "conversations"
    paths: Paths = PATHS
    format: Literal[
        "auto", "alpaca", "dolly", "instances", "pairs", "sharegpt", "messages", "glaive", "moss", "openassistant"
    ] = Field(default="auto", title="Format", description="`auto` looks at each row's keys.")
    header: tuple[str, ...] = HEADER
    paths_of_tree: Literal["best", "all"] = Field(
        default="best",
        title="Dialogues of a tree",
        description="The best-ranked way down each tree of replies (OpenAssistant), or every way to a last answer.",
    )
    tools: Literal["attributes", "system"] = Field(
        default="attributes",
        title="Tools",
        description="Where the tools that a dialogue may call are kept: in its attributes alone, or also at the end of "
        "its system message, one JSON object a line.",
    )
    language: Language = Field(default=Language(), title="Language identification")


class Preferences(SourceConfig):
    """Pairs of a preferred and another answer: HH-RLHF, DPO and related formats."""

    kind: Literal["preferences"] = "preferences"
    paths: Paths = PATHS
    format: Literal[
        "auto", "hh", "dpo", "messages", "rejected", "shp", "safe", "compared", "summaries", "kto", "ratings"
    ] = Field(default="auto", title="Format", description="`auto` looks at each row's keys.")
    header: tuple[str, ...] = HEADER
    prefer: Literal["better", "safer"] = Field(
        default="better",
        title="Which answer is preferred",
        description="In rows that judge helpfulness and safety apart (PKU-SafeRLHF).",
    )
    least_ratio: float = Field(
        default=1.0,
        ge=1.0,
        le=1_000.0,
        title="Least ratio of scores",
        description="Pairs whose scores are nearer to each other are refused (SHP's `score_ratio`; its authors: 2).",
    )
    language: Language = Field(default=Language(), title="Language identification")
