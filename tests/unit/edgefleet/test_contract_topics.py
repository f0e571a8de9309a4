import pytest

from edgefleet.errors import InputError
from edgefleet.topics import DOWN, UP, acl_patterns, all_devices, device_topic, parse_device_topic


@pytest.mark.parametrize("leaf", DOWN + UP)
def test_a_device_topic_is_read_back(leaf: str) -> None:
    assert parse_device_topic(device_topic("press-7", leaf)) == ("press-7", leaf)
    assert device_topic("press-7", leaf).count("/") <= 6
    assert all_devices(leaf) == f"ef/v1/d/+/{leaf}"


@pytest.mark.parametrize("device", ["", "a/b", "+", "#", "UPPER", "x" * 65, "ä"])
def test_ids_that_are_topic_syntax_are_refused(device: str) -> None:
    with pytest.raises(InputError, match="is not an identifier"):
        device_topic(device, "t")


@pytest.mark.parametrize("topic", ["", "ef/v1/d/x", "ef/v2/d/x/t", "ef/v1/d/x/t/y", "ef/v1/d/x/unknown", "ef/v1/d/+/t"])
def test_foreign_topics_are_refused(topic: str) -> None:
    with pytest.raises(InputError):
        parse_device_topic(topic)


def test_a_device_may_read_what_goes_down_and_write_what_goes_up_of_its_own_only() -> None:
    lines = acl_patterns()
    assert all("/%u/" in line or line.endswith("/halt") for line in lines)
    assert {line.rsplit("/", 1)[1] for line in lines if line.startswith("pattern write")} == set(UP)
    assert {line.rsplit("/", 1)[1] for line in lines if line.startswith("pattern read ")} == {*DOWN, "halt"}
    assert [line for line in lines if line.startswith("pattern readwrite")] == ["pattern readwrite ef/v1/d/%u/score/+"]
