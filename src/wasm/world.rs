//! World models: pictures to embeddings, actions to what they lead to, a goal to a plan.

use std::cell::RefCell;
use std::rc::Rc;

use burn::tensor::TensorData;
use js_sys::{Float32Array, Function, Object, Promise, Reflect};
use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::model::{Batch, Complete, device};
use super::{from_js, to_js};
use crate::config::ModelConfig;
use crate::device::{Backend, read_values};
use crate::input::Processor;
use crate::model::world::{Context, Goal, Sizes, WorldModel};
use crate::nn::ops;
use crate::rng::Stream;
use crate::train::trainer::Trainer;
use crate::world::{Candidates, PlanOptions};
use crate::{Error, Result};

/// A world model with everything that it has.
#[wasm_bindgen]
pub struct World {
    model: Rc<WorldModel>,
    sizes: Sizes,
    processor: Processor,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorldInfo<'a> {
    config: &'a ModelConfig,
    backend: &'static str,
    dtype: &'static str,
    /// Of a frame's embeddings.
    shape: &'a [usize],
    action_size: usize,
    state_size: usize,
    history: usize,
    parameters: u64,
    weight_bytes: usize,
}

impl World {
    pub(super) fn new(loaded: Complete) -> Result<Self> {
        let Complete {
            config,
            precision,
            mut parameters,
            processor,
            ..
        } = loaded;
        let model = WorldModel::new(&config, precision, &device()?, &mut parameters)?;
        Self::of(model, processor)
    }

    /// The model of a run as it is now.
    pub(super) fn of_run(run: &Trainer, processor: Processor) -> Result<Self> {
        Self::of(run.world_model()?, processor)
    }

    fn of(model: WorldModel, processor: Processor) -> Result<Self> {
        Ok(Self {
            sizes: Sizes::of(model.encoder().config())?,
            model: Rc::new(model),
            processor,
        })
    }

    /// What is known of the last frames: `[frames·embeddings, d]`, and the actions between and the states in them.
    fn context(
        &self,
        embeddings: Vec<f32>,
        actions: Vec<f32>,
        states: Vec<f32>,
    ) -> Result<Context> {
        let (frame, d) = (self.sizes.frame(), self.sizes.hidden);
        if embeddings.is_empty() || !embeddings.len().is_multiple_of(frame) {
            return Err(Error::BadInput(format!(
                "{} numbers are no embeddings of {frame} each, as a frame has",
                embeddings.len()
            )));
        }
        let rows = embeddings.len() / d;
        Ok(Context {
            embeddings: ops::uploaded(TensorData::new(embeddings, [rows, d]), &device()?),
            actions,
            states,
        })
    }
}

fn floats(object: &Object, name: &str, values: &[f32]) -> Result<(), JsValue> {
    Reflect::set(object, &name.into(), &Float32Array::from(values))?;
    Ok(())
}

/// # Errors
/// What `turn` throws, or its promise rejects with.
async fn waited(turn: &Function) -> Result<(), JsValue> {
    let promise = turn.call0(&JsValue::NULL)?;
    JsFuture::from(Promise::resolve(&promise)).await.map(drop)
}

#[wasm_bindgen]
impl World {
    /// See `GlueWorldInfo` in `www/src/glue.ts`.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        let encoder = self.model.encoder();
        let (config, sizes) = (encoder.config(), self.sizes);
        let shape: Vec<usize> = sizes.tokens.into_iter().chain([sizes.hidden]).collect();
        Ok(to_js(&WorldInfo {
            config,
            backend: Backend::BUILT.name(),
            dtype: encoder.precision().name(),
            shape: &shape,
            action_size: sizes.action,
            state_size: sizes.state,
            history: sizes.history,
            parameters: config.parameter_count() + config.predictor_parameter_count(),
            weight_bytes: encoder.weight_bytes(),
        })?)
    }

    /// An empty batch of pictures, or of the encoder's very input.
    #[wasm_bindgen(js_name = newBatch)]
    pub fn new_batch(&self, preprocess: bool) -> Result<Batch, JsValue> {
        let config = self.model.encoder().config();
        // A frame of V-JEPA 2-AC has as many embeddings as the native picture has patches.
        let size = self.sizes.tokens.map(|_| config.image_size);
        match preprocess {
            true => Ok(Batch::new(self.processor.clone(), config, size, 1)),
            false => Ok(Batch::prepared(config, size, 1)?),
        }
    }

    /// The embeddings of a batch, `[pictures, ..shape]`.
    pub async fn encode(&self, batch: Batch) -> Result<Vec<f32>, JsValue> {
        let model = Rc::clone(&self.model);
        let embeddings = model.encode(&batch.into_pictures()?)?;
        Ok(read_values(embeddings).await?)
    }

    /// Where `count` sequences of `horizon` actions lead from the last embeddings: `[count, horizon, ..shape]`. `told`: the states before
    /// these actions, `[count, horizon, state]`. Waits for `turn` as [`plan`](Self::plan) does.
    #[allow(
        clippy::too_many_arguments,
        reason = "arrays of numbers come one by one from JavaScript"
    )]
    pub async fn rollout(
        &self,
        embeddings: Vec<f32>,
        past: Vec<f32>,
        states: Vec<f32>,
        actions: Vec<f32>,
        told: Option<Vec<f32>>,
        count: usize,
        horizon: usize,
        turn: Function,
    ) -> Result<Vec<f32>, JsValue> {
        let model = Rc::clone(&self.model);
        let candidates = Candidates {
            data: actions,
            count,
            horizon,
            action: self.sizes.action,
        };
        candidates.check(self.sizes.action)?;
        let of_states = horizon * self.sizes.state;
        if let Some(told) = &told
            && told.len() != count * of_states
        {
            return Err(Error::BadInput(format!(
                "{} numbers are not the states, of {} each, before {horizon} actions of {count} sequences",
                told.len(),
                self.sizes.state
            ))
            .into());
        }
        let context = self.context(embeddings, past, states)?;
        let frame = self.sizes.frame();
        let mut data = vec![0.0; count * horizon * frame];
        let mut first = 0;
        for part in candidates.chunks(model.at_once(&context, horizon)) {
            waited(&turn).await?;
            let end = first + part.count;
            let told = told
                .as_deref()
                .map(|told| &told[first * of_states..end * of_states]);
            let steps = model.rollout(&context, &part, told)?;
            for (step, embeddings) in steps.into_iter().enumerate() {
                let values = read_values(embeddings).await?;
                for (sequence, value) in values.chunks_exact(frame).enumerate() {
                    let at = ((first + sequence) * horizon + step) * frame;
                    data[at..at + frame].copy_from_slice(value);
                }
            }
            first = end;
        }
        Ok(data)
    }

    /// Actions that end near `goal`, the embeddings of a frame. `{ actions, costs }`. Before each round, and where that is made of several
    /// passes before each, waits for the promise of `turn`, and fails with what that rejects with. `told` is called after each round with its
    /// sequences, `[samples, horizon, action]`, and their costs. `options`: see `GluePlanOptions` in `www/src/glue.ts`.
    #[allow(
        clippy::too_many_arguments,
        reason = "arrays and functions are passed as such, not inside an object"
    )]
    pub async fn plan(
        &self,
        embeddings: Vec<f32>,
        past: Vec<f32>,
        states: Vec<f32>,
        goal: Vec<f32>,
        options: JsValue,
        turn: Function,
        told: Option<Function>,
    ) -> Result<JsValue, JsValue> {
        let model = Rc::clone(&self.model);
        let options: PlanOptions = from_js(options)?;
        let planner = options.planner(model.planner(), model.rate())?;
        let context = self.context(embeddings, past, states)?;
        let length = goal.len();
        let goal = TensorData::new(goal, [length]);
        let goal = Goal {
            embedding: ops::uploaded(goal, &device()?),
            cost: options.cost,
        };
        let interrupted = RefCell::new(None);
        let turn = async || {
            waited(&turn).await.map_err(|thrown| {
                *interrupted.borrow_mut() = Some(thrown);
                Error::Internal("the plan was interrupted".into())
            })
        };
        let report = |candidates: &Candidates, costs: &[f32]| match &told {
            None => Ok(()),
            Some(told) => told
                .call2(
                    &JsValue::NULL,
                    &Float32Array::from(&candidates.data[..]),
                    &Float32Array::from(costs),
                )
                .map(drop)
                .map_err(|thrown| {
                    *interrupted.borrow_mut() = Some(thrown);
                    Error::Internal("the listener of the plan failed".into())
                }),
        };
        let cost = async |candidates: &Candidates| {
            let costed = model.costed(&context, &goal, candidates, planner.descends(), &turn);
            let slopes = costed.await?;
            report(candidates, &slopes.costs)?;
            Ok(slopes)
        };
        let mut random = Stream::new(options.seed, "plan", 0);
        let plan = planner
            .plan(options.start.as_deref(), &mut random, cost)
            .await;
        let plan =
            plan.map_err(|error| interrupted.take().unwrap_or_else(|| JsValue::from(error)))?;
        let result = Object::new();
        let actions: Vec<f32> = plan.actions.iter().map(|&v| v as f32).collect();
        floats(&result, "actions", &actions)?;
        Reflect::set(&result, &"costs".into(), &to_js(&plan.costs)?)?;
        Ok(result.into())
    }
}
