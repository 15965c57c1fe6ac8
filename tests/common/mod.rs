//! What the tests of training share.

use std::io::Cursor;

use burn::tensor::Device;
use pollster::block_on;
use webjepa::checkpoint::{File, Header, Plan, Selection, assemble};
use webjepa::config::ModelConfig;
use webjepa::device::Precision;
use webjepa::model::{Encoder, Pictures, WorldModel};
use webjepa::nn::Parameters;
use webjepa::train::trainer::Trainer;

pub fn device() -> Device {
    Device::flex()
}

/// Everything of the model that `weights`, a safetensors file, holds.
pub fn parameters(config: &ModelConfig, weights: &[u8]) -> Parameters {
    let file = File {
        name: "model.safetensors".into(),
        header: Header::of(weights).unwrap(),
    };
    let selection = Selection {
        predictor: config.predictor.is_some() || config.lewm.is_some(),
        ..Selection::default()
    };
    let plan = Plan::new(&[file], config, selection).unwrap();
    let mut parameters = Parameters::new(device(), Precision::F32);
    assemble(plan, &mut [Cursor::new(weights)], |piece| {
        parameters.put(piece)
    })
    .unwrap();
    parameters
}

/// The world model of a run through its exported files.
#[allow(dead_code, reason = "not every test is of world models")]
pub fn exported_world(trainer: &Trainer) -> WorldModel {
    let files = block_on(trainer.export_original()).unwrap();
    let config = ModelConfig::from_any_json(std::str::from_utf8(&files["config.json"]).unwrap());
    let config = config.unwrap();
    assert_eq!(config, trainer.recipe().model);
    let mut parameters = parameters(&config, &files["model.safetensors"]);
    WorldModel::new(&config, Precision::F32, &device(), &mut parameters).unwrap()
}

/// The token embeddings of an exported model.
#[allow(dead_code, reason = "not of world models")]
pub fn embedded(config: &ModelConfig, weights: &[u8], pictures: &Pictures) -> Vec<f32> {
    let mut parameters = parameters(config, weights);
    let encoder = Encoder::new(config, Precision::F32, &device(), &mut parameters).unwrap();
    block_on(encoder.encode(pictures, None, 1))
        .unwrap()
        .remove(0)
        .data
}
