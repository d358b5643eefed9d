"""A wheel built from the tree works elsewhere, settings included."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_wheel_carries_the_settings_and_the_studies(tmp_path):
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT)],
        check=True,
    )
    (wheel,) = wheels.glob("gpt2lab-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import gpt2lab;"
        f"assert gpt2lab.__file__.startswith({str(site)!r});"
        "from gpt2lab.sweep.study import studies; assert {'sort_lr', 'char_optim'} <= {*studies()};"
        "from gpt2lab import fit;"
        "print(fit(['model=nano', 'max_steps=2', 'name=a', 'stop_at=null']).summary['steps'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2"
