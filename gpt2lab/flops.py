"""What a training step costs: floating point operations of the model, by a formula."""

from gpt2lab.model import GPT2


def sequence_flops(model: GPT2, tokens: int) -> int:
    """Operations of one sequence, forward and backward: 6 (N - wpe) T + 12 L C T^2.

    N counts the tied head once and surplus rows of the vocabulary not; a multiplication and an
    addition are two operations. PaLM paper, appendix B; wpe multiplies nothing.
    These are the model's own: what activation checkpointing computes anew is not counted, nor that
    causal attention can skip a half of T^2, nor that the head is computed only where a target
    counts.

    Args:
        tokens: T, all positions of the row, padding too.
    """
    shape = model.config
    multiplied = model.num_parameters() - model.transformer.wpe.weight.numel()
    attention = 12 * shape.n_layer * shape.n_embd * tokens**2
    return 6 * multiplied * tokens + attention


def step_flops(model: GPT2, tokens: int, sequences: int) -> int:
    """Operations of a whole optimizer step.

    Args:
        tokens: positions of all its sequences.
        sequences: of one length.
    """
    return sequences * sequence_flops(model, tokens // sequences)
