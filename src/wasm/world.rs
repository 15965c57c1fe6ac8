//! World models: pictures to embeddings, actions to what they lead to, a goal to a plan.

use std::cell::RefCell;
use std::rc::Rc;

use burn::tensor::TensorData;
use js_sys::{Float32Array, Function, Object, Promise, Reflect};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::model::{Batch, Complete, device};
use super::{from_js, to_js};
use crate::config::{LeWmConfig, ModelConfig};
use crate::device::{Backend, read_values};
use crate::input::Processor;
use crate::model::LeWm;
use crate::model::lewm::{Context, Goal};
use crate::nn::ops;
use crate::rng::Stream;
use crate::train::trainer::Trainer;
use crate::world::{Axis, Candidates, Cem, Cost, Descent, Mppi, Space};
use crate::{Error, Result};

/// Sequences that descend along their gradients, unless told otherwise: more find better minima, at a pass forth and back each.
const STARTS: usize = 16;

/// A LeWorldModel with everything that it has.
#[wasm_bindgen]
pub struct World {
    model: Rc<LeWm>,
    processor: Processor,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorldInfo<'a> {
    config: &'a ModelConfig,
    backend: &'static str,
    dtype: &'static str,
    hidden_size: usize,
    action_size: usize,
    history: usize,
    parameters: u64,
    weight_bytes: usize,
}

/// See `GluePlanOptions` in `www/src/glue.ts`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlanOptions {
    planner: String,
    seed: u64,
    horizon: Option<usize>,
    samples: Option<usize>,
    iterations: Option<usize>,
    elites: Option<usize>,
    momentum: Option<[f64; 2]>,
    temperature: Option<f64>,
    rate: Option<f64>,
    scale: Option<f64>,
    limit: Option<f64>,
    #[serde(default)]
    cost: Cost,
    start: Option<Vec<f64>>,
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
        let model = LeWm::new(&config, precision, &device()?, &mut parameters)?;
        Ok(Self {
            model: Rc::new(model),
            processor,
        })
    }

    /// The model of a run as it is now.
    pub(super) fn of_run(run: &Trainer, processor: Processor) -> Result<Self> {
        let model = run.world_model()?;
        Ok(Self {
            model: Rc::new(model),
            processor,
        })
    }
}

fn sizes(model: &LeWm) -> Result<&LeWmConfig> {
    let config = model.encoder().config().lewm.as_ref();
    config.ok_or_else(|| Error::Internal("a world model without its sizes".into()))
}

/// `[frames, d]` embeddings and the actions between them.
fn context(model: &LeWm, embeddings: Vec<f32>, past: Vec<f32>) -> Result<Context> {
    let d = model.encoder().config().hidden_size;
    if embeddings.is_empty() || !embeddings.len().is_multiple_of(d) {
        return Err(Error::BadInput(format!(
            "{} numbers are no embeddings of {d} each",
            embeddings.len()
        )));
    }
    let data = TensorData::new(embeddings.clone(), [embeddings.len() / d, d]);
    Ok(Context {
        embeddings: ops::uploaded(data, &device()?),
        actions: past,
    })
}

fn floats(object: &Object, name: &str, values: &[f32]) -> Result<(), JsValue> {
    Reflect::set(object, &name.into(), &Float32Array::from(values))?;
    Ok(())
}

#[wasm_bindgen]
impl World {
    /// See `GlueWorldInfo` in `www/src/glue.ts`.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        let encoder = self.model.encoder();
        let (config, sizes) = (encoder.config(), sizes(&self.model)?);
        Ok(to_js(&WorldInfo {
            config,
            backend: Backend::BUILT.name(),
            dtype: encoder.precision().name(),
            hidden_size: config.hidden_size,
            action_size: sizes.action_size,
            history: sizes.history,
            parameters: config.parameter_count() + config.predictor_parameter_count(),
            weight_bytes: encoder.weight_bytes(),
        })?)
    }

    /// An empty batch of pictures, or of the encoder's very input.
    #[wasm_bindgen(js_name = newBatch)]
    pub fn new_batch(&self, preprocess: bool) -> Result<Batch, JsValue> {
        let config = self.model.encoder().config();
        match preprocess {
            true => Ok(Batch::new(self.processor.clone(), config, None, 1)),
            false => Ok(Batch::prepared(config, None, 1)?),
        }
    }

    /// The embeddings of a batch, `[pictures, d]`.
    pub async fn encode(&self, batch: Batch) -> Result<Vec<f32>, JsValue> {
        let model = Rc::clone(&self.model);
        let embeddings = model.encode(&batch.into_pictures()?)?;
        Ok(read_values(embeddings).await?)
    }

    /// Where `count` sequences of `horizon` actions lead from the last embeddings: `[count, horizon, d]`.
    pub async fn rollout(
        &self,
        embeddings: Vec<f32>,
        past: Vec<f32>,
        actions: Vec<f32>,
        count: usize,
        horizon: usize,
    ) -> Result<Vec<f32>, JsValue> {
        let model = Rc::clone(&self.model);
        let action = sizes(&model)?.action_size;
        let candidates = Candidates {
            data: actions,
            count,
            horizon,
            action,
        };
        let context = context(&model, embeddings, past)?;
        let steps = model.dynamics().rollout(&context, &candidates)?;
        let d = model.encoder().config().hidden_size;
        let mut data = vec![0.0; count * horizon * d];
        for (step, embeddings) in steps.into_iter().enumerate() {
            let values = read_values(embeddings).await?;
            for (sequence, value) in values.chunks_exact(d).enumerate() {
                let at = (sequence * horizon + step) * d;
                data[at..at + d].copy_from_slice(value);
            }
        }
        Ok(data)
    }

    /// Actions that end near the embedding `goal`. `{ actions, costs }`. Before each round waits for the promise of `turn`, and fails with
    /// what that rejects with.
    pub async fn plan(
        &self,
        embeddings: Vec<f32>,
        past: Vec<f32>,
        goal: Vec<f32>,
        options: JsValue,
        turn: Function,
    ) -> Result<JsValue, JsValue> {
        let model = Rc::clone(&self.model);
        let options: PlanOptions = from_js(options)?;
        let published = Cem::lewm(sizes(&model)?.action_size);
        let axis = Axis {
            scale: options.scale.unwrap_or(1.0),
            limit: options.limit,
            ..Axis::free(1.0)
        };
        let space = Space {
            horizon: options.horizon.unwrap_or(published.space.horizon),
            axes: vec![axis; published.space.axes.len()],
        };
        let samples = options.samples.unwrap_or(published.samples);
        let iterations = options.iterations.unwrap_or(published.iterations);
        let context = context(&model, embeddings, past)?;
        let length = goal.len();
        let goal = TensorData::new(goal, [length]);
        let goal = Goal {
            embedding: ops::uploaded(goal, &device()?),
            cost: options.cost,
        };
        let interrupted = RefCell::new(None);
        let turn = async || {
            let given = match turn.call0(&JsValue::NULL) {
                Ok(promise) => JsFuture::from(Promise::resolve(&promise)).await,
                Err(thrown) => Err(thrown),
            };
            given.map(drop).map_err(|thrown| {
                *interrupted.borrow_mut() = Some(thrown);
                Error::Internal("the plan was interrupted".into())
            })
        };
        let cost = async |candidates: &Candidates| {
            turn().await?;
            model.dynamics().costs(&context, &goal, candidates).await
        };
        let mut random = Stream::new(options.seed, "plan", 0);
        let start = options.start.as_deref();
        let plan = match options.planner.as_str() {
            "cem" => {
                let cem = Cem {
                    space,
                    samples,
                    iterations,
                    elites: options.elites.unwrap_or(published.elites),
                    momentum: options.momentum.unwrap_or(published.momentum),
                    ..published
                };
                cem.plan(start, &mut random, cost).await
            }
            "mppi" => {
                let mppi = Mppi {
                    space,
                    samples,
                    iterations,
                    temperature: options.temperature.unwrap_or(1.0),
                };
                mppi.plan(start, &mut random, cost).await
            }
            "gradient" => {
                let width = model.encoder().config().hidden_size as f64;
                let descent = Descent {
                    space,
                    starts: options.samples.unwrap_or(STARTS),
                    iterations,
                    rate: options.rate.unwrap_or(width.recip()),
                };
                let slopes = async |candidates: &Candidates| {
                    turn().await?;
                    model.dynamics().slopes(&context, &goal, candidates).await
                };
                descent.plan(start, &mut random, slopes).await
            }
            other => {
                return Err(Error::BadInput(format!(
                    "the planner {other:?} is unknown; use \"cem\", \"mppi\" or \"gradient\""
                ))
                .into());
            }
        };
        let plan =
            plan.map_err(|error| interrupted.take().unwrap_or_else(|| JsValue::from(error)))?;
        let result = Object::new();
        let actions: Vec<f32> = plan.actions.iter().map(|&v| v as f32).collect();
        floats(&result, "actions", &actions)?;
        Reflect::set(&result, &"costs".into(), &to_js(&plan.costs)?)?;
        Ok(result.into())
    }
}
