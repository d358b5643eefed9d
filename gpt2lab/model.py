"""GPT-2: blocks of causal attention and MLP on a residual stream, under a tied head.

Names are those of the published weights, which load by name: `wte wpe h.{i}.ln_1 attn.c_attn
attn.c_proj ln_2 mlp.c_fc mlp.c_proj ln_f`. Shapes: B batch, T tokens, C = n_embd, H heads,
D = C / H, V vocabulary, S positions of a cache.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt2lab.batch import Batch
from gpt2lab.config import GPT2Config
from gpt2lab.config.check.train import model_problems
from gpt2lab.errors import ConfigError
from gpt2lab.loss import prefix_masked_cross_entropy, score_targets

if TYPE_CHECKING:
    from gpt2lab.generation.speech import Speech

LAYER_NORM_EPS = 1e-5
INIT_STD = 0.02
TOKENS_AT_ONCE = 256
"""Tokens of prompts that a CPU reads at once: what is computed of them stays in its caches."""


def stored_rows(vocab_size: int) -> int:
    """Rows of the embedding: a large vocabulary is rounded up to a multiple of 128.

    Matrix units work in such tiles: 50,304 columns multiply faster than 50,257. The surplus rows
    stay zero and reach neither a loss nor a sample, a parameter count or an export.
    """
    return vocab_size if vocab_size < 4096 else math.ceil(vocab_size / 128) * 128


def known_vocab_size(config: GPT2Config) -> int:
    """The number of ids; by now the data has said how many, where the settings left it open."""
    if config.vocab_size is None:
        raise ConfigError("model.vocab_size: is null, and no data sets it; give a number")
    return config.vocab_size


@dataclass
class Cached:
    """One layer's keys and values, while tokens are read behind those that it holds."""

    seen: Tensor
    """Keys and values up to the tokens' own at least, a view of the cache: (2, B, H, S, D)."""
    index: int | Tensor
    """Position of the first token; a tensor (1,) for a graph that serves every position."""

    def add(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Write the tokens' own, (2, B, H, T, D); return all keys and all values, (B, H, S, D)."""
        if isinstance(self.index, int):  # a slice is five times as fast as index_copy_
            self.seen[:, :, :, self.index : self.index + own.shape[3]] = own
            if self.index == 0:  # they are all there is, and not yet rounded
                return own[0], own[1]
        else:
            places = self.index + torch.arange(own.shape[3], device=own.device)
            self.seen.index_copy_(3, places, own.to(self.seen.dtype))
        return self.seen[0], self.seen[1]


class CausalSelfAttention(nn.Module):
    """Each token looks at itself and at the tokens before it, once a head."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cached: Cached | None = None,
    ) -> Tensor:
        """(B, T, C) to (B, T, C).

        Args:
            mask: (..., T, S), True where a token may look; None for itself and all before it.
            cached: what the tokens look at besides themselves; S = T without it.
        """
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k, v = qkv.unbind(0)
        if cached is not None:
            k, v = cached.add(qkv[1:])
        dropout = self.dropout if self.training else 0.0
        if cached is not None and T == 1 and mask is None and k.dtype is torch.float32:
            y = _attention_of_one(q.float(), k, v).to(q.dtype)
        else:
            # A single token behind cached ones is the last, and may look at all of them.
            is_causal = mask is None and (cached is None or T > 1)
            y = F.scaled_dot_product_attention(
                q, k.to(q), v.to(q), attn_mask=mask, dropout_p=dropout, is_causal=is_causal
            )
        y = y.transpose(1, 2).reshape(B, T, C)
        return self.resid_dropout(self.c_proj(y))


def _attention_of_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What one token, the last, takes from all (B, H, S, D) that it may look at: (B, H, 1, D).

    In fp32, where a CPU multiplies a matrix by a vector at the speed of memory. The operator for
    many tokens takes three times as long in bf16, and half as much again in fp32.
    """
    B, H, S, D = k.shape
    q = (q / math.sqrt(D)).view(B * H, 1, D)
    scores = torch.bmm(k.flatten(0, 1), q.mT).view(B * H, S)
    return torch.bmm(scores.softmax(-1)[:, None], v.flatten(0, 1)).view(B, H, 1, D)


def document_mask(documents: Tensor) -> Tensor:
    """Where a token may look within its document: itself and all before it, (B, 1, T, T)."""
    same = documents[:, :, None] == documents[:, None, :]
    return same.tril()[:, None]


def visible(cache: Tensor, index: int | Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """What of a cache tokens at these positions, the first of them being `index`, may look at.

    Returns:
        The cache up to the last of them, or all of it where `index` is a tensor; the mask (T, S)
        over it, None where each token may look at itself and all before it.
    Raises:
        ValueError: if the cache has no such positions. A tensor is not looked at, for which the
            host would wait.
    """
    if isinstance(index, int):
        end = index + len(positions)
        if end > cache.shape[4]:
            raise ValueError(f"{end} tokens; the cache has {cache.shape[4]} positions")
        cache = cache[:, :, :, :, :end]
        if index == 0 or len(positions) == 1:
            return cache, None
    return cache, torch.arange(cache.shape[4], device=positions.device) <= positions[:, None]


class MLP(nn.Module):
    """Four times as wide within, GELU in its tanh form as in the released code."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Module):
    """Attention, then MLP, each reading a normed copy of the stream and adding to it."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPS, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPS, bias=config.bias)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cached: Cached | None = None,
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask, cached)
        return x + self.mlp(self.ln_2(x))


class GPT2Backbone(nn.Module):
    """Token ids to hidden states: embeddings, blocks, final norm."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(stored_rows(known_vocab_size(config)), config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPS, bias=config.bias)

    def forward(
        self,
        token_ids: Tensor,
        documents: Tensor | None = None,
        cache: Tensor | None = None,
        cache_update_index: int | Tensor = 0,
    ) -> Tensor:
        """Token ids (B, T), T <= block_size, to hidden states after the final norm (B, T, C).

        Args:
            documents: the number of each token's document, (B, T), as in Batch.
            cache: keys and values of the tokens before, (n_layer, 2, B, H, S, D), to which these
                are added in place.
            cache_update_index: position of the first token, with a cache. Given as a tensor (1,),
                shapes do not depend on it, so that one compiled graph serves every position.
        Raises:
            ValueError: if there are more tokens than positions.
        """
        T = token_ids.shape[1]
        if self.config.block_size < T:
            raise ValueError(f"{T} tokens; the model has {self.config.block_size} positions")
        layers: Iterable[Cached | None] = repeat(None)
        if cache is not None:
            positions = cache_update_index + torch.arange(T, device=token_ids.device)
            cache, mask = visible(cache, cache_update_index, positions)
            layers = (Cached(seen, cache_update_index) for seen in cache.unbind(0))
        elif documents is None:
            positions, mask = torch.arange(T, device=token_ids.device), None
        else:
            mask = document_mask(documents)
            # A token that sees itself and n before it in its document is at position n there.
            positions = mask[:, 0].sum(-1) - 1  # (B, T)
        x = self.drop(self.wte(token_ids) + self.wpe(positions))  # (B, T, C)
        recompute = self.config.activation_checkpointing and self.training
        for block, cached in zip(self.h, layers, strict=False):
            if recompute:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask, cached)
        return self.ln_f(x)


class GPT2(nn.Module):
    """The backbone and its head, which is the token embedding transposed."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        if problems := list(model_problems(config)):
            raise ConfigError(*problems)
        self.config = config
        self.vocab_size = known_vocab_size(config)
        self.transformer = GPT2Backbone(config)
        self.speech: Speech | None = None
        """What the ids stand for, where that is known."""
        self.init_weights()

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, revision: str | None = None) -> "GPT2":
        """Published weights, such as `gpt2`, in fp32 on the CPU and ready to be asked.

        Args:
            name_or_folder: gpt2, gpt2-medium, gpt2-large, gpt2-xl or distilgpt2, any other
                owner/name of the Hugging Face hub, or a local folder in its layout.
            revision: a branch, tag or commit of the hub; owner/name@revision says the same.
        Returns:
            A model that evaluates, as transformers' does: `train()` brings dropout back.
        Raises:
            CheckpointError: if there is no such model, it cannot be fetched, or it is no GPT-2.
        """
        from gpt2lab.weights import pretrained_folder, read_pretrained

        return read_pretrained(pretrained_folder(name_or_folder, revision)).eval()

    @torch.no_grad()
    def init_weights(self) -> None:
        """As released: normal with 0.02, biases zero, residual projections scaled down.

        GPT-2 paper, section 2.3: residual weights are scaled by 1/sqrt(N), N = 2 * n_layer being
        the number of additions to the stream.
        """
        residual_std = INIT_STD / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = residual_std if name.endswith("c_proj.weight") else INIT_STD
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        self.transformer.wte.weight[self.vocab_size :] = 0

    def forward(self, token_ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Token ids (B, T), and each one's document (B, T) if given, to logits (B, T, V)."""
        return self.head(self.transformer(token_ids, documents=documents))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within it there is no dropout."""
        if not self.training:
            yield
            return
        self.eval()
        try:
            yield
        finally:
            self.train()

    @property
    def device(self) -> torch.device:
        return self.transformer.wpe.weight.device

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., C) to logits (..., V)."""
        return F.linear(hidden, self.transformer.wte.weight[: self.vocab_size])

    @torch.no_grad()
    def build_cache(self, token_ids: Tensor, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Read tokens (B, T), and keep their keys and values for those that follow.

        As in KerasHub's GPT2CausalLM, tokens are padded on the right: what stands behind a row's
        own is overwritten before anything looks at it.

        Args:
            length: positions of the cache; None for T.
        Returns:
            Hidden states (B, T, C); cache (n_layer, 2, B, H, S, D), S = length.
        Raises:
            ValueError: if there are more tokens than positions.
        """
        (B, T), config, device = token_ids.shape, self.config, token_ids.device
        S = T if length is None else length
        shape = (config.n_layer, 2, B, config.n_head, S, config.n_embd // config.n_head)
        dtype = self.transformer.wte.weight.dtype
        if device.type == "cpu":  # see `_attention_of_one`
            dtype = torch.promote_types(dtype, torch.float32)
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        cache = torch.zeros(shape, dtype=dtype, device=device)
        rows = max(1, TOKENS_AT_ONCE // T) if device.type == "cpu" else B
        parts = zip(token_ids.split(rows), cache.split(rows, dim=2), strict=True)
        return torch.cat([self.transformer(ids, cache=part) for ids, part in parts]), cache

    @torch.no_grad()
    def call_with_cache(
        self, token_ids: Tensor, cache: Tensor, cache_update_index: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read tokens (B, T) that follow those in the cache.

        Args:
            cache_update_index: position of the first of them, as a number or a tensor (1,).
        Returns:
            Logits (B, T, V); hidden states (B, T, C); the cache, with the tokens written into it.
        Raises:
            ValueError: if there are more tokens than positions.
        """
        hidden = self.transformer(token_ids, cache=cache, cache_update_index=cache_update_index)
        return self.head(hidden), hidden, cache

    def loss(self, batch: Batch, num_counted: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood of the targets that count, in nats per token.

        Args:
            num_counted: divides the sum in place of this batch's own count, for a batch that is
                part of a larger step.
        """
        return prefix_masked_cross_entropy(
            self.transformer(batch.inputs, documents=batch.documents),
            self.transformer.wte.weight,
            batch.targets,
            vocab_size=self.vocab_size,
            num_counted=num_counted,
            counted=batch.counted,
        )

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Each target's negative log-likelihood in nats, and whether it was the likeliest token.

        Returns:
            (B, T), 0 where ignored; (B, T) bool, True where ignored.
        """
        return score_targets(
            self.transformer(batch.inputs, documents=batch.documents),
            self.transformer.wte.weight,
            batch.targets,
            vocab_size=self.vocab_size,
            counted=batch.counted,
        )

    def num_parameters(self) -> int:
        """Trained numbers, the tied head counted once and surplus rows of the vocabulary not."""
        surplus = self.transformer.wte.num_embeddings - self.vocab_size
        return sum(p.numel() for p in self.parameters()) - surplus * self.config.n_embd
