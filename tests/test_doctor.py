"""Laws of the doctor: every fault is found from plain facts and comes with its fix."""

import tomllib
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sml_dist import doctor
from sml_dist.doctor import Check, Outcome

CPU = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}
GPU = {"torch": "2.13.0+cu130", "torchrec": "1.8.0", "fbgemm-gpu": "1.8.0"}
BROKEN = Outcome(1, '{"cuda": null, "gpus": []}\n', "Traceback\nOSError: libtorch_cuda.so: cannot open shared object file\n")


def shown(checks: list[Check], width: int) -> str:
    text = StringIO()
    Console(file=text, width=width).print(doctor.render(checks))
    return text.getvalue()


def test_the_wanted_versions_are_those_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    pins = project["dependencies"] + project["optional-dependencies"]["gpu"] + project["optional-dependencies"]["cpu"]
    for name, version in doctor.WANTED.items():
        found = [pin for pin in pins if pin.startswith((f"{name}=", f"{name}[", f"{name}-"))]
        assert found
        assert all(pin.endswith(f"=={version}.*") for pin in found)
    (ray,) = [pin for pin in pins if pin.startswith("ray[")]
    assert doctor.version_check("ray", None).fix == f'pip install "{ray}"'  # with all its extras
    assert project["requires-python"] == f">={'.'.join(map(str, doctor.PYTHON))}"


@pytest.mark.parametrize(("version", "ok"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 1), True)])
def test_python_must_be_new_enough(version, ok):
    assert doctor.python_check(version).ok == ok


@pytest.mark.parametrize("installed", [CPU, GPU])
def test_the_versions_built_together_pair(installed):
    assert doctor.pairing_check(installed, "cpu").ok


@pytest.mark.parametrize(
    ("change", "installs"),
    [
        ({"torch": "2.14.0"}, 'pip install "torch==2.13.*"'),
        ({"torch": "2.1.3"}, 'pip install "torch==2.13.*"'),
        ({"torchrec": "1.9.0"}, '"torchrec==1.8.*"'),
        ({"torchrec": None}, '"torchrec==1.8.*"'),
        ({"fbgemm-gpu-cpu": "1.6.0"}, '"fbgemm-gpu-cpu==1.8.*"'),
        ({"fbgemm-gpu-cpu": None}, '"fbgemm-gpu-cpu==1.8.*"'),
    ],
)
def test_any_other_pairing_is_a_fault_with_the_commands_that_mend_it(change, installs):
    installed = {name: version for name, version in (CPU | change).items() if version}
    check = doctor.pairing_check(installed, "cpu")
    assert not check.ok
    assert installs in check.fix
    assert ("torch==" in check.fix.splitlines()[0]) == ("torch" in change)


@pytest.mark.parametrize(
    ("installed", "cuda", "gpus", "ok"),
    [
        (CPU, None, [], True),
        (CPU, None, ["H100"], True),
        (CPU, "13.0", [], True),
        (GPU, "13.0", ["H100"], True),
        (GPU, "13.0", [], True),
        (GPU, None, [], False),
        (CPU, "13.0", ["H100"], False),
        (CPU | GPU, None, [], False),
        ({"torch": "2.13.0"}, None, [], False),
    ],
)
def test_the_builds_of_fbgemm_and_torch_must_match(installed, cuda, gpus, ok):
    check = doctor.build_check(installed, cuda, gpus)
    assert check.ok == ok
    wanted = '"fbgemm-gpu==' if cuda and gpus else '"fbgemm-gpu-cpu=='
    assert ok == (not check.fix) and (ok or wanted in check.fix)


def test_a_missing_shared_object_is_a_fault_that_names_it_and_the_reinstall():
    check = doctor.load_check(BROKEN, doctor.load_facts(BROKEN), "cpu")
    assert (check.ok, check.detail) == (False, "OSError: libtorch_cuda.so: cannot open shared object file")
    assert check.fix.splitlines()[0] == "pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu torchrec"
    assert '"fbgemm-gpu-cpu==1.8.*"' in check.fix


def test_a_crash_a_hang_and_a_missing_torch_are_told_apart():
    crash, hang, missing = Outcome(-11, BROKEN.stdout), Outcome(None), Outcome(1, "", "ModuleNotFoundError: No module named 'torch'")
    details = [doctor.load_check(outcome, doctor.load_facts(outcome), "cpu").detail for outcome in (crash, hang, missing)]
    assert details[0] == "exit status -11"
    assert details[1].startswith("no answer within")
    assert details[2].startswith("torch does not import")


def test_ray_must_run_a_task():
    assert doctor.ray_check(Outcome(0, "task done\n")).ok
    for outcome in (Outcome(0, ""), Outcome(1, "", "RuntimeError: no raylet"), Outcome(None)):
        assert not doctor.ray_check(outcome).ok
        assert doctor.ray_check(outcome).fix


@pytest.mark.parametrize(("version", "ok"), [("2.60.0", True), ("2.60.1", True), ("2.6.0", False), ("2.600.0", False), (None, False)])
def test_a_version_must_match_in_its_wanted_parts(version, ok):
    check = doctor.version_check("ray", version)
    assert check.ok == ok
    assert bool(check.fix) != ok


def test_little_memory_or_disk_is_a_fault_and_little_shared_memory_a_hint():
    assert doctor.memory_check(8e9) == Check("memory", True, "8.0 GB available")
    assert not doctor.memory_check(1e9).ok
    assert doctor.disk_check({"/tmp": (int(1e11), int(5e10))}).ok
    assert not doctor.disk_check({"/data": (int(1e11), int(5e10)), "/tmp": (int(1e11), int(1e9))}).ok
    assert "/tmp" in doctor.disk_check({"/data": (int(1e11), int(5e10)), "/tmp": (int(1e11), int(1e9))}).fix
    assert not doctor.disk_check({"/tmp": (int(1e12), int(2e10))}).ok, "98 % full: Ray refuses to spill"
    small = doctor.shm_check(64e6)
    assert small.ok and "--shm-size" in small.fix
    assert not doctor.shm_check(8e9).fix


def test_the_disk_of_a_folder_that_is_yet_to_be_made_is_looked_at(tmp_path):
    assert list(doctor.disks([str(tmp_path / "ray/session")])) == [str(tmp_path)]


def test_what_a_container_has_read_of_files_and_can_give_back_is_not_used_memory(tmp_path):
    (tmp_path / "memory.max").write_text("100000\n")
    (tmp_path / "memory.current").write_text("90000\n")
    (tmp_path / "memory.stat").write_text("anon 20000\nfile 70000\ninactive_file 60000\nactive_file 10000\n")
    assert doctor.available_memory(tmp_path) == 70_000


def test_what_a_system_does_not_tell_is_no_fault():
    assert all(check.ok and not check.fix for check in (doctor.memory_check(None), doctor.shm_check(None)))


def test_no_compiler_is_a_hint():
    without, found = doctor.compiler_check(None), doctor.compiler_check("/usr/bin/c++")
    assert without.ok and "g++" in without.fix and found.ok and not found.fix


def test_bf16_units_are_found_in_the_flags():
    assert doctor.bf16_check(frozenset({"sse", "avx512_bf16", "amx_bf16"})).detail == "amx_bf16, avx512_bf16"
    assert "no bf16" in doctor.bf16_check(frozenset({"sse"})).detail


def test_a_gpu_that_torch_cannot_use_is_a_fault_only_under_a_cuda_build():
    assert doctor.gpu_check([], {"cuda": None, "gpus": []}).ok
    assert doctor.gpu_check(["H200"], {"cuda": "13.0", "gpus": ["H200"]}) == Check("GPU", True, "H200")
    idle = doctor.gpu_check(["H200"], {"cuda": None, "gpus": []})
    assert idle.ok and idle.fix
    assert not doctor.gpu_check(["H200"], {"cuda": "13.0", "gpus": []}).ok


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_every_check_and_each_fix_once_within_the_width(width):
    checks = [Check("first", True, "fine"), Check("second", False, "d" * 150, "mend it"), Check("third", False, "worse", "mend it")]
    text = shown([*checks, Check("fourth", True, "slow", "a hint")], width)
    assert max(map(len, text.splitlines())) <= width
    assert [line.split()[0] for line in text.splitlines() if line[:1] not in ("", " ")][:4] == ["ok", "fault", "fault", "hint"]
    assert text.count("mend it") == 1
    assert "second, third" in text
    assert "2 of 4 checks failed" in text
    assert text.count("d" * 10) > 1
    assert "ready to train" in shown(checks[:1], width)


@pytest.mark.parametrize("build", ["cpu", "gpu"])
def test_every_command_of_a_reinstall_fits_a_narrow_terminal_unbroken(build):
    text = shown([Check("a", False, "b", doctor.REINSTALL[build])], 80)
    assert all(f"  {command}" in [line.rstrip() for line in text.splitlines()] for command in doctor.REINSTALL[build].splitlines())


def test_a_probe_that_hangs_is_ended():
    outcome = doctor.run_probe("print('begun', flush=True); import time; time.sleep(600)", 2)
    assert (outcome.status, outcome.stdout) == (None, "begun\n")


def test_the_environment_of_these_tests_is_sound():
    checks = doctor.diagnose()
    limits = {"memory", "disk"}  # of the machine, not of the installation
    assert [check for check in checks if not check.ok and check.name not in limits] == []
    assert len(checks) == 14
