"""The page docs/rollout-invariants.md: each invariant, where the product keeps it, what judges it, and which faults it noticed."""

# Importing them fills the list.
from tests.properties.rollout_fleet import care, invariants, invariants_back, invariants_evidence, mutants, probes
from tests.properties.rollout_fleet.kept import INVARIANTS

# Long runs on demand, and what came of them: the page says how much has been tried.
LONG_RUNS = (
    "Long runs, `python -m tests.properties.rollout_fleet 20000 SEED`: seeds 303 to 305, 701 to 704 and 706 hold. 703 to 705 had shown",
    "that evidence behind facts that could not be read was not looked at after their repair (they are read again after a minute),",
    "and two checks that asked too much: after a look that asked devices the scheduler comes back at once, and of two lies about",
    "one failure the first one stays. The sequences of all three hold since. A run of 200,000 with seed 301 stopped, because news that",
    "nobody had looked at yet waited for as long as the clock was set back after them; they are due by any clock now.",
    "Seed 302 showed that the machine damaged another rollout's row than the one that it asked about.",
)

JUDGES = (care, invariants, invariants_back, invariants_evidence, probes)


def render_markdown() -> str:
    """The whole page."""
    lines = [
        "# Invariants of a rollout",
        "",
        "Generated from `tests/properties/rollout_fleet`; a test compares them. Do not edit.",
        "",
        "A Hypothesis state machine runs a fleet over the real database, scheduler, relay and ingest, with simulated devices that obey the",
        "agent's own update table, and with messages lost, doubled and reordered, clocks set back, processes killed between any two",
        "transactions (also between saving and publishing), two schedulers at once, devices that lie, and people who do what they may at",
        "any time. After every commit the rows are read by plain SQL and judged. `./run test` runs 2,000 steps, its second stage 20,000,",
        "and `python -m tests.properties.rollout_fleet 200000` as many as one likes.",
        "",
        *LONG_RUNS,
        "",
        "| # | what holds | kept by | judged by | shown to fail by the mutants |",
        "|---|---|---|---|---|",
    ]
    for number, one in sorted(INVARIANTS.items()):
        names = ", ".join(name for name, mutant in mutants.MUTANTS.items() if number in mutant.caught_by)
        kept = ", ".join(f"`{name.replace('fleet_server.', '')}`" for name in one.kept_by)
        lines.append(f"| {number} | {one.sentence.replace('|', '&#124;')} | {kept} | `{one.judged_by}` | {names or '-'} |")
    return "\n".join([*lines, ""])
