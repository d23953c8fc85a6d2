from datetime import UTC, datetime, timedelta

import pytest

from histo_mlflow.errors import Interrupted, RequestError
from histo_mlflow.tracking.found_runs import find_ended_run
from histo_mlflow.tracking.kept import SIGN_TAG, giving_signs_of, state_of, tags_of_this_process
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import tags_of_process


def _begun_elsewhere(store: Store, *, minutes_silent: float | None) -> str:
    tags = tags_of_process(boot="another machine", host="spot-7") | {"histo.entry_point": "train"}
    if minutes_silent is not None:
        tags[SIGN_TAG] = (datetime.now(UTC) - timedelta(minutes=minutes_silent)).isoformat()
    return str(store.client.create_run("0", tags=tags).info.run_id)


def test_a_run_of_a_lost_machine_goes_on_when_it_has_been_silent_for_minutes(store: Store) -> None:
    lost = _begun_elsewhere(store, minutes_silent=6)
    assert find_ended_run(store, lost, entry_point="train").id == lost


@pytest.mark.parametrize(("silent", "told"), [(4.0, r"last sign of life is of 20\d\d-"), (None, "no signs of life")])
def test_a_run_that_may_live_elsewhere_goes_on_only_where_one_insists(store: Store, silent: float | None, told: str) -> None:
    perhaps = _begun_elsewhere(store, minutes_silent=silent)
    with pytest.raises(RequestError, match=rf"on spot-7.*{told}.*take_over=true"):
        find_ended_run(store, perhaps, entry_point="train")
    assert find_ended_run(store, perhaps, entry_point="train", take_over=True).id == perhaps


def test_a_run_that_lives_here_is_never_taken_over(store: Store) -> None:
    with (
        open_run(store, "train", tags={"histo.entry_point": "train"}) as run,
        pytest.raises(RequestError, match="end that first"),
    ):
        find_ended_run(store, run.id, entry_point="train", take_over=True)


def test_a_deleted_run_is_to_be_restored_first(store: Store) -> None:
    left = store.client.create_run("0", tags=tags_of_this_process() | {"histo.entry_point": "train"}).info.run_id
    store.client.delete_run(left)
    with pytest.raises(RequestError, match=f"mlflow runs restore --run-id {left}"):
        find_ended_run(store, left, entry_point="train")


def test_how_a_run_has_ended_outlives_the_label_that_mlflow_run_gives(store: Store) -> None:
    def labelled_failed() -> str:
        store.client.set_terminated(run.id, "FAILED")
        return state_of(store.client.get_run(run.id))

    with pytest.raises(Interrupted), open_run(store, "train", tags={"histo.entry_point": "train"}) as run:
        raise Interrupted("interrupted by SIGINT")
    assert labelled_failed() == "KILLED"
    with open_run(store, "train", resumed=find_ended_run(store, run.id, entry_point="train")):
        # As after a kill without notice: what has ended before is no matter.
        assert labelled_failed() == "FAILED"
    assert labelled_failed() == "FINISHED"
    with pytest.raises(RequestError, match="has finished"):
        find_ended_run(store, run.id, entry_point="train")


def test_an_open_run_renews_its_sign_of_life(store: Store) -> None:
    run_id = store.client.create_run("0", tags={SIGN_TAG: "2020-01-01T00:00:00+00:00"}).info.run_id
    with giving_signs_of(store.client, run_id, every_seconds=0.01):
        end = datetime.now(UTC) + timedelta(seconds=20)
        while store.client.get_run(run_id).data.tags[SIGN_TAG].startswith("2020") and datetime.now(UTC) < end:
            pass
    assert not store.client.get_run(run_id).data.tags[SIGN_TAG].startswith("2020")
