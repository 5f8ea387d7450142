"""What the prose of each notebook claims, as a quote and an expression that holds after the notebook's last cell.

A quote stands in the notebook word for word. Tolerances allow for other processors and numbers of threads; what depends on a
machine's speed is not here. `near(value, expected, tolerance)` is defined where the expressions are evaluated.
"""

_BLOCKS = "because.set_index('block')"

CLAIMS: dict[str, dict[str, str]] = {
    "0_tour": {
        "3 · 196,608 of 786,432 weights, 75 %": "layers[layers['block'] == 0]['parameters'].nlargest(3).sum() == 0.75 * 786_432",
        "its standard deviation is 0.061, and 95 % of the weights lie within two of them": (
            "near(float(weight.std()), 0.061, 5e-4) and near((weight.abs() < 2 * weight.std()).float().mean(), 0.95, 0.005)"
        ),
        "the largest is 0.31": "round(float(weight.abs().max()), 2) == 0.31",
        "Four values, and 22 % of the energy is lost": (
            "len(code.unique()) == 4 and round(float((by_hand - groups).square().sum() / groups.square().sum()), 2) == 0.22"
        ),
        "It loses 12.7 %. It stores 2.28 bits per weight": (
            "round(rtn2.relative_error, 3) == 0.127 and round(rtn2.bits_per_weight, 2) == 2.28"
        ),
        "3.12 for groups of 16, 2.07 for groups of 256": (
            "all(wb.quantize(model, name, wb.recipe('rtn', bits=2, group=g)).bits_per_weight == 2 + 18 / g for g in (16, 256))"
        ),
        "The errors are 0.091 and 0.143": (
            "all(near(wb.quantize(model, name, wb.recipe('rtn', bits=2, group=g)).relative_error, error, 5e-4)"
            " for g, error in ((16, 0.0914), (256, 0.1425)))"
        ),
        "(3.15 bits) and lose only 0.036": (
            "near(wb.quantize(model, name, wb.recipe('rtn', bits=3, group=128)).relative_error, 0.0364, 5e-4)"
        ),
        "twice as wrong as rounded ones (0.27 against 0.13)": (
            "1.8 < results['gptq 2'].relative_error / results['rtn 2'].relative_error < 2.4"
        ),
        "its output is less than half as wrong (about 0.02 against 0.06)": (
            "results['gptq 2'].output_error < 0.5 * results['rtn 2'].output_error"
        ),
        "`pb-llm`: 1.70 nominal bits, 2.77 stored": (
            "(round(results['pb-llm'].nominal_bits, 2), round(results['pb-llm'].bits_per_weight, 2)) == (1.7, 2.77)"
        ),
        "About 6 % with `rtn 2`, about 4 % with `gptq 2`": (
            "all(near(wb.what_if(model, name, results[label], wb.text('evaluation')).top1_changed, share, 0.01)"
            " for label, share in (('rtn 2', 0.065), ('gptq 2', 0.038)))"
        ),
        "They differ more than tenfold": "table['kl'].max() > 10 * table['kl'].min()",
        "`v_proj` of block 0 is in front, with a KL of about 0.012": (
            "table.loc[table['kl'].idxmax(), 'name'].endswith('0.self_attn.v_proj') and near(table['kl'].max(), 0.0115, 0.001)"
        ),
        "it has only 0.7 % of the weights": "round(128 * 256 / layers['parameters'].sum(), 3) == 0.007",
        "block 0 has three of the first four": "(table.nlargest(4, 'kl')['block'] == 0).sum() == 3",
        "a larger one in *every* later block": f"{_BLOCKS}['output error of v_proj'].idxmin() == 0",
        "from 2.5 % in block 0 to 0.4 % in block 5": (
            f"near({_BLOCKS}['share of h changed'][0], 0.0246, 1e-3) and near({_BLOCKS}['share of h changed'][5], 0.0042, 5e-4)"
        ),
        "It falls,": f"{_BLOCKS}['share of h changed'].is_monotonic_decreasing",
        "goes the same way, but for block 3": f"{_BLOCKS}['KL'].drop(3).is_monotonic_decreasing",
        "`down_proj` and `o_proj` are next, and their intervals overlap": (
            "table.nlargest(3, 'kl')['name'].tolist()[1:] =="
            " ['model.layers.0.' + m for m in ('mlp.down_proj', 'self_attn.o_proj')]"
            " and table.nlargest(3, 'kl')['kl_high'].min() > table.nlargest(1, 'kl')['kl_low'].iloc[0]"
        ),
        "an energy of about 2, after it about 7,000": (
            "[float(f'{float(h.square().sum(1).mean()):.1g}') for h in before[:2]] == [2, 7000]"
        ),
        "it was 7.6 before": "round(comparison.perplexity_original, 1) == 7.6",
        "About 15.": "near(comparison.perplexity, 14.6, 1)",
    },
    "1_btc_llm": {
        "this row loses a little more, 0.383": "round(float(error), 3) == 0.383",
        "remove about 14 % of the error, 9 % in the first one": (
            "[round(1 - wb.measures.sweep_errors(trace.sweeps)['share'].iloc[n], 2) for n in (-1, 1)] == [0.14, 0.09]"
        ),
        "the relative error is 0.13 with two planes and 0.40 with one": (
            "[round(wb.quantize(model, name, wb.recipe('binary', planes=n)).relative_error, 2) for n in (2, 1)] == [0.13, 0.4]"
        ),
        "1.000: the signs of this layer are coin flips": "round(patterns.entropy_per_sign, 3) == 1",
        "No, only 3.1 %": "round(wb.measures.flip_bound(0.8), 3) == 0.031",
        "Six, then five": "int(differing.min(1).values.sum()) == 5",
        "gets more signs wrong (9.3 % against 7.1 %)": "flips['flip_rate'].round(3).tolist() == [0.071, 0.093]",
        "the smaller error (0.449 against 0.559)": (
            "[round(results[label].relative_error, 2) for label in ('0.8 magnitude', '0.8 Hamming')] == [0.45, 0.56]"
        ),
        "By about 1.4, from 0.29 to 0.21": "1.25 < without.output_error / compensated.output_error < 1.5",
        "without one more stored bit": "without.bits_per_weight == compensated.bits_per_weight",
        "the kurtosis falls from about 0.4 to about 0": "bases['kurtosis of a row'].abs().round(1).tolist() == [0.4, 0, 0]",
        "falls by about 16 % with the Hadamard transform": "0.12 < 1 - turned.output_error / compensated.output_error < 0.2",
        "together 0.034 bits per weight here": (
            "near(compensated.bits_per_weight - compensated.ledger.table()['bits_per_weight'].max(), 0.034, 5e-4)"
        ),
        "It stores 3.40 bits for 0.8 nominal ones": (
            "near(paper.bits_per_weight, 3.4, 0.005) and near(paper.nominal_bits, 0.8, 0.005)"
        ),
        "output error of 0.033 instead of 0.21": (
            "near(paper.output_error, 0.033, 0.003) and near(compensated.output_error, 0.21, 0.01)"
        ),
        "Hamming is far behind": "table['perplexity_low'][0] > table['perplexity_high'][1]",
        "a perplexity of 27 to 30": "near(table['perplexity'][0], 28.5, 2.5)",
        "about 17 each": "near(table['perplexity'][1], 17, 1.5) and near(table['perplexity'][2], 17, 1.5)",
        "their intervals overlap": "table['perplexity_low'][1] < table['perplexity_high'][2]",
        "To about 14": (
            "near(effects['all together'].perplexity, 13.8, 1) and near(effects['layer by layer'].perplexity, 17, 1.5)"
        ),
        "at the same stored bits": "refined.bits_per_weight == quantized.bits_per_weight",
    },
    "2_kernels": {
        "1.02: a sign per weight, and a scale per row": "round(read[0], 2) == 1.02",
        "1.9, where each sign agrees with its input": "near(sums.max(), 1.9, 1e-6) and near(sums.min(), -1.9, 1e-6)",
        "About 5 in 100,000": "3e-5 < float(error) < 7e-5",
        "Six, with 40,960 additions; four need 52,224 and one sign at a time 198,144": (
            "[-(-768 // k) * (2**k + 256) for k in (6, 4, 1)] == [40_960, 52_224, 198_144]"
            " and min(range(1, 9), key=lambda k: -(-768 // k) * (2**k + 256)) == 6"
        ),
        "About 1 in 10,000": "float((fast - exact).norm() / exact.norm()) < 2e-4",
        "a sixth of the memory": "0.14 < packed_run.resident_bytes / original.resident_bytes < 0.19",
    },
    "3_what_if": {
        "Exactly 0:": "nothing.kl == 0",
        "from 7.06 to 7.04": "(round(nothing.perplexity, 2), round(effect.perplexity, 2)) == (7.06, 7.04)",
        "about 0.0019, with a 95 % interval over stories from 0.0014 to 0.0025": (
            "[round(x, 4) for x in (effect.kl, *effect.kl_interval)] == [0.0019, 0.0014, 0.0025]"
        ),
        "the floor of about $7 \\cdot 10^{-5}$": "5e-5 < floor.kl < 9e-5",
        "The mean KL is about twice the median": "1.7 < effect.kl / effect.kl_median < 2.3",
        "the half with the larger loss carries 65 % of the KL": "near(share, 0.65, 0.02)",
        "together they cost about 2.5 times the sum": "near(budget.ratio, 2.5, 0.15)",
        "0.0115 and 0.0089 alone, 0.0285 together: a ratio of about 1.4": (
            "near(alone[0], 0.0115, 5e-4) and near(alone[1], 0.0089, 5e-4) and near(both / sum(alone), 1.4, 0.1)"
        ),
        "At the fourth token. The KL is about 0.39 nats": "finder.fork == 4 and near(finder.table['kl'][3], 0.39, 0.03)",
        "and the third largest of the text": "finder.table['kl'].nlargest(3).index[-1] == finder.fork - 1",
        "at token 16 it is 0.45, and both models write the same": (
            "near(finder.table['kl'][15], 0.45, 0.03) and bool(finder.table['agrees'][15])"
        ),
        "restoring `down_proj` of block 0, about 4 % of the weights": "round(196_608 / 4_718_592, 2) == 0.04",
    },
    "4_bit_allocation": {
        "it is 5.2 from two bits to three, and 4.3 from three to four": (
            "all(near(sums['kl'].iloc[n] / sums['kl'].iloc[n + 1], factor, 0.3) for n, factor in enumerate((5.2, 4.3)))"
        ),
        "costs more than ten times as much as the last": (
            "options[options['recipe'] == 'rtn 2']['kl'].agg(lambda kl: kl.max() / kl.min()) > 10"
        ),
        "3.16 bits are enough, about 4 % fewer": "near(enough, 3.16, 0.025) and near(1 - enough / bits, 0.04, 0.01)",
        "make the prediction about 60 % worse": "near(forced.loss / plan.loss, 1.6, 0.1)",
        "every `v_proj` gets four bits": "all(plan.choice[n] == 'rtn 4' for n in plan.choice if n.endswith('v_proj'))",
        "The predicted KL is about 20 % lower": "0.15 < 1 - plan.loss / uniform_kl < 0.25",
        "both find a plan of the same predicted KL": "near(plans['milp'].loss / plans['lagrangian'].loss, 1, 0.01)",
        "more than twice as much": "plans['ranked by LIM'].loss > 2 * plan.loss and plans['ranked by LIM'].loss > uniform_kl",
        "about 13 % below that of uniform bits, 0.027 against 0.031": (
            "[round(effects[label].kl, 3) for label in ('lagrangian', 'uniform rtn 3')] == [0.027, 0.031]"
        ),
        "Above: errors of several layers amplify each other": "effects['lagrangian'].kl > plan.loss",
    },
    "5_calibration_cache_card": {
        "the held-out error is about 0.10, three times": (
            "near(stories['held_out_error'].max(), 0.1, 0.01)"
            " and near(stories.set_index('source').eval('held_out_error / own')[program], 3.2, 0.5)"
        ),
        "their held-out error rises from 0.055 to 0.058": ("both.loc['calibration'].round(3).tolist() == [0.055, 0.058]"),
        "0.035 instead of 0.100": "both.loc[program].round(2).tolist() == [0.1, 0.03]",
        "3,072 bytes per token": "table['bytes_per_token'][0] == 3072",
        "`rotated:bits=2`: its codes take 2 bits and a scale per token 0.13 more": (
            "near(table.set_index('scheme')['bits_per_value']['rotated:bits=2'], 2.125, 0.01)"
        ),
        "All store more than 384 bytes per token": "table['bytes_per_token'].min() > 384",
        "expects about 0.05 nats per token at two bits": (
            "near(wb.measures.expected_losses(size, tokens)['added_loss'].max(), 0.05, 0.01)"
        ),
        "of 13 salient channels they share three": (
            "'shares fewest with program-like (derived from calibration): 3,' in wb.figures.channel_overlaps("
            "wb.measures.channel_overlaps(model, sources, {'calibration': 1.0}, layer)).answer"
        ),
        "Each one helps, some twice as much as others": (
            "influence['error_change'].min() > 0 and influence['error_change'].agg(lambda gain: gain.max() / gain.min()) > 1.8"
        ),
        "With two bits yes, word for word": (
            "wb.measures.cached_model(model, 'rotated:bits=2').generate('Once upon a time', tokens=70)"
            " == model.generate('Once upon a time', tokens=70)"
        ),
        "More, about 0.1 on these 512 tokens": ("near(losses['perplexity'].iloc[2] / losses['perplexity'].iloc[0], 1.103, 0.02)"),
        "Only times differ": (
            "wb.diff_cards(cards[2].facts, again.facts).answer == 'The two cards agree in everything except times.'"
        ),
    },
    "6_dashboard": {
        "$2 + 18/128 = 2.14$": "round(result.bits_per_weight, 2) == 2.14",
        "Channel 43, with 0.3 % of the energy": "int(top['channel']) == 43 and round(float(top['column_energy']), 3) == 0.003",
    },
}
