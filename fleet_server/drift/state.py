"""What the drift rule keeps per device between rounds, and its limits."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, ConfigError

STATE_VERSION: Final = 1
MAX_FEATURES: Final = 4096
MAX_STATE_BYTES: Final = 1_000_000
# Bets on the standardised contrast, both directions; chosen in advance, averaged, so that none has to be right.
BETS: Final = np.array([0.25, -0.25, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0])


@dataclass(frozen=True)
class DriftPolicy:
    """Limits of the drift rule.

    Attributes:
        floor_sigma: Contrasts below it are nobody's business, in reference standard deviations.
        alarm: Evidence that raises an alarm; at least so many rounds to a false one, on average.
        baseline_rounds: Rounds after a device began with a reference that set its own baseline.
        minimum_rows: Rows a device needs to take part in a round.
        minimum_peers: Devices without an alarm, besides the own, that a round needs.
        clear_rounds: Rounds without a sign that clear an alarm.
    """

    floor_sigma: float = 0.25
    alarm: float = 10_000.0
    baseline_rounds: int = 8
    minimum_rows: int = 50
    minimum_peers: int = 5
    clear_rounds: int = 8

    def __post_init__(self) -> None:
        limits = {
            "floor_sigma": (self.floor_sigma, 0.01, 10.0),
            "alarm": (self.alarm, 20.0, 1e12),
            "baseline_rounds": (self.baseline_rounds, 2, 10_000),
            "minimum_rows": (self.minimum_rows, 10, 1_000_000),
            "minimum_peers": (self.minimum_peers, 5, 10_000),
            "clear_rounds": (self.clear_rounds, 1, 10_000),
        }
        for name, (value, least, most) in limits.items():
            if not (math.isfinite(value) and least <= value <= most):
                raise ConfigError(f"drift {name} = {value:g} is outside {least:g} to {most:g}")


@dataclass(frozen=True)
class DriftAlarm:
    """An open alarm; it belongs to a device and a reference.

    Attributes:
        round: Round of the device's state in which it was raised.
        evidence: e-value at that moment.
        features: Indices of the named features; more may join while it is open.
    """

    reference_digest: str
    alarmed_at: datetime
    round: int
    evidence: float
    features: tuple[int, ...]


@dataclass(frozen=True)
class DriftState:
    """One device under one reference.

    Attributes:
        rounds: Rounds taken part in.
        taken: [F] contrasts in the baseline; a feature's first `baseline_rounds` ones set it.
        total: [F] sum of the baseline's contrasts.
        squares: [F] sum of their squares.
        variances: [F] sum of their theoretical variances.
        evidence: [F, bets] Shiryaev-Roberts statistics.
        recent: [F] smoothed contrast minus baseline, in score units.
        quiet_rounds: Rounds in a row, after the baseline, that speak for no alarm (without one) or for clearing it (with one).
        alarm: The open alarm, or None.
    """

    reference_digest: str
    rounds: int
    taken: NDArray[np.int64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    variances: NDArray[np.float64]
    evidence: NDArray[np.float64]
    recent: NDArray[np.float64]
    quiet_rounds: int = 0
    alarm: DriftAlarm | None = None

    @classmethod
    def fresh(cls, reference_digest: str, features: int) -> "DriftState":
        """The state of a device that has just begun with a reference."""
        zeros = np.zeros(features)
        return cls(reference_digest, 0, np.zeros(features, np.int64), zeros, zeros, zeros, np.zeros((features, len(BETS))), zeros)

    def to_bytes(self) -> bytes:
        """Msgpack, versioned; about 110 bytes per feature."""
        wire = _Wire(
            version=STATE_VERSION,
            reference_digest=self.reference_digest,
            rounds=self.rounds,
            taken=self.taken.tolist(),
            total=self.total.tolist(),
            squares=self.squares.tolist(),
            variances=self.variances.tolist(),
            evidence=self.evidence.ravel().tolist(),
            recent=self.recent.tolist(),
            quiet_rounds=self.quiet_rounds,
            alarm=self.alarm,
        )
        return msgspec.msgpack.encode(wire)

    @classmethod
    def from_bytes(cls, content: bytes) -> "DriftState":
        """Read what `to_bytes` wrote.

        Raises:
            ArtifactError: Too large, damaged, of another version, or inconsistent.
        """
        if len(content) > MAX_STATE_BYTES:
            raise ArtifactError(f"drift state: {len(content)} bytes exceed the limit of {MAX_STATE_BYTES}; start the device's state anew")
        try:
            wire = msgspec.msgpack.decode(content, type=_Wire)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
            raise ArtifactError(f"drift state: {len(content)} bytes are malformed: {str(err)[:200]}") from err
        if wire.version != STATE_VERSION:
            raise ArtifactError(f"drift state: version {wire.version} is unknown, this program reads {STATE_VERSION}")
        rows = (wire.total, wire.squares, wire.variances, wire.recent)
        f = len(wire.total)
        if f > MAX_FEATURES or {len(wire.taken), *(len(row) for row in rows)} != {f} or len(wire.evidence) != f * len(BETS):
            raise ArtifactError(f"drift state: lengths contradict each other, or more than {MAX_FEATURES} features")
        if min(wire.rounds, wire.quiet_rounds, *wire.taken) < 0 or not all(math.isfinite(v) for row in (*rows, wire.evidence) for v in row):
            raise ArtifactError("drift state: a count is negative or a number is not finite")
        if wire.alarm is not None and not all(0 <= feature < f for feature in wire.alarm.features):
            raise ArtifactError(f"drift state: the alarm names a feature outside 0 to {f - 1}")
        total, squares, variances, recent = (np.array(row, np.float64) for row in rows)
        evidence = np.array(wire.evidence, np.float64).reshape(f, len(BETS))
        taken = np.array(wire.taken, np.int64)
        return cls(wire.reference_digest, wire.rounds, taken, total, squares, variances, evidence, recent, wire.quiet_rounds, wire.alarm)


class _Wire(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    version: int
    reference_digest: str
    rounds: int
    taken: list[int]
    total: list[float]
    squares: list[float]
    variances: list[float]
    evidence: list[float]
    recent: list[float]
    quiet_rounds: int
    alarm: DriftAlarm | None
