"""What a user installs: the wheel, in an empty environment, with hooks and templates, doing its first steps."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import support

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_carries_hooks_templates_and_rules(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for hook in (ROOT / "hooks").iterdir():
        assert f"gitmodel/_hooks/{hook.name}" in names
    for template in (ROOT / "templates").iterdir():
        assert f"gitmodel/_templates/{template.name}" in names
    assert "gitmodel/_templates/gitattributes" in names
    rules = {path.name for path in (ROOT / "gitmodel" / "compat" / "rules").glob("*.yaml")}
    assert rules == {
        Path(name).name for name in names if name.startswith("gitmodel/compat/rules/") and name.endswith(".yaml")
    }


@pytest.mark.network
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # What is not imported need not be compiled, which would take longer than the installing.
    locked = [*install, "--no-compile", "--require-hashes", "-r", str(ROOT / "requirements" / "base.txt")]
    done = subprocess.run(locked, capture_output=True, text=True, check=False)
    if done.returncode and "hash" not in done.stderr and ("Connection" in done.stderr or "No matching" in done.stderr):
        pytest.skip("the package registry cannot be reached")
    assert done.returncode == 0, done.stderr
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    subprocess.run([str(python), "-m", "pip", "check"], check=True, capture_output=True)

    def gitmodel(*args: str, cwd: Path) -> str:
        command = [str(environment / "bin" / "gitmodel"), *args]
        ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr

    work = tmp_path / "work"
    support.git(tmp_path, "init", "-q", str(work))
    model = tmp_path / "model.onnx"
    model.write_bytes(support.linear_model().SerializeToString())
    cases = support.cases_npz(tmp_path / "cases.npz")
    gitmodel("init", "--remote", str(tmp_path / "storage"), "--hooks", cwd=work)
    support.git(work, "commit", "-qm", "Set up")
    gitmodel("save", "fraud", str(model), "--golden", str(cases), "-m", "First", cwd=work)
    assert "fraud@v1.0.0" in gitmodel("release", "fraud", cwd=work)
    assert "installed" in gitmodel("hooks", "status", cwd=work)
    shim = (work / ".git" / "hooks" / "post-tag").read_text()
    assert str(environment) in shim
