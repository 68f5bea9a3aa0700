from sml_dist.train.interface import NodeTorchConfig, interface_of


def test_the_interface_is_the_one_that_has_the_address():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None


def test_workers_take_their_nodes_interface_before_gloo_starts(monkeypatch):
    done = []
    monkeypatch.setattr(NodeTorchConfig().backend_cls.__bases__[0], "on_start", lambda *given: done.append("gloo"))

    class Group:
        def execute(self, function):
            done.append(function.__name__)

    NodeTorchConfig().backend_cls().on_start(Group(), NodeTorchConfig())
    assert done == ["take_the_nodes_interface", "gloo"]
