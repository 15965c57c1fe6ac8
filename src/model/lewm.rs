//! LeWorldModel: Maes et al. (arXiv 2603.19312). A picture is one embedding, the projected class token of a ViT, and a causal predictor
//! tells from the last embeddings and the actions between them what the next one will be. Planning asks it which actions end nearest to
//! the embedding of a goal.
//!
//! The projectors have BatchNorm: by the statistics of the batch in training, by running ones everywhere else.

use burn::tensor::{Device, Tensor, TensorData};

use super::world::{Context, Goal};
use super::{Encoder, Pictures};
use crate::config::{LeWmConfig, ModelConfig};
use crate::device::{Precision, read_values};
use crate::nn::conditioned::{ConditionRows, ConditionedBlock};
use crate::nn::norm::{BatchNorm, BatchStatistics};
use crate::nn::ops::{self, Activation, Rows};
use crate::nn::{LayerNorm, Linear, Parameters};
use crate::objective::distance::Distance;
use crate::world::{Candidates, Cost, Slopes};
use crate::{Error, Result};

/// Added to the variance in the predictor's last norm: PyTorch's default.
const LAST_EPS: f64 = 1e-5;
/// Most sequences at once: a dimension of a grid of workgroups.
pub(super) const MAX_SEQUENCES: usize = 65_535;

/// A picture encoder, and how actions change what it says.
pub struct LeWm {
    encoder: Encoder,
    dynamics: Dynamics,
}

/// Everything of LeWorldModel but its encoder, of width `d`.
pub struct Dynamics {
    config: LeWmConfig,
    width: usize,
    device: Device,
    projector: Projector,
    pred_proj: Projector,
    actions: ActionEncoder,
    /// `[history, d]`.
    positions: Tensor<2>,
    blocks: Vec<ConditionedBlock>,
    norm: LayerNorm,
}

/// Linear, BatchNorm, GELU, Linear.
struct Projector {
    hidden: Linear,
    norm: BatchNorm,
    out: Linear,
}

/// A convolution over single action blocks, which is a linear layer, and an MLP with SiLU.
struct ActionEncoder {
    patch_embed: Linear,
    hidden: Linear,
    out: Linear,
}

impl Dynamics {
    /// Takes its parameters, under their published names, out of those of the model that `config` describes.
    ///
    /// # Errors
    /// [`Error::BadConfig`] when it describes no LeWorldModel, [`Error::MissingTensor`].
    pub fn take(
        config: &ModelConfig,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let lewm = config.lewm.as_ref().ok_or_else(|| {
            Error::BadConfig("the configuration does not describe a LeWorldModel".into())
        })?;
        let width = config.hidden_size;
        let sizes = [width, lewm.heads];
        let block = |i: usize, parameters: &mut Parameters| {
            let name = format!("predictor.transformer.layers.{i}");
            ConditionedBlock::take(parameters, &name, sizes, device)
        };
        let positions = parameters.vector("predictor.pos_embedding")?;
        Ok(Self {
            projector: Projector::take(parameters, "projector", device)?,
            pred_proj: Projector::take(parameters, "pred_proj", device)?,
            actions: ActionEncoder {
                patch_embed: parameters.linear("action_encoder.patch_embed")?,
                hidden: parameters.linear("action_encoder.embed.0")?,
                out: parameters.linear("action_encoder.embed.2")?,
            },
            positions: ops::reshaped(positions, [lewm.history, width]),
            blocks: (0..lewm.layers)
                .map(|i| block(i, parameters))
                .collect::<Result<_>>()?,
            norm: parameters.norm("predictor.transformer.norm", LAST_EPS)?,
            config: lewm.clone(),
            width,
            device: device.clone(),
        })
    }

    /// Numbers of an action block.
    pub fn action_size(&self) -> usize {
        self.config.action_size
    }

    /// Embeddings of class tokens, by running statistics: `[rows, d]` → `[rows, d]`.
    pub fn project(&self, class_tokens: Tensor<2>) -> Tensor<2> {
        self.projector.forward(class_tokens)
    }

    /// The same in training: by the statistics of these rows, which it gives.
    pub fn project_batch(&self, class_tokens: Tensor<2>) -> (Tensor<2>, BatchStatistics) {
        self.projector.forward_batch(class_tokens)
    }

    /// Embeddings of action blocks: `[batch, steps, action]` → `[batch, steps, d]`.
    pub fn embed_actions(&self, actions: Tensor<3>) -> Tensor<3> {
        let ActionEncoder {
            patch_embed,
            hidden,
            out,
        } = &self.actions;
        let hidden = hidden.forward(patch_embed.forward(actions));
        out.forward(ops::activate(hidden, Activation::Silu))
    }

    /// What follows each frame before it is projected: embeddings of frames and of the action blocks after each, both
    /// `[batch, frames, d]`, → `[batch, frames, d]`.
    ///
    /// # Errors
    /// [`Error::BadInput`] for more frames than the predictor's history, and for actions of another shape.
    pub fn predict(&self, embeddings: Tensor<3>, actions: Tensor<3>) -> Result<Tensor<3>> {
        let [batch, frames, _] = embeddings.dims();
        let history = self.config.history;
        let wanted = [batch, frames, self.width];
        let fits = embeddings.dims() == wanted && actions.dims() == wanted;
        if !(fits && (1..=history).contains(&frames)) {
            return Err(Error::BadInput(format!(
                "the predictor takes 1 to {history} frames of {} numbers and as many actions, not embeddings {:?} and actions {:?}",
                self.width,
                embeddings.dims(),
                actions.dims()
            )));
        }
        let index = vec![(0..frames).collect(); batch];
        let places = Rows::new(&index, history, &self.device);
        let positions = ops::select(self.positions.clone(), None, &places, None);
        let mut x = ops::sum(embeddings, positions);
        let condition = ops::activate(actions, Activation::Silu);
        let rows = ConditionRows::new(batch, frames, &self.device);
        for block in &self.blocks {
            x = block.forward(x, &condition, &rows);
        }
        Ok(self.norm.forward(x))
    }

    /// Predictions as embeddings, by running statistics: `[rows, d]` → `[rows, d]`.
    pub fn project_predicted(&self, predicted: Tensor<2>) -> Tensor<2> {
        self.pred_proj.forward(predicted)
    }

    /// The same in training: by the statistics of these rows, which it gives.
    pub fn project_predicted_batch(&self, predicted: Tensor<2>) -> (Tensor<2>, BatchStatistics) {
        self.pred_proj.forward_batch(predicted)
    }

    /// What sequences of actions lead to, step by step: embeddings after each action, `horizon` tensors `[count, d]`. The predictor sees
    /// as many of the last embeddings as its history has, predicted ones included.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a context or candidates of other sizes.
    pub fn rollout(&self, context: &Context, candidates: &Candidates) -> Result<Vec<Tensor<2>>> {
        let actions = self.uploaded_actions(context, candidates)?;
        self.rolled_out(&context.embeddings, actions)
    }

    /// What each candidate costs: the sum over features of `(last prediction − goal)²`, or that of all predictions. Read back once.
    ///
    /// # Errors
    /// As [`rollout`](Self::rollout); [`Error::Internal`] when the device fails.
    pub async fn costs(
        &self,
        context: &Context,
        goal: &Goal,
        candidates: &Candidates,
    ) -> Result<Vec<f32>> {
        let costs = self.costed(context, goal, candidates, false)?;
        let values = read_values(costs).await?;
        Ok(self.understood(context, candidates, &values).costs)
    }

    /// The same, and the gradient of each candidate's cost with respect to its actions.
    ///
    /// # Errors
    /// As [`costs`](Self::costs).
    pub async fn slopes(
        &self,
        context: &Context,
        goal: &Goal,
        candidates: &Candidates,
    ) -> Result<Slopes> {
        let costs = self.costed(context, goal, candidates, true)?;
        let values = read_values(costs).await?;
        Ok(self.understood(context, candidates, &values))
    }

    /// What [`understood`](Self::understood) tells costs from, and with `slopes` gradients, still on the device: `[numbers, 1]`.
    pub(super) fn costed(
        &self,
        context: &Context,
        goal: &Goal,
        candidates: &Candidates,
        slopes: bool,
    ) -> Result<Tensor<2>> {
        let actions = self.uploaded_actions(context, candidates)?;
        let column = |x: Tensor<1>| {
            let [count] = x.dims();
            ops::reshaped(x, [count, 1])
        };
        if !slopes {
            return Ok(column(self.distances(context, goal, actions)?));
        }
        let actions = actions.autodiff().require_grad();
        let distances = self.distances(context, goal, actions.clone())?;
        let each = TensorData::new(
            vec![self.width as f32; candidates.count],
            [candidates.count],
        );
        let each = ops::uploaded(each, &self.device);
        let gradients = ops::with_gradient(distances.clone(), each).backward();
        let gradient = actions
            .grad(&gradients)
            .ok_or_else(|| Error::Internal("the actions have no gradient".into()))?;
        let numbers = gradient.shape().num_elements();
        Ok(ops::joined(
            column(distances.inner()),
            ops::reshaped(gradient, [numbers, 1]),
            &self.device,
        ))
    }

    /// Costs and gradients, of which there are none where [`costed`](Self::costed) was not asked for them.
    pub(super) fn understood(
        &self,
        context: &Context,
        candidates: &Candidates,
        values: &[f32],
    ) -> Slopes {
        let (distances, gradient) = values.split_at(candidates.count);
        let past = context.actions.len();
        let sequences = gradient.chunks_exact(past + candidates.horizon * candidates.action);
        Slopes {
            costs: distances.iter().map(|d| d * self.width as f32).collect(),
            gradients: sequences.flat_map(|s| &s[past..]).copied().collect(),
        }
    }

    /// The mean square distance of each candidate's embeddings to the goal.
    fn distances(
        &self,
        context: &Context,
        Goal { embedding, cost }: &Goal,
        actions: Tensor<3>,
    ) -> Result<Tensor<1>> {
        if embedding.dims() != [self.width] {
            return Err(Error::BadInput(format!(
                "the goal is an embedding of {} numbers, not of {:?}",
                self.width,
                embedding.dims()
            )));
        }
        let count = actions.dims()[0];
        let mut steps = self.rolled_out(&context.embeddings, actions)?;
        let goal = ops::repeated(embedding.clone(), count, &self.device);
        let last = steps.swap_remove(steps.len() - 1);
        let away = |step| ops::distance(step, goal.clone(), Distance::Mse);
        Ok(match cost {
            Cost::Last => away(last),
            Cost::Sum => steps
                .into_iter()
                .fold(away(last), |sum, step| ops::sum(sum, away(step))),
        })
    }

    /// Past action blocks and a candidate's, for each candidate: `[count, frames − 1 + horizon, action]`.
    fn uploaded_actions(&self, context: &Context, candidates: &Candidates) -> Result<Tensor<3>> {
        let size = self.config.action_size;
        let [frames, d] = context.embeddings.dims();
        let &Candidates {
            ref data,
            count,
            horizon,
            action,
        } = candidates;
        let bad = |why: String| Err(Error::BadInput(why));
        if d != self.width || frames == 0 || context.actions.len() != (frames - 1) * size {
            return bad(format!(
                "a context has embeddings of {} numbers for each frame and {size} numbers of actions between two, not {frames} of {d} and {}",
                self.width,
                context.actions.len()
            ));
        }
        candidates.check(size)?;
        if count > MAX_SEQUENCES {
            return bad(format!(
                "{count} sequences cannot be predicted at once: give 1 to {MAX_SEQUENCES}"
            ));
        }
        let mut all = Vec::with_capacity(count * context.actions.len() + data.len());
        for sequence in data.chunks_exact(horizon * action) {
            all.extend_from_slice(&context.actions);
            all.extend_from_slice(sequence);
        }
        let shape = [count, frames - 1 + horizon, action];
        Ok(ops::uploaded(TensorData::new(all, shape), &self.device))
    }

    fn rolled_out(&self, context: &Tensor<2>, actions: Tensor<3>) -> Result<Vec<Tensor<2>>> {
        let [count, steps, _] = actions.dims();
        let [frames, d] = context.dims();
        let history = self.config.history;
        let actions = self.embed_actions(actions);
        // The rows from `first` on of sequences of `length`, and with `next` a row more of another tensor.
        let window = |first: usize, end: usize, length: usize, next: bool| {
            let of_sequence = |b: usize| -> Vec<usize> {
                let more = next.then_some(count * length + b);
                (b * length + first..b * length + end).chain(more).collect()
            };
            let index: Vec<Vec<usize>> = (0..count).map(of_sequence).collect();
            let more = if next { count } else { 0 };
            Rows::new(&index, count * length + more, &self.device)
        };
        let first = frames.saturating_sub(history);
        let same = vec![(first..frames).collect(); count];
        let same = Rows::new(&same, frames, &self.device);
        let mut seen = ops::select(context.clone(), None, &same, None);
        let mut predictions = Vec::with_capacity(steps + 1 - frames);
        for end in frames..=steps {
            let length = seen.dims()[1];
            let between = window(end - length, end, steps, false);
            let between = ops::select(actions.clone(), None, &between, None);
            let predicted = self.predict(seen.clone(), between)?;
            let last = window(length - 1, length, length, false);
            let last = ops::select(predicted, None, &last, None);
            let next = self.project_predicted(ops::reshaped(last, [count, d]));
            if end < steps {
                let dropped = (length + 1).saturating_sub(history);
                let moved = window(dropped, length, length, true);
                let added = ops::reshaped(next.clone(), [count * d]);
                seen = ops::select(seen, Some(added), &moved, None);
            }
            predictions.push(next);
        }
        Ok(predictions)
    }
}

impl Projector {
    fn take(parameters: &mut Parameters, name: &str, device: &Device) -> Result<Self> {
        Ok(Self {
            hidden: parameters.linear(&format!("{name}.net.0"))?,
            norm: parameters.batch_norm(&format!("{name}.net.1"), device)?,
            out: parameters.linear(&format!("{name}.net.3"))?,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self.norm.forward(self.hidden.forward(x));
        self.out.forward(ops::activate(hidden, Activation::Gelu))
    }

    fn forward_batch(&self, x: Tensor<2>) -> (Tensor<2>, BatchStatistics) {
        let (hidden, statistics) = self.norm.forward_batch(self.hidden.forward(x));
        let y = self.out.forward(ops::activate(hidden, Activation::Gelu));
        (y, statistics)
    }
}

impl LeWm {
    /// Builds the model from all of its parameters.
    ///
    /// # Errors
    /// [`Error::BadConfig`], [`Error::MissingTensor`].
    pub fn new(
        config: &ModelConfig,
        precision: Precision,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        Ok(Self {
            dynamics: Dynamics::take(config, device, parameters)?,
            encoder: Encoder::new(config, precision, device, parameters)?,
        })
    }

    /// The model of these two, which are of one configuration.
    pub fn of(encoder: Encoder, dynamics: Dynamics) -> Self {
        Self { encoder, dynamics }
    }

    /// The picture encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// How actions change embeddings.
    pub fn dynamics(&self) -> &Dynamics {
        &self.dynamics
    }

    /// Embeddings of pictures: `[batch, d]`.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn encode(&self, pictures: &Pictures) -> Result<Tensor<2>> {
        Ok(self.dynamics.project(self.encoder.class_token(pictures)?))
    }
}
