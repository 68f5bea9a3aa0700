"""Every model compiles whole: one graph, whose loss and gradients are those of the model as it is written.

Captured and differentiated by torch's compiler; what becomes of the graph, kernels of this machine or of a GPU, is torch's affair.
"""

import pytest
import torch

from sml_dist.models.zoo import ZOO
from sml_dist.nn.deep_supervision import every_logit, supervisions
from tests.models.test_zoo import config, loss_of, make, rows

DEEP = ("dnn", "mmoe")


def gradients(model_config, **compiled):
    model = make(model_config)
    if compiled:
        model.compile(dynamic=False, **compiled)
    found = []
    for _ in range(2):
        x, dense, label = rows(32)
        model.zero_grad()
        logit = model(x.requires_grad_(), dense)
        heads = every_logit(supervisions(model), logit)
        loss = torch.stack([loss_of(head, label) for head in heads]).mean()
        loss.backward()
        found += [loss.detach(), x.grad, *(p.grad for p in model.parameters())]
    return found


@pytest.mark.parametrize(("name", "sml"), [*((name, "mtn-both") for name in ZOO), *((name, "deep-supervision") for name in DEEP)])
def test_a_compiled_model_is_the_model(name, sml):
    torch._dynamo.reset()
    found = gradients(config(name, sml), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(found, gradients(config(name, sml)), rtol=1e-4, atol=1e-6)
