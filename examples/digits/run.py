"""One run of the demo from start to end: its folder, its signals, its last words, and the end of every process."""

import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

from edgefleet.errors import EdgefleetError
from edgefleet.report.table import table
from examples.digits.demo import Demo, Options
from examples.digits.story import Story


def run(options: Options) -> dict[str, Any]:
    """Run the demo; the document's `ok` is the verdict. With a page to look at, this waits for Ctrl-C."""
    story = Story()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end is an end like Ctrl-C: every child goes too
    with tempfile.TemporaryDirectory(prefix="edgefleet-demo-") as scratch:
        folder = options.keep if options.keep is not None else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        demo = Demo(options, folder.resolve(), story)
        try:
            demo.fleet.open_broker(options.broker)  # a missing broker ends the command at once, before anything is trained
            error = _run_all(demo, story)
            document = story.document(seed=options.seed, devices=options.devices, error=error)
            _tell_the_end(story, document)
            if not options.headless and demo.fleet.is_open:
                _wait_for_ctrl_c(story, demo)
        except KeyboardInterrupt:
            story.say("\nEnding all processes")
            document = story.document(seed=options.seed, devices=options.devices, error="stopped by Ctrl-C") | {"ok": False}
        finally:
            demo.close()
    return document


def _run_all(demo: Demo, story: Story) -> str | None:
    try:
        demo.run()
    except EdgefleetError as err:
        story.say(f"\nThe demo stopped: {err}")
        return str(err)
    return None


def _tell_the_end(story: Story, document: dict[str, Any]) -> None:
    story.say()
    story.say(table(["step", "ok", "seconds"], [[s["name"], "yes" if s["ok"] else "NO", s["seconds"]] for s in document["steps"]]))
    story.say(f"\n{'Every step ok' if document['ok'] else 'NOT every step ok'}, {document['seconds']} s in all")


def _wait_for_ctrl_c(story: Story, demo: Demo) -> None:
    story.say(f"\nThe operators' page stays open: {demo.fleet.client.url}")
    story.say(f"To act on it, sign in with the token in {demo.folder / 'server' / 'admin.token'}. Ctrl-C ends everything.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        story.say("\nEnding all processes")
