//! Runs of training, one step at a time.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Array, JSON, Object, Reflect, Uint8Array, Uint32Array};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::model::{Batch, Model, device};
use super::to_js;
use super::world::World;
use crate::config::ModelConfig;
use crate::device::Backend;
use crate::input::{ImageView, Processor};
use crate::mask::Masks;
use crate::train::recipe::{Options, Recipe};
use crate::train::trainer::{self as run, Batch as RunBatch};
use crate::{Error, Result};

/// A run of training.
#[wasm_bindgen]
pub struct Trainer(Rc<RefCell<run::Trainer>>);

/// Views of pictures on their way into a step.
pub(super) struct Views {
    run: Rc<RefCell<run::Trainer>>,
    pub(super) batch: RunBatch,
}

impl Views {
    pub(super) fn push(&mut self, image: &ImageView) -> Result<()> {
        borrowed(&self.run)?.push(&mut self.batch, image)
    }

    pub(super) fn pictures(&self) -> usize {
        self.batch.pictures()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    config: &'a ModelConfig,
    grid: [usize; 3],
    frames: usize,
    backend: &'static str,
    objective: &'static str,
    step: u64,
    batch_size: usize,
    accumulate: usize,
    steps: u64,
    trainable: usize,
    parameters: usize,
}

/// Reads the options of a run; what JavaScript leaves undefined counts as absent.
pub(super) fn options(options: JsValue) -> Result<Options> {
    let text = JSON::stringify(&options)
        .ok()
        .and_then(|text| text.as_string())
        .ok_or_else(|| Error::BadConfig("the options of training are no plain object".into()))?;
    Options::from_json(&text)
}

/// One call at a time: the TypeScript side sees to it.
fn borrowed(run: &RefCell<run::Trainer>) -> Result<std::cell::Ref<'_, run::Trainer>> {
    run.try_borrow().map_err(|_| busy())
}

fn busy() -> Error {
    Error::Internal("the trainer was called while it was busy".into())
}

impl From<run::Trainer> for Trainer {
    fn from(run: run::Trainer) -> Self {
        Self(Rc::new(RefCell::new(run)))
    }
}

/// How pictures are prepared for the models of a run.
fn processor(
    Recipe {
        model,
        normalization,
        ..
    }: &Recipe,
) -> Result<Processor> {
    Processor::published_for(model)?.with_statistics(&normalization.mean, &normalization.std)
}

fn one_view() -> Error {
    Error::BadInput(
        "with preprocess: false a picture is one view, and the objective takes several of each"
            .into(),
    )
}

/// Masks as `lastMasks` gives them.
fn masks_of(masks: &JsValue) -> Result<Masks, JsValue> {
    let list = |indices: JsValue| -> Vec<usize> {
        let indices = Uint32Array::new(&indices).to_vec();
        indices.into_iter().map(|i| i as usize).collect()
    };
    let lists = |lists: JsValue| Array::from(&lists).iter().map(list).collect();
    Ok(Masks {
        context: lists(Reflect::get(masks, &"context".into())?),
        targets: Array::from(&Reflect::get(masks, &"targets".into())?)
            .iter()
            .map(lists)
            .collect(),
    })
}

#[wasm_bindgen]
impl Trainer {
    /// See `Glue.Trainer` in `www/src/glue.ts`.
    pub async fn create(wanted: JsValue) -> Result<Trainer, JsValue> {
        let recipe = options(wanted)?.recipe(None)?;
        Ok(Self::from(run::Trainer::new(recipe, &device()?)?))
    }

    /// See `Glue.Trainer` in `www/src/glue.ts`.
    pub async fn resume(file: Vec<u8>, wanted: JsValue) -> Result<Trainer, JsValue> {
        let resumed = run::Trainer::resume(&file, &device()?)?;
        let text = JSON::stringify(&wanted)?.as_string().unwrap_or_default();
        resumed.recipe().agree(&text)?;
        Ok(Self::from(resumed))
    }

    /// See `GlueTrainerInfo` in `www/src/glue.ts`.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        let run = borrowed(&self.0)?;
        let recipe = run.recipe();
        let [parameters, trainable] = run.parameter_count();
        Ok(to_js(&Info {
            config: &recipe.model,
            grid: recipe.model.grid(),
            frames: recipe.frames(),
            backend: Backend::BUILT.name(),
            objective: recipe.objective.name(),
            step: run.step_count(),
            batch_size: recipe.batch_size,
            accumulate: recipe.accumulate,
            steps: recipe.schedule.steps,
            trainable,
            parameters,
        })?)
    }

    /// Which pictures the next step takes.
    #[wasm_bindgen(js_name = nextIndices)]
    pub fn next_indices(&self, length: usize) -> Result<Vec<u32>, JsValue> {
        let indices = borrowed(&self.0)?.next_indices(length)?;
        Ok(indices.into_iter().map(|i| i as u32).collect())
    }

    /// An empty batch for the next step: of pictures to be augmented, or of the model's very input.
    #[wasm_bindgen(js_name = newBatch)]
    pub fn new_batch(&self, preprocess: bool) -> Result<Batch, JsValue> {
        let trainer = borrowed(&self.0)?;
        if !preprocess {
            let recipe = trainer.recipe();
            let [view] = recipe.views.as_slice() else {
                return Err(one_view().into());
            };
            if view.count != 1 {
                return Err(one_view().into());
            }
            return Ok(Batch::prepared(
                &recipe.model,
                Some(view.augmentation.size),
                recipe.frames(),
            )?);
        }
        let batch = trainer.new_batch();
        let run = Rc::clone(&self.0);
        Ok(Batch::from(Views { run, batch }))
    }

    /// One step, on masks of the caller's (`{ context, targets }`) or, undefined, on drawn ones; of windows, with their actions,
    /// `[windows, frames − 1, action]`, and the states in them, `[windows, frames, state]`. See `GlueTrainStep` in `www/src/glue.ts`.
    #[allow(
        clippy::await_holding_refcell_ref,
        reason = "a second call meanwhile is refused, which is what the borrow is for"
    )]
    pub async fn step(
        &self,
        batch: Batch,
        masks: JsValue,
        actions: Option<Vec<f32>>,
        states: Option<Vec<f32>>,
    ) -> Result<JsValue, JsValue> {
        let run = Rc::clone(&self.0);
        let mut batch = batch.into_step()?;
        batch.act(&actions.unwrap_or_default());
        batch.tell(&states.unwrap_or_default());
        if !masks.is_undefined() {
            borrowed(&run)?.mask(&mut batch, masks_of(&masks)?)?;
        }
        let mut run = run.try_borrow_mut().map_err(|_| busy())?;
        Ok(to_js(&run.step(&batch).await?)?)
    }

    /// The masks of the last step: `{ context, targets }`.
    #[wasm_bindgen(js_name = lastMasks)]
    pub fn last_masks(&self) -> Result<JsValue, JsValue> {
        let run = borrowed(&self.0)?;
        let array = |mask: &Vec<usize>| {
            let indices: Vec<u32> = mask.iter().map(|&i| i as u32).collect();
            Uint32Array::from(indices.as_slice())
        };
        let context = Array::new();
        let targets = Array::new();
        for (part, masks) in run.last_masks().iter().enumerate() {
            for mask in &masks.context {
                context.push(&array(mask));
            }
            for (number, block) in masks.targets.iter().enumerate() {
                if part == 0 {
                    targets.push(&Array::new());
                }
                let images = Array::from(&targets.get(number as u32));
                for mask in block {
                    images.push(&array(mask));
                }
                targets.set(number as u32, images.into());
            }
        }
        let result = Object::new();
        Reflect::set(&result, &"context".into(), &context)?;
        Reflect::set(&result, &"targets".into(), &targets)?;
        Ok(result.into())
    }

    /// The run as one file.
    #[allow(clippy::await_holding_refcell_ref, reason = "as for step")]
    pub async fn save(&self) -> Result<Uint8Array, JsValue> {
        let run = Rc::clone(&self.0);
        let bytes = borrowed(&run)?.save().await?;
        Ok(Uint8Array::from(bytes.as_slice()))
    }

    /// Files by their names.
    #[allow(clippy::await_holding_refcell_ref, reason = "as for step")]
    pub async fn export(&self, layout: String) -> Result<JsValue, JsValue> {
        let run = Rc::clone(&self.0);
        let run = borrowed(&run)?;
        let files = match layout.as_str() {
            "hf" => run.export_hugging_face().await?,
            "original" => run.export_original().await?,
            other => {
                return Err(Error::BadInput(format!(
                    "there is no layout {other:?}; use \"hf\" or \"original\""
                ))
                .into());
            }
        };
        let result = Object::new();
        for (name, bytes) in files {
            Reflect::set(&result, &name.into(), &Uint8Array::from(bytes.as_slice()))?;
        }
        Ok(result.into())
    }

    /// A model on the present weights.
    pub async fn model(&self) -> Result<Model, JsValue> {
        let run = borrowed(&self.0)?;
        Ok(Model::of_run(&run, processor(run.recipe())?)?)
    }

    /// A world model on the present weights, where the objective makes one.
    pub async fn world(&self) -> Result<World, JsValue> {
        let run = borrowed(&self.0)?;
        Ok(World::of_run(&run, processor(run.recipe())?)?)
    }
}
