//! A network in training: its parameters on the device by name, and what the optimizer keeps of each.

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::checkpoint::{PREDICTOR, Parameter, predictor_parameters};
use crate::config::ModelConfig;
use crate::device::{Precision, read_values};
use crate::nn::norm::BatchStatistics;
use crate::nn::ops;
use crate::nn::ops::update::{self, SQUARE_LANES};
use crate::nn::parameters::{is_table, is_vector};
use crate::nn::positions::exchanged;
use crate::nn::{Parameters, Value};
use crate::{Error, Result};

/// One parameter.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Name within its network, as in the original project.
    pub name: String,
    /// Length of each axis, as in the original project: `[d_out, d_in]` for a matrix.
    pub shape: Vec<usize>,
    /// On the device.
    pub value: Value,
    /// First and second moment of its gradient, once it has been updated.
    pub moments: Option<[Value; 2]>,
    /// Whether it is trained.
    pub trainable: bool,
}

impl Trained {
    /// Whether weight decay applies: not to biases and not to one-dimensional parameters (norms); mask tokens decay.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1 && !self.name.contains("bias")
    }
}

/// A tensor on the host, in the original project's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Name.
    pub name: String,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<f32>,
}

/// A network: an encoder, a predictor or a projector.
#[derive(Clone, Debug)]
pub struct Network {
    /// What its names begin with in a file: `"encoder."`.
    pub prefix: &'static str,
    /// In the order of [`crate::checkpoint::parameters`].
    pub parameters: Vec<Trained>,
    /// What stays on the host: fixed position tables, which are not trained, and running statistics.
    pub tables: Vec<HostTensor>,
}

/// What the names of the predictor that `config` describes begin with in a file. LeWorldModel's parts begin with names of their own.
pub fn predictor_prefix(config: &ModelConfig) -> &'static str {
    match config.lewm {
        Some(_) => "",
        None => PREDICTOR,
    }
}

impl Network {
    /// Without parameters yet.
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            parameters: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// Puts in a parameter from the host, where some stay.
    pub fn put(&mut self, tensor: HostTensor, device: &Device) {
        if is_table(&tensor.name) {
            self.tables.push(tensor);
            return;
        }
        self.parameters.push(Trained {
            value: Value::upload(&tensor.shape, tensor.data, device),
            name: tensor.name,
            shape: tensor.shape,
            moments: None,
            trainable: true,
        });
    }

    /// Takes the parameters that `list` names out of loaded ones, and the tables that it names where there are some.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn take(prefix: &'static str, list: &[Parameter], loaded: &mut Parameters) -> Result<Self> {
        let mut network = Self::new(prefix);
        let source = |loaded: &Parameters, name: &str| match prefix {
            PREDICTOR => loaded.predictor_name(name),
            _ => name.to_owned(),
        };
        for Parameter { name, shape, .. } in list {
            if let Some(data) = loaded.table(name) {
                network.tables.push(HostTensor {
                    name: name.clone(),
                    shape: shape.clone(),
                    data,
                });
            } else if let Some(value) = loaded.value(&source(loaded, name)) {
                network.parameters.push(Trained {
                    name: name.clone(),
                    shape: shape.clone(),
                    value,
                    moments: None,
                    trainable: true,
                });
            } else if !name.ends_with("pos_embed") {
                return Err(Error::MissingTensor(format!(
                    "the model to train has no {prefix}{name}"
                )));
            }
        }
        Ok(network)
    }

    /// Takes the predictor that `config` describes, or everything that LeWorldModel has beside its encoder, out of loaded parameters.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn predictor(config: &ModelConfig, loaded: &mut Parameters) -> Result<Self> {
        Self::take(
            predictor_prefix(config),
            &predictor_parameters(config),
            loaded,
        )
    }

    /// The same values under another prefix, without moments.
    pub fn copy(&self, prefix: &'static str) -> Self {
        let mut copy = self.clone();
        copy.prefix = prefix;
        for parameter in &mut copy.parameters {
            parameter.moments = None;
        }
        copy
    }

    /// The parameters for a model that is not trained, its matrices in `precision`.
    pub fn fixed(&self, device: &Device, precision: Precision) -> Parameters {
        let values = self.parameters.iter().map(|p| p.value.clone());
        self.view(device, precision, values)
    }

    /// The same network with other values, in the order of the parameters.
    pub fn with_values(&self, values: Vec<Value>) -> Self {
        let mut other = self.copy(self.prefix);
        for (parameter, value) in other.parameters.iter_mut().zip(values) {
            parameter.value = value;
        }
        other
    }

    /// The parameters for a model whose gradients are wanted, and the leaves that will have them, in order.
    pub fn tracked(&self, device: &Device, precision: Precision) -> (Parameters, Vec<Value>) {
        let leaves = self.leaves();
        (self.view(device, precision, leaves.iter().cloned()), leaves)
    }

    /// The values in order, tracked where they are trained.
    pub fn leaves(&self) -> Vec<Value> {
        let leaf = |p: &Trained| match p.trainable {
            true => p.value.tracked(),
            false => p.value.clone(),
        };
        self.parameters.iter().map(leaf).collect()
    }

    /// These values, in the order of the parameters, under their names, and the tables.
    pub fn view(
        &self,
        device: &Device,
        precision: Precision,
        values: impl Iterator<Item = Value>,
    ) -> Parameters {
        let mut parameters = Parameters::new(device.clone(), precision);
        for (parameter, value) in self.parameters.iter().zip(values) {
            parameters.put_value(&parameter.name, value);
        }
        for table in &self.tables {
            parameters.put_table(&table.name, table.data.clone());
        }
        parameters
    }

    /// One AdamW step; `gradients` in the order of the parameters. `decay` and `keep` are the step's numbers with and without
    /// weight decay.
    pub fn update(&mut self, gradients: Vec<Option<Value>>, decay: &Tensor<1>, keep: &Tensor<1>) {
        // Taken out one by one and held by nobody else, so that each can be updated in place.
        let parameters = std::mem::take(&mut self.parameters).into_iter();
        let updated = parameters.zip(gradients).map(|(mut parameter, gradient)| {
            let Some(gradient) = gradient else {
                return parameter;
            };
            let numbers = match parameter.decays() {
                true => decay,
                false => keep,
            };
            let value = parameter.value;
            let moments = parameter
                .moments
                .unwrap_or_else(|| [value.zeros(), value.zeros()]);
            let (value, moments) = value.adamw(gradient, moments, numbers);
            parameter.value = value;
            parameter.moments = Some(moments);
            parameter
        });
        self.parameters = updated.collect();
    }

    /// Moves every parameter towards `online`'s: `momentum · own + (1 − momentum) · online`, `momentum [1]`.
    pub fn follow(&mut self, online: &Self, momentum: &Tensor<1>) {
        let parameters = std::mem::take(&mut self.parameters).into_iter();
        let moved = parameters
            .zip(&online.parameters)
            .map(|(own, online)| Trained {
                value: own.value.averaged(online.value.clone(), momentum),
                ..own
            });
        self.parameters = moved.collect();
    }

    /// Moves the running statistics of the BatchNorm `name` towards those of a batch.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] where there are none, [`Error::Internal`] when the device fails.
    pub async fn follow_statistics(&mut self, name: &str, batch: BatchStatistics) -> Result<()> {
        let names = ["mean", "var"].map(|what| format!("{name}.running_{what}"));
        let mut running = self.tables.iter_mut().filter(|t| names.contains(&t.name));
        match (running.next(), running.next()) {
            (Some(mean), Some(variance)) if mean.name == names[0] => {
                batch.follow([&mut mean.data, &mut variance.data]).await
            }
            _ => Err(Error::MissingTensor(format!(
                "there are no running statistics {names:?} in this order"
            ))),
        }
    }

    /// The root mean square of the differences to `other`, relative to that of `other`.
    ///
    /// # Errors
    /// [`Error::Internal`] when the device fails.
    pub async fn distance(&self, other: &Self, device: &Device) -> Result<f64> {
        let (mut apart, mut size) = (no_squares(device), no_squares(device));
        for (own, other) in self.parameters.iter().zip(&other.parameters) {
            apart = own.value.add_squares(apart, Some(&other.value));
            size = other.value.add_squares(size, None);
        }
        let (apart, size) = (total(apart).await?, total(size).await?);
        Ok(if size > 0.0 {
            (apart / size).sqrt()
        } else {
            0.0
        })
    }

    /// Everything on the host, with the prefix.
    ///
    /// # Errors
    /// [`Error::Internal`] when the device fails.
    pub async fn read(&self) -> Result<Vec<HostTensor>> {
        let mut tensors: Vec<HostTensor> = self
            .tables
            .iter()
            .map(|table| HostTensor {
                name: format!("{}{}", self.prefix, table.name),
                ..table.clone()
            })
            .collect();
        for parameter in &self.parameters {
            tensors.push(HostTensor {
                name: format!("{}{}", self.prefix, parameter.name),
                shape: parameter.shape.clone(),
                data: parameter.value.read().await?,
            });
        }
        Ok(tensors)
    }

    /// Numbers in all parameters, and in those that are trained.
    pub fn count(&self) -> [usize; 2] {
        self.parameters.iter().fold([0, 0], |[all, trained], p| {
            let count: usize = p.shape.iter().product();
            [all + count, trained + usize::from(p.trainable) * count]
        })
    }
}

/// A running sum of squares before its first term.
pub fn no_squares(device: &Device) -> Tensor<1> {
    ops::uploaded(
        TensorData::new(vec![0f32; SQUARE_LANES], [SQUARE_LANES]),
        device,
    )
}

/// The sum of a running sum's lanes.
///
/// # Errors
/// [`Error::Internal`] when the device fails.
pub async fn total(squares: Tensor<1>) -> Result<f64> {
    let lanes = read_values(squares).await?;
    Ok(lanes.into_iter().map(f64::from).sum())
}

impl Value {
    /// From the host, in the original project's layout: a vector `[d]`, a token or table `[1, n, d]`, or a matrix or convolution
    /// `[d_out, ..]`.
    pub fn upload(shape: &[usize], data: Vec<f32>, device: &Device) -> Self {
        if is_vector(shape) {
            let length = data.len();
            return Self::Vector(lasting(TensorData::new(data, [length]), device));
        }
        let d_out = shape[0];
        let d_in = data.len() / d_out;
        let data = exchanged(&data, d_in);
        Self::Matrix(lasting(TensorData::new(data, [d_in, d_out]), device))
    }

    /// To the host, in the original project's layout.
    ///
    /// # Errors
    /// [`Error::Internal`] when the device fails.
    pub async fn read(&self) -> Result<Vec<f32>> {
        match self {
            Self::Vector(vector) => read_values(vector.clone()).await,
            Self::Matrix(matrix) => {
                let d_out = matrix.dims()[1];
                Ok(exchanged(&read_values(matrix.clone()).await?, d_out))
            }
        }
    }

    fn tracked(&self) -> Self {
        match self {
            Self::Vector(x) => Self::Vector(x.clone().autodiff().require_grad()),
            Self::Matrix(x) => Self::Matrix(x.clone().autodiff().require_grad()),
        }
    }

    /// Takes this leaf's gradient out of `gradients`.
    pub fn gradient(&self, gradients: &mut Gradients) -> Option<Self> {
        match self {
            Self::Vector(x) => x.grad_remove(gradients).map(Self::Vector),
            Self::Matrix(x) => x.grad_remove(gradients).map(Self::Matrix),
        }
    }

    /// The sum of two gradients.
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Vector(a), Self::Vector(b)) => Self::Vector(ops::sum(a, b)),
            (Self::Matrix(a), Self::Matrix(b)) => Self::Matrix(ops::sum(a, b)),
            _ => unreachable!("gradients of one parameter are of one kind"),
        }
    }

    fn zeros(&self) -> Self {
        match self {
            Self::Vector(x) => Self::Vector(host_zeros(x)),
            Self::Matrix(x) => Self::Matrix(host_zeros(x)),
        }
    }

    fn adamw(self, gradient: Self, moments: [Self; 2], numbers: &Tensor<1>) -> (Self, [Self; 2]) {
        match (self, gradient, moments) {
            (Self::Vector(p), Self::Vector(g), [Self::Vector(m), Self::Vector(v)]) => {
                let (p, moments) = update::adamw(p, g, [m, v], numbers);
                (Self::Vector(p), moments.map(Self::Vector))
            }
            (Self::Matrix(p), Self::Matrix(g), [Self::Matrix(m), Self::Matrix(v)]) => {
                let (p, moments) = update::adamw(p, g, [m, v], numbers);
                (Self::Matrix(p), moments.map(Self::Matrix))
            }
            _ => unreachable!("a parameter, its gradient and its moments are of one kind"),
        }
    }

    fn averaged(self, value: Self, momentum: &Tensor<1>) -> Self {
        match (self, value) {
            (Self::Vector(k), Self::Vector(q)) => Self::Vector(update::averaged(k, q, momentum)),
            (Self::Matrix(k), Self::Matrix(q)) => Self::Matrix(update::averaged(k, q, momentum)),
            _ => unreachable!("a parameter and its average are of one kind"),
        }
    }

    /// `total`, grown by the sum of this value's squares, or of those of its differences to `minus`.
    pub fn add_squares(&self, total: Tensor<1>, minus: Option<&Self>) -> Tensor<1> {
        match (self, minus) {
            (Self::Vector(x), Some(Self::Vector(m))) => {
                update::add_squares(total, x.clone(), Some(m.clone()))
            }
            (Self::Matrix(x), Some(Self::Matrix(m))) => {
                update::add_squares(total, x.clone(), Some(m.clone()))
            }
            (Self::Vector(x), None) => update::add_squares(total, x.clone(), None),
            (Self::Matrix(x), None) => update::add_squares(total, x.clone(), None),
            _ => unreachable!("a parameter and its average are of one kind"),
        }
    }
}

fn host_zeros<const D: usize>(like: &Tensor<D>) -> Tensor<D> {
    let zeros = vec![0f32; like.shape().num_elements()];
    lasting(TensorData::new(zeros, like.dims()), &like.device())
}

fn lasting<const D: usize>(data: TensorData, device: &Device) -> Tensor<D> {
    ops::lasting(device, data, |data| ops::uploaded(data, device))
}
