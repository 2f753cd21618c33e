"""Objectives against what a calculation by hand, or torch's plain loss, says."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.network.build import ScalarHead, build_model
from models.network.config import NetworkConfig
from models.objectives.assistant_tokens import assistant_tokens, collate
from models.objectives.base import IGNORED, cross_entropy_sum
from models.objectives.bradley_terry import bradley_terry, bradley_terry_loss, final_scores, right_padded
from models.objectives.bradley_terry import collate as collate_pairs
from models.objectives.next_token import next_token
from models.text.sampler import Batch
from models.training.loop import split

SHAPE = NetworkConfig(vocabulary=64, layers=2, width=32, heads=4, kv_heads=2, context=32)


@pytest.fixture
def model():
    return build_model(SHAPE, seed=3)


def packed(*rows):
    """Rows of documents (lists of tokens), packed as the sampler packs: no target crosses a document."""
    width = max(sum(map(len, row)) for row in rows)
    tokens, targets = torch.zeros(len(rows), width).long(), torch.full((len(rows), width), IGNORED)
    positions, segments = torch.zeros(len(rows), width).long(), torch.full((len(rows), width), -1)
    for place, row in enumerate(rows):
        at = 0
        for number, document in enumerate(row):
            end = at + len(document)
            tokens[place, at:end] = torch.tensor(document)
            targets[place, at : end - 1] = torch.tensor(document[1:])
            positions[place, at:end] = torch.arange(len(document))
            segments[place, at:end] = number
            at = end
    return Batch(tokens, targets, positions, segments)


def alone(model, document):
    """The summed loss of one document by itself, in the plainest way."""
    tokens = torch.tensor([document])
    return F.cross_entropy(model.logits(model(tokens[:, :-1]))[0], tokens[0, 1:], reduction="sum")


class TestNextToken:
    documents = ([1, 5, 9, 2, 7], [1, 8, 8], [1, 30, 31, 32, 33, 34, 35])

    def test_packed_documents_cost_what_each_costs_alone(self, model):
        a, b, c = self.documents
        loss = next_token()(model, packed([a, b], [c]))
        assert loss.targets == 4 + 2 + 6
        expected = sum(alone(model, document) for document in self.documents)
        torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-5)

    def test_without_the_mask_the_second_document_sees_the_first(self, model):
        a, b, _ = self.documents
        batch = packed([a, b])
        masked, free = next_token()(model, batch), next_token(mask_documents=False)(model, batch)
        assert masked.targets == free.targets
        assert abs(float(masked.total - free.total)) > 1e-4

    def test_eight_micro_batches_give_the_gradient_of_one(self, model):
        rows = [[[1, *range(2, 3 + row)]] for row in range(8)]
        batch = packed(*rows)
        gradients = []
        for parts in (1, 8):
            model.zero_grad()
            losses = [next_token()(model, part) for part in split(batch, parts)]
            targets = sum(loss.targets for loss in losses)
            (sum(loss.total for loss in losses) / targets).backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)

    def test_z_loss_is_its_weight_times_the_mean_squared_log_partition(self):
        logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
        plain, total = cross_entropy_sum(logits, torch.arange(7), z_loss=1e-4)
        assert float(total - plain) / 7 == pytest.approx(1e-4 * float(logits.logsumexp(-1).square().mean()), rel=1e-2)
        assert float(plain) == pytest.approx(float(F.cross_entropy(logits, torch.arange(7))) * 7, rel=1e-5)


class TestAssistantTokens:
    def test_only_the_assistants_tokens_count_and_padding_changes_nothing(self, model):
        short = ([1, 4, 5, 6, 7], [False, False, False, True, True])
        long = ([1, *range(10, 20)], [False] * 8 + [True] * 3)
        together = assistant_tokens(model, collate([short, long]))
        apart = [assistant_tokens(model, collate([one])) for one in (short, long)]
        assert together.targets == 5
        torch.testing.assert_close(together.total, apart[0].total + apart[1].total, rtol=1e-5, atol=1e-5)
        log_probs = model.logits(model(torch.tensor([short[0][:-1]])))[0].log_softmax(-1)
        by_hand = -(log_probs[2, 6] + log_probs[3, 7])
        torch.testing.assert_close(apart[0].total, by_hand, rtol=1e-5, atol=1e-5)

    def test_a_first_token_is_never_a_target(self):
        batch = collate([([3, 4], [True, True])])
        assert batch.tokens.tolist() == [[3]]
        assert batch.targets.tolist() == [[4]]


class TestBradleyTerry:
    def test_a_head_at_zero_starts_at_ln_2(self, model):
        loss = bradley_terry()(ScalarHead(model, "zero"), collate_pairs([([1, 2, 3], [1, 2]), ([4, 5], [6, 7, 8, 9])]))
        assert loss.targets == 2
        assert float(loss.total) / 2 == pytest.approx(math.log(2), rel=1e-6)
        assert float(loss.sums["accuracy"]) / 2 == 0.5

    def test_by_hand(self):
        margins = torch.tensor([0.0, 2.0, -1.0])
        expected = [math.log(1 + math.exp(-margin)) for margin in margins.tolist()]
        assert bradley_terry_loss(margins).tolist() == pytest.approx(expected, rel=1e-5)
        smoothed = bradley_terry_loss(margins, 0.2)[1]
        assert float(smoothed) == pytest.approx(0.8 * math.log(1 + math.exp(-2)) + 0.2 * math.log(1 + math.exp(2)))

    def test_with_a_fifth_of_labels_wrong_no_margin_goes_below_their_entropy(self):
        losses = bradley_terry_loss(torch.linspace(-6, 6, 1001), 0.2)
        assert float(losses.min()) == pytest.approx(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)), abs=1e-4)

    def test_a_score_is_read_at_the_last_token_whatever_the_padding(self, model):
        head = ScalarHead(model, "normal", torch.Generator().manual_seed(0))
        dialogues = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10]]
        together = final_scores(head, *right_padded(dialogues))
        apart = torch.cat([final_scores(head, *right_padded([dialogue])) for dialogue in dialogues])
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
        assert len({round(value, 4) for value in together.tolist()}) == 3
