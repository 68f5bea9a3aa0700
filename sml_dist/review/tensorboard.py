"""TensorBoard event files of a run, in tensorboard/ of its folder."""

from typing import Any

from sml_dist.config.run import RunConfig, dump
from sml_dist.review.lines import happened, scalars
from sml_dist.train.run_folder import RunFolder


class TensorBoard:
    def __init__(self, folder: RunFolder, config: RunConfig, say: Any):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(folder.path / "tensorboard"))
        self.writer.add_text("config", f"```\n{dump(config)}\n```", 0)

    def add(self, line: dict[str, Any]) -> None:
        for name, value in scalars(line).items():
            self.writer.add_scalar(name, value, line["step"], walltime=line["time"])
        if text := happened(line):
            self.writer.add_text("events", text, line["step"], walltime=line["time"])

    def finish(self, *, failed: bool) -> None:
        self.writer.close()
