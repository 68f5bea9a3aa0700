"""Ray Train's trainer and controller, with less to start: each actor of theirs is a process that imports for a second.

Both reach into Ray, of the version that is pinned; were another to call nothing of what is overridden, runs would only start later.
"""

import contextlib
import os
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import NODE_ID_LABEL_KEY

from sml_dist.session import ALONE, environment


class Trainer(DataParallelTrainer):
    """Ray's, for runs that read for themselves. Its controller is ours, and has a runtime environment of its own only where there is
    something to say in it: Ray's always has, and then it and all its actors wait for new processes in place of those that
    Ray has ready."""

    def _create_default_callbacks(self) -> list[Any]:
        """Ray's, but for an actor for datasets, and outside of trials one that clears up after a dead controller: the command that
        this is ends with it, and all that Ray holds for it."""
        in_trial = ray.get_runtime_context().get_actor_id() is not None
        unneeded = DatasetsCallback if in_trial else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, unneeded)]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        said = get_env_vars_to_propagate()
        options = {"runtime_env": {"env_vars": said}} if said else {}
        here = {NODE_ID_LABEL_KEY: ray.get_runtime_context().get_node_id()}
        controller = ray.remote(num_cpus=0, label_selector=here, **options)(Controller).remote(**given)
        try:
            ray.get(controller.run.remote())
        except KeyboardInterrupt:  # Ray's own handler ends the process, as one that has done all
            with contextlib.suppress(RayActorError):  # which is how a controller that aborts ends
                ray.get(controller.abort.remote())
            raise
        return ray.get(controller.get_result.remote())


class Controller(TrainController):
    """Ray's. In an instance that ends with its command nobody takes nodes away, so that none is watched for it, and the controller
    looks for the run's end every half second, not every two."""

    def __init__(self, **given: Any):
        # said here and not in the instance's environment, which the workers would be given as one of their own
        said = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
        with environment(said if ALONE in os.environ else {}):
            super().__init__(**given)
