"""The digest of code: a small package is written, changed by one line, and asked again."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.caching import code_digest
from edgefleet.caching.code_digest import CodeDigest, Sources
from edgefleet.caching.code_versions import version_of, versions_of

FILES = {
    "pipe/__init__.py": "",
    "pipe/steps.py": '''
import math
from typing import TYPE_CHECKING

from pipe.below import called
from pipe import limits
from pipe import below as lower

if TYPE_CHECKING:
    from pipe.rows import Rows


def first(rows: "Rows", scale=2):
    """Words."""
    # a comment
    return [called(v) * math.pi * scale for v in rows.cells()]


def second(x):
    import numpy as np

    return np.full(limits.HEIGHT, x) + limits.WIDTH


def third(name):
    from pipe.table import FUNCTIONS

    return FUNCTIONS[name]()


def fourth():
    return lower


def sixth(rows: "list[Rows] | None"):
    return len("Rows")


def fifth():
    import pandas

    return pandas
''',
    "pipe/below.py": """
LIMIT = 3

def inner(x):
    return x + 1

def called(x):
    return inner(x) * LIMIT

def other():
    return 0
""",
    "pipe/limits.py": "HEIGHT = 3\nWIDTH: int = 4\nDEPTH = 5\n",
    "pipe/rows.py": "class Base:\n    def cells(self):\n        return []\n\nclass Rows(Base):\n    pass\n\nclass Alien:\n    pass\n",
    "pipe/table.py": """
FUNCTIONS = {}

def keep(f):
    FUNCTIONS[f.__name__] = f
    return f

@keep
def kept():
    return 1

def loose():
    return 2
""",
    "pipe/late.py": "def load():\n    return 'pipe.limits'\n",
}

Ask = Callable[..., CodeDigest]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Write the package with changes, (file, old text, new text) each, and digest one of its functions."""

    def digest(code: str, *changes: tuple[str, str, str]) -> CodeDigest:
        texts = dict(FILES)
        for file, old, new in changes:
            assert old in texts[file]
            texts[file] = texts[file].replace(old, new)
        for file, text in texts.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(text)
        return Sources({"pipe": tmp_path}).digest([code])

    return digest


@pytest.mark.parametrize(
    "change",
    [
        ("pipe/steps.py", "# a comment", "# another"),
        ("pipe/steps.py", "Words.", "Other words."),
        ("pipe/below.py", "x + 1", "x   +   1"),
        ("pipe/below.py", "LIMIT = 3", "\n\n\nLIMIT = 3"),
        ("pipe/below.py", "return 0", "return 1"),
        ("pipe/steps.py", "np.full(limits.HEIGHT, x)", "np.full(limits.HEIGHT, -x)"),
        ("pipe/limits.py", "HEIGHT = 3", "HEIGHT = 9"),
        ("pipe/rows.py", "class Alien:\n    pass", "class Alien:\n    x = 1"),
    ],
)
def test_what_a_step_does_not_reach_leaves_its_digest_alone(ask: Ask, change: tuple[str, str, str]) -> None:
    assert ask("pipe.steps:first", change) == ask("pipe.steps:first")


@pytest.mark.parametrize(
    ("change", "unit"),
    [
        (("pipe/steps.py", "math.pi", "math.e"), "pipe.steps.first"),
        (("pipe/steps.py", "scale=2", "scale=3"), "pipe.steps.first"),
        (("pipe/below.py", "x + 1", "x + 2"), "pipe.below.inner"),
        (("pipe/below.py", "LIMIT = 3", "LIMIT = 3.0"), "pipe.below.LIMIT"),
        (("pipe/rows.py", "return []", "return [1]"), "pipe.rows.Base"),
    ],
)
def test_a_change_two_calls_away_changes_the_digest_and_names_its_unit(ask: Ask, change: tuple[str, str, str], unit: str) -> None:
    before, after = ask("pipe.steps:first").units, ask("pipe.steps:first", change).units

    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == [unit]


def test_an_attribute_of_an_imported_module_is_followed_alone(ask: Ask) -> None:
    assert set(ask("pipe.steps:second").units) == {"pipe.steps.second", "pipe.limits.HEIGHT", "pipe.limits.WIDTH"}


def test_a_module_used_as_a_value_counts_as_a_whole(ask: Ask) -> None:
    assert "pipe.below.other" in ask("pipe.steps:fourth").units


def test_a_text_that_names_a_module_reaches_it(ask: Ask) -> None:
    assert "pipe.limits.DEPTH" in ask("pipe.late:load").units


def test_a_class_named_in_an_annotation_of_text_is_reached(ask: Ask) -> None:
    assert "pipe.rows.Base" in ask("pipe.steps:sixth").units


def test_a_function_that_its_decorator_keeps_in_a_table_is_reached_through_the_table(ask: Ask) -> None:
    before = ask("pipe.steps:third")

    assert ask("pipe.steps:third", ("pipe/table.py", "return 1", "return 3")) != before
    assert ask("pipe.steps:third", ("pipe/table.py", "return 2", "return 3")) == before


def test_the_same_name_imported_from_elsewhere_changes_the_digest(ask: Ask) -> None:
    moved = ask("pipe.steps:first", ("pipe/steps.py", "from pipe.below import called", "from pipe.below import inner as called"))

    assert moved.units["pipe.steps.first"] != ask("pipe.steps:first").units["pipe.steps.first"]


def test_libraries_count_by_their_version_also_when_imported_inside_a_function(ask: Ask) -> None:
    assert ask("pipe.steps:second").versions == {"numpy": version_of("numpy"), "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    assert ask("pipe.steps:fifth").versions["pandas"] == version_of("pandas")
    assert "numpy" in ask("pipe.steps:fifth").versions, "what a library requires counts too"
    assert versions_of(["no_such_library"])["no_such_library"] == "absent"


def test_values_of_a_closure_count_and_those_without_a_digest_are_refused() -> None:
    def made(value: object) -> Callable[[], object]:
        def inner() -> object:
            return value

        return inner

    # Only what is imported by name has a source; this module stands for a package of its own.
    sources = Sources({__name__.partition(".")[0]: Path(__file__).parents[3]})

    assert sources.digest([made(1)]) != sources.digest([made(2)])
    assert sources.digest([made(1)]) == sources.digest([made(1)])
    with pytest.raises(TypeError, match="closes over a object, which has no digest: pass it as an input"):
        sources.digest([made(object())])


@pytest.mark.parametrize("code", [len, "pipe.steps:absent", "absent.module", Path])
def test_code_without_a_source_in_our_packages_is_refused(ask: Ask, code: object, tmp_path: Path) -> None:
    ask("pipe.steps:first")

    with pytest.raises(TypeError, match="has no source in the packages pipe"):
        Sources({"pipe": tmp_path}).digest([code])


def test_the_whole_trainer_is_digested_within_seconds_of_work_and_imports_no_heavy_library() -> None:
    program = (
        "import sys, time; from edgefleet.caching.code_digest import Sources; begin = time.process_time()\n"
        "units = Sources().digest(['trainer.training:run_training']).units; print(len(units), time.process_time() - begin)\n"
        "print([name for name in ('sklearn', 'pandas', 'tensorflow', 'optuna', 'scipy') if name in sys.modules])\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert output.returncode == 0, output.stderr
    count, seconds = output.stdout.splitlines()[0].split()
    assert int(count) > 100
    assert float(seconds) < 3.0, "about 0.35 s of the processor; the bound only tells a digest that walks in circles"
    assert output.stdout.splitlines()[1] == "[]"


def test_a_second_question_to_the_same_sources_costs_next_to_nothing() -> None:
    sources = Sources()
    first = sources.digest(["trainer.training:run_training"])
    begin = time.process_time()

    assert sources.digest(["trainer.training:run_training"]) == first
    assert time.process_time() - begin < 0.1


STEPS = {
    "pipe/__init__.py": "",
    "pipe/steps.py": "from pipe import base\nimport numpy\n\ndef first():\n    return base.value() + numpy.pi\n",
    "pipe/base.py": "def value():\n    return 1\n",
}


def package(folder: Path) -> dict[str, Path]:
    for name, text in STEPS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return {"pipe": folder}


@pytest.mark.parametrize("code", ["pipe.steps:first", "pipe.steps"])
def test_a_later_process_reads_no_source_and_says_the_same(tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packages, kept = package(tmp_path), tmp_path / "kept" / "code.json"
    before = Sources(packages, kept)
    first = before.digest([code])
    before.keep()
    monkeypatch.setattr(code_digest, "parse", None)

    assert Sources(packages, kept).digest([code]) == first
    assert {"pipe.steps.first", "pipe.base.value"} <= first.units.keys()
    assert "numpy" in first.versions


def test_what_was_kept_of_other_bytes_is_not_believed(tmp_path: Path) -> None:
    packages, kept = package(tmp_path), tmp_path / "kept" / "code.json"
    before = Sources(packages, kept)
    first = before.digest(["pipe.steps:first"])
    before.keep()
    (tmp_path / "pipe" / "base.py").write_text("def value():\n    return 2\n")

    changed = Sources(packages, kept).digest(["pipe.steps:first"])

    assert changed.units["pipe.base.value"] != first.units["pipe.base.value"]
    assert changed == Sources(packages).digest(["pipe.steps:first"])


def test_nothing_is_kept_of_sources_that_changed_while_they_were_read(tmp_path: Path) -> None:
    packages, kept = package(tmp_path), tmp_path / "kept" / "code.json"
    sources = Sources(packages, kept)
    (tmp_path / "pipe" / "base.py").write_text("def value():\n    return 2\n")
    sources.digest(["pipe.steps:first"])

    sources.keep()

    assert not kept.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"of": 1, "units": []}', b"\xff"])
def test_a_damaged_file_of_kept_code_is_as_none(tmp_path: Path, content: bytes) -> None:
    packages, kept = package(tmp_path), tmp_path / "code.json"
    kept.write_bytes(content)

    assert Sources(packages, kept).digest(["pipe.steps:first"]) == Sources(packages).digest(["pipe.steps:first"])


def test_code_that_is_not_there_is_refused_although_units_are_kept(tmp_path: Path) -> None:
    packages, kept = package(tmp_path), tmp_path / "code.json"
    before = Sources(packages, kept)
    before.digest(["pipe.steps"])
    before.keep()

    with pytest.raises(TypeError, match="has no source"):
        Sources(packages, kept).digest(["pipe.steps:absent"])


def test_threads_read_code_together_while_the_collector_calls_back() -> None:
    # As in a process that has loaded Keras: the callback hands the interpreter to another thread in the middle of a parse.
    program = (
        "import gc, sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from edgefleet.caching.code_digest import Sources\n"
        "gc.callbacks.append(lambda phase, info: sum(range(2000)))\n"
        "sys.setswitchinterval(1e-5)\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(lambda _: len(Sources().digest(['trainer.training:run_training']).units), range(4)))\n"
        "print(len(set(found)), found[0] > 100)\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)

    assert (output.returncode, output.stdout.strip()) == (0, "1 True"), output.stderr[-500:]
