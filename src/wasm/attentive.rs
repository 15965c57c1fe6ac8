//! Attentive probes: tokens in, classes out; and their training, one step at a time.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Float32Array, Object, Reflect, Uint8Array, Uint32Array};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use wasm_bindgen::prelude::*;

use super::model::device;
use super::{from_js, to_js};
use crate::device::Backend;
use crate::model::{PROBE_EPS, ProbeConfig};
use crate::probe::{Prediction, softmax};
use crate::train::probe as run;
use crate::{Error, Result};

/// A probe with its weights.
#[wasm_bindgen]
pub struct Probe(Rc<RefCell<run::Probe>>);

/// See `GlueProbeOptions` in `www/src/glue.ts`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    hidden_size: usize,
    depth: usize,
    heads: usize,
    mlp_hidden: usize,
    labels: Vec<Json>,
    seed: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    hidden_size: usize,
    depth: usize,
    heads: usize,
    classes: usize,
    labels: Option<&'a [Json]>,
    backend: &'static str,
}

/// Logits `[n, classes]` as `{ labels, scores, logits }`; scores are probabilities.
pub(super) fn classified(logits: Vec<f32>, classes: usize) -> Result<JsValue, JsValue> {
    let result = Object::new();
    let set = |name: &str, value: JsValue| Reflect::set(&result, &name.into(), &value);
    set("logits", Float32Array::from(logits.as_slice()).into())?;
    let mut scores = logits;
    scores.chunks_exact_mut(classes).for_each(softmax);
    let Prediction { labels, scores } = Prediction::of(scores, classes);
    let labels: Vec<u32> = labels.into_iter().map(|label| label as u32).collect();
    set("labels", Uint32Array::from(labels.as_slice()).into())?;
    set("scores", Float32Array::from(scores.as_slice()).into())?;
    Ok(result.into())
}

/// One call at a time: the TypeScript side sees to it.
fn busy() -> Error {
    Error::Internal("the probe was called while it was busy".into())
}

impl From<run::Probe> for Probe {
    fn from(probe: run::Probe) -> Self {
        Self(Rc::new(RefCell::new(probe)))
    }
}

#[wasm_bindgen]
impl Probe {
    /// A probe with fresh weights. See `GlueProbeOptions` in `www/src/glue.ts`.
    pub fn create(options: JsValue) -> Result<Probe, JsValue> {
        let options: Options = from_js(options)?;
        let config = ProbeConfig {
            hidden_size: options.hidden_size,
            depth: options.depth,
            heads: options.heads,
            mlp_hidden: options.mlp_hidden,
            classes: options.labels.len(),
            layer_norm_eps: PROBE_EPS,
        };
        let probe = run::Probe::new(config, Some(options.labels), options.seed, &device()?)?;
        Ok(Self::from(probe))
    }

    /// See `GlueProbeInfo` in `www/src/glue.ts`.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        let probe = self.0.try_borrow().map_err(|_| busy())?;
        let config = probe.config();
        Ok(to_js(&Info {
            hidden_size: config.hidden_size,
            depth: config.depth,
            heads: config.heads,
            classes: config.classes,
            labels: probe.labels(),
            backend: Backend::BUILT.name(),
        })?)
    }

    /// Which `batch` of `length` samples the next step takes.
    #[wasm_bindgen(js_name = nextIndices)]
    pub fn next_indices(
        &self,
        length: usize,
        batch: usize,
        seed: f64,
    ) -> Result<Vec<u32>, JsValue> {
        let probe = self.0.try_borrow().map_err(|_| busy())?;
        let indices = probe.next_indices(length, batch, seed as u64);
        Ok(indices.into_iter().map(|i| i as u32).collect())
    }

    /// One step on `tokens` `[labels.length, n, d]`. See `GlueFit` and `GlueFitStep` in `www/src/glue.ts`.
    #[allow(
        clippy::await_holding_refcell_ref,
        reason = "a second call meanwhile is refused, which is what the borrow is for"
    )]
    pub async fn step(
        &self,
        tokens: Vec<f32>,
        labels: Vec<u32>,
        fit: JsValue,
    ) -> Result<JsValue, JsValue> {
        let fit: run::Fit = from_js(fit)?;
        let labels: Vec<usize> = labels.into_iter().map(|label| label as usize).collect();
        let probe = Rc::clone(&self.0);
        let mut probe = probe.try_borrow_mut().map_err(|_| busy())?;
        Ok(to_js(&probe.step(tokens, &labels, &fit).await?)?)
    }

    /// The classes of `count` samples of tokens, `[count, n, d]`: `{ labels, scores, logits }`.
    #[allow(clippy::await_holding_refcell_ref, reason = "as for step")]
    pub async fn classify(&self, tokens: Vec<f32>, count: usize) -> Result<JsValue, JsValue> {
        let probe = Rc::clone(&self.0);
        let probe = probe.try_borrow().map_err(|_| busy())?;
        classified(probe.scores(tokens, count).await?, probe.config().classes)
    }

    /// The probe as a safetensors file.
    #[allow(clippy::await_holding_refcell_ref, reason = "as for step")]
    pub async fn save(&self) -> Result<Uint8Array, JsValue> {
        let probe = Rc::clone(&self.0);
        let bytes = probe.try_borrow().map_err(|_| busy())?.save().await?;
        Ok(Uint8Array::from(bytes.as_slice()))
    }
}
