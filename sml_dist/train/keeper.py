"""What a run keeps so that it can go on: checkpoints, and the ledger of the rows that lead to them."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import Manifest, fingerprint
from sml_dist.spec import to_dict
from sml_dist.train.checkpoints import Checkpoints, agree
from sml_dist.train.dataset_copy import keep_dataset
from sml_dist.train.finite import Diverged
from sml_dist.train.ledger import Ledger, new_attempt
from sml_dist.train.loop import Progress
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.place import Place
from sml_dist.train.resume import load_weights, restore
from sml_dist.train.run_folder import RunFolder
from sml_dist.train.sharded import average_batch_statistics, start_tables
from sml_dist.train.state import pieces
from sml_dist.train.storage import Storage
from sml_dist.train.warm import warm_start


@dataclass
class Keeper:
    """Every method is collective."""

    config: RunConfig
    manifest: Manifest
    place: Place
    model: Any
    optimizers: Optimizers
    plan: list[dict[str, Any]]  # where each table lives
    log: Callable[..., None]
    beat: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.folder = folder = RunFolder(self.config.run.folder)
        self.ledger = Ledger(folder.path / "ledger", self.place.rank) if self.config.train.record_rows else None
        durable = self.ledger.flush if self.ledger else lambda: None
        storage, train = Storage(folder.checkpoints, beat=self.beat), self.config.train
        self.store = Checkpoints(storage, train.keep_checkpoints, durable, train.checkpoint_in_background)
        self.dataset = fingerprint(self.config.data.path)

    def start(self) -> Progress:
        """From the newest checkpoint, or from the beginning."""
        progress, events, changed = self._restored()
        if self.place.rank == 0:
            self.folder.forget_after(progress.step if progress else 0)
            keep_dataset(self.config.data.path, Storage(self.folder.path, beat=self.beat))
        if progress:
            progress.restarts += 1
            about = {"epoch": progress.epoch, "workers": self.place.workers, "restarts": progress.restarts}
            about |= {"changed": changed} if changed else {}
            return self._attempt(progress, [*events, {"event": "resumed"} | about])
        self.optimizers.create_state()  # a checkpoint has it even where every step so far was skipped
        start_tables(self.model, self.config, self.beat)
        progress = Progress()
        if self.config.run.warm_start:
            self.store.meet()
            text, progress.warm_steps = warm_start(self.config, self.model, self.optimizers, self.manifest, self.beat)
            events = [{"event": "warm start", "text": text}]
        return self._attempt(progress, events)

    def restore(self) -> Progress | None:
        """From the newest checkpoint, if there is one."""
        progress, events, _ = self._restored()
        return progress and self._attempt(progress, events)

    def _restored(self) -> tuple[Progress | None, list[dict[str, Any]], str]:
        with contextlib.suppress(Diverged):
            self.store.wait()
        return restore(self.store, self.model, self.optimizers, self.config, self.dataset)

    def save(self, progress: Progress) -> None:
        average_batch_statistics(self.model)
        about = {"config": to_dict(self.config), "dataset": self.dataset, "workers": self.place.workers, "plan": self.plan}
        about["progress"] = progress.as_dict()
        self.settle()
        self.store.save(progress.step, pieces(self.model, self.optimizers), about, best=progress.best_step)
        if not self.config.train.checkpoint_in_background:
            self.settle()

    def settle(self) -> None:
        """Waits for the save under way, and logs what it took."""
        self.store.wait()
        if written := self.store.take_written():
            self.log(event="checkpoint", **written)

    def best(self, progress: Progress) -> str:
        """Loads the best weights; the path of their checkpoint."""
        found = self.store.at(progress.best_step)
        if progress.best_step != progress.step:
            load_weights(found, self.model)
            self.store.meet()
        return found.path

    def _attempt(self, progress: Progress, events: list[dict[str, Any]]) -> Progress:
        """What follows is an attempt of its own, which began with these events."""
        self.store.meet()
        for event in events:
            self.log(**event, step=progress.step)
        attempt = agree(new_attempt()) if self.ledger else None
        progress.history.append((attempt, progress.step, self.place.workers))
        if self.ledger:
            self.ledger.begin(attempt)
        return progress
