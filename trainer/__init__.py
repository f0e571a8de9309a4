"""The trainer: from a project folder to a model package that carries its own proof.

It reads the rows that project.toml names, checks them against the schema, fits every candidate, validates each with intervals and gates,
and writes one model package per releasable candidate; the best one wins. Every run leaves a folder with what was done and what came out.

It refuses to write a package whose gate failed, unless a person overrules that gate with a reason, which then travels with the model. It
refuses unknown settings, it never unpickles, and it never looks at test rows before the winner is chosen. Dates stay in the run folder, so
that the same rows and settings give the same package, byte for byte.

Read `training.py` next: its main function is the list of steps. Rules: `gates.py` and `intervals.py`. Settings: `project.py`.
"""

from trainer.project import Project, load_project
from trainer.training import GateRefused, Training, run_training, train

__all__ = ["GateRefused", "Project", "Training", "load_project", "run_training", "train"]
