"""Random overrides: each is taken or refused, and nothing else ever happens."""

import contextlib
import io
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from gpt2lab.config import SHAPES, TrainConfig
from gpt2lab.config.conf_dir import groups
from tests.faults.lab import Lab, nothing_written, row

OVERRIDES = 10_000
COMMAND_LINES = 500
A_CHILD = 50
"""Command lines that one child composes: each costs a fifth of a second, and a fork as much."""

NUMBERS = "0 1 -1 2 3 8 1.0 0.5 -0.0 1e3 1e-9 1e3.5 1e400 nan inf -inf NaN 0x10 1_000 007 +1 .5 5."
WORDS = "true false null None yes no on TRUE ~ ??? last best auto nano sort text val/loss:1 a=b ="
NESTS = [
    "[]",
    "{}",
    "[1,2]",
    "[a,[b,{c:d}]]",
    "{a:1}",
    "{a:{b:{c:[1,{d:2}]}}}",
    "{kind:sort}",
    "{_target_:os.system}",
    "{n_layer:2,n_head:x}",
    "[" * 60 + "]" * 60,
    "{",
    "]",
    "{a:}",
    "[,]",
    "{a:1,a:2}",
    "{1:2,null:3,true:4}",
]
INTERPOLATIONS = [
    "${seed}",
    "${model}",
    "${model.n_layer}",
    "${nothing}",
    "${.seed}",
    "${..x}",
    "${oc.env:HOME}",
    "${oc.env:GPT2LAB_ABSENT}",
    "${oc.env:GPT2LAB_ABSENT,3}",
    "${oc.env:}",
    "${oc.decode:1}",
    "${oc.decode:'{'}",
    "${oc.select:model.n_layer}",
    "${oc.create:{a:1}}",
    "${sort_context:3}",
    "${sort_context:x}",
    "${sort_context:}",
    "${hydra:job.name}",
    "${hydra:nothing}",
    "${now:%Y}",
    "${name}",
    "${",
    "}",
    "a${seed}b",
    "\\${seed}",
    "${${name}}",
    "${oc.dict.keys:model}",
]
SWEEPS = [
    "1,2,3",
    "a,",
    "range(1,3)",
    "range(0,1e9)",
    "choice(1,2)",
    "glob(*)",
    "interval(0,1)",
    "sort(3,1)",
    "shuffle(1,2)",
    "int(3.5)",
    "int(x)",
    "float(x)",
    "str(3)",
    "bool(2)",
    "json_str([1])",
    "tag(a,choice(1,2))",
    "nothing(1)",
]
TEXTS = [
    "",
    "''",
    '""',
    "'a b'",
    '"a',
    "a'b",
    "\\",
    "\\'",
    "a b",
    "ü",
    "🤗",
    "\u202eabc",
    "\t",
    "'\n'",
    "\n",
    "\udcff",
    "'\udcff'",
    "x" * 5_000,
    "'" + "x" * 5_000 + "'",
    "../../x",
    "/",
    "/proc/self/mem",
    ".",
    "$(id)",
    ";",
    "%s%n",
    "{0}",
    "@",
    ":",
    "#",
]


HYDRAS = ["hydra.run.dir", "hydra.job.chdir", "hydra.searchpath", "hydra", "hydra/x"]
ODD_KEYS = ["", ".", "..", "a.", ".a", "ü", "a b", "model/x", "0", "null", "x" * 300, "[0]"]


def known_keys() -> list[str]:
    """Every setting of every shape, every group, and arguments of Lightning's."""
    found = [*groups(), "trainer._target_", "trainer.accelerator", "trainer.log_every_n_steps"]
    found += ["trainer.max_steps", "callbacks.samples.path", "callbacks.progress", "logger.wandb"]

    def within(cls: type, path: str) -> Iterator[str]:
        for field in fields(cls):
            key = f"{path}{field.name}"
            yield key
            for shape in [field.type, *SHAPES.get(key, {}).values()]:
                if isinstance(shape, type) and is_dataclass(shape):
                    yield from within(shape, f"{key}.")

    return found + sorted(set(within(TrainConfig, "")))


KEYS = known_keys()
OPTIONS = groups()


def random_key(rng: random.Random) -> str:
    key = rng.choice(KEYS)
    change = rng.random()
    if change < 0.75:
        return key
    if change < 0.80 and len(key) > 2:
        place = rng.randrange(len(key))
        return key[:place] + key[place + 1 :]
    if change < 0.84:
        return f"{key}.{rng.choice(['x', 'kind', '_target_', '0', 'n_layer', ''])}"
    if change < 0.88:
        return f"{key}@{rng.choice(['x', '_global_', 'model', ''])}"
    if change < 0.92:
        return rng.choice(HYDRAS)
    return rng.choice(ODD_KEYS)


def random_value(rng: random.Random) -> str:
    kind = rng.randrange(10)
    if kind < 3:
        return rng.choice(NUMBERS.split())
    if kind == 3:
        return str(rng.choice([rng.randint(-(10**3), 10**3), rng.randint(-(2**70), 2**70)]))
    if kind == 4:
        return rng.choice(WORDS.split())
    if kind == 9:
        return "".join(
            chr(rng.choice([rng.randrange(32, 127), rng.randrange(1, 0x2FFF)]))
            for _ in range(rng.randrange(12))
        )
    return rng.choice([NESTS, INTERPOLATIONS, SWEEPS, TEXTS][kind - 5])


def random_override(rng: random.Random) -> str:
    if rng.random() < 0.1:
        group = rng.choice(list(OPTIONS))
        return f"{group}={rng.choice([*OPTIONS[group], 'none_such', 'null', '[]'])}"
    sign = rng.choice(["", "", "", "", "", "", "+", "++", "~"])
    middle = rng.choice(["=", "=", "=", "=", "=", "=", "=", "", "==", " = ", ":="])
    return f"{sign}{random_key(rng)}{middle}{random_value(rng)}"


@row("10,000 random overrides through parse()")
def overrides(lab: Lab) -> None:
    """Settings or ConfigError; what is taken survives being stored and read again."""
    parts = 10
    for part in range(parts):
        with lab.case(f"part {part} of {parts}", counts=False):
            arguments = [str(lab.random.randrange(2**32)), str(OVERRIDES // parts)]
            cwd = lab.fresh()
            process = lab.server.fork(cwd, arguments, call="tests.faults.fuzz:parse_many")
            collect(lab, process.wait(300), OVERRIDES // parts)
            nothing_written(cwd)


@row("500 random command lines")
def command_lines(lab: Lab) -> None:
    """Exit code 0 or 2, `error:` lines and no others, nothing written."""
    count = COMMAND_LINES // (5 if lab.is_share else 1)
    for part in range(count // A_CHILD):
        with lab.case(f"part {part}", counts=False):
            arguments = [str(lab.random.randrange(2**32)), str(A_CHILD)]
            cwd = lab.fresh()
            process = lab.server.fork(cwd, arguments, call="tests.faults.fuzz:run_many")
            collect(lab, process.wait(300), A_CHILD)
            nothing_written(cwd)


def collect(lab: Lab, done: Any, expected: int) -> None:
    """Count what a child has tried, and keep what went wrong."""
    assert done.code == 0, f"the child ended with {done.code}: {done.err[-500:]} {done.out[-300:]}"
    told = json.loads(done.out.splitlines()[-1])
    assert told["tried"] == expected
    lab.outcome.tried += told["tried"]
    lab.outcome.failures += told["failures"]
    if told["taken"] == 0 or told["taken"] == told["tried"]:
        raise AssertionError(f"{told['taken']} of {told['tried']} taken: a fuzz that tests nothing")


def parse_many() -> int:
    """In a child: random overrides, one at a time, put into settings as they would be composed."""
    from gpt2lab.config import parse, plain
    from gpt2lab.config.overrides import parse_overrides
    from gpt2lab.errors import ConfigError

    seed, count = map(int, sys.argv[1:])
    rng = random.Random(seed)
    shapes = {group: list(kinds.values()) for group, kinds in SHAPES.items()}
    failures, taken = [], 0
    for _ in range(count):
        text = random_override(rng)
        base = plain(TrainConfig(**{group: rng.choice(kinds)() for group, kinds in shapes.items()}))
        base["trainer"] = {"_target_": "lightning.pytorch.Trainer"}
        try:
            (override,) = parse_overrides([text])
            put(base, override)
            config = parse(base)
            taken += 1
            assert parse(plain(config)) == config, "not the same when read again"
        except ConfigError as error:
            problems = error.problems
            if not problems or any("\n" in problem for problem in problems):
                failures.append(f"{text!r}: {problems}")
        except Exception as error:
            failures.append(f"{text!r}: {type(error).__name__} {error}")
    print(json.dumps({"tried": count, "taken": taken, "failures": failures}))
    return 0


def put(settings: dict[str, Any], override: Any) -> None:
    """An override's value at its place in nested settings."""
    *parents, last = override.key_or_group.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
        if not isinstance(settings, dict):
            return
    if override.is_delete():
        settings.pop(last, None)
    else:
        value = override.value()
        settings[last] = getattr(value, "text", value)


def run_many() -> int:
    """In a child: random command lines through the command's own main."""
    from gpt2lab.exit import exit_code
    from gpt2lab.train import main

    seed, count = map(int, sys.argv[1:])
    rng = random.Random(seed)
    failures, taken = [], 0
    for _ in range(count):
        line = [random_override(rng) for _ in range(rng.choice([1, 1, 1, 2, 3, 5]))]
        code, out, err = one_command(lambda: exit_code(main), [*line, "--cfg", "job"])
        taken += code == 0
        odd = [text for text in err.splitlines() if not text.startswith("error: ")]
        if code not in (0, 2) or odd or "Traceback" in out + err or (code == 2) != bool(err):
            failures.append(f"{line}: exit code {code}, {err!r}")
    print(json.dumps({"tried": count, "taken": taken, "failures": failures}))
    return 0


def one_command(action: Any, arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, which write as those of a terminal do."""
    before = sys.argv
    sys.argv = ["gpt2lab", *arguments]
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = action()
            except SystemExit as leaving:
                code = leaving.code or 0
    finally:
        sys.argv = before
    return code, *(stream.buffer.getvalue().decode() for stream in (out, err))
