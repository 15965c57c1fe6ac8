//! Classifiers of embeddings: for these no model is needed. Stateless: what was fitted lives on the JavaScript side.

use js_sys::{Float32Array, Object, Reflect, Uint32Array};
use wasm_bindgen::prelude::*;

use crate::probe::knn::{Knn, Vote};
use crate::probe::linear::{Descent, Kind, LinearProbe, Ridge};
use crate::probe::{Prediction, Samples};
use crate::rng::Stream;

/// Labelled embeddings that vote.
#[wasm_bindgen(js_name = Neighbours)]
pub struct JsNeighbours(Knn);

#[wasm_bindgen(js_class = Neighbours)]
impl JsNeighbours {
    /// `features` are `[n, d]`, `labels` below `classes`.
    #[wasm_bindgen(constructor)]
    pub fn new(features: &[f32], labels: &[u32], classes: usize) -> Result<Self, JsValue> {
        Ok(Self(Knn::new(samples(
            features,
            &indices(labels),
            classes,
        ))?))
    }

    /// The classes of `queries`, `[n, d]`; of the labelled embeddings themselves, each by the others, where there are no queries.
    /// `{ labels, scores }`.
    pub fn classify(
        &self,
        queries: Option<Vec<f32>>,
        k: usize,
        temperature: f64,
    ) -> Result<JsValue, JsValue> {
        let vote = Vote { k, temperature };
        of_prediction(match queries {
            Some(queries) => self.0.predict(&queries, vote)?,
            None => self.0.leave_one_out(vote)?,
        })
    }
}

/// A ridge regression: `{ weights, bias, mean, std, ridge }`. Without `ridge`, the one of the least cross-validation error.
#[wasm_bindgen(js_name = fitRidge)]
pub fn js_fit_ridge(
    features: &[f32],
    labels: &[u32],
    classes: usize,
    ridge: Option<f64>,
) -> Result<JsValue, JsValue> {
    let labels = indices(labels);
    let ridge = ridge.map_or(Ridge::CrossValidated, Ridge::Given);
    let (probe, ridge) = LinearProbe::ridge(&samples(features, &labels, classes), ridge)?;
    let result = of_probe(&probe)?;
    Reflect::set(&result, &"ridge".into(), &ridge.into())?;
    Ok(result)
}

/// A logistic regression: `{ weights, bias, mean, std }`.
#[wasm_bindgen(js_name = fitLogistic)]
#[allow(
    clippy::too_many_arguments,
    reason = "an object would bring serde along"
)]
pub fn js_fit_logistic(
    features: &[f32],
    labels: &[u32],
    classes: usize,
    steps: usize,
    batch: usize,
    learning_rate: f64,
    weight_decay: f64,
    seed: f64,
) -> Result<JsValue, JsValue> {
    let labels = indices(labels);
    let descent = Descent {
        steps,
        batch,
        learning_rate,
        weight_decay,
    };
    let mut random = Stream::new(seed as u64, "logistic", 0);
    let probe = LinearProbe::logistic(&samples(features, &labels, classes), descent, &mut random)?;
    of_probe(&probe)
}

/// The classes of `queries`, `[n, d]`, by a probe: `{ labels, scores }`.
#[wasm_bindgen(js_name = classifyLinearly)]
pub fn js_classify_linearly(
    logistic: bool,
    weights: Vec<f32>,
    bias: Vec<f32>,
    mean: Vec<f32>,
    std: Vec<f32>,
    queries: &[f32],
) -> Result<JsValue, JsValue> {
    let kind = if logistic {
        Kind::Logistic
    } else {
        Kind::Ridge
    };
    let probe = LinearProbe {
        kind,
        weights,
        bias,
        mean,
        std,
    };
    of_prediction(probe.predict(queries)?)
}

/// As many rows as there are labels; where that cannot be, the rooms below say so.
fn samples<'a>(features: &'a [f32], labels: &'a [usize], classes: usize) -> Samples<'a> {
    Samples {
        features,
        d: features.len().checked_div(labels.len()).unwrap_or(0),
        labels,
        classes,
    }
}

fn indices(labels: &[u32]) -> Vec<usize> {
    labels.iter().map(|&label| label as usize).collect()
}

fn of_prediction(prediction: Prediction) -> Result<JsValue, JsValue> {
    let labels: Vec<u32> = prediction
        .labels
        .iter()
        .map(|&label| label as u32)
        .collect();
    let result = Object::new();
    Reflect::set(
        &result,
        &"labels".into(),
        &Uint32Array::from(labels.as_slice()),
    )?;
    Reflect::set(&result, &"scores".into(), &array(&prediction.scores))?;
    Ok(result.into())
}

fn of_probe(probe: &LinearProbe) -> Result<JsValue, JsValue> {
    let result = Object::new();
    for (name, values) in [
        ("weights", &probe.weights),
        ("bias", &probe.bias),
        ("mean", &probe.mean),
        ("std", &probe.std),
    ] {
        Reflect::set(&result, &name.into(), &array(values))?;
    }
    Ok(result.into())
}

fn array(values: &[f32]) -> Float32Array {
    Float32Array::from(values)
}
