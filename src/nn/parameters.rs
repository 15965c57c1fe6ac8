//! Named parameters on their way from a checkpoint into modules.

use std::collections::HashMap;

use burn::tensor::{DType, Device, Element, Tensor, TensorData, kind::Basic};
use half::f16;

use super::norm::BatchNorm;
use super::ops::{self, Weight};
use super::{LayerNorm, Linear};
use crate::checkpoint::{PREDICTOR, Piece, Q8, reserve, to_f16};
use crate::device::{Backend, Precision};
use crate::{Error, Result};

/// A parameter on the device, as a model computes with it.
#[derive(Clone, Debug)]
pub enum Value {
    /// A matrix `[d_in, d_out]` in f32.
    Matrix(Tensor<2>),
    /// `[d]`, or rows `[1, n, d]` one after the other.
    Vector(Tensor<1>),
}

/// Whether a parameter of this shape is kept as a [`Value::Vector`], in f32 whatever the precision: a vector, a token, or a trained table
/// of positions. (A convolution over one position, `[1, d_in, 1]`, is a matrix.)
pub fn is_vector(shape: &[usize]) -> bool {
    match shape {
        [_] => true,
        [1, _, d] => *d > 1,
        _ => false,
    }
}

/// Whether a parameter stays on the host: fixed position tables, which are resampled there, and running statistics, which no gradient
/// changes.
pub fn is_table(name: &str) -> bool {
    [".running_mean", ".running_var", "pos_embed"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// A model's parameters by their original names. What is put in goes to the device at once, so that the host never holds
/// more than one piece of a matrix.
pub struct Parameters {
    device: Device,
    precision: Precision,
    recomputes_blocks: bool,
    bytes: usize,
    partial: HashMap<String, Partial>,
    weights: HashMap<String, Weight>,
    vectors: HashMap<String, Tensor<1>>,
    tables: HashMap<String, Vec<f32>>,
}

/// A parameter of which rows are still to come.
struct Partial {
    /// Elements that are still to come.
    missing: usize,
    room: Room,
}

#[expect(clippy::large_enum_variant, reason = "few parameters are incomplete")]
enum Room {
    /// For a vector or a table: small, and on the host until it is complete.
    Host(Vec<f32>),
    /// For a matrix.
    Weight(Weight),
}

impl Parameters {
    /// None yet, for `device`.
    pub fn new(device: Device, precision: Precision) -> Self {
        Self {
            device,
            precision,
            recomputes_blocks: false,
            bytes: 0,
            partial: HashMap::new(),
            weights: HashMap::new(),
            vectors: HashMap::new(),
            tables: HashMap::new(),
        }
    }

    /// Has blocks that are made of these compute their inside again for gradients, instead of keeping it (gradient checkpointing).
    pub fn recompute_blocks(&mut self, recompute: bool) {
        self.recomputes_blocks = recompute;
    }

    pub(super) fn recomputes_blocks(&self) -> bool {
        self.recomputes_blocks
    }

    /// Puts in rows of one parameter, in PyTorch's axis order: a vector `[d]`, a linear layer's `[d_out, d_in]`, a
    /// convolution's `[d_out, channels, ..]`, a token `[1, 1, d]` or a table `[1, n, d]`. What [`is_table`] names stays on the host.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a value that does not fit the precision, [`Error::OutOfMemory`].
    pub fn put(&mut self, piece: Piece) -> Result<()> {
        let Piece { slot, first, data } = piece;
        let (name, shape) = (slot.name.clone(), &slot.shape);
        let Partial { missing, room } = match self.partial.remove(&name) {
            Some(partial) => partial,
            None => self.room(&name, shape)?,
        };
        let missing = missing - data.len();
        let room = match room {
            Room::Host(mut values) => {
                let row = values.len() / shape[0];
                values[first * row..][..data.len()].copy_from_slice(data);
                Room::Host(values)
            }
            Room::Weight(weight) => Room::Weight(self.placed(&name, weight, data, first)?),
        };
        if missing > 0 {
            self.partial.insert(name, Partial { missing, room });
            return Ok(());
        }
        match room {
            Room::Host(values) => {
                self.bytes += 4 * values.len();
                if is_table(&name) {
                    self.tables.insert(name, values);
                } else {
                    let length = values.len();
                    let data = TensorData::new(values, [length]);
                    let vector =
                        ops::lasting(&self.device, data, |data| ops::uploaded(data, &self.device));
                    self.vectors.insert(name, vector);
                }
            }
            Room::Weight(weight) => {
                let [d_in, d_out] = weight.dims();
                self.bytes += self.precision.bytes(d_in, d_out);
                self.weights.insert(name, weight);
            }
        }
        Ok(())
    }

    /// Room for a parameter.
    fn room(&self, name: &str, shape: &[usize]) -> Result<Partial> {
        let missing = shape.iter().product();
        let room = if is_table(name) || is_vector(shape) {
            Room::Host(zeros(missing, name)?)
        } else {
            let dims = [missing / shape[0], shape[0]];
            Room::Weight(match self.precision {
                Precision::F32 => Weight::Full(self.matrix::<f32, _>(name, dims, ops::uploaded)?),
                Precision::F16 => Weight::Half(self.matrix::<f16, _>(name, dims, ops::uploaded)?),
                Precision::Q8 => Weight::Quantized {
                    values: self.matrix::<i8, _>(name, dims, ops::uploaded_whole)?,
                    scales: self.empty([dims[1]], DType::F32),
                },
            })
        };
        Ok(Partial { missing, room })
    }

    /// A matrix whose values do not matter yet.
    fn matrix<E: Element + Default, K: Basic>(
        &self,
        name: &str,
        dims: [usize; 2],
        upload: impl Fn(TensorData, &Device) -> Tensor<2, K>,
    ) -> Result<Tensor<2, K>> {
        Ok(match Backend::of(&self.device) {
            // burn ends the program where the host has no memory.
            Backend::Cpu => {
                let values: Vec<E> = zeros(dims[0] * dims[1], name)?;
                upload(TensorData::new(values, dims), &self.device)
            }
            Backend::WebGpu => self.empty(dims, E::dtype()),
        })
    }

    fn empty<const D: usize, K: Basic>(&self, dims: [usize; D], dtype: DType) -> Tensor<D, K> {
        ops::lasting(&self.device, dims, |dims| {
            Tensor::empty(dims, (&self.device, dtype))
        })
    }

    /// A weight with the rows from `first` on.
    fn placed(&self, name: &str, weight: Weight, data: &[f32], first: usize) -> Result<Weight> {
        let [d_in, _] = weight.dims();
        let dims = [data.len() / d_in, d_in];
        let (rows, scales) = match self.precision {
            Precision::F32 => (TensorData::new(data.to_vec(), dims), Vec::new()),
            Precision::F16 => {
                let halves = to_f16(name, first * d_in, data)?;
                (TensorData::new(halves, dims), Vec::new())
            }
            Precision::Q8 => {
                let Q8 { data, scales } = Q8::quantize(name, data, dims[0])?;
                (TensorData::new(data, dims), scales)
            }
        };
        Ok(ops::placed(weight, rows, scales, first))
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
            recomputes_blocks: self.recomputes_blocks,
            bytes: 0,
            partial: HashMap::new(),
            weights: moved(&mut self.weights, prefix),
            vectors: moved(&mut self.vectors, prefix),
            tables: moved(&mut self.tables, prefix),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty() && self.vectors.is_empty() && self.tables.is_empty()
    }

    /// What the predictor's vector `name` was put in as: with [`PREDICTOR`] before it where the encoder beside it has one of that name.
    pub fn predictor_name(&self, name: &str) -> String {
        let own = format!("{PREDICTOR}{name}");
        match self.vectors.contains_key(&own) {
            true => own,
            false => name.into(),
        }
    }

    /// Takes out `{name}.weight` and `{name}.bias`; a missing bias is zero.
    pub fn linear(&mut self, name: &str) -> Result<Linear> {
        let weight = self
            .weights
            .remove(&format!("{name}.weight"))
            .ok_or_else(|| missing(&format!("{name}.weight")))?;
        let [_, d_out] = weight.dims();
        let bias = self.vectors.remove(&format!("{name}.bias"));
        let zero = || ops::uploaded(TensorData::new(vec![0f32; d_out], [d_out]), &self.device);
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

    /// Takes out `{name}.weight` and `{name}.bias` of a BatchNorm, and its running statistics where there are some.
    pub fn batch_norm(&mut self, name: &str, device: &Device) -> Result<BatchNorm> {
        let mut running = |what| self.tables.remove(&format!("{name}.running_{what}"));
        let running = match (running("mean"), running("var")) {
            (Some(mean), Some(variance)) => Some([mean, variance]),
            _ => None,
        };
        let weight = self.vector(&format!("{name}.weight"))?;
        let bias = self.vector(&format!("{name}.bias"))?;
        Ok(BatchNorm::new(weight, bias, running, device))
    }

    /// Takes out a vector, or a token `[1, 1, d]` or table `[1, n, d]` as one.
    pub fn vector(&mut self, name: &str) -> Result<Tensor<1>> {
        self.vectors.remove(name).ok_or_else(|| missing(name))
    }

    /// Puts in a parameter that is on the device already, a matrix as f16 where that is the precision: its gradient goes to the f32
    /// values. (int8 has none, and is never trained.)
    pub fn put_value(&mut self, name: &str, value: Value) {
        match value {
            Value::Matrix(matrix) => {
                let [d_in, d_out] = matrix.dims();
                self.bytes += self.precision.bytes(d_in, d_out);
                let weight = match self.precision {
                    Precision::F16 => Weight::Half(ops::halved(matrix)),
                    Precision::F32 | Precision::Q8 => Weight::Full(matrix),
                };
                self.weights.insert(name.to_owned(), weight);
            }
            Value::Vector(vector) => {
                self.bytes += 4 * vector.dims()[0];
                self.vectors.insert(name.to_owned(), vector);
            }
        }
    }

    /// Puts in a table that stays on the host.
    pub fn put_table(&mut self, name: &str, table: Vec<f32>) {
        self.bytes += 4 * table.len();
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

/// # Errors
/// [`Error::OutOfMemory`], which names `name`.
fn zeros<E: Copy + Default>(length: usize, name: &str) -> Result<Vec<E>> {
    let mut values = reserve(length, name)?;
    values.resize(length, E::default());
    Ok(values)
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::checkpoint::Slot;

    const D_IN: usize = 5;
    const D_OUT: usize = 7;

    fn value(row: usize, column: usize) -> f32 {
        ((row * D_IN + column) as f32 * 0.37).sin()
    }

    fn put(
        parameters: &mut Parameters,
        name: &str,
        shape: Vec<usize>,
        rows: std::ops::Range<usize>,
        value: impl Fn(usize, usize) -> f32,
    ) -> Result<()> {
        let row = shape[1..].iter().product();
        let data: Vec<f32> = rows
            .clone()
            .flat_map(|r| (0..row).map(move |c| (r, c)))
            .map(|(r, c)| value(r, c))
            .collect();
        parameters.put(Piece {
            slot: &Slot {
                name: name.into(),
                shape,
            },
            first: rows.start,
            data: &data,
        })
    }

    fn parameters(precision: Precision) -> Parameters {
        Parameters::new(Device::flex(), precision)
    }

    /// A weight from pieces that come out of order.
    fn weight(precision: Precision) -> Weight {
        let mut parameters = parameters(precision);
        for rows in [4..6, 0..4, 6..7] {
            assert!(parameters.linear("x").is_err());
            let shape = vec![D_OUT, D_IN];
            put(&mut parameters, "x.weight", shape, rows, value).unwrap();
        }
        assert_eq!(parameters.bytes(), precision.bytes(D_IN, D_OUT));
        parameters.linear("x").unwrap().weight
    }

    fn columns<T>(of: impl Fn(usize, usize) -> T) -> Vec<T> {
        let of = &of;
        (0..D_IN)
            .flat_map(|column| (0..D_OUT).map(move |row| of(row, column)))
            .collect()
    }

    #[test]
    fn rows_become_the_columns_of_a_weight() {
        let Weight::Full(weight) = weight(Precision::F32) else {
            panic!("f32 weights are kept whole");
        };
        assert_eq!(weight.dims(), [D_IN, D_OUT]);
        let values = weight.into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(values, columns(value));
    }

    #[test]
    fn halves_are_the_rounded_values() {
        let Weight::Half(weight) = weight(Precision::F16) else {
            panic!("f16 weights are kept as halves");
        };
        let values = weight.into_data().try_into_vec::<f16>().unwrap();
        assert_eq!(values, columns(|r, c| f16::from_f32(value(r, c))));
    }

    #[test]
    fn eight_bits_have_a_scale_for_each_row() {
        let Weight::Quantized { values, scales } = weight(Precision::Q8) else {
            panic!("q8 weights are quantized");
        };
        let scales = scales.into_data().try_into_vec::<f32>().unwrap();
        let values = values.into_data().try_into_vec::<i8>().unwrap();
        for (row, &scale) in scales.iter().enumerate() {
            let largest = (0..D_IN).fold(0f32, |m, c| m.max(value(row, c).abs()));
            assert_eq!(scale, largest / 127.0);
        }
        let steps = columns(|r, c| (value(r, c) / scales[r]).round() as i8);
        assert_eq!(values, steps);
    }

    #[test]
    fn vectors_and_tables_come_in_pieces_too() {
        let mut parameters = parameters(Precision::F16);
        for rows in [2..4, 0..2] {
            for name in ["norm.weight", "norm.bias"] {
                put(&mut parameters, name, vec![4], rows.clone(), value).unwrap();
            }
        }
        let norm = parameters.norm("norm", 1e-6).unwrap();
        let shift = norm.bias.into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(shift, [0, 1, 2, 3].map(|r| value(r, 0)));
        put(&mut parameters, "pos_embed", vec![1, 2, 3], 0..1, value).unwrap();
        let table = (0..6).map(|c| value(0, c)).collect();
        assert_eq!(parameters.table("pos_embed"), Some(table));
        assert_eq!(parameters.bytes(), 4 * (4 + 4 + 6));
    }

    #[test]
    fn what_does_not_fit_f16_is_named_by_its_place_in_the_parameter() {
        let mut parameters = parameters(Precision::F16);
        let shape = vec![D_OUT, D_IN];
        let large = |row, column| if (row, column) == (4, 3) { 1e6 } else { 0.0 };
        let error = put(&mut parameters, "x.weight", shape, 4..7, large).unwrap_err();
        assert_eq!(error.code(), "unsupported");
        assert!(error.to_string().contains("index 23"), "{error}");
    }
}
