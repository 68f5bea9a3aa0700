"""Ray Train's trainer and controller with fewer actors to start: each is a process that imports for a second.

And its scaling policy, which waits for a checkpoint before it grows a run.

All override internals of the pinned version of Ray; if another did not call these, runs would only start later, and repeat more steps.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ScalingDecision
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import NODE_ID_LABEL_KEY

from sml_dist.session import ALONE, environment


class Trainer(DataParallelTrainer):
    """Ray's, for runs that read their own data. Its controller is ours, and has a runtime environment only where there are variables to
    set: Ray's always has one, and so it and all its actors wait for new processes instead of taking those that Ray has ready."""

    def __init__(self, *args: Any, checkpoints: Path, last_step: int, **given: Any):
        super().__init__(*args, **given)
        self.checkpoints, self.last_step = checkpoints, last_step

    def _create_default_callbacks(self) -> list[Any]:
        """Ray's, without the actor for datasets and, outside of trials, the one that cleans up after a dead controller: this command ends
        with its controller, and Ray then frees what it held."""
        in_trial = ray.get_runtime_context().get_actor_id() is not None
        unneeded = DatasetsCallback if in_trial else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, unneeded)]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        if self.scaling_config.elasticity_enabled:
            given["scaling_policy"] = AtCheckpoints(self.scaling_config, self.checkpoints, self.last_step)
        said = get_env_vars_to_propagate()
        options = {"runtime_env": {"env_vars": said}} if said else {}
        here = {NODE_ID_LABEL_KEY: ray.get_runtime_context().get_node_id()}
        controller = ray.remote(num_cpus=0, label_selector=here, **options)(Controller).remote(**given)
        try:
            ray.get(controller.run.remote())
        except KeyboardInterrupt:  # Ray's own handler would exit as if all were done
            with contextlib.suppress(RayActorError):  # which is how a controller that aborts ends
                ray.get(controller.abort.remote())
            raise
        return ray.get(controller.get_result.remote())


class Controller(TrainController):
    """Ray's. In an instance that ends with its command no node is preempted, so none is watched for that, and the controller looks for the
    run's end every half second, not every two."""

    def __init__(self, **given: Any):
        # set here, not in the instance's environment, which workers would get as a runtime environment of their own
        said = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
        with environment(said if ALONE in os.environ else {}):
            super().__init__(**given)


class AtCheckpoints(ElasticScalingPolicy):
    """Ray's, but a running group is resized only when a checkpoint has just been completed: Ray ends the workers where they stand, and all
    that they did since their last checkpoint is done again. At a run's last one there is nothing left to do with more. After a worker is
    lost the group starts anew at once."""

    def __init__(self, scaling_config: ScalingConfig, checkpoints: Path, last_step: int):
        super().__init__(scaling_config)
        self.checkpoints, self.last_step, self.newest = checkpoints, last_step, 0

    def make_decision_for_running_worker_group(self, **state: Any) -> ScalingDecision:
        before = self.newest
        with contextlib.suppress(OSError):
            self.newest = max((int(each.name.removeprefix("step-")) for each in self.checkpoints.glob("step-*")), default=0)
        if self.newest in (before, self.last_step):
            self._maybe_send_resource_request()  # as Ray's does each time: it lapses
            return NoopDecision()
        return super().make_decision_for_running_worker_group(**state)
