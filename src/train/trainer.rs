//! A run of training, pulled step by step by its caller.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use serde::Serialize;

use super::init::{fresh, fresh_head};
use super::lora;
use super::network::{HostTensor, Network, no_squares, predictor_prefix, total};
use super::projector::{self, Head};
use super::recipe::{Objective, Recipe, Train};
use super::schedule::steps_per_epoch;
use crate::checkpoint::{Parameter, last_norm, parameters, predictor_parameters};
use crate::config::System;
use crate::device::{Precision, read_values};
use crate::input::ImageView;
use crate::input::augment::Augmenter;
use crate::mask::Masks;
use crate::model::predictor::{Masked, normalised, taken};
use crate::model::{
    ActionPredictor, Dynamics, Encoder, Pictures, Predictor, Told, WorldModel, encode_frames,
};
use crate::nn::norm::BatchStatistics;
use crate::nn::ops::update::AdamW;
use crate::nn::ops::{self, Rows};
use crate::nn::{Parameters, Value};
use crate::probe::monitor::Spread;
use crate::rng::{Generator, Stream};
use crate::{Error, Result};

/// What the names of adapters begin with in a file.
pub(super) const ADAPTERS: &str = "adapters.";

/// Steps between two measurements of how far the target encoder is from the online one.
const EMA_DISTANCE_EVERY: u64 = 10;

/// What a step did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: u64,
    /// The loss before the update.
    pub loss: f64,
    /// Its parts, where it has several.
    pub parts: BTreeMap<&'static str, f64>,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Momentum of the target encoder; 1 where there is none.
    pub ema: f64,
    /// How far the batch's embeddings differ; NaN for a batch of one picture.
    #[serde(flatten)]
    pub spread: Spread,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Root mean square of the target encoder's differences to the online one, relative to the latter's; of the last tenth step.
    pub ema_distance: f64,
    /// In plain words, what is going wrong.
    pub warning: Option<String>,
}

/// Views of the pictures of a step.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// For each view, in the order of the recipe, the pictures' pixels one after the other.
    views: Vec<Vec<f32>>,
    sizes: Vec<[usize; 2]>,
    /// Frames of a clip or window; 1 for pictures.
    frames: usize,
    /// Frames so far.
    pushed: usize,
    random: Option<Stream>,
    masks: Option<Vec<Masks>>,
    actions: Vec<f32>,
    states: Vec<f32>,
}

impl Batch {
    /// Pictures so far, or whole clips or windows.
    pub fn pictures(&self) -> usize {
        self.pushed / self.frames.max(1)
    }

    /// A batch of model input, `[batch, channels, height, width]`, for objectives of one view; with masks of the caller's,
    /// one for each accumulated batch.
    pub fn prepared(pictures: Pictures, masks: Option<Vec<Masks>>) -> Self {
        Self {
            views: vec![pictures.pixels],
            sizes: vec![pictures.size],
            frames: pictures.frames,
            pushed: pictures.batch * pictures.frames,
            random: None,
            masks,
            actions: Vec::new(),
            states: Vec::new(),
        }
    }

    /// Adds the action blocks of a window, `[history, action]`, each of what happens between a frame and the next, in the units of
    /// [`ActionScale`](crate::world::ActionScale). NaN becomes 0.
    pub fn act(&mut self, actions: &[f32]) {
        let known = |&v: &f32| if v.is_nan() { 0.0 } else { v };
        self.actions.extend(actions.iter().map(known));
    }

    /// Adds the states in a window, `[frames, state]`; that in the last frame is not used.
    pub fn tell(&mut self, states: &[f32]) {
        self.states.extend_from_slice(states);
    }
}

/// A run: the networks, and how far it has come.
pub struct Trainer {
    recipe: Recipe,
    device: Device,
    augmenters: Vec<Augmenter>,
    /// Encoder, the predictor or projector, and adapters of the encoder where there are some: what is trained.
    pub(super) online: Vec<Network>,
    /// The moving average of the encoder, where the objective has one.
    pub(super) target: Option<Network>,
    pub(super) step: u64,
    pub(super) start: Option<Spread>,
    pub(super) ema_distance: f64,
    masks: Vec<Masks>,
}

/// What a checkpoint gives a run.
pub struct Loaded {
    /// Of the encoder that was read, and of the predictor where it was.
    pub parameters: Parameters,
    /// Of the other encoder, where the checkpoint has two.
    pub other: Option<Parameters>,
    /// Whether the first one is the target encoder.
    pub is_target: bool,
    /// Whether there is a predictor.
    pub predictor: bool,
}

/// What one batch gives before the optimizer steps.
struct Pass {
    /// The loss, and its parts.
    loss: f64,
    parts: Vec<(&'static str, f64)>,
    gradients: Vec<Vec<Option<Value>>>,
    /// `[pictures, d]`.
    embeddings: Tensor<2>,
    /// Of each BatchNorm that keeps running statistics.
    statistics: Vec<(&'static str, BatchStatistics)>,
}

impl Trainer {
    /// A run from fresh weights.
    ///
    /// # Errors
    /// As [`Augmenter::new`].
    pub fn new(recipe: Recipe, device: &Device) -> Result<Self> {
        let (model, seed) = (&recipe.model, recipe.seed);
        let network = |prefix, list: Vec<Parameter>, name| {
            let mut network = Network::new(prefix);
            for tensor in fresh(&list, model, recipe.depth_rescale, seed, name) {
                network.put(tensor, device);
            }
            network
        };
        let head = |prefix, list: Vec<Parameter>| {
            let mut head = Network::new(prefix);
            for tensor in fresh_head(&list, seed) {
                head.put(tensor, device);
            }
            head
        };
        let encoder = network("encoder.", parameters(model), "encoder");
        let (second, target) = match recipe.objective {
            Objective::Ijepa { .. } | Objective::Vjepa { .. } => (
                network("predictor.", predictor_parameters(model), "predictor"),
                Some(encoder.copy("target_encoder.")),
            ),
            Objective::Lejepa { .. } => {
                let list = projector::parameters(model.hidden_size, recipe.projector);
                (head("projector.", list), None)
            }
            Objective::Lewm { .. } => (
                head(predictor_prefix(model), predictor_parameters(model)),
                None,
            ),
            Objective::VJepa2Ac { .. } => (
                network("predictor.", predictor_parameters(model), "predictor"),
                None,
            ),
        };
        let mut online = vec![encoder, second];
        if let Train::Lora(adapters) = recipe.train {
            let list = lora::parameters(&parameters(model), adapters.rank);
            let mut network = Network::new(ADAPTERS);
            for tensor in lora::fresh(&list, seed) {
                network.put(tensor, device);
            }
            online.push(network);
        }
        Self::assemble(recipe, device, online, target)
    }

    /// A run that goes on from the weights of a loaded model: its encoder, its predictor where the objective has one and it
    /// has one, and its target encoder where it has two. What it lacks is made afresh.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], as [`new`](Self::new).
    pub fn from_loaded(recipe: Recipe, device: &Device, mut loaded: Loaded) -> Result<Self> {
        let mut run = Self::new(recipe, device)?;
        let model = &run.recipe.model;
        let list = parameters(model);
        if loaded.predictor && !matches!(run.recipe.objective, Objective::Lejepa { .. }) {
            run.online[1] = Network::predictor(model, &mut loaded.parameters)?;
        }
        let encoder = Network::take("encoder.", &list, &mut loaded.parameters)?;
        let other = match loaded.other {
            Some(mut other) => Network::take("encoder.", &list, &mut other)?,
            None => encoder.copy("encoder."),
        };
        // An encoder that stays as it is is the one that a world model would be loaded with.
        let of_actions = matches!(run.recipe.objective, Objective::VJepa2Ac { .. });
        let (target, online) = match loaded.is_target && !of_actions {
            true => (encoder, other),
            false => (other, encoder),
        };
        if run.target.is_some() {
            run.target = Some(target.copy("target_encoder."));
        }
        run.online[0] = online;
        run.freeze();
        Ok(run)
    }

    pub(super) fn assemble(
        recipe: Recipe,
        device: &Device,
        online: Vec<Network>,
        target: Option<Network>,
    ) -> Result<Self> {
        let normalization = &recipe.normalization;
        let augmenters = recipe
            .views
            .iter()
            .map(|group| {
                Augmenter::new(
                    group.augmentation.clone(),
                    &normalization.mean,
                    &normalization.std,
                )
            })
            .collect::<Result<_>>()?;
        let mut run = Self {
            recipe,
            device: device.clone(),
            augmenters,
            online,
            target,
            step: 0,
            start: None,
            ema_distance: 0.0,
            masks: Vec::new(),
        };
        run.freeze();
        Ok(run)
    }

    /// Fixes what the recipe does not train.
    fn freeze(&mut self) {
        let of_actions = matches!(self.recipe.objective, Objective::VJepa2Ac { .. });
        let first = match self.recipe.train {
            Train::Full if !of_actions => return,
            Train::LastBlocks(count) => self.recipe.model.layers - count,
            Train::Full | Train::Lora(_) => {
                for parameter in &mut self.online[0].parameters {
                    parameter.trainable = false;
                }
                return;
            }
        };
        for parameter in &mut self.online[0].parameters {
            let block = parameter
                .name
                .strip_prefix("blocks.")
                .and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
            parameter.trainable = match block {
                Some(block) => block >= first,
                None => parameter
                    .name
                    .starts_with(last_norm(self.recipe.model.system)),
            };
        }
    }

    /// What the run is.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Steps that have been made.
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// Numbers in all trained networks, and in what is trained of them.
    pub fn parameter_count(&self) -> [usize; 2] {
        self.online.iter().fold([0, 0], |[all, trained], network| {
            let [a, t] = network.count();
            [all + a, trained + t]
        })
    }

    /// The masks of the last step, one for each accumulated batch; none where the objective has none.
    pub fn last_masks(&self) -> &[Masks] {
        &self.masks
    }

    /// Which pictures of a data set of `length` the next step takes: each epoch goes through all of them in an order of its
    /// own, leaving out the last, incomplete batch.
    ///
    /// # Errors
    /// [`Error::BadInput`] when there are fewer pictures than a step takes.
    pub fn next_indices(&self, length: usize) -> Result<Vec<usize>> {
        let count = self.recipe.pictures();
        if length < count {
            return Err(Error::BadInput(format!(
                "a step takes {count} different pictures and the data set has {length}: lower batchSize, or add pictures"
            )));
        }
        Ok(shuffled(self.recipe.seed, self.step, length, count))
    }

    /// An empty batch for the next step.
    pub fn new_batch(&self) -> Batch {
        let views = self.recipe.views.iter();
        let sizes: Vec<[usize; 2]> = views
            .flat_map(|group| std::iter::repeat_n(group.augmentation.size, group.count))
            .collect();
        Batch {
            views: vec![Vec::new(); sizes.len()],
            sizes,
            frames: self.recipe.frames(),
            pushed: 0,
            random: Some(Stream::new(self.recipe.seed, "augmentation", self.step)),
            masks: None,
            actions: Vec::new(),
            states: Vec::new(),
        }
    }

    /// Adds a picture's views to a batch, or the next frame of a clip, whose frames are all augmented alike.
    ///
    /// # Errors
    /// As [`Augmenter::apply`]; the batch is then as it was.
    pub fn push(&self, batch: &mut Batch, image: &ImageView) -> Result<()> {
        let Some(random) = &mut batch.random else {
            return Err(Error::BadInput(
                "a prepared batch takes no further pictures".into(),
            ));
        };
        let mut of_frame = random.clone();
        let mut made = Vec::with_capacity(batch.views.len());
        for (group, augmenter) in self.recipe.views.iter().zip(&self.augmenters) {
            for _ in 0..group.count {
                made.push(augmenter.apply(image, &mut of_frame)?);
            }
        }
        for (view, pixels) in batch.views.iter_mut().zip(made) {
            view.extend(pixels);
        }
        batch.pushed += 1;
        if batch.pushed.is_multiple_of(batch.frames) {
            *random = of_frame;
        }
        Ok(())
    }

    /// Gives a batch masks of the caller's in place of those that the step would draw: as [`last_masks`](Self::last_masks) has
    /// them, joined over the accumulated batches, whose images follow each other in every list of lists.
    ///
    /// # Errors
    /// [`Error::BadMask`] for an objective without masks and for masks of another number of images.
    pub fn mask(&self, batch: &mut Batch, masks: Masks) -> Result<()> {
        let Recipe {
            batch_size,
            accumulate,
            ..
        } = self.recipe;
        if self.target.is_none() {
            return Err(Error::BadMask(format!(
                "the objective {} has no masks",
                self.recipe.objective.name()
            )));
        }
        let images = batch_size * accumulate;
        let lists = std::iter::once(&masks.context).chain(&masks.targets);
        for list in lists {
            if list.is_empty() || !list.len().is_multiple_of(images) {
                return Err(Error::BadMask(format!(
                    "there are {} lists of tokens for the {images} images of a step; give one for each",
                    list.len()
                )));
            }
        }
        let part = |lists: &[Vec<usize>], part: usize| {
            let length = lists.len() / accumulate;
            lists[part * length..(part + 1) * length].to_vec()
        };
        let parts = (0..accumulate).map(|at| Masks {
            context: part(&masks.context, at),
            targets: masks.targets.iter().map(|block| part(block, at)).collect(),
        });
        batch.masks = Some(parts.collect());
        Ok(())
    }

    /// The loss of a batch and the gradients of all trained parameters, in the original project's layout: what a step would
    /// use.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub async fn gradients(&mut self, batch: &Batch) -> Result<(f64, Vec<HostTensor>)> {
        let pass = self.accumulated(batch).await?;
        let share = (self.recipe.accumulate as f32).recip();
        let mut tensors = Vec::new();
        for (network, gradients) in self.online.iter().zip(&pass.gradients) {
            for (parameter, gradient) in network.parameters.iter().zip(gradients) {
                let Some(gradient) = gradient else { continue };
                let mut data = gradient.read().await?;
                data.iter_mut().for_each(|g| *g *= share);
                tensors.push(HostTensor {
                    name: format!("{}{}", network.prefix, parameter.name),
                    shape: parameter.shape.clone(),
                    data,
                });
            }
        }
        Ok((pass.loss, tensors))
    }

    /// One step: the schedules, targets without gradient, context, loss, backpropagation, AdamW, moving average.
    ///
    /// # Errors
    /// [`Error::BadInput`] when the batch has another number of pictures than the recipe says, or when the loss or a gradient
    /// is not finite: nothing has been changed then, and the message names the tensor. [`Error::BadMask`];
    /// [`Error::Internal`] when the device fails.
    pub async fn step(&mut self, batch: &Batch) -> Result<StepReport> {
        let pass = self.accumulated(batch).await?;
        let step = self.step + 1;
        let schedule = &self.recipe.schedule;
        let (lr, weight_decay) = (schedule.lr(step), schedule.weight_decay(step));
        let ema = match self.target {
            Some(_) => schedule.ema(self.step),
            None => 1.0,
        };

        let grown = |squares, gradients: &[Option<Value>]| {
            let gradients = gradients.iter().flatten();
            gradients.fold(squares, |squares, g| g.add_squares(squares, None))
        };
        let none = no_squares(&self.device);
        let networks = pass.gradients.iter();
        let squares = networks.fold(none.clone(), |squares, of| grown(squares, of));
        let share = (self.recipe.accumulate as f64).recip();
        let grad_norm = total(squares.clone()).await?.sqrt() * share;
        if !(pass.loss.is_finite() && grad_norm.is_finite()) {
            return Err(self.not_finite(step, &pass).await);
        }
        let embeddings = read_values(pass.embeddings).await?;

        let optimizer = self.recipe.optimizer;
        let late = step > schedule.warmup() || !optimizer.clip_after_warmup;
        let clip = optimizer.clip.filter(|_| late);
        let numbers = |squares: &Tensor<1>, weight_decay| {
            let adamw = AdamW {
                lr,
                beta1: optimizer.beta1,
                beta2: optimizer.beta2,
                eps: optimizer.eps,
                weight_decay,
                step: step as u32,
            };
            // The squares are those of the sum over accumulated batches; the limit is for its share.
            let limit = clip.unwrap_or(0.0) / share;
            let numbers = adamw.numbers(share as f32, limit as f32).to_vec();
            let numbers = ops::uploaded(TensorData::new(numbers, [8]), &self.device);
            match clip {
                Some(_) => ops::update::clipped(squares, numbers),
                None => numbers,
            }
        };
        for (network, gradients) in self.online.iter_mut().zip(pass.gradients) {
            let squares = match optimizer.clip_each {
                true => grown(none.clone(), &gradients),
                false => squares.clone(),
            };
            let (decay, keep) = (numbers(&squares, weight_decay), numbers(&squares, 0.0));
            network.update(gradients, &decay, &keep);
        }
        for (name, statistics) in pass.statistics {
            self.online[1].follow_statistics(name, statistics).await?;
        }
        if let Some(target) = &mut self.target {
            let online = computing(&self.online, self.recipe.train, &self.device);
            let momentum = TensorData::new(vec![ema as f32], [1]);
            target.follow(&online, &ops::uploaded(momentum, &self.device));
            if step.is_multiple_of(EMA_DISTANCE_EVERY) || step == 1 {
                self.ema_distance = target.distance(&online, &self.device).await?;
            }
        }
        self.step = step;

        let spread = match batch.pictures() {
            1 => Spread {
                std: f64::NAN,
                effective_rank: f64::NAN,
                cosine: f64::NAN,
            },
            pictures => Spread::of(&embeddings, embeddings.len() / pictures)?,
        };
        let start = *self.start.get_or_insert(spread);
        Ok(StepReport {
            step,
            loss: pass.loss,
            parts: pass.parts.into_iter().collect(),
            lr,
            weight_decay,
            ema,
            spread,
            grad_norm,
            ema_distance: self.ema_distance,
            warning: spread.warning(&start),
        })
    }

    /// Which tensor made a step impossible.
    async fn not_finite(&self, step: u64, pass: &Pass) -> Error {
        let mut culprit = format!("the loss is {}", pass.loss);
        'search: for (network, gradients) in self.online.iter().zip(&pass.gradients) {
            for (parameter, gradient) in network.parameters.iter().zip(gradients) {
                let Some(gradient) = gradient else { continue };
                match gradient.read().await {
                    Ok(data) if data.iter().all(|g| g.is_finite()) => {}
                    Ok(_) => {
                        culprit += &format!(
                            ", and the gradient of {}{} is not finite",
                            network.prefix, parameter.name
                        );
                        break 'search;
                    }
                    Err(error) => return error,
                }
            }
        }
        Error::BadInput(format!(
            "step {step} was not made: {culprit}. The weights are as they were after step {}; lower the learning rate or \
             clip gradients, and look at the pictures",
            self.step
        ))
    }

    /// All accumulated batches of a step.
    async fn accumulated(&mut self, batch: &Batch) -> Result<Pass> {
        let (count, accumulate) = (self.recipe.batch_size, self.recipe.accumulate);
        if !batch.pushed.is_multiple_of(batch.frames) {
            return Err(Error::BadInput(format!(
                "the last clip or window of the batch has {} frames, and a step takes {} of each",
                batch.pushed % batch.frames,
                batch.frames
            )));
        }
        if batch.pictures() != count * accumulate {
            return Err(Error::BadInput(format!(
                "the batch has {} pictures, and a step takes {}",
                batch.pictures(),
                count * accumulate
            )));
        }
        self.masks.clear();
        let mut whole: Option<Pass> = None;
        for part in 0..accumulate {
            let views: Vec<Pictures> = batch
                .views
                .iter()
                .zip(&batch.sizes)
                .map(|(pixels, &size)| {
                    let length = pixels.len() / accumulate;
                    Pictures {
                        pixels: pixels[part * length..(part + 1) * length].to_vec(),
                        batch: count,
                        frames: batch.frames,
                        size,
                    }
                })
                .collect();
            let given = batch.masks.as_ref().and_then(|masks| masks.get(part));
            let pass = match self.recipe.objective {
                Objective::Ijepa { .. } | Objective::Vjepa { .. } => {
                    self.predict(&views[0], part, given.cloned()).await?
                }
                Objective::Lejepa { .. } => self.compare_views(&views, part).await?,
                Objective::Lewm { .. } => {
                    let actions = shared(&batch.actions, part, accumulate);
                    self.predict_windows(&views[0], actions, part).await?
                }
                Objective::VJepa2Ac { auto_steps, .. } => {
                    let told = Told {
                        actions: shared(&batch.actions, part, accumulate),
                        states: shared(&batch.states, part, accumulate),
                    };
                    self.predict_frames(&views[0], told, auto_steps).await?
                }
            };
            whole = Some(match whole {
                None => pass,
                Some(whole) => whole.plus(pass, &self.device),
            });
        }
        let whole = whole.ok_or_else(|| Error::Internal("a step without a batch".into()))?;
        let share = (accumulate as f64).recip();
        Ok(Pass {
            loss: whole.loss * share,
            parts: whole
                .parts
                .into_iter()
                .map(|(name, v)| (name, v * share))
                .collect(),
            ..whole
        })
    }

    /// The trained encoder as it computes, with the leaves of the encoder and of its adapters.
    fn tracked_encoder(&self) -> (Parameters, Vec<Vec<Value>>) {
        let (mut parameters, leaves) = match (&*self.online, self.recipe.train) {
            ([encoder, _, adapters], Train::Lora(lora)) => {
                let leaves = adapters.leaves();
                let values = lora.merged(encoder, &leaves, &self.device);
                let dtype = self.recipe.dtype;
                let parameters = encoder.view(&self.device, dtype, values.into_iter());
                (parameters, vec![encoder.leaves(), leaves])
            }
            _ => {
                let (parameters, leaves) = self.online[0].tracked(&self.device, self.recipe.dtype);
                (parameters, vec![leaves])
            }
        };
        parameters.recompute_blocks(self.recipe.gradient_checkpointing);
        (parameters, leaves)
    }

    /// The encoder that is trained, its adapters merged into it.
    pub fn online_network(&self) -> Cow<'_, Network> {
        computing(&self.online, self.recipe.train, &self.device)
    }

    /// The world model as it is now.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the objectives that train none.
    pub fn world_model(&self) -> Result<WorldModel> {
        let dynamics = self.dynamics_network().ok_or_else(|| {
            Error::Unsupported(
                "only the objectives \"lewm\" and \"vjepa2-ac\" train a world model: ask for model()"
                    .into(),
            )
        })?;
        let (config, device) = (&self.recipe.model, &self.device);
        let mut encoder = self.encoder_network().fixed(device, Precision::F32);
        let mut dynamics = dynamics.fixed(device, Precision::F32);
        let encoder = Encoder::new(config, Precision::F32, device, &mut encoder)?;
        WorldModel::of(encoder, device, &mut dynamics)
    }

    fn encoder(&self, mut parameters: Parameters) -> Result<Encoder> {
        Encoder::new(
            &self.recipe.model,
            self.recipe.dtype,
            &self.device,
            &mut parameters,
        )
    }

    /// The loss of predicting what masks hide.
    async fn predict(
        &mut self,
        pictures: &Pictures,
        part: usize,
        given: Option<Masks>,
    ) -> Result<Pass> {
        let objective = self.recipe.objective;
        let distance = objective
            .distance()
            .ok_or_else(|| Error::Internal("the objective has no masks".into()))?;
        let (stop_gradient, dense) = match objective {
            Objective::Ijepa { stop_gradient, .. } => (stop_gradient, None),
            Objective::Vjepa { context_loss, .. } => (true, context_loss),
            _ => (true, None),
        };
        let config = &self.recipe.model;
        let grid = config.grid_of(pictures.frames, pictures.size)?;
        let masks = match given {
            Some(masks) => masks,
            None => {
                // One number for each batch of the run.
                let number = self.step * self.recipe.accumulate as u64 + part as u64;
                let stream = |name| Stream::new(self.recipe.seed, name, number);
                self.recipe.masks.sample(
                    grid,
                    pictures.batch,
                    &mut stream("mask sizes"),
                    &mut stream("mask places"),
                )?
            }
        };
        let kinds = self.kinds(&masks, pictures.batch)?;
        let device = self.device.clone();
        let (online, mut leaves) = self.tracked_encoder();
        let (mut predictor, predictor_leaves) = self.online[1].tracked(&device, self.recipe.dtype);
        predictor.recompute_blocks(self.recipe.gradient_checkpointing);
        let online = self.encoder(online)?;
        let predictor = Predictor::take(config, &device, &mut predictor)?;
        let levels = predictor.levels();

        let every_token = match (&self.target, stop_gradient) {
            (Some(target), true) => self
                .encoder(target.fixed(&device, self.recipe.dtype))?
                .levels(pictures, None, levels)?,
            _ => online.levels(pictures, None, levels)?,
        };
        let embeddings = ops::pooled(every_token.clone().inner());
        let normed = normalised(every_token, levels, &device);

        let weigh = |rows: &Tensor<1>, weights: Vec<f32>| {
            let weights = TensorData::new(weights, rows.dims());
            ops::uploaded::<1>(weights, &device)
        };
        let mut root: Option<Tensor<1>> = None;
        let mut grow = |more: Tensor<1>| {
            root = Some(match root.take() {
                None => more,
                Some(root) => ops::sum(root, more),
            });
        };
        let context_weight = dense.map_or(0.0, |dense| dense.weight_at(self.step + 1));
        let (mut loss, mut context_loss) = (0.0, 0.0);
        let share = (kinds.len() as f64).recip();
        for kind in &kinds {
            let times = kind.context.len() / pictures.batch;
            let seen = match times {
                1 => online.levels(pictures, Some(&kind.context), levels)?,
                _ => online.levels(&pictures.repeated(times), Some(&kind.context), levels)?,
            };
            let masked = Masked {
                context: &kind.context,
                targets: &kind.targets,
                grid,
                mask_index: kind.mask_index,
                picture: pictures.frames == 1,
            };
            let wanted_at =
                |tokens: &[Vec<Vec<usize>>]| taken(normed.clone(), tokens, times, &device);
            let predicted = if context_weight > 0.0 {
                let [predicted, at_context] = predictor.forward_with_context(seen, masked)?;
                let wanted = wanted_at(std::slice::from_ref(&kind.context))?;
                let rows = ops::distance(at_context, wanted, distance);
                let weights = match dense {
                    Some(dense) if dense.by_distance => kind.closeness(grid),
                    _ => vec![1.0; rows.dims()[0]],
                };
                let each = share * context_weight / weights.len() as f64;
                let weights: Vec<f32> = weights.iter().map(|w| (each * w) as f32).collect();
                grow(ops::with_gradient(
                    rows.clone(),
                    weigh(&rows, weights.clone()),
                ));
                let rows = read_values(rows.inner()).await?;
                let weighted = rows.iter().zip(&weights);
                context_loss += weighted
                    .map(|(&v, &w)| f64::from(v) * f64::from(w))
                    .sum::<f64>();
                predicted
            } else {
                predictor.forward(seen, masked)?
            };
            let wanted = wanted_at(&kind.targets)?;
            let rows = ops::distance(predicted.clone(), wanted.clone(), distance);
            let count = rows.dims()[0];
            let even = weigh(&rows, vec![(share / count as f64) as f32; count]);
            grow(ops::with_gradient(rows.clone(), even.clone()));
            if !stop_gradient {
                // The distance is symmetric: its gradient for the targets is that of predicting the predictions from them.
                let reverse = ops::distance(wanted, predicted.inner(), distance);
                grow(ops::with_gradient(reverse, even));
            }
            let rows = read_values(rows.inner()).await?;
            loss += share * rows.iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64;
        }
        let root = root.ok_or_else(|| Error::BadMask("there are no masks".into()))?;
        leaves.insert(1, predictor_leaves);
        let gradients = collected(&leaves, root.backward());
        self.masks.push(masks);
        Ok(Pass {
            loss: loss + context_loss,
            parts: match dense {
                Some(_) => vec![("targets", loss), ("context", context_loss)],
                None => Vec::new(),
            },
            gradients,
            embeddings,
            statistics: Vec::new(),
        })
    }

    /// What is predicted from what: of I-JEPA everything from every context, of V-JEPA each kind of mask by itself.
    fn kinds(&self, masks: &Masks, batch: usize) -> Result<Vec<Kind>> {
        if matches!(self.recipe.objective, Objective::Ijepa { .. }) {
            return Ok(vec![Kind {
                context: masks.context.clone(),
                targets: masks.targets.clone(),
                mask_index: 0,
            }]);
        }
        if masks.context.len() != batch * masks.targets.len() {
            return Err(Error::BadMask(format!(
                "{} context masks and {} blocks of targets for {batch} clips: each kind of mask has one of both for each clip",
                masks.context.len(),
                masks.targets.len()
            )));
        }
        let first = self.recipe.model.system == System::VJepa;
        let contexts = masks.context.chunks_exact(batch).zip(&masks.targets);
        let mut kinds = Vec::with_capacity(masks.targets.len());
        for (i, (context, block)) in contexts.enumerate() {
            kinds.push(Kind {
                context: context.to_vec(),
                targets: vec![block.clone()],
                // V-JEPA 1 has a mask token for each kind of mask, V-JEPA 2 one for each length of clips, of which there is one.
                mask_index: if first { i } else { 0 },
            });
        }
        Ok(kinds)
    }

    /// LeJEPA's loss of a batch.
    async fn compare_views(&mut self, views: &[Pictures], part: usize) -> Result<Pass> {
        let device = self.device.clone();
        let loss = self
            .recipe
            .lejepa()
            .ok_or_else(|| Error::Internal("the objective is not LeJEPA".into()))?;
        let (online, mut leaves) = self.tracked_encoder();
        let (mut head, head_leaves) = self.online[1].tracked(&device, self.recipe.dtype);
        let online = self.encoder(online)?;
        let head = Head::take(&mut head, &device)?;

        let mut pooled: Option<Tensor<2>> = None;
        let mut embeddings = None;
        let mut at = 0;
        for group in &self.recipe.views {
            let of_group = &views[at..at + group.count];
            at += group.count;
            let pictures = Pictures {
                pixels: of_group.iter().flat_map(|v| &v.pixels).copied().collect(),
                batch: of_group.iter().map(|v| v.batch).sum(),
                frames: 1,
                size: of_group[0].size,
            };
            let of_group = ops::pooled(last(online.forward(&pictures, None, 1)?));
            pooled = Some(match pooled {
                None => {
                    embeddings = Some(of_group.clone().inner());
                    of_group
                }
                Some(before) => ops::joined(before, of_group, &device),
            });
        }
        let (Some(pooled), Some(embeddings)) = (pooled, embeddings) else {
            return Err(Error::Internal("the recipe has no views".into()));
        };
        let z = head.forward(pooled);
        let [rows, d] = z.dims();
        let values = read_values(z.clone().inner()).await?;
        let number = self.step * self.recipe.accumulate as u64 + part as u64;
        let mut random = Stream::new(self.recipe.seed, "directions", number);
        let directions = loss.sigreg.draw(d, &mut random)?;
        let n = rows / views.len();
        let losses = loss.evaluate(&values, [views.len(), n, d], &directions)?;
        let gradient = TensorData::new(losses.gradient, [rows, d]);
        let root = ops::with_gradient(z, ops::uploaded(gradient, &device));
        leaves.insert(1, head_leaves);
        let gradients = collected(&leaves, root.backward());
        // The first view stands for the batch in what is watched.
        let embeddings = ops::first_rows(embeddings, n, &device);
        Ok(Pass {
            loss: losses.loss,
            parts: vec![("invariance", losses.invariance), ("sigreg", losses.sigreg)],
            gradients,
            embeddings,
            statistics: Vec::new(),
        })
    }

    /// LeWorldModel's loss of windows and of the action blocks in them, `[windows, history, action]`.
    async fn predict_windows(
        &mut self,
        windows: &Pictures,
        actions: &[f32],
        part: usize,
    ) -> Result<Pass> {
        let device = self.device.clone();
        let loss = self
            .recipe
            .lewm()
            .ok_or_else(|| Error::Internal("the objective is not LeWorldModel's".into()))?;
        let config = &self.recipe.model;
        let (online, mut leaves) = self.tracked_encoder();
        let (mut dynamics, dynamics_leaves) = self.online[1].tracked(&device, self.recipe.dtype);
        let online = self.encoder(online)?;
        let dynamics = Dynamics::take(config, &device, &mut dynamics)?;
        let (batch, steps) = (windows.batch, windows.frames);
        let (history, d) = (self.recipe.frames() - 1, config.hidden_size);
        let action = config.lewm.as_ref().map_or(0, |lewm| lewm.action_size);
        if steps != history + 1 || actions.len() != batch * history * action {
            return Err(Error::BadInput(format!(
                "{} numbers of actions for windows of {steps} frames: {batch} windows of {} frames have {history} blocks of {action} each",
                actions.len(),
                history + 1
            )));
        }

        let frames = Pictures {
            pixels: windows.pixels.clone(),
            batch: batch * steps,
            frames: 1,
            ..*windows
        };
        let tokens = online.class_token(&frames)?;
        let (embeddings, of_embeddings) = dynamics.project_batch(tokens);
        let actions = TensorData::new(actions.to_vec(), [batch, history, action]);
        let actions = dynamics.embed_actions(ops::uploaded(actions, &device));
        let of_windows = |steps_of: Range<usize>| {
            let of_window = |b: usize| steps_of.clone().map(|step| b * steps + step).collect();
            let index: Vec<Vec<usize>> = (0..batch).map(of_window).collect();
            Rows::new(&index, batch * steps, &device)
        };
        let seen = ops::select(embeddings.clone(), None, &of_windows(0..history), None);
        let predicted = ops::reshaped(dynamics.predict(seen, actions)?, [batch * history, d]);
        let (predictions, of_predictions) = dynamics.project_predicted_batch(predicted);

        let number = self.step * self.recipe.accumulate as u64 + part as u64;
        let mut random = Stream::new(self.recipe.seed, "directions", number);
        let directions = loss.sigreg.draw(d, &mut random)?;
        let values = read_values(embeddings.clone().inner()).await?;
        let predicted = read_values(predictions.clone().inner()).await?;
        let losses = loss.evaluate(&values, &predicted, [batch, steps, d], &directions)?;
        let upload = |gradient: Vec<f32>| {
            let shape = [gradient.len() / d, d];
            ops::uploaded::<2>(TensorData::new(gradient, shape), &device)
        };
        let latest = ops::select(
            embeddings.clone().inner(),
            None,
            &of_windows(history..steps),
            None,
        );
        let root = ops::sum(
            ops::with_gradient(embeddings, upload(losses.embeddings)),
            ops::with_gradient(predictions, upload(losses.predictions)),
        );
        leaves.insert(1, dynamics_leaves);
        Ok(Pass {
            loss: losses.loss,
            parts: vec![
                ("prediction", losses.prediction),
                ("sigreg", losses.sigreg),
                ("similarity", losses.similarity),
            ],
            gradients: collected(&leaves, root.backward()),
            embeddings: ops::reshaped(latest, [batch, d]),
            statistics: vec![
                ("projector.net.1", of_embeddings),
                ("pred_proj.net.1", of_predictions),
            ],
        })
    }

    /// V-JEPA 2-AC's loss of windows: of every frame predicted from the ones before it, and of `auto_steps` frames predicted from
    /// predictions. What is told is of every window, `[windows, frames − 1, action]` and `[windows, frames, state]`.
    async fn predict_frames(
        &mut self,
        windows: &Pictures,
        told: Told<'_>,
        auto_steps: usize,
    ) -> Result<Pass> {
        let device = self.device.clone();
        let config = &self.recipe.model;
        let distance = self.recipe.objective.distance();
        let described = config.predictor.as_ref().and_then(|p| p.actions);
        let (Some(distance), Some(sizes)) = (distance, described) else {
            return Err(Error::Internal("the objective has no actions".into()));
        };
        let (batch, frames) = (windows.batch, windows.frames);
        let steps = frames - 1;
        let wanted = [
            batch * steps * sizes.action_size,
            batch * frames * sizes.state_size,
        ];
        if [told.actions.len(), told.states.len()] != wanted {
            return Err(Error::BadInput(format!(
                "{} numbers of actions and {} of states: {batch} windows of {frames} frames have {} and {}",
                told.actions.len(),
                told.states.len(),
                wanted[0],
                wanted[1]
            )));
        }
        let encoder = self.encoder(self.online[0].fixed(&device, self.recipe.dtype))?;
        let (mut predictor, leaves) = self.online[1].tracked(&device, self.recipe.dtype);
        predictor.recompute_blocks(self.recipe.gradient_checkpointing);
        let predictor = ActionPredictor::take(config, &device, &mut predictor)?;
        let tokens = encode_frames(&encoder, windows, &device)?;
        let [_, rows, columns] = config.grid_for(windows.size)?;
        let (patches, d) = (rows * columns, config.hidden_size);

        // The rows of some frames of windows of `of` frames.
        let of_windows = |x: Tensor<3>, of: usize, part: Range<usize>| {
            let of_window = |b: usize| {
                let first = b * of * patches;
                (first + part.start * patches..first + part.end * patches).collect()
            };
            let index: Vec<Vec<usize>> = (0..batch).map(of_window).collect();
            let index = Rows::new(&index, batch * of * patches, &device);
            ops::select(x, None, &index, None)
        };
        let first = |values: &[f32], of: usize, count: usize| -> Vec<f32> {
            let windows = values.chunks_exact(values.len() / batch);
            let size = values.len() / batch / of;
            windows.flat_map(|w| &w[..count * size]).copied().collect()
        };
        let told_until = |count: usize| {
            let actions = first(told.actions, steps, count);
            (actions, first(told.states, frames, count))
        };
        let (actions, states) = told_until(steps);
        let all = Told {
            actions: &actions,
            states: &states,
        };
        let seen = of_windows(tokens.clone(), frames, 0..steps);
        let forced = predictor.forward(seen, [steps, rows, columns], all)?;
        let forced = normalised(forced, 1, &device);

        let (mut root, mut losses) = (None, [0.0; 2]);
        let mut compare =
            async |part: usize, predicted: Tensor<3>, wanted: Tensor<3>, share: f64| {
                let distances = ops::distance(predicted, wanted, distance);
                let count = distances.dims()[0];
                let each = TensorData::new(vec![(share / count as f64) as f32; count], [count]);
                let more = ops::with_gradient(distances.clone(), ops::uploaded(each, &device));
                root = Some(match root.take() {
                    None => more,
                    Some(root) => ops::sum(root, more),
                });
                let distances = read_values(distances.inner()).await?;
                let mean = distances.iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64;
                losses[part] += share * mean;
                Ok::<(), Error>(())
            };
        let frame = |step: usize| of_windows(tokens.clone(), frames, step..step + 1);
        let follow = of_windows(tokens.clone(), frames, 1..frames);
        compare(0, forced.clone(), follow, 1.0).await?;

        let share = (auto_steps as f64).recip();
        let after = of_windows(forced, steps, 0..1);
        compare(1, after.clone(), frame(1), share).await?;
        if auto_steps > 1 {
            let before = ops::reshaped(frame(0), [batch * patches, d]);
            let both = ops::joined(ops::reshaped(after, [batch * patches, d]), before, &device);
            let index: Vec<Vec<usize>> = (0..batch)
                .map(|b| {
                    let own = b * patches..(b + 1) * patches;
                    let before = own.clone().map(|row| batch * patches + row);
                    before.chain(own).collect()
                })
                .collect();
            let index = Rows::new(&index, 2 * batch * patches, &device);
            let known = ops::select(both, None, &index, None);
            let (actions, states) = told_until(auto_steps);
            let until = Told {
                actions: &actions,
                states: &states,
            };
            let imagined = predictor.rollout(known, [2, rows, columns], auto_steps - 1, until)?;
            for (step, imagined) in (2..).zip(imagined) {
                compare(1, imagined, frame(step), share).await?;
            }
        }
        let root: Tensor<1> = root.ok_or_else(|| Error::Internal("there are no frames".into()))?;
        let leaves = [self.online[0].leaves(), leaves];
        Ok(Pass {
            loss: losses[0] + losses[1],
            parts: vec![("teacherForced", losses[0]), ("autoregressive", losses[1])],
            gradients: collected(&leaves, root.backward()),
            embeddings: ops::pooled(frame(frames - 1)),
            statistics: Vec::new(),
        })
    }
}

/// The part of one of the accumulated batches.
fn shared(values: &[f32], part: usize, accumulate: usize) -> &[f32] {
    let length = values.len() / accumulate;
    &values[part * length..(part + 1) * length]
}

/// Which `count` of `length` samples the step after `step` takes: each epoch goes through all of them in an order of its own, leaving out
/// the last, incomplete batch. `count` is at most `length`.
pub(super) fn shuffled(seed: u64, step: u64, length: usize, count: usize) -> Vec<usize> {
    let steps = steps_per_epoch(length as u64, count as u64);
    let order = Stream::new(seed, "order", step / steps).permutation(length);
    let first = (step % steps) as usize * count;
    order[first..first + count].to_vec()
}

/// Masks whose targets are predicted from their contexts.
struct Kind {
    context: Vec<Vec<usize>>,
    targets: Vec<Vec<Vec<usize>>>,
    mask_index: usize,
}

impl Kind {
    /// For each token of the context the inverse root of its distance to the nearest that is hidden, in tokens of `grid`: the
    /// weights of V-JEPA 2.1's dense loss.
    fn closeness(&self, [_, rows, columns]: [usize; 3]) -> Vec<f64> {
        let place = |token: usize| {
            [
                token / (rows * columns),
                token / columns % rows,
                token % columns,
            ]
        };
        let pictures = self.context.iter().enumerate();
        pictures
            .flat_map(|(picture, seen)| {
                let hidden: Vec<_> = self
                    .targets
                    .iter()
                    .flat_map(|block| &block[picture % block.len()])
                    .map(|&token| place(token))
                    .collect();
                seen.iter().map(move |&token| {
                    let own = place(token);
                    let squares = hidden.iter().map(|other| {
                        let apart = own.iter().zip(other).map(|(&a, &b)| a.abs_diff(b).pow(2));
                        apart.sum::<usize>()
                    });
                    // A token that is both seen and hidden counts as its neighbours do.
                    let nearest = squares.min().unwrap_or(1).max(1) as f64;
                    nearest.sqrt().sqrt().recip()
                })
            })
            .collect()
    }
}

impl Pass {
    /// The sum of both; embeddings follow each other.
    fn plus(self, other: Self, device: &Device) -> Self {
        let parts = self.parts.into_iter().zip(other.parts);
        let networks = self.gradients.into_iter().zip(other.gradients);
        Self {
            loss: self.loss + other.loss,
            parts: parts.map(|((name, a), (_, b))| (name, a + b)).collect(),
            gradients: networks
                .map(|(a, b)| {
                    a.into_iter()
                        .zip(b)
                        .map(|pair| match pair {
                            (Some(a), Some(b)) => Some(a.plus(b)),
                            (a, b) => a.or(b),
                        })
                        .collect()
                })
                .collect(),
            embeddings: ops::joined(self.embeddings, other.embeddings, device),
            statistics: self
                .statistics
                .into_iter()
                .chain(other.statistics)
                .collect(),
        }
    }
}

/// The encoder of trained networks as it computes: its adapters, where it has some, merged into it.
fn computing<'a>(online: &'a [Network], train: Train, device: &Device) -> Cow<'a, Network> {
    match (online, train) {
        ([encoder, _, adapters], Train::Lora(lora)) => {
            let values: Vec<Value> = adapters
                .parameters
                .iter()
                .map(|p| p.value.clone())
                .collect();
            Cow::Owned(encoder.with_values(lora.merged(encoder, &values, device)))
        }
        _ => Cow::Borrowed(&online[0]),
    }
}

fn last(mut outputs: Vec<Tensor<3>>) -> Tensor<3> {
    outputs.swap_remove(outputs.len() - 1)
}

/// The gradients of every network's leaves.
pub(super) fn collected(
    leaves: &[Vec<Value>],
    mut gradients: Gradients,
) -> Vec<Vec<Option<Value>>> {
    let mut of = |leaf: &Value| leaf.gradient(&mut gradients);
    let networks = leaves.iter();
    networks
        .map(|leaves| leaves.iter().map(&mut of).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn the_dense_loss_weighs_tokens_by_the_root_of_their_distance_to_what_is_hidden() {
        // Two clips of 2 × 3 × 5 tokens: hidden are (0, 0, 0) and, in a second block, (1, 2, 2) of the first, (0, 1, 4) and (0, 1, 3) of
        // the second.
        let kind = Kind {
            context: vec![vec![1, 4, 10, 29], vec![4, 18, 25, 8]],
            targets: vec![vec![vec![0], vec![9]], vec![vec![27], vec![8]]],
            mask_index: 0,
        };
        // Square distances: (0, 0, 1) 1; (0, 0, 4) 1 + 4 + 4; (0, 2, 0) 4 from the first; (1, 2, 4) 4. Then (0, 0, 4) 1; (1, 0, 3) 1 + 1;
        // (1, 2, 0) 1 + 1 + 9; and (0, 1, 3), which is hidden itself.
        let squares = [1.0f64, 9.0, 4.0, 4.0, 1.0, 2.0, 11.0, 1.0];
        let weights = kind.closeness([2, 3, 5]);
        assert_eq!(weights.len(), squares.len());
        for (weight, square) in weights.into_iter().zip(squares) {
            let wanted = square.powf(-0.25);
            assert!((weight - wanted).abs() < 1e-12, "{weight} for {wanted}");
        }
    }
}
