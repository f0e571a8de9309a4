"""The page docs/rollout-invariants.md: each invariant, where the product keeps it, what judges it, and which faults it noticed."""

# Importing them fills the list.
from tests.properties.rollout_fleet import care, invariants, invariants_back, invariants_evidence, mutants, probes
from tests.properties.rollout_fleet.kept import INVARIANTS

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
        "| # | what holds | kept by | judged by | shown to fail by the mutants |",
        "|---|---|---|---|---|",
    ]
    for number, one in sorted(INVARIANTS.items()):
        names = ", ".join(name for name, mutant in mutants.MUTANTS.items() if number in mutant.caught_by)
        kept = ", ".join(f"`{name.replace('fleet_server.', '')}`" for name in one.kept_by)
        lines.append(f"| {number} | {one.sentence.replace('|', '&#124;')} | {kept} | `{one.judged_by}` | {names or '-'} |")
    return "\n".join([*lines, ""])
