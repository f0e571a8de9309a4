"""The scorer of a slot, opened as the agent's configuration says."""

from device_agent.choose import why_chosen
from device_agent.config import AgentConfig
from device_agent.scorer import Scorer
from device_agent.update.store import Store


def open_model(store: Store, digest: str, config: AgentConfig) -> Scorer:
    """The scorer of the slot with that bundle digest; its variant was chosen when the slot was made.

    Raises:
        ArtifactError: The slot is damaged, or not what this agent can run.
        MissingPartError: The variant's runtime is not installed any more.
    """
    bundle, variant = store.open_slot(digest)
    scorer = Scorer.open(bundle, variant.name, runtimes=config.runtimes)
    scorer.chosen_because = why_chosen(bundle.manifest, variant.name, config.runtimes, config.model_memory_bytes)
    return scorer
