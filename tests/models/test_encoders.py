"""Masked tokens and cut spans: what is hidden, what it costs, and that a fresh encoder learns to tell it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM, BartConfig, BartForConditionalGeneration

from datalake.errors import UserError
from models.network import checkpoint
from models.network.build import build_model
from models.network.encoder_decoder import EncoderDecoder
from models.network.foreign import Foreign
from models.network.generate import generate
from models.objectives.masked_tokens import mask_tokens, masked_tokens
from models.objectives.span_corruption import Spans, corrupt_spans, span_corruption, span_lengths
from models.text.sampler import Batch
from models.training.epochs import draw

SHAPE = {"vocabulary": 64, "layers": 2, "width": 32, "heads": 4, "hidden": 48, "context": 64}
SPECIALS, MASK, SENTINELS = (0, 1, 2, 3), 3, [63, 62, 61, 60, 59]


def rows(number: int = 2, length: int = 20, seed: int = 0, up: int = 1) -> Batch:
    """Rows of two documents and some padding; each document counts up from where it starts, by `up`."""
    start = torch.randint(4, 40, (number, 2), generator=torch.Generator().manual_seed(seed))
    half = length // 2
    place = torch.arange(length).expand(number, length)
    segments = torch.where(place < half, 0, 1)
    segments[:, -2:] = -1
    positions = torch.where(segments == 0, place, place - half)
    tokens = (torch.where(segments == 0, start[:, :1], start[:, 1:]) + positions * up) % 54 + 4
    tokens[:, 0] = 1
    return Batch(torch.where(segments < 0, 0, tokens), torch.full_like(tokens, -100), positions, segments)


class TestMaskedTokens:
    def test_shares_are_those_of_the_paper_and_specials_are_never_chosen(self):
        batch = rows(400, 100)
        hidden = mask_tokens(batch, draw(7, 3), MASK, 60, SPECIALS)
        chosen = hidden.targets != -100
        plain = (batch.segments >= 0) & (batch.tokens > 3)
        assert not (chosen & ~plain).any()
        assert torch.equal(hidden.targets[chosen], batch.tokens[chosen])
        assert torch.equal(hidden.tokens[~chosen], batch.tokens[~chosen])
        number = int(chosen.sum())
        assert number / int(plain.sum()) == pytest.approx(0.15, abs=0.006)  # 3 deviations
        seen = hidden.tokens[chosen]
        same = seen == batch.tokens[chosen]
        assert float((seen == MASK).float().mean()) == pytest.approx(0.8, abs=0.02)
        assert float(same.float().mean()) == pytest.approx(0.1 + 0.1 / 56, abs=0.015)
        others = seen[(seen != MASK) & ~same]
        assert others.min() >= 4
        assert others.max() < 60
        assert len(others.unique()) > 50

    def test_what_is_chosen_depends_on_the_generator_alone(self):
        def tokens(seed: int, step: int) -> torch.Tensor:
            torch.manual_seed(np.random.randint(1000))
            return mask_tokens(rows(), draw(seed, step), MASK, 60, SPECIALS).tokens

        assert torch.equal(tokens(1, 5), tokens(1, 5))
        assert not torch.equal(tokens(1, 5), tokens(1, 6))
        assert not torch.equal(tokens(1, 5), tokens(2, 5))

    def test_the_loss_is_that_of_transformers_on_each_document_alone(self, tmp_path: Path):
        model = build_model({"family": "bert", **SHAPE}, seed=3)
        theirs = AutoModelForMaskedLM.from_pretrained(checkpoint.save(model, None, tmp_path / "bert"))
        batch = mask_tokens(rows(3), draw(1, 0), MASK, 60, SPECIALS, share=0.4)
        loss = masked_tokens(model, batch)
        expected = 0.0
        for tokens, targets, segments in zip(batch.tokens, batch.targets, batch.segments, strict=True):
            for number in (0, 1):
                here = segments == number
                logits = theirs(tokens[None, here]).logits[0]
                expected += F.cross_entropy(logits, targets[here], reduction="sum", ignore_index=-100).item()
        assert loss.targets == int((batch.targets != -100).sum())
        assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-4)
        assert float(loss.sums["loss"]) == pytest.approx(expected, rel=1e-4)

    def test_a_fresh_bert_learns_and_comes_back(self, tmp_path: Path):
        model = build_model({"family": "bert", **SHAPE}, seed=3).train()
        assert isinstance(model, Foreign)
        same = build_model({"family": "bert", **SHAPE}, seed=3)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
        optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
        losses = []
        for step in range(120):
            loss = masked_tokens(model, mask_tokens(rows(8, seed=step, up=0), draw(1, step), MASK, 60, SPECIALS))
            (loss.total / loss.targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.total.item() / loss.targets)
        assert losses[0] == pytest.approx(math.log(64), abs=0.3)
        assert sum(losses[-20:]) / 20 < 2.2
        again = checkpoint.load_model(checkpoint.save(model, None, tmp_path / "bert"))
        assert isinstance(again, Foreign)
        assert not again.causal
        x = rows().tokens
        assert torch.equal(again.logits(again(x)), model.eval().logits(model(x)))
        with pytest.raises(UserError, match="fills gaps in texts, it writes none"):
            generate(again, [[5, 6]], 3)


class TestSpanCorruption:
    def test_a_row_by_hand(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("models.objectives.span_corruption.span_lengths", lambda *_: [(2, 1), (1, 3)])
        tokens = torch.tensor([[10, 11, 12, 13, 14, 15, 16, 0]])
        segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1]])
        cut = corrupt_spans(Batch(tokens, tokens, tokens, segments), draw(0), SENTINELS)
        assert cut.tokens.tolist() == [[10, 11, 63, 13, 62]]
        assert cut.targets.tolist() == [[63, 12, 62, 14, 15, 16, 61]]
        assert cut.attend.all()

        class Told(torch.nn.Module):
            start, config = 9, SimpleNamespace(vocabulary=64)

            def forward(self, tokens, attend, written):
                self.written = written
                return F.one_hot(torch.full_like(written, 7), 64).float()

            def logits(self, hidden):
                return hidden * math.log(3)

        told = Told()
        loss = span_corruption(told, cut)
        assert told.written.tolist() == [[9, 63, 12, 62, 14, 15, 16]]
        # every target is one of 63 tokens of weight 1 beside one of weight 3
        assert float(loss.total) == pytest.approx(7 * math.log(66), rel=1e-5)
        assert loss.targets == 7

    @pytest.mark.parametrize("length", [2, 3, 7, 20, 100, 511])
    def test_spans_have_the_share_and_mean_that_were_asked_for(self, length: int):
        seen = set()
        for seed in range(30):
            lengths = span_lengths(length, np.random.default_rng(seed), 0.15, 3.0, 99)
            assert all(before >= 1 and span >= 1 for before, span in lengths)
            assert sum(before + span for before, span in lengths) == length
            noise = sum(span for _, span in lengths)
            assert noise == max(round(0.15 * length), 1)
            assert len(lengths) == max(round(noise / 3), 1)
            seen.add(tuple(lengths))
        assert len(seen) > 20 or length < 100
        assert span_lengths(1, np.random.default_rng(0), 0.15, 3.0, 99) == []
        assert len(span_lengths(511, np.random.default_rng(0), 0.15, 3.0, 4)) == 4

    def test_nothing_is_lost_and_the_generator_alone_decides(self):
        batch = rows(6, 40)
        cut = corrupt_spans(batch, draw(5, 2), SENTINELS)
        again = corrupt_spans(batch, draw(5, 2), SENTINELS)
        other = corrupt_spans(batch, draw(5, 3), SENTINELS)
        assert all(torch.equal(getattr(cut, name), getattr(again, name)) for name in Spans.__slots__)
        assert cut.tokens.shape != other.tokens.shape or not torch.equal(cut.tokens, other.tokens)
        for row in range(6):
            read = cut.tokens[row][cut.attend[row]].tolist()
            wanted = cut.targets[row][cut.targets[row] != -100].tolist()
            whole, spans = [], {}
            for token in wanted:
                if token in SENTINELS:
                    spans[token] = last = []
                else:
                    last.append(token)
            for token in read:
                whole += spans.pop(token) if token in SENTINELS else [token]
            assert whole == batch.tokens[row][batch.segments[row] >= 0].tolist()
            assert list(spans.values()) == [[]]  # the last sentinel

    def test_the_loss_is_that_of_transformers(self, tmp_path: Path):
        model = build_model({"family": "t5", **SHAPE}, seed=3)
        theirs = AutoModelForSeq2SeqLM.from_pretrained(checkpoint.save(model, None, tmp_path / "t5"))
        cut = corrupt_spans(rows(3), draw(1, 0), SENTINELS)
        loss = span_corruption(model, cut)
        mean = theirs(cut.tokens, attention_mask=cut.attend.long(), labels=cut.targets).loss
        assert loss.targets == int((cut.targets != -100).sum())
        assert float(loss.total.detach()) == pytest.approx(float(mean.detach()) * loss.targets, rel=1e-4)

    def test_a_fresh_t5_learns_and_comes_back(self, tmp_path: Path):
        model = build_model({"family": "t5", **SHAPE}, seed=3).train()
        assert isinstance(model, EncoderDecoder)
        optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
        losses = []
        for step in range(100):
            loss = span_corruption(model, corrupt_spans(rows(8, seed=step), draw(1, step), SENTINELS))
            (loss.total / loss.targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.total.item() / loss.targets)
        assert sum(losses[-20:]) / 20 < 0.5 * losses[0]
        again = checkpoint.load_model(checkpoint.save(model, None, tmp_path / "t5"))
        assert isinstance(again, EncoderDecoder)
        x = rows().tokens
        assert torch.equal(again(x, None, x), model.eval()(x, None, x))
        assert build_model({"family": "auto", "path": tmp_path / "t5", "task": "spans"}).start == 0


def test_an_encoder_decoder_with_another_head_is_compared_too(tmp_path: Path) -> None:
    config = BartConfig(vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    bart = BartForConditionalGeneration(config)
    bart.final_logits_bias += torch.arange(64)
    bart.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="BartForConditionalGeneration can't be trained exactly here: its logits"):
        checkpoint.load_model(tmp_path)
