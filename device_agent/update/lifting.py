"""Lifting a quarantine: a person's signed word that a bundle which failed here may be tried again when it is asked for.

It only forgets: what is wanted is judged afterwards, by the same document as always. Each word counts once, whatever comes again: it
carries the counter of the desired state that brought it first, and what was lifted under that counter is remembered with the progress.
"""

from collections.abc import Mapping
from dataclasses import replace

from device_agent.update.journal import Journal
from device_agent.update.outside import Outside
from device_agent.update.plan import MAX_REMEMBERED, Progress

_CONVICTED = ("quarantined", "rolled-back")


def lift(progress: Progress, words: Mapping[str, int]) -> Progress:
    """The progress after the words of a desired state; the same one when all of them are known.

    Args:
        progress: Where the update stands.
        words: Bundle digest -> counter of the desired state that said so first.

    >>> failed = Progress(state="quarantined", subject="b1", quarantined=(("b1", "crashed"),), tries=(("b1", 3),))
    >>> lifted = lift(failed, {"b1": 7})
    >>> lifted.state, lifted.quarantined, lifted.tries, lifted.lifted
    ('idle', (), (), (('b1', 7),))
    >>> again = replace(lifted, quarantined=(("b1", "crashed again"),))
    >>> lift(again, {"b1": 7}) == again
    True
    """
    known = dict(progress.lifted)
    fresh = {digest: counter for digest, counter in words.items() if counter > known.get(digest, 0)}
    if not fresh:
        return progress
    after = replace(
        progress,
        tries=tuple(one for one in progress.tries if one[0] not in fresh),
        quarantined=tuple(one for one in progress.quarantined if one[0] not in fresh),
        # The newest last, as only so many are remembered.
        lifted=(*(one for one in progress.lifted if one[0] not in fresh), *fresh.items())[-MAX_REMEMBERED:],
    )
    if progress.subject in fresh and progress.state in _CONVICTED:
        return replace(after, state="idle", subject="", reason="the quarantine was lifted")
    return after


def obey(progress: Progress, words: Mapping[str, int], journal: Journal, outside: Outside) -> Progress:
    """Take the words of a desired state, and keep and tell what was lifted; the progress afterwards.

    Raises:
        StorageError: It could not be kept; nothing was lifted.
    """
    after = lift(progress, words)
    if after != progress:
        journal.note("LIFTED", after)
        for digest, _ in {*after.lifted} - {*progress.lifted}:
            outside.tell("quarantine-lifted", "a person lifted it; the bundle is tried again when it is asked for", digest)
        outside.changed()
    return after
