"""The shape of a model."""

from dataclasses import dataclass

from gpt2lab.config.settings.fields import ranged


@dataclass
class GPT2Config:
    """The shape of a GPT-2; the defaults are the released 124M model."""

    n_layer: int = ranged(12, ge=1, le=1024)
    """Transformer blocks."""
    n_head: int = ranged(12, ge=1)
    """Attention heads a block; must divide n_embd."""
    n_embd: int = ranged(768, ge=1, le=65_536)
    """Width of the residual stream."""
    block_size: int = ranged(1024, ge=1)
    """Longest context in tokens: rows of the position embedding. Sort and pairs set their own."""
    vocab_size: int | None = ranged(50257, ge=2)
    """Token ids the model knows; null for as many as the data's tokenizer has. More are room."""
    dropout: float = ranged(0.1, ge=0, lt=1)
    """Probability of zeroing an activation. Released GPT-2 configs: 0.1; pretraining recipes: 0."""
    bias: bool = True
    """Biases in linear layers and layer norms, as released."""
    activation_checkpointing: bool = False
    """Recompute each block in the backward pass: a third more time, far less memory."""
