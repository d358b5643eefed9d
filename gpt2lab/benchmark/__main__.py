"""python -m gpt2lab.benchmark <part>: ratios of speed, measured on this machine."""

import json
import sys
from importlib import import_module

from gpt2lab.command_line import show_errors
from gpt2lab.errors import ConfigError

BENCHMARKS = ("train", "startup", "loop", "loss", "data", "prepare", "generate", "plan")
USAGE = """\
Measure the cost of a part, where there is another way beside it, in turns.

usage: python -m gpt2lab.benchmark {train,startup,loop,loss,data,prepare,generate,plan}
                                   [setting=value ...] [json=true]

  train   a training step as `train` makes it over a plain fp32 loop on the same model, and on
          transformers' GPT-2 where that is installed: time, tokens a second, share of what the
          hardware can do, memory. The default is model=small, context 1024, batch_size=1;
          model=char is trained on characters
  startup seconds to the end of --help, and to the first training step of model=nano
  loop    a training step through Lightning, as `train` does it, over one of a hand-written loop;
          the default is the char size: 4 layers, width 128, context 64, batch 12
  loss    time and memory of the chunked loss over those of whole bf16 logits with
          F.cross_entropy, at 2,048 tokens, width 768, 50,257 classes
  data    how long it takes to make a step's windows of text, at two sizes
  prepare text into token files over tiktoken alone on the same documents, CPU time of one process
  generate
          128 tokens after 128 over transformers' generate on the same weights, at batch 1 and 8;
          the share of the memory's limit, memory, and what rounded weights cost: in loss, and in
          how often the likeliest token is another. checkpoint= takes a trained model
  plan    memory and time of a step, planned over what trainings in processes of their own then take

Only train, loop and generate take settings, those of train.
"""


def main() -> int:
    words = [word for word in sys.argv[1:] if "=" not in word]
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("json=")]
    if set(words) & {"--help", "-h"}:
        print(USAGE, end="")
        return 0
    if len(words) != 1 or words[0] not in BENCHMARKS:
        raise ConfigError(
            f"benchmark: {' '.join(words) or 'nothing'} is not one; choose {', '.join(BENCHMARKS)}"
        )
    measure = import_module(f"gpt2lab.benchmark.{words[0]}").measure  # imports torch
    result = measure(overrides)
    for name, value in result.items():
        print(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")
    if "json=true" in sys.argv[1:]:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    show_errors(main)
