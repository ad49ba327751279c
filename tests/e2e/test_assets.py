from pathlib import Path

import pytest

from e2e import assets


@pytest.fixture
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWINKLE_KUBE_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


def test_every_program_comes_from_a_module_that_is_pinned() -> None:
    for folder, _ in assets.GO_COMMANDS.values():
        assert (assets.HERE / folder / "go.mod").is_file()
    assert assets.pinned("k8s.io/kubernetes").startswith("v1.")
    assert assets.pinned(assets.KUBERAY).startswith("v1.")


def test_the_cache_is_named_after_what_is_pinned(nothing_built: Path) -> None:
    assert assets.cache().parent == nothing_built
    assert assets.cache().name.startswith(assets.pinned("k8s.io/kubernetes"))


def test_without_go_and_programs_one_sentence_says_what_to_do(
    nothing_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(nothing_built))

    with pytest.raises(assets.AssetError, match=r"etcd must be built, and there is no Go: install Go 1\.26"):
        assets.build(("etcd",))
    with pytest.raises(assets.AssetError, match="run 'make kube-assets'"):
        assets.program("etcd")
    with pytest.raises(assets.AssetError, match="run 'make cluster-assets'"):
        assets.program("kubelet")


def test_programs_of_envtest_are_used_and_not_built(nothing_built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = nothing_built / "envtest"
    given.mkdir()
    (given / "etcd").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given))

    assets.build(("etcd",))

    assert assets.program("etcd") == given / "etcd"
    assert assets.missing(("etcd", "kube-apiserver")) == ["kube-apiserver"]
