"""Errors a user can mend. Everything else is a bug and keeps its traceback."""


class R1Error(Exception):
    """Root of all errors that the command line prints as one line, with exit code 2.

    Args:
        what: What went wrong, in one clause.
        mend: What to do about it, as an instruction.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}. {mend}")
        self.what = what
        self.mend = mend


class RecipeError(R1Error, ValueError):
    """A recipe, or a ``--set`` that changes it, is not valid."""


class ArtifactError(R1Error, OSError):
    """A checkpoint, data set or folder cannot be read or written."""


class ProblemError(R1Error, ValueError):
    """A problem source is missing, empty or malformed."""


class StoreError(R1Error, RuntimeError):
    """The store cannot be opened, or has another schema."""


class RegistryError(R1Error, RuntimeError):
    """The registry refuses what was asked of it."""


class PolicyError(R1Error, ValueError):
    """A policy file is not valid."""


class WebhookError(R1Error, ValueError):
    """An address cannot be subscribed to changes."""


class RewardError(R1Error, RuntimeError):
    """Rewards make no sense on the base model's samples, so training would be blind."""


class GuardError(R1Error, RuntimeError):
    """A guard stopped training; what was done until then is kept."""


class PlatformError(R1Error, RuntimeError):
    """A server of the platform cannot start, or does not answer."""


class RetrainError(R1Error, RuntimeError):
    """A retraining cannot be decided on, or cannot go on."""


class AccessError(R1Error, PermissionError):
    """Somebody may not do what they asked for, or the roles cannot be read."""


class LaunchError(R1Error, RuntimeError):
    """A run cannot be started or stopped, or the Prefect server does not answer."""
