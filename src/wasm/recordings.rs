//! Recordings as a file. No model is needed for these, but the reader of checkpoints is, which the models' modules have.

use wasm_bindgen::prelude::*;

use crate::Error;
use crate::environment::{Episode, Replay};

/// Recorded episodes of one environment.
#[wasm_bindgen(js_name = Replay)]
pub struct JsReplay(Replay);

#[wasm_bindgen(js_class = Replay)]
impl JsReplay {
    /// Without episodes; see `GlueReplay` in `www/src/episodes.ts`.
    #[wasm_bindgen(constructor)]
    pub fn new(side: usize, action: usize) -> Result<JsReplay, JsValue> {
        Ok(Self(Replay::new(side, action)?))
    }

    pub fn load(file: &[u8]) -> Result<JsReplay, JsValue> {
        Ok(Self(Replay::load(file)?))
    }

    pub fn push(
        &mut self,
        frames: Vec<u8>,
        actions: Vec<f32>,
        states: Vec<f32>,
        rewards: Vec<f32>,
        end: Option<Vec<u8>>,
    ) -> Result<(), JsValue> {
        let bits = |end: Vec<u8>| [0, 1].map(|i| end.get(i).is_some_and(|&bit| bit == 1));
        Ok(self.0.push(Episode {
            frames,
            actions,
            states,
            rewards,
            end: end.map(bits),
        })?)
    }

    pub fn save(&self) -> Result<Vec<u8>, JsValue> {
        Ok(self.0.save()?)
    }

    #[wasm_bindgen(getter)]
    pub fn side(&self) -> usize {
        self.0.side()
    }

    #[wasm_bindgen(getter)]
    pub fn action(&self) -> usize {
        self.0.action_size()
    }

    #[wasm_bindgen(getter)]
    pub fn state(&self) -> usize {
        self.0.state_size()
    }

    #[wasm_bindgen(getter)]
    pub fn length(&self) -> usize {
        self.0.episodes().len()
    }

    pub fn frames(&self, episode: usize) -> Result<Vec<u8>, JsValue> {
        Ok(self.episode(episode)?.frames.clone())
    }

    pub fn actions(&self, episode: usize) -> Result<Vec<f32>, JsValue> {
        Ok(self.episode(episode)?.actions.clone())
    }

    pub fn states(&self, episode: usize) -> Result<Vec<f32>, JsValue> {
        Ok(self.episode(episode)?.states.clone())
    }

    pub fn rewards(&self, episode: usize) -> Result<Vec<f32>, JsValue> {
        Ok(self.episode(episode)?.rewards.clone())
    }

    pub fn end(&self, episode: usize) -> Result<Option<Vec<u8>>, JsValue> {
        let end = self.episode(episode)?.end;
        Ok(end.map(|end| end.map(u8::from).to_vec()))
    }
}

impl JsReplay {
    fn episode(&self, number: usize) -> Result<&Episode, Error> {
        let episodes = self.0.episodes();
        episodes
            .get(number)
            .ok_or_else(|| Error::Internal(format!("there is no episode {number}")))
    }
}
