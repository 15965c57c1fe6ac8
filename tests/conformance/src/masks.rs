//! `ijepa_masks.json` and `vjepa_masks.json`: replays of the published samplers, word by word of their generator.

use std::collections::BTreeMap;

use serde_json::Value;
use webjepa::mask::{MaskType, Masks, Multiblock, Multiblock3d, Strategy, block_size};
use webjepa::rng::{Generator, Torch};

use crate::expected::{flat, largest};
use crate::folder::{Folder, sizes};
use crate::report::Report;
use crate::tolerance::Quantity;

/// Seed of the one generator that places all blocks of a run (README, sections 5.11 and 5.12).
const PLACES: u64 = 0;

pub fn replayed(folder: &Folder, file: &str, report: &mut Report) -> Result<(), String> {
    let expected = folder.json(file)?;
    for case in folder.entry(file)?["cases"].as_array().ok_or("no cases")? {
        let key = case["key"].as_str().ok_or("a case has no key")?;
        let expected = &expected[key];
        let checked = match case["kind"].as_str() {
            Some("block_sizes") => blocks(key, case, expected, report),
            Some("mt19937_uniform_f32" | "mt19937_uniform_f32_separate_draws") => {
                uniforms(key, case, expected, report)
            }
            Some("monte_carlo") => pictures(key, case, expected, report),
            Some("monte_carlo_3d") => clips(key, case, expected, report),
            kind => Err(format!("unknown kind {kind:?}")),
        };
        checked.map_err(|why| format!("{key}: {why}"))?;
    }
    Ok(())
}

fn blocks(key: &str, case: &Value, expected: &Value, report: &mut Report) -> Result<(), String> {
    let grid = pair(case, "grid_hw")?.map(|side| side as usize);
    for kind in ["pred", "enc"] {
        let scale = pair(case, &format!("{kind}_scale"))?;
        let aspect = pair(case, &format!("{kind}_aspect"))?;
        let mut worst = 0f64;
        for (u, size) in expected[kind].as_object().ok_or("no sizes")? {
            let u = u.parse().map_err(|_| format!("{u} is no number"))?;
            let got = block_size(grid, scale, aspect, u).map(|side| side as f32);
            worst = worst.max(largest(&got, &flat(size)));
        }
        report.number(&format!("{key}, {kind}"), worst, 0.0);
    }
    Ok(())
}

fn uniforms(key: &str, case: &Value, expected: &Value, report: &mut Report) -> Result<(), String> {
    let mut torch = Torch::new(count(case, "seed")? as u64);
    let got: Vec<f32> = (0..count(case, "n")?).map(|_| torch.uniform()).collect();
    report.compare(key, &got, expected, Quantity::Uniform)
}

/// Masks of every batch of a run.
fn run(case: &Value, grid: [usize; 3], strategy: &Strategy) -> Result<Vec<Masks>, String> {
    let seeds = case["block_size_seeds"].as_str().ok_or("no seeds")?;
    let (first, last) = seeds.split_once("..").ok_or("no range of seeds")?;
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{seeds}: {e}"));
    let batch = count(case, "batch")?;
    let mut places = Torch::new(PLACES);
    (number(first)?..=number(last)?)
        .map(|seed| {
            strategy
                .sample(grid, batch, &mut Torch::new(seed), &mut places)
                .map_err(|e| e.to_string())
        })
        .collect()
}

fn pictures(key: &str, case: &Value, expected: &Value, report: &mut Report) -> Result<(), String> {
    let [h, w] = pair(case, "grid_hw")?.map(|side| side as usize);
    let strategy = Strategy::Multiblock(Multiblock {
        enc_mask_scale: pair(case, "enc_scale")?,
        pred_mask_scale: pair(case, "pred_scale")?,
        aspect_ratio: pair(case, "pred_aspect")?,
        num_enc_masks: count(case, "nenc")?,
        num_pred_masks: count(case, "npred")?,
        min_keep: Some(count(case, "min_keep")?),
        allow_overlap: case["allow_overlap"].as_bool().ok_or("no allow_overlap")?,
    });
    let batches = run(case, [1, h, w], &strategy)?;
    let images = (batches.len() * count(case, "batch")?) as f64;
    let uses = |of: &str, token: &dyn Fn(usize) -> bool| {
        let all = batches.iter().flat_map(|masks| match of {
            "ctx" => masks.context.concat(),
            _ => masks.targets.concat().concat(),
        });
        all.filter(|&i| token(i)).count() as f64
    };
    for (name, expected) in expected.as_object().ok_or("no statistics")? {
        let full = format!("{key}, {name}");
        let (of, what) = name.split_once('_').unwrap_or((name, ""));
        let of = if of == "target" { "tgt" } else { of };
        let (got, quantity) = match what {
            "len" => {
                let lengths = batches.iter().map(|masks| match of {
                    "ctx" => masks.context[0].len(),
                    _ => masks.targets[0][0].len(),
                });
                statistics(&full, lengths.collect(), expected, 2, report)?;
                continue;
            }
            "coverage_last_row" => (uses(of, &|i| i / w == h - 1), Quantity::Exact),
            "coverage_last_col" => (uses(of, &|i| i % w == w - 1), Quantity::Exact),
            "cov_center" => {
                let center = h / 2 * w + w / 2;
                (uses(of, &|i| i == center) / images, Quantity::Rounded(3))
            }
            "cov_corner00" => (uses(of, &|i| i == 0) / images, Quantity::Rounded(3)),
            _ if name == "B" => (count(case, "batch")? as f64, Quantity::Exact),
            _ if name == "batches" => (batches.len() as f64, Quantity::Exact),
            _ => return Err(format!("unknown statistic {name}")),
        };
        report.value(&full, got, expected, quantity)?;
    }
    Ok(())
}

fn clips(key: &str, case: &Value, expected: &Value, report: &mut Report) -> Result<(), String> {
    let grid: [usize; 3] = sizes(&case["grid_thw"])
        .try_into()
        .map_err(|_| "no grid_thw")?;
    let tokens: usize = grid.iter().product();
    let strategy = Strategy::Multiblock3d(Multiblock3d {
        types: vec![MaskType {
            num_blocks: count(case, "n_blocks")?,
            spatial_scale: pair(case, "spatial_scale")?,
            temporal_scale: pair(case, "temporal_scale")?,
            aspect_ratio: pair(case, "aspect")?,
            max_temporal_keep: case["max_temporal_keep"].as_f64().ok_or("no keep")?,
            max_keep: case["max_keep"].as_u64().map(|most| most as usize),
            ..MaskType::default()
        }],
    });
    let batches = run(case, grid, &strategy)?;
    for (name, expected) in expected.as_object().ok_or("no statistics")? {
        let full = format!("{key}, {name}");
        let lengths: Vec<usize> = match name.as_str() {
            "ctx" => batches.iter().map(|m| m.context[0].len()).collect(),
            "pred" => batches.iter().map(|m| m.targets[0][0].len()).collect(),
            _ => {
                let got = match name.as_str() {
                    "N" => tokens,
                    "B" => count(case, "batch")?,
                    "n" => batches.len(),
                    _ => return Err(format!("unknown statistic {name}")),
                };
                report.value(&full, got as f64, expected, Quantity::Exact)?;
                continue;
            }
        };
        let mut expected = expected.clone();
        if let Some(ratio) = expected.as_object_mut().and_then(|e| e.remove("ratio")) {
            let got = mean(&lengths) / tokens as f64;
            report.value(&format!("{full}: ratio"), got, &ratio, Quantity::Rounded(4))?;
        }
        statistics(&full, lengths, &expected, 1, report)?;
    }
    Ok(())
}

/// Lengths of one kind of mask in each batch against a fixture's summary, whose mean has `digits` decimals.
fn statistics(
    name: &str,
    mut lengths: Vec<usize>,
    expected: &Value,
    digits: i32,
    report: &mut Report,
) -> Result<(), String> {
    lengths.sort_unstable();
    for (what, expected) in expected.as_object().ok_or("no statistics")? {
        let full = format!("{name}: {what}");
        let (got, quantity) = match what.as_str() {
            "mean" => (mean(&lengths), Quantity::Rounded(digits)),
            "min" => (lengths[0] as f64, Quantity::Exact),
            "max" => (lengths[lengths.len() - 1] as f64, Quantity::Exact),
            "p5" => (percentile(&lengths, 0.05), Quantity::Uniform),
            "p95" => (percentile(&lengths, 0.95), Quantity::Uniform),
            "hist" => {
                report.number(&full, histogram_difference(&lengths, expected)?, 0.0);
                continue;
            }
            _ => return Err(format!("unknown statistic {what}")),
        };
        report.value(&full, got, expected, quantity)?;
    }
    Ok(())
}

/// Batches whose length the histogram does not have, and the other way round.
fn histogram_difference(lengths: &[usize], expected: &Value) -> Result<f64, String> {
    let mut counts = BTreeMap::new();
    for &length in lengths {
        *counts.entry(length).or_insert(0i64) += 1;
    }
    for (length, count) in expected.as_object().ok_or("no histogram")? {
        let length = length.parse().map_err(|_| format!("length {length}"))?;
        *counts.entry(length).or_insert(0) -= count.as_i64().ok_or("no count")?;
    }
    Ok(counts.values().map(|c| c.abs()).sum::<i64>() as f64)
}

fn mean(lengths: &[usize]) -> f64 {
    lengths.iter().sum::<usize>() as f64 / lengths.len() as f64
}

/// Linear between the two nearest of `sorted`, as NumPy.
fn percentile(sorted: &[usize], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    let [below, above] = [sorted[low] as f64, sorted[high] as f64];
    below + (above - below) * (place - place.floor())
}

fn count(case: &Value, key: &str) -> Result<usize, String> {
    let number = case[key].as_u64().ok_or(format!("no {key}"))?;
    Ok(number as usize)
}

fn pair(case: &Value, key: &str) -> Result<[f64; 2], String> {
    flat(&case[key]).try_into().map_err(|_| format!("no {key}"))
}
