from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from twinkle_operator.commands.render import render

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_is_rendered(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render([str(file)]) == 0

    out = capsys.readouterr().out
    assert [each["kind"] for each in yaml.safe_load_all(out)] == ["NetworkPolicy", "RayCluster", "RayJob"]
    assert "#   run.resume=auto" in out
    assert "&id" not in out


def test_overrides_alone_are_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert render([str(EXAMPLES / "quickstart.yaml")], only_overrides=True) == 0

    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[1]) == ("experiment=quickstart", "infra=ray")


def test_the_policy_lets_the_named_namespaces_in(capsys: pytest.CaptureFixture[str]) -> None:
    render([str(EXAMPLES / "quickstart.yaml")], namespaces={"kuberay_namespace": "ray"})

    policy = next(yaml.safe_load_all(capsys.readouterr().out))
    peer = policy["spec"]["ingress"][1]["from"][0]["namespaceSelector"]["matchLabels"]
    assert peer == {"kubernetes.io/metadata.name": "ray"}


def test_what_validate_refuses_is_not_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text((EXAMPLES / "quickstart.yaml").read_text().replace("role: trainer", "role: teacher"))

    assert render([str(bad), str(tmp_path / "none.yaml")]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert "role" in said.err
    assert "none.yaml:1: cannot be read" in said.err
