"""Rollouts by vLLM (docs.vllm.ai), for a GPU: the interface of our own engine over its `LLM`, in this process.

Its kernels add in another order than training's pass, in bfloat16, so its log-probabilities differ: `logprob_gap` tells
by how much, and `importance_cap` weighs tokens by p / p_sampled. They are those of the distribution that was drawn from
(`logprobs_mode`), at the temperature; nothing narrows it.

New weights go through files: their names are those that vLLM reads, whatever the model is here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file
from torch import nn

from datalake.errors import UserError
from models.network import checkpoint
from models.network.lora import merged
from models.rl.answers import Answer, Observe, Sampling
from models.rl.engine import require_room

MEMORY = 0.4  # of the GPU: training has the rest


class Vllm:
    """Answers with the model as it was when `version` last moved. Raises UserError where vLLM isn't there."""

    exact = False

    def __init__(self, model: nn.Module, sampling: Sampling, words: Any) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # read when it is imported
        try:
            self.vllm = import_module("vllm")
        except ImportError:
            raise UserError(
                "engine: vllm isn't installed: pip install vllm, on a machine with a GPU, or set engine to process"
            ) from None
        self.model, self.sampling = model, sampling
        self.version = self._loaded = 0
        self.context = sampling.room(model)
        with TemporaryDirectory() as folder:
            self.llm: Any = self.vllm.LLM(
                model=str(self._write(folder, words)),
                skip_tokenizer_init=True,
                dtype="bfloat16",
                logprobs_mode="processed_logprobs",
                max_model_len=self.context,
                gpu_memory_utilization=MEMORY,
            )

    def __call__(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], observe: Observe | None = None
    ) -> list[Answer]:
        """As `models.rl.answers.Engine`; all rows write a turn before any writes its next.

        Raises UserError where a prompt is empty, or leaves no room for an answer.
        """
        require_room(prompts, self.context)
        if self._loaded != self.version:
            with TemporaryDirectory() as folder:
                self.llm.apply_model(partial(_load, self._write(folder)))
            self.llm.reset_prefix_cache()  # which holds what the old weights made
            self._loaded = self.version
        answers = [Answer(list(prompt), version=self.version) for prompt in prompts]
        writing, turn = list(range(len(answers))), 0
        while writing:
            outputs = self.llm.generate(
                [{"prompt_token_ids": answers[row].prompt + answers[row].tokens} for row in writing],
                [self._parameters(answers[row], seeds[row] + turn) for row in writing],
                use_tqdm=False,
            )
            turns = zip(writing, outputs, strict=True)
            writing = [row for row, written in turns if self._follow(row, answers[row], written.outputs[0], observe)]
            turn += 1
        return answers

    def _write(self, folder: str, words: Any = None) -> Path:
        whole = merged(self.model) if hasattr(self.model, "lora") else self.model
        return checkpoint.save(whole, words, Path(folder) / "policy")

    def _parameters(self, answer: Answer, seed: int) -> Any:
        sampling, length = self.sampling, len(answer.prompt) + len(answer.tokens)
        rows = int(self.model.config.vocabulary)  # type: ignore[union-attr, arg-type]
        spare = sampling.vocabulary is not None and sampling.vocabulary < rows
        return self.vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=1.0,
            top_k=0,
            seed=seed,
            max_tokens=min(sampling.new_tokens - sum(answer.written), self.context - length),
            stop_token_ids=list(sampling.stop_ids),
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            allowed_token_ids=list(range(sampling.vocabulary or 0)) if spare else None,
        )

    def _follow(self, row: int, answer: Answer, output: Any, observe: Observe | None) -> bool:
        """Adds what was written, and what a tool gives back; whether the row goes on."""
        tokens = list(output.token_ids)
        answer.tokens += tokens
        answer.written += [True] * len(tokens)
        answer.log_probs += [told[token].logprob for token, told in zip(tokens, output.logprobs, strict=True)]
        if not tokens or tokens[-1] not in self.sampling.stop_ids:
            return False
        more = observe(row, answer) if observe else None
        if more is None:
            answer.ended = True
            return False
        length = len(answer.prompt) + len(answer.tokens) + len(more)
        if sum(answer.written) == self.sampling.new_tokens or length >= self.context:
            return False
        answer.tokens += more
        answer.written += [False] * len(more)
        answer.log_probs += [0.0] * len(more)
        return True


def _load(folder: Path, model: Any) -> None:
    """Gives vLLM's own model the weights of a folder, where it lies."""
    files = sorted(folder.glob("*.safetensors"))
    model.load_weights((name, weight) for file in files for name, weight in load_file(file).items())
