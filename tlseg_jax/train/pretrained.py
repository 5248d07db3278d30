"""The pre-trained model that a run starts from."""

import dataclasses
from pathlib import Path
from typing import Any

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.checkpoints.exported import load_saved
from tlseg_jax.runtime import elsewhere
from tlseg_jax.train.shared_model import load_shared_model


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A pre-trained model and where it came from."""

    run: Path
    saved: SavedModel

    @classmethod
    def load(cls, run: Path) -> "Pretrained":
        """Read the model of a run folder; of several processes, the chief for all."""
        return cls(run, load_shared_model(run, read=load_saved))

    @property
    def record(self) -> dict[str, Any]:
        """What a run that starts from it keeps of it: where it was, and what makes it this model."""
        saved = self.saved
        task = saved.description.get("task", "none")
        return {"run": elsewhere.current().name(self.run), "step": saved.step, "task": task, "weights": saved.weights}
