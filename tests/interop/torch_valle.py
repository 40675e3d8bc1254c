"""A VALL-E of PyTorch's own layers, with the tensor names of the published checkpoints."""

import numpy as np
import torch
from torch import nn

CODES = 1024


class Block(nn.Module):
    def __init__(self, width, heads, adaptive):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        norm = Adaptive if adaptive else nn.LayerNorm
        self.norm1, self.norm2 = norm(width), norm(width)

    def forward(self, x, hidden, stage):
        y = apply(self.norm1, x, stage)
        x = x + self.self_attn(y, y, y, attn_mask=hidden, need_weights=False)[0]
        return x + self.linear2(torch.relu(self.linear1(apply(self.norm2, x, stage))))


class Adaptive(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.project_layer, self.norm = nn.Linear(width, 2 * width), nn.LayerNorm(width)

    def forward(self, x, stage):
        weight, bias = self.project_layer(stage).chunk(2, dim=-1)
        return weight * self.norm(x) + bias


def apply(norm, x, stage):
    return norm(x, stage) if isinstance(norm, Adaptive) else norm(x)


class Decoder(nn.Module):
    def __init__(self, width, heads, layers, adaptive):
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, adaptive) for _ in range(layers))
        self.norm = (Adaptive if adaptive else nn.LayerNorm)(width)

    def forward(self, x, hidden=None, stage=None):
        for layer in self.layers:
            x = layer(x, hidden, stage)
        return apply(self.norm, x, stage)


class Table(nn.Module):
    def __init__(self, rows, width):
        super().__init__()
        self.word_embeddings = nn.Embedding(rows, width)

    def forward(self, ids):
        return self.word_embeddings(ids)


class Position(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.rand(1) + 0.5)

    def forward(self, x):
        angle = torch.arange(x.shape[1])[:, None] / 10_000 ** (torch.arange(0, x.shape[2], 2) / x.shape[2])
        table = torch.zeros(x.shape[1:])
        table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
        return x + self.alpha * table


class Valle(nn.Module):
    """`vallex`: begin-of-audio token and language embeddings. `nar_scale`: width of the NAR over that of the AR."""

    def __init__(self, width, heads, layers, *, vallex, tied, codebooks=8, symbols=512, nar_scale=1):
        super().__init__()
        self.vallex, self.codebooks = vallex, codebooks
        wide = width * nar_scale
        self.ar_text_embedding, self.nar_text_embedding = Table(symbols, width), Table(symbols, wide)
        self.ar_audio_embedding = Table(CODES + 1 + vallex, width)
        self.ar_text_position, self.ar_audio_position = Position(), Position()
        self.nar_text_position, self.nar_audio_position = Position(), Position()
        self.ar_decoder = Decoder(width, heads, layers, adaptive=False)
        self.ar_predict_layer = nn.Linear(width, CODES + 1, bias=False)
        self.nar_audio_embeddings = nn.ModuleList(Table(CODES + (q == 0), wide) for q in range(codebooks))
        self.nar_decoder = Decoder(wide, heads * nar_scale, layers * nar_scale, adaptive=True)
        self.nar_predict_layers = nn.ModuleList(nn.Linear(wide, CODES, bias=False) for _ in range(codebooks - 1))
        self.nar_stage_embeddings = nn.ModuleList(Table(1, wide) for _ in range(codebooks - 1))
        if tied:
            for j in range(codebooks - 2):
                self.nar_predict_layers[j].weight = self.nar_audio_embeddings[j + 2].word_embeddings.weight
        if vallex:
            self.ar_language_embedding, self.nar_language_embedding = Table(3, width), Table(3, wide)
        for name, parameter in self.named_parameters():
            if (
                parameter.ndim == 1 and "alpha" not in name
            ):  # biases and norms that start at 0 and 1 would hide mistakes
                nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.3)

    def _text(self, stage, text, languages):
        x = getattr(self, f"{stage}_text_embedding")(text)
        if self.vallex:
            x = x + getattr(self, f"{stage}_language_embedding")(languages)
        return getattr(self, f"{stage}_text_position")(x)

    def ar_logits(self, text, codes, languages):
        """Of all acoustic positions, [T (+ 1), CODES + 1]."""
        if self.vallex:
            codes = torch.cat([torch.tensor([CODES + 1]), codes])
        x = self._text("ar", text[None], languages)
        y = self.ar_audio_position(self.ar_audio_embedding(codes[None]))
        n, total = len(text), len(text) + len(codes)
        hidden = torch.ones(total, total).triu(1).bool()
        hidden[:n, :n] = False
        return self.ar_predict_layer(self.ar_decoder(torch.cat([x, y], dim=1), hidden))[0, n:]

    def nar_logits(self, text, codes, prompt_frames, languages):
        """Of all stages, [Q - 1, T - prompt_frames, CODES]."""
        x, stages = self._text("nar", text[None], languages), []
        for stage in range(1, self.codebooks):
            y = torch.zeros(len(codes), x.shape[2])
            for q, table in enumerate(self.nar_audio_embeddings):
                shown = torch.arange(len(codes)) < (len(codes) if q < stage else prompt_frames)
                y = y + table(codes[:, q]) * shown[:, None]
            joined = torch.cat([x, self.nar_audio_position(y[None])], dim=1)
            h = self.nar_decoder(joined, stage=self.nar_stage_embeddings[stage - 1](torch.tensor([0])))
            stages.append(self.nar_predict_layers[stage - 1](h[0, len(text) + prompt_frames :]))
        return torch.stack(stages)

    def greedy(self, text, prompt, languages, steps):
        codes = prompt[:, 0]
        for _ in range(steps):
            codes = torch.cat([codes, self.ar_logits(text, codes, languages)[-1, :CODES].argmax()[None]])
        return codes[len(prompt) :]


def save_golden(path, seed=0, *, heads=2, **options):
    """A file as `valle_jax.interop.check` reads it; the model."""
    torch.manual_seed(seed)
    model = Valle(heads=heads, **options).eval()
    text = torch.randint(3, options.get("symbols", 512), (17,))
    codes = torch.randint(0, CODES, (30, model.codebooks))
    languages = torch.randint(0, 3, (17,)) if options["vallex"] else torch.zeros(0)
    with torch.inference_mode():
        outputs = {
            "ar_logits": model.ar_logits(text, codes[:, 0], languages),
            "ar_greedy": model.greedy(text, codes[:12], languages, 8),
            "nar_logits": model.nar_logits(text, codes, 12, languages),
        }
    inputs = {"text": text, "codes": codes, "prompt_frames": 12, "n_heads": heads, "language_ids": languages}
    state = {f"state/{name}": value for name, value in model.state_dict().items()}
    np.savez(path, **{name: np.asarray(value) for name, value in (inputs | outputs | state).items()})
    return model
