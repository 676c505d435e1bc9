"""The converter of FunASR's emotion2vec: what it refuses everywhere, the conversion where PyTorch is."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import convert_checkpoint, golden_emotion2vec
from tools.emotion2vec_layout import convolutions, describe, read_labels, read_model


def funasr_folder(folder: Path, **changes: Any) -> Path:
    """A folder of FunASR without weights, with other values in model_conf or its part audio."""
    config = copy.deepcopy(golden_emotion2vec.CONFIG)
    conf = config["model_conf"]
    for name, value in changes.items():
        part = conf if name in conf else conf["modalities"]["audio"]
        part[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def refused(*arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as caught:
        convert_checkpoint.main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, str)
    return caught.value.code


def test_the_published_convolutions_are_read_and_not_evaluated():
    published = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
    assert convolutions(published) == [(512, 10, 5), *[(512, 3, 2)] * 4, (512, 2, 2), (512, 2, 2)]
    assert convolutions("[(8, 10, 5), (8, 2, 2)]*2") == [(8, 10, 5), (8, 2, 2)] * 2
    for spec in ("__import__('os').getcwd()", "[]", "[(512, 10)]", "[(512, 10, 5)] * x", ""):
        with pytest.raises(SystemExit, match=r"expected lists of \(channels, width, stride\)$"):
            convolutions(spec)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layer_norm_first": True}, "config.yaml: layer_norm_first is True, expected False"),
        ({"learned_alibi_scale_per_layer": True}, "learned_alibi_scale_per_layer is True, expected False"),
        ({"extractor_mode": "default"}, "extractor_mode is 'default', expected 'layer_norm'"),
    ],
)
def test_another_architecture_is_refused(changes: dict[str, Any], sentence: str, tmp_path: Path):
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04")
    assert sentence in refused(funasr_folder(tmp_path, **changes))


def test_other_folders_are_refused(tmp_path: Path):
    assert f"{tmp_path} holds none beside config.yaml, expected one file .pt" in refused(funasr_folder(tmp_path))
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "config.yaml").write_text("model: Paraformer\nmodel_conf: {modalities: {audio: {}}}\n")
    assert "model is 'Paraformer', expected Emotion2vec" in refused(tmp_path)
    (tmp_path / "config.yaml").write_text("model_conf: [\n")
    assert "expected model_conf of an emotion2vec model" in refused(tmp_path)
    (tmp_path / "model.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git-lfs" in refused(funasr_folder(tmp_path))


def test_labels_are_the_english_part(tmp_path: Path):
    assert read_labels(tmp_path) == []
    (tmp_path / "tokens.txt").write_text("生气/angry\n中立/neutral\n<unk>\n", encoding="utf-8")
    assert read_labels(tmp_path) == ["angry", "neutral", "<unk>"]


def test_a_model_without_a_head_has_no_labels(tmp_path: Path):
    conf = read_model(funasr_folder(tmp_path))
    assert conf is not None
    config, preprocessor = describe(conf, [])
    assert "id2label" not in config and config["num_hidden_layers"] == 3 and config["conv_pos_kernel_size"] == 5
    assert preprocessor == {"do_normalize": True, "feature_size": 1, "sampling_rate": 16_000}


def test_the_golden_checkpoint_is_what_the_tool_makes(tmp_path: Path):
    torch = pytest.importorskip("torch")
    folder = funasr_folder(tmp_path)
    (folder / "tokens.txt").write_text("\n".join(golden_emotion2vec.LABELS), encoding="utf-8")
    tensors = golden_emotion2vec.arrays() | {"_ema.blocks.0.norm1.weight": torch.ones(3), "other": torch.ones(1)}
    torch.save({"model": tensors}, folder / "model.pt")
    convert_checkpoint.main([str(folder)])
    golden = Path(__file__).parents[1] / "golden" / "ssl" / "emotion2vec-base"
    for name in ("config.json", "preprocessor_config.json"):
        assert json.loads((folder / name).read_text()) == json.loads((golden / name).read_text())
    assert (folder / "model.safetensors").read_bytes() == (golden / "model.safetensors").read_bytes()
