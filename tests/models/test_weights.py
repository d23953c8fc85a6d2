import hashlib
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from torchvision.models import efficientnet_b3

from histo_mlflow.errors import OptionError, SourceNotFoundError, TileFormatError, WeightsUnavailableError
from histo_mlflow.models.checkpoint import save_weights
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.options import NetworkOptions
from histo_mlflow.models.weights import make_network, read_initial_weights
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the form of torchvision's ImageNet weights: a state_dict of 1000 classes, its hash in its name."""
    torch.manual_seed(7)
    draft = tmp_path_factory.mktemp("weights") / "draft.pth"
    torch.save(efficientnet_b3(num_classes=1000).state_dict(), draft)
    return draft.rename(draft.with_name(f"efficientnet_b3-{hashlib.sha256(draft.read_bytes()).hexdigest()[:8]}.pth"))


@pytest.fixture
def server(torchvision_file: Path) -> Iterator[str]:
    """Serves the folder of the weight file on the loopback address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(torchvision_file.parent))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def _same(network: TileClassifier, file: Path) -> bool:
    stored = torch.load(file, weights_only=True)
    own = network.backbone.state_dict()
    return all(torch.equal(own[name], stored[name]) for name in stored if not name.startswith("classifier"))


def test_auto_is_none_for_demo_tiles() -> None:
    assert read_initial_weights("auto", is_synthetic=True).tensors is None


def test_auto_fetches_imagenet_for_real_tiles_once(
    server: str, torchvision_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HISTO_IMAGENET_URL", f"{server}/{torchvision_file.name}")
    network, note = make_network(read_initial_weights("auto", is_synthetic=False), classes=COLORECTAL_CLASSES, tile_size_px=32)
    assert _same(network, torchvision_file)
    assert "ImageNet" in note
    assert "1000 classes is replaced by a new one for 9" in note

    monkeypatch.setenv("HISTO_IMAGENET_URL", f"http://127.0.0.1:1/{torchvision_file.name}")
    assert read_initial_weights("imagenet", is_synthetic=True).tensors is not None, "the second time it is on disk"


def test_a_file_that_is_not_what_its_name_says_is_refused(
    server: str, torchvision_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = torchvision_file.with_name("efficientnet_b3-00000000.pth")
    other.write_bytes(b"something else")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HISTO_IMAGENET_URL", f"{server}/{other.name}")
    with pytest.raises(WeightsUnavailableError, match="invalid hash"):
        read_initial_weights("imagenet", is_synthetic=False)


def test_no_network_names_the_file_the_place_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HISTO_IMAGENET_URL", "http://127.0.0.1:1/efficientnet_b3_rwightman-b3899882.pth")
    with pytest.raises(WeightsUnavailableError) as caught:
        read_initial_weights("auto", is_synthetic=False)
    message = str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints" / "efficientnet_b3_rwightman-b3899882.pth") in message
    assert "weights=none" in message
    assert "\n" not in message


def test_torchvision_file_and_own_checkpoint_start_a_network(torchvision_file: Path, tmp_path: Path) -> None:
    network, note = make_network(
        read_initial_weights(str(torchvision_file), is_synthetic=False), classes=tuple("abcd"), tile_size_px=32
    )
    assert _same(network, torchvision_file)
    assert network.n_classes == 4

    facts = ModelFacts(tuple("abcd"), 32, "f" * 64, is_synthetic=False, epoch=3, val_loss=0.5)
    save_weights(tmp_path / "own.safetensors", network, facts)
    again, note = make_network(
        read_initial_weights(str(tmp_path / "own.safetensors"), is_synthetic=False), classes=tuple("abcd"), tile_size_px=64
    )
    assert "replaced" not in note
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), network.state_dict().values(), strict=True))


def test_unfit_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"gone\.pth"):
        read_initial_weights("gone.pth", is_synthetic=False)
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "text.safetensors").write_text("weights")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"a": Path}, protocol=2))
    for name in ("text.pth", "text.safetensors", "other.pth", "pickle.pth"):
        with pytest.raises(TileFormatError, match=name):
            read_initial_weights(str(tmp_path / name), is_synthetic=False)


def test_image_size_too_small_for_the_network() -> None:
    with pytest.raises(OptionError, match="image_size=16"):
        NetworkOptions(image_size=16)


@pytest.mark.parametrize(
    "head",
    [
        torch.zeros(2, 7),
        torch.zeros(3, 1536),
        torch.zeros(()),
        torch.zeros(2, 1536, dtype=torch.int64),
        torch.zeros(2, 1536).to_sparse(),
        torch.zeros(2, 1536, device="meta"),
    ],
)
def test_a_head_of_another_form_is_refused(tmp_path: Path, head: torch.Tensor) -> None:
    tensors = TileClassifier(n_classes=2, tile_size_px=32).backbone.state_dict() | {"classifier.1.weight": head}
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(
        TileFormatError, match=r"a\.pth (does not fit torchvision:efficientnet_b3: .*classifier\.1|can.t be read)"
    ):
        read_initial_weights(str(tmp_path / "a.pth"), is_synthetic=False)
