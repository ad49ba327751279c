import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from e2e import images


def test_every_blob_of_an_image_is_named_by_its_digest_and_reached_from_the_index(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(images, "_architecture", lambda: "amd64")
    layer = tmp_path / "layer"
    with tarfile.open(layer, "w") as archive:
        archive.add(__file__, "/program")

    images.write(tmp_path / "image.tar", "localhost/name:tag", layer, {"Entrypoint": ["/program"]})

    with tarfile.open(tmp_path / "image.tar") as archive:
        files = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    blobs = {name.rpartition("/")[2]: data for name, data in files.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in blobs.items())

    def blob(descriptor: dict[str, Any]) -> bytes:
        assert len(blobs[descriptor["digest"].removeprefix("sha256:")]) == descriptor["size"]
        return blobs[descriptor["digest"].removeprefix("sha256:")]

    (top,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blob(top))
    assert top["annotations"]["io.containerd.image.name"] == "localhost/name:tag"
    assert json.loads(blob(manifest["config"]))["config"] == {"Entrypoint": ["/program"]}
    assert [blob(each) for each in manifest["layers"]] == [layer.read_bytes()]
