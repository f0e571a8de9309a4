"""Times and probabilities of a rollout in words: the same in the engine's sentences, in a terminal and on the page."""


def span(seconds: float) -> str:
    """A duration, to two or three digits; one that is over is none.

    >>> span(40), span(2_700), span(5_400), span(400_000), span(-3)
    ('40 s', '45 min', '1.5 h', '4.6 days', '0 s')
    """
    if seconds >= 96 * 3_600:
        return f"{seconds / 86_400:.1f} days"
    if seconds >= 3_600:
        return f"{seconds / 3_600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{max(seconds, 0):.0f} s"


def chance(share: float) -> str:
    """A probability, with as many digits as 10,000 runs can tell.

    >>> chance(0.0011), chance(0.5), chance(0.99995), chance(1.0)
    ('0.1 %', '50 %', '>99.9 %', '100 %')
    """
    value = 100 * share
    if share in (0.0, 1.0):
        return f"{value:.0f} %"
    if value > 99.9 or value < 0.1:
        return ">99.9 %" if value > 50 else "<0.1 %"
    return f"{value:.1f} %" if value < 10 or value > 90 else f"{value:.0f} %"
