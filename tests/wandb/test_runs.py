"""`ligr fit wandb:ENTITY/PROJECT` with the real client: runs of a project are a table of runs."""

import json

import pytest

from ligr_jax.cli import main
from tests.wandb.server import ENTITY, PROJECT, Run, StoredRun, WandbServer

ADDRESS = f"wandb:{ENTITY}/{PROJECT}"
WORDS = ["-m", "ligr_jax", "fit", ADDRESS, "--loss", "val/loss", "--axis", "flops", "--bootstrap"]


def store(server: WandbServer) -> None:
    """Store six finished runs of a law; one of them without a loss, and a crashed run."""
    for k in range(8):
        compute = 10.0 ** (10 + k / 2)
        run = StoredRun(f"id{k}", exit_code=1 if k == 7 else 0)
        config = {"model": {"value": {"width": 8 * 2**k}}, "_wandb": {"value": {}}}
        run.fields = {"displayName": f"run{k}", "config": json.dumps(config)}
        summary = {"flops": compute, "val/loss": "NaN" if k == 6 else 0.8 + compute**-0.05}
        run.lines["wandb-summary.json"][0] = json.dumps(summary)
        server.runs[run.name] = run


def test_runs_of_a_project_are_fitted(server: WandbServer, run: Run) -> None:
    store(server)
    done = run(*WORDS, 0, "--json")
    assert json.loads(done.stdout)["runs"] == [f"run{k}" for k in range(6)]
    assert "left out run6: val/loss is not a finite number" in done.stderr
    assert "left out run7: state is crashed" in done.stderr
    # A filter, several pages, and a column of the configuration.
    filtered = [*WORDS[2:], "0", "--filters", '{"state": "finished"}']
    read = (
        "import ligr_jax.runs.wandb_runs as w; w.PAGE = 3\n"
        "from ligr_jax.cli import main\n"
        "from ligr_jax.runs.table import read_runs\n"
        f"assert main({filtered}) == 0\n"
        f"print(read_runs('{ADDRESS}').table['config/model.width'].to_list())"
    )
    done = run("-c", read)
    assert "left out run6" in done.stderr
    assert "run7" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [8 * 2**k for k in range(7)]


def test_what_cannot_be_read_is_named(server: WandbServer, run: Run) -> None:
    store(server)
    nothing = ["fit", ADDRESS, "--filters", '{"state": "failed"}']
    unknown = ["fit", f"wandb:{ENTITY}/other"]
    calls = (
        "import os; from ligr_jax.cli import main\n"
        f"statuses = [main({nothing}), main({unknown})]\n"
        "del os.environ['WANDB_API_KEY']\n"
        f"print(*statuses, main(['fit', '{ADDRESS}']))"
    )
    done = run("-c", calls)
    assert done.stdout.split() == ["1", "1", "1"]
    assert "no runs match the filters {'state': 'failed'}" in done.stderr
    assert "Could not find project other; check the spelling" in done.stderr
    assert f"no key for {server.url}; run `wandb login`" in done.stderr
    server.faults["Runs"] = "permission denied"
    done = run(*WORDS, 0, status=1)
    assert "permission denied; check that the key may read it" in done.stderr


@pytest.mark.parametrize(
    ("address", "filters", "message"),
    [
        (ADDRESS, "state", "--filters state: not JSON"),
        (ADDRESS, "[1]", "--filters [1]: not an object"),
        ("wandb:ligr", "{}", "give wandb:ENTITY/PROJECT"),
        ("runs.csv", "{}", "--filters applies to wandb:ENTITY/PROJECT only"),
    ],
)
def test_wrong_addresses_and_filters_are_refused_before_a_request(
    capsys: pytest.CaptureFixture[str], address: str, filters: str, message: str
) -> None:
    assert main(["fit", address, "--filters", filters]) == 1
    assert message in capsys.readouterr().err
