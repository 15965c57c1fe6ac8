//! V-JEPA 2-AC's predictor: frames by themselves, what is imagined step by step, and what does not fit.
#![cfg(feature = "cli")]

use burn::tensor::{Device, Tensor, TensorData};
use pollster::block_on;
use webjepa::checkpoint::{parameters, predictor_parameters};
use webjepa::config::ModelConfig;
use webjepa::device::{Precision, read_values};
use webjepa::model::predictor::normalised;
use webjepa::model::{ActionPredictor, Encoder, Pictures, Told, encode_frames, read};
use webjepa::nn::ops;
use webjepa::rng::{Generator, Stream};
use webjepa::train::network::{HostTensor, Network};

const CONFIG: &str = r#"{
    "system": "vjepa2", "imageSize": [16, 24], "patchSize": 8, "frames": 4, "hiddenSize": 24, "layers": 1, "heads": 2,
    "predictor": { "hiddenSize": 32, "layers": 2, "heads": 2, "actions": { "actionSize": 3, "stateSize": 2 } }
}"#;
const PATCHES: usize = 2 * 3;
const WIDTH: usize = 24;

fn device() -> Device {
    Device::flex()
}

fn numbers(name: &str, number: u64, count: usize) -> Vec<f32> {
    let mut random = Stream::new(5, name, number);
    (0..count).map(|_| 2.0 * random.uniform() - 1.0).collect()
}

fn network(config: &ModelConfig, predictor: bool) -> Network {
    let list = match predictor {
        true => predictor_parameters(config),
        false => parameters(config),
    };
    let mut network = Network::new("");
    for (number, parameter) in (0..).zip(list) {
        let count = parameter.shape.iter().product();
        let data = numbers("parameter", number, count);
        let data = data.iter().map(|v| 0.3 * v).collect();
        let (name, shape) = (parameter.name, parameter.shape);
        network.put(HostTensor { name, shape, data }, &device());
    }
    network
}

fn predictor(config: &ModelConfig) -> ActionPredictor {
    let mut parameters = network(config, true).fixed(&device(), Precision::F32);
    ActionPredictor::take(config, &device(), &mut parameters).unwrap()
}

fn tokens(values: &[f32], batch: usize, count: usize) -> Tensor<3> {
    let data = TensorData::new(values.to_vec(), [batch, count, WIDTH]);
    ops::uploaded(data, &device())
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .fold(0.0, |far, (a, b)| far.max((a - b).abs()))
}

#[test]
fn each_frame_is_encoded_as_a_clip_of_itself() {
    let config = ModelConfig::from_json(CONFIG).unwrap();
    let mut parameters = network(&config, false).fixed(&device(), Precision::F32);
    let encoder = Encoder::new(&config, Precision::F32, &device(), &mut parameters).unwrap();
    let frame = 3 * 16 * 24;
    let clips = Pictures {
        pixels: numbers("pixels", 0, 2 * 3 * frame),
        batch: 2,
        frames: 3,
        size: [16, 24],
    };
    let got = encode_frames(&encoder, &clips, &device()).unwrap();
    let got = block_on(read(got)).unwrap();
    assert_eq!(got.shape, [2, 3 * PATCHES, WIDTH]);
    for (i, picture) in clips.pixels.chunks_exact(frame).enumerate() {
        let twice = Pictures {
            pixels: [picture, picture].concat(),
            batch: 1,
            frames: 2,
            size: clips.size,
        };
        let alone = encoder.levels(&twice, None, 1).unwrap();
        let alone = normalised(alone, 1, &device());
        let alone = block_on(read(alone)).unwrap().data;
        let own = &got.data[i * PATCHES * WIDTH..(i + 1) * PATCHES * WIDTH];
        assert!(far(own, &alone) < 1e-6);
    }
}

#[test]
fn what_is_imagined_is_predicted_from_what_was_imagined_before() {
    let config = ModelConfig::from_json(CONFIG).unwrap();
    let predictor = predictor(&config);
    let (batch, frames) = (2, 2);
    let first = numbers("first", 0, batch * PATCHES * WIDTH);
    let told = Told {
        actions: &numbers("actions", 0, batch * frames * 3),
        states: &numbers("states", 0, batch * frames * 2),
    };
    let first = normalised(tokens(&first, batch, PATCHES), 1, &device());
    let steps = predictor
        .rollout(first.clone(), [1, 2, 3], frames, told)
        .unwrap();
    assert_eq!(steps.len(), frames);
    let steps: Vec<Vec<f32>> = steps
        .into_iter()
        .map(|step| {
            assert_eq!(step.dims(), [batch, PATCHES, WIDTH]);
            block_on(read_values(step)).unwrap()
        })
        .collect();
    let first = block_on(read_values(first)).unwrap();
    let frame = PATCHES * WIDTH;
    for b in 0..batch {
        let of_sequence = |all: &[f32]| all[b * frame..(b + 1) * frame].to_vec();
        let frames_of = std::iter::once(&first).chain(&steps);
        let own: Vec<f32> = frames_of.flat_map(|all| of_sequence(all)).collect();
        // Frames see nothing that comes after them, so both are predicted from the first two at once.
        let told = Told {
            actions: &told.actions[b * frames * 3..(b + 1) * frames * 3],
            states: &told.states[b * frames * 2..(b + 1) * frames * 2],
        };
        let known = tokens(&own[..2 * frame], 1, 2 * PATCHES);
        let next = predictor.forward(known, [2, 2, 3], told).unwrap();
        let next = block_on(read_values(normalised(next, 1, &device()))).unwrap();
        assert!(far(&own[frame..], &next) < 1e-5);
        // What is done matters.
        let other = predictor
            .forward(
                tokens(&own[..2 * frame], 1, 2 * PATCHES),
                [2, 2, 3],
                Told {
                    actions: &[0.0; 6],
                    ..told
                },
            )
            .unwrap();
        let other = block_on(read_values(normalised(other, 1, &device()))).unwrap();
        assert!(far(&next, &other) > 1e-3);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = ModelConfig::from_json(CONFIG).unwrap();
    let predictor = predictor(&config);
    let values = numbers("tokens", 0, 2 * PATCHES * WIDTH);
    let refused = |count: usize, grid: [usize; 3], actions: &[f32], states: &[f32]| {
        let told = Told { actions, states };
        let tokens = tokens(&values[..count * WIDTH], 1, count);
        predictor
            .forward(tokens, grid, told)
            .map(|_| ())
            .unwrap_err()
    };
    let (actions, states) = ([0.5; 6], [0.5; 4]);
    for (error, says) in [
        (
            refused(PATCHES, [2, 2, 3], &actions, &states),
            "2 frames of 2 × 3 patches",
        ),
        (
            refused(2 * PATCHES, [2, 2, 3], &actions[..5], &states),
            "6 numbers in their actions, 3 each, not 5",
        ),
        (
            refused(2 * PATCHES, [2, 2, 3], &actions, &[]),
            "4 numbers in their states",
        ),
        (
            refused(
                2 * PATCHES,
                [2, 2, 3],
                &[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0],
                &states,
            ),
            "the action of frame 1 of sequence 0 is not finite",
        ),
    ] {
        assert_eq!(error.code(), "bad-input");
        assert!(error.to_string().contains(says), "{error}");
    }
    let masked = ModelConfig::preset("vjepa2-vit-tiny").unwrap();
    let mut parameters = network(&config, true).fixed(&device(), Precision::F32);
    let error = ActionPredictor::take(&masked, &device(), &mut parameters).err();
    assert_eq!(error.map(|e| e.code()), Some("bad-config"));
}
