//! Attentive probes: tokens in, classes out; and their training, one step at a time.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Float32Array, Object, Reflect, Uint8Array, Uint32Array};
use serde_json::Value as Json;
use wasm_bindgen::prelude::*;

use super::model::device;
use crate::device::Backend;
use crate::model::{PROBE_EPS, ProbeConfig};
use crate::probe::{Prediction, softmax};
use crate::train::probe as run;
use crate::{Error, Result};

/// A probe with its weights.
#[wasm_bindgen]
pub struct Probe(Rc<RefCell<run::Probe>>);

fn object(fields: &[(&str, JsValue)]) -> Result<JsValue, JsValue> {
    let result = Object::new();
    for (name, value) in fields {
        Reflect::set(&result, &JsValue::from(*name), value)?;
    }
    Ok(result.into())
}

/// Logits `[n, classes]` as `{ labels, scores, logits }`; scores are probabilities.
pub(super) fn classified(logits: Vec<f32>, classes: usize) -> Result<JsValue, JsValue> {
    let all = JsValue::from(Float32Array::from(logits.as_slice()));
    let mut scores = logits;
    scores.chunks_exact_mut(classes).for_each(softmax);
    let Prediction { labels, scores } = Prediction::of(scores, classes);
    let labels: Vec<u32> = labels.into_iter().map(|label| label as u32).collect();
    object(&[
        ("labels", Uint32Array::from(labels.as_slice()).into()),
        ("scores", Float32Array::from(scores.as_slice()).into()),
        ("logits", all),
    ])
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
    /// A probe with fresh weights; `labels` is the JSON of an array.
    pub fn create(
        hidden_size: usize,
        depth: usize,
        heads: usize,
        mlp_hidden: usize,
        labels: &str,
        seed: f64,
    ) -> Result<Probe, JsValue> {
        let labels: Json = serde_json::from_str(labels)
            .map_err(|e| Error::BadInput(format!("the labels cannot be read: {e}")))?;
        let classes = labels.as_array().map_or(0, Vec::len);
        let config = ProbeConfig::of([hidden_size, depth, mlp_hidden, classes], heads, PROBE_EPS);
        let probe = run::Probe::new(config, labels, seed as u64, &device()?)?;
        Ok(Self::from(probe))
    }

    /// See `GlueProbeInfo` in `www/src/glue.ts`.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        let probe = self.0.try_borrow().map_err(|_| busy())?;
        let config = probe.config();
        object(&[
            ("hiddenSize", config.hidden_size.into()),
            ("depth", config.depth.into()),
            ("heads", config.heads.into()),
            ("classes", config.classes.into()),
            ("labels", probe.labels().to_string().into()),
            ("backend", Backend::BUILT.name().into()),
        ])
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

    /// One step on `tokens` `[labels.length, n, d]`. See `GlueFitStep` in `www/src/glue.ts`.
    #[allow(
        clippy::await_holding_refcell_ref,
        reason = "a second call meanwhile is refused, which is what the borrow is for"
    )]
    #[allow(
        clippy::too_many_arguments,
        reason = "an object would have to be taken apart here"
    )]
    pub async fn step(
        &self,
        tokens: Vec<f32>,
        labels: Vec<u32>,
        steps: f64,
        learning_rate: f64,
        warmup: f64,
        weight_decay: f64,
        clip: f64,
    ) -> Result<JsValue, JsValue> {
        let fit = run::Fit {
            steps: steps as u64,
            learning_rate,
            warmup: warmup as u64,
            weight_decay,
            clip,
        };
        let labels: Vec<usize> = labels.into_iter().map(|label| label as usize).collect();
        let probe = Rc::clone(&self.0);
        let mut probe = probe.try_borrow_mut().map_err(|_| busy())?;
        let report = probe.step(tokens, &labels, &fit).await?;
        object(&[
            ("step", (report.step as f64).into()),
            ("loss", report.loss.into()),
            ("accuracy", report.accuracy.into()),
            ("lr", report.lr.into()),
        ])
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
