"""What a candidate must meet, written down before it is scored: tags on the registered model, each known by its SHA-256.

A bar counts as a decision on its set whatever comes of it, so that a comparison that was cut short is paid for too. The hash
stands in the decision: a bar that was changed or deleted afterwards is told. It is not a signature; who may set tags can write
decision and bar anew.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlflow import MlflowClient

from histo_mlflow.base.interruption import shielded
from histo_mlflow.tracking.decisions import Decision, kept_decisions
from histo_mlflow.tracking.registry import changing_model
from histo_mlflow.tracking.store import Store, alone_in

BAR = "bar"
"""Key of the bar in a decision's evidence."""
_TAG = "histo.bar."
_NUMBERED = re.compile(r"histo\.bar\.[0-9]{1,9}")


@dataclass(frozen=True)
class Bar:
    """What one decision is to be made by.

    Attributes:
        version: The candidate.
        incumbent: The version that it is compared with.
        test_data_fingerprint: Of the labelled set.
        options: The margins.
        method: In words.
        look: Which decision on this set it is, from 1.
        alpha: One-sided error that it may have.
    """

    version: str
    incumbent: str
    test_data_fingerprint: str
    options: Mapping[str, float]
    method: str
    look: int
    alpha: float


def write_bar(store: Store, name: str, fingerprint: str, make_bar: Callable[[int], Bar]) -> tuple[Bar, dict[str, Any]]:
    """Write a bar down and return it, and what a decision keeps of it.

    Args:
        store: Where.
        name: Of the registered model.
        fingerprint: Of the labelled set.
        make_bar: From the number of the decision on this set.
    """
    with shielded(), changing_model(name), alone_in(store.uri):
        bars = read_bars(store.client, name)
        decided = [
            each
            for each in kept_decisions(store.client, name).values()
            if each.evidence.get("test_data_fingerprint") == fingerprint
        ]
        bar = make_bar(1 + max(sum(fingerprint in text for text in bars.values()), len(decided)))
        number = 1 + max((int(tag.removeprefix(_TAG)) for tag in bars), default=0)
        tag, text = f"{_TAG}{number:06d}", json.dumps(asdict(bar))
        store.client.set_registered_model_tag(name, tag, text)
    return bar, {"tag": tag, "sha256": _sha256(text), **asdict(bar)}


def read_bars(client: MlflowClient, name: str) -> dict[str, str]:
    """Return the text of each bar of a registered model by its tag."""
    tags = client.get_registered_model(name).tags
    return {tag: text for tag, text in tags.items() if _NUMBERED.fullmatch(tag)}


def describe_bar(decision: Decision, bars: Mapping[str, str]) -> list[str]:
    """Return by what a decision was made, in lines; none if it needed no comparison.

    The first word is TAMPERED where the bar is no longer the one that was written down before.
    """
    kept = decision.evidence.get(BAR)
    if kept is None:
        return []
    if _sha256(bars.get(kept["tag"], "")) != kept["sha256"]:
        return [f"TAMPERED: {kept['tag']} is not what was written down before the decision (SHA-256 {kept['sha256'][:12]}...)"]
    margins = ", ".join(f"{margin}={value:g}" for margin, value in kept["options"].items())
    return [f"bar {kept['sha256'][:12]}: {margins}; decision {kept['look']} on its set, error {kept['alpha']:.3%}"]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
