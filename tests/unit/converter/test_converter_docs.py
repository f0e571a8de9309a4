"""docs/conversion.md says of device profiles what the table of profiles says."""

import re
from pathlib import Path

from converter.profiles import CLASSES, PROFILES
from converter.tables import bytes_text

PAGE = (Path(__file__).parents[3] / "docs" / "conversion.md").read_text("utf-8")


def test_the_page_lists_every_profile_with_its_figures() -> None:
    listed = {
        name: (float(factor), ram, storage)
        for name, factor, ram, storage in re.findall(r"^\| `([a-z0-9-]+)` \|[^|]+\| ([\d.]+) \| ([\d.]+ .B) \| ([\d.]+ .B) \|$", PAGE, re.M)
    }

    assert listed == {
        name: (profile.cpu_factor, bytes_text(profile.ram_bytes), bytes_text(profile.storage_bytes)) for name, profile in PROFILES.items()
    }


def test_the_page_names_for_each_class_the_profile_that_stands_for_it() -> None:
    for found in CLASSES.values():
        assert re.search(rf"^\| {re.escape(found.title.removesuffix(' (C)'))} \|.*\| `{found.profile}` \|$", PAGE, re.M), found.name
