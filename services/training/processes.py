"""The processes of one training run: whose share is whose, and how they agree.

One process is the plain case, and then nothing here does anything. Everything that several must do
together is in these few calls, so that a call one of them leaves out, and with it a hang, is easy
to see.
"""

import os
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from services.errors import RecipeError

Anything = TypeVar("Anything")


class Processes:
    """This process among those that accelerate knows."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.count: int = accelerator.num_processes
        self.index: int = accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this one keeps the records and writes the files."""
        return self.index == 0

    def gather(self, mine: list[Anything]) -> list[Anything]:
        """Everybody's lists as one, in the order of the processes, for everybody."""
        if self.count == 1:
            return mine
        found: list[Anything] = gather_object(mine)
        return found

    def agree(self, value: Anything) -> Anything:
        """The main process's value, for everybody."""
        if self.count == 1:
            return value
        values: list[Any] = [value]
        broadcast_object_list(values)
        agreed: Anything = values[0]
        return agreed

    def wait(self) -> None:
        """Until all have come this far."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()


def launched() -> int:
    """How many processes this one was launched with; known before any framework has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_of(prompts: int, processes: int) -> int:
    """Prompts of each process; groups are never split.

    Raises:
        RecipeError: They cannot be shared out evenly.
    """
    if prompts % processes:
        raise RecipeError(
            f"{prompts} prompts in a step cannot be shared by {processes} processes",
            "Set prompts_per_step to a multiple of the number of processes",
        )
    return prompts // processes
