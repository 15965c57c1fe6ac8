//! LeWorldModel on the CPU, against numbers of an implementation in PyTorch on the ViT of transformers: see `data/README.md`.
#![cfg(feature = "cli")]

use std::io::Cursor;

use burn::tensor::{Device, Tensor};
use pollster::block_on;
use serde_json::Value;
use webjepa::Error;
use webjepa::checkpoint::{File, Header, Plan, Selection, assemble};
use webjepa::config::ModelConfig;
use webjepa::device::{Precision, read_values};
use webjepa::model::lewm::Dynamics;
use webjepa::model::{Context, Goal};
use webjepa::model::{LeWm, Pictures};
use webjepa::nn::Parameters;
use webjepa::rng::Stream;
use webjepa::world::{Axis, Candidates, Cem, Cost, Descent, Space};

const CONFIG: &str = r#"{"system":"lewm","imageSize":12,"patchSize":4,"hiddenSize":12,"layers":2,"heads":3,
    "lewm":{"actionSize":3,"actionChannels":5,"projectorHidden":14,"layers":2,"heads":3,"headDim":6,"mlpHidden":20}}"#;
/// The noise of f32 in embeddings that reach 3.
const TOLERANCE: f32 = 2e-5;

fn device() -> Device {
    Device::flex()
}

fn data(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn parameters(precision: Precision) -> (ModelConfig, Parameters) {
    let config = ModelConfig::from_json(CONFIG).unwrap();
    let bytes = data("lewm.safetensors");
    let file = File {
        name: "lewm.safetensors".into(),
        header: Header::of(&bytes).unwrap(),
    };
    let selection = Selection {
        predictor: true,
        ..Selection::default()
    };
    let plan = Plan::new(&[file], &config, selection).unwrap();
    assert!(plan.has_predictor());
    let mut parameters = Parameters::new(device(), precision);
    assemble(plan, &mut [Cursor::new(&bytes)], |piece| {
        parameters.put(piece)
    })
    .unwrap();
    (config, parameters)
}

fn model(precision: Precision) -> LeWm {
    let (config, mut parameters) = parameters(precision);
    LeWm::new(&config, precision, &device(), &mut parameters).unwrap()
}

struct Expected(Value);

impl Expected {
    fn read() -> Self {
        Self(serde_json::from_slice(&data("lewm.json")).unwrap())
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let values = self.0[name]["data"].as_array().unwrap().iter();
        values.map(|v| v.as_f64().unwrap() as f32).collect()
    }

    fn size(&self, name: &str, axis: usize) -> usize {
        self.0[name]["shape"][axis].as_u64().unwrap() as usize
    }

    fn pictures(&self, name: &str) -> Pictures {
        Pictures {
            pixels: self.values(name),
            batch: self.size(name, 0),
            frames: 1,
            size: [self.size(name, 2), self.size(name, 3)],
        }
    }

    fn candidates(&self) -> Candidates {
        Candidates {
            data: self.values("candidates"),
            count: self.size("candidates", 0),
            horizon: self.size("candidates", 1),
            action: self.size("candidates", 2),
        }
    }

    /// The first frames and the actions between them, and the last frame as a goal.
    fn start(&self, frames: usize) -> (Context, Goal) {
        let (all, d) = (self.values("embeddings"), self.size("embeddings", 1));
        let action = self.size("past", 1);
        let rows = Tensor::<1>::from_floats(&all[..frames * d], &device());
        let context = Context {
            embeddings: rows.reshape([frames, d]),
            actions: self.values("past")[..(frames - 1) * action].to_vec(),
            states: Vec::new(),
        };
        let goal = Tensor::<1>::from_floats(&all[all.len() - d..], &device());
        (context, goal.into())
    }
}

fn read<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    block_on(read_values(x)).unwrap()
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance, "{g} for {e} at {i}");
    }
}

#[test]
fn pictures_become_the_published_embeddings() {
    let (model, expected) = (model(Precision::F32), Expected::read());
    let frames = expected.pictures("frames");
    let tokens = model.encoder().class_token(&frames).unwrap();
    assert_close(&read(tokens), &expected.values("class_tokens"), TOLERANCE);
    // Another size, for which positions are interpolated.
    let larger = expected.pictures("larger");
    let tokens = model.encoder().class_token(&larger).unwrap();
    assert_close(
        &read(tokens),
        &expected.values("class_tokens_larger"),
        TOLERANCE,
    );
    let embeddings = model.encode(&frames).unwrap();
    assert_close(&read(embeddings), &expected.values("embeddings"), TOLERANCE);
    // Patches keep to the grid: the class token is not one of them.
    let patches = model.encoder().forward(&larger, None, 1).unwrap().remove(0);
    assert_eq!(patches.dims(), [2, 10, 12]);
    // Of all patches in order the encoder makes what it makes of the whole.
    for pictures in [&frames, &larger] {
        let whole = model
            .encoder()
            .forward(pictures, None, 1)
            .unwrap()
            .remove(0);
        let every = vec![(0..whole.dims()[1]).collect(); pictures.batch];
        let same = model.encoder().forward(pictures, Some(&every), 1).unwrap();
        assert_eq!(read(same[0].clone()), read(whole));
    }
}

#[test]
fn rollouts_and_costs_are_the_published_ones() {
    let (model, expected) = (model(Precision::F32), Expected::read());
    let candidates = expected.candidates();
    for frames in [1, 3] {
        let (context, goal) = expected.start(frames);
        let steps = model.dynamics().rollout(&context, &candidates).unwrap();
        assert_eq!(steps.len(), candidates.horizon);
        let wanted = expected.values(&format!("rollout_{frames}"));
        let d = expected.size("embeddings", 1);
        for (step, got) in steps.into_iter().enumerate() {
            let of_step = |sequence: &[f32]| sequence[step * d..(step + 1) * d].to_vec();
            let sequences = wanted.chunks_exact(candidates.horizon * d);
            let wanted: Vec<f32> = sequences.flat_map(of_step).collect();
            assert_close(&read(got), &wanted, TOLERANCE);
        }
        let costs = block_on(model.dynamics().costs(&context, &goal, &candidates)).unwrap();
        let wanted = expected.values(&format!("costs_{frames}"));
        assert_close(&costs, &wanted, 10.0 * TOLERANCE);
        // The sum over all steps, of the published rollout.
        let all = Goal {
            cost: Cost::Sum,
            ..goal.clone()
        };
        let costs = block_on(model.dynamics().costs(&context, &all, &candidates)).unwrap();
        let goal = read(goal.embedding);
        let rollout = expected.values(&format!("rollout_{frames}"));
        let squares = rollout
            .iter()
            .zip(goal.iter().cycle())
            .map(|(a, b)| (a - b).powi(2));
        let squares: Vec<f32> = squares.collect();
        let wanted = squares.chunks_exact(candidates.horizon * d);
        let wanted: Vec<f32> = wanted.map(|all| all.iter().sum()).collect();
        assert_close(&costs, &wanted, 10.0 * TOLERANCE);
    }
}

#[test]
fn half_and_quantized_weights_stay_near() {
    let expected = Expected::read();
    let (context, goal) = expected.start(3);
    let candidates = expected.candidates();
    for (precision, tolerance) in [(Precision::F16, 2e-2), (Precision::Q8, 0.5)] {
        let model = model(precision);
        let costs = model.dynamics().costs(&context, &goal, &candidates);
        assert_close(
            &block_on(costs).unwrap(),
            &expected.values("costs_3"),
            tolerance,
        );
    }
}

#[test]
fn slopes_are_the_finite_differences() {
    let (model, expected) = (model(Precision::F32), Expected::read());
    let (context, goal) = expected.start(3);
    let candidates = expected.candidates();
    let slopes = block_on(model.dynamics().slopes(&context, &goal, &candidates)).unwrap();
    assert_close(&slopes.costs, &expected.values("costs_3"), 10.0 * TOLERANCE);
    assert_eq!(slopes.gradients.len(), candidates.data.len());
    let numbers = candidates.horizon * candidates.action;
    const STEP: f32 = 1.0 / 64.0;
    for number in 0..numbers {
        let moved = |by: f32| {
            let mut moved = candidates.clone();
            moved
                .data
                .iter_mut()
                .skip(number)
                .step_by(numbers)
                .for_each(|v| *v += by);
            block_on(model.dynamics().costs(&context, &goal, &moved)).unwrap()
        };
        let (up, down) = (moved(STEP), moved(-STEP));
        for (candidate, (up, down)) in up.iter().zip(down).enumerate() {
            let measured = (up - down) / (2.0 * STEP);
            let said = slopes.gradients[candidate * numbers + number];
            // The third derivative, and the rounding of costs near 10.
            assert!((measured - said).abs() < 5e-3, "{measured} for {said}");
        }
    }
}

#[test]
fn what_comes_later_changes_nothing_before() {
    let (config, mut parameters) = parameters(Precision::F32);
    let dynamics = Dynamics::take(&config, &device(), &mut parameters).unwrap();
    let d = config.hidden_size;
    let sequence = |last: f32| {
        let value = |i: usize| if i < 2 * d { (i as f32).sin() } else { last };
        let values: Vec<f32> = (0..3 * d).map(value).collect();
        Tensor::<1>::from_floats(&values[..], &device()).reshape([1, 3, d])
    };
    let predict = |last| read(dynamics.predict(sequence(last), sequence(-last)).unwrap());
    let (one, other) = (predict(0.5), predict(-1.5));
    assert_eq!(one[..2 * d], other[..2 * d]);
    assert_ne!(one[2 * d..], other[2 * d..]);
}

#[test]
fn planners_reach_what_actions_lead_to() {
    let (model, expected) = (model(Precision::F32), Expected::read());
    let (context, _) = expected.start(1);
    let dynamics = model.dynamics();
    let space = Space::new(2, vec![Axis::limited(1.0, 2.0); 3]);
    let one = |data: Vec<f32>| Candidates {
        data,
        count: 1,
        horizon: 2,
        action: 3,
    };
    let steps = dynamics.rollout(&context, &one(vec![0.5, -1.0, 1.5, -0.5, 1.0, 0.25]));
    let goal = Goal::from(steps.unwrap().remove(1).reshape([12]));
    let idle = block_on(dynamics.costs(&context, &goal, &one(vec![0.0; 6]))).unwrap()[0];
    let cem = Cem {
        space: space.clone(),
        samples: 100,
        elites: 10,
        iterations: 15,
        ..Cem::lewm(3)
    };
    let mut random = Stream::new(1, "plan", 0);
    let cost = async |c: &Candidates| dynamics.costs(&context, &goal, c).await;
    let sampled = block_on(cem.plan(None, &mut random, cost)).unwrap();
    let descent = Descent {
        space,
        starts: 8,
        iterations: 100,
        rate: 0.02,
    };
    let slopes = async |c: &Candidates| dynamics.slopes(&context, &goal, c).await;
    let descended = block_on(descent.plan(None, &mut random, slopes)).unwrap();
    for plan in [sampled, descended] {
        let actions = plan.actions.iter().map(|&v| v as f32).collect();
        let reached = block_on(dynamics.costs(&context, &goal, &one(actions))).unwrap()[0];
        assert!(reached < 0.1 * idle, "{reached} of {idle}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (model, expected) = (model(Precision::F32), Expected::read());
    let dynamics = model.dynamics();
    let candidates = expected.candidates();
    let (context, goal) = expected.start(3);
    let code = |context: &Context, goal: &Goal, candidates: &Candidates| {
        let costs = block_on(dynamics.costs(context, goal, candidates));
        costs.map(|_| ()).map_err(|e: Error| e.code())
    };
    assert_eq!(code(&context, &goal, &candidates), Ok(()));
    let with = |change: fn(&mut Candidates)| {
        let mut candidates = candidates.clone();
        change(&mut candidates);
        candidates
    };
    for wrong in [
        with(|c| c.horizon = 0),
        with(|c| c.horizon = 3),
        with(|c| c.action = 4),
        with(|c| (c.count, c.data) = (0, Vec::new())),
        with(|c| (c.count, c.data) = (65_536, vec![0.0; 65_536 * 12])),
    ] {
        assert_eq!(code(&context, &goal, &wrong), Err("bad-input"));
    }
    let short = Context {
        actions: Vec::new(),
        ..context.clone()
    };
    assert_eq!(code(&short, &goal, &candidates), Err("bad-input"));
    let wide = Tensor::<1>::from_floats([0.0; 13], &device()).into();
    assert_eq!(code(&context, &wide, &candidates), Err("bad-input"));
    let four = Tensor::<3>::zeros([1, 4, 12], &device());
    assert!(dynamics.predict(four.clone(), four).is_err());
}

#[test]
fn the_encoder_is_read_without_the_rest() {
    let config = ModelConfig::from_json(CONFIG).unwrap();
    let bytes = data("lewm.safetensors");
    let file = || File {
        name: "lewm.safetensors".into(),
        header: Header::of(&bytes).unwrap(),
    };
    let elements = |plan: Plan| -> u64 {
        let slots = plan.slots().iter();
        let counted = slots.filter(|slot| !slot.name.contains(".running_"));
        counted
            .map(|s| s.shape.iter().product::<usize>() as u64)
            .sum()
    };
    let encoder = Plan::new(&[file()], &config, Selection::default()).unwrap();
    assert_eq!(elements(encoder), config.parameter_count());
    let rest = Plan::predictor(&[file()], &config).unwrap();
    assert_eq!(elements(rest), config.predictor_parameter_count());
    let lacking = ModelConfig::from_json(&CONFIG.replace(
        "\"layers\":2,\"heads\":3,\"headDim\"",
        "\"layers\":3,\"heads\":3,\"headDim\"",
    ));
    let error = Plan::predictor(&[file()], &lacking.unwrap()).unwrap_err();
    assert_eq!(error.code(), "missing-tensor");
    assert!(error.to_string().contains("layers.2"), "{error}");
}
