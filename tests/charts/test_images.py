"""The Dockerfiles, as far as they can be checked without a registry: what they copy is there, and nobody is root."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "operator" / "Dockerfile"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_whatever_the_package_is_built_of_is_in_the_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = {each.partition("/")[0] for each in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    files = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml", "constraints"}

    assert kept == packages | files
    assert all((ROOT / each).exists() for each in kept)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_base_images_are_arguments_and_the_user_is_a_number(file: Path) -> None:
    text = file.read_text()

    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"${BASE_IMAGE}", "${PYTHON_IMAGE}"}
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] in {"1000:1000", "65532:65532"}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_what_is_installed_exists(file: Path) -> None:
    text = file.read_text()
    extras = set(re.findall(r"[a-z-]+", re.findall(r"\.\[([^\]]*)\]", text)[0].replace("${ENGINE:+,${ENGINE}}", "")))

    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    assert all((ROOT / name).is_file() for name in re.findall(r"constraints/[\w.-]+", text))
    assert (f"UV_VERSION={_of_makefile('UV_VERSION')}" in text) is (file == DOCKERFILES[0])


def _of_makefile(name: str) -> str:
    found = re.search(rf"^{name} := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    return found[1]
