"""Models that go while somebody still asks them: closed by whoever is the last to need them. The caller holds the lock that guards them."""

from collections import Counter

from device_agent.scorer import Scorer


class Leaving:
    """Who uses which model beyond a single call."""

    def __init__(self) -> None:
        self._users: Counter[Scorer] = Counter()
        self._gone: set[Scorer] = set()

    def use(self, model: Scorer) -> None:
        """Keep a model open until `done`."""
        self._users[model] += 1

    def done(self, model: Scorer) -> None:
        """The counterpart of `use`."""
        self._users[model] -= 1
        if not self._users[model]:
            del self._users[model]
            if model in self._gone:
                self._gone.discard(model)
                model.close()

    def let_go(self, model: Scorer) -> None:
        """Close a model, now or when its last user is done."""
        if self._users[model]:
            self._gone.add(model)
        else:
            model.close()
