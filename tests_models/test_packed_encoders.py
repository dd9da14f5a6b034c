# SPDX-License-Identifier: Apache-2.0
"""Encoders of transformers (tiny, random weights) in packed form: each sequence has the bits that it has alone, on 1 and 2
threads, and is what eager torch computes. Needs transformers; part of `make test-models`."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import fastinfer as fi  # noqa: E402

TEXT = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DISTIL = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
WINDOWS = {"global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 0}
LENGTHS = (4, 23, 1, 9, 23, 60, 2)
# Class, settings, output; "mean" pools over the attention mask as sentence encoders do.
ENCODERS = {
    "bert": ("Bert", "Model", TEXT, "last_hidden_state"),
    "bert, mean": ("Bert", "Model", TEXT, "mean"),
    "bert, pooler": ("Bert", "Model", TEXT, "pooler_output"),
    "bert, classes": ("Bert", "ForSequenceClassification", TEXT, "logits"),
    "distilbert": ("DistilBert", "Model", DISTIL, "last_hidden_state"),
    "roberta, places from a running sum": ("Roberta", "Model", TEXT, "last_hidden_state"),
    "mpnet, relative places": ("MPNet", "Model", TEXT, "last_hidden_state"),
    "electra": ("Electra", "Model", {**TEXT, "embedding_size": 16}, "last_hidden_state"),
    "albert": ("Albert", "Model", {**TEXT, "embedding_size": 16}, "last_hidden_state"),
    "modernbert, windows": ("ModernBert", "Model", {**TEXT, **WINDOWS}, "last_hidden_state"),
}


def mean_pooled(hidden, mask):
    kept = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9), dim=1)


class Encoder(torch.nn.Module):
    def __init__(self, kind, head, settings, output):
        super().__init__()
        self.inner = getattr(transformers, kind + head)(getattr(transformers, kind + "Config")(**settings))
        self.output = output

    def forward(self, input_ids, attention_mask):
        y = self.inner(input_ids=input_ids, attention_mask=attention_mask)
        if self.output == "mean":
            return mean_pooled(y.last_hidden_state, attention_mask)
        return getattr(y, self.output)


def compiled(module, threads):
    b, n = torch.export.Dim("batch"), torch.export.Dim("length", max=60)
    example = torch.full((2, 9), 5), torch.ones(2, 9, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: b, 1: n}, {0: b, 1: n})
        return fi.compile(module, example, dynamic_shapes=shapes, threads=threads)


def feed(generator, names, rows, length, hidden):
    mask = np.ones((rows, length), np.int64)
    mask[0, length - hidden :] = 0
    return dict(zip(names, [generator.integers(3, 99, (rows, length)), mask], strict=True))


@pytest.mark.parametrize("name", ENCODERS)
def test_packed_is_alone(name):
    transformers.logging.set_verbosity_error()
    torch.manual_seed(4)
    module = Encoder(*ENCODERS[name]).eval()
    generator = np.random.default_rng(8)
    first = None
    for threads in (1, 2):
        model = compiled(module, threads)
        assert model.packing == ""
        names = [s.name for s in model.inputs]
        if first is None:
            feeds = [feed(generator, names, 1, n, 0) for n in LENGTHS]
            feeds += [feed(generator, names, 3, 7, 0), feed(generator, names, 2, 8, 3)]
        form = model._many.packed()
        arrays = [model._arrays(f) for f in feeds]
        together = [y for (y,) in form.run(arrays, [form.extent(a) for a in arrays])]
        for f, got in zip(feeds, together):
            (alone,) = model.run(f).values()
            np.testing.assert_array_equal(got, alone)
            with torch.no_grad():
                want = module(*(torch.from_numpy(a) for a in f.values())).numpy()
            assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
        if first is not None:
            for a, b in zip(first, together, strict=True):
                np.testing.assert_array_equal(a, b, err_msg="1 and 2 threads")
        first = together
