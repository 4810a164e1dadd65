"""Weight files: what is read, what is refused, and that nothing is copied on the way."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from stepvideo_core.checkpoints.sources import (
    SafetensorsSource,
    TorchFileSource,
    scan_safetensors,
)
from stepvideo_core.errors import CheckpointError

WriteShards = Callable[..., list[Path]]
MappedFile = Callable[[Tensor], str]

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Equal in dtype, shape and every bit, NaNs included."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return torch.equal(*bits)


def write_raw(path: Path, header: dict[str, Any], num_bytes: int) -> None:
    """A safetensors file with any header, written by hand."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(num_bytes))


class TestSafetensors:
    def test_infos_describe_tensors_without_reading_them(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        save_file({"w": torch.zeros(3, 5, dtype=torch.bfloat16), "s": torch.tensor(2.0)}, path)
        infos = SafetensorsSource([path]).infos
        assert infos["w"].shape == (3, 5)
        assert infos["w"].dtype == torch.bfloat16
        assert infos["w"].num_bytes == 30
        assert infos["w"].file == path
        assert infos["s"].shape == ()
        assert infos["s"].num_bytes == 4

    @pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
    def test_truncated_file_is_named(self, tmp_path: Path, kept: int) -> None:
        path = tmp_path / "vae_v2.safetensors"
        save_file({"w": torch.randn(8, 8)}, path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(CheckpointError, match=r"vae_v2\.safetensors is not a complete") as info:
            SafetensorsSource([path])
        assert "download it again" in str(info.value)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"none\.safetensors is missing"):
            SafetensorsSource([tmp_path / "none.safetensors"])

    def test_folder_in_place_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="cannot be read"):
            SafetensorsSource([tmp_path])

    def test_key_in_two_shards(self, tmp_path: Path) -> None:
        first, second = tmp_path / "m-1.safetensors", tmp_path / "m-2.safetensors"
        save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, first)
        save_file({"b": torch.zeros(1)}, second)
        with pytest.raises(CheckpointError, match=r"'b' is in both .*m-1.* and .*m-2"):
            SafetensorsSource([first, second])

    def test_unknown_dtype_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        write_raw(path, {"w": {"dtype": "U16", "shape": [2], "data_offsets": [0, 4]}}, 4)
        with pytest.raises(CheckpointError, match=r"'w' in .* has dtype U16"):
            SafetensorsSource([path])

    def test_large_file_needs_no_memory_until_read(self, tmp_path: Path) -> None:
        # A sparse gigabyte: reading it would show in the process's own memory.
        path = tmp_path / "big.safetensors"
        size = 2**30
        header = {"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
        write_raw(path, header, 0)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size + size)
        before = own_memory()
        tensor = SafetensorsSource([path]).read("w")
        assert tensor.shape == (size // 2,)
        assert float(tensor[-1]) == 0.0
        assert own_memory() - before < 2**26


def own_memory() -> int:
    """Resident bytes of this process."""
    psutil = pytest.importorskip("psutil")
    return int(psutil.Process().memory_info().rss)


class TestMemoryMap:
    """The kernel's table of maps says where a tensor's memory lies."""

    def test_safetensors(self, tmp_path: Path, mapped_file: MappedFile) -> None:
        path = tmp_path / "a.safetensors"
        tensors = {"w": torch.randn(64, 64).bfloat16(), "v": torch.randn(100)}
        save_file(tensors, path)
        source = SafetensorsSource([path])
        for key in tensors:
            assert mapped_file(source.read(key)) == str(path)

    def test_torch_file(self, tmp_path: Path, mapped_file: MappedFile) -> None:
        path = tmp_path / "pytorch_model.bin"
        torch.save({"w": torch.randn(64, 64)}, path)
        assert mapped_file(TorchFileSource(path).read("w")) == str(path)

    def test_tensors_outlive_source_and_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        original = torch.randn(300, 300)
        save_file({"w": original}, path)
        tensor = SafetensorsSource([path]).read("w")
        gc.collect()  # the source is gone
        path.unlink()
        assert torch.equal(tensor, original)

    def test_writing_to_a_tensor_leaves_the_file_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        save_file({"w": torch.ones(10)}, path)
        content = path.read_bytes()
        SafetensorsSource([path]).read("w").zero_()
        gc.collect()
        assert path.read_bytes() == content


class TestShards:
    STEM = "model"

    def test_index_lists_the_shards(self, tmp_path: Path, write_shards: WriteShards) -> None:
        shards = [{"a": torch.zeros(2)}, {"b": torch.ones(3), "c": torch.ones(1)}]
        paths = write_shards(tmp_path, self.STEM, shards)
        assert scan_safetensors(tmp_path, self.STEM) == (paths, None)
        source = SafetensorsSource(paths)
        assert set(source.infos) == {"a", "b", "c"}
        assert source.infos["c"].file == paths[1]
        assert torch.equal(source.read("b"), torch.ones(3))

    def test_single_file_needs_no_index(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
        files, problem = scan_safetensors(tmp_path, self.STEM)
        assert [file.name for file in files] == ["model.safetensors"]
        assert problem is None

    def test_missing_shards_are_counted_and_named(
        self, tmp_path: Path, write_shards: WriteShards
    ) -> None:
        paths = write_shards(tmp_path, self.STEM, [{f"t{i}": torch.zeros(1)} for i in range(9)])
        for path in paths[2:8]:
            path.unlink()
        files, problem = scan_safetensors(tmp_path, self.STEM)
        assert files == [*paths[:2], paths[8]]
        assert problem is not None
        assert "6 of 9 shards are missing" in problem
        assert paths[2].name in problem
        assert paths[7].name not in problem

    def test_index_missing(self, tmp_path: Path, write_shards: WriteShards) -> None:
        paths = write_shards(tmp_path, self.STEM, [{"a": torch.zeros(1)}, {"b": torch.zeros(1)}])
        index = tmp_path / "model.safetensors.index.json"
        index.unlink()
        files, problem = scan_safetensors(tmp_path, self.STEM)
        assert files == paths
        assert problem is not None
        assert problem.startswith(f"{index} is missing, though 2 of its shards exist")

    def test_nothing_there(self, tmp_path: Path) -> None:
        files, problem = scan_safetensors(tmp_path, self.STEM)
        assert files == []
        assert problem is not None
        assert "model.safetensors is missing" in problem

    @pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": [1]}'])
    def test_index_without_weight_map(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "model.safetensors.index.json").write_text(content)
        assert "has no weight_map" in str(scan_safetensors(tmp_path, self.STEM)[1])

    def test_broken_index_says_where(self, tmp_path: Path, write_shards: WriteShards) -> None:
        paths = write_shards(tmp_path, self.STEM, [{"a": torch.zeros(1)}])
        (tmp_path / "model.safetensors.index.json").write_text('{\n  "weight_map": {,}\n}')
        files, problem = scan_safetensors(tmp_path, self.STEM)
        assert files == paths
        assert "line 2, column 18" in str(problem)

    @pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", 3, ["a"], ""])
    def test_index_cannot_point_elsewhere(self, tmp_path: Path, name: Any) -> None:
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        assert "no file name beside it" in str(scan_safetensors(tmp_path, self.STEM)[1])


class _WritesFile:
    """Unpickling this creates a file: what a hostile checkpoint would do, made visible."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


# torch remarks on pickle protocols that it does not expect, right before it refuses the file.
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
class TestTorchFile:
    def test_reads_tensors(self, tmp_path: Path) -> None:
        path = tmp_path / "pytorch_model.bin"
        tensors = {"w": torch.randn(3, 4), "h": torch.randn(2).bfloat16()}
        torch.save(tensors, path)
        source = TorchFileSource(path)
        assert source.infos["h"].dtype == torch.bfloat16
        assert all(same_bytes(source.read(key), tensors[key]) for key in tensors)

    def test_reads_the_old_format(self, tmp_path: Path) -> None:
        path = tmp_path / "pytorch_model.bin"
        torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
        assert torch.equal(TorchFileSource(path).read("w"), torch.ones(3))

    @pytest.mark.parametrize("container", ["torch", "torch-old", "pickle"])
    def test_hostile_pickle_is_refused_and_not_executed(
        self, tmp_path: Path, container: str
    ) -> None:
        path, proof = tmp_path / "pytorch_model.bin", tmp_path / "executed"
        payload = {"w": torch.zeros(1), "x": _WritesFile(proof)}
        if container == "pickle":
            path.write_bytes(pickle.dumps(payload))
        else:
            torch.save(payload, path, _use_new_zipfile_serialization=container == "torch")
        with pytest.raises(CheckpointError, match="would run code when read and is refused"):
            TorchFileSource(path)
        assert not proof.exists()
        # The payload is real: torch's trusting reader runs it.
        if container == "torch":
            torch.load(path, weights_only=False)
            assert proof.exists()

    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
    def test_truncated_file_is_named(self, tmp_path: Path, part: float, old: bool) -> None:
        path = tmp_path / "pytorch_model.bin"
        torch.save({"w": torch.randn(64)}, path, _use_new_zipfile_serialization=not old)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
            TorchFileSource(path)

    @pytest.mark.parametrize("content", [[torch.zeros(1)], {"w": 1.0}, {3: torch.zeros(1)}])
    def test_other_content_is_refused(self, tmp_path: Path, content: object) -> None:
        path = tmp_path / "pytorch_model.bin"
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="does not hold a dictionary of named tensors"):
            TorchFileSource(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="is missing"):
            TorchFileSource(tmp_path / "pytorch_model.bin")

    @settings(max_examples=60, deadline=None)
    @given(data=st.data(), old=st.booleans())
    def test_damaged_file_never_escapes_as_another_error(
        self, data: st.DataObject, old: bool
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pytorch_model.bin"
            torch.save({"w": torch.ones(4)}, path, _use_new_zipfile_serialization=not old)
            content = bytearray(path.read_bytes())
            for _ in range(data.draw(st.integers(1, 4))):
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
                    st.integers(0, 255)
                )
            path.unlink()
            path.write_bytes(content)
            try:
                source = TorchFileSource(path)
            except CheckpointError as error:
                assert str(path) in str(error)
            else:
                assert all(isinstance(source.read(key), Tensor) for key in source.infos)


@st.composite
def tensor_sets(draw: st.DrawFn) -> list[dict[str, Tensor]]:
    """Some tensors, dealt out to one to four shards; shards may be empty."""
    keys = draw(st.lists(st.text("abc._0é", min_size=1, max_size=8), unique=True, max_size=12))
    shards: list[dict[str, Tensor]] = [{} for _ in range(draw(st.integers(1, 4)))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    for key in keys:
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        dtype = draw(st.sampled_from(DTYPES))
        values = torch.randn(shape, generator=generator) * 3
        shards[draw(st.integers(0, len(shards) - 1))][key] = values.to(dtype)
    return shards


@settings(max_examples=40, deadline=None)
@given(shards=tensor_sets())
def test_round_trip_over_random_shards(
    write_shards: WriteShards, shards: Sequence[dict[str, Tensor]]
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        paths = write_shards(folder, "model", shards)
        source = SafetensorsSource(paths)
        written = {key: tensor for shard in shards for key, tensor in shard.items()}
        assert set(source.infos) == set(written)
        for key, tensor in written.items():
            assert same_bytes(source.read(key), tensor)
            assert source.infos[key].shape == tuple(tensor.shape)
            assert source.infos[key].num_bytes == tensor.numel() * tensor.element_size()
        listed, problem = scan_safetensors(folder, "model")
        if written:
            assert problem is None
            # The index only knows shards that hold a tensor.
            assert listed == [path for path, shard in zip(paths, shards, strict=True) if shard]
    finally:
        shutil.rmtree(folder)
