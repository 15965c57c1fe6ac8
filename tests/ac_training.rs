//! Runs of training of V-JEPA 2-AC, on the CPU.
#![cfg(feature = "cli")]

mod common;

use burn::tensor::{Tensor, TensorData};
use pollster::block_on;
use serde_json::{Value, json};
use webjepa::Result;
use webjepa::checkpoint::Header;
use webjepa::device::read_values;
use webjepa::input::{ImageView, Processor};
use webjepa::model::predictor::normalised;
use webjepa::model::{Pictures, Told, VJepa2Ac, WorldModel, encode_frames};
use webjepa::nn::ops;
use webjepa::rng::{Generator, Stream};
use webjepa::train::recipe::Options;
use webjepa::train::trainer::{Batch, StepReport, Trainer};

use common::device;

const SIDE: usize = 16;
const FRAMES: usize = 4;
const WINDOWS: usize = 2;
const PATCHES: usize = 4;
const WIDTH: usize = 24;
/// Numbers of a frame's embeddings.
const FRAME: usize = PATCHES * WIDTH;

fn trainer(change: Value) -> Result<Trainer> {
    let mut options = json!({
        "model": {
            "system": "vjepa2", "imageSize": SIDE, "patchSize": 8, "frames": 8, "hiddenSize": WIDTH, "layers": 1, "heads": 2,
            "predictor": {
                "hiddenSize": 32, "layers": 2, "heads": 2, "actions": { "actionSize": 2, "stateSize": 3 },
            },
        },
        "objective": { "kind": "vjepa2-ac", "frames": FRAMES, "autoSteps": 3 },
        "seed": 5,
        "batchSize": WINDOWS,
        "schedule": { "steps": 100, "lr": 1e-3 },
    });
    for (key, value) in change.as_object().unwrap() {
        options[key] = value.clone();
    }
    let recipe = Options::from_json(&options.to_string())?.recipe(None)?;
    Trainer::new(recipe, &device())
}

/// Pictures, actions and states of a window, of which nothing fits anything.
fn window(number: u64) -> (Vec<Vec<u8>>, Vec<f32>, Vec<f32>) {
    let mut random = Stream::new(3, "window", number);
    let mut uniform = || 2.0 * random.uniform() - 1.0;
    let mut frame = |_| {
        (0..SIDE * SIDE * 3)
            .map(|_| (127.5 + 127.0 * uniform()) as u8)
            .collect()
    };
    let frames = (0..FRAMES).map(&mut frame).collect();
    let actions = (0..(FRAMES - 1) * 2).map(|_| uniform()).collect();
    let states = (0..FRAMES * 3).map(|_| uniform()).collect();
    (frames, actions, states)
}

fn batch(trainer: &Trainer) -> Batch {
    let mut batch = trainer.new_batch();
    let windows = trainer.recipe().pictures() as u64;
    for number in trainer.step_count() * windows..(trainer.step_count() + 1) * windows {
        let (frames, actions, states) = window(number);
        for frame in frames {
            let view = ImageView::from_u8(&frame, SIDE, SIDE, 3);
            trainer.push(&mut batch, &view).unwrap();
        }
        batch.act(&actions);
        batch.tell(&states);
    }
    batch
}

fn run(trainer: &mut Trainer, steps: usize) -> Vec<StepReport> {
    let step = |_| {
        let batch = batch(trainer);
        block_on(trainer.step(&batch)).unwrap()
    };
    (0..steps).map(step).collect()
}

/// A run's model through its exported files.
fn exported(trainer: &Trainer) -> Box<VJepa2Ac> {
    match common::exported_world(trainer) {
        WorldModel::VJepa2Ac(model) => model,
        WorldModel::LeWm(_) => panic!("another system"),
    }
}

fn tokens(values: &[f32]) -> Tensor<3> {
    let data = TensorData::new(values.to_vec(), [1, values.len() / WIDTH, WIDTH]);
    ops::uploaded(data, &device())
}

fn mean_distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len() as f64
}

#[test]
fn the_loss_is_that_of_every_next_frame_and_of_frames_predicted_from_predictions() {
    let mut trainer = trainer(json!({ "batchSize": 1 })).unwrap();
    let model = exported(&trainer);
    let processor = Processor::published_for(&trainer.recipe().model).unwrap();
    let (frames, actions, states) = window(0);
    let mut pixels = Vec::new();
    for frame in &frames {
        let view = ImageView::from_u8(frame, SIDE, SIDE, 3);
        pixels.extend(processor.apply(&view).unwrap());
    }
    let clip = Pictures {
        pixels,
        batch: 1,
        frames: FRAMES,
        size: [SIDE, SIDE],
    };
    let all = encode_frames(model.encoder(), &clip, &device()).unwrap();
    let all = block_on(read_values(all)).unwrap();
    let predicted = |known: &[f32]| -> Vec<f32> {
        let frames = known.len() / FRAME;
        let told = Told {
            actions: &actions[..frames * 2],
            states: &states[..frames * 3],
        };
        let next = model
            .predictor()
            .forward(tokens(known), [frames, 2, 2], told);
        block_on(read_values(normalised(next.unwrap(), 1, &device()))).unwrap()
    };
    let forced = predicted(&all[..3 * FRAME]);
    let mut imagined = [&all[..FRAME], &forced[..FRAME]].concat();
    for _ in 1..3 {
        let next = predicted(&imagined);
        imagined.extend_from_slice(&next[next.len() - FRAME..]);
    }
    let report = &run(&mut trainer, 1)[0];
    let wanted = [
        ("teacherForced", mean_distance(&forced, &all[FRAME..])),
        (
            "autoregressive",
            mean_distance(&imagined[FRAME..], &all[FRAME..]),
        ),
    ];
    for (name, wanted) in wanted {
        let found = report.parts[name];
        assert!((found - wanted).abs() < 1e-5, "{name}: {found}, {wanted}");
    }
    assert!((report.loss - wanted[0].1 - wanted[1].1).abs() < 1e-5);
    assert!(wanted[0].1 != wanted[1].1);
}

/// A saved run with a tensor moved by `by · direction`.
fn moved(saved: &[u8], name: &str, direction: &[f32], by: f32) -> Vec<u8> {
    let header = Header::of(saved).unwrap();
    let tensor = header.tensors.iter().find(|t| t.name == name).unwrap();
    let first = (header.data_start + tensor.begin) as usize;
    let mut bytes = saved.to_vec();
    for (value, direction) in bytes[first..].chunks_exact_mut(4).zip(direction) {
        let old = f32::from_le_bytes(value.try_into().unwrap());
        value.copy_from_slice(&(old + by * direction).to_le_bytes());
    }
    bytes
}

#[test]
fn gradients_are_finite_differences_and_the_encoder_has_none() {
    // The distance's square is smooth, unlike itself.
    let objective = json!({ "kind": "vjepa2-ac", "frames": FRAMES, "autoSteps": 3, "power": 2 });
    let mut trainer = trainer(json!({ "objective": objective })).unwrap();
    // Away from fresh weights, whose biases are zeros.
    run(&mut trainer, 3);
    let next = batch(&trainer);
    let saved = block_on(trainer.save()).unwrap();
    let (_, gradients) = block_on(trainer.gradients(&next)).unwrap();
    assert!(gradients.iter().all(|g| g.name.starts_with("predictor.")));
    for name in [
        "action_encoder.weight",
        "state_encoder.weight",
        "state_encoder.bias",
        "predictor_embed.weight",
        "predictor_blocks.0.attn.qkv.weight",
        "predictor_blocks.1.mlp.fc2.weight",
        "predictor_norm.weight",
        "predictor_proj.bias",
    ] {
        let name = format!("predictor.{name}");
        let gradient = gradients.iter().find(|g| g.name == name).unwrap();
        let squares = gradient.data.iter().map(|&g| f64::from(g).powi(2));
        let length = squares.sum::<f64>().sqrt();
        assert!(length > 1e-4, "{name}: {length}");
        let unit = |g: &f32| g / length as f32;
        let direction: Vec<f32> = gradient.data.iter().map(unit).collect();
        let loss = |by: f32| {
            let bytes = moved(&saved, &name, &direction, by);
            let mut other = Trainer::resume(&bytes, &device()).unwrap();
            block_on(other.gradients(&next)).unwrap().0
        };
        let step = 1e-2;
        let slope = (loss(step) - loss(-step)) / (2.0 * f64::from(step));
        assert!(
            (slope - length).abs() < 2e-2 * length,
            "{name}: {slope} for {length}"
        );
    }
}

#[test]
fn the_encoder_stays_and_everything_else_is_trained() {
    let mut trainer = trainer(json!({})).unwrap();
    let tensors = |run: &Trainer| block_on(run.tensors()).unwrap();
    let before = tensors(&trainer);
    let reports = run(&mut trainer, 2);
    assert!(reports.iter().all(|r| r.ema == 1.0 && r.loss > 0.0));
    for (before, after) in before.iter().zip(tensors(&trainer)) {
        let same = before.data == after.data;
        assert_eq!(same, before.name.starts_with("encoder."), "{}", after.name);
    }
}

#[test]
fn a_resumed_run_is_the_same_to_the_bit() {
    let mut whole = trainer(json!({ "accumulate": 2, "batchSize": 1 })).unwrap();
    run(&mut whole, 2);
    let saved = block_on(whole.save()).unwrap();
    let mut again = Trainer::resume(&saved, &device()).unwrap();
    assert_eq!(run(&mut whole, 2), run(&mut again, 2));
    let tensors = |run: &Trainer| block_on(run.tensors()).unwrap();
    assert_eq!(tensors(&whole), tensors(&again));
}

#[test]
fn published_defaults() {
    let change = json!({ "objective": "vjepa2-ac", "schedule": { "steps": 315 } });
    let recipe = trainer(change).map(|t| t.recipe().clone());
    // Clips of eight frames have four time steps.
    assert_eq!(recipe.map(|_| ()).map_err(|e| e.code()), Err("bad-config"));
    let text = json!({ "model": "vjepa2-ac-vit-giant", "objective": "vjepa2-ac", "batchSize": 8, "schedule": { "steps": 315 } });
    let recipe = Options::from_json(&text.to_string()).unwrap().recipe(None);
    let recipe = recipe.unwrap();
    assert_eq!(recipe.frames(), 8);
    let schedule = &recipe.schedule;
    let rates = [15, 150, 300, 315].map(|step| schedule.lr(step));
    for (rate, expected) in rates.into_iter().zip([4.25e-4, 4.25e-4, 4.25e-4, 0.0]) {
        assert!((rate - expected).abs() < 1e-12, "{rate} for {expected}");
    }
    assert_eq!(schedule.weight_decay(100), 0.04);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut trainer_ = trainer(json!({})).unwrap();
    let whole = batch(&trainer_);
    let mut told = whole.clone();
    told.tell(&[0.0; 3]);
    let mut acted = whole.clone();
    acted.act(&[0.0; 2]);
    for wrong in [told, acted] {
        let error = block_on(trainer_.step(&wrong)).unwrap_err();
        assert_eq!(error.code(), "bad-input");
    }
    assert!(block_on(trainer_.step(&whole)).is_ok());
    let refused = |change| trainer(change).map(|_| ()).map_err(|e| e.code());
    let objective = |key: &str, value: Value| {
        let mut objective = json!({ "kind": "vjepa2-ac", "frames": FRAMES, "autoSteps": 3 });
        objective[key] = value;
        json!({ "objective": objective })
    };
    for change in [
        objective("frames", json!(1)),
        objective("frames", json!(6)),
        objective("autoSteps", json!(0)),
        objective("autoSteps", json!(4)),
        objective("power", json!(0.5)),
        objective("beta", json!(1)),
        json!({ "objective": "vjepa" }),
        json!({ "train": { "lastBlocks": 1 } }),
        json!({ "model": "vjepa2-vit-tiny" }),
        json!({ "model": "vit-tiny" }),
    ] {
        assert_eq!(refused(change.clone()), Err("bad-config"), "{change}");
    }
    let error = block_on(trainer_.export_hugging_face()).unwrap_err();
    assert_eq!(error.code(), "unsupported");
}
