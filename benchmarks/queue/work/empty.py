"""What an actor weighs that does nothing; a module of its own, so that it imports no torch."""


class Empty:
    """An actor that does nothing."""

    def ready(self) -> bool:
        """True, once it runs."""
        return True
