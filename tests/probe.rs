//! Attentive probes: what they learn that no mean tells, and what of it a file keeps.
#![cfg(feature = "cpu")]

use std::io::Cursor;

use burn::tensor::Device;
use pollster::block_on;
use serde_json::{Value as Json, json};
use webjepa::checkpoint::{File, Header, Plan, assemble, probe_parameters};
use webjepa::device::Precision;
use webjepa::model::{PROBE_EPS, PROBE_HEADS, ProbeConfig};
use webjepa::nn::Parameters;
use webjepa::rng::{Generator, Stream};
use webjepa::train::probe::{About, Fit, FitReport, Probe};

const TOKENS: usize = 6;
const WIDTH: usize = 8;

fn config(depth: usize) -> ProbeConfig {
    ProbeConfig::of([WIDTH, depth, 4 * WIDTH, 2], 2, PROBE_EPS)
}

fn fresh(depth: usize, seed: u64) -> Probe {
    let labels = json!(["down", "up"]);
    Probe::new(config(depth), labels, seed, &Device::flex()).unwrap()
}

fn fit(steps: u64) -> Fit {
    Fit {
        steps,
        learning_rate: 3e-3,
        warmup: 0,
        weight_decay: 0.01,
        clip: 1.0,
    }
}

/// Sample `2 i` and sample `2 i + 1` have the same tokens but for two, which exchange their last values: one of them is marked, and the
/// class is the sign of its value. So their means are equal, and their classes are not.
fn sample(number: usize) -> (Vec<f32>, usize) {
    let mut random = Stream::new(3, "sample", number as u64 / 2);
    let mut tokens = vec![0f32; TOKENS * WIDTH];
    random.fill_normal(&mut tokens);
    let places = random.permutation(TOKENS);
    let class = number % 2;
    let value = if class == 1 { 2.0 } else { -2.0 };
    for (i, token) in tokens.chunks_exact_mut(WIDTH).enumerate() {
        token[0] = if i == places[0] { 3.0 } else { 0.0 };
        token[WIDTH - 1] = match i {
            _ if i == places[0] => value,
            _ if i == places[1] => -value,
            _ => 0.0,
        };
    }
    (tokens, class)
}

fn batch(numbers: impl Iterator<Item = usize>) -> (Vec<f32>, Vec<usize>) {
    let (tokens, labels): (Vec<_>, Vec<_>) = numbers.map(sample).unzip();
    (tokens.concat(), labels)
}

fn trained(depth: usize, seed: u64, how: &Fit) -> (Probe, Vec<FitReport>) {
    let mut probe = fresh(depth, seed);
    let reports = (0..how.steps).map(|_| {
        let numbers = probe.next_indices(200, 32, seed);
        let (tokens, labels) = batch(numbers.into_iter());
        block_on(probe.step(tokens, &labels, how)).unwrap()
    });
    let reports = reports.collect();
    (probe, reports)
}

fn scores(probe: &Probe, tokens: &[f32]) -> Vec<f32> {
    let count = tokens.len() / (TOKENS * WIDTH);
    block_on(probe.scores(tokens.to_vec(), count)).unwrap()
}

#[test]
fn attention_tells_what_means_cannot() {
    let (tokens, labels) = batch(1000..1200);
    let mean = |sample: &[f32]| -> Vec<f32> {
        let column = |d| {
            (0..TOKENS)
                .map(|t| f64::from(sample[t * WIDTH + d]))
                .sum::<f64>()
        };
        (0..WIDTH)
            .map(|d| (column(d) / TOKENS as f64) as f32)
            .collect()
    };
    let means: Vec<_> = tokens.chunks_exact(TOKENS * WIDTH).map(mean).collect();
    for pair in means.chunks_exact(2) {
        assert_eq!(pair[0], pair[1]);
    }
    for depth in [1, 4] {
        let (probe, reports) = trained(
            depth,
            1,
            &Fit {
                warmup: 10,
                ..fit(150)
            },
        );
        let scores = scores(&probe, &tokens);
        let right = scores.chunks_exact(2).zip(&labels);
        let right = right
            .filter(|(s, label)| (s[1] > s[0]) == (**label == 1))
            .count();
        assert!(
            right >= 190,
            "depth {depth}: {right} of 200, {:?}",
            reports.last()
        );
        assert!(
            (reports[0].loss - 2f64.ln()).abs() < 0.2,
            "{:?}",
            reports[0]
        );
        // 0 → 3e-3 in ten steps, then half a cosine to 0: half-way at step 80.
        let rates = [1, 10, 80, 150].map(|step| reports[step - 1].lr);
        for (rate, expected) in rates.into_iter().zip([3e-4, 3e-3, 1.5e-3, 0.0]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_probe_and_a_file_keeps_it() {
    let how = fit(5);
    let (tokens, _) = batch(1000..1010);
    let (probe, reports) = trained(4, 7, &how);
    let (again, same) = trained(4, 7, &how);
    assert_eq!(reports, same);
    let given = scores(&probe, &tokens);
    assert_eq!(given, scores(&again, &tokens));
    assert_ne!(given, scores(&trained(4, 8, &how).0, &tokens));

    let bytes = block_on(probe.save()).unwrap();
    let loaded = opened(&bytes);
    assert_eq!(loaded.config(), &config(4));
    assert_eq!(loaded.labels(), &json!(["down", "up"]));
    assert_eq!(block_on(loaded.save()).unwrap(), bytes);
    // Loaded matrices are kept in another order, in which products are rounded otherwise.
    for (a, b) in scores(&loaded, &tokens).iter().zip(&given) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

fn opened(bytes: &[u8]) -> Probe {
    let file = File {
        name: "probe.safetensors".into(),
        header: Header::of(bytes).unwrap(),
    };
    let about = About::find(std::slice::from_ref(&file), None, None).unwrap();
    let (plan, sizes) = Plan::probe(&[file]).unwrap();
    let mut parameters = Parameters::new(Device::flex(), Precision::F32);
    assemble(plan, &mut [Cursor::new(bytes)], |piece| {
        parameters.put(piece)
    })
    .unwrap();
    Probe::of_file(about, sizes, &mut parameters, &Device::flex()).unwrap()
}

#[test]
fn small_steps_on_one_batch_only_make_the_loss_smaller() {
    let how = Fit {
        learning_rate: 1e-4,
        weight_decay: 0.0,
        clip: 0.0,
        ..fit(1000)
    };
    let (tokens, labels) = batch(0..16);
    let mut probe = fresh(4, 2);
    let mut losses = Vec::new();
    for _ in 0..20 {
        losses.push(
            block_on(probe.step(tokens.clone(), &labels, &how))
                .unwrap()
                .loss,
        );
    }
    assert!(
        losses.windows(2).all(|pair| pair[1] < pair[0]),
        "{losses:?}"
    );
}

#[test]
fn names_come_from_config_json() {
    let text = json!({
        "num_attention_heads": 2, "layer_norm_eps": 1e-6, "id2label": { "1": "up", "0": "down", "2": "left" },
    });
    let about = About::find(&[], Some(&text.to_string()), None).unwrap();
    assert_eq!((about.heads, about.layer_norm_eps), (2, 1e-6));
    assert_eq!(about.labels, json!(["down", "up", "left"]));
    assert_eq!(about.check(2).unwrap_err().code(), "bad-checkpoint");
    about.check(3).unwrap();
    let published = About::find(&[], None, None).unwrap();
    assert_eq!(
        (published.heads, published.layer_norm_eps),
        (PROBE_HEADS, PROBE_EPS)
    );
    assert_eq!(About::find(&[], None, Some(2)).unwrap().heads, 2);
}

#[test]
fn what_makes_no_probe_is_refused() {
    let refused = |sizes, heads| {
        let config = ProbeConfig::of(sizes, heads, PROBE_EPS);
        let probe = Probe::new(config, Json::Null, 0, &Device::flex());
        assert_eq!(probe.err().unwrap().code(), "bad-config", "{sizes:?}");
    };
    refused([8, 1, 32, 2], 3);
    refused([8, 1, 32, 2], 0);
    refused([8, 0, 32, 2], 2);
    refused([8, 1, 32, 0], 2);

    let how = fit(150);
    let mut probe = fresh(1, 0);
    let before = scores(&probe, &sample(0).0);
    let tokens = || batch(0..4).0;
    let spoilt = |value| {
        let mut tokens = tokens();
        tokens[3] = value;
        tokens
    };
    for (tokens, labels) in [
        (tokens(), &[0, 1, 0, 1, 0][..]),
        (tokens(), &[0, 1, 0, 2]),
        (Vec::new(), &[0, 1, 0, 1]),
        (tokens(), &[]),
        (spoilt(f32::NAN), &[0, 1, 0, 1]),
        (spoilt(f32::INFINITY), &[0, 1, 0, 1]),
    ] {
        let error = block_on(probe.step(tokens, labels, &how)).unwrap_err();
        assert_eq!(error.code(), "bad-input", "{error}");
    }
    assert_eq!(scores(&probe, &sample(0).0), before);
    assert_eq!(
        block_on(probe.scores(vec![0.0; 7], 1)).unwrap_err().code(),
        "bad-input"
    );
    assert_eq!(probe_parameters(config(1).sizes()).len(), 15);
}
