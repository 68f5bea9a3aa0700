from sml_dist.train.interface import interface_of


def test_the_interface_is_the_one_that_has_the_address():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None
