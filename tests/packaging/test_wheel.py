"""The wheel holds every package and data file, the same whether built from the tree or from the sdist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "train", "tui", "checkpoints")
LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", ".tmp-*"
)
SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"


def run(*command: str, cwd: Path) -> str:
    """The output of a command; a failing one fails the test with everything it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(source: Path, out: Path, cwd: Path) -> Path:
    """A wheel of ``source`` (a tree or an sdist), built by the installed setuptools, without a network."""
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out), str(source)),
        cwd=cwd,
    )
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository: builds leave things behind, and must not find what earlier ones left."""
    copy = tmp_path_factory.mktemp("packaging") / "tree"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=LEFT_BEHIND)
    return copy


@pytest.fixture(scope="module")
def wheels(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{"tree": ..., "sdist": ...}: the wheel built from each."""
    out = tmp_path_factory.mktemp("built")
    sdist = run(sys.executable, "-c", SDIST, str(out), cwd=tree).splitlines()[-1]
    # the sdist first: a build of the tree leaves a build/ folder that the sdist must not need
    from_sdist = build_wheel(out / sdist, out / "from-sdist", cwd=out)
    return {"sdist": from_sdist, "tree": build_wheel(tree, out / "from-tree", cwd=out)}


def contents(wheel: Path) -> dict[str, int]:
    """Name -> CRC-32 of every file; RECORD is left out, it follows from the rest."""
    with zipfile.ZipFile(wheel) as archive:
        return {i.filename: i.CRC for i in archive.infolist() if not i.filename.endswith("/RECORD")}


def test_wheels_from_tree_and_sdist_hold_the_same_files(wheels: dict[str, Path]) -> None:
    assert contents(wheels["tree"]) == contents(wheels["sdist"])


def test_wheel_holds_every_module_and_data_file(wheels: dict[str, Path]) -> None:
    wanted = {
        f"tfm/{path.relative_to(ROOT).as_posix()}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and not {"__pycache__"} & set(path.parts)
        and not any(part.startswith(".tmp-") for part in path.parts)
        and (package == "checkpoints" or path.suffix in (".py", ".tcss"))
    }
    assert wanted, "found no sources: is this run from a checkout?"
    missing = wanted - set(contents(wheels["tree"]))
    assert not missing, f"name these packages or data files in pyproject.toml: {sorted(missing)}"


def test_wheel_holds_nothing_else(wheels: dict[str, Path]) -> None:
    names = [PurePosixPath(name) for name in contents(wheels["tree"])]
    tops = {name.parts[0] for name in names}
    assert tops == {"tfm", "tfm_tui-0.1.0.dist-info"}
    assert {name.parts[1] for name in names if name.parts[0] == "tfm"} == set(PACKAGES)
    assert not [name for name in names if "tests" in name.parts or name.name.startswith("test_")]
    assert any(name.name == "LICENSE" for name in names)


def test_shipped_checkpoints_name_no_place_of_the_machine_they_were_made_on() -> None:
    for path in (ROOT / "checkpoints").rglob("*"):
        if path.name in ("config.json", "training.json", "trainer.json") or path.suffix == ".toml":
            absolute = re.findall(r'"/[^"]*"', path.read_text("utf-8"))
            assert not absolute, f"{path.relative_to(ROOT)}: {absolute[0]}"


def test_every_package_folder_is_named_in_pyproject() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = {
        "tfm." + ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert folders == set(config["tool"]["setuptools"]["packages"])


def test_installed_wheel_runs_where_folders_have_the_same_names(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    """Unpacked somewhere else, beside a train.py and a core/ of the user's own."""
    site, work = tmp_path / "site", tmp_path / "work"
    (work / "core").mkdir(parents=True)
    (work / "core" / "__init__.py").write_text("raise SystemExit('the wrong core')\n")
    (work / "train.py").write_text("raise SystemExit('the wrong train')\n")
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-index", "--target", str(site), str(wheels["tree"])),
        cwd=work,
    )
    # the working directory comes first on sys.path here, as it does in a plain `python -c`
    code = (
        f"import sys; sys.path.insert(1, {str(site)!r}); import tfm.train, tfm.core.config, tfm.tui.cli;"
        "print(tfm.train.__file__, tfm.core.config.__file__, tfm.tui.cli.__file__, sep='\\n')"
    )
    for path in run(sys.executable, "-c", code, cwd=work).splitlines():
        assert Path(path).is_relative_to(site)


def test_constraints_pin_every_version_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    for pin in pins:
        name, _, version = pin.partition("==")
        assert name and version and not set(pin) & set(" /:@;"), f"not a plain pin: {pin}"


def test_installed_versions_are_the_pinned_ones() -> None:
    """The pins are the closure: nothing that we depend on is left to chance."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    seen: set[str] = set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    todo = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            found = version(name)
        except PackageNotFoundError:
            continue  # an extra that somebody left out
        if not name.startswith(("nvidia-", "triton", "cuda-")):  # CUDA builds of torch pin their own
            assert name in pins, f"constraints.txt does not pin {name} ({found})"
        for text in requires(name) or []:
            child = Requirement(text)
            extras = requirement.extras or {""}
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(child)
