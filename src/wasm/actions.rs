//! Actions in the units of world models, and random ones: for these no model is needed.

use wasm_bindgen::prelude::*;

use crate::rng::{Generator, Stream};
use crate::world::ActionScale;

/// Mean and standard deviation of each number of `actions [count, action]`: the means, then the deviations.
#[wasm_bindgen(js_name = fitActionScale)]
pub fn js_fit_action_scale(actions: &[f32], action: usize) -> Result<Vec<f64>, JsValue> {
    Ok(ActionScale::of(actions, action)?.statistics())
}

/// Actions, or blocks of several, as models take them, or `back` as the environment does.
#[wasm_bindgen(js_name = scaleActions)]
pub fn js_scale_actions(
    mean: Vec<f64>,
    std: Vec<f64>,
    actions: &[f32],
    back: bool,
) -> Result<Vec<f32>, JsValue> {
    let scale = ActionScale::new(mean, std)?;
    Ok(match back {
        false => scale.scaled(actions)?,
        true => scale.unscaled(actions)?,
    })
}

/// `count` numbers from 0 to 1 of the stream `number`: what policies act by.
#[wasm_bindgen(js_name = uniformNumbers)]
pub fn js_uniform_numbers(seed: f64, number: f64, count: usize) -> Vec<f32> {
    let mut random = Stream::new(seed as u64, "policy", number as u64);
    (0..count).map(|_| random.uniform()).collect()
}
