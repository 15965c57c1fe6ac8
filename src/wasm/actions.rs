//! Actions in the units of world models: for these no model is needed.

use wasm_bindgen::prelude::*;

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
