"""`kv` measures caches: its JSON keys, and the same figures as text."""

import json
from collections.abc import Callable

from tests.unit.cli.conftest import Said


def test_kv(command: Callable[..., Said]) -> None:
    words = ["kv", "builtin", "--scheme", "kivi", "--scheme", "rotated:bits=3", "--bits", 2, "--tokens", 100, "--block", 32]
    facts = json.loads(command(*words, "--prompt", "Tom had", "--json").out)
    assert {"model", "text", "block", "schemes", "tokens", "perplexity_original"} == set(facts)
    assert [row["scheme"] for row in facts["schemes"]] == ["kivi:bits=2", "rotated:bits=3"]
    first = facts["schemes"][0]
    assert {"bits_per_value", "nominal_bits", "bytes_per_token", "perplexity", "perplexity_interval", "kl", "generated"} <= set(
        first
    )
    assert first["generated"].startswith("Tom had")
    said = command(*words)
    assert (said.status, said.err) == (0, "")
    assert f"{first['bits_per_value']:.2f} bits per value (2.00 nominal)" in said.out


def test_an_unknown_scheme_is_one_line(command: Callable[..., Said]) -> None:
    said = command("kv", "builtin", "--scheme", "zipcash")
    assert said.status == 1
    assert said.err.startswith("error: unknown kv 'zipcash'. Did you mean 'zipcache'")
