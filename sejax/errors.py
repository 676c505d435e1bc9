"""The one exception that means: what the user gave is wrong, and this sentence says how to mend it."""


class InputError(ValueError):
    """A mistake in the input: one sentence that says what was found, what was expected and where.

    `sejax.main` prints the sentence without a traceback and exits with status 1.
    """
