//! The I-JEPA step of the bench (`www/bench/training.mjs`) in burn's own tensors, on burn-flex with `simd`: what webjepa's own operations
//! are measured against.

use std::collections::HashMap;

use burn::tensor::activation::{gelu, softmax};
use burn::tensor::module::{layer_norm, linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tower {
    hidden_size: usize,
    layers: usize,
    heads: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdamW {
    lr: f64,
    weight_decay: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
}

/// A task of `training.mjs`, without its functions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    batch: usize,
    grid: [usize; 2],
    patch_size: usize,
    encoder: Tower,
    predictor: Tower,
    eps: f64,
    target_eps: f64,
    context_length: usize,
    target_length: usize,
    targets: usize,
    optimizer: AdamW,
    momentum: f64,
}

/// A trained parameter, flattened: a matrix is a view of it.
struct Parameter {
    decays: bool,
    value: Tensor<1>,
    first: Tensor<1>,
    second: Tensor<1>,
}

type Weights = HashMap<String, Tensor<1>>;

/// A run of training.
#[wasm_bindgen]
pub struct Trainer {
    task: Task,
    device: Device,
    parameters: HashMap<String, Parameter>,
    target: Weights,
    tables: HashMap<String, Tensor<2>>,
    steps: i32,
}

/// `x` `[rows, d_in]` by a weight `[d_in, d_out]`, whose bias has the length of its output.
fn project(w: &Weights, name: &str, x: Tensor<2>) -> Tensor<2> {
    let bias = w[&format!("{name}.bias")].clone();
    let shape = [x.dims()[1], bias.dims()[0]];
    let weight = w[&format!("{name}.weight")].clone().reshape(shape);
    linear(x, weight, Some(bias))
}

fn norm(w: &Weights, name: &str, eps: f64, x: Tensor<2>) -> Tensor<2> {
    let [gain, bias] = ["weight", "bias"].map(|part| w[&format!("{name}.{part}")].clone());
    layer_norm(x, gain, Some(bias), eps)
}

/// Among the tokens of each sequence of `length`; `x` is `[sequences · length, d]`.
fn attention(w: &Weights, at: &str, heads: usize, length: usize, x: Tensor<2>) -> Tensor<2> {
    let [rows, d] = x.dims();
    let (sequences, size) = (rows / length, d / heads);
    let qkv = project(w, &format!("{at}.qkv"), x)
        .reshape([sequences, length, 3 * heads, size])
        .swap_dims(1, 2);
    let part = |i: usize| qkv.clone().narrow(1, i * heads, heads);
    let scores = part(0).matmul(part(1).transpose()) / (size as f64).sqrt();
    let mixed = softmax(scores, 3).matmul(part(2));
    let joined = mixed.swap_dims(1, 2).reshape([rows, d]);
    project(w, &format!("{at}.proj"), joined)
}

fn blocks(
    w: &Weights,
    name: &str,
    tower: &Tower,
    eps: f64,
    length: usize,
    x: Tensor<2>,
) -> Tensor<2> {
    (0..tower.layers).fold(x, |x, i| {
        let at = format!("{name}.{i}");
        let y = norm(w, &format!("{at}.norm1"), eps, x.clone());
        let x = x + attention(w, &format!("{at}.attn"), tower.heads, length, y);
        let y = norm(w, &format!("{at}.norm2"), eps, x.clone());
        let y = gelu(project(w, &format!("{at}.mlp.fc1"), y));
        x + project(w, &format!("{at}.mlp.fc2"), y)
    })
}

/// Rows of patches `[sequences · length, pixels]` and of their positions.
fn encode(
    w: &Weights,
    task: &Task,
    length: usize,
    patches: Tensor<2>,
    positions: Tensor<2>,
) -> Tensor<2> {
    let x = project(w, "encoder.patch_embed.proj", patches) + positions;
    let x = blocks(w, "encoder.blocks", &task.encoder, task.eps, length, x);
    norm(w, "encoder.norm", task.eps, x)
}

/// Embeddings of the targets, `[targets · batch · target_length, d]`, from those of the context.
fn predict(
    w: &Weights,
    task: &Task,
    context: Tensor<2>,
    seen: Tensor<2>,
    wanted: Tensor<2>,
) -> Tensor<2> {
    let d = task.predictor.hidden_size;
    let (context_length, target_length) = (task.context_length, task.target_length);
    let (sequences, length) = (task.targets * task.batch, context_length + target_length);
    let known = (project(w, "predictor.predictor_embed", context) + seen)
        .reshape([task.batch, context_length, d])
        .repeat_dim(0, task.targets);
    let queries = (w["predictor.mask_token"].clone().reshape([1, d]) + wanted).reshape([
        sequences,
        target_length,
        d,
    ]);
    let x = Tensor::cat(vec![known, queries], 1).reshape([sequences * length, d]);
    let x = blocks(
        w,
        "predictor.predictor_blocks",
        &task.predictor,
        task.eps,
        length,
        x,
    );
    let answers = x
        .reshape([sequences, length, d])
        .narrow(1, context_length, target_length)
        .reshape([sequences * target_length, d]);
    let x = norm(w, "predictor.predictor_norm", task.eps, answers);
    project(w, "predictor.predictor_proj", x)
}

/// Beta 1.
fn smooth_l1(difference: Tensor<2>) -> Tensor<1> {
    let size = difference.abs();
    let near = size.clone().clamp_max(1.0);
    // ½ near² + (size − near) is the square below 1 and the line above.
    (near.clone() * near.clone() * 0.5 + (size - near)).mean()
}

impl Trainer {
    fn vector(&self, data: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(data.to_vec(), [data.len()]), &self.device)
    }

    fn indices(&self, data: impl Iterator<Item = i32>) -> Tensor<1, Int> {
        let data: Vec<i32> = data.collect();
        let length = data.len();
        Tensor::from_data(TensorData::new(data, [length]), &self.device)
    }

    fn update(&mut self, mut gradient: impl FnMut(&str) -> Tensor<1>) {
        self.steps += 1;
        let AdamW {
            lr,
            weight_decay,
            beta1,
            beta2,
            eps,
        } = self.task.optimizer;
        let unbias = |beta: f64| 1.0 / (1.0 - beta.powi(self.steps));
        for (name, parameter) in &mut self.parameters {
            let g = gradient(name);
            let first = parameter.first.clone() * beta1 + g.clone() * (1.0 - beta1);
            let second = parameter.second.clone() * beta2 + g.clone() * g * (1.0 - beta2);
            let root = (second.clone() * unbias(beta2)).sqrt() + eps;
            let change = first.clone() * (lr * unbias(beta1)) / root;
            let keep = if parameter.decays {
                1.0 - lr * weight_decay
            } else {
                1.0
            };
            parameter.value = parameter.value.clone() * keep - change;
            (parameter.first, parameter.second) = (first, second);
        }
        let momentum = self.task.momentum;
        for (name, old) in &mut self.target {
            *old = old.clone() * momentum + self.parameters[name].value.clone() * (1.0 - momentum);
        }
    }
}

#[wasm_bindgen]
impl Trainer {
    /// Of a task as JSON, still without weights.
    ///
    /// # Errors
    /// When that is no task.
    #[wasm_bindgen(constructor)]
    pub fn new(task: &str) -> Result<Trainer, JsError> {
        Ok(Self {
            task: serde_json::from_str(task)?,
            device: Device::flex(),
            parameters: HashMap::new(),
            target: HashMap::new(),
            tables: HashMap::new(),
            steps: 0,
        })
    }

    /// A tensor by its original name, matrices as `[d_in, d_out]`; `decays`: whether weight decay takes it.
    pub fn put(&mut self, name: &str, data: &[f32], decays: bool) {
        let value = self.vector(data);
        if name.ends_with("pos_embed") {
            let tokens = self.task.grid[0] * self.task.grid[1];
            let table = value.reshape([tokens, data.len() / tokens]);
            self.tables.insert(name.into(), table);
        } else if let Some(name) = name.strip_prefix("target_") {
            self.target.insert(name.into(), value);
        } else {
            let (first, second) = (value.zeros_like(), value.zeros_like());
            let parameter = Parameter {
                decays,
                value,
                first,
                second,
            };
            self.parameters.insert(name.into(), parameter);
        }
    }

    /// One step on normalised pictures `[batch, 3, height, width]` with masks as `training.mjs` has them; the loss before it.
    pub fn step(&mut self, planar: &[f32], context: &[i32], targets: &[i32]) -> f32 {
        let task = &self.task;
        let [rows, columns] = task.grid;
        let (batch, patch, tokens) = (task.batch, task.patch_size, rows * columns);
        let patches = self
            .vector(planar)
            .reshape([batch, 3, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * tokens, 3 * patch * patch]);
        let row = |image: usize, token: i32| (image * tokens) as i32 + token;
        let context_rows = self.indices(
            context
                .iter()
                .enumerate()
                .map(|(at, &token)| row(at / task.context_length, token)),
        );
        let target_rows = self.indices(
            targets
                .iter()
                .enumerate()
                .map(|(at, &token)| row(at / task.target_length % batch, token)),
        );
        let context_tokens = self.indices(context.iter().copied());
        let target_tokens = self.indices(targets.iter().copied());
        let wide = &self.tables["encoder.pos_embed"];
        let narrow = &self.tables["predictor.predictor_pos_embed"];

        let everywhere = wide.clone().repeat_dim(0, batch);
        let goal = encode(&self.target, task, tokens, patches.clone(), everywhere);
        let ones = Tensor::ones([task.encoder.hidden_size], &self.device);
        let goal = layer_norm(goal, ones, None, task.target_eps).select(0, target_rows);

        let leaves: Weights = self
            .parameters
            .iter()
            .map(|(name, parameter)| {
                (
                    name.clone(),
                    parameter.value.clone().autodiff().require_grad(),
                )
            })
            .collect();
        let seen = patches.select(0, context_rows).autodiff();
        let seen_positions = wide.clone().select(0, context_tokens.clone()).autodiff();
        let context_positions = narrow.clone().select(0, context_tokens).autodiff();
        let target_positions = narrow.clone().select(0, target_tokens).autodiff();
        let embedded = encode(&leaves, task, task.context_length, seen, seen_positions);
        let predicted = predict(&leaves, task, embedded, context_positions, target_positions);
        let loss = smooth_l1(predicted - goal.autodiff());
        let mut gradients = loss.backward();
        self.update(|name| {
            leaves[name]
                .grad_remove(&mut gradients)
                .expect("every parameter is used")
        });
        loss.inner().into_scalar::<f32>()
    }
}

#[cfg(target_family = "wasm")]
mod module {
    use wasm_bindgen::prelude::*;

    unsafe extern "C" {
        fn __wasm_call_ctors();
    }

    /// Runs once when the module is instantiated.
    #[wasm_bindgen(start)]
    fn start() {
        // Once here, or the linker has every export call them; as in webjepa's own modules.
        // SAFETY: the linker defines the symbol; nothing has run before this function.
        unsafe { __wasm_call_ctors() };
        console_error_panic_hook::set_once();
    }
}
