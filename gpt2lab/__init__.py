"""gpt2lab: a laboratory for GPT-2.

Importing this module loads nothing heavy; each public name loads its home on first use.
"""

import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2lab.config import GPT2Config as GPT2Config
    from gpt2lab.experiment import fit as fit
    from gpt2lab.generation import generate as generate
    from gpt2lab.loading import load as load
    from gpt2lab.model import GPT2 as GPT2

__version__ = "0.6.0"

# A module of a name's own would hide it, once imported: hence no load.py.
_HOME = {
    "GPT2": "gpt2lab.model",
    "GPT2Config": "gpt2lab.config",
    "fit": "gpt2lab.experiment",
    "generate": "gpt2lab.generation",
    "load": "gpt2lab.loading",
}
__all__ = ["GPT2", "GPT2Config", "__version__", "fit", "generate", "load"]


_begins = sys.argv[:1] == ["-m"] and any(word.startswith("gpt2lab.") for word in sys.orig_argv)
if _begins and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # A command line of ours: Ctrl-C ends it without a word until it listens itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


from gpt2lab.imports import LightTorchmetrics, LoadedBy  # noqa: E402  Ctrl-C is seen to

# Before anything of ours imports Lightning, which imports torchmetrics.
sys.meta_path.insert(0, LoadedBy("torchmetrics", LightTorchmetrics))


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gpt2lab' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
