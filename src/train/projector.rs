//! LeJEPA's head: `d → hidden → hidden → size`, with BatchNorm and ReLU after the hidden layers (MINIMAL.md of the project).
//! It is discarded after training, so its BatchNorm needs the statistics of the batch only.

use burn::tensor::{Device, Tensor};

use super::recipe::Projector;
use crate::Result;
use crate::checkpoint::Parameter;
use crate::nn::norm::BatchNorm;
use crate::nn::ops::{self, Activation};
use crate::nn::{Linear, Parameters};

/// The head's parameters, by their places in torchvision's `MLP`.
pub fn parameters(d: usize, projector: Projector) -> Vec<Parameter> {
    let Projector { hidden_size, size } = projector;
    let mut list = Vec::new();
    let mut push = |name: &str, shape: &[usize]| {
        list.push(Parameter {
            name: name.into(),
            shape: shape.into(),
            optional: false,
        });
    };
    for (place, shape) in [
        (0, [hidden_size, d]),
        (3, [hidden_size, hidden_size]),
        (6, [size, hidden_size]),
    ] {
        push(&format!("{place}.weight"), &shape);
        push(&format!("{place}.bias"), &shape[..1]);
        if place < 6 {
            push(&format!("{}.weight", place + 1), &shape[..1]);
            push(&format!("{}.bias", place + 1), &shape[..1]);
        }
    }
    list
}

/// The head.
pub struct Head {
    linear: [Linear; 3],
    norm: [BatchNorm; 2],
}

impl Head {
    /// Takes its parameters.
    ///
    /// # Errors
    /// [`crate::Error::MissingTensor`].
    pub fn take(parameters: &mut Parameters, device: &Device) -> Result<Self> {
        let norm = [
            parameters.batch_norm("1", device)?,
            parameters.batch_norm("4", device)?,
        ];
        Ok(Self {
            linear: [
                parameters.linear("0")?,
                parameters.linear("3")?,
                parameters.linear("6")?,
            ],
            norm,
        })
    }

    /// `[rows, d]` → `[rows, size]`.
    pub fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        for (linear, norm) in self.linear.iter().zip(&self.norm) {
            x = ops::activate(norm.forward(linear.forward(x)), Activation::Relu);
        }
        self.linear[2].forward(x)
    }
}
