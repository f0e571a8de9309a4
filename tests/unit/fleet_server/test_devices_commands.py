"""`edgefleet devices relabel|remove|unquarantine|group|list` over HTTP to a real server: what is printed, what is refused."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from edgefleet.cli.devices import devices
from edgefleet.client import FleetClient
from edgefleet.errors import InputError
from fleet_server import usecases
from fleet_server.store import groups
from fleet_server.store.groups import StoredGroup
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, MadeBundle, World
from tests.unit.fleet_server.steered import small_fleet, start, wanting

Run = Callable[..., Result]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from small_fleet(tmp_path, 2, lambda _: {"site": "north"})


@pytest.fixture
def run(world: World) -> Iterator[Run]:
    server = make_server("127.0.0.1", 0, world.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"

    def call(*words: str) -> Result:
        return CliRunner().invoke(devices, [*words, "--server", url], env={"EDGEFLEET_TOKEN": world.admin_token()})

    yield call
    server.shutdown()
    thread.join()
    server.server_close()


def test_labels_are_set_dropped_and_replaced(run: Run) -> None:
    assert run("relabel", "d0", "--set", "line=4", "--drop", "site", "--reason", "moved").output == "d0: line=4\n"
    done = run("relabel", "d0", "--set", "hall=2", "--replace", "--reason", "moved", "--json")
    assert json.loads(done.output) == {"device_id": "d0", "labels": {"hall": "2"}}
    assert run("relabel", "d0", "--replace", "--reason", "moved").output == "d0: no label\n"


def test_a_relabelling_that_says_nothing_or_too_much_is_a_wrong_use(run: Run) -> None:
    assert run("relabel", "d0", "--reason", "moved").exit_code == 2
    assert run("relabel", "d0", "--replace", "--drop", "site", "--reason", "moved").exit_code == 2
    refused = run("relabel", "d0", "--drop", "lime", "--reason", "moved").exception
    assert isinstance(refused, InputError)
    assert "device 'd0' has no label 'lime'; its labels: site" in str(refused)


def test_a_device_is_removed_after_it_was_asked_and_its_rollouts_are_named(run: Run, world: World, bundle: MadeBundle) -> None:
    rollout_id = start(world, world.push(bundle))
    (device_id,) = wanting(world, bundle)

    assert run("remove", device_id, "--reason", "scrapped").exit_code == 1  # nobody said yes
    done = run("remove", device_id, "--reason", "scrapped", "--yes")

    said = f"rollout {rollout_id}: its wave is open: a person goes on without it, or aborts."
    assert done.output == f"{device_id} was removed from the fleet.\n{said}\n"
    again = run("remove", device_id, "--reason", "scrapped", "--yes").exception
    assert isinstance(again, InputError)
    assert "was removed from the fleet at" in str(again)


def test_a_quarantine_is_lifted_by_the_beginning_of_the_digest(run: Run, world: World, bundle: MadeBundle) -> None:
    start(world, world.push(bundle))
    (device_id,) = wanting(world, bundle)
    world.receive(*world.devices[device_id].fail(bundle))

    done = run("unquarantine", device_id, bundle.digest[:8], "--reason", "the sensor was mended")

    assert done.output == f"{device_id} may try bundle {bundle.digest[:12]} again, once it has heard desired state 2.\n"


def test_the_client_is_still_found_where_it_was(world: World) -> None:
    assert FleetClient("http://127.0.0.1:9/").url == "http://127.0.0.1:9"


def test_a_group_is_made_listed_used_and_forgotten(run: Run) -> None:
    assert run("group", "list").output == "There is no group; `edgefleet devices group set` makes one.\n"
    made = run(
        "group", "set", "pilots", "--project", "digits", "--select", "site in (north)", "--select", "not device(d1)", "--reason", "first"
    )
    assert made.output == "group pilots of digits: not device(d1) and site = north; 1 device now.\n"
    assert "digits   pilots        1  not device(d1) and site = north" in run("group", "list").output
    listed = run("list", "--project", "digits", "--select", "group(pilots)", "--json")
    assert [row["device_id"] for row in json.loads(listed.output)] == ["d0"]
    gone = run("group", "remove", "pilots", "--project", "digits", "--reason", "over", "--json")
    assert json.loads(gone.output) == {"project": "digits", "name": "pilots", "rollouts": []}
    assert json.loads(run("group", "list", "--json").output) == []


def test_the_commands_name_the_open_rollouts_that_were_planned_with_a_group(run: Run, world: World, bundle: MadeBundle) -> None:
    run("group", "set", "pilots", "--project", "digits", "--select", "site = north", "--reason", "first")
    made = usecases.create_rollout(world.services, release_id=world.push(bundle), policy=POLICY, selection="group(pilots)", actor=OPERATOR)
    kept = f"Planned with it, and as planned they go on: {made.rollout_id}.\n"

    changed = run("group", "set", "pilots", "--project", "digits", "--select", "device(d1)", "--reason", "others")
    gone = run("group", "remove", "pilots", "--project", "digits", "--reason", "over")

    assert changed.output == f"group pilots of digits: device(d1); 1 device now.\n{kept}"
    assert gone.output == f"group pilots of digits is forgotten; no device was changed.\n{kept}"


def test_a_list_of_more_groups_than_a_page_has_is_whole(run: Run, world: World) -> None:
    with world.services.db.write() as connection:
        for number in range(1_001):
            groups.put(connection, StoredGroup("digits", f"g{number:04d}", "site = north", 0, "test", "for tests"))

    listed = json.loads(run("group", "list", "--json").output)

    assert [row["name"] for row in listed] == [f"g{number:04d}" for number in range(1_001)]
    assert {row["devices"] for row in listed} == {2}


def test_a_group_that_means_nothing_any_more_is_listed_with_its_selection_and_why(run: Run) -> None:
    run("relabel", "d0", "--set", "line=4", "--reason", "new")
    run("group", "set", "pilots", "--project", "digits", "--select", "has(line)", "--reason", "first")
    run("relabel", "d0", "--drop", "line", "--reason", "over")

    listed = run("group", "list").output

    assert "digits   pilots  ?        has(line)" in listed
    assert "group pilots: no device of digits has a label 'line'" in listed


def test_a_selection_without_its_project_and_a_group_without_a_selection_are_wrong_uses(run: Run) -> None:
    alone = run("list", "--select", "site = north")
    empty = run("group", "set", "pilots", "--project", "digits", "--reason", "first")
    unset = [run("list", "--project", "digits", *given) for given in (("--select", ""), ("--select", "site = north", "--select", " "))]
    refused = run("list", "--project", "digits", "--select", "site = north hall").exception

    assert (alone.exit_code, empty.exit_code, *(one.exit_code for one in unset)) == (2, 2, 2, 2)
    assert all("--select is empty, which would be every device" in one.output for one in unset)
    assert "--select needs --project" in alone.output
    assert isinstance(refused, InputError)
    assert "'hall' stands at character 14 behind `site = north`" in str(refused)
