//! What the tests of training share.

use std::io::Cursor;

use burn::tensor::Device;
use pollster::block_on;
use webjepa::checkpoint::{EncoderChoice, File, Header, Plan, Selection, assemble};
use webjepa::config::ModelConfig;
use webjepa::device::Precision;
use webjepa::model::{Encoder, Pictures};
use webjepa::nn::Parameters;

pub fn device() -> Device {
    Device::flex()
}

/// The token embeddings of an exported model.
pub fn embedded(config: &ModelConfig, weights: &[u8], pictures: &Pictures) -> Vec<f32> {
    let file = File {
        name: "model.safetensors".into(),
        header: Header::of(weights).unwrap(),
    };
    let selection = Selection {
        encoder: EncoderChoice::Auto,
        predictor: config.predictor.is_some(),
        both: false,
        ..Selection::default()
    };
    let plan = Plan::new(&[file], config, selection).unwrap();
    let mut parameters = Parameters::new(device(), Precision::F32);
    assemble(plan, &mut [Cursor::new(weights)], |piece| {
        parameters.put(piece)
    })
    .unwrap();
    let encoder = Encoder::new(config, Precision::F32, &device(), &mut parameters).unwrap();
    block_on(encoder.encode(pictures, None, 1))
        .unwrap()
        .remove(0)
        .data
}
