"""Other libraries, loaded without what takes long in them."""

import copy
import subprocess
import sys

import pytest

import gpt2lab.imports as imports
from gpt2lab.imports import LoadedBy, loaded_on_use

HEAVY = """
\"\"\"Says that it is loaded.\"\"\"
print("loaded")


class Model:
    kind = "a model"

    @classmethod
    def from_pretrained(cls, name):
        return name, cls

    def __init__(self, size):
        self.size = size


def double(number):
    return 2 * number
"""

HEAVY_NAMES = {"heavy": ("Model", "double")}


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    (tmp_path / "heavy.py").write_text(HEAVY)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("heavy", None)


@pytest.mark.usefixtures("heavy")
def test_a_module_is_loaded_when_something_of_it_is_used(capsys):
    with loaded_on_use(HEAVY_NAMES):
        import heavy
        from heavy import Model, double
    assert "heavy" not in sys.modules
    assert capsys.readouterr().out == ""
    assert double(4) == 8
    assert capsys.readouterr().out == "loaded\n"
    import heavy as real

    assert heavy.Model.kind == Model.kind == "a model"
    assert Model.from_pretrained("x") == ("x", real.Model)
    assert Model(3).size == 3
    assert capsys.readouterr().out == ""  # once is enough


@pytest.mark.usefixtures("heavy")
def test_it_may_be_used_before_the_end():
    with loaded_on_use(HEAVY_NAMES):
        from heavy import double

        assert double(4) == 8
        real = sys.modules["heavy"]
    assert sys.modules["heavy"] is real
    assert real.double(1) == 2


@pytest.mark.usefixtures("heavy")
def test_asked_for_another_name_it_is_loaded_at_once():
    with loaded_on_use({"heavy": ("double",)}):
        from heavy import Model

        assert sys.modules["heavy"].Model is Model
        with pytest.raises(ImportError):
            from heavy import nothing_of_it  # noqa: F401


@pytest.mark.usefixtures("heavy")
def test_a_name_can_be_copied():
    with loaded_on_use(HEAVY_NAMES):
        from heavy import double
    assert copy.copy(double)(2) == 4


@pytest.mark.usefixtures("heavy")
def test_what_is_loaded_already_stays():
    import heavy

    with loaded_on_use(HEAVY_NAMES):
        assert sys.modules["heavy"] is heavy
    assert sys.modules["heavy"] is heavy


@pytest.mark.parametrize("name", ["there_is_none", "there_is_none.inside"])
def test_what_is_not_installed_is_not_pretended(name):
    with loaded_on_use({name: ()}), pytest.raises(ModuleNotFoundError):
        __import__(name)


@pytest.mark.usefixtures("heavy")
def test_one_module_alone_has_a_loader_of_its_own(tmp_path, monkeypatch):
    class Loader(imports.SourceFileLoader):
        def exec_module(self, module):
            super().exec_module(module)
            module.double = lambda number: 3 * number

    (tmp_path / "light.py").write_text("from heavy import double\n")
    monkeypatch.setattr(sys, "meta_path", [LoadedBy("heavy", Loader), *sys.meta_path])
    import light

    assert light.double(2) == 6
    del sys.modules["light"]


def test_importing_us_loads_little():
    program = (
        "import sys; import gpt2lab; print({'importlib.abc', 'inspect', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_a_training_loads_neither_transformers_nor_scipys_signals():
    pytest.importorskip("transformers")
    program = (
        "import sys\n"
        "import gpt2lab.experiment\n"
        "print({'transformers', 'scipy.signal'} & {*sys.modules})\n"
        "from torchmetrics.functional.text.bert import AutoModel\n"
        "import transformers\n"
        "assert AutoModel.from_pretrained == transformers.AutoModel.from_pretrained\n"
        "assert transformers.GPT2Config().n_layer == 12\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr
