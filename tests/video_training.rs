//! Runs of training on clips, on the CPU.
#![cfg(feature = "cli")]

mod common;

use pollster::block_on;
use serde_json::{Value, json};
use webjepa::checkpoint::Header;
use webjepa::config::ModelConfig;
use webjepa::device::Precision;
use webjepa::input::ImageView;
use webjepa::model::{Encoder, Pictures};
use webjepa::rng::{Generator, Stream};
use webjepa::train::recipe::{ContextLoss, Options, Recipe};
use webjepa::train::schedule::Schedule;
use webjepa::train::trainer::{Batch, StepReport, Trainer};
use webjepa::{Error, Result};

use common::{device, embedded};

const SYSTEMS: [&str; 3] = ["vjepa", "vjepa2", "vjepa2.1"];
const CLIPS: usize = 12;
const FRAMES: usize = 4;
const SIDE: usize = 32;

/// Bars that move across the picture, each clip at a speed and an angle of its own.
fn clip(number: usize) -> Vec<Vec<u8>> {
    let mut random = Stream::new(11, "clip", number as u64);
    let (angle, speed) = (random.uniform() * 6.0, 1.0 + 2.0 * random.uniform());
    let frame = |time: usize| {
        let mut samples = Vec::new();
        for y in 0..SIDE {
            for x in 0..SIDE {
                let phase = x as f32 * angle.cos() + y as f32 * angle.sin();
                let wave = ((phase - speed * time as f32) * 0.4).sin();
                samples.extend([(127.0 + 120.0 * wave) as u8; 3]);
            }
        }
        samples
    };
    (0..FRAMES).map(frame).collect()
}

fn options(system: &str, change: Value) -> Value {
    let mut options = json!({
        "model": {
            "system": system, "imageSize": SIDE, "patchSize": 8, "frames": FRAMES, "hiddenSize": 24, "layers": 4, "heads": 2,
            "predictor": { "hiddenSize": 24, "layers": 1, "heads": 2 },
        },
        "objective": "vjepa",
        "seed": 5,
        "batchSize": 4,
        "schedule": { "steps": 40, "warmupSteps": 4, "lr": 2e-3 },
    });
    for (key, value) in change.as_object().unwrap() {
        options[key] = value.clone();
    }
    options
}

fn trainer(system: &str, change: Value) -> Result<Trainer> {
    let options = options(system, change).to_string();
    Trainer::new(Options::from_json(&options)?.recipe(None)?, &device())
}

fn batch(trainer: &Trainer) -> Batch {
    let mut batch = trainer.new_batch();
    for index in trainer.next_indices(CLIPS).unwrap() {
        for frame in clip(index) {
            let view = ImageView::from_u8(&frame, SIDE, SIDE, 3);
            trainer.push(&mut batch, &view).unwrap();
        }
    }
    batch
}

fn run(trainer: &mut Trainer, steps: usize) -> Vec<StepReport> {
    (0..steps)
        .map(|_| {
            let batch = batch(trainer);
            block_on(trainer.step(&batch)).unwrap()
        })
        .collect()
}

#[test]
fn every_generation_lowers_its_loss() {
    for system in SYSTEMS {
        // A target that stays, so that the loss says how well it is learned.
        let quick = json!({ "schedule": { "steps": 300, "warmupSteps": 4, "lr": 6e-3, "finalLr": 1e-6, "finalWeightDecay": 0.4, "ema": 1, "finalEma": 1, "ipeScale": 1 } });
        let mut trainer = trainer(system, quick).unwrap();
        let reports = run(&mut trainer, 300);
        let mean = |reports: &[StepReport]| {
            reports.iter().map(|r| r.loss).sum::<f64>() / reports.len() as f64
        };
        let (early, late) = (mean(&reports[..5]), mean(&reports[295..]));
        // V-JEPA 1 learns positions first; without a table what there is to learn is the content, which takes longer.
        let enough = if system == "vjepa" { 0.9 } else { 0.99 };
        assert!(late < enough * early, "{system}: {early} became {late}");
        // Two kinds of masks, each with a context and targets for each clip.
        let masks = &trainer.last_masks()[0];
        assert_eq!((masks.context.len(), masks.targets.len()), (8, 2));
    }
}

#[test]
fn a_resumed_run_is_the_same_to_the_bit() {
    for system in SYSTEMS {
        let dense = match system {
            "vjepa2.1" => {
                json!({ "objective": { "kind": "vjepa", "contextLoss": { "fromStep": 2, "fullStep": 6 } } })
            }
            _ => json!({}),
        };
        let mut whole = trainer(system, dense.clone()).unwrap();
        let expected = run(&mut whole, 8);
        let mut first = trainer(system, dense).unwrap();
        let mut got = run(&mut first, 4);
        let saved = block_on(first.save()).unwrap();
        let mut resumed = Trainer::resume(&saved, &device()).unwrap();
        got.extend(run(&mut resumed, 4));
        assert_eq!(got, expected, "{system}");
        assert_eq!(
            block_on(resumed.save()).unwrap(),
            block_on(whole.save()).unwrap()
        );
    }
}

#[test]
fn checkpointed_gradients_are_the_same() {
    for system in SYSTEMS {
        let run_with = |checkpointing: bool| {
            let change = json!({ "gradientCheckpointing": checkpointing });
            run(&mut trainer(system, change).unwrap(), 3)
        };
        assert_eq!(run_with(true), run_with(false), "{system}");
    }
}

/// A save in which the values of `name` are moved by `by` times `direction`.
fn moved(save: &[u8], name: &str, direction: &[f32], by: f32) -> Vec<u8> {
    let header = Header::of(save).unwrap();
    let info = header.tensors.iter().find(|t| t.name == name).unwrap();
    let start = (header.data_start + info.begin) as usize;
    let mut moved = save.to_vec();
    let values = moved[start..start + 4 * direction.len()].chunks_exact_mut(4);
    for (bytes, direction) in values.zip(direction) {
        let value = f32::from_le_bytes(bytes.try_into().unwrap()) + by * direction;
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    moved
}

#[test]
fn gradients_of_whole_losses_are_their_slopes() {
    // Squared distances, which have no kinks; the dense loss at its full weight.
    let smooth = json!({ "objective": { "kind": "vjepa", "power": 2 } });
    let dense = json!({ "objective": { "kind": "vjepa", "power": 2, "contextLoss": { "weight": 0.5, "fromStep": 0, "fullStep": 0 } } });
    for (system, change) in [
        ("vjepa", smooth.clone()),
        ("vjepa2", smooth),
        ("vjepa2.1", dense),
    ] {
        let fresh = block_on(trainer(system, change).unwrap().save()).unwrap();
        // Mask tokens begin at zero, where the norm that follows is as good as not differentiable.
        let token: Vec<f32> = (0..24).map(|i| (i as f32).sin()).collect();
        let fresh = moved(&fresh, "predictor.mask_tokens.0", &token, 0.3);
        let save = moved(&fresh, "predictor.mask_tokens.1", &token, -0.2);
        let mut run = Trainer::resume(&save, &device()).unwrap();
        let batch = batch(&run);
        let (_, gradients) = block_on(run.gradients(&batch)).unwrap();
        let mut names = vec![
            "encoder.patch_embed.proj.weight",
            "encoder.blocks.1.attn.qkv.weight",
            "encoder.blocks.3.mlp.fc2.weight",
            "predictor.predictor_blocks.0.attn.qkv.weight",
            "predictor.mask_tokens.0",
            "predictor.predictor_proj.weight",
        ];
        match system {
            "vjepa2.1" => names.extend([
                "encoder.norms_block.1.weight",
                "encoder.video_mod_embed",
                "predictor.predictor_embed.0.weight",
                "predictor.video_mod_embed",
                "predictor.predictor_proj_context.weight",
            ]),
            _ => names.extend(["encoder.norm.weight", "predictor.predictor_embed.weight"]),
        }
        for name in names {
            let gradient = &gradients.iter().find(|t| t.name == name).unwrap().data;
            // Along the gradient itself, where the slope is its length.
            let length = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            let direction: Vec<f32> = gradient
                .iter()
                .map(|g| (f64::from(*g) / length) as f32)
                .collect();
            let loss = |by: f32| {
                let mut there =
                    Trainer::resume(&moved(&save, name, &direction, by), &device()).unwrap();
                block_on(there.gradients(&batch)).unwrap().0
            };
            let step = 5e-3;
            let slope = (loss(step) - loss(-step)) / f64::from(2.0 * step);
            assert!(
                (slope - length).abs() < 0.02 * length + 2e-5,
                "{system}, {name}: {slope} for {length}"
            );
        }
    }
}

#[test]
fn the_dense_loss_comes_in_as_published() {
    let dense = ContextLoss::default();
    for (step, weight) in [
        (1, 0.0),
        (15_000, 0.0),
        (22_500, 0.25),
        (30_000, 0.5),
        (99_999, 0.5),
    ] {
        assert!(
            (dense.weight_at(step) - weight).abs() < 1e-12,
            "step {step}"
        );
    }
    let mut without = trainer("vjepa2.1", json!({})).unwrap();
    let parts = run(&mut without, 1).remove(0).parts;
    assert_eq!(parts["context"], 0.0);
    let now = json!({ "objective": { "kind": "vjepa", "contextLoss": { "fromStep": 0, "fullStep": 1 } } });
    let mut with = trainer("vjepa2.1", now).unwrap();
    let report = run(&mut with, 1).remove(0);
    assert!(report.parts["context"] > 0.0);
    let sum = report.parts["context"] + report.parts["targets"];
    assert!((report.loss - sum).abs() < 1e-9);
}

#[test]
fn exported_models_embed_as_the_trained_one() {
    let pixels: Vec<f32> = clip(3)
        .concat()
        .iter()
        .map(|&v| f32::from(v) / 128.0 - 1.0)
        .collect();
    let clip = Pictures {
        pixels,
        batch: 1,
        frames: FRAMES,
        size: [SIDE, SIDE],
    };
    for system in SYSTEMS {
        let mut trainer = trainer(system, json!({})).unwrap();
        run(&mut trainer, 2);
        let mut parameters = trainer.encoder_network().fixed(&device(), Precision::F32);
        let config = trainer.recipe().model.clone();
        let encoder = Encoder::new(&config, Precision::F32, &device(), &mut parameters).unwrap();
        let expected = block_on(encoder.encode(&clip, None, 1))
            .unwrap()
            .remove(0)
            .data;
        let original = block_on(trainer.export_original()).unwrap();
        let text = String::from_utf8(original["config.json"].clone()).unwrap();
        let read = ModelConfig::from_any_json(&text).unwrap();
        assert_eq!(read, config);
        assert_eq!(
            embedded(&read, &original["model.safetensors"], &clip),
            expected
        );
        let hugging_face = block_on(trainer.export_hugging_face());
        if system != "vjepa2" {
            assert_eq!(hugging_face.unwrap_err().code(), "unsupported");
            continue;
        }
        let files = hugging_face.unwrap();
        assert!(files.contains_key("video_preprocessor_config.json"));
        let text = String::from_utf8(files["config.json"].clone()).unwrap();
        let read = ModelConfig::from_hf_json(&text).unwrap();
        assert_eq!(
            embedded(&read, &files["model.safetensors"], &clip),
            expected
        );
        let header = Header::of(&files["model.safetensors"]).unwrap();
        let tokens = header
            .tensors
            .iter()
            .find(|t| t.name.ends_with("mask_tokens"))
            .unwrap();
        assert_eq!(tokens.shape, [10, 1, 1, 24]);
    }
}

#[test]
fn defaults_are_those_of_the_system() {
    let recipe = |system, change| trainer(system, change).unwrap().recipe().clone();
    // Epochs of one step. V-JEPA 1's last learning rate: specification, section 1.
    for (system, steps, rates) in [
        (
            "vjepa",
            300,
            [(20, 4.125e-4), (40, 6.25e-4), (300, 7.50422e-5)],
        ),
        (
            "vjepa2",
            800,
            [(20, 3.125e-4), (40, 5.25e-4), (800, 5.25e-4)],
        ),
        ("vjepa2.1", 1000, [(20, 3.5e-4), (40, 6e-4), (1000, 6e-4)]),
    ] {
        let Recipe {
            schedule,
            optimizer,
            ..
        } = recipe(system, json!({ "schedule": { "steps": steps } }));
        for (step, rate) in rates {
            let got = schedule.lr(step);
            assert!((got - rate).abs() < 1e-10, "{system}, {step}: {got}");
        }
        let of_first = system == "vjepa";
        let [ema, decay] = [schedule.ema(steps - 1), schedule.weight_decay(steps)];
        // The momentum of V-JEPA 1 goes 299/375 of its way, its weight decay (1 − cos(4π/5)) / 2 of it.
        let wanted = match of_first {
            true => [
                0.998 + 0.002 * 299.0 / 375.0,
                0.04 + 0.36 * (5.0 + 5f64.sqrt()) / 8.0,
            ],
            false => [0.99925, 0.04],
        };
        for (got, wanted) in [ema, decay].into_iter().zip(wanted) {
            assert!((got - wanted).abs() < 1e-12, "{system}: {got} for {wanted}");
        }
        let clipped = (
            optimizer.clip,
            optimizer.clip_each,
            optimizer.clip_after_warmup,
        );
        assert_eq!(clipped, (of_first.then_some(10.0), of_first, of_first));
    }
}

#[test]
fn what_is_given_counts_and_what_was_constant_stays_so() {
    let recipe = |system, change| trainer(system, change).unwrap().recipe().clone();
    let given = json!({ "steps": 800, "lr": 1e-3, "weightDecay": 0.1, "ema": 0.9 });
    let schedule = recipe("vjepa2", json!({ "schedule": given })).schedule;
    assert_eq!(schedule.lr(800), 1e-3);
    assert_eq!((schedule.weight_decay(800), schedule.ema(799)), (0.1, 0.9));
    let falling = json!({ "steps": 800, "lr": 1e-3, "finalLr": 1e-6, "ema": 0.9, "finalEma": 1 });
    let schedule = recipe("vjepa2", json!({ "schedule": falling })).schedule;
    assert_eq!((schedule.lr(800), schedule.ema(800)), (1e-6, 1.0));

    // V-JEPA 2's cooldown, which stops before its end: specification, section 4.
    let cooldown = json!({ "steps": 12_000, "warmupSteps": 0, "annealSteps": 15_000, "finalLr": 1e-6, "ipeScale": 1.25 });
    let schedule = recipe("vjepa2", json!({ "schedule": cooldown })).schedule;
    assert!((schedule.lr(12_000) - 1.058e-4).abs() < 1e-12);

    let clipped = |optimizer| {
        let optimizer = recipe("vjepa", json!({ "optimizer": optimizer })).optimizer;
        (optimizer.clip, optimizer.clip_each)
    };
    assert_eq!(clipped(json!({ "clip": 1 })), (Some(1.0), true));
    assert_eq!(clipped(json!({ "clip": null })), (None, false));

    // A run of a version that had I-JEPA's schedule for all goes on with it.
    let mut saved = serde_json::to_value(recipe("vjepa2", json!({}))).unwrap();
    saved["schedule"] = serde_json::to_value(Schedule::default()).unwrap();
    let resumed = Recipe::from_json(&saved.to_string()).unwrap();
    assert_eq!(resumed.schedule, Schedule::default());
    assert_eq!(serde_json::to_value(resumed).unwrap(), saved);
}

#[test]
fn clips_that_do_not_fit_are_refused() {
    let mut trainer = trainer("vjepa2", json!({})).unwrap();
    let mut batch = batch(&trainer);
    let frame = clip(0).remove(0);
    trainer
        .push(&mut batch, &ImageView::from_u8(&frame, SIDE, SIDE, 3))
        .unwrap();
    let error = block_on(trainer.step(&batch)).unwrap_err();
    assert!(error.to_string().contains("1 frames"), "{error}");
    let refused = |system: &str, change: Value| match self::trainer(system, change) {
        Err(Error::BadConfig(why)) => why,
        other => panic!("{:?}", other.err()),
    };
    assert!(refused("vjepa2", json!({ "objective": "ijepa" })).contains("clips are for"));
    assert!(
        refused(
            "vjepa2",
            json!({ "objective": { "kind": "vjepa", "contextLoss": {} } })
        )
        .contains("V-JEPA 2.1")
    );
    let distilled = json!({ "model": { "system": "vjepa2.1", "imageSize": 32, "patchSize": 8, "frames": 4, "hiddenSize": 24,
        "layers": 4, "heads": 2, "predictor": { "hiddenSize": 24, "layers": 1, "heads": 2, "levels": 1, "outputSize": 40 } } });
    assert!(refused("vjepa2.1", distilled).contains("distilled"));
}
