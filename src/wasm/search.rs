//! Searches whose costs JavaScript tells: for these no model is needed.

use js_sys::{Float32Array, Object, Reflect};
use wasm_bindgen::prelude::*;

use super::from_js;
use crate::world::search::Progress;
use crate::world::{Cem, Plan, PlanOptions, Search, Slopes};

/// A search in progress.
#[wasm_bindgen(js_name = Search)]
pub struct JsSearch {
    search: Search,
    horizon: usize,
    plan: Option<Plan>,
}

#[wasm_bindgen(js_class = Search)]
impl JsSearch {
    /// Of actions of so many numbers, as `GluePlanOptions` in `www/src/glue.ts` describes it; what is absent is as LeWorldModel plans.
    #[wasm_bindgen(constructor)]
    pub fn new(options: JsValue, action: usize) -> Result<JsSearch, JsValue> {
        let options: PlanOptions = from_js(options)?;
        let planner = options.planner(Cem::lewm(action), 1.0)?;
        Ok(Self {
            horizon: planner.space().horizon,
            search: Search::new(planner, options.start, options.seed),
            plan: None,
        })
    }

    #[wasm_bindgen(getter)]
    pub fn horizon(&self) -> usize {
        self.horizon
    }

    /// The sequences of the next round, `[samples, horizon, action]`, given what those of the last one cost; absent when there is a plan.
    pub fn proceed(
        &mut self,
        costs: Option<Vec<f32>>,
        gradients: Option<Vec<f32>>,
    ) -> Result<Option<Vec<f32>>, JsValue> {
        let told = costs.map(|costs| Slopes {
            costs,
            gradients: gradients.unwrap_or_default(),
        });
        Ok(match self.search.proceed(told)? {
            Progress::Round(candidates) => Some(candidates.data),
            Progress::Done(plan) => {
                self.plan = Some(plan);
                None
            }
        })
    }

    /// `{ actions, costs }`, once there is a plan.
    pub fn plan(&mut self) -> Result<JsValue, JsValue> {
        let result = Object::new();
        if let Some(plan) = &self.plan {
            let actions: Vec<f32> = plan.actions.iter().map(|&v| v as f32).collect();
            Reflect::set(
                &result,
                &"actions".into(),
                &Float32Array::from(&actions[..]),
            )?;
            let costs: js_sys::Array = plan.costs.iter().copied().map(JsValue::from).collect();
            Reflect::set(&result, &"costs".into(), &costs)?;
        }
        Ok(result.into())
    }
}
