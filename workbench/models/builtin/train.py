"""Train the built-in model: a small Llama that learns simple stories from real text and from a smaller teacher.

    python -m workbench.models.builtin.train --text stories.txt --teacher stories260K --out DIR --minutes 100

Real stories are few, so most tokens are sampled from the teacher, and every token, real or sampled, is learned from the
teacher's whole next-token distribution (Hinton et al., arXiv 1503.02531) mixed with the real next token. The student shares
the teacher's tokenizer, which is what makes distributions comparable. Matrices are updated by Muon (orthogonalised
momentum, Jordan 2024), the rest by AdamW. The last `--hold-out` stories are never trained on.
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

END_OF_STORY = "<|endoftext|>"
BOS = 1

log = logging.getLogger(__name__)
Check = Callable[[float, int, float], None]  # progress, tokens seen, smoothed loss


@dataclass(frozen=True)
class Schedule:
    """What one training run does; times are shares of `minutes`."""

    minutes: float = 100.0
    batch_tokens: int = 4096
    short_length: int = 256
    full_length: int = 512
    lengthen_at: float = 0.7
    decay_at: float = 0.55
    real_share: float = 0.35
    real_label_weight: float = 0.5
    matrix_rate: float = 0.02
    vector_rate: float = 3e-3
    sampled_tokens: int = 2_000_000
    hold_out: int = 200
    seed: int = 0


def _build_student_config(vocabulary: int) -> LlamaConfig:
    """The built-in model's shape: every linear layer a multiple of 128 wide."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=2,
    )


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton–Schulz steps in float32 (torch's own runs in bfloat16: slow on a CPU)."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix along its orthogonalised momentum."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                velocity = state.setdefault("velocity", torch.zeros_like(parameter))
                velocity.lerp_(parameter.grad, 1 - group["momentum"])
                direction = orthogonalize(parameter.grad.lerp(velocity, group["momentum"]))
                rows, cols = parameter.shape
                parameter.mul_(1 - 0.05 * group["lr"])
                parameter.add_(direction, alpha=-group["lr"] * max(1.0, rows / cols) ** 0.5)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrix, approximately: the quintic iteration of Muon."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def _read_stories(path: Path) -> list[str]:
    """The stories of one file, end marks removed."""
    return [story.strip() for story in path.read_text().split(END_OF_STORY) if story.strip()]


def encode(tokenizer: Tokenizer, stories: list[str]) -> list[Tensor]:
    """Token ids of each story; the tokenizer puts BOS first."""
    return [torch.tensor(e.ids) for e in tokenizer.encode_batch(stories)]


@torch.no_grad()
def _sample_stories(teacher: LlamaForCausalLM, tokens: int, seed: int, batch: int = 128, length: int = 384) -> list[Tensor]:
    """Stories written by the teacher at temperatures 0.7 to 1, each cut at its end or at `length` tokens."""
    generator = torch.Generator().manual_seed(seed)
    temperature = torch.linspace(0.7, 1.0, batch)[:, None]
    stories: list[Tensor] = []
    total = 0
    while total < tokens:
        ids = torch.full((batch, 1), BOS)
        rows, cache = [ids], None
        for _ in range(length - 1):
            out = teacher(ids, cache=cache, use_cache=True)
            cache = out.cache
            ids = torch.multinomial((out.logits[:, -1] / temperature).softmax(-1), 1, generator=generator)
            rows.append(ids)
        for row in torch.cat(rows, 1):
            stop = (row[1:] <= 2).nonzero()
            story = row[: int(stop[0]) + 1] if len(stop) else row
            if len(story) > 16:
                stories.append(story)
                total += len(story)
        log.info("sampled %s tokens", f"{total:,}")
    return stories


class Stream:
    """Endless windows of one packed token stream; half of them begin at a story's first token."""

    def __init__(self, stories: list[Tensor], seed: int) -> None:
        self.tokens = torch.cat(stories)
        self.starts = (self.tokens == BOS).nonzero().flatten()
        self.generator = torch.Generator().manual_seed(seed)

    def windows(self, count: int, length: int) -> Tensor:
        """`[count, length]` tokens."""
        last = len(self.tokens) - length
        anywhere = torch.randint(last, (count,), generator=self.generator)
        chosen = self.starts[torch.randint(len(self.starts), (count,), generator=self.generator)].clamp(max=last)
        begin = torch.where(torch.arange(count) % 2 == 0, chosen, anywhere)
        return self.tokens[begin[:, None] + torch.arange(length)]


def _compute_loss(
    student: LlamaForCausalLM, teacher: LlamaForCausalLM, windows: Tensor, real: int, label_weight: float
) -> Tensor:
    """Cross-entropy to the teacher's distribution; the first `real` windows mix in their true next token."""
    with torch.no_grad():
        target = teacher(windows[:, :-1]).logits.softmax(-1)
    log_p = student(windows[:, :-1]).logits.log_softmax(-1)
    distilled = -(target * log_p).sum(-1)
    labelled = F.nll_loss(log_p[:real].flatten(0, 1), windows[:real, 1:].flatten(), reduction="none").view(real, -1)
    mixed = (1 - label_weight) * distilled[:real] + label_weight * labelled
    return torch.cat([mixed, distilled[real:]]).mean()


@torch.no_grad()
def _measure_bits_per_byte(model: LlamaForCausalLM, tokenizer: Tokenizer, stories: list[str]) -> float:
    """Mean over the text of −log2 p per UTF-8 byte, one story a window of at most 512 tokens."""
    bits = size = 0.0
    for story in stories:
        ids = torch.tensor(tokenizer.encode(story).ids)[None, :512]
        log_p = model(ids).logits[0, :-1].log_softmax(-1)
        bits -= log_p.gather(1, ids[0, 1:, None]).sum().item() / math.log(2)
        size += len(tokenizer.decode(ids[0].tolist()).encode())
    return bits / size


def _compute_learning_rate(progress: float, decay_at: float) -> float:
    """Warm up for 2 % of the run, hold, then fall linearly to zero."""
    return min(1.0, progress / 0.02, max(0.0, (1 - progress) / (1 - decay_at)))


def train(
    student: LlamaForCausalLM, teacher: LlamaForCausalLM, real: Stream, sampled: Stream, schedule: Schedule, on_check: Check
) -> int:
    """Run the schedule and return the number of tokens seen; `on_check` is called every three minutes."""
    matrices = [p for n, p in student.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in student.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=schedule.matrix_rate),
        torch.optim.AdamW(rest, lr=schedule.vector_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    base = [o.param_groups[0]["lr"] for o in optimizers]
    begin = checked = time.monotonic()
    tokens_seen, smooth = 0, math.nan
    while (progress := (time.monotonic() - begin) / (60 * schedule.minutes)) < 1:
        length = schedule.full_length if progress > schedule.lengthen_at else schedule.short_length
        count = schedule.batch_tokens // length
        n_real = round(count * schedule.real_share)
        windows = torch.cat([real.windows(n_real, length), sampled.windows(count - n_real, length)])
        for optimizer, lr in zip(optimizers, base, strict=True):
            optimizer.param_groups[0]["lr"] = lr * _compute_learning_rate(max(progress, 1e-3), schedule.decay_at)
        loss = _compute_loss(student, teacher, windows, n_real, schedule.real_label_weight)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tokens_seen += windows.numel()
        smooth = loss.item() if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss.item()
        if time.monotonic() - checked > 180:
            on_check(progress, tokens_seen, smooth)
            checked = time.monotonic()
    return tokens_seen


def _parse_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help=f"stories separated by {END_OF_STORY}; the last are held out")
    parser.add_argument("--more-text", type=Path, help="more stories, separated by blank lines; all trained on")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a Llama whose tokenizer the student shares")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder of a student to go on from, instead of random weights")
    parser.add_argument("--minutes", type=float, default=Schedule.minutes)
    parser.add_argument("--decay-at", type=float, default=Schedule.decay_at, help="share of the run after which the rate falls")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train, save the student in fp16 and write down how it was made and how good it is."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parse_arguments()
    schedule = Schedule(minutes=options.minutes, decay_at=options.decay_at, seed=options.seed)
    torch.manual_seed(schedule.seed)
    options.out.mkdir(parents=True, exist_ok=True)

    tokenizer = Tokenizer.from_file(str(options.teacher / "tokenizer.json"))
    teacher = LlamaForCausalLM.from_pretrained(options.teacher).eval()
    stories = _read_stories(options.text)
    train_text, held_out = stories[: -schedule.hold_out], stories[-schedule.hold_out :]
    if options.more_text:
        train_text += _split_by_opening(options.more_text.read_text())
    saved = options.out / "sampled.pt"
    if not saved.exists():
        torch.save(_sample_stories(teacher, schedule.sampled_tokens, schedule.seed), saved)
    sampled = torch.load(saved, weights_only=True)
    student = LlamaForCausalLM(_build_student_config(teacher.config.vocab_size))
    if options.start:
        student = LlamaForCausalLM.from_pretrained(options.start, dtype=torch.float32)
    first = 10 * schedule.seed  # streams of another seed show other windows

    def on_check(progress: float, tokens: int, loss: float) -> None:
        measured = _measure_bits_per_byte(student, tokenizer, held_out[:40])
        log.info("%.1f %%  %s tokens  loss %.4f  held out %.4f bits/byte", 100 * progress, f"{tokens:,}", loss, measured)
        student.save_pretrained(options.out)

    tokens_seen = train(
        student, teacher, Stream(encode(tokenizer, train_text), first + 1), Stream(sampled, first + 2), schedule, on_check
    )
    student.half().save_pretrained(options.out)
    student.float()
    report = {
        **asdict(schedule),
        "tokens_seen": tokens_seen,
        "held_out_bits_per_byte": _measure_bits_per_byte(student, tokenizer, held_out),
        "teacher_bits_per_byte": _measure_bits_per_byte(teacher, tokenizer, held_out),
        "torch": torch.__version__,
    }
    (options.out / "training.json").write_text(json.dumps(report, indent=1))
    log.info(json.dumps(report, indent=1))


def _split_by_opening(text: str) -> list[str]:
    """Cut text whose stories are only separated by blank lines wherever a paragraph opens like a new story."""
    stories: list[str] = []
    for paragraph in text.split("\n\n"):
        if stories and not paragraph.startswith(("Once upon", "One day", "There was", "Once there")):
            stories[-1] += "\n\n" + paragraph
        else:
            stories.append(paragraph)
    return [story.strip() for story in stories]


if __name__ == "__main__":
    main()
