"""Keys and values of rows that come and go: each row has a slot, which the next row takes when it ends.

A row's tokens stand at its own positions, from 0 on: nothing is padded on the left, and rows of any age are read in one
pass. How many keys a pass attends to is a multiple of `KEYS`: softmax and products then sum in the same order however
many masked keys follow, so that a row's numbers don't depend on how far its neighbours are.

Letters in names: B rows of a pass, T their new tokens, S tokens, N tokens of all rows, H heads, K width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.network.config import round_up
from models.network.foreign import TOLERANCE, Foreign, ForeignCache, short_windows

KEYS = 16  # as many float32 as the widest vector register holds (AVX-512)

_SLOTTED: dict[tuple[type, str], bool] = {}  # class and config of other families: whether their caches can have slots


class Slots:
    """A cache with a slot for each of `rows` rows, in the place of `KVCache` and of Transformers' own caches.

    width: tokens that a row has room for; it grows where a pass needs more.
    """

    def __init__(self, model: nn.Module, rows: int, width: int) -> None:
        self.model: Any = model
        self.rows, self.width = rows, round_up(width, KEYS)
        self.device = next(model.parameters()).device
        self.length = 0  # what a plain cache counts: here every pass says where its tokens stand
        self.columns_BT: Tensor | None = None
        # Flat: a token's place is slot x width + position. The last one is for padding, and never read.
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        if isinstance(model, Foreign):
            self.inner = _handed_on(self)

    def read(self, slots: list[int] | slice, tokens_BT: Tensor, starts_B: Tensor, counts_B: Tensor) -> Tensor:
        """Reads each row's next tokens, padded on the right, from position `starts` on, `counts` of them; returns the
        hidden states (B, D) of the last."""
        T = tokens_BT.shape[1]
        steps = torch.arange(T, device=self.device)
        last_B = starts_B + counts_B - 1
        columns_BT = torch.minimum(starts_B[:, None] + steps, last_B[:, None])
        self._reach = round_up(int(last_B.max()) + 1, KEYS)
        self._grow(self._reach)
        chosen = slots if isinstance(slots, slice) else torch.tensor(slots, device=self.device)
        numbers = torch.arange(self.rows, device=self.device)[chosen]
        where_BT = numbers[:, None] * self.width + columns_BT
        if T > 1:
            where_BT = where_BT.masked_fill(steps >= counts_B[:, None], self.rows * self.width)
        self._chosen, self._where, self.columns_BT = chosen, where_BT.flatten(), columns_BT
        attend = torch.arange(self._reach, device=self.device) <= columns_BT[:, None, :, None]
        hidden_BTD: Tensor = self.model(tokens_BT, columns_BT, attend, self)
        return hidden_BTD[:, 0] if T == 1 else hidden_BTD[torch.arange(len(starts_B)), counts_B - 1]

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of the tokens now (B, H, T, K); returns those of the pass's rows (B, H, S, K)."""
        if layer not in self._layers:
            places = self.rows * self.width + 1
            self._layers[layer] = (
                keys.new_zeros(places, keys.shape[1], keys.shape[3]),
                values.new_zeros(places, values.shape[1], values.shape[3]),
            )
        kept = self._layers[layer]
        return self._put(kept[0], keys), self._put(kept[1], values)

    def _put(self, kept: Tensor, new_BHTK: Tensor) -> Tensor:
        kept.index_copy_(0, self._where, new_BHTK.transpose(1, 2).flatten(0, 1))
        return self._by_slot(kept)[self._chosen, : self._reach].transpose(1, 2)

    def _by_slot(self, kept: Tensor) -> Tensor:
        return kept[:-1].view(self.rows, self.width, *kept.shape[1:])

    def advance(self, tokens: int) -> None:
        """A plain cache would count: here every pass says where its tokens stand."""

    def move(self, source: int, target: int, tokens: int) -> None:
        """Gives a row of so many tokens another slot."""
        for layer in self._layers.values():
            for kept in map(self._by_slot, layer):
                kept[target, :tokens] = kept[source, :tokens]

    def _grow(self, width: int) -> None:
        if width <= self.width:
            return
        before, self.width = self.width, round_up(max(width, self.width * 3 // 2), KEYS)
        for number, layer in self._layers.items():
            grown = []
            for kept in layer:
                wider = kept.new_zeros(self.rows * self.width + 1, *kept.shape[1:])
                self._by_slot(wider)[:, :before] = kept[:-1].view(self.rows, before, *kept.shape[1:])
                grown.append(wider)
            self._layers[number] = (grown[0], grown[1])


class Recomputed:
    """The same for a family whose cache can't have slots: rows are read anew, from their first token."""

    def __init__(self, model: nn.Module, rows: int, width: int) -> None:
        self.model = model
        self.tokens = torch.zeros(rows, round_up(width, KEYS), dtype=torch.long, device=next(model.parameters()).device)

    def read(self, slots: list[int] | slice, tokens_BT: Tensor, starts_B: Tensor, counts_B: Tensor) -> Tensor:
        """As `Slots.read`."""
        ends_B = starts_B + counts_B
        longest = int(ends_B.max())
        if longest > self.tokens.shape[1]:
            self.tokens = F.pad(self.tokens, (0, round_up(longest, KEYS) - self.tokens.shape[1]))
        numbers = range(len(self.tokens))[slots] if isinstance(slots, slice) else slots
        for row, slot in enumerate(numbers):
            self.tokens[slot, int(starts_B[row]) : int(ends_B[row])] = tokens_BT[row, : int(counts_B[row])]
        hidden_BSD = whole_pass(self.model, self.tokens[list(numbers), :longest])
        return hidden_BSD[torch.arange(len(ends_B)), ends_B - 1]

    def move(self, source: int, target: int, tokens: int) -> None:
        """Gives a row of so many tokens another slot."""
        self.tokens[target, :tokens] = self.tokens[source, :tokens]


def whole_pass(model: nn.Module, tokens_BS: Tensor) -> Tensor:
    """Hidden states (B, S, D) of rows padded on the right, with keys and masks as reading in slots has them."""
    S = tokens_BS.shape[1]
    width, context = round_up(S, KEYS), int(model.config.context)  # type: ignore[union-attr, arg-type]
    attend = torch.ones(width, width, dtype=torch.bool, device=tokens_BS.device).tril()[None, None]
    positions = torch.arange(width, device=tokens_BS.device).clamp(max=context - 1)[None]
    states: Tensor = model(F.pad(tokens_BS, (0, width - S)), positions, attend)
    return states[:, :S]


def slots_for(model: nn.Module, rows: int, width: int) -> Slots | Recomputed:
    """Slots for so many rows; for families of Transformers' own where that was found to say what a whole pass says."""
    if isinstance(model, Foreign):
        kind = type(model.inner), model.inner.config.to_json_string()
        if kind not in _SLOTTED:
            _SLOTTED[kind] = _agrees(model)
        if not _SLOTTED[kind]:
            return Recomputed(model, rows, width)
    return Slots(model, rows, width)


@torch.no_grad()
def _agrees(model: Foreign) -> bool:
    if not isinstance(model.new_cache(1, 1), ForeignCache):
        return False
    device, lengths = next(model.parameters()).device, (12, 9)
    tokens = (torch.arange(24, device=device).view(2, 12) * 7 + 3) % model.config.vocabulary
    try:
        with short_windows(model.settings), device:
            slots = Slots(model, 3, 8)
            starts, counts = torch.tensor([0, 0]), torch.tensor([length - 2 for length in lengths])
            slots.read([2, 0], tokens[:, : max(lengths) - 2], starts, counts)
            for _ in range(2):
                starts, counts = starts + counts, torch.ones_like(counts)
                found = slots.read([2, 0], tokens.gather(1, starts[:, None]), starts, counts)
            expected = torch.cat([model(tokens[row : row + 1, :length])[:, -1] for row, length in enumerate(lengths)])
    except Exception:  # a family's own code may trip over anything
        return False
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-12)).max()) < TOLERANCE


def _handed_on(slots: Slots) -> Any:
    """Transformers' cache whose keys and values lie in slots."""
    from transformers import Cache

    class Handed(Cache):
        def __init__(self) -> None:
            super().__init__(layers=[])

        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            return slots.put(layer_idx, key_states, value_states)

    return Handed()
