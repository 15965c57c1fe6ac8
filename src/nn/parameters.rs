//! Named parameters on their way from a checkpoint into modules.

use std::collections::HashMap;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::ops::{self, Weight};
use super::{LayerNorm, Linear};
use crate::checkpoint::{Q8, to_f16};
use crate::device::Precision;
use crate::{Error, Result};

/// A parameter on the device, as a model computes with it.
#[derive(Clone, Debug)]
pub enum Value {
    /// A matrix `[d_in, d_out]` in f32.
    Matrix(Tensor<2>),
    /// `[d]`.
    Vector(Tensor<1>),
}

/// A model's parameters by their original names. Each goes to the device as soon as it is put in, so that the host
/// never holds more than one of them.
pub struct Parameters {
    device: Device,
    precision: Precision,
    bytes: usize,
    weights: HashMap<String, Weight>,
    vectors: HashMap<String, Tensor<1>>,
    tables: HashMap<String, Vec<f32>>,
}

impl Parameters {
    /// None yet, for `device`.
    pub fn new(device: Device, precision: Precision) -> Self {
        Self {
            device,
            precision,
            bytes: 0,
            weights: HashMap::new(),
            vectors: HashMap::new(),
            tables: HashMap::new(),
        }
    }

    /// Puts in one parameter, row-major in PyTorch's axis order: a vector `[d]`, a linear layer's `[d_out, d_in]`, a
    /// convolution's `[d_out, channels, ..]`, a token `[1, 1, d]`; anything whose name ends in `pos_embed` stays on the host as
    /// a table.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a value that does not fit the precision, [`Error::OutOfMemory`].
    pub fn put(&mut self, name: &str, shape: &[usize], data: Vec<f32>) -> Result<()> {
        if name.ends_with("pos_embed") {
            self.bytes += 4 * data.len();
            self.tables.insert(name.to_owned(), data);
        } else if let [d] | [1, 1, d] = *shape {
            self.bytes += 4 * d;
            let vector = Tensor::from_data(TensorData::new(data, [d]), &self.device);
            self.vectors.insert(name.to_owned(), vector);
        } else {
            let d_out = shape[0];
            let d_in = shape[1..].iter().product();
            self.bytes += self.precision.bytes(d_in, d_out);
            let weight = self.weight(name, data, d_in, d_out)?;
            self.weights.insert(name.to_owned(), weight);
        }
        Ok(())
    }

    fn weight(&self, name: &str, data: Vec<f32>, d_in: usize, d_out: usize) -> Result<Weight> {
        Ok(match self.precision {
            Precision::F32 => {
                let weight = Tensor::from_data(TensorData::new(data, [d_out, d_in]), &self.device);
                Weight::Full(ops::submitted(ops::transposed(weight)))
            }
            Precision::F16 => {
                let halves = to_f16(name, &data)?;
                drop(data);
                let data = TensorData::new(transposed(&halves, d_in, d_out), [d_in, d_out]);
                let half = Tensor::from_data(data, (&self.device, DType::F16));
                Weight::Half(ops::submitted(half))
            }
            Precision::Q8 => {
                let quantized = Q8::quantize(name, &data, d_out)?;
                drop(data);
                let values =
                    TensorData::new(transposed(&quantized.data, d_in, d_out), [d_in, d_out]);
                let values = Tensor::<2, Int>::from_data(values, (&self.device, DType::I8));
                let scales = TensorData::new(quantized.scales, [d_out]);
                Weight::Quantized {
                    values,
                    scales: ops::submitted(Tensor::from_data(scales, &self.device)),
                }
            }
        })
    }

    /// Bytes that all parameters put in so far occupy.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes out everything whose name begins with `prefix`, under the rest of it; `bytes` stays whole here.
    pub fn split(&mut self, prefix: &str) -> Self {
        fn moved<T>(from: &mut HashMap<String, T>, prefix: &str) -> HashMap<String, T> {
            let names: Vec<String> = from
                .keys()
                .filter(|name| name.starts_with(prefix))
                .cloned()
                .collect();
            let values = names.into_iter().filter_map(|name| {
                let value = from.remove(&name)?;
                Some((name[prefix.len()..].to_owned(), value))
            });
            values.collect()
        }
        Self {
            device: self.device.clone(),
            precision: self.precision,
            bytes: 0,
            weights: moved(&mut self.weights, prefix),
            vectors: moved(&mut self.vectors, prefix),
            tables: moved(&mut self.tables, prefix),
        }
    }

    /// Takes over from `other` everything whose name begins with one of `prefixes`.
    pub fn absorb(&mut self, other: &mut Self, prefixes: &[&str]) {
        for prefix in prefixes {
            let part = other.split(prefix);
            let named = |name: String| format!("{prefix}{name}");
            self.weights
                .extend(part.weights.into_iter().map(|(name, w)| (named(name), w)));
            self.vectors
                .extend(part.vectors.into_iter().map(|(name, v)| (named(name), v)));
            self.tables
                .extend(part.tables.into_iter().map(|(name, t)| (named(name), t)));
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty() && self.vectors.is_empty() && self.tables.is_empty()
    }

    /// Takes out `{name}.weight` and `{name}.bias`; a missing bias is zero.
    pub fn linear(&mut self, name: &str) -> Result<Linear> {
        let weight = self
            .weights
            .remove(&format!("{name}.weight"))
            .ok_or_else(|| missing(&format!("{name}.weight")))?;
        let d_out = match &weight {
            Weight::Full(w) | Weight::Half(w) => w.dims()[1],
            Weight::Quantized { scales, .. } => scales.dims()[0],
        };
        let bias = self.vectors.remove(&format!("{name}.bias"));
        let zero = || Tensor::from_data(TensorData::new(vec![0f32; d_out], [d_out]), &self.device);
        Ok(Linear {
            weight,
            bias: bias.unwrap_or_else(zero),
        })
    }

    /// Takes out `{name}.weight` and `{name}.bias` of a LayerNorm.
    pub fn norm(&mut self, name: &str, eps: f64) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: self.vector(&format!("{name}.weight"))?,
            bias: self.vector(&format!("{name}.bias"))?,
            eps,
        })
    }

    /// Takes out a vector, or a token `[1, 1, d]` as one.
    pub fn vector(&mut self, name: &str) -> Result<Tensor<1>> {
        self.vectors.remove(name).ok_or_else(|| missing(name))
    }

    /// Puts in a parameter that is on the device already.
    pub fn put_value(&mut self, name: &str, value: Value) {
        match value {
            Value::Matrix(matrix) => {
                self.weights.insert(name.to_owned(), Weight::Full(matrix));
            }
            Value::Vector(vector) => {
                self.vectors.insert(name.to_owned(), vector);
            }
        }
    }

    /// Puts in a table that stays on the host.
    pub fn put_table(&mut self, name: &str, table: Vec<f32>) {
        self.tables.insert(name.to_owned(), table);
    }

    /// Takes out a parameter as it is on the device; None where there is none, or where it is not kept in f32.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        if let Some(vector) = self.vectors.remove(name) {
            return Some(Value::Vector(vector));
        }
        match self.weights.remove(name) {
            Some(Weight::Full(matrix)) => Some(Value::Matrix(matrix)),
            _ => None,
        }
    }

    /// Takes out a table that stays on the host.
    pub fn table(&mut self, name: &str) -> Option<Vec<f32>> {
        self.tables.remove(name)
    }
}

fn missing(name: &str) -> Error {
    Error::MissingTensor(format!("the checkpoint has no tensor for {name}"))
}

/// `[rows, columns]` row-major to `[columns, rows]` row-major.
fn transposed<T: Copy>(data: &[T], columns: usize, rows: usize) -> Vec<T> {
    (0..columns)
        .flat_map(|c| (0..rows).map(move |r| data[r * columns + c]))
        .collect()
}
