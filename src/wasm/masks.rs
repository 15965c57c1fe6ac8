//! Masks: for these no model is needed.

use js_sys::{Array, Object, Reflect, Uint32Array};
use wasm_bindgen::prelude::*;

use super::from_js;
use crate::Error;
use crate::mask::{Source, Strategy, sample};

/// Samples masks: `{ context, targets }`, every list a Uint32Array. See `GlueMasks` in `www/src/masks.ts`, which checks what
/// kind of values these are.
#[wasm_bindgen(js_name = sampleMasks)]
pub fn js_sample_masks(
    strategy: &str,
    parameters: JsValue,
    grid: &[f64],
    torch: bool,
    seed: f64,
    batch: f64,
) -> Result<JsValue, JsValue> {
    // By hand, because what serde makes of an enum with a tag is a quarter of the module.
    let strategy = match strategy {
        "ijepa-multiblock" => Strategy::Multiblock(from_js(parameters)?),
        "vjepa-multiblock3d" => Strategy::Multiblock3d(from_js(parameters)?),
        "tube" => Strategy::Tube(from_js(parameters)?),
        "random" => Strategy::Random(from_js(parameters)?),
        other => return Err(Error::BadInput(format!("there is no strategy {other}")).into()),
    };
    let grid: Vec<usize> = grid.iter().map(|&side| side as usize).collect();
    let grid = grid
        .try_into()
        .map_err(|_| Error::BadInput("a grid is [time, height, width]".into()))?;
    let source = if torch {
        Source::Torch
    } else {
        Source::Default
    };
    let masks = sample(grid, &strategy, source, seed as u64, batch as usize)?;
    let result = Object::new();
    Reflect::set(&result, &"context".into(), &lists(masks.context))?;
    let targets: Array = masks.targets.into_iter().map(lists).collect();
    Reflect::set(&result, &"targets".into(), &targets)?;
    Ok(result.into())
}

fn lists(lists: Vec<Vec<usize>>) -> Array {
    lists
        .into_iter()
        .map(|list| {
            let indices: Vec<u32> = list.into_iter().map(|index| index as u32).collect();
            Uint32Array::from(indices.as_slice())
        })
        .collect()
}
