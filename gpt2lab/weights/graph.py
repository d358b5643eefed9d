"""model.onnx: the model as a graph without Python, from ids (B, T) to logits (B, T, V)."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import nn

from gpt2lab.model import GPT2
from gpt2lab.weights.reread import Difference, check_close, random_rows

GRAPH = "model.onnx"
GRAPH_DATA = "model.onnx.data"
"""The weights of a graph that is too large for one file."""
LARGEST_FILE = 2**31 - 2**24
"""Bytes: a protocol buffer ends at 2 GiB, and holds more than the weights."""


@torch.no_grad()
def write_graph(model: GPT2, folder: Path) -> None:
    """Write model.onnx, for any number of rows and any length up to the model's context.

    Raises:
        OSError: if there is no room.
    """
    context = model.config.block_size
    sizes = {0: torch.export.Dim("rows")}
    if context > 1:
        sizes[1] = torch.export.Dim("tokens", max=context)
    with exact_vocabulary(model), quiet():
        program = torch.onnx.export(
            model,
            (torch.zeros(2, min(3, context), dtype=torch.long),),
            input_names=["input_ids"],
            output_names=["logits"],
            dynamic_shapes=(sizes,),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.clear()  # where in our files it comes from, with their paths
        is_large = weights_bytes(model) > LARGEST_FILE
        program.save(folder / GRAPH, external_data=is_large)


def weights_bytes(model: GPT2) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


@contextmanager
def exact_vocabulary(model: GPT2) -> Iterator[None]:
    """Within it the embedding has no surplus rows."""
    embedding = model.transformer.wte
    whole = embedding.weight
    embedding.weight = nn.Parameter(whole[: model.vocab_size], requires_grad=False)
    try:
        yield
    finally:
        embedding.weight = whole


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter tells of packages that it does not need, and of its own steps."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)


@torch.no_grad()
def compare_graph(model: GPT2, folder: Path) -> str:
    """Logits by onnxruntime, for other shapes than the one that the graph was made with.

    Returns:
        What was equal.
    Raises:
        RunError: if anything differs.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
    longest = random_rows(model, length=model.config.block_size)
    shapes = {(1, 1), (3, (longest.shape[1] + 1) // 2), (2, longest.shape[1])}
    worst = Difference(0, 0)
    for rows, length in sorted(shapes):
        tokens = longest[:rows, :length]
        (logits,) = session.run(None, {"input_ids": tokens.numpy()})
        found = torch.from_numpy(logits)
        what = f"onnxruntime's logits of {rows} rows of {length}"
        worst = max(worst, check_close(folder, what, model(tokens), found))
    shown = ", ".join(f"{rows} x {length}" for rows, length in sorted(shapes))
    return f"logits of {shown} tokens ({worst})"
