//! V-JEPA 2-AC's predictor: frames by themselves, what is imagined step by step, and what does not fit.
#![cfg(feature = "cli")]

use burn::tensor::{Device, Tensor, TensorData};
use pollster::block_on;
use webjepa::checkpoint::{parameters, predictor_parameters};
use webjepa::config::ModelConfig;
use webjepa::device::{Precision, read_values};
use webjepa::model::predictor::normalised;
use webjepa::model::{
    ActionPredictor, Context, Encoder, Goal, Pictures, Told, WorldModel, encode_frames, read,
};
use webjepa::nn::ops;
use webjepa::rng::{Generator, Stream};
use webjepa::train::network::{HostTensor, Network};
use webjepa::world::{Candidates, Cem, Cost};

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
    scaled(config, predictor, |_| 0.3)
}

fn scaled(config: &ModelConfig, predictor: bool, scale: fn(&str) -> f32) -> Network {
    let list = match predictor {
        true => predictor_parameters(config),
        false => parameters(config),
    };
    let mut network = Network::new("");
    for (number, parameter) in (0..).zip(list) {
        let count = parameter.shape.iter().product();
        let data = numbers("parameter", number, count);
        let (name, shape) = (parameter.name, parameter.shape);
        let data = data.iter().map(|v| scale(&name) * v).collect();
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

/// A model whose states have as many numbers as actions, two of them.
fn world() -> WorldModel {
    let config = CONFIG.replace("\"actionSize\": 3", "\"actionSize\": 2");
    let config = ModelConfig::from_json(&config).unwrap();
    let mut parameters = network(&config, false).fixed(&device(), Precision::F32);
    let encoder = Encoder::new(&config, Precision::F32, &device(), &mut parameters).unwrap();
    let mut rest = network(&config, true).fixed(&device(), Precision::F32);
    WorldModel::of(encoder, &device(), &mut rest).unwrap()
}

fn context(frames: usize) -> Context {
    let values = numbers("known", 0, frames * PATCHES * WIDTH);
    let known = normalised(tokens(&values, 1, frames * PATCHES), 1, &device());
    Context {
        embeddings: ops::reshaped(known, [frames * PATCHES, WIDTH]),
        actions: numbers("past", 0, (frames - 1) * 2),
        states: numbers("states", 1, frames * 2),
    }
}

fn candidates(count: usize, horizon: usize) -> Candidates {
    Candidates {
        data: numbers("candidates", 0, count * horizon * 2),
        count,
        horizon,
        action: 2,
    }
}

fn rolled(world: &WorldModel, context: &Context, all: &Candidates) -> Vec<Vec<f32>> {
    let steps = world.rollout(context, all, None).unwrap();
    let read = |step| block_on(read_values(step)).unwrap();
    steps.into_iter().map(read).collect()
}

#[test]
fn a_plan_costs_the_mean_distance_of_its_last_frame() {
    let world = world();
    let (context, all) = (context(1), candidates(3, 2));
    let goal = numbers("goal", 0, PATCHES * WIDTH);
    let upload = Goal::from(Tensor::<1>::from_floats(goal.as_slice(), &device()));
    let costs = block_on(world.costs(&context, &upload, &all)).unwrap();
    let last = rolled(&world, &context, &all).pop().unwrap();
    for (cost, end) in costs.iter().zip(last.chunks_exact(PATCHES * WIDTH)) {
        let apart = end.iter().zip(&goal).map(|(a, b)| f64::from((a - b).abs()));
        let mean = apart.sum::<f64>() / goal.len() as f64;
        assert!((f64::from(*cost) - mean).abs() < 1e-6, "{cost} for {mean}");
    }
    assert!(costs[0] != costs[1]);
    let all_steps = Goal {
        cost: Cost::Sum,
        ..upload.clone()
    };
    let sums = block_on(world.costs(&context, &all_steps, &all)).unwrap();
    let steps = rolled(&world, &context, &all);
    for (i, sum) in sums.iter().enumerate() {
        let away = |step: &Vec<f32>| {
            let end = &step[i * PATCHES * WIDTH..(i + 1) * PATCHES * WIDTH];
            let apart = end.iter().zip(&goal).map(|(a, b)| f64::from((a - b).abs()));
            apart.sum::<f64>() / goal.len() as f64
        };
        let wanted: f64 = steps.iter().map(away).sum();
        assert!(
            (f64::from(*sum) - wanted).abs() < 1e-6,
            "{sum} for {wanted}"
        );
    }
    let parts: Vec<f32> = all
        .chunks(2)
        .flat_map(|part| block_on(world.costs(&context, &upload, &part)).unwrap())
        .collect();
    assert!(far(&parts, &costs) < 1e-6);
}

/// A model of actions and states of so many numbers, which makes much of them. Of seven they are poses and their changes.
fn told_much(size: usize) -> WorldModel {
    let sizes = format!(r#""actionSize": {size}, "stateSize": {size}"#);
    let config = CONFIG.replace(r#""actionSize": 3, "stateSize": 2"#, &sizes);
    let config = ModelConfig::from_json(&config).unwrap();
    let mut parameters = network(&config, false).fixed(&device(), Precision::F32);
    let encoder = Encoder::new(&config, Precision::F32, &device(), &mut parameters).unwrap();
    let scale = |name: &str| match name {
        "action_encoder.weight" | "state_encoder.weight" => 2.0,
        _ => 0.3,
    };
    let mut rest = scaled(&config, true, scale).fixed(&device(), Precision::F32);
    WorldModel::of(encoder, &device(), &mut rest).unwrap()
}

#[test]
fn slopes_are_the_finite_differences() {
    let goal = numbers("goal", 0, PATCHES * WIDTH);
    let goal = Goal::from(Tensor::<1>::from_floats(goal.as_slice(), &device()));
    let sum = Goal {
        cost: Cost::Sum,
        ..goal.clone()
    };
    for (size, frames, goal) in [(2, 2, &goal), (7, 1, &goal), (7, 2, &sum)] {
        let world = told_much(size);
        let context = Context {
            actions: numbers("past", 0, (frames - 1) * size),
            states: numbers("states", 1, frames * size)
                .iter()
                .map(|v| 0.4 + 0.1 * v)
                .collect(),
            ..context(frames)
        };
        let horizon = 3;
        let all = Candidates {
            data: numbers("candidates", 0, 2 * horizon * size)
                .iter()
                .map(|v| 0.1 * v)
                .collect(),
            count: 2,
            horizon,
            action: size,
        };
        let slopes = block_on(world.slopes(&context, goal, &all)).unwrap();
        let costs = |all: &Candidates| block_on(world.costs(&context, goal, all)).unwrap();
        assert!(far(&slopes.costs, &costs(&all)) < 1e-6);
        let each = horizon * size;
        assert_eq!(slopes.gradients.len(), 2 * each);
        const STEP: f32 = 1.0 / 256.0;
        let (mut steepest, mut worst) = (0f32, 0f32);
        for number in 0..each {
            let moved = |by: f32| {
                let mut moved = all.clone();
                moved.data[number] += by;
                moved.data[each + number] += by;
                costs(&moved)
            };
            let (up, down) = (moved(STEP), moved(-STEP));
            for i in 0..2 {
                let measured = (up[i] - down[i]) / (2.0 * STEP);
                let said = slopes.gradients[i * each + number];
                steepest = steepest.max(said.abs());
                worst = worst.max((measured - said).abs());
            }
        }
        // The kinks of |x|, and the rounding of costs near 1.
        assert!(worst < 0.02 * steepest, "{worst} of {steepest}");
    }
}

#[test]
fn states_follow_from_actions_unless_they_are_given() {
    let world = world();
    let (context, all) = (context(2), candidates(2, 3));
    let rest = rolled(&world, &context, &all);
    let mut states = Vec::new();
    for sequence in all.data.chunks_exact(6) {
        let mut state = context.states[2..].to_vec();
        for action in sequence.chunks_exact(2) {
            states.extend_from_slice(&state);
            state = vec![state[0] + action[0], state[1] + action[1]];
        }
    }
    let known = Context {
        states: context.states[..2].to_vec(),
        ..context.clone()
    };
    let told = |states: &[f32]| {
        let steps = world.rollout(&known, &all, Some(states)).unwrap();
        block_on(read_values(steps.into_iter().next_back().unwrap())).unwrap()
    };
    assert!(far(&told(&states), &rest[2]) < 1e-6);
    states[3] += 0.5;
    assert!(far(&told(&states), &rest[2]) > 1e-4);
}

#[test]
fn what_was_long_ago_is_forgotten() {
    // Clips of four frames have two time steps, so that a prediction is made from two frames.
    let world = world();
    let (long, all) = (context(3), candidates(1, 2));
    let latest = |values: &[f32], from: usize| values[from..].to_vec();
    let embeddings = block_on(read_values(long.embeddings.clone())).unwrap();
    let embeddings = latest(&embeddings, PATCHES * WIDTH);
    let short = Context {
        embeddings: ops::reshaped(tokens(&embeddings, 1, 2 * PATCHES), [2 * PATCHES, WIDTH]),
        actions: latest(&long.actions, 2),
        states: latest(&long.states, 2),
    };
    let (long, short) = (rolled(&world, &long, &all), rolled(&world, &short, &all));
    assert!(far(&long.concat(), &short.concat()) < 1e-6);
}

#[test]
fn the_planner_is_the_published_one() {
    let config = CONFIG.replace(r#""actionSize": 3, "stateSize": 2"#, "");
    let config = ModelConfig::from_json(&config).unwrap();
    let mut parameters = network(&config, false).fixed(&device(), Precision::F32);
    let encoder = Encoder::new(&config, Precision::F32, &device(), &mut parameters).unwrap();
    let mut rest = network(&config, true).fixed(&device(), Precision::F32);
    let published = WorldModel::of(encoder, &device(), &mut rest).unwrap();
    assert_eq!(published.planner(), Cem::vjepa2_ac());
    let other = world().planner();
    assert_eq!((other.samples, other.space.axes.len()), (400, 2));
    // 4096 tokens are 256 sequences of two frames of eight tokens each.
    assert_eq!(world().at_once(&context(1), 2), 256);
    // A prediction is made from two frames at most.
    assert_eq!(world().at_once(&context(2), 5), 256);
}

#[test]
fn contexts_that_do_not_fit_are_refused() {
    let world = world();
    let goal = Goal::from(Tensor::<1>::zeros([PATCHES * WIDTH], &device()));
    let code = |context: &Context, goal: &Goal, all: &Candidates| {
        let costs = block_on(world.costs(context, goal, all));
        costs.map(|_| ()).map_err(|e| e.code())
    };
    let (fine, all) = (context(2), candidates(2, 1));
    assert_eq!(code(&fine, &goal, &all), Ok(()));
    let wrong = |change: fn(&mut Context)| {
        let mut wrong = fine.clone();
        change(&mut wrong);
        wrong
    };
    for wrong in [
        wrong(|c| c.states.clear()),
        wrong(|c| c.states.truncate(2)),
        wrong(|c| c.actions.clear()),
        wrong(|c| c.embeddings = Tensor::zeros([PATCHES + 1, WIDTH], &device())),
        wrong(|c| c.embeddings = Tensor::zeros([2 * PATCHES, WIDTH + 1], &device())),
    ] {
        assert_eq!(code(&wrong, &goal, &all), Err("bad-input"));
    }
    let few = Goal::from(Tensor::<1>::zeros([WIDTH], &device()));
    assert_eq!(code(&fine, &few, &all), Err("bad-input"));
    let mut wide = all.clone();
    wide.action = 3;
    assert_eq!(code(&fine, &goal, &wide), Err("bad-input"));
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
