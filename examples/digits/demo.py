"""The whole loop on one machine, told step by step. Every step uses the ordinary commands and the ordinary API.

Nothing here decides anything: the trainer's gates, the converter's parity, the rollout engine, the devices' trials and the drift detector
do. The demo starts them, injects two accidents (a release trained on shuffled labels, a camera fault) and reads what they said.
"""

import random
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgefleet.report.table import table
from examples.digits import observe, scans
from examples.digits.fleet import HERE, PROJECT, Fleet, tell
from examples.digits.story import Step, Story, require, wait_for

FAULTY_DEVICES: Final = 2
FAULT: Final = "camera-fault"
ROLLOUT_TIMEOUT_S: Final = 180.0
DRIFT_TIMEOUT_S: Final = 90.0


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    headless: bool
    devices: int
    seed: int
    broker: str
    keep: Path | None


class Demo:
    """One run of the loop."""

    def __init__(self, options: Options, folder: Path, story: Story) -> None:
        self.options, self.folder, self.story = options, folder, story
        self.fleet = Fleet(folder, options.devices, options.seed)
        self.pool = ThreadPoolExecutor(max_workers=4)
        self.good: dict[str, Any] = {}
        self.faulty: list[str] = []

    def run(self) -> None:
        """All steps in order; a step that fails ends the run."""
        opening = self.pool.submit(self.fleet.open)
        training = self.pool.submit(self.tool, "train", "good")
        self.data()
        trained = self.train_candidates(training)
        # Made in the background from here on, so that nobody waits for it later.
        bad = self.pool.submit(self.train, "bad", "--candidate", "conv", "--set", "data.arguments.shuffle_labels=true",
                               "--override-gate", "G4", "--reason", "the demo ships a bad model on purpose")  # fmt: skip
        self.convert_candidates(trained)
        self.open_fleet(opening)
        self.first_release()
        self.telemetry()
        self.bad_release(bad)
        self.camera_fault()
        self.explanation()
        self.retrain_and_replace()
        self.alarm_clears()
        self.summary()

    def data(self) -> None:
        """Step 1: where the rows come from."""
        with self.story.step(
            "data", "Data: handwritten digits that ship with scikit-learn; scans shifted by up to a pixel, with noise"
        ) as step:
            frame = scans.rows(seed=self.options.seed)
            step.figures["rows"] = {str(split): int(count) for split, count in frame["split"].value_counts().items()}
            step.figures["scans_per_device"] = len(scans.group("traffic")[:: self.options.devices])
            rows = ", ".join(f"{count} {split}" for split, count in step.figures["rows"].items())
            self.story.say(f"          {rows}; each device has {step.figures['scans_per_device']} scans of its own")

    def train_candidates(self, training: "Future[dict[str, Any]]") -> dict[str, Any]:
        """Step 2: two candidates trained and validated."""
        with self.story.step("train", "Train: a random forest and a small convolutional network, winner by validation") as step:
            trained = training.result()
            step.figures |= {"winner": trained["winner"], "candidates": trained["candidates"]}
            header = ["candidate", "accuracy", "95 % interval", "rows", "seconds"]
            cells = [
                [c["name"], f"{c['value']:.4f}", f"{c['low']:.4f} to {c['high']:.4f}", c["n"], c["seconds"]] for c in trained["candidates"]
            ]
            self.show(table(header, cells))
        return trained

    def convert_candidates(self, trained: dict[str, Any]) -> None:
        """Step 3: both candidates converted and proven."""
        with self.story.step("convert", "Convert: every variant run by the device's own scorer against the original") as step:
            packages = {c["name"]: c["package"] for c in trained["candidates"]}
            jobs = {name: self.pool.submit(self.convert, name, package) for name, package in packages.items()}
            converted = {name: job.result() for name, job in jobs.items()}
            step.figures["variants"] = {name: document["variants"] for name, document in converted.items()}
            header = ["candidate", "variant", "kB", "agreement", "accuracy", "p50 us", "verdict"]
            self.show(table(header, [observe.variant_cells(name, v) for name, d in converted.items() for v in d["variants"]]))
            self.good = {"train": trained, "convert": converted[trained["winner"]]}
            runtimes = {v["name"].split("-")[0] for v in self.good["convert"]["variants"] if v["verdict"] == "pass"}
            require(
                runtimes >= {"onnx", "tflite"},
                f"the winner {trained['winner']} has no variant for both runtimes, only for {sorted(runtimes)}",
            )

    def open_fleet(self, opening: "Future[dict[str, Any]]") -> None:
        """Step 4 and 5: broker, server and agents, started while the models were trained."""
        with self.story.step("fleet", f"Fleet: a broker, the fleet server and {self.options.devices} real agents") as step:
            step.figures |= opening.result()
            wait_for("every agent to report", lambda: observe.all_connected(self.fleet) or None, 60, self.fleet.check)
            tell(self.story, step.figures)

    def first_release(self) -> None:
        """Step 6: release 1 in waves."""
        with self.story.step("rollout-1", "Rollout of release 1 in waves; each is promoted on what the devices reported") as step:
            rollout = self.roll_out(self.good, "1", "first release")
            self.report_rollout(step, rollout)
            self.require_everywhere(self.good)

    def telemetry(self) -> None:
        """Step 7: counts, latency and input statistics reach the server."""
        with self.story.step("telemetry", "Telemetry: counts, latency and input statistics arrive, no payload") as step:
            rows = wait_for("telemetry of every device", lambda: observe.telemetry(self.fleet), 60, self.fleet.check)
            step.figures["devices"] = rows
            total = sum(figures["rows"] for figures in rows.values())
            self.story.say(f"          {total} rows scored so far; median latency {observe.median_latency_ms(rows):.3f} ms")

    def bad_release(self, training: "Future[dict[str, Any]]") -> None:
        """Step 8: a release that is bad on purpose is stopped by the first device that tries it."""
        with self.story.step("bad-release", "Release 2 is bad on purpose: labels shuffled, its gate overridden by hand") as step:
            bad = training.result()
            rollout = self.roll_out(bad, "2", "bad on purpose: trained on shuffled labels", until={"paused", "aborted"})
            reasons = {m["device_id"]: m["reason"] for wave in rollout["waves"] for m in wave["members"] if m["progress"] == "failed"}
            harmed = list(reasons)
            begun = [m["device_id"] for wave in rollout["waves"] for m in wave["members"] if m["progress"] != "not-begun"]
            if rollout["state"] != "aborted":
                self.fleet.client.action(
                    rollout["rollout_id"], "abort", int(rollout["version"]), "the release disagrees with the running model"
                )
            step.figures |= {"state": rollout["state"], "sentence": rollout["sentence"], "harmed": harmed, "begun": begun}
            step.figures |= {"harmed_devices": len(harmed), "reasons": reasons}
            require(len(harmed) == 1 and begun == harmed, f"expected one device of wave 1 to be harmed, saw {harmed}, begun {begun}")
            self.require_everywhere(self.good)
            quarantined = wait_for("the quarantine", lambda: observe.quarantined_on(self.fleet, bad["convert"]["digest"]) or None, 60)
            step.figures["quarantined_on"] = quarantined
            require(quarantined == harmed, f"quarantined on {quarantined}, harmed {harmed}")
            self.story.say(f"          one device tried it, went back by itself and quarantined it: {harmed[0]}; nobody else ever ran it")
            self.story.say(f"          its reason: {reasons[harmed[0]]}")

    def camera_fault(self) -> None:
        """Step 9: two cameras lose contrast; the drift alarm must name exactly them."""
        with self.story.step("camera-fault", "Two cameras get a fault (contrast and offset, injected by the demo); who notices?") as step:
            wait_for(
                "a baseline of every device",
                lambda: observe.baselines(self.fleet, PROJECT) or None,
                DRIFT_TIMEOUT_S,
                self.fleet.check,
                lambda: observe.drift_in_words(self.fleet, PROJECT),
            )
            self.faulty = sorted(random.Random(self.options.seed).sample(self.fleet.device_ids, FAULTY_DEVICES))
            for device_id in self.faulty:
                self.fleet.see(device_id, FAULT)
            found = wait_for(
                "the drift alarm",
                lambda: observe.alarmed(self.fleet, PROJECT, FAULTY_DEVICES),
                DRIFT_TIMEOUT_S,
                self.fleet.check,
                lambda: observe.drift_in_words(self.fleet, PROJECT),
            )
            step.figures |= {"injected": self.faulty, "found": sorted(found), "features": found}
            for device_id, features in found.items():
                self.story.say(f"          drift alarm: {device_id}, inputs {', '.join(features[:4])} ... ({len(features)} of 64)")
            require(sorted(found) == self.faulty, f"injected into {self.faulty}, found {sorted(found)}")

    def explanation(self) -> None:
        """Step 9, second half: why a device answered as it did."""
        with self.story.step("explanation", "Explanation of one prediction on a device: which pixels spoke for the answer") as step:
            seen = wait_for("an explanation", lambda: observe.explanation(self.fleet, PROJECT), 60, self.fleet.check)
            total = seen["base"] + sum(seen["contributions"]) + seen["gap"]
            step.figures |= {key: seen[key] for key in ("device_id", "label", "score", "method", "base", "margin", "gap")}
            self.show(observe.heat_map(seen["contributions"]))
            self.story.say(f"          {seen['device_id']} answered {seen['label']} with {seen['score']:.2f}; method: {seen['method']}")
            require(abs(total - seen["margin"]) < 1e-3, f"base + contributions + gap = {total:.4f}, margin = {seen['margin']:.4f}")

    def retrain_and_replace(self) -> None:
        """Step 10: labelled rows of the new situation make release 3."""
        with self.story.step("retrain", "Retrain with labelled rows of the new situation (the demo holds the labels)") as step:
            better = self.train("retrained", "--candidate", "conv", "--set", f'data.arguments.situations=["normal", "{FAULT}"]',
                                "--champion", str(self.good["train"]["package"]))  # fmt: skip
            step.figures["gates"] = better["train"]["candidates"][0]["gates"]
            step.figures["accuracy"] = observe.accuracies({"before": self.good, "after": better}, ["normal", FAULT], self.options.seed)
            for situation, figures in step.figures["accuracy"].items():
                self.story.say(f"          {situation}: accuracy {figures['before']:.3f} before, {figures['after']:.3f} after")
            require(
                step.figures["accuracy"][FAULT]["after"] > step.figures["accuracy"][FAULT]["before"],
                "retraining did not help where it had to",
            )
        with self.story.step("rollout-3", "Release 3 goes through the same gates and rolls out") as step:
            self.report_rollout(step, self.roll_out(better, "3", "retrained on the camera fault"))
            self.good = better
            self.require_everywhere(better)

    def alarm_clears(self) -> None:
        """Step 10, end: the alarm goes when the new release has seen a few quiet rounds."""
        with self.story.step("alarm-clears", "The drift alarm clears on the new release") as step:
            wait_for("the alarm to clear", lambda: observe.no_alarm(self.fleet, PROJECT) or None, DRIFT_TIMEOUT_S, self.fleet.check)
            step.figures["alarms"] = 0

    def summary(self) -> None:
        """Step 11: what runs where."""
        with self.story.step("summary", "What runs where now") as step:
            devices = self.fleet.client.devices()
            step.figures["running"] = {d["device_id"]: d["running_digest"] for d in devices}
            step.figures["attested"] = {d["device_id"]: d["attested_digest"] for d in devices}
            self.show(table(["device", "site", "runs", "attested", "rows"], [observe.device_cells(d) for d in devices]))

    def tool(self, name: str, label: str, *arguments: str) -> dict[str, Any]:
        """Train with the project's own configuration and this run's seed."""
        seed = str(self.options.seed)
        return observe.run_json(
            self.folder,
            f"{name}-{label}",
            name,
            str(HERE),
            "--runs-dir",
            str(self.folder / "runs"),
            "--set",
            f"data.arguments.seed={seed}",
            *arguments,
        )

    def convert(self, label: str, package: str) -> dict[str, Any]:
        """Convert a package into a bundle."""
        return observe.run_json(self.folder, f"convert-{label}", "convert", package, "--output", str(self.folder / "bundles" / label))

    def train(self, label: str, *arguments: str) -> dict[str, Any]:
        """Train and convert."""
        trained = self.tool("train", label, *arguments)
        return {"train": trained, "convert": self.convert(label, str(trained["package"]))}

    def roll_out(
        self, made: dict[str, Any], version: str, note: str, until: frozenset[str] | set[str] = frozenset({"completed"})
    ) -> dict[str, Any]:
        """Push a bundle, roll it out under the demo policy, and wait for one of the states."""
        client = self.fleet.client
        release = client.push(Path(made["convert"]["bundle"]), version, note)
        rollout = client.create_rollout(release["release_id"], observe.policy(), {})
        client.start_rollout(rollout["rollout_id"], int(rollout["version"]))
        told: set[tuple[str, int]] = set()

        def look() -> dict[str, Any] | None:
            now = client.rollout(rollout["rollout_id"])
            opened = sum(wave["opened_at"] is not None for wave in now["waves"])
            if opened and (now["verdict"], opened) not in told:  # one line per wave and verdict, not one per device
                told.add((now["verdict"], opened))
                self.story.say(f"          {now['sentence']}")
            bad = now["state"] in {"paused", "aborted"} and now["state"] not in until
            require(not bad, f"rollout of release {version} is {now['state']}: {now['sentence']}")
            return now if now["state"] in until else None

        return wait_for(f"the rollout of release {version}", look, ROLLOUT_TIMEOUT_S, self.fleet.check)

    def report_rollout(self, step: Step, rollout: dict[str, Any]) -> None:
        """Per wave: who, and why it was promoted."""
        step.figures["waves"] = [
            {"wave": w["number"], "devices": [m["device_id"] for m in w["members"]], "state": w["state"], "reason": w["reason"]}
            for w in rollout["waves"]
        ]
        for wave in step.figures["waves"]:
            self.story.say(f"          wave {wave['wave']}: {', '.join(wave['devices'])}")

    def require_everywhere(self, made: dict[str, Any]) -> None:
        """Every device runs and attests the bundle."""
        digest = made["convert"]["digest"]
        wait_for(f"every device to run {digest[:12]}", lambda: observe.runs_everywhere(self.fleet, digest) or None, 60, self.fleet.check)

    def show(self, text: str) -> None:
        """An indented block for people."""
        for line in text.splitlines():
            self.story.say(f"          {line}")

    def close(self) -> None:
        """End every process that the demo started."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.fleet.close()
