"""Commands with URIs: the output is that of the same command with directories."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ligr_jax.cli import main
from ligr_jax.exit_status import DONE
from ligr_jax.runs.directory import load_summary
from ligr_jax.store.mirror import local_path
from tests.data.logs import write_log
from tests.scaling.test_report import write_ladder
from tests.store.conftest import OnHost
from tests.store.s3 import S3
from tests.train.runs import SMALL


def put(s3: S3, directory: Path, bucket: str) -> None:
    for path in directory.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            s3.write(f"{bucket}/{path.relative_to(directory)}", path.read_bytes())


def every_third() -> Callable[[str, str], str]:
    """A fault of the server: every third request meets one of three kinds."""
    count = 0

    def fault(method: str, path: str) -> str:
        nonlocal count
        count += 1
        return {0: "503", 3: "slow", 6: "cut"}.get(count % 9, "")

    return fault


@pytest.fixture(scope="module")
def places(
    prepared: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A ladder of runs, a trained run and its data."""
    ladder = write_ladder(tmp_path_factory.mktemp("ladder") / "ladder")
    return {"LADDER": ladder, "RUN": finished, "DATA": prepared}


@pytest.mark.parametrize(
    "command",
    [
        "fit LADDER --json",
        "plan --runs LADDER --flops 1e13 --device cpu --data DATA",
        "status LADDER --json",
        "verify RUN DATA --json",
        "eval RUN --data DATA --split validation --json",
        "predict RUN --data DATA --out OUT/predictions.parquet --json",
    ],
    ids=lambda command: command.split()[0],
)
def test_a_command_prints_the_same_for_uris_and_directories(
    command: str,
    places: dict[str, Path],
    s3: S3,
    on_host: OnHost,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_host("reader")
    local = {**places, "OUT": tmp_path / "out"}
    stored = {name: f"s3://{name.lower()}/{place.name}" for name, place in local.items()}
    outputs = []
    for named in (local, stored):
        text = command
        for name, place in named.items():
            text = text.replace(name, str(place))
        if named is stored:
            for name in places:
                if name in command:
                    put(s3, places[name], f"{name.lower()}/{places[name].name}")
            before = dict(s3.objects)
        with s3.failing(every_third()):
            assert main(text.split()) == DONE, capsys.readouterr()
        output = capsys.readouterr().out
        for name, place in named.items():
            output = output.replace(str(place), name)
        outputs.append(output)
    assert outputs[0] == outputs[1]
    assert before.items() <= s3.objects.items()
    assert any(path.startswith("out/") for path in s3.objects) == ("OUT" in command)


def test_a_log_in_a_store_is_prepared_there(
    s3: S3, on_host: OnHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "log")
    put(s3, tmp_path / "log", "b/log")
    on_host("first")
    digests = []
    for source, out in (("s3://b/log", "s3://b/data"), (tmp_path / "log", tmp_path / "data")):
        assert main(["prepare", str(source), "--out", str(out), "--json"]) == DONE
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    assert digests[0] == digests[1]
    on_host("second")
    assert main(["verify", "s3://b/data"]) == DONE


@pytest.mark.slow
def test_a_sweep_is_trained_in_a_store(
    data: str,
    s3: S3,
    on_host: OnHost,
    tmp_path: Path,
    child_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In spite of faults; another host finds it finished."""
    for name in ("XLA_FLAGS", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, child_env[name])
    (tmp_path / "two.yaml").write_text(
        "method: grid\nparameters: {optim.dense_lr: {values: [0.001, 0.002]}}\n"
    )
    command = ["sweep", str(tmp_path / "two.yaml"), "--data", data, "--out", "s3://b/sweep"]
    command += ["--together", "2", *SMALL, "model.features=item_id", "model.set_depth=0"]
    command += ["train.steps=4", "eval.splits="]
    on_host("first")
    with s3.failing(every_third()):
        assert main(command) == DONE, capsys.readouterr()
    shutil.rmtree(tmp_path / "first")
    on_host("second")
    assert main(["status", "s3://b/sweep"]) == DONE
    stored = s3.below("b/sweep/")
    runs = [point["run"] for point in json.loads(stored["sweep.json"])["points"]]
    assert [(load_summary(local_path(f"s3://b/sweep/{r}")) or {})["steps"] for r in runs] == [4, 4]
    assert all(f"{run}/checkpoints/4/digests.json" in stored for run in runs)
