//! Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): a matrix `W [d_out, d_in]` stays as it is, and the model computes with
//! `W + alpha/rank · B·A`, of which `A [rank, d_in]` and `B [d_out, rank]` are trained.

use burn::tensor::{Device, TensorData};
use serde::{Deserialize, Serialize};

use super::network::{HostTensor, Network};
use crate::checkpoint::Parameter;
use crate::nn::{Value, ops};
use crate::rng::{Generator, Stream};

/// The matrices of each block that have adapters.
const ADAPTED: [&str; 3] = ["attn.qkv.weight", "mlp.fc1.weight", "mlp.fc2.weight"];

/// Size and weight of the adapters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lora {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// Their product counts `alpha / rank`; absent, the rank, so that it counts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
}

/// The adapters of an encoder's parameters, `A` before `B`, by the names that PEFT gives them.
pub fn parameters(encoder: &[Parameter], rank: usize) -> Vec<Parameter> {
    let mut list = Vec::new();
    for Parameter { name, shape, .. } in encoder {
        if !ADAPTED.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        for (letter, shape) in [("A", vec![rank, shape[1]]), ("B", vec![shape[0], rank])] {
            list.push(Parameter {
                name: format!("{}.lora_{letter}.weight", name.trim_end_matches(".weight")),
                shape,
                optional: false,
            });
        }
    }
    list
}

/// `A` uniform within `±1/√d_in` and `B` zero, as the authors' code starts them: at first nothing changes.
pub fn fresh(list: &[Parameter], seed: u64) -> Vec<HostTensor> {
    let mut random = Stream::new(seed, "adapters", 0);
    let tensor = |Parameter { name, shape, .. }: &Parameter| {
        let bound = match name.contains("lora_A") {
            true => (shape[1] as f32).sqrt().recip(),
            false => 0.0,
        };
        let count = shape.iter().product();
        HostTensor {
            name: name.clone(),
            shape: shape.clone(),
            data: (0..count)
                .map(|_| bound * (2.0 * random.uniform() - 1.0))
                .collect(),
        }
    };
    list.iter().map(tensor).collect()
}

impl Lora {
    /// The encoder's values with the adapters' products, of which `adapters` are the matrices in the order of [`parameters`]:
    /// gradients flow through to those that are tracked.
    pub fn merged(self, encoder: &Network, adapters: &[Value], device: &Device) -> Vec<Value> {
        let rank = self.rank;
        let zeros = |d: usize| ops::uploaded::<1>(TensorData::new(vec![0f32; d], [d]), device);
        let share = (self.alpha.unwrap_or(rank as f64) / rank as f64) as f32;
        let mut scale = vec![0f32; rank * rank];
        scale.iter_mut().step_by(rank + 1).for_each(|v| *v = share);
        let scale = ops::Weight::Full(ops::uploaded(TensorData::new(scale, [rank, rank]), device));
        let mut pairs = adapters.chunks_exact(2);
        let values = encoder.parameters.iter().map(|parameter| {
            let is_adapted = ADAPTED.iter().any(|end| parameter.name.ends_with(end));
            let Value::Matrix(base) = &parameter.value else {
                return parameter.value.clone();
            };
            match is_adapted.then(|| pairs.next()).flatten() {
                Some([Value::Matrix(a), Value::Matrix(b)]) => {
                    let a = ops::linear(a.clone(), &scale, &zeros(rank), None, false);
                    let bias = zeros(base.dims()[1]);
                    let b = ops::Weight::Full(b.clone());
                    Value::Matrix(ops::linear(a, &b, &bias, Some(base.clone()), false))
                }
                _ => parameter.value.clone(),
            }
        });
        values.collect()
    }
}
