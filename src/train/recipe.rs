//! What a run of training is: everything that, with the pictures, decides its numbers.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::lora::Lora;
use super::schedule::Schedule;
use crate::config::{ModelConfig, System};
use crate::device::Precision;
use crate::input::augment::Augmentation;
use crate::input::processor::{IMAGENET_MEAN, IMAGENET_STD};
use crate::mask::{MaskType, Multiblock, Multiblock3d, Strategy};
use crate::objective::distance::Distance;
use crate::objective::lejepa::{Form, LAMBDA, LeJepa};
use crate::objective::lewm::{LeWmLoss, WEIGHT};
use crate::objective::sigreg::SigReg;
use crate::{Error, Result};

const MAX_BATCH: usize = 1 << 16;
const MAX_ACCUMULATE: usize = 1 << 12;
const MAX_VIEWS: usize = 64;
const MAX_PROJECTOR: usize = 1 << 14;

/// A run of training.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipe {
    /// Sizes of the encoder, and of the predictor where the objective has one.
    pub model: ModelConfig,
    /// What is learnt.
    pub objective: Objective,
    /// Decides every random number of the run.
    pub seed: u64,
    /// Pictures of a batch.
    pub batch_size: usize,
    /// Batches whose gradients are averaged before the optimizer steps.
    pub accumulate: usize,
    /// Learning rate, weight decay and momentum over the run.
    pub schedule: Schedule,
    /// AdamW.
    pub optimizer: Optimizer,
    /// How masks are chosen; used by I-JEPA.
    pub masks: Strategy,
    /// How pictures become views, the objective's global ones first.
    pub views: Vec<ViewGroup>,
    /// The head of LeJEPA.
    pub projector: Projector,
    /// What is trained.
    pub train: Train,
    /// Mean and standard deviation that pixels are normalised with.
    pub normalization: Normalization,
    /// Whether fresh weights are rescaled by depth; see [`super::init::fresh`].
    pub depth_rescale: bool,
    /// How passes read matrices: as they are (f32), or rounded (f16). What is trained, its moments and its gradients are f32.
    pub dtype: Precision,
    /// Whether blocks keep their input alone and compute the rest again for their gradients: less memory, a third more time.
    pub gradient_checkpointing: bool,
}

/// Views that are made alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ViewGroup {
    /// How many of each picture.
    pub count: usize,
    /// How.
    pub augmentation: Augmentation,
}

/// What is learnt, and from what.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Objective {
    /// I-JEPA: the embeddings of masked blocks, as a moving average of the encoder gives them, from the visible tokens.
    #[serde(rename = "ijepa", rename_all = "camelCase")]
    Ijepa {
        /// Where the smooth L1 distance becomes linear; 1 as published.
        beta: f64,
        /// Whether targets are constants, as published. Without it, and with an `ema` of 0, embeddings collapse: for study.
        stop_gradient: bool,
    },
    /// V-JEPA 1, 2 and 2.1: the embeddings of hidden space-time, each kind of mask by itself.
    #[serde(rename = "vjepa", rename_all = "camelCase")]
    Vjepa {
        /// Exponent `p` of the distance `|z − h|^p / p`; 1 as published.
        power: f64,
        /// The loss at the places of the context, which V-JEPA 2.1 has.
        context_loss: Option<ContextLoss>,
    },
    /// LeJEPA: views of a picture come together while embeddings stay Gaussian.
    #[serde(rename = "lejepa", rename_all = "camelCase")]
    Lejepa {
        /// One of the published sums of the two terms.
        form: LejepaForm,
        /// Weight of SIGReg.
        lambda: f64,
        /// Directions that a step tests.
        slices: usize,
    },
    /// LeWorldModel: the next embedding from the last ones and the actions between, while embeddings stay Gaussian.
    #[serde(rename = "lewm", rename_all = "camelCase")]
    Lewm {
        /// Weight of SIGReg.
        weight: f64,
        /// Directions that a step tests.
        slices: usize,
        /// Weight of the differences between one step and the next; 0 as published. See [`LeWmLoss`].
        similarity: f64,
    },
    /// V-JEPA 2-AC: the next frame's patches, as an encoder that stays as it is gives them, from the last frames, actions and states.
    #[serde(rename = "vjepa2-ac", rename_all = "camelCase")]
    VJepa2Ac {
        /// Exponent `p` of the distance `|z − h|^p / p`; 1 as published.
        power: f64,
        /// Frames of a window; 8 as published.
        frames: usize,
        /// Frames that are predicted from predictions; 2 as published, of which the first is that of teacher forcing.
        auto_steps: usize,
    },
}

impl Objective {
    /// The distance of predictions from their targets; none where nothing is predicted.
    pub fn distance(self) -> Option<Distance> {
        match self {
            Self::Ijepa { beta, .. } => Some(Distance::SmoothL1 { beta }),
            Self::Vjepa { power, .. } | Self::VJepa2Ac { power, .. } => {
                Some(Distance::L1 { power })
            }
            Self::Lejepa { .. } | Self::Lewm { .. } => None,
        }
    }

    /// Its `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ijepa { .. } => "ijepa",
            Self::Vjepa { .. } => "vjepa",
            Self::Lejepa { .. } => "lejepa",
            Self::Lewm { .. } => "lewm",
            Self::VJepa2Ac { .. } => "vjepa2-ac",
        }
    }
}

/// V-JEPA 2.1's dense loss: what becomes of the context's tokens in the predictor is compared with their targets, too. Defaults are
/// those of its pretraining.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ContextLoss {
    /// Its weight.
    pub weight: f64,
    /// The last step at which it counts nothing.
    pub from_step: u64,
    /// The first step at which it has its full weight; linear in between.
    pub full_step: u64,
    /// Whether a token counts the less the farther it is from what is hidden: `1 / √distance`, in tokens. The published cooldown does
    /// without.
    pub by_distance: bool,
}

impl Default for ContextLoss {
    fn default() -> Self {
        Self {
            weight: 0.5,
            from_step: 15_000,
            full_step: 30_000,
            by_distance: true,
        }
    }
}

impl ContextLoss {
    /// Its weight at a step, counted from 1.
    pub fn weight_at(&self, step: u64) -> f64 {
        if step >= self.full_step {
            return self.weight;
        }
        let gone = step.saturating_sub(self.from_step) as f64;
        self.weight * gone / (self.full_step - self.from_step).max(1) as f64
    }
}

/// See [`Form`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LejepaForm {
    /// LeJEPA's minimal example.
    Minimal,
    /// Algorithm 2 of its paper.
    Paper,
    /// stable-pretraining.
    StablePretraining,
}

/// AdamW's constants, with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Optimizer {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Largest norm of all gradients together; none as I-JEPA and V-JEPA 2 have it.
    pub clip: Option<f64>,
    /// Whether the limit is for the gradients of each network by itself, as V-JEPA 1 has it.
    pub clip_each: bool,
    /// Whether gradients are clipped after the warm-up only, as V-JEPA 1 has it.
    pub clip_after_warmup: bool,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            clip: None,
            clip_each: false,
            clip_after_warmup: false,
        }
    }
}

impl Optimizer {
    /// V-JEPA 1's: the gradients of each network are clipped to 10 once the warm-up is over.
    fn vjepa() -> Self {
        Self {
            clip: Some(10.0),
            clip_each: true,
            clip_after_warmup: true,
            ..Self::default()
        }
    }

    /// LeWorldModel's: all gradients together are clipped to 1.
    fn lewm() -> Self {
        Self {
            clip: Some(1.0),
            ..Self::default()
        }
    }
}

/// LeJEPA's head: two hidden layers with BatchNorm and ReLU. Used in training only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Projector {
    /// Width of the hidden layers.
    pub hidden_size: usize,
    /// Width of the output, in which the loss is computed.
    pub size: usize,
}

impl Default for Projector {
    /// LeJEPA's minimal example: 2048 → 2048 → 16.
    fn default() -> Self {
        Self {
            hidden_size: 2048,
            size: 16,
        }
    }
}

/// What of a loaded model is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Train {
    /// Everything.
    #[default]
    Full,
    /// The encoder's last blocks and final norm; and the predictor.
    LastBlocks(usize),
    /// Low-rank adapters of the encoder's `qkv` and MLPs; and the predictor.
    Lora(Lora),
}

/// Statistics of pixels from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Normalization {
    /// One for each channel.
    pub mean: Vec<f64>,
    /// One for each channel.
    pub std: Vec<f64>,
}

impl Normalization {
    /// ImageNet's, for three channels; 0.5 and 0.5 for others.
    pub fn published(channels: usize) -> Self {
        match channels {
            3 => Self {
                mean: IMAGENET_MEAN.to_vec(),
                std: IMAGENET_STD.to_vec(),
            },
            _ => Self {
                mean: vec![0.5; channels],
                std: vec![0.5; channels],
            },
        }
    }
}

/// The options of a run as a caller gives them; what is left out has the recipe's published value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// A preset's name, or [`ModelConfig`]'s own object.
    pub model: Option<Json>,
    /// `"ijepa"`, `"vjepa"`, `"lejepa"`, `"lewm"`, `"vjepa2-ac"`, or an object with that as its `kind`.
    pub objective: Option<Json>,
    /// Default 0.
    pub seed: u64,
    /// Required.
    pub batch_size: Option<usize>,
    /// Default 1.
    pub accumulate: Option<usize>,
    /// What differs from the objective's [`Schedule`].
    pub schedule: Option<Json>,
    /// What differs from the objective's [`Optimizer`].
    pub optimizer: Option<Json>,
    /// See [`Strategy`].
    pub masks: Option<Strategy>,
    /// Of all views, or a list of [`ViewGroup`]s.
    pub augmentation: Option<Json>,
    /// See [`Projector`].
    pub projector: Option<Projector>,
    /// See [`Train`].
    pub train: Option<Train>,
    /// Default ImageNet's.
    pub normalization: Option<Normalization>,
    /// Default false, and true for V-JEPA 2 and later, as published.
    pub depth_rescale: Option<bool>,
    /// `"f32"` or `"f16"`. Default f32.
    pub dtype: Precision,
    /// See [`Recipe::gradient_checkpointing`]. Default false.
    pub gradient_checkpointing: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IjepaOptions {
    beta: Option<f64>,
    stop_gradient: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VjepaOptions {
    power: Option<f64>,
    context_loss: Option<ContextLoss>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LejepaOptions {
    form: Option<LejepaForm>,
    lambda: Option<f64>,
    slices: Option<usize>,
    views: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LewmOptions {
    weight: Option<f64>,
    slices: Option<usize>,
    similarity: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VJepa2AcOptions {
    power: Option<f64>,
    frames: Option<usize>,
    auto_steps: Option<usize>,
}

impl Options {
    /// Reads options as JSON.
    ///
    /// # Errors
    /// [`Error::BadConfig`], naming what cannot be read.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|e| Error::BadConfig(format!("the options of training cannot be read: {e}")))
    }

    /// The recipe of these options for a fresh model, or for `loaded`, which then must not be named.
    ///
    /// # Errors
    /// [`Error::BadConfig`], [`Error::BadMask`] where masks cannot be drawn, [`Error::Unsupported`] for objectives of later
    /// versions.
    pub fn recipe(self, loaded: Option<ModelConfig>) -> Result<Recipe> {
        let model = match (self.model, loaded) {
            (None, Some(loaded)) => loaded,
            (Some(Json::String(name)), None) => ModelConfig::preset(&name)?,
            (Some(object), None) => ModelConfig::from_json(&object.to_string())?,
            (Some(_), Some(_)) => {
                return Err(bad(
                    "the model comes from the checkpoint; leave out `model`",
                ));
            }
            (None, None) => return Err(bad("`model` is missing: name a preset or give sizes")),
        };
        let batch_size = self
            .batch_size
            .ok_or_else(|| bad("`batchSize` is missing"))?;
        let (objective, views) = objective(self.objective, &model)?;
        let views = match self.augmentation {
            None => views,
            Some(list @ Json::Array(_)) => serde_json::from_value(list)
                .map_err(|e| bad(format!("`augmentation` cannot be read: {e}")))?,
            Some(one) => {
                let augmentation: Augmentation = serde_json::from_value(one)
                    .map_err(|e| bad(format!("`augmentation` cannot be read: {e}")))?;
                let count = views.iter().map(|group| group.count).sum();
                vec![ViewGroup {
                    count,
                    augmentation,
                }]
            }
        };
        let steps = self.schedule.as_ref().and_then(|s| s["steps"].as_u64());
        let steps = steps.unwrap_or(Schedule::default().steps);
        let (schedule, optimizer) = match (objective, model.system) {
            (Objective::Lewm { .. }, _) => (Schedule::lewm(steps), Optimizer::lewm()),
            (Objective::VJepa2Ac { .. }, _) => (Schedule::vjepa2_ac(steps), Optimizer::default()),
            (Objective::Vjepa { .. }, System::VJepa) => {
                (Schedule::vjepa(steps), Optimizer::vjepa())
            }
            (Objective::Vjepa { .. }, System::VJepa2) => {
                (Schedule::vjepa2(steps), Optimizer::default())
            }
            (Objective::Vjepa { .. }, System::VJepa21) => {
                (Schedule::vjepa21(steps), Optimizer::default())
            }
            _ => Default::default(),
        };
        // Without a limit there is nothing to say of how it is meant.
        let unlimited = |given: &Json| given.get("clip").is_some_and(Json::is_null);
        let optimizer = match self.optimizer.as_ref().is_some_and(unlimited) {
            true => Optimizer::default(),
            false => optimizer,
        };
        let rescales = matches!(model.system, System::VJepa2 | System::VJepa21);
        let recipe = Recipe {
            normalization: self
                .normalization
                .unwrap_or_else(|| Normalization::published(model.channels)),
            model,
            objective,
            seed: self.seed,
            batch_size,
            accumulate: self.accumulate.unwrap_or(1),
            schedule: scheduled(schedule, self.schedule)?,
            optimizer: changed("optimizer", optimizer, self.optimizer)?,
            masks: self.masks.unwrap_or_else(|| match objective {
                Objective::Vjepa { .. } => Strategy::Multiblock3d(Multiblock3d {
                    types: vec![MaskType::short_range(), MaskType::long_range()],
                }),
                _ => Strategy::Multiblock(Multiblock::default()),
            }),
            views,
            projector: self.projector.unwrap_or_default(),
            train: self.train.unwrap_or_default(),
            depth_rescale: self.depth_rescale.unwrap_or(rescales),
            dtype: self.dtype,
            gradient_checkpointing: self.gradient_checkpointing,
        };
        recipe.check()?;
        Ok(recipe)
    }
}

/// The published numbers with those of an object in their place.
fn changed<T: Serialize + serde::de::DeserializeOwned>(
    what: &str,
    published: T,
    given: Option<Json>,
) -> Result<T> {
    let Some(given) = given else {
        return Ok(published);
    };
    let unreadable = |e: &dyn std::fmt::Display| bad(format!("`{what}` cannot be read: {e}"));
    let Json::Object(given) = given else {
        return Err(unreadable(&format!("{given} is no object")));
    };
    let mut numbers = serde_json::to_value(published).map_err(|e| unreadable(&e))?;
    for (key, value) in given {
        numbers[key] = value;
    }
    serde_json::from_value(numbers).map_err(|e| unreadable(&e))
}

/// The published schedule with what of an object is in its place. What is constant as published stays so where another value is given.
fn scheduled(published: Schedule, mut given: Option<Json>) -> Result<Schedule> {
    let ends = [
        ("lr", "finalLr", published.lr == published.final_lr),
        (
            "weightDecay",
            "finalWeightDecay",
            published.weight_decay == published.final_weight_decay,
        ),
        ("ema", "finalEma", published.ema == published.final_ema),
    ];
    if let Some(Json::Object(given)) = &mut given {
        for (first, last, constant) in ends {
            if let (true, Some(value)) = (constant, given.get(first).cloned()) {
                given.entry(last).or_insert(value);
            }
        }
    }
    changed("schedule", published, given)
}

fn objective(json: Option<Json>, model: &ModelConfig) -> Result<(Objective, Vec<ViewGroup>)> {
    let mut object = match json {
        None => {
            return Err(bad(
                "`objective` is missing: \"ijepa\", \"vjepa\", \"lejepa\", \"lewm\" or \"vjepa2-ac\"",
            ));
        }
        Some(Json::String(kind)) => serde_json::Map::from_iter([("kind".into(), kind.into())]),
        Some(Json::Object(object)) => object,
        Some(other) => {
            return Err(bad(format!(
                "`objective` is a name or an object with a `kind`, not {other}"
            )));
        }
    };
    let kind = match object.remove("kind") {
        Some(Json::String(kind)) => kind,
        _ => return Err(bad("`objective` has no `kind`")),
    };
    let rest = Json::Object(object);
    let read = |e| bad(format!("the objective {kind} cannot be read: {e}"));
    let size = model.image_size;
    let one = |augmentation| ViewGroup {
        count: 1,
        augmentation,
    };
    match kind.as_str() {
        "ijepa" => {
            let options: IjepaOptions = serde_json::from_value(rest).map_err(read)?;
            let objective = Objective::Ijepa {
                beta: options.beta.unwrap_or(1.0),
                stop_gradient: options.stop_gradient.unwrap_or(true),
            };
            Ok((objective, vec![one(Augmentation::i_jepa(size))]))
        }
        "vjepa" => {
            let options: VjepaOptions = serde_json::from_value(rest).map_err(read)?;
            let dense = model.system == System::VJepa21;
            let objective = Objective::Vjepa {
                power: options.power.unwrap_or(1.0),
                context_loss: options.context_loss.or(dense.then(ContextLoss::default)),
            };
            Ok((objective, vec![one(Augmentation::v_jepa(size))]))
        }
        "lejepa" => {
            let options: LejepaOptions = serde_json::from_value(rest).map_err(read)?;
            let objective = Objective::Lejepa {
                form: options.form.unwrap_or(LejepaForm::Minimal),
                lambda: options.lambda.unwrap_or(LAMBDA),
                slices: options.slices.unwrap_or(256),
            };
            let views = ViewGroup {
                count: options.views.unwrap_or(4),
                augmentation: Augmentation::le_jepa_minimal(size),
            };
            Ok((objective, vec![views]))
        }
        "lewm" => {
            let options: LewmOptions = serde_json::from_value(rest).map_err(read)?;
            let objective = Objective::Lewm {
                weight: options.weight.unwrap_or(WEIGHT),
                slices: options.slices.unwrap_or(1024),
                similarity: options.similarity.unwrap_or(0.0),
            };
            Ok((objective, vec![one(Augmentation::whole(size))]))
        }
        "vjepa2-ac" => {
            let options: VJepa2AcOptions = serde_json::from_value(rest).map_err(read)?;
            let objective = Objective::VJepa2Ac {
                power: options.power.unwrap_or(1.0),
                frames: options.frames.unwrap_or(8),
                auto_steps: options.auto_steps.unwrap_or(2),
            };
            let augmentation = Augmentation {
                antialias: false,
                ..Augmentation::whole(size)
            };
            Ok((objective, vec![one(augmentation)]))
        }
        _ => Err(bad(format!(
            "the objective \"{kind}\" is unknown: use \"ijepa\", \"vjepa\", \"lejepa\", \"lewm\" or \"vjepa2-ac\""
        ))),
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::BadConfig(why.into())
}

impl Recipe {
    /// Reads a recipe as it was saved.
    ///
    /// # Errors
    /// [`Error::BadCheckpoint`] for what no version of this library wrote, else as [`Options::recipe`].
    pub fn from_json(text: &str) -> Result<Self> {
        let json: Json = serde_json::from_str(text)
            .map_err(|e| Error::BadCheckpoint(format!("the saved recipe cannot be read: {e}")))?;
        let Json::Object(mut object) = json else {
            return Err(Error::BadCheckpoint("the saved recipe is no object".into()));
        };
        if let Some(views) = object.remove("views") {
            object.insert("augmentation".into(), views);
        }
        let options: Options = serde_json::from_value(Json::Object(object))
            .map_err(|e| Error::BadCheckpoint(format!("the saved recipe cannot be read: {e}")))?;
        options.recipe(None)
    }

    /// Checks that options, as JSON, say nothing else than this recipe.
    ///
    /// # Errors
    /// [`Error::BadConfig`], naming the first that does.
    pub fn agree(&self, options: &str) -> Result<()> {
        let own = serde_json::to_value(self)
            .map_err(|e| Error::Internal(format!("the recipe cannot be compared: {e}")))?;
        let Ok(Json::Object(options)) = serde_json::from_str(options) else {
            return Ok(());
        };
        for (key, wanted) in &options {
            if !contains(&own[key], wanted) {
                return Err(bad(format!(
                    "the saved run has `{key}` {}, not {wanted}: leave it out, or start a new run",
                    own[key]
                )));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let within = |what: &str, value: usize, max: usize| match (1..=max).contains(&value) {
            true => Ok(()),
            false => Err(bad(format!(
                "{what} must be from 1 to {max}, found {value}"
            ))),
        };
        within("batchSize", self.batch_size, MAX_BATCH)?;
        within("accumulate", self.accumulate, MAX_ACCUMULATE)?;
        if self.dtype == Precision::Q8 {
            return Err(bad(
                "training reads weights in \"f32\" or \"f16\": int8 has no gradient",
            ));
        }
        self.schedule.check()?;
        let Optimizer {
            beta1,
            beta2,
            eps,
            clip,
            clip_each,
            clip_after_warmup,
        } = self.optimizer;
        if !((0.0..1.0).contains(&beta1) && (0.0..1.0).contains(&beta2) && eps > 0.0) {
            return Err(bad(format!(
                "AdamW needs 0 ≤ beta < 1 and eps > 0, found {beta1}, {beta2} and {eps}"
            )));
        }
        if clip.is_some_and(|clip| !(clip.is_finite() && clip > 0.0)) {
            return Err(bad("`clip` must be above 0, or be left out"));
        }
        if clip.is_none() && (clip_each || clip_after_warmup) {
            return Err(bad(
                "`clipEach` and `clipAfterWarmup` say how `clip` is meant: give it, too",
            ));
        }
        let channels = self.model.channels;
        if self.normalization.mean.len() != channels || self.normalization.std.len() != channels {
            return Err(bad(format!(
                "the normalization must have {channels} means and deviations, one for each channel"
            )));
        }
        if self.views.is_empty() {
            return Err(bad("there is no view of a picture"));
        }
        for group in &self.views {
            within("the number of views", group.count, MAX_VIEWS)?;
            group.augmentation.check()?;
            self.model.grid_for(group.augmentation.size)?;
        }
        let views: usize = self.views.iter().map(|group| group.count).sum();
        let video = self.model.is_video();
        let of_video = matches!(
            self.objective,
            Objective::Vjepa { .. } | Objective::VJepa2Ac { .. }
        );
        if video != of_video {
            return Err(bad(format!(
                "the objective \"{}\" is not for the system {}: clips are for \"vjepa\" and \"vjepa2-ac\", pictures for \"ijepa\" and \"lejepa\"",
                self.objective.name(),
                self.model.system.name()
            )));
        }
        let of_actions = self.model.system == System::LeWm;
        if of_actions != matches!(self.objective, Objective::Lewm { .. }) {
            return Err(bad(format!(
                "the objective \"{}\" is not for the system {}: \"lewm\" is for lewm, and lewm for nothing else",
                self.objective.name(),
                self.model.system.name()
            )));
        }
        if let Objective::Vjepa {
            context_loss: Some(dense),
            ..
        } = self.objective
        {
            if self.model.system != System::VJepa21 {
                return Err(bad("`contextLoss` is for V-JEPA 2.1"));
            }
            let weighs = dense.weight.is_finite() && dense.weight >= 0.0;
            if !weighs || dense.full_step < dense.from_step {
                return Err(bad(
                    "`contextLoss` has a weight from 0 on, and a `fullStep` that does not come before its `fromStep`",
                ));
            }
        }
        match self.objective {
            Objective::Ijepa { .. } | Objective::Vjepa { .. } => {
                if let Some(distance) = self.objective.distance() {
                    distance.check()?;
                }
                let name = self.objective.name();
                if views != 1 {
                    return Err(bad(format!("{name} takes one view, not {views}")));
                }
                let Some(predictor) = &self.model.predictor else {
                    return Err(bad(format!(
                        "{name} needs a predictor: give its sizes in `model`"
                    )));
                };
                if predictor.actions.is_some() {
                    return Err(bad(
                        "a predictor with actions is trained with the objective \"vjepa2-ac\"",
                    ));
                }
                if predictor.output_size != predictor.levels * self.model.hidden_size {
                    return Err(bad(
                        "a distilled predictor has a teacher of another width: it cannot be trained on its own encoder",
                    ));
                }
                if let (Objective::Vjepa { .. }, Strategy::Multiblock3d(masks)) =
                    (self.objective, &self.masks)
                    && self.model.system == System::VJepa
                    && masks.types.len() > predictor.mask_tokens
                {
                    return Err(bad(format!(
                        "there are {} kinds of masks, and the predictor has {} mask tokens",
                        masks.types.len(),
                        predictor.mask_tokens
                    )));
                }
                let grid = self.model.grid_for(self.views[0].augmentation.size)?;
                self.masks.check(grid)?;
            }
            Objective::Lejepa { .. } => {
                within(
                    "projector.hiddenSize",
                    self.projector.hidden_size,
                    MAX_PROJECTOR,
                )?;
                within("projector.size", self.projector.size, MAX_PROJECTOR)?;
                if views < 2 {
                    return Err(bad("LeJEPA compares views of a picture: give two at least"));
                }
                if self.batch_size < 2 {
                    return Err(bad("LeJEPA needs a batch of two pictures at least"));
                }
                if let Some(loss) = self.lejepa() {
                    loss.sigreg.check()?;
                }
            }
            Objective::Lewm { .. } => {
                if views != 1 {
                    return Err(bad(format!("lewm takes one view, not {views}")));
                }
                if self.batch_size < 2 {
                    return Err(bad("lewm needs a batch of two windows at least"));
                }
                if let Some(loss) = self.lewm() {
                    loss.check()?;
                    loss.sigreg.check()?;
                }
            }
            Objective::VJepa2Ac {
                power,
                frames,
                auto_steps,
            } => {
                Distance::L1 { power }.check()?;
                if views != 1 {
                    return Err(bad(format!("vjepa2-ac takes one view, not {views}")));
                }
                let predictor = self.model.predictor.as_ref();
                if predictor.is_none_or(|p| p.actions.is_none()) {
                    return Err(bad(
                        "vjepa2-ac needs a predictor with actions: give its `actions` in `model.predictor`",
                    ));
                }
                // What is trained on must be what is planned with.
                let most = self.model.grid()[0] + 1;
                if !(2..=most).contains(&frames) {
                    return Err(bad(format!(
                        "windows of {frames} frames cannot be trained on: use 2 to {most}, as the model's clips have {} time steps",
                        most - 1
                    )));
                }
                within("objective.autoSteps", auto_steps, frames - 1)?;
                if self.views[0].augmentation.size != self.model.image_size {
                    return Err(bad(
                        "vjepa2-ac is trained on frames of the model's own size: leave out `augmentation.size`, or make it that",
                    ));
                }
                if self.train != Train::Full {
                    return Err(bad(
                        "of vjepa2-ac the predictor is trained and the encoder stays as it is: leave out `train`",
                    ));
                }
            }
        }
        match self.train {
            Train::Full => Ok(()),
            Train::LastBlocks(blocks) => within("train.lastBlocks", blocks, self.model.layers),
            Train::Lora(Lora { rank, alpha }) => {
                within("train.lora.rank", rank, self.model.hidden_size)?;
                match alpha.is_none_or(|alpha| alpha.is_finite() && alpha > 0.0) {
                    true => Ok(()),
                    false => Err(bad("train.lora.alpha must be above 0, or be left out")),
                }
            }
        }
    }

    /// The loss, where the objective is LeJEPA.
    pub fn lejepa(&self) -> Option<LeJepa> {
        let Objective::Lejepa {
            form,
            lambda,
            slices,
        } = self.objective
        else {
            return None;
        };
        let global_views = self.views[0].count;
        let (form, preset) = match form {
            LejepaForm::Minimal => (Form::Minimal, "minimal"),
            LejepaForm::Paper => (Form::Paper { global_views }, "library"),
            LejepaForm::StablePretraining => (
                Form::StablePretraining { global_views },
                "stable-pretraining",
            ),
        };
        let sigreg = SigReg::preset(preset).ok()?;
        Some(LeJepa {
            form,
            lambda,
            sigreg: SigReg { slices, ..sigreg },
        })
    }

    /// The loss, where the objective is LeWorldModel's.
    pub fn lewm(&self) -> Option<LeWmLoss> {
        let Objective::Lewm {
            weight,
            slices,
            similarity,
        } = self.objective
        else {
            return None;
        };
        let sigreg = SigReg::preset("lewm").ok()?;
        Some(LeWmLoss {
            weight,
            sigreg: SigReg { slices, ..sigreg },
            similarity,
        })
    }

    /// Frames that belong together: of a clip, or of a window of a world model, whose last frame is predicted only.
    pub fn frames(&self) -> usize {
        match (&self.model.lewm, self.objective) {
            (Some(lewm), _) => lewm.history + 1,
            (None, Objective::VJepa2Ac { frames, .. }) => frames,
            (None, _) => self.model.frames,
        }
    }

    /// Pictures of a step: those of all accumulated batches.
    pub fn pictures(&self) -> usize {
        self.batch_size * self.accumulate
    }
}

/// Whether `json` is `part`, or an object that has everything that `part` has.
fn contains(json: &Json, part: &Json) -> bool {
    match (json, part) {
        (Json::Object(json), Json::Object(part)) => part
            .iter()
            .all(|(key, part)| json.get(key).is_some_and(|json| contains(json, part))),
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (json, part) => json == part,
    }
}
