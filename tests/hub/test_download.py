"""Downloads from a hub on loopback: complete, resumed, verified, and refused with a reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stepvideo_core.checkpoints.inspection import inspect_checkpoint
from stepvideo_core.cli import main
from stepvideo_core.errors import CheckpointError, DownloadFailed, OutputError
from stepvideo_core.hub import download_model, is_model_id, models_folder, open_checkpoint
from stepvideo_core.hub.fetch import MARKER
from stepvideo_core.progress import StageReport

from .conftest import REVISION, LoopbackHub

MODEL, TURBO = "loopback/stepvideo-t2v", "loopback/stepvideo-t2v-turbo"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
VAE = "vae/vae_v2.safetensors"


@pytest.fixture
def repository(hub: LoopbackHub, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny model as an official repository, with what nobody needs in it."""
    root = tmp_path / "repository"
    shutil.copytree(tiny_checkpoint, root)
    for name in ("README.md", "lib/liboptimus.so", "vae/vae.safetensors", "assets/fox.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"not needed")
    hub.repositories[MODEL] = root
    return root


def content(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".stepvideo-download")
    }


class Counter:
    """An observer that adds up what it is told."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    def begin(self, name: str, total: int | None, unit: str) -> None:
        self.total = total

    def advance(self, amount: int) -> None:
        self.done += amount

    def end(self, report: StageReport) -> None:
        pass


def test_a_model_arrives_complete_and_once(
    hub: LoopbackHub, repository: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    target, counter = tmp_path / "model", Counter()
    assert download_model(MODEL, target, observer=counter) == []
    assert content(target) == content(tiny_checkpoint)
    assert counter.done == counter.total == sum(map(len, content(target).values()))
    assert inspect_checkpoint(target).ok
    marker = json.loads((target / MARKER).read_text())
    assert (marker["model"], marker["revision"]) == (MODEL, REVISION)
    first = len(hub.served)
    download_model(MODEL, target)
    assert len(hub.served) == first, "nothing is fetched twice"


def test_tokens_stay_with_the_hub(
    hub: LoopbackHub, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    download_model(MODEL, tmp_path / "model", folders=["transformer"])
    assert {(one.authorised, one.through_storage) for one in hub.served} == {
        (True, False),
        (False, True),
    }


def test_a_lost_connection_is_taken_up_where_it_broke(
    hub: LoopbackHub, repository: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    hub.cut_once = {WEIGHTS: 100_000, VAE: 5}
    hub.lifted.set()
    counter = Counter()
    download_model(MODEL, tmp_path / "model", observer=counter)
    assert content(tmp_path / "model") == content(tiny_checkpoint)
    assert hub.starts(WEIGHTS) == [0, 100_000]
    assert hub.starts(VAE) == [0, 5]
    assert counter.done == counter.total


def test_a_server_without_ranges_begins_again(
    hub: LoopbackHub, repository: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    hub.cut_once, hub.ignore_ranges = {WEIGHTS: 100_000}, True
    hub.lifted.set()
    counter = Counter()
    download_model(MODEL, tmp_path / "model", observer=counter)
    assert content(tmp_path / "model") == content(tiny_checkpoint)
    assert hub.starts(WEIGHTS) == [0, 0]
    assert counter.done == counter.total


def test_a_killed_download_goes_on(
    hub: LoopbackHub, repository: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    hub.stall = {WEIGHTS: 200_000}
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from stepvideo_core.hub import download_model
        download_model(sys.argv[1], Path(sys.argv[2]))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program, MODEL, str(target)], env=os.environ)
    assert hub.stalled.wait(60)
    part = None
    while part is None or part.stat().st_size < 200_000:
        part = next(iter((target / "transformer").glob(".*.part")), None)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (target / WEIGHTS).exists()
    with pytest.raises(CheckpointError, match=r"model|missing"):
        open_checkpoint(target).files("transformer")
    hub.lifted.set()
    download_model(MODEL, target)
    assert content(target) == content(tiny_checkpoint)
    assert hub.starts(WEIGHTS) == [0, 200_000]


def test_damaged_content_is_removed_and_said(
    hub: LoopbackHub, repository: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    for name in ("transformer/config.json", VAE):
        hub.corrupt = {name}
        with pytest.raises(DownloadFailed, match="does not have the hub's checksum") as caught:
            download_model(MODEL, target)
        assert str(target / name) in str(caught.value)
        assert not (target / name).exists()
        assert not (target / MARKER).exists()
    hub.corrupt = set()
    download_model(MODEL, target)
    assert content(target) == content(tiny_checkpoint)


def test_verify_finds_what_rotted_on_the_disk(
    hub: LoopbackHub, repository: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    download_model(MODEL, target)
    rotten = bytearray((target / VAE).read_bytes())
    rotten[-1] ^= 1
    (target / VAE).write_bytes(rotten)
    hub.served.clear()
    download_model(MODEL, target)
    assert hub.served == []
    download_model(MODEL, target, verify=True)
    assert [one.path for one in hub.served] == [VAE]
    assert content(target) == content(tiny_checkpoint)


def test_a_path_out_of_the_folder_is_refused(
    hub: LoopbackHub, repository: Path, tmp_path: Path
) -> None:
    hub.extra_paths = ["transformer/../../evil.json"]
    with pytest.raises(DownloadFailed, match=r"lists a file 'transformer/\.\./\.\./evil\.json'"):
        download_model(MODEL, tmp_path / "model")
    assert hub.served == []


def test_what_a_hub_may_answer(
    hub: LoopbackHub, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadFailed, match=r"there is no model loopback/absent at http"):
        download_model("loopback/absent", tmp_path / "a")
    (tmp_path / "empty").mkdir()
    hub.repositories["loopback/other"] = tmp_path / "empty"
    with pytest.raises(DownloadFailed, match="it has no transformer folder"):
        download_model("loopback/other", tmp_path / "b")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match=r"cannot be reached \(.*check the connection"):
        download_model(MODEL, tmp_path / "c")
    with pytest.raises(DownloadFailed, match=r"needs the modelscope package|from ModelScope"):
        download_model(MODEL, tmp_path / "d", hub="modelscope")


def test_a_folder_that_cannot_take_it(hub: LoopbackHub, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        download_model(MODEL, tmp_path / "file" / "model")
    large = repository / "transformer" / "large.json"
    with large.open("wb") as sparse:
        sparse.truncate(10)
    description = hub.describe(MODEL)
    for sibling in description["siblings"]:
        if sibling["rfilename"] == "transformer/large.json":
            sibling["size"] = 10**18
    hub.describe = lambda model: description  # type: ignore[method-assign]
    with pytest.raises(OutputError, match=r"GB free, but 1000000000\.0 GB are to be fetched"):
        download_model(MODEL, tmp_path / "model")
    assert hub.served == []


def test_what_is_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert is_model_id("stepfun-ai/stepvideo-t2v")
    for path in ("tiny", "models/absent", "./a/b", "/a/b", "a/b/c", "../b", "a/"):
        assert not is_model_id(path), path
    assert not is_model_id(Path("stepfun-ai/stepvideo-t2v"))


def test_turbo_takes_what_it_lacks_from_its_base_model(
    hub: LoopbackHub, repository: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    turbo = tmp_path / "turbo-repository"
    shutil.copytree(tiny_checkpoint, turbo)
    (turbo / "stepvideo.json").unlink()
    for name in ("vae", "step_llm", "hunyuan_clip"):
        shutil.rmtree(turbo / name)
    hub.repositories[TURBO] = turbo
    with pytest.raises(CheckpointError, match=f"stepvideo download {TURBO}"):
        open_checkpoint(TURBO, download=False)
    layout = open_checkpoint(TURBO)
    assert layout.root == models_folder(TURBO)
    assert layout.shared == models_folder(MODEL)
    assert not (models_folder(MODEL) / "transformer").exists(), "58 GB that nobody asked for"
    sampling = layout.config.sampling
    assert (sampling.num_steps, sampling.cfg_scale, sampling.time_shift) == (15, 5.0, 17.0)
    hub.served.clear()
    assert open_checkpoint(TURBO, download=False) == layout
    assert inspect_checkpoint(layout.root).ok
    # The base model itself is not there yet, only parts of it.
    with pytest.raises(CheckpointError, match="is not on this machine"):
        open_checkpoint(MODEL, download=False)
    assert hub.served == []
    open_checkpoint(MODEL)
    assert {one.path.split("/")[0] for one in hub.served} <= {
        *("transformer", "scheduler", "model_index.json", "stepvideo.json")
    }


def test_from_the_command_line(
    hub: LoopbackHub,
    repository: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stepvideo(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["stepvideo", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert caught.value.code == 0, captured.err
        return captured.out

    fetched = json.loads(stepvideo("download", MODEL, tmp_path / "model", "--json"))
    assert fetched["output"] == str(tmp_path / "model")
    assert content(tmp_path / "model") == content(tiny_checkpoint)
    output = tmp_path / "v.safetensors"
    size = ("--frames", 1, "--height", 32, "--width", 48, "--steps", 1)
    stepvideo("run", "a red circle", "--model", MODEL, *size, "-o", output)
    assert output.is_file()
    assert content(models_folder(MODEL)) == content(tiny_checkpoint)


def test_a_disk_that_fills_up(hub: LoopbackHub, repository: Path, tmp_path: Path) -> None:
    """What has arrived is kept, and the same command goes on from there."""
    program = textwrap.dedent(
        """
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        from pathlib import Path
        from stepvideo_core.errors import OutputError
        from stepvideo_core.hub import download_model
        try:
            download_model(sys.argv[1], Path(sys.argv[2]))
        except OutputError as error:
            sys.exit(str(error))
        """
    )
    target = tmp_path / "model"
    done = subprocess.run(
        [sys.executable, "-c", program, MODEL, str(target)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "cannot be written: File too large; what has arrived is kept" in done.stderr
    download_model(MODEL, target)
    assert 150_000 in {one.start for one in hub.served}
    assert inspect_checkpoint(target).ok


def test_the_hubs_own_cache_is_used(
    hub: LoopbackHub, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another tool has fetched is not fetched again, unless it is incomplete."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    entry = tmp_path / "hf" / f"models--{TURBO.replace('/', '--')}"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text(REVISION)
    snapshot = entry / "snapshots" / REVISION
    shutil.copytree(tiny_checkpoint, snapshot)
    (snapshot / "stepvideo.json").unlink()
    layout = open_checkpoint(TURBO, download=False)
    assert layout.root == snapshot
    assert layout.is_turbo, "the name is the model's, not the snapshot's"
    (snapshot / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="is not on this machine"):
        open_checkpoint(TURBO, download=False)
    assert hub.served == []
