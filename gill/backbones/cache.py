"""Keys and values of what a language model has read.

Shape legend: B = rows, H = heads, S = tokens so far, N = new tokens.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

_MIN_ROOM = 64  # tokens


class KeptLayer(DynamicLayer):
    """One layer's keys and values, the first of which are kept as they come: `transformers` joins them with nothing."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep float[B, H, N, D] of both, and give back float[B, H, S + N, D]."""
        if self.is_initialized:
            return super().update(key_states, value_states, *args, **kwargs)
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        return key_states, value_states


def reading_cache() -> Cache:
    """An empty cache for few passes, through which gradient flows."""
    return Cache(layer_class_to_replicate=KeptLayer)


class GrowingLayer(DynamicLayer):
    """One layer's keys and values in buffers with room to spare, so that a token is written without copying the others.

    `transformers` joins all keys with the new one at every token: of 16 rows of an OPT-125m, two fifths of decoding.
    For use without gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: Tensor | None
        self.values: Tensor | None
        self._rooms: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep float[B, H, N, D] of both, and give back float[B, H, S + N, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        rooms = self._rooms
        if rooms is None or end > rooms[0].shape[-2] or not _lies_in(self.keys, rooms[0]):
            rooms = _with_room(self.keys, key_states, end), _with_room(self.values, value_states, end)
        for room, new in zip(rooms, (key_states, value_states), strict=True):
            room[..., length:end, :] = new
        self._rooms, (self.keys, self.values) = rooms, (room[..., :end, :] for room in rooms)
        return self.keys, self.values


def decoding_cache() -> Cache:
    """An empty cache for many passes of a few tokens each, without gradient."""
    return Cache(layer_class_to_replicate=GrowingLayer)


class EverythingKept(Exception):
    """Not an error: the last layer has given its keys and values, which is all that was asked for."""


class KeyValueReader(Cache):
    """A cache that ends a language model's pass as soon as it holds the keys and values of all layers.

    What would follow in the last layer, its attention and its feed-forward network, makes states, which nobody wants
    who comes for the cache.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__(layer_class_to_replicate=KeptLayer)
        self._last = num_layers - 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep float[B, H, N, D] of both.

        Raises:
            EverythingKept: by the last layer.
        """
        kept = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if layer_idx == self._last:
            raise EverythingKept
        return kept

    def filled(self) -> Cache:
        """An ordinary cache that holds the same."""
        cache = reading_cache()
        cache.layers = self.layers
        return cache


def _lies_in(held: Tensor | None, room: Tensor) -> bool:
    """Whether `held` is the beginning of the buffer; rows that were selected or repeated are held elsewhere."""
    return held is not None and held.data_ptr() == room.data_ptr()


def _with_room(held: Tensor | None, new: Tensor, end: int) -> Tensor:
    """A buffer for `end` tokens and half as many more, which begins with what is held."""
    room = new.new_empty((*new.shape[:-2], end + max(_MIN_ROOM, end // 2), new.shape[-1]))
    if held is not None and held.numel():
        room[..., : held.shape[-2], :] = held
    return room
